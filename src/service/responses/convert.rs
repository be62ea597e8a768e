//! Converts a request of items to a chat request. Keeps the place of each message, for errors.

use crate::{
    error::Error,
    pb::{self, content_part::Part, input_item::Item},
};

/// A request for a response in the terms of the core.
#[derive(Debug, PartialEq)]
pub(super) struct ConvertedRequest {
    pub(super) request: pb::ChatRequest,
    /// The parameters that the response repeats.
    pub(super) settings: pb::ResponseSettings,
    pub(super) places: Places,
}

/// The places of the messages of a chat request in the request of items.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Places {
    messages: Vec<MessagePlace>,
    /// For each tool, its index among the tools of the request, of which only some may be allowed.
    tools: Vec<usize>,
}

/// The items that a message was made of.
#[derive(Debug, PartialEq)]
struct MessagePlace {
    source: Source,
    /// The item and the index of each part.
    parts: Vec<(usize, usize)>,
    /// The item of each call.
    calls: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Source {
    Instructions,
    /// The first item of a message.
    Message(usize),
    /// The item with the output of a call.
    Output(usize),
}

impl Source {
    /// Returns the index of the item. Instructions have none.
    fn item(self) -> usize {
        match self {
            Self::Instructions => 0,
            Self::Message(item) | Self::Output(item) => item,
        }
    }
}

impl TryFrom<pb::CreateResponseRequest> for ConvertedRequest {
    type Error = Error;

    fn try_from(request: pb::CreateResponseRequest) -> Result<Self, Error> {
        let pb::CreateResponseRequest { settings, input, agent, timeout } = request;
        let settings = settings.unwrap_or_default();
        if input.is_empty() {
            return Err(Error::invalid("input", "at least one item is required"));
        }
        let mut messages = Messages::default();
        if !settings.instructions.is_empty() {
            let parts = vec![text_part(settings.instructions.clone())];
            let message = pb::Message { role: pb::Role::Developer.into(), parts, ..pb::Message::default() };
            messages.push(Source::Instructions, message);
        }
        for (index, item) in input.into_iter().enumerate() {
            messages.add(index, item)?;
        }
        let Messages { list, places } = messages;
        let (tools, allowed) = allowed_tools(&settings)?;
        let request = pb::ChatRequest {
            model: settings.model.clone(),
            messages: list,
            tools,
            tool_choice: settings.tool_choice.clone(),
            parallel_tool_calls: settings.parallel_tool_calls,
            response_format: settings.response_format.clone(),
            reasoning_effort: settings.reasoning_effort.clone(),
            stop: Vec::new(),
            max_output_tokens: settings.max_output_tokens,
            n: None,
            metadata: settings.metadata.clone(),
            agent,
            verbosity: settings.verbosity.clone(),
            timeout,
            reasoning_summary: settings.reasoning_summary.clone(),
            service_tier: settings.service_tier.clone(),
            prompt_cache_key: settings.prompt_cache_key.clone(),
            user: settings.user.clone(),
            separate_messages: true,
        };
        Ok(Self { request, settings, places: Places { messages: places, tools: allowed } })
    }
}

/// Returns the tools that the model may use, with their indexes.
fn allowed_tools(settings: &pb::ResponseSettings) -> Result<(Vec<pb::Tool>, Vec<usize>), Error> {
    let pb::ResponseSettings { tools, allowed_tools, .. } = settings;
    if let Some(index) = allowed_tools.iter().position(|name| tools.iter().all(|tool| tool.name != *name)) {
        let field = format!("settings.allowed_tools[{index}]");
        return Err(Error::invalid(field, "allowed_tools: expected the names of `tools`"));
    }
    let is_allowed = |tool: &pb::Tool| allowed_tools.is_empty() || allowed_tools.contains(&tool.name);
    let allowed = tools.iter().enumerate().filter(|(_, tool)| is_allowed(tool));
    Ok(allowed.map(|(index, tool)| (tool.clone(), index)).unzip())
}

#[derive(Debug, Default)]
struct Messages {
    list: Vec<pb::Message>,
    places: Vec<MessagePlace>,
}

impl Messages {
    fn push(&mut self, source: Source, message: pb::Message) {
        let item = source.item();
        let parts = (0..message.parts.len()).map(|part| (item, part)).collect();
        let calls = message.tool_calls.iter().map(|_| item).collect();
        self.places.push(MessagePlace { source, parts, calls });
        self.list.push(message);
    }

    /// Returns the last message if it is the assistant's.
    fn last_of_assistant(&mut self) -> Option<(&mut pb::Message, &mut MessagePlace)> {
        let (last, place) = (self.list.last_mut()?, self.places.last_mut()?);
        (last.role() == pb::Role::Assistant).then_some((last, place))
    }

