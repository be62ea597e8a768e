//! The errors of a request, one variant per reaction of the caller, and their conversion to a `tonic::Status`. HTTP is
//! not involved here; `http::error` translates the status.

pub(crate) mod foreign_text;

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of every `google.rpc.ErrorInfo` of this service.
pub const DOMAIN: &str = "codex-api";

/// The fixed text of every internal error. The log has the cause.
pub const INTERNAL_TEXT: &str = "internal error; the server's log has the cause under this request id";

/// Trailer of gRPC's retry policy: the delay before a retry in milliseconds. A negative value forbids retries, also if
/// the client's policy lists the code.
pub const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Delay before a retry of a failure that no event announces the end of.
const DEFAULT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Delay before a retry of a failure of the upstream. The CLI has already repeated the request at short intervals, and SDKs
/// repeat it twice, each time with the CLI's own retries.
const UPSTREAM_RETRY_DELAY: Duration = Duration::from_secs(5);

/// The error of a request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A field has a wrong value. The caller corrects the request.
    #[error("{message}")]
    InvalidArgument {
        /// The path of the field in the contract, such as `messages[2].parts[0].image`.
        field: String,
        /// The mistake and the expected value.
        message: String,
    },
    /// A field requests what this server does not support. The caller omits it, or uses another engine.
    #[error("{message}")]
    Unsupported {
        /// The path of the field in the contract.
        field: String,
        /// The unsupported feature and its alternative.
        message: String,
    },
    /// The prompt exceeds this server's limit. The caller shortens it.
    #[error("{}", too_long(message))]
    PromptTooLarge {
        /// The largest part of the prompt: messages, tools or the schema of the answer.
        field: &'static str,
        /// The limit and the size.
        message: String,
    },
    /// The prompt exceeds the model's context. The caller shortens it.
    #[error("{}", too_long(message))]
    ContextLengthExceeded {
        /// The upstream's message.
        message: String,
    },
    /// The upstream rejected the request, with its own reason. The caller corrects the request.
    #[error("{message}")]
    Rejected {
        /// The upstream's message.
        message: String,
    },
    /// The token is missing or wrong.
    #[error("{message}")]
    Unauthenticated {
        /// The ways to send a token.
        message: String,
    },
    /// The caller is authenticated or anonymous, but not permitted.
    #[error("{message}")]
    PermissionDenied {
        /// A stable upper-case reason: POLICY_WIDENED, HOST_REFUSED, ORIGIN_REFUSED.
        reason: &'static str,
        /// The forbidden action.
        message: String,
    },
    /// Neither the server nor the upstream has this model. The caller selects another one.
    #[error(
        "{message} (GET /v1/models and ListModels list the models; the operator sets CODEX_MODEL or CODEX_MODEL_ALIASES)"
    )]
    ModelNotFound {
        /// The model, or the upstream's message.
        message: String,
    },
    /// The queue is full, or the wait for a slot exceeded the deadline. The caller retries later.
    #[error("{message}")]
    Overloaded {
        /// The exceeded limit.
        message: String,
        /// The delay before a retry.
        retry_after: Duration,
    },
    /// The upstream's rate limit is exceeded. The caller retries later.
    #[error("{message}")]
    RateLimited {
        /// The upstream's message.
        message: String,
        /// The delay before a retry, if the upstream sent one.
        retry_after: Option<Duration>,
    },
    /// The plan or quota of the server's Codex account is exhausted. A retry succeeds after hours or a purchase. Clients
    /// look for the first words, which are OpenAI's.
    #[error("You exceeded your current quota: {message}")]
    UsageLimit {
        /// The upstream's message, or this server's with the time of the reset.
        message: String,
        /// The delay until the reset, if known.
        retry_after: Option<Duration>,
    },
    /// Codex is missing, too old, not logged in, or its key is rejected. The operator must act.
    #[error("{message}")]
    EngineUnavailable {
        /// The problem and its remedy.
        message: String,
    },
    /// The server is shutting down. The caller retries at another replica, or later.
    #[error("the server is shutting down")]
    Draining,
    /// The deadline of the request expired.
    #[error("{message}")]
    DeadlineExceeded {
        /// The limit and its origin.
        message: String,
    },
    /// The turn failed after its start: the upstream closed the stream, the agent failed, or the process exited.
    #[error("{message}")]
    TurnFailed {
        /// Codex's message.
        message: String,
    },
    /// The worker process of the turn exited before the turn could have an effect, perhaps for another reason than the
    /// turn. A retry may succeed.
    #[error("{message}")]
    WorkerLost {
        /// The exit of the process.
        message: String,
    },
    /// The upstream is unreachable or failing. A retry may succeed.
    #[error("{message}")]
    UpstreamUnavailable {
        /// Codex's message.
        message: String,
    },
    /// A turn whose agent has begun to act failed for a reason that would otherwise be offered for retry. Nothing
    /// may repeat the request by itself. Created by [`Error::after_effects`].
    #[error("{}; {}", cause_text(cause), effects_text(cause))]
    FailedAfterEffects {
        /// The reason of the failure.
        cause: Box<Error>,
    },
    /// A defect of this server. The caller receives a fixed text.
    #[error("{cause}")]
    Internal {
        /// For the log only.
        cause: String,
    },
}

