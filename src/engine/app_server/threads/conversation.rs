//! Recognizes a conversation that goes on: a digest over everything that a thread is set up with and all messages as the
//! client knows them.

use sha2::{Digest, Sha256};

use crate::engine::{AnswerDigest, Message, Part, Role, Turn, update_with};

/// Identifies a conversation up to and including an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ConversationKey([u8; 32]);

/// The conversation of one request.
#[derive(Debug, Clone)]
pub(crate) struct Conversation {
    /// The key of the messages up to the last answer. `None` if the request has no answer, or nothing behind it.
    pub(crate) known: Option<ConversationKey>,
    /// Number of messages behind the last answer, at the end of the request.
    pub(crate) new_messages: usize,
    /// Digest of all messages of the request.
    digest: ConversationDigest,
}

impl Conversation {
    /// Digests the messages of a turn. `setup` is everything that the turn's thread must be set up with; two requests with
    /// different setups never share a thread.
    pub(crate) fn of(turn: &Turn, setup: &[u8]) -> Self {
        let mut digest = ConversationDigest::new(setup);
        let (mut known, mut new_messages) = (None, 0);
        for message in &turn.messages {
            digest.push(message);
            new_messages += 1;
            if message.role == Role::Assistant {
                (known, new_messages) = (Some(digest.key()), 0);
            }
        }
        Self { known: known.filter(|_| new_messages > 0), new_messages, digest }
    }

    /// Returns the keys of the conversation with this answer: a client may omit the text beside calls.
    pub(crate) fn keys_with(&self, answer: &AnswerDigest) -> Vec<ConversationKey> {
        let with = |answer: &AnswerDigest| ConversationDigest {
            state: self.digest.closed(),
            answer: Some(Box::new(answer.clone())),
        };
        let without_text = answer.without_text();
        [answer].into_iter().chain(&without_text).map(|answer| with(answer).key()).collect()
    }
}

/// The digest of a sequence of messages. Several messages of the assistant in a row count as one, because some clients
/// make a message of each call.
#[derive(Debug, Clone)]
struct ConversationDigest {
    state: Sha256,
    /// The assistant's messages at the end. Boxed, because a running turn keeps the digest of a request, which rarely ends with
    /// one.
    answer: Option<Box<AnswerDigest>>,
}

impl ConversationDigest {
    fn new(setup: &[u8]) -> Self {
        let mut state = Sha256::new();
        update_with(&mut state, setup);
        Self { state, answer: None }
    }

    fn push(&mut self, message: &Message) {
        if message.role == Role::Assistant {
            let answer = self.answer.get_or_insert_default();
            for part in &message.parts {
                match part {
                    Part::Text(text) => answer.push_text(text),
                    // The model's answers have neither images nor a name, so no kept thread matches.
                    Part::Image(image) => {
                        update_with(&mut self.state, b"image");
                        update_with(&mut self.state, &image.data);
                    }
                }
            }
            if let Some(name) = &message.name {
                update_with(&mut self.state, b"name");
                update_with(&mut self.state, name.as_bytes());
            }
            message.tool_calls.iter().for_each(|call| answer.push_call(call));
            return;
        }
        self.state = self.closed();
        self.answer = None;
        let mut state = self.state.clone();
        let role: &[u8] = match message.role {
            Role::System => b"system",
            Role::Developer => b"developer",
            Role::User => b"user",
            Role::Assistant => b"assistant",
            Role::Tool => b"tool",
        };
        update_with(&mut state, role);
        for field in [&message.name, &message.tool_call_id] {
            update_with(&mut state, field.as_deref().unwrap_or_default().as_bytes());
        }
        let last = message.parts.len().saturating_sub(1);
        for (index, part) in message.parts.iter().enumerate() {
            match part {
                Part::Text(text) => {
                    let text = if index == last { text.trim_end() } else { text };
                    update_with(&mut state, b"text");
                    update_with(&mut state, text.as_bytes());
                }
                Part::Image(image) => {
                    update_with(&mut state, b"image");
                    update_with(&mut state, &image.data);
                }
            }
        }
        update_with(&mut state, b"end");
        self.state = state;
    }

    /// Returns the state behind the last message.
    fn closed(&self) -> Sha256 {
        let mut state = self.state.clone();
        if let Some(answer) = &self.answer {
            update_with(&mut state, b"assistant");
            update_with(&mut state, &answer.finish());
        }
        state
    }

