//! The ids of client calls. Pure.
//!
//! A call keeps the model's id if the id is unique in the turn and valid in a later request. Otherwise the call gets
//! another id, because a client cannot answer two calls with one id, or a call whose id the service would refuse.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::engine::MAX_CALL_ID_BYTES;

/// The call ids of one turn.
#[derive(Debug, Default)]
pub(crate) struct CallIds {
    used: HashSet<String>,
    /// The assigned ids without an output, by Codex's id. Outputs arrive in the order of the calls.
    assigned: HashMap<String, VecDeque<String>>,
}

impl CallIds {
    /// Returns the id for a client call, from Codex's id of the call and the id of the turn.
    pub(crate) fn assign(&mut self, codex_id: &str, turn_id: &str) -> String {
        let is_usable = !codex_id.is_empty()
            && codex_id.len() <= MAX_CALL_ID_BYTES
            && !codex_id.chars().any(char::is_control)
            && !self.used.contains(codex_id);
        let id = if is_usable { codex_id.to_owned() } else { format!("call_{turn_id}_{}", self.used.len()) };
        self.used.insert(id.clone());
        self.assigned.entry(codex_id.to_owned()).or_default().push_back(id.clone());
        id
    }

    /// Reserves the id of one of Codex's own calls. Such a call keeps its id.
    pub(crate) fn reserve(&mut self, id: &str) {
        self.used.insert(id.to_owned());
    }

    /// Returns the id of the client call whose output arrives. Returns `None` if no client call is waiting for one.
    pub(crate) fn resolve_output(&mut self, codex_id: &str) -> Option<String> {
        self.assigned.get_mut(codex_id)?.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assign_unusable_id_returns_a_new_id() {
        let mut ids = CallIds::default();
        let long = "x".repeat(MAX_CALL_ID_BYTES);
        assert_eq!(ids.assign(&long, "t"), long);
        for codex_id in [format!("{long}x"), "a\0b".to_owned(), "a\nb".to_owned()] {
            let id = ids.assign(&codex_id, "t");
            assert!(id.starts_with("call_t_"));
            assert_eq!(ids.resolve_output(&codex_id), Some(id));
        }
    }

    #[test]
    fn assign_empty_repeated_or_reserved_id_returns_a_new_id() {
        let mut ids = CallIds::default();
        ids.reserve("own");
        let assigned = ["a", "b", "a", "", "", "own", "a"].map(|codex_id| ids.assign(codex_id, "t"));
        assert_eq!(&assigned[..2], ["a", "b"]);
        assert!(assigned[2..].iter().all(|id| id.starts_with("call_t_")), "{assigned:?}");
        assert_eq!(assigned.iter().collect::<HashSet<_>>().len(), 7);
        let outputs = ["a", "b", "a", "a"].map(|codex_id| ids.resolve_output(codex_id).unwrap());
        assert_eq!(outputs, [0, 1, 2, 6].map(|index: usize| assigned[index].clone()));
        assert_eq!((ids.resolve_output("a"), ids.resolve_output("else")), (None, None));
    }
}
