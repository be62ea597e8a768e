//! Counts the entries of the lists of a request in its encoded form. An entry of two bytes becomes a structure of a hundred,
//! so a count after decoding is too late. Pure.

use crate::{config::ListLimits, error::Error};

/// Maximum number of values in the deprecated schemas of all tools.
const MAX_SCHEMA_VALUES: usize = 100_000;

/// Maximum number of fields of a message at all depths, known or not. The decoder takes time for each one. The largest
/// request within the limits of its lists has about three quarters of it.
const MAX_FIELDS: usize = 1_000_000;

/// Maximum nesting that is followed. prost refuses more than a hundred.
const MAX_DEPTH: usize = 100;

/// The lists of the contract.
#[derive(Debug, Clone, Copy)]
enum List {
    Messages,
    Parts,
    Calls,
    Tools,
    Stops,
    Metadata,
    SchemaValues,
    Items,
    AllowedTools,
}

const LISTS: usize = 9;

/// A message with lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageKind {
    /// `ChatRequest`.
    Chat,
    /// `CreateResponseRequest`.
    CreateResponse,
}

/// A field of a message whose occurrences count, or that contains such fields.
#[derive(Debug)]
struct Field {
    number: u64,
    list: Option<List>,
    inner: &'static [Self],
}

impl Field {
    const fn new(number: u64, list: Option<List>, inner: &'static [Self]) -> Self {
        Self { number, list, inner }
    }
}

static REQUEST: &[Field] = &[
    Field::new(2, Some(List::Messages), MESSAGE),
    Field::new(3, Some(List::Tools), TOOL),
    Field::new(4, None, PLAIN),
    Field::new(6, None, FORMAT),
    Field::new(8, Some(List::Stops), &[]),
    Field::new(11, Some(List::Metadata), PLAIN),
    Field::new(12, None, PLAIN),
    Field::new(14, None, PLAIN),
];
static RESPONSE_REQUEST: &[Field] = &[
    Field::new(1, None, SETTINGS),
    Field::new(2, Some(List::Items), ITEM),
    Field::new(3, None, PLAIN),
    Field::new(4, None, PLAIN),
];
const SETTINGS: &[Field] = &[
    Field::new(3, Some(List::Tools), TOOL),
    Field::new(4, None, PLAIN),
    Field::new(5, Some(List::AllowedTools), &[]),
    Field::new(7, None, FORMAT),
    Field::new(12, Some(List::Metadata), PLAIN),
];
const ITEM: &[Field] =
    &[Field::new(1, None, CONTENT), Field::new(2, None, PLAIN), Field::new(3, None, CONTENT)];
const CONTENT: &[Field] = &[Field::new(2, Some(List::Parts), PART)];
/// A message whose fields count only together. No field has the number 0.
const PLAIN: &[Field] = &[Field::new(0, None, &[])];
const MESSAGE: &[Field] = &[Field::new(2, Some(List::Parts), PART), Field::new(4, Some(List::Calls), PLAIN)];
const PART: &[Field] = &[Field::new(2, None, PLAIN), Field::new(3, None, PLAIN)];
const FORMAT: &[Field] =
    &[Field::new(1, None, PLAIN), Field::new(2, None, PLAIN), Field::new(3, None, PLAIN)];
const TOOL: &[Field] = &[Field { number: 3, list: None, inner: &STRUCT }];
// `google.protobuf.Struct`, which is recursive.
static STRUCT: [Field; 1] = [Field { number: 1, list: Some(List::SchemaValues), inner: &ENTRY }];
static ENTRY: [Field; 1] = [Field { number: 2, list: None, inner: &VALUE }];
static VALUE: [Field; 2] =
    [Field { number: 5, list: None, inner: &STRUCT }, Field { number: 6, list: None, inner: &LIST }];
static LIST: [Field; 1] = [Field { number: 1, list: Some(List::SchemaValues), inner: &VALUE }];

/// Checks the lists of an encoded message. Accepts what is not protobuf, which the decoder refuses.
pub(super) fn check(kind: MessageKind, message: &[u8], limits: ListLimits) -> Result<(), Error> {
    let mut counter = Counter { kind, limits, counts: [0; LISTS], fields: 0 };
    let fields = match kind {
        MessageKind::Chat => REQUEST,
        MessageKind::CreateResponse => RESPONSE_REQUEST,
    };
    counter.walk(message, fields, 0)
}

struct Counter {
    kind: MessageKind,
    limits: ListLimits,
    counts: [usize; LISTS],
    fields: usize,
}

