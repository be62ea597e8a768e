use serde_json::json;

use super::*;
use crate::engine::Parameters;

#[expect(clippy::needless_pass_by_value, reason = "called with literals")]
fn strict(name: &str, schema: Value) -> Tool {
    let parameters = Parameters::Json(schema.to_string());
    Tool { name: name.into(), strict: true, parameters, ..Tool::default() }
}

fn turn(tools: impl Into<Arc<[Tool]>>) -> Turn {
    Turn { tools: tools.into(), ..Turn::default() }
}

/// Returns a schema of `count` properties that differs for each `name`.
fn properties(name: &str, count: usize) -> Value {
    let properties = (0..count).map(|n| (format!("{name}{n}"), json!({"type": "integer"})));
    json!({"type": "object", "properties": properties.collect::<serde_json::Map<_, _>>()})
}

async fn refused(compiler: &SchemaCompiler, tools: Vec<Tool>) -> (String, String) {
    match compiler.tool_set(&turn(tools)).await {
        Err(Error::InvalidArgument { field, message }) => (field, message),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("the tools are accepted"),
    }
}

#[tokio::test]
async fn tool_set_schema_is_compiled_once_for_all_turns() {
    let compiler = SchemaCompiler::default();
    let tools = || vec![strict("f", properties("a", 3)), strict("g", properties("b", 3))];
    let one = compiler.tool_set(&turn(tools())).await.unwrap();
    let two = compiler.tool_set(&turn(tools())).await.unwrap();
    for (one, two) in one.offered.iter().zip(&two.offered) {
        assert!(Arc::ptr_eq(&one.schema, &two.schema));
    }
    // The same text without `strict` needs no validator.
    let loose = Tool { strict: false, ..strict("f", properties("a", 3)) };
    let loose = compiler.tool_set(&turn([loose])).await.unwrap();
    assert!(!loose.is_strict("f") && one.is_strict("f"));
}

#[tokio::test]
async fn tool_set_cached_schemas_wait_for_no_compilation() {
    let compiler = SchemaCompiler::default();
    let tools = [strict("f", properties("a", 3))];
    compiler.tool_set(&turn(tools.clone())).await.unwrap();
    let _all_jobs = compiler.jobs.acquire_many(2).await.unwrap();
    assert!(compiler.tool_set(&turn(tools)).await.is_ok());
}

#[tokio::test]
async fn tool_set_limits_hold_for_all_strict_tools_together() {
    let compiler = SchemaCompiler::default();
    let large = |name: &str| strict(name, json!({"title": name, "anyOf": vec![json!({}); 40_000]}));
    // Each tool is accepted alone, and its schema is then cached.
    for name in ["a", "b", "c"] {
        assert!(compiler.tool_set(&turn([large(name)])).await.is_ok());
    }
    let (field, message) = refused(&compiler, vec![large("a"), large("b"), large("c")]).await;
    assert_eq!(field, "tools[2].parameters_json");
    assert!(message.contains("`c`") && message.contains("more than 100000 parts"), "{message}");

    let patterns = |name: &str| {
        let property =
            |n: usize| (format!("p{n}"), json!({"pattern": format!("^(a[b-y]c[d-w]){{28}}{name}{n}")}));
        strict(name, json!({"properties": (0..400).map(property).collect::<serde_json::Map<_, _>>()}))
    };
    let (field, message) = refused(&compiler, vec![patterns("a"), patterns("b")]).await;
    assert_eq!(field, "tools[1].parameters_json");
    assert!(message.contains("bytes of patterns"), "{message}");

    let text = |bytes: usize| json!({"description": "x".repeat(bytes)});
    let (field, message) =
        refused(&compiler, vec![strict("a", text(600_000)), strict("b", text(600_000))]).await;
    assert_eq!(field, "tools[1].parameters_json");
    assert!(message.contains("more than 1048576 bytes"), "{message}");
    let (_, message) = refused(&compiler, vec![strict("a", text(1 << 20))]).await;
    assert!(message.contains("more than 1048576"), "{message}");
}

#[test]
fn cache_evicts_the_least_recently_used_beyond_its_bytes() {
    let mut cache = SchemaCache::default();
    let schema = |megabytes: usize| {
        let text_bytes = (megabytes << 20) / BYTES_PER_TEXT_BYTE;
        Arc::new(ToolSchema { full: None, rewritten: Value::Null, validator: None, text_bytes })
    };
    let key = |n: u8| [n; 32];
    assert!(cache.insert(key(1), &schema(15)).is_empty());
    assert!(cache.insert(key(2), &schema(15)).is_empty());
    assert!(cache.get(key(1)).is_some());
    assert_eq!(cache.insert(key(3), &schema(15)).len(), 1);
    assert!(cache.get(key(2)).is_none() && cache.get(key(1)).is_some());
    assert_eq!(cache.memory_bytes, 30 << 20);
    // A second insertion of the same schema takes no more memory.
    assert!(cache.insert(key(3), &schema(15)).is_empty());
    assert_eq!(cache.memory_bytes, 30 << 20);
    // A schema that is larger than the cache evicts no other, and is kept while a turn uses it.
    let large = schema(33);
    assert!(cache.insert(key(4), &large).is_empty());
    assert!(cache.get(key(4)).is_some_and(|cached| Arc::ptr_eq(&cached, &large)));
    drop(large);
    assert!(cache.get(key(4)).is_none());
    assert_eq!((cache.schemas.len(), cache.memory_bytes), (2, 30 << 20));
}