    /// Adds an item. A call belongs to the assistant's message before it. A text between calls and their outputs does too,
    /// because the outputs must follow the message of their calls.
    fn add(&mut self, index: usize, item: pb::InputItem) -> Result<(), Error> {
        match item.item {
            None => Err(Error::invalid(format!("input[{index}]"), "an item needs one of its kinds")),
            Some(Item::Message(message)) => self.add_message(index, message),
            Some(Item::FunctionCall(call)) => {
                let call = pb::ToolCall { id: call.call_id, name: call.name, arguments: call.arguments };
                if let Some((last, place)) = self.last_of_assistant() {
                    last.tool_calls.push(call);
                    place.calls.push(index);
                    return Ok(());
                }
                let role = pb::Role::Assistant.into();
                let message = pb::Message { role, tool_calls: vec![call], ..pb::Message::default() };
                self.push(Source::Message(index), message);
                Ok(())
            }
            Some(Item::FunctionCallOutput(output)) => {
                let (role, parts, tool_call_id) = (pb::Role::Tool.into(), output.parts, output.call_id);
                let message = pb::Message { role, parts, tool_call_id, ..pb::Message::default() };
                self.push(Source::Output(index), message);
                Ok(())
            }
        }
    }

    fn add_message(&mut self, index: usize, message: pb::InputMessage) -> Result<(), Error> {
        let role = message.role();
        if role == pb::Role::Tool {
            let error = "expected another role: the result of a call is a `function_call_output`";
            return Err(Error::invalid(format!("input[{index}].message.role"), error));
        }
        let joined = match self.last_of_assistant() {
            Some((last, place)) if role == pb::Role::Assistant && !last.tool_calls.is_empty() => {
                Some((last, place))
            }
            _ => None,
        };
        if let Some((last, place)) = joined {
            place.parts.extend((0..message.parts.len()).map(|part| (index, part)));
            last.parts.extend(message.parts);
            return Ok(());
        }
        let message = pb::Message { role: message.role, parts: message.parts, ..pb::Message::default() };
        self.push(Source::Message(index), message);
        Ok(())
    }
}

fn text_part(text: String) -> pb::ContentPart {
    pb::ContentPart { part: Some(Part::Text(text)) }
}

impl Places {
    /// Renames the field of an error of the core.
    pub(super) fn rename(&self, mut error: Error) -> Error {
        if let Error::PromptTooLarge { field, .. } = &mut error {
            *field = match *field {
                "messages" => "input",
                "tools" => "settings.tools",
                _ => "settings.response_format.json_schema.schema",
            };
        }
        if let Error::InvalidArgument { field, message } | Error::Unsupported { field, message } = &mut error
        {
            let place = self.field(field);
            if !field.is_empty() {
                *message = message.replace(&*field, &place);
            }
            *field = place;
        }
        error
    }

    /// Returns the place of a field of the chat request.
    fn field(&self, field: &str) -> String {
        if let Some((index, rest)) = element(field, "messages") {
            return match self.messages.get(index) {
                Some(place) => place.field(rest),
                None => "input".to_owned(),
            };
        }
        if let Some((index, rest)) = element(field, "tools") {
            let index = self.tools.get(index).copied().unwrap_or(index);
            return format!("settings.tools[{index}]{rest}");
        }
        match field.split(['.', '[']).next().unwrap_or_default() {
            "" | "agent" | "timeout" => field.to_owned(),
            "messages" => "input".to_owned(),
            _ => format!("settings.{field}"),
        }
    }
}

impl MessagePlace {
    /// Returns the place of a field of the message.
    fn field(&self, rest: &str) -> String {
        let rest = rest.trim_start_matches('.');
        if self.source == Source::Instructions {
            return "settings.instructions".to_owned();
        }
        let kind = match self.source {
            Source::Instructions | Source::Message(_) => "message",
            Source::Output(_) => "function_call_output",
        };
        if let Some((item, part, rest)) = element(rest, "parts")
            .and_then(|(at, rest)| self.parts.get(at).map(|(item, part)| (item, part, rest)))
        {
            return format!("input[{item}].{kind}.parts[{part}]{rest}");
        }
        if let Some((item, rest)) =
            element(rest, "tool_calls").and_then(|(at, rest)| self.calls.get(at).map(|item| (item, rest)))
        {
            let rest = if rest == ".id" { ".call_id" } else { rest };
            return format!("input[{item}].function_call{rest}");
        }
        let item = self.source.item();
        match rest {
            "" => format!("input[{item}]"),
            "tool_call_id" => format!("input[{item}].{kind}.call_id"),
            // The message has only calls, so that the item is a call.
            "tool_calls" => format!("input[{}]", self.calls.first().unwrap_or(&item)),
            rest if self.parts.is_empty() && !self.calls.is_empty() => {
                format!("input[{item}].function_call.{rest}")
            }
            rest => format!("input[{item}].{kind}.{rest}"),
        }
    }
}

/// Splits `name[3].rest` into the index and `.rest`.
fn element<'a>(field: &'a str, name: &str) -> Option<(usize, &'a str)> {
    let (index, rest) = field.strip_prefix(name)?.strip_prefix('[')?.split_once(']')?;
    Some((index.parse().ok()?, rest))
}

#[cfg(test)]
mod tests;
