//! The request headers that select what a stream contains besides its chunks.

use http::{HeaderMap, HeaderName};

use super::{Facade, error::ApiError, sse::KeepAlive};
use crate::config::KeepAliveForm;

/// `1` asks for notices, which are comments. Without it a stream has none.
const NOTICES: HeaderName = HeaderName::from_static("x-codex-notices");

/// Form of the keep-alives, or `off`. Without it the server's configuration applies.
const KEEP_ALIVE: HeaderName = HeaderName::from_static("x-codex-keepalive");

/// Returns `true` if the client asks for notices.
pub(super) fn notices(headers: &HeaderMap) -> Result<bool, ApiError> {
    match word(headers, &NOTICES).as_deref() {
        None | Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some(_) => Err(ApiError::invalid(NOTICES.as_str(), "x-codex-notices must be 0 or 1")),
    }
}

/// Returns the keep-alives of a stream that begins now, `None` without any.
pub(super) fn keep_alive<S>(facade: &Facade<S>, headers: &HeaderMap) -> Result<Option<KeepAlive>, ApiError> {
    let form = match word(headers, &KEEP_ALIVE).as_deref() {
        None => facade.keep_alive_form,
        Some("off") => return Ok(None),
        Some(word) => KeepAliveForm::parse(word).ok_or_else(|| {
            ApiError::invalid(KEEP_ALIVE.as_str(), "x-codex-keepalive must be comment, chunk or off")
        })?,
    };
    Ok(facade.keep_alive.map(|interval| KeepAlive::new(interval, form)))
}

fn word(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().unwrap_or("invalid");
    Some(value.trim().to_ascii_lowercase()).filter(|word| !word.is_empty())
}
