//! The client's functions in the form that Codex accepts. Names differ from Codex's own, and Codex passes the schemas on.
//!
//! Codex has no parameters for required calls, single calls and strict schemas. Instructions for the model and checks of
//! its response replace these parameters.

pub(crate) mod call;
mod names;
pub(crate) mod schema_compiler;
mod schema_rewrite;
pub(crate) mod validate_calls;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use self::{
    argument_validator::{ArgumentValidator, ValidationError},
    schema_compiler::{ToolSchema, offered},
};
pub(crate) use crate::engine::json_schema::argument_validator;
use crate::engine::{Tool, ToolChoice, Turn};

/// Maximum number of names in an instruction. With more tools, the instruction names no tool.
const MAX_NAMES_IN_INSTRUCTION: usize = 8;

/// The tools of one turn, and how the model may use them. Owned by the turn.
#[derive(Debug)]
pub(super) struct ToolSet {
    offered: Vec<OfferedTool>,
    choice: ToolChoice,
    parallel: bool,
    /// Names that the model sees, by the client's names. Contains only names that differ.
    aliases: BTreeMap<String, String>,
    originals: HashMap<String, String>,
    /// Permits for the compilations and validations of all turns.
    jobs: Arc<Semaphore>,
}

#[derive(Debug)]
struct OfferedTool {
    name: String,
    description: String,
    schema: Arc<ToolSchema>,
}

impl ToolSet {
    /// Builds the set from the schemas of the tools that the turn offers, in their order.
    fn with_schemas(turn: &Turn, schemas: Vec<Arc<ToolSchema>>, jobs: Arc<Semaphore>) -> Self {
        let aliases = names::aliases(turn);
        let offered = offered(&turn.tools, &turn.tool_choice).zip(schemas);
        Self {
            offered: offered
                .map(|((_, tool), schema)| OfferedTool::new(tool, schema, aliases.get(&tool.name)))
                .collect(),
            choice: turn.tool_choice.clone(),
            parallel: turn.parallel_tool_calls,
            originals: aliases.iter().map(|(name, alias)| (alias.clone(), name.clone())).collect(),
            aliases,
            jobs,
        }
    }

    /// Compiles the tools of a turn on this thread.
    #[cfg(test)]
    pub(super) fn new(turn: &Turn) -> Result<Self, crate::error::Error> {
        let schemas = offered(&turn.tools, &turn.tool_choice)
            .map(|(index, tool)| schema_compiler::compile_tool(index, tool))
            .collect::<Result<_, _>>()?;
        Ok(Self::with_schemas(turn, schemas, Arc::new(Semaphore::new(1))))
    }

    /// Returns the tools for `thread/start.dynamicTools`.
    pub(super) fn dynamic_tools(&self) -> Vec<Value> {
        let tools = self.offered.iter().map(|tool| {
            json!({
                "type": "function",
                "name": self.alias(&tool.name),
                "description": tool.description,
                "inputSchema": tool.schema.rewritten,
            })
        });
        tools.collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.offered.is_empty()
    }

    /// Returns `true` if the model sees an offered tool under this name. The client's name of a tool with an alias does not
    /// count, because Codex may have a tool of that name.
    pub(super) fn offers(&self, alias: &str) -> bool {
        self.offered.iter().any(|tool| self.alias(&tool.name) == alias)
    }

    /// Returns the instructions for the model that replace the parameters that Codex does not have.
    pub(super) fn instructions(&self) -> Option<String> {
        if self.offered.is_empty() {
            return None;
        }
        let names: Vec<String> =
            self.offered.iter().map(|tool| format!("`{}`", self.alias(&tool.name))).collect();
        let functions = if names.len() > MAX_NAMES_IN_INSTRUCTION {
            "functions that the application provides".to_owned()
        } else {
            format!("application's functions ({})", names.join(", "))
        };
        let required = match &self.choice {
            ToolChoice::Auto => None,
            ToolChoice::Required => Some(format!(
                "Your reply must call at least one of the {functions}. A reply that has only text is not accepted."
            )),
            ToolChoice::Named(name) => Some(format!(
                "Your reply must call the application's function `{}`. A reply that has only text is not accepted.",
                self.alias(name)
            )),
        };
        let single = (!self.parallel)
            .then(|| format!("Call the {functions} one at a time: never more than one call in a reply."));
        let instructions: Vec<String> = [required, single].into_iter().flatten().collect();
        (!instructions.is_empty()).then(|| instructions.join("\n"))
    }

    /// Returns the name that the model sees.
    pub(super) fn alias<'a>(&'a self, name: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(self.aliases.get(name).map_or(name, String::as_str))
    }

    /// Returns the client's name of a tool.
    pub(super) fn original<'a>(&'a self, alias: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(self.originals.get(alias).map_or(alias, String::as_str))
    }

    /// Returns `true` if the arguments of a call must be validated. `name` is the client's.
    pub(super) fn is_strict(&self, name: &str) -> bool {
        self.validator(name).is_some()
    }

    /// Validates the arguments of a call if the tool is strict. `name` is the client's. Blocks the thread, at most until
    /// `deadline`.
    pub(super) fn validate(
        &self,
        name: &str,
        arguments: &str,
        deadline: Option<Instant>,
    ) -> Result<(), ValidationError> {
        let Some(validator) = self.validator(name) else { return Ok(()) };
        let with_name = |what: String| format!("the arguments of `{name}` {what}");
        validator.validate(arguments, deadline).map_err(|error| match error {
            ValidationError::Invalid(what) => ValidationError::Invalid(with_name(what)),
            ValidationError::TooExpensive(what) => ValidationError::TooExpensive(with_name(what)),
        })
    }

    fn validator(&self, name: &str) -> Option<&ArgumentValidator> {
        self.offered.iter().find(|tool| tool.name == name)?.schema.validator.as_ref()
    }

    /// Returns the error text for a response with this many calls, if the client required a call.
    pub(super) fn too_few_calls(&self, calls: usize) -> Option<String> {
        match &self.choice {
            ToolChoice::Required if calls == 0 => {
                Some("tool_choice requires a tool call, but the model answered without one".to_owned())
            }
            ToolChoice::Named(name) if calls == 0 => {
                Some(format!("tool_choice requires a call of `{name}`, but the model answered without one"))
            }
            ToolChoice::Auto | ToolChoice::Required | ToolChoice::Named(_) => None,
        }
    }

    /// Returns how many of `calls` calls the client gets.
    pub(super) fn keep(&self, calls: usize) -> usize {
        if self.parallel { calls } else { calls.min(1) }
    }
}

impl OfferedTool {
    fn new(tool: &Tool, schema: Arc<ToolSchema>, alias: Option<&String>) -> Self {
        let mut paragraphs = Vec::new();
        if !tool.description.is_empty() {
            paragraphs.push(tool.description.clone());
        }
        if alias.is_some() {
            // Other instructions of the client may use the original name.
            paragraphs.push(format!("This is the application's function `{}`.", tool.name));
        }
        if let Some(full) = &schema.full {
            paragraphs.push(format!("The arguments must match this JSON Schema: {full}"));
        }
        Self { name: tool.name.clone(), description: paragraphs.join("\n\n"), schema }
    }
}

#[cfg(test)]
mod tests;
