//! Validates a `pb::ChatRequest` into an `engine::Turn`. Each field gets its final value here, or the request is
//! refused with the field's name. No other code reads the request.

mod file;
mod message;
mod schemas;
mod tool_calls;

use std::time::Duration;

use crate::{
    config::{self, Limits, Models, Profile, Sandbox},
    engine::{self, ContentGuard, Continuation, Effects, ModelCatalog, Turn},
    error::Error,
    pb,
};

/// The server's settings that requests are validated against. Owned by the service.
#[derive(Debug, Clone)]
pub(super) struct RequestPolicy {
    pub(super) models: Models,
    pub(super) limits: Limits,
    pub(super) sandbox: Sandbox,
    pub(super) search: bool,
    pub(super) profile: Profile,
}

/// A request that passed validation.
#[derive(Debug)]
pub(super) struct ValidatedRequest {
    /// The turn of each of `n` answers.
    pub(super) turn: Turn,
    /// The client's name of the model, which the answer repeats.
    pub(super) requested_model: String,
    pub(super) n: u32,
    pub(super) stop: Vec<String>,
    pub(super) max_output_tokens: Option<u32>,
    /// The caller gets each message of the agent by itself.
    pub(super) separate_messages: bool,
    pub(super) metadata: Vec<(String, String)>,
}

impl RequestPolicy {
    /// Validates a request. `capacity` is the number of turns that the server can hold at once. `catalog` has the models
    /// that the CLI knows.
    pub(super) fn validate(
        &self,
        request: pb::ChatRequest,
        capacity: usize,
        catalog: Option<&ModelCatalog>,
    ) -> Result<ValidatedRequest, Error> {
        check_length("model", &request.model, 256)?;
        let requested = if request.model.is_empty() { &self.models.default } else { &request.model };
        let (name, profile) = self.profile(requested, catalog)?;
        let model = engine::resolve_model(&self.models, catalog, name);
        let known = catalog.and_then(|catalog| catalog.models.get(model));
        let stop = stop(request.stop)?;
        let turn = Turn {
            id: String::new(),
            caller: user(request.user)?,
            model: model.to_owned(),
            profile,
            messages: message::validate_all(request.messages, &self.limits)?,
            tool_choice: schemas::tool_choice(&request.tools, request.tool_choice.as_ref())?,
            tools: schemas::tools(request.tools, request.tool_choice.as_ref(), self.limits.lists.tools)?,
            parallel_tool_calls: request.parallel_tool_calls.unwrap_or(true),
            reasoning_effort: self.effort(request.reasoning_effort, known)?,
            reasoning_summary: self.summary(request.reasoning_summary)?,
            verbosity: verbosity(request.verbosity)?,
            service_tier: service_tier(request.service_tier, known)?,
            prompt_cache_key: prompt_cache_key(request.prompt_cache_key)?,
            continuation: Continuation::default(),
            format: schemas::format(request.response_format)?,
            sandbox: self.sandbox(request.agent.unwrap_or_default())?,
            web_search: self.search(request.agent.unwrap_or_default())?,
            content: ContentGuard::default(),
            deadline: None,
            effects: Effects::default(),
        };
        self.check_prompt(&turn, known.map(|known| known.context_window).filter(|window| *window > 0))?;
        tool_calls::check(&turn.messages)?;
        Ok(ValidatedRequest {
            requested_model: requested.clone(),
            turn,
            n: self.n(request.n, capacity)?,
            stop,
            // Clients say 0 for "no limit".
            max_output_tokens: request.max_output_tokens.filter(|limit| *limit != 0),
            separate_messages: request.separate_messages,
            metadata: metadata(request.metadata)?,
        })
    }

    /// Returns `true` if the validation of a request needs the catalog.
    pub(super) fn needs_catalog(&self, request: &pb::ChatRequest) -> bool {
        let depends_on_model = !request.reasoning_effort.is_empty() || !request.service_tier.is_empty();
        depends_on_model || self.models.depends_on_catalog(&request.model) || self.may_be_too_long(request)
    }

    /// Returns `true` if the prompt has more bytes than it may have characters. The error then names the model's window.
    fn may_be_too_long(&self, request: &pb::ChatRequest) -> bool {
        use pb::content_part::Part;
        let parts = request.messages.iter().flat_map(|message| &message.parts);
        let bytes = parts.map(|part| match &part.part {
            Some(Part::Text(text)) => text.len(),
            Some(Part::File(file)) => file.data.len(),
            Some(Part::Image(_)) | None => 0,
        });
        let calls = request.messages.iter().flat_map(|message| &message.tool_calls);
        let bytes = bytes.chain(calls.map(|call| call.arguments.len()));
        let tools = request.tools.iter().map(|tool| tool.description.len() + tool.parameters_json.len());
        bytes.chain(tools).sum::<usize>() > self.limits.max_prompt_chars
    }

