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
    /// Absent for a name that stands for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    codex: Option<Alias>,
}

/// What Codex calls the model.
#[derive(Debug, Serialize)]
struct Alias {
    target: String,
}

impl From<pb::Model> for Model {
    fn from(model: pb::Model) -> Self {
        // Codex does not report the creation time, and clients require a number.
        let is_alias = !model.target.is_empty() && model.target != model.id;
        let codex = is_alias.then_some(Alias { target: model.target });
        Self { id: model.id, object: "model", created: 0, owned_by: "codex", codex }
    }
}

/// Returns all models.
pub(super) async fn list<S: CodexService>(
    State(facade): State<Facade<S>>,
    request: Request,
) -> Result<Response, ApiError> {
    let models = fetch(&facade, request).await?;
    let data = models.into_iter().map(Model::from).collect();
    Ok(Json(List { object: "list", data }).into_response())
}

/// Returns one model. Its name may contain slashes.
pub(super) async fn retrieve<S: CodexService>(
    State(facade): State<Facade<S>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let Ok(Path(id)) = id else {
        return Err(ApiError::model_not_found(
            "the model name is not UTF-8; GET /v1/models lists the models".to_owned(),
        ));
    };
    let models = fetch(&facade, request).await?;
    if let Some(model) = models.iter().find(|model| model.id == id) {
        return Ok(Json(Model::from(model.clone())).into_response());
    }
    // Names with a profile suffix work although they are not listed.
    let (name, profile) = id.rsplit_once(':').unwrap_or_default();
    let has_profile =
        |model: &&pb::Model| model.id == name && model.profiles.iter().any(|offered| offered == profile);
    if let Some(model) = models.iter().find(has_profile) {
        let target = if model.target == model.id { id.clone() } else { model.target.clone() };
        return Ok(Json(Model::from(pb::Model { id, target, ..model.clone() })).into_response());
    }
    let id: String = id.chars().take(200).collect();
    Err(ApiError::model_not_found(format!(
        "this server has no model `{id}`; GET /v1/models lists the models"
    )))
}

async fn fetch<S: CodexService>(facade: &Facade<S>, request: Request) -> Result<Vec<pb::Model>, ApiError> {
    let (parts, _) = request.into_parts();
    let call = extract::call(&parts, pb::ListModelsRequest {});
    let answer = facade.service.list_models(call).await;
    let answer = answer.map_err(|status| ApiError::from_status(&status, &FieldNames::default()))?;
    Ok(answer.into_inner().models)
}
