//! Converts the body of a request for a response into the contract's `CreateResponseRequest`. The core validates sizes,
//! roles and model names.

use super::request::{Input, InputItem, ResponseRequest, TextOptions};
use crate::{
    http::{
        error::ApiError,
        field_names::TIMEOUT_HEADER,
        forms::{
            content::{content_part, text_part},
            extra_params::ExtraParams,
            format::convert_format,
            tools::{convert_tool_choice, convert_tools, truncate_for_error},
            types::{Part, ResponseFormat, TextOr, Tool, ToolChoice, ToolChoiceObject},
        },
    },
    pb::{self, input_item::Item, tool_choice::Mode},
};

/// A request for a response in the contract's terms, with the parameters that only this door needs.
#[derive(Debug, PartialEq)]
pub(super) struct ConvertedRequest {
    pub(super) request: pb::CreateResponseRequest,
    pub(super) is_streamed: bool,
    /// For each item of the contract, its index in the body.
    pub(super) items: Vec<usize>,
    /// Parameters without effect, for the response header.
    pub(super) ignored_params: Vec<String>,
}

impl TryFrom<ResponseRequest> for ConvertedRequest {
    type Error = ApiError;

    /// Converts a body. The error names the parameter that has no equivalent.
    fn try_from(wire: ResponseRequest) -> Result<Self, ApiError> {
        let Some(input) = wire.input else { return Err(without_input(&wire.extra)) };
        let mut ignored_params = wire.extra.ignored()?;
        check_truncation(wire.truncation.as_deref(), &mut ignored_params)?;
        if wire.include.is_some_and(|include| !include.is_empty()) {
            ignored_params.push("include".to_owned());
        }
        let (input, items, has_reasoning) = convert_input(input)?;
        if has_reasoning {
            ignored_params.push("input[].reasoning".to_owned());
        }
        let TextOptions { format, verbosity } = wire.text.unwrap_or_default();
        if format
            .as_ref()
            .is_some_and(|format| format.description.as_ref().is_some_and(|text| !text.is_empty()))
        {
            ignored_params.push("text.format.description".to_owned());
        }
        let format = format.map(ResponseFormat::into_nested).map(convert_format).transpose();
        let format = format.map_err(|error| {
            error
                .renamed("response_format.json_schema", "text.format")
                .renamed("response_format", "text.format")
        })?;
        let (effort, summary) =
            wire.reasoning.map_or((None, None), |reasoning| (reasoning.effort, reasoning.summary));
        let tools = wire.tools.unwrap_or_default();
        let is_function = |tool: &Tool| tool.kind.as_deref().is_none_or(|kind| kind == "function");
        let is_nameless = |tool: &Tool| is_function(tool) && tool.function.is_none() && tool.name.is_none();
        if let Some(index) = tools.iter().position(is_nameless) {
            let param = format!("tools[{index}].name");
            return Err(ApiError::invalid(&*param, format!("{param} is missing")));
        }
        let tools = convert_tools(tools)?;
        let (choice, allowed_tools) = match wire.tool_choice {
            None => (None, Vec::new()),
            Some(choice) => tool_choice(choice)?,
        };
        let settings = pb::ResponseSettings {
            model: wire.model.unwrap_or_default(),
            instructions: wire.instructions.unwrap_or_default(),
            // Many clients send `auto` or `none` also without tools, where both have no effect.
            tool_choice: choice.filter(|c| !tools.is_empty() || !matches!(c.mode(), Mode::Auto | Mode::None)),
            parallel_tool_calls: wire.parallel_tool_calls.filter(|_| !tools.is_empty()),
            tools,
            allowed_tools,
            response_format: format,
            verbosity: verbosity.unwrap_or_default(),
            reasoning_effort: effort.unwrap_or_default(),
            reasoning_summary: summary.unwrap_or_default(),
            max_output_tokens: wire.max_output_tokens.filter(|limit| *limit != 0),
            metadata: wire.metadata.unwrap_or_default(),
            service_tier: wire.service_tier.unwrap_or_default(),
            prompt_cache_key: wire.prompt_cache_key.unwrap_or_default(),
            user: wire.extra.user(),
        };
        let request =
            pb::CreateResponseRequest { settings: Some(settings), input, agent: None, timeout: None };
        Ok(Self { request, is_streamed: wire.stream.unwrap_or_default(), items, ignored_params })
    }
}