    fn key(&self) -> ConversationKey {
        ConversationKey(self.closed().finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{Image, ImageKind},
        pb,
    };

    fn message(role: Role, text: &str) -> Message {
        Message {
            role,
            name: None,
            parts: vec![Part::Text(text.into())],
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }

    fn calls(text: &str, arguments: &[&str]) -> Message {
        let call = |(n, arguments): (usize, &&str)| pb::ToolCall {
            id: n.to_string(),
            name: "f".into(),
            arguments: (*arguments).into(),
        };
        Message {
            tool_calls: arguments.iter().enumerate().map(call).collect(),
            ..message(Role::Assistant, text)
        }
    }

    fn result(id: &str, text: &str) -> Message {
        Message { tool_call_id: Some(id.into()), ..message(Role::Tool, text) }
    }

    fn of(messages: &[Message]) -> Conversation {
        Conversation::of(&Turn { messages: messages.to_vec(), ..Turn::default() }, b"setup")
    }

    fn answer(message: &Message) -> AnswerDigest {
        let mut digest = AnswerDigest::default();
        for part in &message.parts {
            if let Part::Text(text) = part {
                digest.push_text(text);
            }
        }
        message.tool_calls.iter().for_each(|call| digest.push_call(call));
        digest
    }

    /// Returns whether the request `next` continues the conversation of `messages` with `told`.
    fn continues(messages: &[Message], told: &Message, next: &[Message]) -> bool {
        of(next).known.is_some_and(|key| of(messages).keys_with(&answer(told)).contains(&key))
    }

    #[test]
    fn next_request_is_recognized_whatever_its_form() {
        use Role::{Assistant, System, User};
        let first = [message(System, "Be brief."), message(User, "Hi")];
        let told = message(Assistant, "Hello.");
        let next = |user: &str, assistant: &str| {
            [
                message(System, "Be brief."),
                message(User, user),
                message(Assistant, assistant),
                message(User, "More"),
            ]
        };
        assert!(continues(&first, &told, &next("Hi", "Hello.")));
        assert!(continues(&first, &told, &next("Hi \n", "Hello.\n")));
        let mut parts = next("Hi", "Hello.");
        parts[2].parts = vec![Part::Text("Hel".into()), Part::Text("lo.".into())];
        assert!(continues(&first, &told, &parts));
        assert_eq!(of(&parts).new_messages, 1);
        for (user, assistant) in
            [("Hi!", "Hello."), ("Hi", "Hello"), ("Hi", ""), ("", "Hello."), (" Hi", "Hello.")]
        {
            assert!(!continues(&first, &told, &next(user, assistant)), "{user:?} {assistant:?}");
        }
        let mut named = next("Hi", "Hello.");
        named[1].name = Some("Ann".into());
        assert!(!continues(&first, &told, &named));
        assert!(!continues(&first, &told, &next("Hi", "Hello.")[..3]), "nothing is new");
        assert!(!continues(&first, &told, &first), "the request is repeated");
    }

    #[test]
    fn next_request_with_calls_is_recognized_without_text_and_in_several_messages() {
        let first = [message(Role::User, "Hi")];
        let told = calls("I look.", &[r#"{"a":1,"b":2}"#, "{}"]);
        let next = |answers: &[Message]| {
            let results = [result("0", "x"), result("1", "y")];
            first.iter().chain(answers).chain(&results).cloned().collect::<Vec<_>>()
        };
        assert!(continues(&first, &told, &next(std::slice::from_ref(&told))));
        assert!(continues(&first, &told, &next(&[calls("", &[r#"{"b": 2, "a": 1}"#, "{}"])])));
        let mut split = calls("", &["{}", "{}"]);
        split.tool_calls.remove(0);
        assert!(continues(
            &first,
            &told,
            &next(&[message(Role::Assistant, "I look."), calls("", &[r#"{"a":1,"b":2}"#]), split])
        ));
        assert_eq!(of(&next(std::slice::from_ref(&told))).new_messages, 2);
        for other in [
            calls("I look!", &[r#"{"a":1,"b":2}"#, "{}"]),
            calls("", &[r#"{"a":1,"b":3}"#, "{}"]),
            calls("", &[r#"{"a":1,"b":2}"#]),
        ] {
            assert!(!continues(&first, &told, &next(std::slice::from_ref(&other))), "{other:?}");
        }
    }

    #[test]
    fn key_depends_on_setup_and_images() {
        let image = |byte: u8| Part::Image(Image { kind: ImageKind::Png, data: vec![byte].into() });
        let user = |byte| Message { parts: vec![image(byte)], ..message(Role::User, "") };
        let key = |setup: &[u8], byte| {
            let messages = vec![user(byte), message(Role::Assistant, "a"), message(Role::User, "b")];
            Conversation::of(&Turn { messages, ..Turn::default() }, setup).known
        };
        assert_eq!(key(b"a", 1), key(b"a", 1));
        assert_ne!(key(b"a", 1), key(b"b", 1));
        assert_ne!(key(b"a", 1), key(b"a", 2));
    }
}
