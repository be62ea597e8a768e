//! `GET /v1/models` and `GET /v1/models/{id}`: the contract's `ListModels` in OpenAI's form. Members beyond OpenAI's have the
//! names that OpenRouter, Groq and vLLM use, because model pickers read them.

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

/// A model. Members with unknown values are absent.
#[derive(Debug, Serialize)]
struct Model {
    id: String,
    object: &'static str,
    created: i64,
    owned_by: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    /// As OpenRouter names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u64>,
    /// As Groq names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    context_window: Option<u64>,
    /// As vLLM names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_model_len: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    architecture: Option<Architecture>,
    #[serde(skip_serializing_if = "Details::is_empty")]
    codex: Details,
}

/// Kinds of input and output, as OpenRouter names them.
#[derive(Debug, Serialize)]
struct Architecture {
    input_modalities: Vec<String>,
    output_modalities: [&'static str; 1],
}

/// What only this server tells.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Details {
    /// What Codex calls the model. Absent for a name that stands for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// The profile that the suffix of the name selects.
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasoning_efforts: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    service_tiers: Vec<String>,
}

impl Details {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<pb::Model> for Model {
    fn from(model: pb::Model) -> Self {
        let is_alias = !model.target.is_empty() && model.target != model.id;
        let known = |tokens: u64| (tokens > 0).then_some(tokens);
        let has_modalities = !model.input_modalities.is_empty();
        Self {
            id: model.id,
            object: "model",
            created: model.created_unix_seconds,
            owned_by: "codex",
            name: model.display_name,
            description: model.description,
            context_length: known(model.context_window),
            context_window: known(model.context_window),
            max_model_len: known(model.context_window),
            max_completion_tokens: known(model.max_output_tokens),
            architecture: has_modalities.then_some(Architecture {
                input_modalities: model.input_modalities,
                output_modalities: ["text"],
            }),
            codex: Details {
                target: is_alias.then_some(model.target),
                profile: None,
                reasoning_efforts: model.reasoning_efforts,
                service_tiers: model.service_tiers,
            },
        }
    }
}

/// Returns the model under the name with a profile's suffix.
fn with_profile(model: &pb::Model, profile: &str) -> Model {
    let suffixed = Model::from(model.clone());
    let name =
        if suffixed.name.is_empty() { String::new() } else { format!("{} ({profile})", suffixed.name) };
    let codex = Details { profile: Some(profile.to_owned()), ..suffixed.codex };
    Model { id: format!("{}:{profile}", model.id), name, codex, ..suffixed }
}

/// Returns all models. Where a request may select a profile, each name with a suffix follows its model, because pickers
/// offer only what is listed.
pub(super) async fn list<S: CodexService>(
    State(facade): State<Facade<S>>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut data = Vec::new();
    for model in fetch(&facade, request).await? {
        let profiles: &[String] = if model.profiles.len() > 1 { &model.profiles } else { &[] };
        let suffixed: Vec<Model> = profiles.iter().map(|profile| with_profile(&model, profile)).collect();
        data.push(Model::from(model));
        data.extend(suffixed);
    }
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
    let (name, profile) = id.rsplit_once(':').unwrap_or_default();
    let has_profile =
        |model: &&pb::Model| model.id == name && model.profiles.iter().any(|offered| offered == profile);
    if let Some(model) = models.iter().find(has_profile) {
        return Ok(Json(with_profile(model, profile)).into_response());
    }
    let id: String = id.chars().take(200).collect();
    Err(ApiError::model_not_found(format!(
        "The model `{id}` does not exist on this server; GET /v1/models lists the models"
    )))
}

async fn fetch<S: CodexService>(facade: &Facade<S>, request: Request) -> Result<Vec<pb::Model>, ApiError> {
    let (parts, _) = request.into_parts();
    let call = extract::call(&parts, pb::ListModelsRequest {});
    let answer = facade.service.list_models(call).await;
    let answer = answer.map_err(|status| ApiError::from_status(&status, &FieldNames::default()))?;
    Ok(answer.into_inner().models)
}
