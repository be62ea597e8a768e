//! The prompt-cache key of a conversation that has no live thread. Pure, and computed from the request alone, so that every
//! branch of the conversation, every worker and every replica has the same key, also after a restart.

use uuid::Uuid;

use crate::{
    config::Profile,
    engine::{Part, Role, Turn},
};

/// The namespace of the keys. Another namespace invalidates the upstream's caches once.
const NAMESPACE: Uuid = Uuid::from_u128(0x5f0c_8d43_6e1b_5b7e_9a52_c0de_ca9e_0001);

/// Maximum length of one piece of a key's name, in bytes. Conversations that begin with the same bytes up to there may have
/// one key, because they share what the upstream caches.
const MAX_PIECE_BYTES: usize = 64 << 10;

/// Maximum number of pieces of a key's name.
const MAX_PIECES: usize = 16;

/// Returns the key of the thread on which a turn starts, or `None` if the thread has a key of its own.
///
/// A turn with client tools or with the agent has none: a fork reports no raw items, by which both are driven. The first turn
/// of a conversation without a key of the client has none either, because a fork takes longer to start, and the conversation
/// may have no second turn.
pub(crate) fn of_turn(turn: &Turn) -> Option<Uuid> {
    applies_to(turn).then(|| {
        let mut name = KeyName::new(&turn.caller);
        match &turn.prompt_cache_key {
            Some(key) => name.push(b"client", key.as_bytes()),
            None => name.push_beginning(turn),
        }
        Uuid::new_v5(&NAMESPACE, &name.bytes)
    })
}

/// Returns `true` if the thread of a turn should have a stable key.
pub(crate) fn applies_to(turn: &Turn) -> bool {
    let goes_on = || turn.messages.iter().any(|message| message.role == Role::Assistant);
    let is_plain = turn.profile == Profile::Chat && turn.tools.is_empty();
    is_plain && (turn.prompt_cache_key.is_some() || goes_on())
}

/// The name of which a key is the hash. Each piece has its length before it, so that two lists of pieces never have one name.
struct KeyName {
    bytes: Vec<u8>,
    pieces: usize,
}

impl KeyName {
    /// Begins the name with the caller, so that callers never share a key.
    fn new(caller: &str) -> Self {
        let mut name = Self { bytes: Vec::new(), pieces: 0 };
        name.push(b"caller", caller.as_bytes());
        name
    }

    /// Appends the instructions and the first user message. Clients that send the whole history repeat both in every request.
    fn push_beginning(&mut self, turn: &Turn) {
        let instructs = |role| matches!(role, Role::System | Role::Developer);
        let lead = turn.messages.iter().take_while(|message| instructs(message.role));
        let user = turn.messages.iter().find(|message| message.role == Role::User);
        for message in lead.chain(user) {
            let kind: &[u8] = if message.role == Role::User { b"user" } else { b"instructions" };
            if let Some(name) = &message.name {
                self.push(b"name", name.as_bytes());
            }
            for part in &message.parts {
                match part {
                    // Clients differ in the white space that they keep.
                    Part::Text(text) => self.push(kind, text.trim_end().as_bytes()),
                    Part::Image(image) => self.push(b"image", &image.data),
                }
            }
        }
    }

