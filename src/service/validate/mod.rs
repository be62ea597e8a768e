//! `pb::ChatRequest` → `engine::Turn`: every question that a request leaves open is answered or refused here, with
//! the field named. Past this file nobody looks at the request again.

mod message;
mod tool_calls;

use std::time::Duration;

use crate::{
    config::{self, Limits, Models, Profile, Sandbox},
    engine::{Format, ToolChoice, Turn},
    error::Error,
    pb,
};

/// What a request is checked against.
#[derive(Debug, Clone)]
pub(super) struct RequestPolicy {
    pub(super) models: Models,
    pub(super) limits: Limits,
    pub(super) sandbox: Sandbox,
    pub(super) search: bool,
    pub(super) profile: Profile,
}

/// A request without open questions.
#[derive(Debug)]
pub(super) struct ValidatedRequest {
    /// The turn; each of `n` answers is one.
    pub(super) turn: Turn,
    /// The model in the client's words.
    pub(super) model_asked: String,
    pub(super) n: u32,
    pub(super) stop: Vec<String>,
    pub(super) max_output_tokens: Option<u32>,
    pub(super) timeout: Option<Duration>,
    pub(super) metadata: Vec<(String, String)>,
}

impl RequestPolicy {
    /// Checks a request. `capacity` is how many turns the server can hold at once.
    pub(super) fn parse(&self, request: pb::ChatRequest, capacity: usize) -> Result<ValidatedRequest, Error> {
        bounded("model", &request.model, 256)?;
        let asked = if request.model.is_empty() { &self.models.default } else { &request.model };
        let (name, profile) = self.profile(asked)?;
        let model = self.models.aliases.get(name).map_or(name, String::as_str);
        let stop = stop(request.stop)?;
        let turn = Turn {
            id: String::new(),
            model: model.to_owned(),
            profile,
            messages: message::all(request.messages, &self.limits)?,
            tool_choice: tool_choice(&request.tools, request.tool_choice.as_ref())?,
            tools: tools(request.tools, request.tool_choice.as_ref())?,
            parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
            reasoning_effort: self.effort(request.reasoning_effort)?,
            reasoning_summary: self.summary(request.reasoning_summary)?,
            verbosity: verbosity(request.verbosity)?,
            format: format(request.response_format)?,
            sandbox: self.sandbox(request.agent.unwrap_or_default())?,
            web_search: self.search(request.agent.unwrap_or_default())?,
            deadline: None,
        };
        tool_calls::check(&turn.messages)?;
        Ok(ValidatedRequest {
            model_asked: asked.clone(),
            turn,
            n: self.n(request.n, capacity)?,
            stop,
            max_output_tokens: max_output_tokens(request.max_output_tokens)?,
            timeout: timeout(request.timeout)?,
            metadata: metadata(request.metadata)?,
        })
    }

    /// The suffix of a model's name that asks for a profile: `gpt-5.5:chat`.
    fn profile<'a>(&'a self, asked: &'a str) -> Result<(&'a str, Profile), Error> {
        let Some((name, profile)) = self.models.with_profile(asked) else {
            return Ok((asked, self.profile));
        };
        if profile == Profile::Agent && self.profile == Profile::Chat {
            return Err(widened("model: this server runs no agent (CODEX_PROFILE)".to_owned()));
        }
        Ok((if name.is_empty() { &self.models.default } else { name }, profile))
    }

    fn effort(&self, asked: String) -> Result<String, Error> {
        if asked.is_empty() {
            return Ok(self.models.reasoning_effort.clone());
        }
        if !config::is_word(&asked) {
            return Err(Error::invalid(
                "reasoning_effort",
                "expected a word such as minimal, low, medium, high or xhigh",
            ));
        }
        Ok(asked)
    }

    fn summary(&self, asked: String) -> Result<String, Error> {
        match asked.as_str() {
            "" => Ok(self.models.reasoning_summary.clone()),
            known if config::SUMMARIES.contains(&known) => Ok(asked),
            _ => Err(Error::invalid("reasoning_summary", "expected auto, concise, detailed or none")),
        }
    }

    fn n(&self, asked: Option<u32>, capacity: usize) -> Result<u32, Error> {
        let n = asked.unwrap_or(1);
        let capacity = u32::try_from(capacity).unwrap_or(u32::MAX);
        let most = self.limits.max_choices.min(capacity);
        if !(1..=most).contains(&n) {
            return Err(Error::invalid("n", format!("expected 1 to {most} answers, got {n}")));
        }
        Ok(n)
    }

    fn sandbox(&self, agent: pb::AgentOptions) -> Result<Sandbox, Error> {
        use pb::agent_options::Sandbox as Asked;
        let asked = match Asked::try_from(agent.sandbox) {
            Ok(Asked::Unspecified) => return Ok(self.sandbox),
            Ok(Asked::ReadOnly) => Sandbox::ReadOnly,
            Ok(Asked::WorkspaceWrite) => Sandbox::WorkspaceWrite,
            Ok(Asked::DangerFullAccess) => Sandbox::DangerFullAccess,
            Err(_) => return Err(Error::invalid("agent.sandbox", "not a known sandbox")),
        };
        if asked > self.sandbox {
            return Err(widened(format!(
                "agent.sandbox: this server allows {} at most (CODEX_SANDBOX)",
                self.sandbox.as_str()
            )));
        }
        Ok(asked)
    }

    fn search(&self, agent: pb::AgentOptions) -> Result<bool, Error> {
        if agent.web_search == Some(true) && !self.search {
            return Err(widened(
                "agent.web_search: this server allows no web search (CODEX_ENABLE_SEARCH)".into(),
            ));
        }
        Ok(agent.web_search.unwrap_or(self.search))
    }
}

