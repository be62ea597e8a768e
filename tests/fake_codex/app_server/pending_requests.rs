//! Requests of a turn to its client, their responses, and the calls of the agent beside them.

use serde_json::{Value, json};

use super::{act::Answer, version::Release};

/// The requests and calls of one response of the model.
#[derive(Debug, Default)]
pub(crate) struct PendingRequests {
    requests: Vec<Request>,
    /// The number of requests whose output the model has, or that have none.
    delivered: usize,
}

#[derive(Debug)]
struct Request {
    kind: Kind,
    /// The id of the call, if the model gets an output.
    call: Option<String>,
    /// The output for the model.
    output: Option<Value>,
    answer: Option<Answer>,
}

#[derive(Debug)]
enum Kind {
    /// A call of a client tool, with its `dynamicToolCall` item.
    ClientCall { id: u64, item: Value },
    /// Another request to the client.
    Other { id: u64, method: &'static str },
    /// A command of the agent.
    OwnCall { command: String },
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
        self.push(Kind::ClientCall { id, item: item.clone() }, Some(call.to_owned()));
        item
    }

    /// Adds another request.
    pub(crate) fn add_request(&mut self, id: u64, method: &'static str) {
        self.push(Kind::Other { id, method }, None);
    }

    /// Adds a command of the agent.
    pub(crate) fn add_own_call(&mut self, call: &str, command: &str) {
        self.push(Kind::OwnCall { command: command.to_owned() }, Some(call.to_owned()));
    }

    fn push(&mut self, kind: Kind, call: Option<String>) {
        self.requests.push(Request { kind, call, output: None, answer: None });
    }

    /// Returns whether a request has no response yet, or a command has not ended.
    pub(crate) fn has_open(&self) -> bool {
        self.requests.iter().any(Request::is_open)
    }

    /// Returns ids and commands of the agent's calls that have no output.
    pub(crate) fn own_calls(&self) -> Vec<(String, String)> {
        let open = self.requests.iter().filter(|request| request.is_open());
        open.filter_map(|request| match &request.kind {
            Kind::OwnCall { command } => Some((request.call.clone()?, command.clone())),
            Kind::ClientCall { .. } | Kind::Other { .. } => None,
        })
        .collect()
    }

    /// Ends a command of the agent with this output.
    pub(crate) fn finish_own_call(&mut self, call: &str, output: &str) {
        let is_own = |request: &&mut Request| {
            matches!(request.kind, Kind::OwnCall { .. }) && request.call.as_deref() == Some(call)
        };
        if let Some(request) = self.requests.iter_mut().find(is_own) {
            request.output = Some(json!(output));
        }
    }

    /// Returns the outputs that the model does not have yet, in the order of the calls. Like the real app-server, an output
    /// waits for those of the calls before it.
    pub(crate) fn take_outputs(&mut self) -> Vec<Value> {
        let ready = self.requests[self.delivered..].iter().take_while(|request| !request.is_open());
        let ready: Vec<&Request> = ready.collect();
        let outputs = ready.iter().filter_map(|request| request.model_output()).collect();
        self.delivered += ready.len();
        outputs
    }

    /// Handles a response. Returns `None` without a request, the finished item of a call, or the method of another request.
    pub(crate) fn on_response(&mut self, id: u64, line: &Value) -> Option<Result<Value, &'static str>> {
        let is_open = |request: &&mut Request| request.id() == Some(id) && request.answer.is_none();
        let request = self.requests.iter_mut().find(is_open)?;
        let (content, success) = parse_content(line);
        let text = content.iter().filter_map(|item| item["text"].as_str()).collect();
        let answer = line.get("error").map_or_else(|| line["result"].clone(), |e| json!({"error": e}));
        request.output = Some(model_output(&content));
        let (outcome, method) = match &mut request.kind {
            Kind::ClientCall { item, .. } => {
                item["status"] = json!(if success { "completed" } else { "failed" });
                (item["contentItems"], item["success"], item["durationMs"]) =
                    (json!(content), json!(success), json!(1));
                (Ok(item.clone()), "item/tool/call")
            }
            Kind::Other { method, .. } => (Err(*method), *method),
            Kind::OwnCall { .. } => return None,
        };
        request.answer = Some(Answer { method, text, success, answer });
        Some(outcome)
    }

    /// Removes all requests and returns the responses.
    pub(crate) fn take_answers(&mut self) -> Vec<Answer> {
        std::mem::take(self).requests.into_iter().filter_map(|request| request.answer).collect()
    }

    /// Cancels the open requests and commands. Like the real app-server, the items end in reverse order.
    pub(crate) fn cancel(&mut self) -> Cancelled {
        let Self { mut requests, delivered } = std::mem::take(self);
        let mut items = Vec::new();
        for request in requests.iter_mut().filter(|request| request.is_open()) {
            let text = match &mut request.kind {
                Kind::ClientCall { item, .. } => {
                    (item["status"], item["contentItems"]) = (json!("failed"), json!([]));
                    (item["success"], item["durationMs"]) = (json!(false), json!(1));
                    items.push(item.clone());
                    "dynamic tool call was cancelled before receiving a response"
                }
                Kind::OwnCall { .. } => "aborted by user",
                Kind::Other { .. } => continue,
            };
            request.output = Some(json!(text));
        }
        items.reverse();
        let rest = requests[delivered..].iter();
        Cancelled { items, outputs: rest.filter_map(Request::model_output).collect() }
    }
}