/// Returns the error of a body without input, which may be meant for another route.
fn without_input(extra: &ExtraParams) -> ApiError {
    let text = if extra.has("messages") {
        "input: this is a body of chat completions: send `input` instead of `messages`, or send it to /v1/chat/completions"
    } else {
        "input must be a string or a list of at least one item"
    };
    ApiError::invalid("input", text)
}

fn check_truncation(requested: Option<&str>, ignored: &mut Vec<String>) -> Result<(), ApiError> {
    match requested {
        None | Some("disabled") => Ok(()),
        // Codex fails a conversation that is too long.
        Some("auto") => {
            ignored.push("truncation".to_owned());
            Ok(())
        }
        Some(_) => Err(ApiError::invalid("truncation", "truncation must be `auto` or `disabled`")),
    }
}

/// Converts the items. Returns them, the index of each one in the body, and whether reasoning was left out.
fn convert_input(input: Input) -> Result<(Vec<pb::InputItem>, Vec<usize>, bool), ApiError> {
    let list = match input {
        Input::Text(text) => {
            let parts = vec![text_part(text)];
            let message = Item::Message(pb::InputMessage { role: pb::Role::User.into(), parts });
            return Ok((vec![pb::InputItem { item: Some(message) }], vec![0], false));
        }
        Input::Items(list) if list.is_empty() => {
            return Err(ApiError::invalid("input", "input must be a string or a list of at least one item"));
        }
        Input::Items(list) => list,
    };
    let (mut items, mut places, mut has_reasoning) = (Vec::with_capacity(list.len()), Vec::new(), false);
    for (index, item) in list.into_iter().enumerate() {
        match convert_item(item, &format!("input[{index}]"))? {
            Some(item) => {
                items.push(pb::InputItem { item: Some(item) });
                places.push(index);
            }
            None => has_reasoning = true,
        }
    }
    if items.is_empty() {
        return Err(ApiError::invalid("input", "input must have an item besides reasoning"));
    }
    Ok((items, places, has_reasoning))
}

/// Converts one item; `at` is its place. Returns `None` for reasoning, which Codex cannot take.
fn convert_item(item: InputItem, at: &str) -> Result<Option<Item>, ApiError> {
    let missing =
        |field: &str| ApiError::invalid(format!("{at}.{field}"), format!("{at}.{field} is missing"));
    let InputItem { kind, id, role, content, call_id, name, arguments, output } = item;
    match kind.as_deref() {
        None | Some("message") => {
            let role = message_role(&role.ok_or_else(|| missing("role"))?, at)?;
            let parts = convert_parts(content, role, &format!("{at}.content"))?;
            Ok(Some(Item::Message(pb::InputMessage { role: role.into(), parts })))
        }
        Some("function_call") => {
            let call_id = call_id.ok_or_else(|| missing("call_id"))?;
            let (name, arguments) = (name.ok_or_else(|| missing("name"))?, arguments.unwrap_or_default());
            Ok(Some(Item::FunctionCall(pb::FunctionCall { call_id, name, arguments })))
        }
        Some("function_call_output") => {
            let call_id = call_id.ok_or_else(|| missing("call_id"))?;
            let parts = convert_parts(output, pb::Role::Tool, &format!("{at}.output"))?;
            Ok(Some(Item::FunctionCallOutput(pb::FunctionCallOutput { call_id, parts })))
        }
        Some("reasoning") => Ok(None),
        Some("item_reference") => {
            let id = truncate_for_error(&id.unwrap_or_default());
            Err(ApiError::item_not_found(
                "input",
                format!(
                    "{at}: item with id '{id}' not found. This server stores no items; send the item itself. Clients do that \
                     with `store` set to false"
                ),
            ))
        }
        Some(other) => {
            let error = format!(
                "{at}: items of type `{}` are not supported; use `message`, `function_call` or `function_call_output`",
                truncate_for_error(other)
            );
            Err(ApiError::unsupported(format!("{at}.type"), error))
        }
    }
}

