//! `GET /v1/models` and `GET /v1/models/{id}`: the contract's `ListModels` in OpenAI's form.

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{Facade, error::ApiError, extract, field_names::FieldNames};
use crate::pb::{self, codex_service_server::CodexService};

#[derive(Debug, Serialize)]
struct List {
    object: &'static str,
    data: Vec<Model>,
}

#[derive(Debug, Serialize)]
struct Model {
    id: String,
    object: &'static str,
    created: i64,
    owned_by: &'static str,
}

impl Model {
    fn of(model: pb::Model) -> Self {
        // Codex does not report the creation time, and clients require a number.
        Self { id: model.id, object: "model", created: 0, owned_by: "codex" }
    }
}

/// Returns all models.
pub(super) async fn list<S: CodexService>(
    State(facade): State<Facade<S>>,
    request: Request,
) -> Result<Response, ApiError> {
    let models = fetch(&facade, request).await?;
    let data = models.into_iter().map(Model::of).collect();
    Ok(Json(List { object: "list", data }).into_response())
}

/// Returns one model. Its name may contain slashes.
pub(super) async fn retrieve<S: CodexService>(
    State(facade): State<Facade<S>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let Ok(Path(id)) = id else {
        return Err(ApiError::model_not_found("a model's name is UTF-8; see GET /v1/models".to_owned()));
    };
    let models = fetch(&facade, request).await?;
    if let Some(model) = models.iter().find(|model| model.id == id) {
        return Ok(Json(Model::of(model.clone())).into_response());
    }
    // Names with a profile suffix work although they are not listed.
    let (name, profile) = id.rsplit_once(':').unwrap_or_default();
    let offers =
        |model: &&pb::Model| model.id == name && model.profiles.iter().any(|offered| offered == profile);
    if let Some(model) = models.iter().find(offers) {
        return Ok(Json(Model::of(pb::Model { id, ..model.clone() })).into_response());
    }
    let id: String = id.chars().take(200).collect();
    Err(ApiError::model_not_found(format!("this server lists no model `{id}`; see GET /v1/models")))
}

async fn fetch<S: CodexService>(facade: &Facade<S>, request: Request) -> Result<Vec<pb::Model>, ApiError> {
    let (parts, _) = request.into_parts();
    let call = extract::call(&parts, pb::ListModelsRequest {});
    let answer = facade.service.list_models(call).await;
    let answer = answer.map_err(|status| ApiError::from_status(&status, &FieldNames::default()))?;
    Ok(answer.into_inner().models)
}
