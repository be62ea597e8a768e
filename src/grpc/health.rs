//! The standard health service. It differs from `tonic_health` in two points: a watch of an unknown name stays open with
//! `SERVICE_UNKNOWN`, as the protocol requires, and the watches of a connection are limited, because they need no token
//! and never end.

use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health as HealthApi, HealthServer},
};

use crate::{
    context::peer::HealthWatches,
    pb::{codex_service_server, responses_service_server},
};

/// Service names with a status: the whole server and the services of the contract.
const NAMES: [&str; 3] = ["", codex_service_server::SERVICE_NAME, responses_service_server::SERVICE_NAME];

/// Handle of the health service.
#[derive(Debug, Clone)]
pub struct Health(watch::Sender<ServingStatus>);

impl Health {
    /// Creates the handle of a server that is not ready yet, and its service.
    pub(super) fn new() -> (Self, HealthServer<impl HealthApi>) {
        let (sender, status) = watch::channel(ServingStatus::NotServing);
        (Self(sender), HealthServer::new(Service { status }))
    }

    /// Sets the status of all service names.
    pub fn set(&self, healthy: bool) {
        let status = if healthy { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.0.send_if_modified(|current| std::mem::replace(current, status) != status);
    }
}

#[derive(Debug)]
struct Service {
    status: watch::Receiver<ServingStatus>,
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl HealthApi for Service {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !NAMES.contains(&request.get_ref().service.as_str()) {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(response(*self.status.borrow())))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        // Without a listener in front of the service, there is no connection to limit.
        let watches = request.extensions().get::<HealthWatches>().cloned().unwrap_or_default();
        let Some(counted) = watches.begin() else {
            return Err(Status::resource_exhausted("this connection has too many health watches"));
        };
        let mut status = self.status.clone();
        let known = NAMES.contains(&request.get_ref().service.as_str());
        let first = if known { *status.borrow_and_update() } else { ServingStatus::ServiceUnknown };
        let updates =
            stream::unfold((Some(first), status, counted), move |(next, mut status, counted)| async move {
                let current = match next {
                    Some(first) => first,
                    // The status of a name does not become known while the server runs.
                    None if !known => std::future::pending().await,
                    None => {
                        status.changed().await.ok()?;
                        *status.borrow_and_update()
                    }
                };
                Some((Ok(response(current)), (None, status, counted)))
            });
        Ok(Response::new(Box::pin(updates)))
    }
}