fn widened(message: String) -> Error {
    Error::PermissionDenied { reason: "POLICY_WIDENED", message }
}

fn bounded(field: &str, text: &str, most: usize) -> Result<(), Error> {
    if text.len() > most {
        return Err(Error::invalid(field, format!("at most {most} bytes are allowed, got {}", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(field, "control characters are not allowed"));
    }
    Ok(())
}

/// Names of functions, formats and the like.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

const NAME_RULE: &str = "expected 1 to 64 letters, digits, `_` or `-`";

fn stop(stop: Vec<String>) -> Result<Vec<String>, Error> {
    if stop.len() > 4 {
        return Err(Error::invalid("stop", format!("at most 4 texts are allowed, got {}", stop.len())));
    }
    for (index, text) in stop.iter().enumerate() {
        if text.is_empty() || text.len() > 1024 {
            return Err(Error::invalid(format!("stop[{index}]"), "expected a text of 1 to 1024 bytes"));
        }
    }
    Ok(stop)
}

fn tools(tools: Vec<pb::Tool>, choice: Option<&pb::ToolChoice>) -> Result<Vec<pb::Tool>, Error> {
    for (index, tool) in tools.iter().enumerate() {
        if !is_name(&tool.name) {
            return Err(Error::invalid(format!("tools[{index}].name"), NAME_RULE));
        }
        if tools[..index].iter().any(|earlier| earlier.name == tool.name) {
            return Err(Error::invalid(format!("tools[{index}].name"), "another tool has this name"));
        }
    }
    let none = choice.is_some_and(|choice| choice.mode() == pb::tool_choice::Mode::None);
    Ok(if none { Vec::new() } else { tools })
}

fn tool_choice(tools: &[pb::Tool], choice: Option<&pb::ToolChoice>) -> Result<ToolChoice, Error> {
    use pb::tool_choice::Mode;
    let Some(choice) = choice else { return Ok(ToolChoice::Auto) };
    match Mode::try_from(choice.mode) {
        Ok(Mode::Unspecified | Mode::Auto | Mode::None) => Ok(ToolChoice::Auto),
        Ok(Mode::Required) if tools.is_empty() => {
            Err(Error::invalid("tool_choice", "a tool is required, but `tools` is empty"))
        }
        Ok(Mode::Required) => Ok(ToolChoice::Required),
        Ok(Mode::Named) if tools.iter().all(|tool| tool.name != choice.name) => {
            Err(Error::invalid("tool_choice", format!("`tools` has no function named {:?}", choice.name)))
        }
        Ok(Mode::Named) => Ok(ToolChoice::Named(choice.name.clone())),
        Err(_) => Err(Error::invalid("tool_choice.mode", "not a known mode")),
    }
}

fn verbosity(asked: String) -> Result<Option<String>, Error> {
    match asked.as_str() {
        "" => Ok(None),
        "low" | "medium" | "high" => Ok(Some(asked)),
        _ => Err(Error::invalid("verbosity", "expected low, medium or high")),
    }
}

fn format(asked: Option<pb::ResponseFormat>) -> Result<Format, Error> {
    use pb::response_format::Format as Asked;
    let schema = match asked.and_then(|asked| asked.format) {
        None | Some(Asked::Text(_)) => return Ok(Format::Text),
        Some(Asked::JsonObject(_)) => return Ok(Format::JsonObject),
        Some(Asked::JsonSchema(schema)) => schema,
    };
    let field = |name: &str| format!("response_format.json_schema.{name}");
    if !is_name(&schema.name) {
        return Err(Error::invalid(field("name"), NAME_RULE));
    }
    match serde_json::from_str::<serde_json::Value>(&schema.schema) {
        Ok(serde_json::Value::Object(_)) => Ok(Format::JsonSchema(schema.schema)),
        Ok(_) => Err(Error::invalid(field("schema"), "expected a JSON Schema that is an object")),
        Err(error) => Err(Error::invalid(field("schema"), format!("not JSON: {error}"))),
    }
}

fn max_output_tokens(asked: Option<u32>) -> Result<Option<u32>, Error> {
    if asked == Some(0) {
        return Err(Error::invalid("max_output_tokens", "expected at least 1"));
    }
    Ok(asked)
}

fn timeout(asked: Option<prost_types::Duration>) -> Result<Option<Duration>, Error> {
    let Some(asked) = asked else { return Ok(None) };
    match Duration::try_from(asked) {
        Ok(timeout) if !timeout.is_zero() => Ok(Some(timeout)),
        Ok(_) | Err(_) => Err(Error::invalid("timeout", "expected a duration longer than zero")),
    }
}

fn metadata(asked: std::collections::HashMap<String, String>) -> Result<Vec<(String, String)>, Error> {
    if asked.len() > 16 {
        return Err(Error::invalid("metadata", format!("at most 16 pairs are allowed, got {}", asked.len())));
    }
    let mut pairs: Vec<_> = asked.into_iter().collect();
    pairs.sort_unstable();
    for (key, value) in &pairs {
        if key.is_empty() || key.len() > 64 || value.len() > 512 {
            return Err(Error::invalid("metadata", "keys have 1 to 64 bytes and values at most 512"));
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests;
