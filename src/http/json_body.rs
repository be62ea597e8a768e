//! The body of a slow answer in JSON: white space while the turn runs, then the object. Proxies with a limit for the
//! first byte or for silence pass it, and JSON parsers skip it.

use std::{convert::Infallible, time::Duration};

use async_stream::stream;
use axum::{
    body::{Body, Bytes},
    response::{IntoResponse, Response},
};
use http::header;
use serde::Serialize;
use tokio::time::{Instant, interval_at, timeout};

use super::error::ApiError;

/// White space before the object.
const KEEP_ALIVE: &[u8] = b"\n";

/// Returns the response of `answer`. If the answer takes longer than `interval`, the head is sent with status 200, and an
/// error is an error object in the body. Dropping the body cancels the turn.
pub(super) async fn respond<T: Serialize + IntoResponse + Send + 'static>(
    answer: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    interval: Duration,
) -> Result<Response, ApiError> {
    let mut answer = Box::pin(answer);
    if let Ok(answer) = timeout(interval, answer.as_mut()).await {
        return Ok(answer?.into_response());
    }
    let body = stream! {
        yield Ok::<_, Infallible>(Bytes::from_static(KEEP_ALIVE));
        let mut ticks = interval_at(Instant::now() + interval, interval);
        loop {
            tokio::select! {
                biased;
                answer = answer.as_mut() => {
                    yield Ok(to_json(answer));
                    return;
                }
                _ = ticks.tick() => yield Ok(Bytes::from_static(KEEP_ALIVE)),
            }
        }
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response())
}

fn to_json<T: Serialize>(answer: Result<T, ApiError>) -> Bytes {
    let json = match answer {
        Ok(answer) => serde_json::to_vec(&answer),
        Err(error) => serde_json::to_vec(&error.body()),
    };
    json.unwrap_or_else(|error| {
        tracing::error!(%error, "could not serialize an answer");
        Vec::new()
    })
    .into()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};
    use tokio::time::sleep;

    use super::*;

    #[derive(Debug, Serialize)]
    struct Answer(Value);

    impl IntoResponse for Answer {
        fn into_response(self) -> Response {
            axum::Json(self.0).into_response()
        }
    }

    const INTERVAL: Duration = Duration::from_secs(10);

    async fn answer_after(seconds: u64, answer: Result<Value, ApiError>) -> Result<Answer, ApiError> {
        sleep(Duration::from_secs(seconds)).await;
        answer.map(Answer)
    }

    async fn text(response: Response) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn respond_before_the_first_interval_has_no_white_space_and_keeps_the_status() {
        let response = respond(answer_after(9, Ok(json!({"a": 1}))), INTERVAL).await.unwrap();
        assert_eq!(text(response).await, r#"{"a":1}"#);
        let error = respond(answer_after(9, Err(ApiError::invalid("n", "no"))), INTERVAL).await.unwrap_err();
        assert_eq!(error.into_response().status(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test(start_paused = true)]
    async fn respond_after_intervals_has_one_space_each_and_then_the_object() {
        let response = respond(answer_after(35, Ok(json!({"a": 1}))), INTERVAL).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(text(response).await, "\n\n\n{\"a\":1}");
        let response = respond(answer_after(15, Err(ApiError::invalid("n", "no"))), INTERVAL).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let error: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(error["error"]["param"], "n");
    }
}
