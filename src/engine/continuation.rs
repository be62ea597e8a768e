//! How a conversation can go on where its last turn ended. The engine offers the thread of a turn, and the service accepts
//! once the caller gets the whole answer, with a digest of the answer as the caller got it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::ThreadOrigin;
use crate::pb;

/// The offer of one turn. The engine and the service share it.
///
/// An offer that is dropped or replaced was not accepted: the engine releases the thread.
#[derive(Clone, Default)]
pub struct Continuation(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    offer: Option<Offer>,
    origin: ThreadOrigin,
}

/// Keeps the thread of a turn for the request that repeats the conversation with this answer.
type Offer = Box<dyn FnOnce(&AnswerDigest) + Send>;

impl Continuation {
    /// Offers the thread of the turn. Called before the end of the turn is sent, because the caller's next request may
    /// follow at once.
    pub fn offer(&self, keep: impl FnOnce(&AnswerDigest) + Send + 'static) {
        let former = self.state().offer.replace(Box::new(keep));
        drop(former);
    }

    /// Accepts the offer, if there is one. Called before the end of the answer is sent.
    pub fn accept(&self, answer: &AnswerDigest) {
        let offer = self.state().offer.take();
        if let Some(keep) = offer {
            keep(answer);
        }
    }

    /// Sets the thread that the turn runs on.
    pub fn set_origin(&self, origin: ThreadOrigin) {
        self.state().origin = origin;
    }

    /// Returns the thread that the turn runs on. It may become a fresh one while the turn starts.
    pub fn origin(&self) -> ThreadOrigin {
        self.state().origin
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Continuation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Continuation")
    }
}

/// The digest of an assistant's answer: its text without white space at the end, and its calls. Two answers with the same
/// digest say the same. The text arrives in pieces and is not kept.
#[derive(Debug, Clone, Default)]
pub struct AnswerDigest {
    text: TrimmedText,
    /// Boxed, because most answers have no calls, and each running turn has a digest.
    calls: Option<Box<Sha256>>,
}

impl AnswerDigest {
    /// Appends a piece of text.
    pub fn push_text(&mut self, text: &str) {
        self.text.push(text);
    }

    /// Appends a call. Arguments that differ only in white space or the order of members are equal.
    pub fn push_call(&mut self, call: &pb::ToolCall) {
        let calls = self.calls.get_or_insert_default();
        for field in [&call.id, &call.name, &canonical_json(&call.arguments)] {
            update_with(calls, field.as_bytes());
        }
    }

    /// Returns `true` if the answer has neither text nor calls.
    pub fn is_empty(&self) -> bool {
        self.calls.is_none() && self.text.is_empty()
    }

    /// Returns the digest without the text, if the answer has text and calls: many clients omit the text beside calls.
    pub fn without_text(&self) -> Option<Self> {
        let is_droppable = self.calls.is_some() && !self.text.is_empty();
        is_droppable.then(|| Self { text: TrimmedText::default(), ..self.clone() })
    }

    /// Returns the digest as bytes.
    pub fn finish(&self) -> [u8; 32] {
        let mut whole = self.text.hasher.clone().finalize().to_vec();
        whole.extend(self.calls.as_deref().cloned().unwrap_or_default().finalize());
        Sha256::digest(whole).into()
    }
}

/// A text that arrives in pieces, without the white space at its end.
#[derive(Debug, Clone, Default)]
struct TrimmedText {
    hasher: Sha256,
    has_text: bool,
    /// White space that counts only if other text follows.
    held: String,
}

impl TrimmedText {
    fn push(&mut self, text: &str) {
        let trimmed = text.trim_end();
        if !trimmed.is_empty() {
            self.hasher.update(std::mem::take(&mut self.held));
            self.hasher.update(trimmed);
            self.has_text = true;
        }
        self.held.push_str(text.get(trimmed.len()..).unwrap_or_default());
    }

    fn is_empty(&self) -> bool {
        !self.has_text
    }
}

/// Hashes a field with its length, so that no two sequences of fields have the same bytes.
pub(crate) fn update_with(hasher: &mut Sha256, field: &[u8]) {
    hasher.update(u64::try_from(field.len()).unwrap_or(u64::MAX).to_le_bytes());
    hasher.update(field);
}

/// Returns JSON without white space and with sorted members, or the text itself if it is not JSON.
fn canonical_json(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(mut value) => {
            value.sort_all_objects();
            value.to_string()
        }
        Err(_) => text.trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn text(pieces: &[&str]) -> [u8; 32] {
        let mut digest = AnswerDigest::default();
        for piece in pieces {
            digest.push_text(piece);
        }
        digest.finish()
    }

    fn call(id: &str, name: &str, arguments: &str) -> AnswerDigest {
        let mut digest = AnswerDigest::default();
        digest.push_call(&pb::ToolCall { id: id.into(), name: name.into(), arguments: arguments.into() });
        digest
    }

    #[test]
    fn finish_ignores_pieces_and_white_space_at_the_end_only() {
        let whole = text(&["one two"]);
        for same in
            [&["one", " ", "two"][..], &["one two \n"], &["one two", " ", "\n\u{3000}"], &["", "one two"]]
        {
            assert_eq!(text(same), whole, "{same:?}");
        }
        for other in [&["one  two"][..], &[" one two"], &["onetwo"], &["one\ntwo"], &[]] {
            assert_ne!(text(other), whole, "{other:?}");
        }
    }

    #[test]
    fn finish_ignores_the_form_of_arguments_only() {
        let one = call("1", "f", r#"{"a":1,"b":{"c":[1,2],"d":"x"}}"#).finish();
        assert_eq!(call("1", "f", "{\"b\": {\"d\":\"x\",\n \"c\":[1, 2]}, \"a\":1}").finish(), one);
        for other in [
            call("2", "f", r#"{"a":1,"b":{"c":[1,2],"d":"x"}}"#),
            call("1", "g", r#"{"a":1,"b":{"c":[1,2],"d":"x"}}"#),
            call("1", "f", r#"{"a":1,"b":{"c":[2,1],"d":"x"}}"#),
            call("1f", "", r#"{"a":1,"b":{"c":[1,2],"d":"x"}}"#),
        ] {
            assert_ne!(other.finish(), one, "{other:?}");
        }
        assert_eq!(call("1", "f", " no json ").finish(), call("1", "f", "no json").finish());
    }

    #[test]
    fn without_text_is_the_answer_with_its_calls_only() {
        let calls = call("1", "f", "{}");
        assert!(calls.without_text().is_none());
        let mut both = calls.clone();
        both.push_text("I look it up.");
        assert_ne!(both.finish(), calls.finish());
        assert_eq!(both.without_text().unwrap().finish(), calls.finish());
        let mut text = AnswerDigest::default();
        text.push_text("a");
        assert!(text.without_text().is_none());
    }

    #[test]
    fn accept_calls_the_last_offer_once() {
        let continuation = Continuation::default();
        let accepted = Arc::new(AtomicUsize::new(0));
        for number in [1, 10] {
            let accepted = Arc::clone(&accepted);
            continuation.offer(move |_| {
                accepted.fetch_add(number, Ordering::Relaxed);
            });
        }
        continuation.clone().accept(&AnswerDigest::default());
        continuation.accept(&AnswerDigest::default());
        assert_eq!(accepted.load(Ordering::Relaxed), 10);
    }
}
