//! The models of the installed CLI, from `model/list`.

use std::time::Duration;

use tokio::time::timeout;

use super::{CALL_LIMIT, Worker, pool::Pool, spec::WorkerSpec};
use crate::{
    engine::app_server::rpc::protocol::{ListModels, ModelEntry},
    error::Error,
    pb,
};

/// Maximum time for one list.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of pages of one list.
const MAX_PAGES: usize = 20;

/// Returns the models of the program of `spec`. Returns the models of the former program while only its workers run.
///
/// # Errors
///
/// [`Error::EngineUnavailable`] if no worker lists its models in time. Cancel safe.
pub(crate) async fn list(spec: &WorkerSpec, pool: &Pool) -> Result<Vec<pb::Model>, Error> {
    if spec.features().is_some_and(|features| features.no_models.is_some()) {
        return Ok(Vec::new());
    }
    if let Some(known) = spec.models().get() {
        return Ok(known.clone());
    }
    if let Some(message) = pool.unavailable_reason() {
        return Err(Error::EngineUnavailable { message });
    }
    let listed = timeout(LIST_TIMEOUT, async {
        let lease = pool.lease().await?;
        lease.spec.models().get_or_try_init(|| request_models(&lease)).await.cloned()
    });
    let timed_out =
        |_| Error::EngineUnavailable { message: "no app-server listed its models in time".to_owned() };
    listed.await.map_err(timed_out)?
}

async fn request_models(worker: &Worker) -> Result<Vec<pb::Model>, Error> {
    let mut models = Vec::new();
    let mut request = ListModels::default();
    for _ in 0..MAX_PAGES {
        let page = worker.rpc.call(&request, CALL_LIMIT).await.map_err(Error::internal)?;
        models.extend(page.data.into_iter().map(model));
        request.cursor = page.next_cursor;
        if request.cursor.is_none() {
            break;
        }
    }
    Ok(models)
}

fn model(entry: ModelEntry) -> pb::Model {
    let efforts = entry.supported_reasoning_efforts.into_iter();
    pb::Model {
        id: entry.model.clone(),
        target: entry.model,
        is_default: entry.is_default,
        reasoning_efforts: efforts.map(|effort| effort.reasoning_effort).collect(),
        input_modalities: entry.input_modalities,
        ..pb::Model::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn model_of_an_entry_has_its_efforts_and_modalities() {
        let entry = json!({"id": "gpt-6", "model": "gpt-6", "isDefault": true, "inputModalities": ["text", "image"],
            "supportedReasoningEfforts": [{"reasoningEffort": "low", "description": "d"}]});
        let found = model(serde_json::from_value(entry).unwrap());
        assert_eq!((found.id.as_str(), found.is_default), ("gpt-6", true));
        assert_eq!((found.reasoning_efforts, found.input_modalities.len()), (vec!["low".to_owned()], 2));
    }
}
