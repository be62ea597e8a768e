//! The Responses API over the core's turns: converts a request of items to a chat request, and projects the events of its
//! turn to items.

mod convert;
mod projection;

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use self::{convert::ConvertedRequest, projection::Projection};
use super::{Delivery, Service, event_stream::EventStream, unix_seconds};
use crate::{
    error::Error,
    pb::{self, response_event::Event, responses_service_server::ResponsesService},
};

/// The events of one response. Dropping it cancels the turn. Yields one error at most, as the last item.
#[derive(Debug)]
pub struct ResponseStream {
    events: EventStream,
    projection: Projection,
    ready: VecDeque<pb::ResponseEvent>,
    ended: bool,
}

impl ResponseStream {
    /// Projects the next event of the turn. Returns `false` at the end.
    fn poll_project(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Status>> {
        let Some(event) = ready!(self.events.poll_next_unpin(cx)) else { return Poll::Ready(Ok(false)) };
        let ready = &mut self.ready;
        self.projection.push(event?, &mut |event| ready.push_back(event))?;
        Poll::Ready(Ok(true))
    }
}

impl Stream for ResponseStream {
    type Item = Result<pb::ResponseEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match ready!(self.poll_project(cx)) {
                Ok(true) => {}
                Ok(false) => self.ended = true,
                Err(status) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(status)));
                }
            }
        }
    }
}

impl Service {
    /// Validates and admits a request for a response.
    async fn admit_response(
        &self,
        request: Request<pb::CreateResponseRequest>,
        delivery: Delivery,
    ) -> Result<ResponseStream, Error> {
        let (metadata, extensions, request) = request.into_parts();
        let ConvertedRequest { request, settings, places } = ConvertedRequest::try_from(request)?;
        let request = Request::from_parts(metadata, extensions, request);
        let id = format!("resp_{}", uuid::Uuid::now_v7().simple());
        let events = self.admit(request, id, delivery).await.map_err(|error| places.rename(error))?;
        Ok(ResponseStream {
            events,
            projection: Projection::new(settings, unix_seconds),
            ready: VecDeque::new(),
            ended: false,
        })
    }
}

#[tonic::async_trait]
impl ResponsesService for Service {
    type StreamResponseStream = ResponseStream;

    async fn create_response(
        &self,
        request: Request<pb::CreateResponseRequest>,
    ) -> Result<Response<pb::Response>, Status> {
        let mut events = self.admit_response(request, Delivery::Whole).await?;
        let mut last = None;
        while let Some(event) = events.next().await {
            last = event?.event;
        }
        match last {
            Some(Event::Completed(response) | Event::Incomplete(response)) => Ok(Response::new(*response)),
            _ => Err(Error::internal("the stream of a response ended without its last event").into()),
        }
    }

    async fn stream_response(
        &self,
        request: Request<pb::CreateResponseRequest>,
    ) -> Result<Response<ResponseStream>, Status> {
        Ok(Response::new(self.admit_response(request, Delivery::Stream).await?))
    }
}