impl Counter {
    fn walk(&mut self, mut rest: &[u8], fields: &[Field], depth: usize) -> Result<(), Error> {
        while let Some((number, value)) = next_field(&mut rest) {
            self.fields += 1;
            if self.fields > MAX_FIELDS {
                let message = format!("more than the {MAX_FIELDS} fields allowed in a message");
                return Err(Error::invalid("request", message));
            }
            let Some(field) = fields.iter().find(|field| field.number == number) else { continue };
            if let Some(list) = field.list {
                self.count(list)?;
            }
            if depth < MAX_DEPTH && !field.inner.is_empty() {
                self.walk(value, field.inner, depth + 1)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, list: List) -> Result<(), Error> {
        let ListLimits { messages, tools } = self.limits;
        let (max, field, what, setting) = match list {
            List::Messages => (messages, "messages", "messages", " (CODEX_MAX_MESSAGES)"),
            List::Parts => (messages, "messages", "content parts", " (CODEX_MAX_MESSAGES)"),
            List::Calls => (messages, "messages", "tool calls", " (CODEX_MAX_MESSAGES)"),
            List::Tools => (tools, "tools", "tools", " (CODEX_MAX_TOOLS)"),
            List::Stops => (4, "stop", "texts", ""),
            List::Metadata => (16, "metadata", "pairs", ""),
            List::SchemaValues => (MAX_SCHEMA_VALUES, "tools", "values in `parameters`", ""),
            List::Items => (messages, "messages", "items", " (CODEX_MAX_MESSAGES)"),
            List::AllowedTools => (tools, "allowed_tools", "names of tools", " (CODEX_MAX_TOOLS)"),
        };
        let field = match self.kind {
            MessageKind::Chat => field.to_owned(),
            MessageKind::CreateResponse if field == "messages" => "input".to_owned(),
            MessageKind::CreateResponse => format!("settings.{field}"),
        };
        if let Some(count) = self.counts.get_mut(list as usize) {
            *count += 1;
            if *count > max {
                return Err(Error::invalid(field, format!("more than the {max} {what} allowed{setting}")));
            }
        }
        Ok(())
    }
}

/// Returns the number and the bytes of the next field, and skips it. The bytes of a number are empty. Returns `None` at the
/// end and at a mistake.
fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    if rest.is_empty() {
        return None;
    }
    let key = varint(rest)?;
    let length = match key & 7 {
        0 => {
            varint(rest)?;
            0
        }
        1 => 8,
        2 => usize::try_from(varint(rest)?).ok()?,
        // The start and the end of a group. The fields between count as those around the group.
        3 | 4 => 0,
        5 => 4,
        _ => return None,
    };
    let (value, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some((key >> 3, if key & 7 == 2 { value } else { &[] }))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::pb;

    fn checked(request: &pb::ChatRequest) -> Result<(), String> {
        let limits = ListLimits { messages: 3, tools: 2 };
        check(MessageKind::Chat, &request.encode_to_vec(), limits).map_err(|error| {
            let Error::InvalidArgument { field, message } = error else { panic!("{error:?}") };
            format!("{field}: {message}")
        })
    }

    /// Refuses five entries and accepts the maximum.
    fn assert_limit(max: usize, text: &str, request: impl Fn(usize) -> pb::ChatRequest) {
        assert_eq!(checked(&request(max)), Ok(()), "{text}");
        assert_eq!(checked(&request(max + 1)), Err(text.to_owned()));
    }

    #[test]
    fn check_counts_each_list_of_the_contract() {
        let message = || pb::Message { name: "n".into(), ..Default::default() };
        assert_limit(3, "messages: more than the 3 messages allowed (CODEX_MAX_MESSAGES)", |count| {
            pb::ChatRequest { model: "m".into(), messages: vec![message(); count], ..Default::default() }
        });
        assert_limit(3, "messages: more than the 3 content parts allowed (CODEX_MAX_MESSAGES)", |count| {
            let parts = |count| pb::Message { parts: vec![pb::ContentPart::default(); count], ..message() };
            pb::ChatRequest { messages: vec![parts(1), parts(count - 1)], ..Default::default() }
        });
        assert_limit(3, "messages: more than the 3 tool calls allowed (CODEX_MAX_MESSAGES)", |count| {
            let calls = |count| pb::Message { tool_calls: vec![pb::ToolCall::default(); count], ..message() };
            pb::ChatRequest { messages: vec![calls(count - 1), calls(1)], ..Default::default() }
        });
        assert_limit(2, "tools: more than the 2 tools allowed (CODEX_MAX_TOOLS)", |count| pb::ChatRequest {
            tools: vec![pb::Tool { strict: true, ..Default::default() }; count],
            ..Default::default()
        });
        assert_limit(4, "stop: more than the 4 texts allowed", |count| pb::ChatRequest {
            stop: vec!["x".into(); count],
            ..Default::default()
        });
        assert_limit(16, "metadata: more than the 16 pairs allowed", |count| pb::ChatRequest {
            metadata: (0..count).map(|n| (n.to_string(), String::new())).collect(),
            ..Default::default()
        });
    }

    #[test]
    fn check_counts_each_list_of_a_request_for_a_response() {
        let limits = ListLimits { messages: 3, tools: 2 };
        let refused = |request: pb::CreateResponseRequest| {
            let checked = check(MessageKind::CreateResponse, &request.encode_to_vec(), limits);
            match checked {
                Ok(()) => None,
                Err(Error::InvalidArgument { field, .. }) => Some(field),
                Err(error) => panic!("{error:?}"),
            }
        };
        let with = |settings| pb::CreateResponseRequest { settings: Some(settings), ..Default::default() };
        let output = |count| {
            let parts = vec![pb::ContentPart::default(); count];
            let output = pb::FunctionCallOutput { parts, ..Default::default() };
            pb::InputItem { item: Some(pb::input_item::Item::FunctionCallOutput(output)) }
        };
        for (count, is_refused) in [(0, false), (1, true)] {
            let field = |field: &str| is_refused.then(|| field.to_owned());
            let input = vec![pb::InputItem::default(); 3 + count];
            assert_eq!(refused(pb::CreateResponseRequest { input, ..Default::default() }), field("input"));
            let input = vec![output(2), output(1 + count)];
            assert_eq!(refused(pb::CreateResponseRequest { input, ..Default::default() }), field("input"));
            let tools = vec![pb::Tool { strict: true, ..Default::default() }; 2 + count];
            let settings = pb::ResponseSettings { tools, ..Default::default() };
            assert_eq!(refused(with(settings)), field("settings.tools"));
            let allowed_tools = vec!["x".to_owned(); 2 + count];
            let settings = pb::ResponseSettings { allowed_tools, ..Default::default() };
            assert_eq!(refused(with(settings)), field("settings.allowed_tools"));
            let metadata = (0..16 + count).map(|n| (n.to_string(), String::new())).collect();
            let settings = pb::ResponseSettings { metadata, ..Default::default() };
            assert_eq!(refused(with(settings)), field("settings.metadata"));
        }
    }

    #[test]
    fn check_limits_the_fields_of_every_message() {
        let limits = ListLimits { messages: 3, tools: 2 };
        let refused = |message: &[u8]| {
            let Err(Error::InvalidArgument { field, .. }) = check(MessageKind::Chat, message, limits) else {
                return false;
            };
            field == "request"
        };
        let nested = |key: &[u8], inner: &[u8]| {
            let mut length = Vec::new();
            prost::encoding::encode_varint(inner.len() as u64, &mut length);
            [key, &length, inner].concat()
        };
        // The model, an unknown number, and the same in a part, a call, a choice and a format.
        for key in [0x0a_u8, 0x08] {
            let many = [key, 0].repeat(MAX_FIELDS + 1);
            assert!(refused(&many) && !refused(&[key, 0].repeat(MAX_FIELDS)), "{key}");
            for path in
                [&[0x12_u8, 0x12][..], &[0x12, 0x22], &[0x22], &[0x32, 0x12], &[0x62], &[0x12, 0x12, 0x1a]]
            {
                let message = path.iter().rev().fold(many.clone(), |inner, key| nested(&[*key], &inner));
                assert!(refused(&message), "{key} in {path:?}");
            }
        }
    }

    #[test]
    fn check_counts_the_values_of_deprecated_schemas_at_any_depth() {
        use prost_types::{ListValue, Struct, Value, value::Kind};
        let value = |kind| Value { kind: Some(kind) };
        let list = |count| value(Kind::ListValue(ListValue { values: vec![Value::default(); count] }));
        let object = |inner| Struct { fields: [("a".to_owned(), inner)].into() };
        assert_limit(100_000, "tools: more than the 100000 values in `parameters` allowed", |count| {
            #[expect(deprecated, reason = "clients of the first contract")]
            let tool = pb::Tool {
                parameters: Some(object(value(Kind::StructValue(object(list(count - 2)))))),
                ..Default::default()
            };
            pb::ChatRequest { tools: vec![tool], ..Default::default() }
        });
    }

    #[test]
    fn check_accepts_what_is_not_protobuf() {
        let limits = ListLimits { messages: 1, tools: 1 };
        for bytes in
            [&b"\xff"[..], b"\x12\x05", b"\x0f", &[0xff; 20], b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
        {
            assert!(check(MessageKind::Chat, bytes, limits).is_ok(), "{bytes:?}");
        }
        assert!(
            check(MessageKind::Chat, b"\x13\x14\x12\x00\x12\x00", limits).is_err(),
            "lists behind a group count"
        );
    }
}
