//! The ids of the client's calls: the model's, where they tell one call of the turn from the others. A client could not
//! answer two calls of one id, or one whose id our own doors would not take back. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::engine::MAX_CALL_ID_BYTES;

/// The ids of one turn.
#[derive(Debug, Default)]
pub(crate) struct CallIds {
    used: HashSet<String>,
    /// The ids that calls got, by those that Codex knows: outputs come in the order of their calls.
    given: HashMap<String, VecDeque<String>>,
}

impl CallIds {
    /// The id of a call of the client's that Codex knows as `told`, in the turn with this id.
    pub(crate) fn of_call(&mut self, told: &str, turn: &str) -> String {
        let id = if told.is_empty()
            || told.len() > MAX_CALL_ID_BYTES
            || told.chars().any(char::is_control)
            || self.used.contains(told)
        {
            format!("call_{turn}_{}", self.used.len())
        } else {
            told.to_owned()
        };
        self.used.insert(id.clone());
        self.given.entry(told.to_owned()).or_default().push_back(id.clone());
        id
    }

    /// Notes the id of one of Codex's own calls, which keeps it.
    pub(crate) fn of_own(&mut self, id: &str) {
        self.used.insert(id.to_owned());
    }

    /// The id of the client's call whose output comes next; none if no such call waits for one.
    pub(crate) fn of_output(&mut self, told: &str) -> Option<String> {
        self.given.get_mut(told)?.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_would_not_be_taken_back_is_replaced() {
        let mut ids = CallIds::default();
        let long = "x".repeat(MAX_CALL_ID_BYTES);
        assert_eq!(ids.of_call(&long, "t"), long);
        for told in [format!("{long}x"), "a\0b".to_owned(), "a\nb".to_owned()] {
            let id = ids.of_call(&told, "t");
            assert!(id.starts_with("call_t_"));
            assert_eq!(ids.of_output(&told), Some(id));
        }
    }

    #[test]
    fn an_id_is_the_models_unless_it_has_none_or_has_it_twice() {
        let mut ids = CallIds::default();
        ids.of_own("own");
        let given = ["a", "b", "a", "", "", "own", "a"].map(|told| ids.of_call(told, "t"));
        assert_eq!(&given[..2], ["a", "b"]);
        assert!(given[2..].iter().all(|id| id.starts_with("call_t_")), "{given:?}");
        assert_eq!(given.iter().collect::<HashSet<_>>().len(), 7);
        let outputs = ["a", "b", "a", "a"].map(|told| ids.of_output(told).unwrap());
        assert_eq!(outputs, [0, 1, 2, 6].map(|index: usize| given[index].clone()));
        assert_eq!((ids.of_output("a"), ids.of_output("else")), (None, None));
    }
}