    /// Checks the length of all that the model reads. Codex sends the tools and the schema of the answer with each request.
    /// The error has the model's context window, if it is known.
    fn check_prompt(&self, turn: &Turn, window: Option<u64>) -> Result<(), Error> {
        let messages: usize = turn.messages.iter().map(message::chars).sum();
        let tools: usize = turn.tools.iter().map(schemas::tool_chars).sum();
        let schema = schemas::format_chars(&turn.format);
        let (sum, max) = (messages + tools + schema, self.limits.max_prompt_chars);
        if sum <= max {
            return Ok(());
        }
        let counted = match (tools, schema) {
            (0, 0) => String::new(),
            _ => format!(" (messages {messages}, tools {tools}, schema of the answer {schema})"),
        };
        let window = window.map(|tokens| format!("; the model's context window has {tokens} tokens"));
        let field = if tools.max(schema) <= messages {
            "messages"
        } else if schema <= tools {
            "tools"
        } else {
            "response_format.json_schema.schema"
        };
        Err(Error::PromptTooLarge {
            field,
            message: format!(
                "the prompt has {sum} characters{counted}; this server allows {max} (CODEX_MAX_PROMPT_CHARS){}",
                window.unwrap_or_default()
            ),
        })
    }

    /// Splits a model's name from the suffix that selects a profile: `gpt-5.5:chat`. Without a suffix, an alias may select
    /// the profile.
    fn profile<'a>(
        &'a self,
        requested: &'a str,
        catalog: Option<&ModelCatalog>,
    ) -> Result<(&'a str, Profile), Error> {
        let Some((name, profile)) = self.models.with_profile(requested) else {
            let of_alias = engine::profile_of_alias(&self.models, catalog, requested);
            return Ok((requested, of_alias.unwrap_or(self.profile)));
        };
        if profile == Profile::Agent && self.profile == Profile::Chat {
            return Err(policy_widened(
                "model: this server allows only the profile chat (CODEX_PROFILE)".to_owned(),
            ));
        }
        Ok((if name.is_empty() { &self.models.default } else { name }, profile))
    }

    fn effort(&self, requested: String, model: Option<&pb::Model>) -> Result<String, Error> {
        if requested.is_empty() {
            return Ok(self.models.reasoning_effort.clone());
        }
        if !config::is_word(&requested) {
            return Err(Error::invalid(
                "reasoning_effort",
                "expected a word such as minimal, low, medium, high or xhigh",
            ));
        }
        let known = model.map(|model| model.reasoning_efforts.as_slice()).unwrap_or_default();
        // Codex does not offer these two, but the upstream has them for some models.
        let is_offered = known.contains(&requested) || matches!(requested.as_str(), "none" | "minimal");
        if !known.is_empty() && !is_offered {
            let known = known.join(", ");
            return Err(Error::invalid(
                "reasoning_effort",
                format!("reasoning_effort: the model has {known}; {requested} is not one of them"),
            ));
        }
        Ok(requested)
    }

    fn summary(&self, requested: String) -> Result<String, Error> {
        match requested.as_str() {
            "" => Ok(self.models.reasoning_summary.clone()),
            summary if config::SUMMARIES.contains(&summary) => Ok(requested),
            _ => Err(Error::invalid("reasoning_summary", "expected auto, concise, detailed or none")),
        }
    }

    fn n(&self, requested: Option<u32>, capacity: usize) -> Result<u32, Error> {
        let n = requested.unwrap_or(1);
        let capacity = u32::try_from(capacity).unwrap_or(u32::MAX);
        let max = self.limits.max_choices.min(capacity);
        if !(1..=max).contains(&n) {
            return Err(Error::invalid("n", format!("expected 1 to {max} answers, got {n}")));
        }
        Ok(n)
    }

    fn sandbox(&self, agent: pb::AgentOptions) -> Result<Sandbox, Error> {
        use pb::agent_options::Sandbox as Requested;
        let requested = match Requested::try_from(agent.sandbox) {
            Ok(Requested::Unspecified) => return Ok(self.sandbox),
            Ok(Requested::ReadOnly) => Sandbox::ReadOnly,
            Ok(Requested::WorkspaceWrite) => Sandbox::WorkspaceWrite,
            Ok(Requested::DangerFullAccess) => Sandbox::DangerFullAccess,
            Err(_) => return Err(Error::invalid("agent.sandbox", "not a known sandbox")),
        };
        if requested > self.sandbox {
            return Err(policy_widened(format!(
                "agent.sandbox: this server allows {} at most (CODEX_SANDBOX)",
                self.sandbox.as_str()
            )));
        }
        Ok(requested)
    }

    fn search(&self, agent: pb::AgentOptions) -> Result<bool, Error> {
        if agent.web_search == Some(true) && !self.search {
            return Err(policy_widened(
                "agent.web_search: this server allows no web search (CODEX_ENABLE_SEARCH)".into(),
            ));
        }
        Ok(agent.web_search.unwrap_or(self.search))
    }
}

