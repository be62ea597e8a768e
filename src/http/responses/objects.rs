//! The JSON of a response and its items, as OpenAI's and the Open Responses schemas have them: each member is present, and
//! `null` only where both allow it.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use crate::pb::{self, output_item::Item, response_format::Format, tool_choice::Mode};

/// The object `response`.
#[derive(Debug, Serialize)]
pub(super) struct ResponseObject<'a> {
    id: &'a str,
    object: &'static str,
    created_at: i64,
    completed_at: Option<i64>,
    status: &'static str,
    error: Option<ResponseError<'a>>,
    incomplete_details: Option<IncompleteDetails>,
    model: &'a str,
    output: Vec<OutputItem<'a>>,
    usage: Option<Usage>,
    instructions: Option<&'a str>,
    max_output_tokens: Option<u32>,
    metadata: &'a HashMap<String, String>,
    parallel_tool_calls: bool,
    prompt_cache_key: Option<&'a str>,
    reasoning: Reasoning<'a>,
    safety_identifier: Option<&'a str>,
    user: Option<&'a str>,
    service_tier: &'a str,
    text: TextOptions<'a>,
    tool_choice: Value,
    tools: Vec<Tool<'a>>,
    // This server stores nothing, whatever a request says.
    store: bool,
    background: bool,
    previous_response_id: (),
    conversation: (),
    // Codex has no sampling parameters. These are the defaults of the API.
    temperature: f32,
    top_p: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    top_logprobs: u32,
    max_tool_calls: (),
    truncation: &'static str,
    /// An extension, as the chat completion has it.
    system_fingerprint: Option<&'a str>,
}

/// The error of a failed response.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct ResponseError<'a> {
    pub(super) code: &'static str,
    pub(super) message: &'a str,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) param: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct IncompleteDetails {
    reason: &'static str,
}

/// An item of `output`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum OutputItem<'a> {
    Message {
        id: &'a str,
        status: &'static str,
        role: &'static str,
        content: Vec<OutputText<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        phase: Option<&'static str>,
    },
    FunctionCall {
        id: &'a str,
        status: &'static str,
        call_id: &'a str,
        name: &'a str,
        arguments: &'a str,
    },
    Reasoning {
        id: &'a str,
        status: &'static str,
        summary: Vec<SummaryText<'a>>,
    },
}

/// The part of a message.
#[derive(Debug, Serialize)]
pub(super) struct OutputText<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    text: &'a str,
    annotations: [(); 0],
    logprobs: [(); 0],
}

/// The part of a reasoning summary.
#[derive(Debug, Serialize)]
pub(super) struct SummaryText<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    text: &'a str,
}

#[derive(Debug, Serialize)]
struct Usage {
    input_tokens: u64,
    input_tokens_details: InputTokensDetails,
    output_tokens: u64,
    output_tokens_details: OutputTokensDetails,
    total_tokens: u64,
    /// An extension: a part of the numbers is an estimate. Omitted for Codex's own numbers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    codex_estimated: bool,
}

#[derive(Debug, Serialize)]
struct InputTokensDetails {
    cached_tokens: u64,
    cache_write_tokens: u64,
}

#[derive(Debug, Serialize)]
struct OutputTokensDetails {
    reasoning_tokens: u64,
}

#[derive(Debug, Serialize)]
struct Reasoning<'a> {
    effort: Option<&'a str>,
    summary: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct TextOptions<'a> {
    format: TextFormat<'a>,
    verbosity: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum TextFormat<'a> {
    Text,
    JsonObject,
    JsonSchema { name: &'a str, description: Option<&'a str>, schema: Option<&'a RawValue>, strict: bool },
}

#[derive(Debug, Serialize)]
struct Tool<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    description: Option<&'a str>,
    parameters: Option<&'a RawValue>,
    strict: bool,
}

impl<'a> ResponseObject<'a> {
    /// Returns the object of a response that has not failed.
    pub(super) fn new(response: &'a pb::Response) -> Self {
        static NO_SETTINGS: std::sync::LazyLock<pb::ResponseSettings> =
            std::sync::LazyLock::new(Default::default);
        let settings = response.settings.as_ref().unwrap_or(&NO_SETTINGS);
        let is_complete = response.status() == pb::ResponseStatus::Completed;
        Self {
            id: &response.id,
            object: "response",
            created_at: response.created_unix_seconds,
            completed_at: is_complete.then_some(response.completed_unix_seconds),
            status: status(response.status()),
            error: None,
            incomplete_details: incomplete_reason(response.incomplete_reason())
                .map(|reason| IncompleteDetails { reason }),
            model: &settings.model,
            output: response.output.iter().filter_map(OutputItem::new).collect(),
            usage: response.usage.map(Usage::from),
            instructions: non_empty(&settings.instructions),
            max_output_tokens: settings.max_output_tokens,
            metadata: &settings.metadata,
            parallel_tool_calls: settings.parallel_tool_calls.unwrap_or(true),
            prompt_cache_key: non_empty(&settings.prompt_cache_key),
            reasoning: Reasoning {
                effort: non_empty(&settings.reasoning_effort),
                summary: non_empty(&settings.reasoning_summary).filter(|summary| *summary != "none"),
            },
            safety_identifier: non_empty(&settings.user),
            user: None,
            service_tier: non_empty(&settings.service_tier)
                .filter(|tier| *tier != "auto")
                .unwrap_or("default"),
            text: TextOptions {
                format: TextFormat::new(settings.response_format.as_ref()),
                verbosity: non_empty(&settings.verbosity).unwrap_or("medium"),
            },
            tool_choice: tool_choice(settings),
            tools: settings.tools.iter().map(Tool::new).collect(),
            store: false,
            background: false,
            previous_response_id: (),
            conversation: (),
            temperature: 1.0,
            top_p: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            top_logprobs: 0,
            max_tool_calls: (),
            truncation: "disabled",
            system_fingerprint: non_empty(&response.system_fingerprint),
        }
    }

