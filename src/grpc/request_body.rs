//! Reads and decompresses the message of a call within the budget of the server, and counts its lists before it is decoded.

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use tokio::task::spawn_blocking;
use tonic::Status;

use super::{
    compression::Encoding,
    wire_counts::{self, MessageKind},
};
use crate::{
    config::ListLimits,
    context::body_budget::{BodyBudget, BodyPermit, HeldBody},
    error::Error,
    pb::{codex_service_server, responses_service_server},
};

/// Length of a frame's head: the compression and the size of the message.
const HEAD: usize = 5;

/// Size of a message from which counting runs outside of the runtime's threads, which all streams share.
const LARGE_MESSAGE: usize = 256 << 10;

/// Maximum size of the messages of methods without parameters.
const MAX_EMPTY_REQUEST: usize = 64 << 10;

/// Limits of a message.
#[derive(Debug, Clone)]
pub(super) struct MessageLimits {
    pub(super) max_bytes: usize,
    pub(super) lists: ListLimits,
    pub(super) budget: BodyBudget,
}

/// Reads the message of a call of the contract, and passes the call on with the message in one piece, decompressed. What
/// the decoder refuses is passed on unread.
pub(super) async fn read(State(limits): State<MessageLimits>, request: Request, next: Next) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    let (kind, max_bytes) = match path.split_once('/') {
        Some((codex_service_server::SERVICE_NAME, "Chat" | "StreamChat")) => {
            (MessageKind::Chat, limits.max_bytes)
        }
        Some((responses_service_server::SERVICE_NAME, "CreateResponse" | "StreamResponse")) => {
            (MessageKind::CreateResponse, limits.max_bytes)
        }
        Some((codex_service_server::SERVICE_NAME | responses_service_server::SERVICE_NAME, _)) => {
            (MessageKind::Chat, limits.max_bytes.min(MAX_EMPTY_REQUEST))
        }
        _ => return next.run(request).await,
    };
    let limits = MessageLimits { max_bytes, ..limits };
    let (mut parts, body) = request.into_parts();
    let encoding = Encoding::of(&parts.headers);
    let mut reader = Reader { body, read: BytesMut::new(), failed: None };
    let body = match reader.message(kind, encoding, &limits).await {
        Ok(Some((message, permit))) => {
            parts.extensions.insert(HeldBody::new(permit));
            reader.skip_rest(message).await
        }
        Ok(None) => reader.into_body(),
        Err(error) => return Status::from(error).into_http(),
    };
    next.run(Request::from_parts(parts, body)).await
}

struct Reader {
    body: Body,
    read: BytesMut,
    failed: Option<axum::Error>,
}

impl Reader {
    /// Reads the first message. Returns its frame, uncompressed, and the permit for its memory, or `None` if the decoder
    /// will refuse it.
    async fn message(
        &mut self,
        kind: MessageKind,
        encoding: Option<Encoding>,
        limits: &MessageLimits,
    ) -> Result<Option<(Bytes, BodyPermit)>, Error> {
        if !self.fill(HEAD, None).await? {
            return Ok(None);
        }
        let Some((flag, size)) = head(&self.read) else { return Ok(None) };
        let max = limits.max_bytes;
        if size > max {
            let setting = if max == MAX_EMPTY_REQUEST { "" } else { " (CODEX_MAX_BODY_BYTES)" };
            let message = format!("the message has {size} bytes; the limit is {max} bytes{setting}");
            return Err(Error::invalid("request", message));
        }
        let encoding = match (flag, encoding) {
            (0, _) => None,
            (1, Some(encoding)) => Some(encoding),
            _ => return Ok(None),
        };
        let mut permit = limits.budget.open(size)?;
        if !self.fill(HEAD + size, Some(&mut permit)).await? {
            return Ok(None);
        }
        let frame = self.read.split_to(HEAD + size).freeze();
        let (lists, max_bytes) = (limits.lists, limits.max_bytes);
        let check = move || {
            let frame = match encoding {
                Some(encoding) => decompressed(&frame, encoding, max_bytes, &mut permit)?,
                None => frame,
            };
            wire_counts::check(kind, frame.get(HEAD..).unwrap_or_default(), lists)?;
            Ok((frame, permit))
        };
        // The size of a compressed message says nothing about the work.
        if size < LARGE_MESSAGE && encoding.is_none() {
            return check().map(Some);
        }
        spawn_blocking(check).await.map_err(Error::internal)?.map(Some)
    }

    /// Waits for the end of the body, and returns the body with the first message only. tonic would decompress and decode
    /// further messages, only to drop them.
    async fn skip_rest(mut self, message: Bytes) -> Body {
        while self.failed.is_none() {
            match self.body.frame().await {
                None => return Body::from(message),
                Some(Ok(_)) => {}
                Some(Err(error)) => self.failed = Some(error),
            }
        }
        self.read = BytesMut::from(message);
        self.into_body()
    }

    /// Reads until there are `count` bytes. Returns `false` at the end of the body and at an error.
    async fn fill(&mut self, count: usize, mut permit: Option<&mut BodyPermit>) -> Result<bool, Error> {
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

    /// Returns the whole body again, or what was read before its error.
    fn into_body(self) -> Body {
        let read = stream::iter([Ok::<Bytes, axum::Error>(self.read.freeze())]);
        match self.failed {
            Some(error) => Body::from_stream(read.chain(stream::iter([Err(error)]))),
            None => Body::from_stream(read.chain(self.body.into_data_stream())),
        }
    }
}

/// Returns the frame of the decompressed message.
fn decompressed(
    frame: &[u8],
    encoding: Encoding,
    max_bytes: usize,
    permit: &mut BodyPermit,
) -> Result<Bytes, Error> {
    let mut out = BytesMut::zeroed(HEAD);
    encoding.decompress(frame.get(HEAD..).unwrap_or_default(), &mut out, max_bytes, permit)?;
    let size = u32::try_from(out.len() - HEAD).map_err(Error::internal)?;
    if let Some(field) = out.get_mut(1..HEAD) {
        field.copy_from_slice(&size.to_be_bytes());
    }
    Ok(out.freeze())
}

/// Returns the compression and the size of the message.
fn head(read: &[u8]) -> Option<(u8, usize)> {
    let [compression, size @ ..] = read.first_chunk::<HEAD>()?;
    Some((*compression, usize::try_from(u32::from_be_bytes(*size)).ok()?))
}
