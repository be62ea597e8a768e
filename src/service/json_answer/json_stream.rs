//! Translates the JSON text of a model into the JSON text of the answer while it arrives: passes over text around the
//! object, drops the nulls of optional properties, and unwraps a wrapped root. Pure, and independent of how the text is
//! split into deltas.

use super::strict_form::{Shape, ShapeId, Shapes};

/// Maximum depth of an answer. A deeper answer is not JSON that a client can parse.
const MAX_DEPTH: usize = 1_000;

/// The translation of one message. Owned by the builder of the answer.
#[derive(Debug, Clone, Default)]
pub(in crate::service) struct JsonStream {
    shapes: Option<std::sync::Arc<Shapes>>,
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
    /// After a brace that may begin the object.
    Opened,
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
        !matches!(self.state, State::Before | State::Opened)
    }

    /// Returns the same translation before its first text.
    pub(in crate::service) fn restarted(&self) -> Self {
        Self::new(self.shapes.clone())
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
            State::Before => {
                if c == '{' {
                    self.state = State::Opened;
                    self.held.push(c);
                }
            }
            State::Opened if space => self.held.push(c),
            State::Opened if c == '"' || c == '}' => self.begin(c, out),
            State::Opened => {
                self.held.clear();
                self.state = State::Before;
                self.step(c, out);
            }
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

    /// Begins the object with its second character.
    fn begin(&mut self, c: char, out: &mut String) {
        let (shape, is_wrapper) = match &self.shapes {
            Some(shapes) => (Some(shapes.root), shapes.is_wrapped),
            None => (None, false),
        };
        let text = std::mem::take(&mut self.held);
        if !is_wrapper {
            out.push_str(&text);
        }
        self.stack.push(Frame::new(true, shape, is_wrapper));
        self.state = State::KeyOrEnd(false);
        self.step(c, out);
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