    fn push(&mut self, kind: &[u8], piece: &[u8]) {
        if self.pieces == MAX_PIECES {
            return;
        }
        self.pieces += 1;
        let piece = piece.get(..MAX_PIECE_BYTES).unwrap_or(piece);
        for field in [kind, piece] {
            self.bytes.extend((field.len() as u64).to_be_bytes());
            self.bytes.extend(field);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::engine::{Image, ImageKind, Message, Tool};

    fn message(role: Role, text: &str) -> Message {
        let parts = vec![Part::Text(text.into())];
        Message { role, name: None, parts, tool_calls: Vec::new(), tool_call_id: None }
    }

    /// A turn of a conversation with these roles and texts.
    fn turn(messages: &[(Role, &str)]) -> Turn {
        let messages = messages.iter().map(|(role, text)| message(*role, text)).collect();
        Turn { caller: "token".into(), profile: Profile::Chat, messages, ..Turn::default() }
    }

    fn second() -> Turn {
        turn(&[(Role::System, "Be brief."), (Role::User, "one"), (Role::Assistant, "1"), (Role::User, "two")])
    }

    #[test]
    fn of_turn_later_turns_and_branches_have_one_key() {
        let key = of_turn(&second()).unwrap();
        let mut third = second();
        third.messages.extend([message(Role::Assistant, "2"), message(Role::User, "three")]);
        let mut branch = second();
        branch.messages.splice(2.., [message(Role::Assistant, "I"), message(Role::User, "deux")]);
        let mut trimmed = second();
        trimmed.messages[1] = message(Role::User, "one \n");
        for turn in [second(), third, branch, trimmed] {
            assert_eq!(of_turn(&turn), Some(key), "{:?}", turn.messages);
        }
    }

    /// The keys are part of the behaviour over updates of this server: another value loses the upstream's caches.
    #[test]
    fn of_turn_returns_the_documented_values() {
        assert_eq!(of_turn(&second()).unwrap().to_string(), "9dc5b4d9-6a15-5f93-a781-2c391e187cc7");
        let client = Turn { prompt_cache_key: Some("user-7".into()), ..second() };
        assert_eq!(of_turn(&client).unwrap().to_string(), "66c08463-9c6c-546a-9afd-866ee4bf599a");
    }

    #[test]
    fn of_turn_other_beginning_or_caller_has_another_key() {
        let key = of_turn(&second());
        let mut others = vec![
            turn(&[(Role::User, "one"), (Role::Assistant, "1")]),
            turn(&[(Role::System, "Be brief."), (Role::User, "one!"), (Role::Assistant, "1")]),
            turn(&[(Role::System, "Be long."), (Role::User, "one"), (Role::Assistant, "1")]),
            // The same characters in other messages.
            turn(&[(Role::System, "Be brief.one"), (Role::User, ""), (Role::Assistant, "1")]),
            turn(&[(Role::System, "Be brief."), (Role::System, "one"), (Role::Assistant, "1")]),
            Turn { caller: "other".into(), ..second() },
            Turn { prompt_cache_key: Some("one".into()), ..second() },
            Turn { prompt_cache_key: Some("one".into()), caller: "other".into(), ..second() },
        ];
        let mut pictured = second();
        let image = |data| Part::Image(Image { data: Bytes::from_static(data), kind: ImageKind::Png });
        for data in [b"a", b"b"] {
            pictured.messages[1].parts = vec![image(data)];
            others.push(pictured.clone());
        }
        let mut keys: Vec<_> = others.iter().map(of_turn).chain([key]).collect();
        assert!(keys.iter().all(Option::is_some));
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn of_turn_with_the_clients_key_ignores_the_messages() {
        let client = |turn: Turn| of_turn(&Turn { prompt_cache_key: Some("k".into()), ..turn });
        let first = turn(&[(Role::User, "something else")]);
        assert_eq!(client(first), client(second()));
        assert!(client(second()).is_some());
    }

    #[test]
    fn of_turn_without_use_for_a_fork_is_none() {
        let tool = Tool { name: "f".into(), ..Tool::default() };
        for turn in [
            // The first turn of a conversation, without a key.
            turn(&[(Role::System, "Be brief."), (Role::User, "one")]),
            Turn { profile: Profile::Agent, ..second() },
            Turn { tools: [tool].into(), ..second() },
        ] {
            assert_eq!(of_turn(&turn), None, "{turn:?}");
        }
    }

    #[test]
    fn of_turn_long_messages_are_bounded() {
        let long = |last: &str| {
            let text = format!("{}{last}", "x".repeat(MAX_PIECE_BYTES));
            of_turn(&turn(&[(Role::User, &text), (Role::Assistant, "1")])).unwrap()
        };
        assert_eq!(long("a"), long("b"));
        let mut many = second();
        many.messages[1].parts = vec![Part::Text("x".repeat(MAX_PIECE_BYTES)); 10_000];
        let mut name = KeyName::new("c");
        name.push_beginning(&many);
        assert!(name.bytes.len() < (MAX_PIECES + 1) * MAX_PIECE_BYTES);
    }
}
