//! The models that the installed CLI knows, as `model/list` tells them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{pool::Pool, worker::CALL_LIMIT, workshop::Kit};
use crate::{error::Error, pb};

/// Most pages that are read.
const PAGES: usize = 20;

/// Asks a worker; also tells of which kit it is.
pub(super) async fn ask(pool: &Pool) -> Result<(Option<Arc<Kit>>, Vec<pb::Model>), Error> {
    let lease = pool.lease().await?;
    let mut found = Vec::new();
    let mut cursor = Value::Null;
    for _ in 0..PAGES {
        let page = lease.peer.call("model/list", &json!({"cursor": cursor}), CALL_LIMIT).await;
        let page = page.map_err(Error::internal)?;
        found.extend(page["data"].as_array().into_iter().flatten().map(model));
        cursor = page["nextCursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    Ok((lease.kit.clone(), found))
}

fn model(entry: &Value) -> pb::Model {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |key: &str| entry[key].as_array().into_iter().flatten();
    pb::Model {
        id: text(&entry["model"]),
        target: text(&entry["model"]),
        is_default: entry["isDefault"] == true,
        reasoning_efforts: list("supportedReasoningEfforts").map(|e| text(&e["reasoningEffort"])).collect(),
        input_modalities: list("inputModalities").map(text).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_becomes_a_model() {
        let entry = json!({"id": "gpt-6", "model": "gpt-6", "isDefault": true, "inputModalities": ["text", "image"],
            "supportedReasoningEfforts": [{"reasoningEffort": "low", "description": "d"}]});
        let found = model(&entry);
        assert_eq!((found.id.as_str(), found.is_default), ("gpt-6", true));
        assert_eq!((found.reasoning_efforts, found.input_modalities.len()), (vec!["low".to_owned()], 2));
    }
}
