//! Translates the JSON text of a model into the JSON text of the answer while it arrives: passes over text around the
//! object, drops the nulls of optional properties, and unwraps a wrapped root. Pure, and independent of how the text is
//! split into deltas.

use super::{
    longest_json,
    strict_form::{Shape, ShapeId, Shapes},
};

/// Maximum depth of an answer. A deeper answer is not JSON that a client can parse.
const MAX_DEPTH: usize = 1_000;

/// Maximum size of the text between the start of a message and an object without prose before it: "```json".
const MAX_FENCE_BYTES: usize = 7;

/// The translation of one message. Owned by the builder of the answer.
#[derive(Debug, Clone, Default)]
pub(in crate::service) struct JsonStream {
    shapes: Option<std::sync::Arc<Shapes>>,
    /// An object behind prose is only chosen by [`Self::translate_whole`].
    is_patient: bool,
    /// The beginning of the text before the object.
    lead: String,
    state: State,
    stack: Vec<Frame>,
    /// Text of a member whose value is undecided, or of the possible beginning of the object.
    held: String,
    /// The beginning of `held` that is the key of the member.
    key: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Text before the object.
    #[default]
    Before,
    /// In what may be the beginning of the object: a brace, a key, and a value that is valid so far.
    Opening(Opening),
    /// Before a key or the end of the object. `true` after a comma.
    KeyOrEnd(bool),
    /// In a key. `true` after a backslash.
    Key(bool),
    Colon,
    Value,
    /// Before the first item of an array, or its end.
    ItemOrEnd,
    String(bool),
    /// In a number or a word.
    Scalar,
    CommaOrEnd,
    /// After the object.
    Complete,
    /// The text is no JSON.
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    Brace,
    /// `true` after a backslash.
    Key(bool),
    Colon,
    Value,
    /// In a number or a word, which begins at this index of the held text.
    Scalar(usize),
}

#[derive(Debug, Clone)]
struct Frame {
    is_object: bool,
    /// The shape of the object, or of the items.
    shape: Option<ShapeId>,
    /// The shape of the current member.
    member: Option<ShapeId>,
    /// A null of the current member is dropped.
    drops_null: bool,
    /// A member was written.
    any_member: bool,
    /// The object only wraps the answer.
    is_wrapper: bool,
}

impl JsonStream {
    /// Creates a translation. Without shapes, it only finds the object.
    pub(super) fn new(shapes: Option<std::sync::Arc<Shapes>>) -> Self {
        Self { shapes, ..Self::default() }
    }

    /// Returns `true` if the object is complete.
    pub(in crate::service) fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Returns `true` if a part of the object was found.
    pub(in crate::service) fn has_begun(&self) -> bool {
        !matches!(self.state, State::Before | State::Opening(_))
    }

    /// Returns the same translation before its first text.
    pub(in crate::service) fn restarted(&self) -> Self {
        Self { is_patient: self.is_patient, ..Self::new(self.shapes.clone()) }
    }

    /// Waits for the whole text if the object does not begin it. Prose may have examples of objects.
    pub(super) fn set_patient(&mut self) {
        self.is_patient = true;
    }

    /// Translates a whole text. Chooses its longest object. Returns `None` without a complete object.
    pub(in crate::service) fn translate_whole(&self, text: &str) -> Option<String> {
        let mut stream = Self { is_patient: true, ..Self::new(self.shapes.clone()) };
        let out = stream.push(text);
        if stream.has_begun() {
            return stream.is_complete().then_some(out);
        }
        // Only the end of the text decides that an object without members is not an example.
        let mut stream = Self::new(self.shapes.clone());
        longest_json(text, &['{'])?.clone_into(&mut stream.held);
        let mut out = String::new();
        stream.begin(&mut out);
        stream.is_complete().then_some(out)
    }