impl Request {
    fn id(&self) -> Option<u64> {
        match self.kind {
            Kind::ClientCall { id, .. } | Kind::Other { id, .. } => Some(id),
            Kind::OwnCall { .. } => None,
        }
    }

    fn is_open(&self) -> bool {
        self.output.is_none()
    }

    /// Returns the output as an item of the thread.
    fn model_output(&self) -> Option<Value> {
        let (call, output) = (self.call.as_ref()?, self.output.as_ref()?);
        let id = super::wire::new_id("fco");
        Some(json!({"type": "function_call_output", "id": id, "call_id": call, "output": output}))
    }
}

/// Returns the content of a result, and whether the tool succeeded.
fn parse_content(line: &Value) -> (Vec<Value>, bool) {
    let failed = |text: &str| (vec![json!({"type": "inputText", "text": text})], false);
    if line.get("error").is_some() {
        return failed("dynamic tool request failed");
    }
    let result = &line["result"];
    match (result["contentItems"].as_array(), result["success"].as_bool()) {
        (Some(items), Some(success)) => (items.clone(), success),
        _ => failed("dynamic tool response was invalid"),
    }
}

/// Returns the output for the model: a text if the content is one text, else a list of parts.
fn model_output(content: &[Value]) -> Value {
    let part = |item: &Value| match item["type"].as_str() {
        Some("inputImage") => {
            json!({"type": "input_image", "image_url": item["imageUrl"], "detail": "original"})
        }
        _ => json!({"type": "input_text", "text": item["text"]}),
    };
    match content {
        [item] if item["type"] == "inputText" => item["text"].clone(),
        _ => content.iter().map(part).collect(),
    }
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
        let outputs: Vec<_> = pending.take_outputs().iter().map(|o| o["output"].clone()).collect();
        assert_eq!(outputs, ["dynamic tool request failed", "b"]);
        assert!(pending.take_outputs().is_empty());
        assert_eq!(pending.take_answers().len(), 2);
    }

    #[test]
    fn output_of_an_own_call_waits_for_the_calls_before_it() {
        let mut pending = two_calls();
        pending.add_own_call("call_c", "ls");
        assert_eq!(pending.own_calls(), [("call_c".to_owned(), "ls".to_owned())]);
        pending.finish_own_call("call_c", "files");
        assert!(pending.take_outputs().is_empty());
        let cancelled = pending.cancel();
        let outputs: Vec<_> = cancelled.outputs.iter().map(|o| o["output"].clone()).collect();
        let text = "dynamic tool call was cancelled before receiving a response";
        assert_eq!(outputs, [text, text, "files"]);
    }

    #[test]
    fn form_of_the_output_follows_the_content() {
        let text = |text: &str| json!({"type": "inputText", "text": text});
        let image = json!({"type": "inputImage", "imageUrl": "data:x"});
        let part = |text: &str| json!({"type": "input_text", "text": text});
        let seen = json!({"type": "input_image", "image_url": "data:x", "detail": "original"});
        for (content, output) in [
            (vec![text("a")], json!("a")),
            (vec![text("")], json!("")),
            (vec![], json!([])),
            (vec![text("a"), text("b")], json!([part("a"), part("b")])),
            (vec![image.clone()], json!([seen])),
            (vec![text("a"), image], json!([part("a"), seen])),
        ] {
            assert_eq!(super::model_output(&content), output);
        }
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
