//! Extracts the input of a handler from an HTTP request: the JSON body within its limits, and the in-process call
//! with its context and time limit.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, header, request::Parts};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;

use super::{
    counted,
    error::ApiError,
    field_names::{FieldNames, TIMEOUT_HEADER},
};
use crate::{
    config::ListLimits,
    context::{
        RequestContext,
        body_budget::{BodyBudget, BodyPermit, HeldBody},
        deadline::Deadline,
    },
    error::Error,
};

/// Maximum length of an error text that quotes the caller, in characters.
const MAX_QUOTE: usize = 300;

/// Body size from which parsing runs outside of the runtime's threads, which all streams share.
const LARGE_BODY: usize = 256 * 1024;

/// Limits of a body.
#[derive(Debug, Clone)]
pub(super) struct BodyLimits {
    /// Maximum size in bytes.
    pub(super) max_bytes: usize,
    /// Maximum pause between two frames.
    pub(super) pause: Duration,
    /// Time limit of the request, which begins with its head.
    pub(super) request: Duration,
    /// Limits of the lists of a body.
    pub(super) lists: ListLimits,
    /// The budget of all bodies.
    pub(super) budget: BodyBudget,
}

/// Reads, parses and converts a JSON body. The extensions get the permit for its memory.
pub(super) async fn json<T: DeserializeOwned, U: Send + 'static>(
    parts: &mut Parts,
    body: Body,
    limits: &BodyLimits,
    convert: impl FnOnce(T) -> Result<U, ApiError> + Send + 'static,
) -> Result<U, ApiError> {
    check_content_type(&parts.headers)?;
    check_content_encoding(&parts.headers)?;
    // A client with `expect: 100-continue` reads the response before it sends the body. Other clients send it first.
    let expects_continue = parts.headers.contains_key(header::EXPECT);
    let deadline = deadline(parts, limits.request)?;
    let (bytes, permit) = match timeout_at(deadline.at(), read(body, limits, expects_continue)).await {
        Ok(read) => read?,
        Err(_) => {
            return Err(ApiError::from_status(&deadline.body_exceeded().into(), &FieldNames::default()));
        }
    };
    parts.extensions.insert(HeldBody::new(permit));
    let (size, lists) = (bytes.len(), limits.lists);
    let parse = move || {
        let parsed = counted::within(lists, || parse(&bytes))?;
        drop(bytes);
        convert(parsed)
    };
    if size < LARGE_BODY {
        return parse();
    }
    let parsed = tokio::task::spawn_blocking(parse).await;
    parsed.unwrap_or_else(|error| {
        Err(ApiError::from_status(&Error::internal(error).into(), &FieldNames::default()))
    })
}

/// Returns the deadline of a request by the server's and the caller's limit.
fn deadline(parts: &Parts, server: Duration) -> Result<Deadline, ApiError> {
    let received_at = parts.extensions.get().map_or_else(Instant::now, |c: &RequestContext| c.received_at);
    let requested = timeout(&parts.headers)?.and_then(|limit| limit.try_into().ok());
    Deadline::new(received_at, server, &MetadataMap::new(), requested)
        .map_err(|error| ApiError::from_status(&error.into(), &FieldNames::default()))
}

/// Requires JSON, because any web page can send a form or plain text without the browser's permission.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json")) {
        return Ok(());
    }
    Err(ApiError::unsupported_media_type("the body must be JSON: send `content-type: application/json`"))
}

/// Refuses compressed bodies, which would fail as invalid JSON.
fn check_content_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let plain = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        return Ok(());
    }
    Err(ApiError::unsupported_media_type("compressed bodies are not supported; omit `content-encoding`"))
}

/// Reads a body. Returns it with the permit for its memory.
async fn read(
    mut body: Body,
    limits: &BodyLimits,
    expects_continue: bool,
) -> Result<(Bytes, BodyPermit), ApiError> {
    let max = limits.max_bytes;
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let too_large = || {
        ApiError::body_too_large(format!("the body exceeds the limit of {max} bytes (CODEX_MAX_BODY_BYTES)"))
    };
    let exhausted = |error: Error| ApiError::from_status(&error.into(), &FieldNames::default());
    let mut permit =
        if declared > max { Err(too_large()) } else { limits.budget.open(declared).map_err(exhausted) };
    // The announced length is trusted only up to this size.
    let mut bytes = BytesMut::with_capacity(if permit.is_ok() { declared.min(1 << 20) } else { 0 });
    while let Ok(held) = &mut permit {
        let Some(frame) = next_frame(&mut body, limits.pause).await? else { break };
        let Ok(data) = frame.into_data() else { continue };
        let size = bytes.len() + data.len();
        let refused = if size > max { Some(too_large()) } else { held.hold(size).err().map(exhausted) };
        match refused {
            Some(error) => permit = Err(error),
            None => bytes.extend_from_slice(&data),
        }
    }
    if permit.is_err() {
        drop(bytes);
        if !expects_continue {
            skip(body, limits).await;
        }
        return permit.map(|permit| (Bytes::new(), permit));
    }
    permit.map(|permit| (bytes.freeze(), permit))
}

