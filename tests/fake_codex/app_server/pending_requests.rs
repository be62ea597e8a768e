//! Requests of a turn to its client, and their responses.

use serde_json::{Value, json};

use super::{act::Answer, version::Release};

/// The requests of one response of the model.
#[derive(Debug, Default)]
pub(crate) struct PendingRequests(Vec<Request>);

#[derive(Debug)]
struct Request {
    id: u64,
    method: &'static str,
    /// The `dynamicToolCall` item of a call.
    item: Option<Value>,
    answer: Option<Answer>,
}

/// The responses for the turn and the outputs for the model, in the order of the calls.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) answers: Vec<Answer>,
    pub(crate) outputs: Vec<Value>,
}

/// Items and outputs of cancelled requests, as the real CLI reports them.
#[derive(Debug)]
pub(crate) struct Cancelled {
    pub(crate) items: Vec<Value>,
    pub(crate) outputs: Vec<Value>,
}

impl PendingRequests {
    /// Adds a tool call and returns its item.
    pub(crate) fn add_call(
        &mut self,
        id: u64,
        call: &str,
        tool: &str,
        arguments: &Value,
        release: Release,
    ) -> Value {
        let mut item = json!({"type": "dynamicToolCall", "id": call, "tool": tool, "arguments": arguments,
                              "status": "inProgress", "contentItems": null, "success": null, "durationMs": null});
        if release >= Release::V140 {
            item["namespace"] = Value::Null;
        }
        self.0.push(Request { id, method: "item/tool/call", item: Some(item.clone()), answer: None });
        item
    }

    /// Adds another request.
    pub(crate) fn add_request(&mut self, id: u64, method: &'static str) {
        self.0.push(Request { id, method, item: None, answer: None });
    }

    /// Returns whether a request has no response yet.
    pub(crate) fn has_open(&self) -> bool {
        self.0.iter().any(|request| request.answer.is_none())
    }

    /// Handles a response. Returns `None` without a request, the finished item of a call, or the method of another request.
    pub(crate) fn on_response(&mut self, id: u64, line: &Value) -> Option<Result<Value, &'static str>> {
        let request = self.0.iter_mut().find(|request| request.id == id && request.answer.is_none())?;
        let (text, success) = parse_output(line);
        let answer = line.get("error").map_or_else(|| line["result"].clone(), |e| json!({"error": e}));
        let outcome = match &mut request.item {
            Some(item) => {
                let given = line["result"]["contentItems"].clone();
                let content =
                    if given.is_array() { given } else { json!([{"type": "inputText", "text": text}]) };
                item["status"] = json!(if success { "completed" } else { "failed" });
                (item["contentItems"], item["success"], item["durationMs"]) =
                    (content, json!(success), json!(1));
                Ok(item.clone())
            }
            None => Err(request.method),
        };
        request.answer = Some(Answer { method: request.method, text, success, answer });
        Some(outcome)
    }

    /// Removes and returns all responses and outputs.
    pub(crate) fn take(&mut self) -> Answers {
        let requests = std::mem::take(&mut self.0);
        let outputs = requests.iter().filter_map(|request| {
            let answer = request.answer.as_ref()?;
            Some(output(request.item.as_ref()?, &answer.text))
        });
        let outputs = outputs.collect();
        Answers { answers: requests.into_iter().filter_map(|request| request.answer).collect(), outputs }
    }

    /// Cancels the open requests. Like the real app-server, the items end in reverse order.
    pub(crate) fn cancel(&mut self) -> Cancelled {
        let open: Vec<Value> = std::mem::take(&mut self.0)
            .into_iter()
            .filter(|request| request.answer.is_none())
            .filter_map(|request| request.item)
            .collect();
        let text = "dynamic tool call was cancelled before receiving a response";
        let outputs = open.iter().map(|item| output(item, text)).collect();
        let failed = |mut item: Value| {
            item["status"] = json!("failed");
            (item["contentItems"], item["success"], item["durationMs"]) = (json!([]), json!(false), json!(1));
            item
        };
        Cancelled { items: open.into_iter().rev().map(failed).collect(), outputs }
    }
}

fn output(item: &Value, text: &str) -> Value {
    let id = super::wire::new_id("fco");
    json!({"type": "function_call_output", "id": id, "call_id": item["id"], "output": text})
}

/// Returns the text for the model, and whether the tool succeeded.
fn parse_output(line: &Value) -> (String, bool) {
    if line.get("error").is_some() {
        return ("dynamic tool request failed".to_owned(), false);
    }
    let result = &line["result"];
    let (Some(items), Some(success)) = (result["contentItems"].as_array(), result["success"].as_bool())
    else {
        return ("dynamic tool response was invalid".to_owned(), false);
    };
    (items.iter().filter_map(|item| item["text"].as_str()).collect(), success)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{PendingRequests, Release};

    fn two_calls() -> PendingRequests {
        let mut pending = PendingRequests::default();
        pending.add_call(7, "call_a", "f", &json!({}), Release::V169);
        pending.add_call(8, "call_b", "g", &json!({}), Release::V169);
        pending
    }

    #[test]
    fn outputs_follow_the_order_of_the_calls() {
        let mut pending = two_calls();
        let answer =
            json!({"result": {"contentItems": [{"type": "inputText", "text": "b"}], "success": true}});
        let item = pending.on_response(8, &answer).expect("a pending request").expect("an item");
        assert_eq!((&item["status"], &item["success"]), (&json!("completed"), &json!(true)));
        assert!(pending.on_response(8, &answer).is_none() && pending.has_open());
        let item = pending
            .on_response(7, &json!({"error": {"code": 1}}))
            .expect("a pending request")
            .expect("an item");
        assert_eq!(item["contentItems"][0]["text"], "dynamic tool request failed");
        let outputs: Vec<_> = pending.take().outputs.iter().map(|o| o["output"].clone()).collect();
        assert_eq!(outputs, ["dynamic tool request failed", "b"]);
    }

    #[test]
    fn open_requests_fail_on_cancel() {
        let mut pending = two_calls();
        let cancelled = pending.cancel();
        let ids: Vec<_> = cancelled.items.iter().map(|i| i["id"].clone()).collect();
        assert_eq!(ids, ["call_b", "call_a"]);
        assert_eq!(cancelled.outputs[0]["call_id"], "call_a");
        assert!(!pending.has_open());
    }

    #[test]
    fn malformed_answer_fails_the_call() {
        let mut pending = two_calls();
        let item = pending
            .on_response(7, &json!({"result": {"x": 1}}))
            .expect("a pending request")
            .expect("an item");
        assert_eq!(item["contentItems"][0]["text"], "dynamic tool response was invalid");
    }
}