    /// Translates a delta. Returns the text that is decided.
    pub(in crate::service) fn push(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            self.step(c, &mut out);
        }
        out
    }

    fn step(&mut self, c: char, out: &mut String) {
        let space = matches!(c, ' ' | '\t' | '\n' | '\r');
        match self.state {
            State::Complete | State::Broken => {}
            State::Before if c == '{' && !(self.is_patient && self.has_prose()) => {
                self.state = State::Opening(Opening::Brace);
                self.held.push(c);
            }
            State::Before => {
                if self.lead.len() <= MAX_FENCE_BYTES && !(space && self.lead.is_empty()) {
                    self.lead.push(c);
                }
            }
            State::Opening(opening) => self.opening(opening, c, out),
            State::KeyOrEnd(_) | State::Colon | State::Value | State::ItemOrEnd | State::CommaOrEnd
                if space =>
            {
                self.space(c, out);
            }
            State::KeyOrEnd(_) if c == '"' => {
                self.key.clear();
                self.key.push(c);
                self.state = State::Key(false);
            }
            State::KeyOrEnd(false) if c == '}' => self.close(c, out),
            State::Key(escaped) => {
                self.key.push(c);
                self.state = match c {
                    '"' if !escaped => {
                        self.end_key();
                        State::Colon
                    }
                    _ => State::Key(c == '\\' && !escaped),
                };
            }
            State::Colon if c == ':' => {
                self.held.push(c);
                self.state = State::Value;
            }
            State::ItemOrEnd if c == ']' => self.close(c, out),
            State::Value | State::ItemOrEnd => self.begin_value(c, out),
            State::String(escaped) => {
                out.push(c);
                self.state = match c {
                    '"' if !escaped => State::CommaOrEnd,
                    _ => State::String(c == '\\' && !escaped),
                };
            }
            State::Scalar if c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.') => {
                self.scalar(c, out);
            }
            State::Scalar => {
                self.end_scalar(out);
                self.state = State::CommaOrEnd;
                self.step(c, out);
            }
            State::CommaOrEnd if c == ',' => match self.stack.last() {
                Some(frame) if frame.is_object => {
                    self.held.push(c);
                    self.state = State::KeyOrEnd(true);
                }
                _ => {
                    out.push(c);
                    self.state = State::Value;
                }
            },
            State::CommaOrEnd if c == '}' || c == ']' => self.close(c, out),
            State::KeyOrEnd(_) | State::Colon | State::CommaOrEnd => self.state = State::Broken,
        }
    }

    fn has_prose(&self) -> bool {
        let lead = self.lead.trim_end();
        !lead.is_empty() && lead != "```" && !lead.eq_ignore_ascii_case("```json")
    }

    /// Continues what may be the beginning of the object.
    fn opening(&mut self, opening: Opening, c: char, out: &mut String) {
        let space = matches!(c, ' ' | '\t' | '\n' | '\r');
        let next = match (opening, c) {
            (Opening::Brace | Opening::Colon | Opening::Value, _) if space => Some(opening),
            (Opening::Brace, '"') => Some(Opening::Key(false)),
            (Opening::Key(false), '"') => Some(Opening::Colon),
            (Opening::Key(escaped), c) if !c.is_control() => Some(Opening::Key(c == '\\' && !escaped)),
            (Opening::Colon, ':') => Some(Opening::Value),
            (Opening::Value, '"' | '{' | '[') => {
                self.held.push(c);
                return self.begin(out);
            }
            (Opening::Value, c) if c.is_ascii_alphanumeric() || c == '-' => {
                Some(Opening::Scalar(self.held.len()))
            }
            (Opening::Scalar(_), c) if c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.') => {
                Some(opening)
            }
            (Opening::Scalar(start), c)
                if (space || c == ',' || c == '}')
                    && serde_json::from_str::<serde::de::IgnoredAny>(&self.held[start..]).is_ok() =>
            {
                self.held.push(c);
                return self.begin(out);
            }
            (_, _) => None,
        };
        if let Some(next) = next {
            self.held.push(c);
            self.state = State::Opening(next);
            return;
        }
        // The text behind the brace may have another one.
        let held = std::mem::take(&mut self.held);
        self.state = State::Before;
        self.lead.push('{');
        for c in held.chars().skip(1).chain([c]) {
            self.step(c, out);
        }
    }

    /// Begins the object with the held text.
    fn begin(&mut self, out: &mut String) {
        let (shape, is_wrapper) = match &self.shapes {
            Some(shapes) => (Some(shapes.root), shapes.is_wrapped),
            None => (None, false),
        };
        let text = std::mem::take(&mut self.held);
        if !is_wrapper {
            out.push('{');
        }
        self.stack.push(Frame::new(true, shape, is_wrapper));
        self.state = State::KeyOrEnd(false);
        for c in text.chars().skip(1) {
            self.step(c, out);
        }
    }

    fn space(&mut self, c: char, out: &mut String) {
        match self.stack.last() {
            // Belongs to the member that follows, or to a wrapper.
            Some(frame) if frame.is_object => {
                if self.state != State::CommaOrEnd || !frame.is_wrapper {
                    self.held.push(c);
                }
            }
            _ => out.push(c),
        }
    }

    fn end_key(&mut self) {
        self.held.push_str(&self.key);
        let name: Option<String> = serde_json::from_str(&self.key).ok();
        let Some(frame) = self.stack.last_mut() else { return };
        let property = match (&self.shapes, frame.shape, name) {
            (Some(shapes), Some(shape), Some(name)) => shapes.property(shape, &name),
            _ => None,
        };
        frame.member = property.map(|property| property.shape);
        frame.drops_null = property.is_some_and(|property| property.drops_null);
    }

    fn begin_value(&mut self, c: char, out: &mut String) {
        let in_droppable = self.stack.last().is_some_and(|frame| frame.is_object && frame.drops_null);
        if c == 'n' && in_droppable {
            self.key = "n".to_owned();
            self.state = State::Scalar;
            return;
        }
        self.key.clear();
        self.release_member(out);
        let shape =
            self.stack.last().and_then(|frame| if frame.is_object { frame.member } else { frame.shape });
        match c {
            '"' => {
                out.push(c);
                self.state = State::String(false);
            }
            '{' | '[' if self.stack.len() < MAX_DEPTH => {
                out.push(c);
                let shape = match (&self.shapes, shape, c) {
                    (Some(shapes), Some(shape), '[') => shapes.get(shape).and_then(Shape::items),
                    (_, shape, _) => shape,
                };
                self.stack.push(Frame::new(c == '{', shape, false));
                self.state = if c == '{' { State::KeyOrEnd(false) } else { State::ItemOrEnd };
            }
            c if c.is_ascii_alphanumeric() || c == '-' => {
                out.push(c);
                self.state = State::Scalar;
            }
            _ => self.state = State::Broken,
        }
    }

    /// Writes the held text before the value of a member that is kept.
    fn release_member(&mut self, out: &mut String) {
        let Some(frame) = self.stack.last_mut().filter(|frame| frame.is_object) else { return };
        let held = std::mem::take(&mut self.held);
        if frame.is_wrapper {
            return;
        }
        let first = !std::mem::replace(&mut frame.any_member, true);
        match held.find(',').filter(|_| first && !held.trim_start().starts_with('"')) {
            // The members before this one were dropped.
            Some(comma) => {
                out.push_str(&held[..comma]);
                out.push_str(&held[comma + 1..]);
            }
            None => out.push_str(&held),
        }
    }

    fn scalar(&mut self, c: char, out: &mut String) {
        if self.key.starts_with('n') {
            self.key.push(c);
        } else {
            out.push(c);
        }
    }

    /// Ends a number or a word. Drops a held null with its member.
    fn end_scalar(&mut self, out: &mut String) {
        let word = std::mem::take(&mut self.key);
        if word == "null" {
            self.held.clear();
        } else if !word.is_empty() {
            self.release_member(out);
            out.push_str(&word);
        }
    }

    fn close(&mut self, c: char, out: &mut String) {
        let Some(frame) = self.stack.pop().filter(|frame| frame.is_object == (c == '}')) else {
            self.state = State::Broken;
            return;
        };
        let space = if frame.is_object { std::mem::take(&mut self.held) } else { String::new() };
        if !frame.is_wrapper {
            out.push_str(&space);
            out.push(c);
        }
        self.state = if self.stack.is_empty() { State::Complete } else { State::CommaOrEnd };
    }
}

impl Frame {
    fn new(is_object: bool, shape: Option<ShapeId>, is_wrapper: bool) -> Self {
        Self { is_object, shape, member: None, drops_null: false, any_member: false, is_wrapper }
    }
}
