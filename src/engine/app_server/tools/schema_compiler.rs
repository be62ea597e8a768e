//! Compiles the schemas of a turn's tools on threads of the blocking pool. Each schema is compiled once, and the number of
//! concurrent compilations is limited.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{
    ToolSet,
    argument_validator::{ArgumentValidator, MAX_PARTS, MAX_PATTERN_BYTES, SchemaCost, SchemaError},
    schema_rewrite::rewrite_for_codex,
};
use crate::{
    engine::{Tool, ToolChoice, Turn},
    error::Error,
};

/// Maximum number of concurrent compilations and validations. Further jobs wait. Each job occupies a thread for up to 1 s.
const MAX_CONCURRENT_JOBS: usize = 2;

/// Maximum text of the schemas of all strict tools of a request, in bytes.
const MAX_STRICT_SCHEMA_BYTES: usize = 1 << 20;

/// Bounds of the cache. Only schemas near the limits reach these bounds, because ordinary schemas have a few kilobytes. The
/// memory after a request with the largest schemas exceeds the memory before by at most the bytes.
const MAX_CACHED_SCHEMAS: usize = 4096;
const MAX_CACHED_BYTES: usize = 32 << 20;

/// Measured memory of a cached schema. The first constant covers the text and both values parsed from the text. The second
/// covers a part of the validator. The third covers a pattern, for each byte of its limit.
const BYTES_PER_TEXT_BYTE: usize = 16;
const BYTES_PER_PART: u64 = 400;
const BYTES_PER_PATTERN_BYTE: usize = 10;

/// The schema of a tool as the turns use it.
#[derive(Debug)]
pub(crate) struct ToolSchema {
    /// The client's schema without spaces. `None` if Codex passes the whole schema on.
    pub(crate) full: Option<String>,
    /// The schema in the form that Codex passes on.
    pub(crate) rewritten: Value,
    /// The validator of a strict tool.
    pub(crate) validator: Option<ArgumentValidator>,
    text_bytes: usize,
}

/// The reason why the schema of a tool is refused. Each text continues a sentence that begins with the field.
#[derive(Debug, thiserror::Error)]
enum ToolSchemaError {
    #[error("the schema has {0} bytes, more than {MAX_STRICT_SCHEMA_BYTES}")]
    TooLong(usize),
    #[error("the schema is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(
        "together with the strict tools before this tool, the schema has more than {MAX_STRICT_SCHEMA_BYTES} bytes"
    )]
    TotalTooLong,
    #[error(
        "together with the strict tools before this tool, the schema has more than {MAX_PARTS} parts after following its references"
    )]
    TooManyParts,
    #[error(
        "together with the strict tools before this tool, the schema has more than {MAX_PATTERN_BYTES} bytes of patterns"
    )]
    TooManyPatternBytes,
}

impl ToolSchema {
    fn compile(tool: &Tool) -> Result<Self, ToolSchemaError> {
        let text_bytes = tool.parameters.to_text().len();
        if tool.strict && text_bytes > MAX_STRICT_SCHEMA_BYTES {
            return Err(ToolSchemaError::TooLong(text_bytes));
        }
        let full = tool.parameters.to_value()?;
        let validator = tool.strict.then(|| ArgumentValidator::new(&full)).transpose()?;
        let rewritten = rewrite_for_codex(&full);
        let full = rewritten.lossy.then(|| full.to_string());
        Ok(Self { full, rewritten: rewritten.schema, validator, text_bytes })
    }

    fn cost(&self) -> SchemaCost {
        self.validator.as_ref().map(ArgumentValidator::cost).unwrap_or_default()
    }

    fn memory_bytes(&self) -> usize {
        let SchemaCost { parts, pattern_bytes } = self.cost();
        let parts = usize::try_from(parts * BYTES_PER_PART).unwrap_or(usize::MAX);
        parts + self.text_bytes * BYTES_PER_TEXT_BYTE + pattern_bytes * BYTES_PER_PATTERN_BYTE
    }
}

/// Compiles schemas and caches them by their text. Owned by the engine.
#[derive(Debug)]
pub(crate) struct SchemaCompiler {
    cache: Arc<Mutex<SchemaCache>>,
    jobs: Arc<Semaphore>,
}

impl Default for SchemaCompiler {
    fn default() -> Self {
        Self { cache: Arc::default(), jobs: Arc::new(Semaphore::new(MAX_CONCURRENT_JOBS)) }
    }
}

impl SchemaCompiler {
    /// Compiles the tools of a turn. The error names the tool's field and the limit.
    ///
    /// Cancel safe. A compilation that has begun runs to its end in bounded time, and its result is cached.
    pub(crate) async fn tool_set(&self, turn: &Turn) -> Result<ToolSet, Error> {
        if turn.tools.is_empty() {
            return Ok(ToolSet::with_schemas(turn, Vec::new(), Arc::clone(&self.jobs)));
        }
        let (tools, choice) = (Arc::clone(&turn.tools), turn.tool_choice.clone());
        let cache = Arc::clone(&self.cache);
        // Hashing may take long, because the texts may have megabytes.
        let cached = spawn_blocking(move || {
            let offered = offered(&tools, &choice);
            offered
                .map(|(_, tool)| (schema_key(tool), lock(&cache).get(schema_key(tool))))
                .collect::<Vec<_>>()
        });
        let cached = cached.await.map_err(Error::internal)?;
        // A turn with only cached schemas does not wait for the jobs of other turns.
        let is_cached = cached.iter().all(|(_, schema)| schema.is_some());
        let job = match is_cached {
            true => None,
            false => Some(Arc::clone(&self.jobs).acquire_owned().await.map_err(Error::internal)?),
        };
        let (tools, choice) = (Arc::clone(&turn.tools), turn.tool_choice.clone());
        let cache = Arc::clone(&self.cache);
        let schemas = spawn_blocking(move || {
            let _job = job;
            let offered = offered(&tools, &choice).zip(cached);
            let mut limits = RequestLimits::default();
            let compiled = offered.map(|((index, tool), (key, schema))| {
                // Another turn may have compiled the schema in the meantime.
                let schema = match schema.or_else(|| lock(&cache).get(key)) {
                    Some(schema) => schema,
                    None => compile_tool(index, tool)?,
                };
                limits.add(index, tool, &schema)?;
                let evicted = lock(&cache).insert(key, &schema);
                drop(evicted);
                Ok(schema)
            });
            compiled.collect::<Result<Vec<_>, Error>>()
        });
        Ok(ToolSet::with_schemas(turn, schemas.await.map_err(Error::internal)??, Arc::clone(&self.jobs)))
    }
}

