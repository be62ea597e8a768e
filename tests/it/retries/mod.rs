//! What machines may repeat: a turn whose agent has begun to act ends, at either door, with what nothing retries.

mod effects;
mod silence;
mod whole_answers;

use codex_api::error::RETRY_PUSHBACK;
use reqwest::Response;
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Asserts that a failed call forbids retries and names the reason of the failure.
fn assert_forbids_retry(status: &Status, cause: &str) {
    assert_eq!(status.code(), Code::Aborted, "{status}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((&*info.reason, &*info.metadata["cause"]), ("FAILED_AFTER_EFFECTS", cause), "{status}");
    assert!(details.retry_info().is_none(), "{status}");
    assert_eq!(status.metadata().get(RETRY_PUSHBACK).unwrap(), "-1", "{status}");
    assert!(status.message().contains("look before you repeat"), "{status}");
}

/// Asserts that a failed request forbids retries.
async fn assert_http_forbids_retry(response: Response) {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body: Value = response.json().await.unwrap();
    assert_eq!((status, &body["error"]["code"]), (502, &"failed_after_effects".into()), "{body}");
    assert_eq!(headers["x-should-retry"], "false");
    assert!(!headers.contains_key("retry-after"), "{headers:?}");
    assert!(body["error"]["message"].as_str().unwrap().contains("look before you repeat"), "{body}");
}
