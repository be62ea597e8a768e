//! What can go wrong, named for what the caller should do differently, and the only way from there to a
//! `tonic::Status`. Knows nothing of HTTP: `http::error` reads the status.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Domain of every `google.rpc.ErrorInfo` of this service.
pub const DOMAIN: &str = "codex-api";

/// Fixed text of every error that is our fault; the cause is in the log.
pub const INTERNAL_TEXT: &str = "internal error; the server's log has the cause under this request id";

/// Everything a request can fail with.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A field has a wrong value. The caller mends the request.
    #[error("{message}")]
    InvalidArgument {
        /// The field in the caller's words, `messages[2].parts[0].image`.
        field: String,
        /// What is wrong with it and what would be right.
        message: String,
    },
    /// A field asks for what this server cannot do. The caller leaves it out, or uses another engine.
    #[error("{message}")]
    Unsupported {
        /// The field in the caller's words.
        field: String,
        /// What cannot be done, and what can.
        message: String,
    },
    /// The prompt is larger than this server takes. The caller shortens it.
    #[error("{message}")]
    PromptTooLarge {
        /// Limit and size.
        message: String,
    },
    /// The prompt is larger than the model takes. The caller shortens it.
    #[error("{message}")]
    ContextLengthExceeded {
        /// The upstream's words.
        message: String,
    },
    /// The upstream refused the request itself, with its own reason. The caller mends the request.
    #[error("{message}")]
    Rejected {
        /// The upstream's words.
        message: String,
    },
    /// No token, or a wrong one.
    #[error("{message}")]
    Unauthenticated {
        /// How to give one.
        message: String,
    },
    /// The caller is known, or needs not be, but may not do this.
    #[error("{message}")]
    PermissionDenied {
        /// A stable upper-case word: POLICY_WIDENED, HOST_REFUSED, ORIGIN_REFUSED.
        reason: &'static str,
        /// What is not allowed.
        message: String,
    },
    /// Neither we nor the upstream know this model.
    #[error("{message}")]
    ModelNotFound {
        /// Which model, in the upstream's words where it spoke.
        message: String,
    },
    /// All slots and all places in the queue are taken, or the wait for a slot was too long. Waiting helps.
    #[error("{message}")]
    Overloaded {
        /// Which limit was met.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The upstream's rate limit. Waiting helps.
    #[error("{message}")]
    RateLimited {
        /// The upstream's words.
        message: String,
        /// When to try again, if the upstream said so.
        retry_after: Option<Duration>,
    },
    /// The plan or quota of the server's Codex account is used up. Waiting hours, or paying, helps.
    #[error("{message}")]
    UsageLimit {
        /// The upstream's words.
        message: String,
    },
    /// Codex is missing, too old, not logged in, or its key is refused. The operator must act.
    #[error("{message}")]
    EngineUnavailable {
        /// What is wrong and what to do about it.
        message: String,
    },
    /// The server is shutting down. Another replica, or this one later, will serve.
    #[error("the server is shutting down")]
    Draining,
    /// The request's time is over.
    #[error("{message}")]
    DeadlineExceeded {
        /// Which limit it was.
        message: String,
    },
    /// The turn began and failed: the upstream broke off, the agent gave up, the process died.
    #[error("{message}")]
    TurnFailed {
        /// Codex's words.
        message: String,
    },
    /// The process that ran the turn is gone, for a reason that need not be the turn's. Another try may do.
    #[error("{message}")]
    WorkerLost {
        /// What became of it.
        message: String,
    },
    /// The upstream could not be reached or is itself in trouble.
    #[error("{message}")]
    UpstreamUnavailable {
        /// Codex's words.
        message: String,
    },
    /// Our fault. The caller sees a fixed text.
    #[error("{cause}")]
    Internal {
        /// For the log only.
        cause: String,
    },
}

impl Error {
    /// A field with a wrong value.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidArgument { field: field.into(), message: message.into() }
    }

    /// A field that asks for what cannot be done here.
    pub fn unsupported(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into(), message: message.into() }
    }

    /// Our fault, with the cause for the log.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        Self::Internal { cause: format!("{cause}") }
    }

    /// The stable word of `google.rpc.ErrorInfo.reason`.
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
            Self::Internal { .. } => "INTERNAL",
        }
    }

    /// The gRPC code of this error: the left column of the table in the README.
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
            Self::TurnFailed { .. } => Code::Aborted,
            Self::Internal { .. } => Code::Internal,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after, .. } => Some(*retry_after),
            Self::RateLimited { retry_after, .. } => *retry_after,
            Self::Draining => Some(Duration::from_secs(1)),
            Self::InvalidArgument { .. }
            | Self::Unsupported { .. }
            | Self::PromptTooLarge { .. }
            | Self::ContextLengthExceeded { .. }
            | Self::Rejected { .. }
            | Self::Unauthenticated { .. }
            | Self::PermissionDenied { .. }
            | Self::ModelNotFound { .. }
            | Self::UsageLimit { .. }
            | Self::EngineUnavailable { .. }
            | Self::DeadlineExceeded { .. }
            | Self::TurnFailed { .. }
            | Self::UpstreamUnavailable { .. }
            | Self::WorkerLost { .. }
            | Self::Internal { .. } => None,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut details = ErrorDetails::new();
        details.set_error_info(error.reason(), DOMAIN, std::collections::HashMap::new());
        if let Error::InvalidArgument { field, message } | Error::Unsupported { field, message } = &error {
            details.add_bad_request_violation(field, message);
        }
        if let Some(delay) = error.retry_after() {
            details.set_retry_info(Some(delay));
        }
        let message = if let Error::Internal { cause } = &error {
            tracing::error!(%cause, "internal error");
            INTERNAL_TEXT.to_owned()
        } else {
            error.to_string()
        };
        Self::with_error_details(error.code(), message, details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_reason_field_and_delay() {
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

    #[test]
    fn an_internal_cause_stays_inside() {
        let status = Status::from(Error::internal("/root/secret: permission denied"));
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(status.message(), INTERNAL_TEXT);
    }
}