    /// Makes the response a failed one.
    pub(super) fn with_error(mut self, error: ResponseError<'a>) -> Self {
        (self.status, self.error) = ("failed", Some(error));
        self
    }
}

impl<'a> OutputItem<'a> {
    /// Returns an item, or `None` for a kind that this door does not know.
    pub(super) fn new(item: &'a pb::OutputItem) -> Option<Self> {
        let (id, status) = (item.id.as_str(), status(item.status()));
        let is_begun = item.status() != pb::ResponseStatus::InProgress;
        Some(match item.item.as_ref()? {
            Item::Message(message) => Self::Message {
                id,
                status,
                role: "assistant",
                content: is_begun.then(|| OutputText::new(&message.text)).into_iter().collect(),
                phase: phase(message.phase()),
            },
            Item::FunctionCall(call) => Self::FunctionCall {
                id,
                status,
                call_id: &call.call_id,
                name: &call.name,
                arguments: &call.arguments,
            },
            Item::Reasoning(reasoning) => Self::Reasoning {
                id,
                status,
                summary: is_begun.then(|| SummaryText::new(&reasoning.summary)).into_iter().collect(),
            },
        })
    }
}

impl<'a> OutputText<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { kind: "output_text", text, annotations: [], logprobs: [] }
    }
}

impl<'a> SummaryText<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { kind: "summary_text", text }
    }
}

impl<'a> TextFormat<'a> {
    fn new(format: Option<&'a pb::ResponseFormat>) -> Self {
        match format.and_then(|format| format.format.as_ref()) {
            None | Some(Format::Text(_)) => Self::Text,
            Some(Format::JsonObject(_)) => Self::JsonObject,
            Some(Format::JsonSchema(schema)) => Self::JsonSchema {
                name: &schema.name,
                description: non_empty(&schema.description),
                schema: raw(&schema.schema),
                strict: schema.strict.unwrap_or_default(),
            },
        }
    }
}

impl<'a> Tool<'a> {
    fn new(tool: &'a pb::Tool) -> Self {
        Self {
            kind: "function",
            name: &tool.name,
            description: non_empty(&tool.description),
            parameters: raw(&tool.parameters_json),
            strict: tool.strict,
        }
    }
}

impl From<pb::Usage> for Usage {
    fn from(usage: pb::Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            input_tokens_details: InputTokensDetails {
                cached_tokens: usage.cached_input_tokens,
                cache_write_tokens: 0,
            },
            output_tokens: usage.output_tokens,
            output_tokens_details: OutputTokensDetails { reasoning_tokens: usage.reasoning_output_tokens },
            total_tokens: usage.input_tokens.saturating_add(usage.output_tokens),
            codex_estimated: usage.estimated,
        }
    }
}

/// Returns OpenAI's name of a status.
fn status(status: pb::ResponseStatus) -> &'static str {
    match status {
        // The contract never sends the zero value.
        pb::ResponseStatus::Unspecified | pb::ResponseStatus::InProgress => "in_progress",
        pb::ResponseStatus::Completed => "completed",
        pb::ResponseStatus::Incomplete => "incomplete",
    }
}

fn incomplete_reason(reason: pb::IncompleteReason) -> Option<&'static str> {
    match reason {
        pb::IncompleteReason::Unspecified => None,
        pb::IncompleteReason::MaxOutputTokens => Some("max_output_tokens"),
        pb::IncompleteReason::ContentFilter => Some("content_filter"),
    }
}

fn phase(phase: pb::MessagePhase) -> Option<&'static str> {
    match phase {
        pb::MessagePhase::Unspecified => None,
        pb::MessagePhase::Commentary => Some("commentary"),
        pb::MessagePhase::FinalAnswer => Some("final_answer"),
    }
}

fn tool_choice(settings: &pb::ResponseSettings) -> Value {
    let choice = settings.tool_choice.as_ref();
    let mode = match choice.map(pb::ToolChoice::mode).unwrap_or_default() {
        Mode::Unspecified | Mode::Auto => "auto",
        Mode::None => "none",
        Mode::Required => "required",
        Mode::Named => {
            return json!({"type": "function", "name": choice.map(|choice| choice.name.as_str())});
        }
    };
    if settings.allowed_tools.is_empty() {
        return mode.into();
    }
    let tools: Vec<Value> =
        settings.allowed_tools.iter().map(|name| json!({"type": "function", "name": name})).collect();
    json!({"type": "allowed_tools", "mode": mode, "tools": tools})
}

/// Returns JSON text as it is, `None` for an empty text.
fn raw(text: &str) -> Option<&RawValue> {
    serde_json::from_str(text).ok()
}

fn non_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