fn policy_widened(message: String) -> Error {
    Error::PermissionDenied { reason: "POLICY_WIDENED", message }
}

/// Checks that a text has at most `max_bytes` and no control characters.
fn check_length(field: &str, text: &str, max_bytes: usize) -> Result<(), Error> {
    if text.len() > max_bytes {
        return Err(Error::invalid(
            field,
            format!("at most {max_bytes} bytes are allowed, got {}", text.len()),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(field, "control characters are not allowed"));
    }
    Ok(())
}

/// Returns the error of a list that is too long.
fn too_many(field: &str, count: usize, what: &str, max: usize, setting: &str) -> Error {
    Error::invalid(field, format!("{count} {what} are more than the {max} allowed ({setting})"))
}

/// Returns `true` for a name that a function or a format may have.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Maximum length of the name of an end user.
const MAX_USER_BYTES: usize = 2048;

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

fn verbosity(requested: String) -> Result<Option<String>, Error> {
    match requested.as_str() {
        "" => Ok(None),
        "low" | "medium" | "high" => Ok(Some(requested)),
        _ => Err(Error::invalid("verbosity", "expected low, medium or high")),
    }
}

fn service_tier(requested: String, model: Option<&pb::Model>) -> Result<Option<String>, Error> {
    let tiers = model.map(|model| model.service_tiers.as_slice()).unwrap_or_default();
    match requested.as_str() {
        "" | "auto" | "default" => Ok(None),
        "flex" | "priority" => Ok(Some(requested)),
        tier if tiers.iter().any(|known| known == tier) => Ok(Some(requested)),
        _ => {
            let others =
                tiers.iter().map(String::as_str).filter(|tier| !matches!(*tier, "flex" | "priority"));
            let known: Vec<&str> =
                ["auto", "default", "flex", "priority"].into_iter().chain(others).collect();
            Err(Error::invalid("service_tier", format!("service_tier: expected one of {}", known.join(", "))))
        }
    }
}

/// Returns the end user, to whose name the service adds the caller. The name is only compared, so it may have any characters.
fn user(requested: String) -> Result<String, Error> {
    if requested.len() > MAX_USER_BYTES {
        let message = format!("at most {MAX_USER_BYTES} bytes are allowed, got {}", requested.len());
        return Err(Error::invalid("user", message));
    }
    Ok(requested)
}

fn prompt_cache_key(requested: String) -> Result<Option<String>, Error> {
    check_length("prompt_cache_key", &requested, 512)?;
    Ok((!requested.is_empty()).then_some(requested))
}

/// Checks the request's own time limit.
pub(super) fn timeout(requested: Option<prost_types::Duration>) -> Result<Option<Duration>, Error> {
    let Some(requested) = requested else { return Ok(None) };
    // prost would normalize what the definition of the type forbids.
    if !(0..1_000_000_000).contains(&requested.nanos) {
        return Err(Error::invalid("timeout", "nanos: expected 0 to 999999999"));
    }
    match Duration::try_from(requested) {
        Ok(timeout) if !timeout.is_zero() => Ok(Some(timeout)),
        Ok(_) | Err(_) => Err(Error::invalid("timeout", "expected a duration longer than zero")),
    }
}

fn metadata(requested: std::collections::HashMap<String, String>) -> Result<Vec<(String, String)>, Error> {
    if requested.len() > 16 {
        return Err(Error::invalid(
            "metadata",
            format!("at most 16 pairs are allowed, got {}", requested.len()),
        ));
    }
    let mut pairs: Vec<_> = requested.into_iter().collect();
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
