//! async-openai: an answer, a stream and a tool loop. `BASE_URL=http://127.0.0.1:PORT/v1`, `API_KEY`.

use std::{env, error::Error, process::ExitCode};

use async_openai::{
    Client,
    config::OpenAIConfig,
    types::chat::{
        ChatCompletionMessageToolCalls, ChatCompletionRequestAssistantMessageArgs,
        ChatCompletionRequestMessage, ChatCompletionRequestToolMessageArgs,
        ChatCompletionRequestUserMessageArgs, ChatCompletionTool, ChatCompletionTools,
        CreateChatCompletionRequest, CreateChatCompletionRequestArgs, FunctionObjectArgs,
    },
};
use futures_util::StreamExt;
use serde_json::json;

type Outcome = Result<(), Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let variable = |name| env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let config =
        OpenAIConfig::new().with_api_base(variable("BASE_URL")).with_api_key(variable("API_KEY"));
    let client = Client::with_config(config);
    let outcomes = [
        ("async_openai_chat", chat(&client).await),
        ("async_openai_stream", stream(&client).await),
        ("async_openai_tool_loop", tool_loop(&client).await),
    ];
    let failed = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count();
    for (name, outcome) in &outcomes {
        match outcome {
            Ok(()) => println!("ok {name}"),
            Err(error) => println!("FAIL {name}: {error}"),
        }
    }
    println!("{} passed, {failed} failed", outcomes.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn chat(client: &Client<OpenAIConfig>) -> Outcome {
    let answer = client.chat().create(request(vec![user(&json!([{"text": "one two"}]))?])?).await?;
    same(answer.choices[0].message.content.as_deref(), Some("one two"))?;
    same(answer.usage.is_some(), true)
}

async fn stream(client: &Client<OpenAIConfig>) -> Outcome {
    let mut request = request(vec![user(&json!([{"text": "one two three", "delay_ms": 100}]))?])?;
    request.stream = Some(true);
    let mut chunks = client.chat().create_stream(request).await?;
    let mut pieces = Vec::new();
    while let Some(chunk) = chunks.next().await {
        pieces.extend(chunk?.choices.into_iter().filter_map(|choice| choice.delta.content));
    }
    pieces.retain(|piece| !piece.is_empty());
    same(pieces, vec!["one ".to_owned(), "two ".to_owned(), "three".to_owned()])
}

async fn tool_loop(client: &Client<OpenAIConfig>) -> Outcome {
    let steps = json!([
        {"calls": [{"name": "get_weather", "arguments": {"city": "Rome"}}]},
        {"text": "It is warm."},
    ]);
    let function = FunctionObjectArgs::default()
        .name("get_weather")
        .parameters(json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}))
        .build()?;
    let tools = vec![ChatCompletionTools::Function(ChatCompletionTool { function })];
    let mut messages = vec![user(&steps)?];
    let mut first = request(messages.clone())?;
    first.tools = Some(tools.clone());
    let answer = client.chat().create(first).await?;
    let calls = answer.choices[0].message.tool_calls.clone().unwrap_or_default();
    let [ChatCompletionMessageToolCalls::Function(call)] = calls.as_slice() else {
        return Err(format!("wanted one call, got {calls:?}").into());
    };
    same(serde_json::from_str(&call.function.arguments)?, json!({"city": "Rome"}))?;
    let result =
        ChatCompletionRequestToolMessageArgs::default().tool_call_id(&call.id).content("25 C").build()?;
    let assistant = ChatCompletionRequestAssistantMessageArgs::default().tool_calls(calls.clone()).build()?;
    messages.extend([assistant.into(), result.into()]);
    let mut second = request(messages)?;
    second.tools = Some(tools);
    let answer = client.chat().create(second).await?;
    same(answer.choices[0].message.content.as_deref(), Some("It is warm."))
}

/// Returns the user's message with a directive of the scripted upstream.
fn user(steps: &serde_json::Value) -> Result<ChatCompletionRequestMessage, Box<dyn Error>> {
    let content = format!("@@{steps}@@");
    Ok(ChatCompletionRequestUserMessageArgs::default().content(content).build()?.into())
}

fn request(
    messages: Vec<ChatCompletionRequestMessage>,
) -> Result<CreateChatCompletionRequest, Box<dyn Error>> {
    let model = env::var("MODEL").unwrap_or_else(|_| "gpt-5.5".into());
    Ok(CreateChatCompletionRequestArgs::default().model(model).messages(messages).build()?)
}

fn same<T: PartialEq + std::fmt::Debug>(got: T, wanted: T) -> Outcome {
    if got == wanted { Ok(()) } else { Err(format!("got {got:?}, wanted {wanted:?}").into()) }
}