impl Error {
    /// Returns the error of a field with a wrong value.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidArgument { field: field.into(), message: message.into() }
    }

    /// Returns the error of a field that requests an unsupported feature.
    pub fn unsupported(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into(), message: message.into() }
    }

    /// Returns an internal error, with its cause for the log.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        Self::Internal { cause: format!("{cause}") }
    }

    /// Returns the error of a turn whose agent has begun to act: the same, unless machines would retry it.
    ///
    /// Proxies and gRPC clients retry UNAVAILABLE and RESOURCE_EXHAUSTED, SDKs retry 429 and 503, and agents
    /// shorten a conversation that is too long and send it again. A failure that no machine retries keeps its form.
    #[must_use]
    pub fn after_effects(self) -> Self {
        match self {
            Self::Overloaded { .. }
            | Self::RateLimited { .. }
            | Self::UsageLimit { .. }
            | Self::EngineUnavailable { .. }
            | Self::Draining
            | Self::UpstreamUnavailable { .. }
            | Self::WorkerLost { .. }
            | Self::ContextLengthExceeded { .. } => Self::FailedAfterEffects { cause: Box::new(self) },
            Self::InvalidArgument { .. }
            | Self::Unsupported { .. }
            | Self::PromptTooLarge { .. }
            | Self::Rejected { .. }
            | Self::Unauthenticated { .. }
            | Self::PermissionDenied { .. }
            | Self::ModelNotFound { .. }
            | Self::DeadlineExceeded { .. }
            | Self::TurnFailed { .. }
            | Self::FailedAfterEffects { .. }
            | Self::Internal { .. } => self,
        }
    }

    /// Returns the reason of the failure, also of a turn that had effects.
    pub fn root_cause(&self) -> &Self {
        if let Self::FailedAfterEffects { cause } = self { cause } else { self }
    }

    /// Returns the stable reason for `google.rpc.ErrorInfo.reason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidArgument { .. } => "INVALID_VALUE",
            Self::Unsupported { .. } => "UNSUPPORTED_PARAMETER",
            Self::PromptTooLarge { .. } => "PROMPT_TOO_LARGE",
            Self::ContextLengthExceeded { .. } => "CONTEXT_LENGTH_EXCEEDED",
            Self::Rejected { .. } => "UPSTREAM_REJECTED",
            Self::Unauthenticated { .. } => "INVALID_API_KEY",
            Self::PermissionDenied { reason, .. } => reason,
            Self::ModelNotFound { .. } => "MODEL_NOT_FOUND",
            Self::Overloaded { .. } => "OVERLOADED",
            Self::RateLimited { .. } => "RATE_LIMIT_EXCEEDED",
            Self::UsageLimit { .. } => "INSUFFICIENT_QUOTA",
            Self::EngineUnavailable { .. } => "ENGINE_UNAVAILABLE",
            Self::Draining => "SHUTTING_DOWN",
            Self::DeadlineExceeded { .. } => "TIMEOUT",
            Self::TurnFailed { .. } => "TURN_FAILED",
            Self::WorkerLost { .. } => "WORKER_LOST",
            Self::UpstreamUnavailable { .. } => "UPSTREAM_UNAVAILABLE",
            Self::FailedAfterEffects { .. } => "FAILED_AFTER_EFFECTS",
            Self::Internal { .. } => "INTERNAL",
        }
    }

    /// Returns the gRPC code: the left column of the table in the README.
    pub fn code(&self) -> Code {
        match self {
            Self::InvalidArgument { .. }
            | Self::Unsupported { .. }
            | Self::PromptTooLarge { .. }
            | Self::ContextLengthExceeded { .. }
            | Self::Rejected { .. } => Code::InvalidArgument,
            Self::Unauthenticated { .. } => Code::Unauthenticated,
            Self::PermissionDenied { .. } => Code::PermissionDenied,
            Self::ModelNotFound { .. } => Code::NotFound,
            Self::Overloaded { .. } | Self::RateLimited { .. } | Self::UsageLimit { .. } => {
                Code::ResourceExhausted
            }
            Self::EngineUnavailable { .. } => Code::FailedPrecondition,
            Self::Draining | Self::UpstreamUnavailable { .. } | Self::WorkerLost { .. } => Code::Unavailable,
            Self::DeadlineExceeded { .. } => Code::DeadlineExceeded,
            Self::TurnFailed { .. } | Self::FailedAfterEffects { .. } => Code::Aborted,
            Self::Internal { .. } => Code::Internal,
        }
    }

    /// Returns the text for the caller: scrubbed if others wrote a part of it, and so short that the status fits.
    fn text_for_caller(&self) -> String {
        let text = self.to_string();
        match self {
            Self::InvalidArgument { .. } | Self::Unsupported { .. } => cut_message(&text, 2),
            Self::Unauthenticated { .. }
            | Self::PermissionDenied { .. }
            | Self::Overloaded { .. }
            | Self::Draining
            | Self::DeadlineExceeded { .. }
            | Self::Internal { .. } => cut_message(&text, 1),
            Self::PromptTooLarge { .. }
            | Self::ContextLengthExceeded { .. }
            | Self::Rejected { .. }
            | Self::ModelNotFound { .. }
            | Self::RateLimited { .. }
            | Self::UsageLimit { .. }
            | Self::EngineUnavailable { .. }
            | Self::TurnFailed { .. }
            | Self::WorkerLost { .. }
            | Self::FailedAfterEffects { .. }
            | Self::UpstreamUnavailable { .. } => cut_message(&foreign_text::scrubbed(&text), 1),
        }
    }

    /// Returns the field of a prompt that is too long.
    fn long_field(&self) -> Option<&'static str> {
        if let Self::PromptTooLarge { field, .. } = self {
            return Some(field);
        }
        matches!(self, Self::ContextLengthExceeded { .. }).then_some("messages")
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after, .. } => Some(*retry_after),
            Self::RateLimited { retry_after, .. } | Self::UsageLimit { retry_after, .. } => *retry_after,
            Self::UpstreamUnavailable { .. } => Some(UPSTREAM_RETRY_DELAY),
            Self::Draining | Self::WorkerLost { .. } => Some(DEFAULT_RETRY_DELAY),
            Self::InvalidArgument { .. }
            | Self::Unsupported { .. }
            | Self::PromptTooLarge { .. }
            | Self::ContextLengthExceeded { .. }
            | Self::Rejected { .. }
            | Self::Unauthenticated { .. }
            | Self::PermissionDenied { .. }
            | Self::ModelNotFound { .. }
            | Self::EngineUnavailable { .. }
            | Self::DeadlineExceeded { .. }
            | Self::TurnFailed { .. }
            | Self::FailedAfterEffects { .. }
            | Self::Internal { .. } => None,
        }
    }

    /// Returns `true` if no machine may retry, because a retry may repeat effects or cannot succeed soon. The same errors
    /// have `x-should-retry: false` over HTTP.
    fn forbids_retry(&self) -> bool {
        match self {
            Self::UsageLimit { .. }
            | Self::EngineUnavailable { .. }
            | Self::DeadlineExceeded { .. }
            | Self::TurnFailed { .. }
            | Self::FailedAfterEffects { .. }
            | Self::Internal { .. } => true,
            Self::InvalidArgument { .. }
            | Self::Unsupported { .. }
            | Self::PromptTooLarge { .. }
            | Self::ContextLengthExceeded { .. }
            | Self::Rejected { .. }
            | Self::Unauthenticated { .. }
            | Self::PermissionDenied { .. }
            | Self::ModelNotFound { .. }
            | Self::Overloaded { .. }
            | Self::RateLimited { .. }
            | Self::Draining
            | Self::UpstreamUnavailable { .. }
            | Self::WorkerLost { .. } => false,
        }
    }

    /// Returns the value of [`RETRY_PUSHBACK`].
    fn retry_pushback(&self) -> Option<MetadataValue<tonic::metadata::Ascii>> {
        if self.forbids_retry() {
            return Some(MetadataValue::from_static("-1"));
        }
        // gRPC reads a signed number of 32 bits.
        let delay = self.retry_after()?.as_millis();
        Some(MetadataValue::from(i32::try_from(delay).unwrap_or(i32::MAX)))
    }
}

