//! Maps the contract's field names in errors to OpenAI's: `messages[0].parts[1].image` is
//! `messages[0].content[1].image_url` in a chat completion request.

/// The names and forms that a request used, where OpenAI has several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldNames {
    /// `max_completion_tokens` or `max_tokens`.
    pub(super) max_output_tokens: &'static str,
    /// `reasoning_effort` or `reasoning.effort`.
    pub(super) reasoning_effort: &'static str,
    /// For each message, whether its content was one string, which has no parts to name.
    pub(super) string_contents: Vec<bool>,
    /// For each tool, whether it has its fields itself instead of in `function`.
    pub(super) flat_tools: Vec<bool>,
}

/// Request header for the contract's `timeout`.
pub(super) const TIMEOUT_HEADER: &str = "x-codex-timeout-seconds";

impl Default for FieldNames {
    fn default() -> Self {
        Self {
            max_output_tokens: "max_completion_tokens",
            reasoning_effort: "reasoning_effort",
            string_contents: Vec::new(),
            flat_tools: Vec::new(),
        }
    }
}

impl FieldNames {
    /// Returns the client's name of a field of the contract.
    pub(super) fn param(&self, field: &str) -> String {
        let steps: Vec<&str> = field.split('.').collect();
        match steps.as_slice() {
            ["max_output_tokens"] => self.max_output_tokens.to_owned(),
            ["reasoning_effort"] => self.reasoning_effort.to_owned(),
            ["reasoning_summary"] => "reasoning.summary".to_owned(),
            ["timeout"] => TIMEOUT_HEADER.to_owned(),
            ["tool_choice", "name"] => "tool_choice.function.name".to_owned(),
            ["tool_choice", "mode"] => "tool_choice".to_owned(),
            [tool, rest @ ..] if tool.starts_with("tools[") && !rest.is_empty() => {
                let function = if is_set(&self.flat_tools, tool) { "" } else { ".function" };
                let rest = rest.join(".");
                format!("{tool}{function}.{}", if rest == "parameters_json" { "parameters" } else { &rest })
            }
            [message, call, rest @ ("name" | "arguments")]
                if message.starts_with("messages[") && call.starts_with("tool_calls[") =>
            {
                format!("{message}.{call}.function.{rest}")
            }
            [message, part, rest @ ..] if message.starts_with("messages[") => {
                match part.strip_prefix("parts") {
                    Some(index) => self.content(message, index, rest),
                    None => field.to_owned(),
                }
            }
            _ => field.to_owned(),
        }
    }

    fn content(&self, message: &str, index: &str, rest: &[&str]) -> String {
        let is_string = is_set(&self.string_contents, message);
        let inner = match rest {
            _ if is_string => return format!("{message}.content"),
            [] => "",
            ["image", "detail"] => ".image_url.detail",
            ["image", ..] => ".image_url",
            ["text", ..] => ".text",
            _ => "",
        };
        format!("{message}.content{index}{inner}")
    }
}

/// Returns the flag of an element, such as `tools[1]`.
fn is_set(flags: &[bool], element: &str) -> bool {
    let number =
        element.split_once('[').and_then(|(_, rest)| rest.trim_end_matches(']').parse::<usize>().ok());
    number.and_then(|number| flags.get(number)).copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn param_contract_fields_get_openai_names() {
        let names = FieldNames {
            max_output_tokens: "max_tokens",
            reasoning_effort: "reasoning.effort",
            string_contents: vec![false, true],
            flat_tools: vec![false, true],
        };
        for (field, param) in [
            ("model", "model"),
            ("stop[1]", "stop[1]"),
            ("n", "n"),
            ("max_output_tokens", "max_tokens"),
            ("reasoning_effort", "reasoning.effort"),
            ("reasoning_summary", "reasoning.summary"),
            ("timeout", "x-codex-timeout-seconds"),
            ("tools", "tools"),
            ("tools[2]", "tools[2]"),
            ("tools[1]", "tools[1]"),
            ("tools[1].name", "tools[1].name"),
            ("tools[1].parameters_json", "tools[1].parameters"),
            ("tools[2].parameters", "tools[2].function.parameters"),
            ("tools[2].parameters_json", "tools[2].function.parameters"),
            ("tool_choice.name", "tool_choice.function.name"),
            ("tool_choice", "tool_choice"),
            ("messages", "messages"),
            ("messages[0].role", "messages[0].role"),
            ("messages[0].parts", "messages[0].content"),
            ("messages[0].parts[3]", "messages[0].content[3]"),
            ("messages[0].parts[3].text", "messages[0].content[3].text"),
            ("messages[0].parts[3].image", "messages[0].content[3].image_url"),
            ("messages[0].parts[3].image.data", "messages[0].content[3].image_url"),
            ("messages[0].parts[3].image.detail", "messages[0].content[3].image_url.detail"),
            ("messages[0].parts[3].file", "messages[0].content[3]"),
            ("messages[1].parts[0].text", "messages[1].content"),
            ("messages[0].tool_calls[1].name", "messages[0].tool_calls[1].function.name"),
            ("messages[0].tool_calls[1].id", "messages[0].tool_calls[1].id"),
            ("messages[0].tool_call_id", "messages[0].tool_call_id"),
            ("response_format.json_schema.schema", "response_format.json_schema.schema"),
        ] {
            assert_eq!(names.param(field), param);
        }
    }
}
