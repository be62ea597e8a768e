//! The JSON of a whole chat completion, and the types that the chunks of a stream share with it.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    http::with_thread,
    pb::{self, ThreadOrigin},
};

/// The body of a response that is not streamed.
#[derive(Debug, Serialize)]
pub(super) struct ChatCompletion {
    id: String,
    object: &'static str,
    created: i64,
    model: String,
    choices: Vec<Choice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    system_fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    codex: Option<CodexExtension>,
    /// For the header of the response.
    #[serde(skip)]
    thread: ThreadOrigin,
}

/// An extension for notices, because OpenAI's object has no field for them. Omitted without notices.
#[derive(Debug, Serialize)]
struct CodexExtension {
    notices: Vec<Notice>,
}

/// A warning or a retry.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Notice {
    kind: &'static str,
    message: String,
}

#[derive(Debug, Serialize)]
struct Choice {
    index: u32,
    message: Message,
    logprobs: (),
    finish_reason: &'static str,
}

#[derive(Debug, Serialize)]
struct Message {
    role: &'static str,
    /// `null` only if the message has tool calls and no text.
    content: Option<String>,
    refusal: (),
    annotations: [(); 0],
    /// An extension that other servers and clients commonly use.
    #[serde(skip_serializing_if = "String::is_empty")]
    reasoning_content: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

/// A call of a client's function.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ToolCall {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Function {
    name: String,
    arguments: String,
}

/// Token counts of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(in crate::http) struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptTokensDetails,
    completion_tokens_details: CompletionTokensDetails,
    /// An extension: a part of the numbers is an estimate. Omitted for Codex's own numbers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    codex_estimated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct PromptTokensDetails {
    cached_tokens: u64,
    audio_tokens: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct CompletionTokensDetails {
    reasoning_tokens: u64,
    audio_tokens: u64,
    accepted_prediction_tokens: u64,
    rejected_prediction_tokens: u64,
}

impl From<pb::ChatResponse> for ChatCompletion {
    fn from(response: pb::ChatResponse) -> Self {
        Self {
            thread: response.thread(),
            id: response.id,
            object: "chat.completion",
            created: response.created_unix_seconds,
            model: response.model,
            choices: response.choices.into_iter().map(Choice::from).collect(),
            usage: response.usage.map(Usage::from),
            system_fingerprint: non_empty(response.system_fingerprint),
            codex: CodexExtension::new(response.notices),
        }
    }
}

impl IntoResponse for ChatCompletion {
    fn into_response(self) -> Response {
        let thread = self.thread;
        with_thread(Json(self).into_response(), thread)
    }
}

impl CodexExtension {
    fn new(notices: Vec<pb::Notice>) -> Option<Self> {
        let notices: Vec<Notice> = notices.into_iter().map(Notice::from).collect();
        (!notices.is_empty()).then_some(Self { notices })
    }
}

impl From<pb::Notice> for Notice {
    fn from(notice: pb::Notice) -> Self {
        let kind = match notice.kind() {
            // The contract never sends the zero value.
            pb::notice::Kind::Unspecified | pb::notice::Kind::Warning => "warning",
            pb::notice::Kind::Retry => "retry",
        };
        Self { kind, message: notice.message }
    }
}

impl From<pb::Choice> for Choice {
    fn from(choice: pb::Choice) -> Self {
        let finish_reason = finish_reason(choice.finish_reason());
        let content = (choice.tool_calls.is_empty() || !choice.text.is_empty()).then_some(choice.text);
        let message = Message {
            role: "assistant",
            content,
            refusal: (),
            annotations: [],
            reasoning_content: choice.reasoning,
            tool_calls: choice.tool_calls.into_iter().map(ToolCall::from).collect(),
        };
        Self { index: choice.index, message, logprobs: (), finish_reason }
    }
}

impl From<pb::ToolCall> for ToolCall {
    fn from(call: pb::ToolCall) -> Self {
        let function = Function { name: call.name, arguments: call.arguments };
        Self { id: call.id, kind: "function", function }
    }
}

impl From<pb::Usage> for Usage {
    fn from(usage: pb::Usage) -> Self {
        Self {
            prompt_tokens: usage.input_tokens,
            completion_tokens: usage.output_tokens,
            total_tokens: usage.input_tokens.saturating_add(usage.output_tokens),
            prompt_tokens_details: PromptTokensDetails {
                cached_tokens: usage.cached_input_tokens,
                audio_tokens: 0,
            },
            completion_tokens_details: CompletionTokensDetails {
                reasoning_tokens: usage.reasoning_output_tokens,
                audio_tokens: 0,
                accepted_prediction_tokens: 0,
                rejected_prediction_tokens: 0,
            },
            codex_estimated: usage.estimated,
        }
    }
}

/// Returns OpenAI's name of a finish reason.
pub(super) fn finish_reason(reason: pb::FinishReason) -> &'static str {
    match reason {
        // The contract never sends the zero value; clients need a value in any case.
        pb::FinishReason::Unspecified | pb::FinishReason::Stop => "stop",
        pb::FinishReason::Length => "length",
        pb::FinishReason::ToolCalls => "tool_calls",
        pb::FinishReason::ContentFilter => "content_filter",
    }
}

/// Returns `None` for an empty text, which the contract sends for an absent one.
pub(super) fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