/// Returns the text of a failure after effects, without the words at which agents send a shorter conversation.
fn cause_text(cause: &Error) -> String {
    if let Error::ContextLengthExceeded { message } = cause { message.clone() } else { cause.to_string() }
}

/// Returns what a caller must know about the effects of a failed turn.
fn effects_text(cause: &Error) -> &'static str {
    if matches!(cause, Error::WorkerLost { .. }) {
        "the agent may already have run commands or changed files, so look before you repeat the request"
    } else {
        "the agent had already begun to run commands or other tools, so look before you repeat the request"
    }
}

/// Returns the text about a prompt that is too long. Agents shorten their conversation if they find OpenAI's words; with
/// other words they give up or send it again.
fn too_long(cause: &str) -> String {
    let cause = cause.trim_end().trim_end_matches('.');
    format!(
        "This model's maximum context length is exceeded: {cause}. Please reduce the length of the messages."
    )
}

/// Maximum size of the message of a status in the headers of a response, in bytes. gRPC clients accept 8 KiB of headers,
/// proxies as little as 4 KiB. The rest is for the other details.
const MAX_MESSAGE_BYTES: usize = 3000;

/// Maximum length of the path of a field in the details. A path holds names of the caller's schema.
const MAX_FIELD_BYTES: usize = 256;

