//! The answers' shapes: a whole chat completion, and what it shares with the chunks of a stream.

use serde::Serialize;

use crate::pb;

/// The body of a plain answer.
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
}

/// What OpenAI's answers have no place for, where there is something to say.
#[derive(Debug, Serialize)]
struct CodexExtension {
    notices: Vec<Notice>,
}

/// Something a careful client may show.
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
    /// `null` only where tool calls stand in its place.
    content: Option<String>,
    refusal: (),
    annotations: [(); 0],
    /// Not OpenAI's, but what many servers and clients use for thoughts.
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

/// Tokens of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptTokensDetails,
    completion_tokens_details: CompletionTokensDetails,
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

impl ChatCompletion {
    /// The contract's answer in OpenAI's shape.
    pub(super) fn of(answer: pb::ChatResponse) -> Self {
        Self {
            id: answer.id,
            object: "chat.completion",
            created: answer.created_unix_seconds,
            model: answer.model,
            choices: answer.choices.into_iter().map(Choice::of).collect(),
            usage: answer.usage.map(Usage::of),
            system_fingerprint: given(answer.system_fingerprint),
            codex: CodexExtension::of(answer.notices),
        }
    }
}

impl CodexExtension {
    fn of(notices: Vec<pb::Notice>) -> Option<Self> {
        let notices: Vec<Notice> = notices.into_iter().map(Notice::of).collect();
        (!notices.is_empty()).then_some(Self { notices })
    }
}

impl Notice {
    /// The contract's notice.
    pub(super) fn of(notice: pb::Notice) -> Self {
        let kind = match notice.kind() {
            // The contract never sends the zero value.
            pb::notice::Kind::Unspecified | pb::notice::Kind::Warning => "warning",
            pb::notice::Kind::Retry => "retry",
        };
        Self { kind, message: notice.message }
    }
}

impl Choice {
    fn of(choice: pb::Choice) -> Self {
        let finish_reason = finish_reason(choice.finish_reason());
        let content = (choice.tool_calls.is_empty() || !choice.text.is_empty()).then_some(choice.text);
        let message = Message {
            role: "assistant",
            content,
            refusal: (),
            annotations: [],
            reasoning_content: choice.reasoning,
            tool_calls: choice.tool_calls.into_iter().map(ToolCall::of).collect(),
        };
        Self { index: choice.index, message, logprobs: (), finish_reason }
    }
}

impl ToolCall {
    /// The contract's call in OpenAI's shape.
    pub(super) fn of(call: pb::ToolCall) -> Self {
        let function = Function { name: call.name, arguments: call.arguments };
        Self { id: call.id, kind: "function", function }
    }
}

impl Usage {
    /// The contract's usage in OpenAI's shape.
    pub(super) fn of(usage: pb::Usage) -> Self {
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
        }
    }
}

/// OpenAI's word for why an answer ended.
pub(super) fn finish_reason(reason: pb::FinishReason) -> &'static str {
    match reason {
        // The contract never sends the zero value; clients need a word in any case.
        pb::FinishReason::Unspecified | pb::FinishReason::Stop => "stop",
        pb::FinishReason::Length => "length",
        pb::FinishReason::ToolCalls => "tool_calls",
        pb::FinishReason::ContentFilter => "content_filter",
    }
}

/// The contract's empty text is "not given".
pub(super) fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
