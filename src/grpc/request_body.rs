//! Reads the message of a call within the budget of the server, and counts its lists before it is decoded.

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use tokio::task::spawn_blocking;
use tonic::Status;

use super::wire_counts;
use crate::{
    config::ListLimits,
    context::body_budget::{BodyBudget, BodyPermit, HeldBody},
    error::Error,
    pb::codex_service_server::SERVICE_NAME,
};

/// Length of a frame's head: the compression and the size of the message.
const HEAD: usize = 5;

/// Size of a message from which counting runs outside of the runtime's threads, which all streams share.
const LARGE_MESSAGE: usize = 256 << 10;

/// Limits of a message.
#[derive(Debug, Clone)]
pub(super) struct MessageLimits {
    pub(super) max_bytes: usize,
    pub(super) lists: ListLimits,
    pub(super) budget: BodyBudget,
}

/// Reads the message of a call of the contract, and passes the call on with the message in one piece. What the decoder
/// refuses is passed on unread.
pub(super) async fn read(State(limits): State<MessageLimits>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path.trim_start_matches('/').split('/').next() != Some(SERVICE_NAME) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let mut reader = Reader { body, read: BytesMut::new(), failed: None };
    match reader.message(&limits).await {
        Ok(Some(permit)) => drop(parts.extensions.insert(HeldBody::new(permit))),
        Ok(None) => {}
        Err(error) => return Status::from(error).into_http(),
    }
    next.run(Request::from_parts(parts, reader.into_body())).await
}

struct Reader {
    body: Body,
    read: BytesMut,
    failed: Option<axum::Error>,
}

impl Reader {
    /// Reads the first message, and returns the permit for its memory. Returns `None` if the decoder will refuse it.
    async fn message(&mut self, limits: &MessageLimits) -> Result<Option<BodyPermit>, Error> {
        if !self.fill(HEAD, None).await? {
            return Ok(None);
        }
        let Some((0, size)) = head(&self.read).filter(|(_, size)| *size <= limits.max_bytes) else {
            return Ok(None);
        };
        let mut permit = limits.budget.open(size)?;
        if !self.fill(HEAD + size, Some(&mut permit)).await? {
            return Ok(None);
        }
        let lists = limits.lists;
        if size < LARGE_MESSAGE {
            wire_counts::check(self.read.get(HEAD..HEAD + size).unwrap_or_default(), lists)?;
            return Ok(Some(permit));
        }
        let read = std::mem::take(&mut self.read).freeze();
        let message = read.slice(HEAD..HEAD + size);
        spawn_blocking(move || wire_counts::check(&message, lists)).await.map_err(Error::internal)??;
        self.read = BytesMut::from(read);
        Ok(Some(permit))
    }

    /// Reads until there are `count` bytes. Returns `false` at the end of the body and at an error.
    async fn fill(&mut self, count: usize, mut permit: Option<&mut BodyPermit>) -> Result<bool, Error> {
        use http_body_util::BodyExt;
        loop {
            if let Some(permit) = &mut permit {
                permit.hold(self.read.len())?;
            }
            if self.read.len() >= count {
                return Ok(true);
            }
            match self.body.frame().await {
                None => return Ok(false),
                Some(Err(error)) => {
                    self.failed = Some(error);
                    return Ok(false);
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    /// Returns the whole body again.
    fn into_body(self) -> Body {
        let read = stream::iter([Ok::<Bytes, axum::Error>(self.read.freeze())]);
        match self.failed {
            Some(error) => Body::from_stream(read.chain(stream::iter([Err(error)]))),
            None => Body::from_stream(read.chain(self.body.into_data_stream())),
        }
    }
}

/// Returns the compression and the size of the message.
fn head(read: &[u8]) -> Option<(u8, usize)> {
    let [compression, size @ ..] = read.first_chunk::<HEAD>()?;
    Some((*compression, usize::try_from(u32::from_be_bytes(*size)).ok()?))
}