async fn next_frame(body: &mut Body, pause: Duration) -> Result<Option<http_body::Frame<Bytes>>, ApiError> {
    match tokio::time::timeout(pause, body.frame()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(frame))) => Ok(Some(frame)),
        Ok(Some(Err(error))) => {
            Err(ApiError::broken_body(truncate_middle(&format!("the body could not be read: {error}"))))
        }
        Err(_) => Err(ApiError::body_timeout(format!(
            "no part of the body arrived for {} seconds (CODEX_BODY_TIMEOUT_SECONDS)",
            pause.as_secs()
        ))),
    }
}

/// Reads and discards the rest of a body, up to the limits. If the connection closed while the client sends, the client
/// would get an error of the connection instead of the response.
async fn skip(mut body: Body, limits: &BodyLimits) {
    let reading = async {
        let mut left = limits.max_bytes;
        while let Some(Ok(frame)) = body.frame().await {
            let size = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(size) else { return };
            left = rest;
        }
    };
    // The response is the same if the end was not reached.
    let _ = tokio::time::timeout(limits.pause, reading).await;
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // Editors and the shells of Windows write a byte order mark, which JSON does not allow.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::invalid_json("the body is empty; a JSON object is expected"));
    }
    // The parser does not check members that it skips.
    let text = std::str::from_utf8(bytes)
        .map_err(|error| ApiError::invalid_json(format!("the body is not valid JSON: {error}")))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        refusal(path.trim_end_matches(['.', '?']), error.inner())
    })?;
    reader.end().map_err(|error| refusal("", &error))?;
    Ok(value)
}

fn refusal(path: &str, error: &serde_json::Error) -> ApiError {
    match error.classify() {
        Category::Data if path.is_empty() => {
            ApiError::invalid_json(truncate_middle(&format!("the body has an unexpected form: {error}")))
        }
        Category::Data => ApiError::invalid(path, truncate_middle(&format!("{path}: {error}"))),
        Category::Syntax | Category::Eof | Category::Io => {
            let text = error.to_string();
            let hint = match text.contains("surrogate") || text.contains("hex escape") {
                true => "; an escape from \\ud800 to \\udfff must be half of a pair",
                false => "",
            };
            ApiError::invalid_json(format!("the body is not valid JSON: {text}{hint}"))
        }
    }
}

/// Removes the middle of a long text that quotes the caller. Its end has the position of the error.
fn truncate_middle(text: &str) -> String {
    let count = text.chars().count();
    if count <= MAX_QUOTE {
        return text.to_owned();
    }
    let head: String = text.chars().take(MAX_QUOTE - 100).collect();
    let tail: String = text.chars().skip(count - 100).collect();
    format!("{head} … {tail}")
}

/// Returns the in-process call of a request, with the context from the authentication middleware.
pub(super) fn call<T>(parts: &Parts, message: T) -> tonic::Request<T> {
    let mut call = tonic::Request::new(message);
    if let Some(context) = parts.extensions.get::<RequestContext>() {
        call.extensions_mut().insert(context.clone());
    }
    if let Some(held) = parts.extensions.get::<HeldBody>() {
        call.extensions_mut().insert(held.clone());
    }
    call
}

/// Parses the caller's own time limit.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<prost_types::Duration>, ApiError> {
    let Some(value) = headers.get(HeaderName::from_static(TIMEOUT_HEADER)) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = text.parse::<f64>().ok().filter(|seconds| is_decimal && *seconds > 0.0);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let duration = duration.and_then(|duration| prost_types::Duration::try_from(duration).ok());
    match duration {
        Some(duration) => Ok(Some(duration)),
        None => Err(ApiError::invalid(
            TIMEOUT_HEADER,
            format!("{TIMEOUT_HEADER} must be a positive decimal number of seconds, such as 30 or 2.5"),
        )),
    }
}

#[cfg(test)]
mod tests;