/// Cuts a message that is in the details `copies` times, in base64, and in `grpc-message`, percent-encoded.
fn cut_message(message: &str, copies: usize) -> String {
    foreign_text::cut_middle(message, MAX_MESSAGE_BYTES * 3, |c| {
        let is_plain = c.is_ascii_graphic() && !"\"#%<>?`{}".contains(c);
        let encoded = if is_plain { 1 } else { 3 * c.len_utf8() };
        // Thirds of a byte, because base64 makes four bytes of three.
        3 * encoded + 4 * copies * c.len_utf8()
    })
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut details = ErrorDetails::new();
        let mut metadata = HashMap::new();
        if let Error::FailedAfterEffects { cause } = &error {
            metadata.insert("cause".to_owned(), cause.reason().to_owned());
        }
        details.set_error_info(error.reason(), DOMAIN, metadata);
        if let Error::InvalidArgument { field, message } | Error::Unsupported { field, message } = &error {
            let field = foreign_text::cut_middle(field, MAX_FIELD_BYTES, char::len_utf8);
            details.add_bad_request_violation(field, cut_message(message, 2));
        }
        if let Some(field) = error.long_field() {
            details.add_bad_request_violation(field, "too long");
        }
        if let Some(delay) = error.retry_after() {
            details.set_retry_info(Some(delay));
        }
        let message = if let Error::Internal { cause } = &error {
            tracing::error!(%cause, "internal error");
            INTERNAL_TEXT.to_owned()
        } else {
            error.text_for_caller()
        };
        let mut status = Self::with_error_details(error.code(), message, details);
        if let Some(pushback) = error.retry_pushback() {
            status.metadata_mut().insert(RETRY_PUSHBACK, pushback);
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_of_an_error_has_reason_field_and_delay() {
        let status = Status::from(Error::invalid("messages[0].role", "required"));
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(details.error_info().map(|i| i.reason.as_str()), Some("INVALID_VALUE"));
        let field = details.bad_request().map(|b| b.field_violations[0].field.clone());
        assert_eq!(field.as_deref(), Some("messages[0].role"));

        let status =
            Status::from(Error::Overloaded { message: "full".into(), retry_after: Duration::from_secs(3) });
        let delay = status.get_error_details().retry_info().and_then(|r| r.retry_delay);
        assert_eq!(delay, Some(Duration::from_secs(3)));
    }

    fn pushback(error: Error) -> Option<String> {
        let status = Status::from(error);
        status.metadata().get(RETRY_PUSHBACK).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn status_after_effects_is_aborted_and_names_its_cause() {
        let limited =
            Error::RateLimited { message: "slow".into(), retry_after: Some(Duration::from_secs(2)) };
        assert_eq!(pushback(limited.clone()).as_deref(), Some("2000"));
        let error = limited.after_effects();
        assert_eq!(error.root_cause().reason(), "RATE_LIMIT_EXCEEDED");
        assert_eq!(pushback(error.clone()).as_deref(), Some("-1"));
        let status = Status::from(error);
        assert_eq!(status.code(), Code::Aborted);
        assert!(status.message().starts_with("slow; the agent had already begun"), "{status}");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (&*info.reason, &*info.metadata["cause"]),
            ("FAILED_AFTER_EFFECTS", "RATE_LIMIT_EXCEEDED")
        );
        assert!(details.retry_info().is_none());
        let lost = Error::WorkerLost { message: "gone".into() }.after_effects();
        assert!(lost.to_string().contains("may already have run"), "{lost}");
    }

    #[test]
    fn error_that_no_machine_retries_is_equal_after_effects() {
        let rejected = Error::Rejected { message: "no".into() }.after_effects();
        assert_eq!((rejected.code(), rejected.reason()), (Code::InvalidArgument, "UPSTREAM_REJECTED"));
        let long = Error::ContextLengthExceeded { message: "long".into() }.after_effects();
        assert_eq!((long.code(), long.reason()), (Code::Aborted, "FAILED_AFTER_EFFECTS"));
        assert!(!long.to_string().contains("maximum context length"), "{long}");
        let twice = Error::Draining.after_effects().after_effects();
        assert_eq!(twice.root_cause().reason(), "SHUTTING_DOWN");
    }

    #[test]
    fn text_about_a_long_prompt_has_the_words_that_agents_search() {
        for cause in ["too long", "Too long.", "300001 tokens.\n"] {
            let message = cause.to_owned();
            for error in [
                Error::PromptTooLarge { field: "messages", message: message.clone() },
                Error::ContextLengthExceeded { message },
            ] {
                let text = Status::from(error).message().to_owned();
                assert!(text.starts_with("This model's maximum context length is exceeded: "), "{text}");
                assert!(text.ends_with(". Please reduce the length of the messages."), "{text}");
                assert!(
                    text.contains(cause.trim_end().trim_end_matches('.')) && !text.contains(".."),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn status_with_a_huge_text_stays_below_4_kib_encoded() {
        for letter in ["x", "ß", "語", "😀", "%", "\n", "\"", "\u{0}"] {
            let text = format!("maximum context length {}e", letter.repeat(50_000 / letter.len()));
            for error in [
                Error::invalid("f".repeat(10_000), text.as_str()),
                Error::unsupported("語".repeat(10_000), text.as_str()),
                Error::ContextLengthExceeded { message: text.clone() },
                Error::Rejected { message: text.clone() },
                Error::ModelNotFound { message: text.clone() },
                Error::RateLimited { message: text.clone(), retry_after: Some(Duration::from_millis(1500)) },
                Error::UsageLimit { message: text.clone(), retry_after: None },
                Error::EngineUnavailable { message: text.clone() },
                Error::TurnFailed { message: text.clone() },
                Error::UpstreamUnavailable { message: text.clone() },
                Error::PermissionDenied { reason: "HOST_REFUSED", message: text.clone() },
                Error::UpstreamUnavailable { message: text.clone() }.after_effects(),
            ] {
                let name = format!("{} of {letter:?}", error.reason());
                let headers = Status::from(error).into_http::<()>().into_parts().0.headers;
                let size: usize =
                    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
                assert!((1500..4096).contains(&size), "{name}: {size}");
                let status = Status::from_header_map(&headers).unwrap();
                assert!(status.message().contains("maximum context length "), "{name}");
            }
        }
    }

    #[test]
    fn status_of_each_error_of_others_has_no_key_address_or_path() {
        let message =
            "no sk-proj-0123456789abcdefghij at http://10.0.0.1:8/v1 in /root/.codex/auth.json".to_owned();
        let expected = "no <key> at <address> in <path>";
        for error in [
            Error::PromptTooLarge { field: "messages", message: message.clone() },
            Error::ContextLengthExceeded { message: message.clone() },
            Error::Rejected { message: message.clone() },
            Error::ModelNotFound { message: message.clone() },
            Error::RateLimited { message: message.clone(), retry_after: None },
            Error::UsageLimit { message: message.clone(), retry_after: None },
            Error::EngineUnavailable { message: message.clone() },
            Error::TurnFailed { message: message.clone() },
            Error::WorkerLost { message: message.clone() },
            Error::UpstreamUnavailable { message },
        ] {
            let status = Status::from(error);
            assert!(status.message().contains(expected), "{}", status.message());
            assert!(!String::from_utf8_lossy(status.details()).contains("0123456789"), "{status:?}");
        }
    }

    #[test]
    fn status_of_an_internal_error_hides_its_cause() {
        let status = Status::from(Error::internal("/root/secret: permission denied"));
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.message(), INTERNAL_TEXT);
    }
}
