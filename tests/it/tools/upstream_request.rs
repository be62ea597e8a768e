//! What reached the model: the request at the scripted upstream, without what says nothing.

use serde_json::{Value, json};

use crate::support::TestApp;

/// One request as the model got it.
#[derive(Debug)]
pub struct UpstreamRequest {
    pub body: Value,
    /// The input, without ids, status and the like.
    pub items: Vec<Value>,
}

impl TestApp {
    /// The last request that reached the model.
    pub fn last_upstream_request(&self) -> UpstreamRequest {
        let requests = self.upstream().requests();
        let body = (*requests.last().expect("the model was asked").body).clone();
        let items = body["input"].as_array().unwrap().iter().map(plain).collect();
        UpstreamRequest { body, items }
    }

    /// The number of the last request that reached the model.
    pub fn upstream_request_count(&self) -> u64 {
        self.upstream().requests().last().map_or(0, |request| request.number)
    }
}

impl UpstreamRequest {
    /// Asserts that the conversation is exactly this, and that all before it is Codex's own.
    pub fn assert_ends_with_items(&self, expected: &[Value]) -> &[Value] {
        let own = self.items.len().saturating_sub(expected.len());
        let (own, conversation) = self.items.split_at(own);
        assert_eq!(json!(conversation), json!(expected), "before it: {}", json!(own));
        for item in own {
            let codex = item["role"] == "user" && texts(item).all(|text| text.starts_with('<'));
            assert!(codex || item["role"] == "developer" || item["type"] == "additional_tools", "{item}");
        }
        own
    }

    /// Names of the functions that the model was offered.
    pub fn functions(&self) -> Vec<&str> {
        self.tools().into_iter().filter_map(|tool| tool["name"].as_str()).collect()
    }

    /// A function that the model was offered.
    pub fn function(&self, name: &str) -> &Value {
        let found = self.tools().into_iter().find(|tool| tool["name"] == name);
        found.unwrap_or_else(|| panic!("the model is not offered {name}"))
    }

    /// Functions wherever they stand: some models get them as an item of the input, in a namespace.
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

    /// All texts of the developer role.
    pub fn instructions(&self) -> String {
        let developer = self.items.iter().filter(|item| item["role"] == "developer");
        developer
            .flat_map(|item| texts(item).map(str::to_owned).collect::<Vec<_>>())
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// The texts of an item.
pub fn texts(item: &Value) -> impl Iterator<Item = &str> {
    item["content"].as_array().into_iter().flatten().filter_map(|part| part["text"].as_str())
}

/// Without what Codex adds to every item, and what the pictures' detail is.
fn plain(item: &Value) -> Value {
    let mut item = item.clone();
    let fields = item.as_object_mut().unwrap();
    for noise in ["id", "status", "internal_chat_message_metadata_passthrough"] {
        fields.remove(noise);
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

/// What the scripted model thinks; the request whose answer it was in makes its encrypted form.
pub fn reasoning(summary: &str, request: u64) -> Value {
    json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": summary}],
        "encrypted_content": format!("demo-encrypted-{request}")})
}
