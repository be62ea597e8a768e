//! The models that the installed CLI knows, as `model/list` tells them.

use std::time::Duration;

use tokio::time::timeout;

use super::{CALL_LIMIT, Worker, pool::Pool, spec::WorkerSpec};
use crate::{
    engine::app_server::rpc::protocol::{ListModels, ModelEntry},
    error::Error,
    pb,
};

/// How long anybody waits for the list.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most pages that are read.
const PAGES: usize = 20;

/// Those of the program that `kit` is for, or of an older one as long as there is no worker but that.
pub(crate) async fn list(kit: &WorkerSpec, pool: &Pool) -> Result<Vec<pb::Model>, Error> {
    if kit.features().is_some_and(|features| features.no_models.is_some()) {
        return Ok(Vec::new());
    }
    if let Some(known) = kit.models().get() {
        return Ok(known.clone());
    }
    if let Some(message) = pool.trouble() {
        return Err(Error::EngineUnavailable { message });
    }
    let asked = timeout(PATIENCE, async {
        let lease = pool.lease().await?;
        lease.kit.models().get_or_try_init(|| ask(&lease)).await.cloned()
    });
    let late = |_| Error::EngineUnavailable { message: "no app-server lists its models in time".to_owned() };
    asked.await.map_err(late)?
}

async fn ask(worker: &Worker) -> Result<Vec<pb::Model>, Error> {
    let mut found = Vec::new();
    let mut request = ListModels::default();
    for _ in 0..PAGES {
        let page = worker.rpc.call(&request, CALL_LIMIT).await.map_err(Error::internal)?;
        found.extend(page.data.into_iter().map(model));
        request.cursor = page.next_cursor;
        if request.cursor.is_none() {
            break;
        }
    }
    Ok(found)
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
    fn an_entry_becomes_a_model() {
        let entry = json!({"id": "gpt-6", "model": "gpt-6", "isDefault": true, "inputModalities": ["text", "image"],
            "supportedReasoningEfforts": [{"reasoningEffort": "low", "description": "d"}]});
        let found = model(serde_json::from_value(entry).unwrap());
        assert_eq!((found.id.as_str(), found.is_default), ("gpt-6", true));
        assert_eq!((found.reasoning_efforts, found.input_modalities.len()), (vec!["low".to_owned()], 2));
    }
}