/// Returns the tools that the model is offered, with their indexes. A choice by name offers only the named tool.
pub(super) fn offered<'a>(
    tools: &'a [Tool],
    choice: &'a ToolChoice,
) -> impl Iterator<Item = (usize, &'a Tool)> {
    tools.iter().enumerate().filter(move |(_, tool)| match choice {
        ToolChoice::Auto | ToolChoice::Required => true,
        ToolChoice::Named(name) => *name == tool.name,
    })
}

/// Compiles the schema of one tool on this thread.
pub(super) fn compile_tool(index: usize, tool: &Tool) -> Result<Arc<ToolSchema>, Error> {
    ToolSchema::compile(tool).map(Arc::new).map_err(|error| refuse_tool(index, tool, &error))
}

fn refuse_tool(index: usize, tool: &Tool, error: &ToolSchemaError) -> Error {
    let field = format!("tools[{index}].{}", tool.parameters.field_name());
    Error::invalid(&field, format!("{field} of `{}` cannot be used as a JSON Schema: {error}", tool.name))
}

/// The total cost of the strict tools of a request.
#[derive(Debug, Default)]
struct RequestLimits {
    text_bytes: usize,
    cost: SchemaCost,
}

impl RequestLimits {
    fn add(&mut self, index: usize, tool: &Tool, schema: &ToolSchema) -> Result<(), Error> {
        if !tool.strict {
            return Ok(());
        }
        self.text_bytes += schema.text_bytes;
        self.cost.parts += schema.cost().parts;
        self.cost.pattern_bytes += schema.cost().pattern_bytes;
        let error = if self.text_bytes > MAX_STRICT_SCHEMA_BYTES {
            ToolSchemaError::TotalTooLong
        } else if self.cost.parts > MAX_PARTS {
            ToolSchemaError::TooManyParts
        } else if self.cost.pattern_bytes > MAX_PATTERN_BYTES {
            ToolSchemaError::TooManyPatternBytes
        } else {
            return Ok(());
        };
        Err(refuse_tool(index, tool, &error))
    }
}

/// Hash of a schema's text and the `strict` flag, which decides whether a validator is compiled.
type SchemaKey = [u8; 32];

fn schema_key(tool: &Tool) -> SchemaKey {
    let mut hash = Sha256::new();
    hash.update([u8::from(tool.strict)]);
    hash.update(tool.parameters.to_text().as_bytes());
    hash.finalize().into()
}

/// Compiled schemas by the hash of their text. The least recently used schemas are evicted first.
#[derive(Debug, Default)]
struct SchemaCache {
    schemas: HashMap<SchemaKey, CachedSchema>,
    /// Schemas that are larger than the cache, while a turn uses them. The choices of a request share one.
    large: HashMap<SchemaKey, Weak<ToolSchema>>,
    memory_bytes: usize,
    /// Number of uses so far.
    clock: u64,
}

#[derive(Debug)]
struct CachedSchema {
    schema: Arc<ToolSchema>,
    last_used: u64,
}

impl SchemaCache {
    fn get(&mut self, key: SchemaKey) -> Option<Arc<ToolSchema>> {
        self.clock += 1;
        let Some(cached) = self.schemas.get_mut(&key) else {
            return self.large.get(&key).and_then(Weak::upgrade);
        };
        cached.last_used = self.clock;
        Some(Arc::clone(&cached.schema))
    }

    /// Caches a schema. One that is larger than the cache is kept only while a turn uses it. Returns the evicted schemas. The caller drops the evicted
    /// schemas without the lock, because dropping 60 MB takes 70 ms.
    fn insert(&mut self, key: SchemaKey, schema: &Arc<ToolSchema>) -> Vec<CachedSchema> {
        if schema.memory_bytes() > MAX_CACHED_BYTES {
            self.large.retain(|_, schema| schema.strong_count() > 0);
            self.large.insert(key, Arc::downgrade(schema));
            return Vec::new();
        }
        self.clock += 1;
        let cached = CachedSchema { schema: Arc::clone(schema), last_used: self.clock };
        self.memory_bytes += schema.memory_bytes();
        if let Some(before) = self.schemas.insert(key, cached) {
            self.memory_bytes -= before.schema.memory_bytes();
        }
        let mut evicted = Vec::new();
        while self.schemas.len() > MAX_CACHED_SCHEMAS || self.memory_bytes > MAX_CACHED_BYTES {
            let oldest = self.schemas.iter().min_by_key(|(_, cached)| cached.last_used).map(|(key, _)| *key);
            let Some(oldest) = oldest.and_then(|key| self.schemas.remove(&key)) else { break };
            self.memory_bytes -= oldest.schema.memory_bytes();
            evicted.push(oldest);
        }
        evicted
    }
}

fn lock(cache: &Mutex<SchemaCache>) -> std::sync::MutexGuard<'_, SchemaCache> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