fn message_role(name: &str, at: &str) -> Result<pb::Role, ApiError> {
    match name {
        "system" => Ok(pb::Role::System),
        "developer" => Ok(pb::Role::Developer),
        "user" => Ok(pb::Role::User),
        "assistant" => Ok(pb::Role::Assistant),
        other => {
            let error = format!(
                "{at}.role: `{}` is not one of system, developer, user, assistant",
                truncate_for_error(other)
            );
            Err(ApiError::invalid(format!("{at}.role"), error))
        }
    }
}

fn convert_parts(
    content: Option<TextOr<Part>>,
    role: pb::Role,
    at: &str,
) -> Result<Vec<pb::ContentPart>, ApiError> {
    match content {
        None => Ok(Vec::new()),
        Some(TextOr::Text(text)) => Ok(vec![text_part(text)]),
        Some(TextOr::List(list)) => {
            let numbered = list.into_iter().enumerate();
            numbered.map(|(index, part)| content_part(part, role, &format!("{at}[{index}]"))).collect()
        }
    }
}

/// Converts the tool choice. Returns it with the names of the allowed tools.
fn tool_choice(choice: ToolChoice) -> Result<(Option<pb::ToolChoice>, Vec<String>), ApiError> {
    match choice {
        ToolChoice::Object(ToolChoiceObject { kind: Some(kind), mode, tools, .. })
            if kind == "allowed_tools" =>
        {
            let tools = tools.unwrap_or_default();
            let names = tools.into_iter().map(|tool| tool.name).collect::<Option<Vec<_>>>();
            let Some(names) = names.filter(|names| !names.is_empty()) else {
                return Err(ApiError::invalid("tool_choice.tools", "tool_choice.tools must name functions"));
            };
            let mode = match mode.as_deref() {
                None | Some("auto") => Mode::Auto,
                Some("required") => Mode::Required,
                Some(_) => {
                    return Err(ApiError::invalid(
                        "tool_choice.mode",
                        "tool_choice.mode must be `auto` or `required`",
                    ));
                }
            };
            Ok((Some(pb::ToolChoice { mode: mode.into(), name: String::new() }), names))
        }
        choice @ (ToolChoice::Word(_) | ToolChoice::Object(_)) => {
            Ok((Some(convert_tool_choice(choice)?), Vec::new()))
        }
    }
}

/// Returns the client's name of a field of the contract. `items` has the index of each item in the body.
pub(super) fn param(field: &str, items: &[usize]) -> String {
    let settings = field.strip_prefix("settings.").unwrap_or(field);
    if let Some((index, rest)) = settings.strip_prefix("input[").and_then(|rest| rest.split_once(']')) {
        let index = index.parse().ok().and_then(|index: usize| items.get(index)).copied().unwrap_or_default();
        return format!("input[{index}]{}", item_field(rest));
    }
    if let Some(index) = settings.strip_prefix("allowed_tools[") {
        return format!("tool_choice.tools[{index}");
    }
    if settings.starts_with("tools[") {
        return settings.replace("parameters_json", "parameters");
    }
    match settings {
        // The core's name in errors about the whole conversation.
        "messages" => "input".to_owned(),
        "reasoning_effort" => "reasoning.effort".to_owned(),
        "reasoning_summary" => "reasoning.summary".to_owned(),
        "verbosity" => "text.verbosity".to_owned(),
        "tool_choice.mode" => "tool_choice".to_owned(),
        "user" => "safety_identifier".to_owned(),
        "timeout" => TIMEOUT_HEADER.to_owned(),
        other => match other.strip_prefix("response_format") {
            Some(rest) => format!("text.format{}", rest.replace(".json_schema", "")),
            None => other.to_owned(),
        },
    }
}

/// Returns the client's name of a field of an item.
fn item_field(rest: &str) -> String {
    let (_, inner) = rest.trim_start_matches('.').split_once('.').unwrap_or_default();
    let list = if rest.starts_with(".function_call_output") { "output" } else { "content" };
    match inner.strip_prefix("parts[").and_then(|rest| rest.split_once(']')) {
        Some((index, rest)) if rest.starts_with(".image") => format!(".{list}[{index}].image_url"),
        Some((index, rest)) if rest.starts_with(".text") => format!(".{list}[{index}].text"),
        Some((index, _)) => format!(".{list}[{index}]"),
        None if inner == "parts" => format!(".{list}"),
        None if inner.is_empty() => String::new(),
        None => format!(".{inner}"),
    }
}

#[cfg(test)]
mod tests;
