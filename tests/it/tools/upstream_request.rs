//! A request at the scripted upstream, without the members that the tests ignore.

use serde_json::{Value, json};

use crate::support::TestApp;

/// One request as the upstream received it.
#[derive(Debug)]
pub struct UpstreamRequest {
    pub body: Value,
    /// The input items without ids, status and metadata.
    pub items: Vec<Value>,
}

impl TestApp {
    /// Returns the last model call.
    pub fn last_upstream_request(&self) -> UpstreamRequest {
        let requests = self.upstream().requests();
        let last = requests.iter().rfind(|request| !request.is_warm_up());
        let body = (*last.expect("the upstream has a request").body).clone();
        // Over HTTPS, Codex ends a request of some models to OpenAI with the effort in an item.
        let items = body["input"].as_array().unwrap().iter().filter(|i| i["type"] != "configuration_update");
        let items = items.map(without_metadata).collect();
        UpstreamRequest { body, items }
    }

    /// Returns the number of the last request of the upstream, or 0. The ids of its response have this number.
    pub fn last_request_number(&self) -> u64 {
        self.upstream().requests().last().map_or(0, |request| request.number)
    }

    /// Returns how many model calls came after the request with this number. A WebSocket's warm-up is none.
    pub fn model_calls_since(&self, number: u64) -> usize {
        let requests = self.upstream().requests();
        requests.iter().filter(|request| request.number > number && !request.is_warm_up()).count()
    }
}

impl UpstreamRequest {
    /// Asserts that the conversation has exactly these items and that Codex added all items before it. Returns the added
    /// items.
    pub fn assert_ends_with_items(&self, expected: &[Value]) -> &[Value] {
        let added = self.items.len().saturating_sub(expected.len());
        let (added, conversation) = self.items.split_at(added);
        assert_eq!(json!(conversation), json!(expected), "items before the conversation: {}", json!(added));
        for item in added {
            let codex = item["role"] == "user" && texts(item).all(|text| text.starts_with('<'));
            assert!(codex || item["role"] == "developer" || item["type"] == "additional_tools", "{item}");
        }
        added
    }

    /// Returns the names of the offered functions.
    pub fn functions(&self) -> Vec<&str> {
        self.tools().into_iter().filter_map(|tool| tool["name"].as_str()).collect()
    }

    /// Returns an offered function.
    pub fn function(&self, name: &str) -> &Value {
        let found = self.tools().into_iter().find(|tool| tool["name"] == name);
        found.unwrap_or_else(|| panic!("the request does not offer {name}"))
    }

    /// Returns all functions. Some models get them in a namespace of an input item instead of in `tools`.
    fn tools(&self) -> Vec<&Value> {
        let mut lists: Vec<&Value> = vec![&self.body["tools"]];
        lists.extend(self.items.iter().map(|item| &item["tools"]));
        let mut found = Vec::new();
        while let Some(list) = lists.pop() {
            for tool in list.as_array().into_iter().flatten() {
                found.extend((tool["type"] == "function").then_some(tool));
                lists.push(&tool["tools"]);
            }
        }
        found
    }

    /// Returns all texts of the developer role.
    pub fn instructions(&self) -> String {
        let developer = self.items.iter().filter(|item| item["role"] == "developer");
        developer
            .flat_map(|item| texts(item).map(str::to_owned).collect::<Vec<_>>())
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Returns the texts of an item.
pub fn texts(item: &Value) -> impl Iterator<Item = &str> {
    item["content"].as_array().into_iter().flatten().filter_map(|part| part["text"].as_str())
}

/// Removes the members that Codex adds to every item, and the detail of images.
fn without_metadata(item: &Value) -> Value {
    let mut item = item.clone();
    let fields = item.as_object_mut().unwrap();
    for member in ["id", "status", "internal_chat_message_metadata_passthrough"] {
        fields.remove(member);
    }
    fields.retain(|_, value| !value.is_null());
    for list in ["content", "output"] {
        for part in item.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let fields = part.as_object_mut().unwrap();
            fields.remove("detail");
            fields.retain(|name, value| name != "annotations" || *value != json!([]));
        }
    }
    item
}

pub fn user(text: &str) -> Value {
    json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
}

pub fn assistant(text: &str) -> Value {
    json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]})
}

pub fn call(name: &str, arguments: &str, id: &str) -> Value {
    json!({"type": "function_call", "name": name, "arguments": arguments, "call_id": id})
}

pub fn output(id: &str, output: impl Into<Value>) -> Value {
    json!({"type": "function_call_output", "call_id": id, "output": output.into()})
}

/// Builds the reasoning item of the scripted model. The number of the request determines the encrypted content.
pub fn reasoning(summary: &str, request: u64) -> Value {
    json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": summary}],
        "encrypted_content": format!("demo-encrypted-{request}")})
}
