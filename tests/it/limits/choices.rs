//! Features that Codex lacks: several choices, stop texts, a token limit, stripped tags.

use codex_api::pb::{self, FinishReason};
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    both_engines,
    support::{
        AppConfig, Engine, TestApp, chat_request,
        grpc::{answers, code_and_reason, collect_events, violated_field},
        http::body,
        with_app,
    },
};

/// Text and finish reason of a choice.
type Answer = (String, String);

/// The same request at both doors.
struct BothRequests {
    grpc: pb::ChatRequest,
    http: Value,
}

impl BothRequests {
    fn new(model: &str, text: &str) -> Self {
        Self { grpc: chat_request(model, text), http: body(model, text) }
    }

    fn stop(mut self, texts: &[&str]) -> Self {
        self.grpc.stop = texts.iter().map(|text| (*text).to_owned()).collect();
        self.http["stop"] = texts.into();
        self
    }

    fn max_tokens(mut self, limit: u32) -> Self {
        self.grpc.max_output_tokens = Some(limit);
        self.http["max_tokens"] = limit.into();
        self
    }

    fn n(mut self, n: u32) -> Self {
        self.grpc.n = Some(n);
        self.http["n"] = n.into();
        self
    }

    /// Returns the choices, which must be equal over all four routes.
    async fn answers(self, app: &TestApp) -> Vec<Answer> {
        let answer = |(text, reason): (String, FinishReason)| {
            (text, reason.as_str_name().trim_start_matches("FINISH_REASON_").to_lowercase())
        };
        let unary = app.grpc().await.chat(self.grpc.clone()).await.unwrap().into_inner();
        let unary: Vec<Answer> = unary
            .choices
            .into_iter()
            .map(|choice| answer((choice.text.clone(), choice.finish_reason())))
            .collect();
        let events = app.grpc().await.stream_chat(self.grpc).await.unwrap().into_inner();
        let streamed: Vec<Answer> =
            answers(&collect_events(events).await.unwrap()).into_iter().map(answer).collect();
        assert_eq!(unary, streamed, "gRPC unary and stream");

        let whole = app.complete(&self.http).await;
        let choices = whole["choices"].as_array().unwrap();
        let http: Vec<Answer> = choices
            .iter()
            .enumerate()
            .map(|(index, choice)| {
                assert_eq!(choice["index"], index);
                (text(&choice["message"]["content"]), text(&choice["finish_reason"]))
            })
            .collect();
        assert_eq!(unary, http, "gRPC and HTTP");

        let mut sse = vec![Answer::default(); unary.len()];
        let chunks = app.stream(&self.http).await;
        for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
            let answer = &mut sse[usize::try_from(choice["index"].as_u64().unwrap()).unwrap()];
            answer.0.push_str(&text(&choice["delta"]["content"]));
            answer.1.push_str(&text(&choice["finish_reason"]));
        }
        assert_eq!(unary, sse, "gRPC and SSE");
        unary
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn one_answer(text: &str, reason: &str) -> Vec<Answer> {
    vec![(text.to_owned(), reason.to_owned())]
}

both_engines!(stop_text_ends_the_answer_before_it);
async fn stop_text_ends_the_answer_before_it(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let echo = |text| BothRequests::new("fake:echo", text);
        assert_eq!(
            echo("one two three").stop(&["three", "two"]).answers(app).await,
            one_answer(&engine.echo("one "), "stop")
        );
        assert_eq!(echo("one").stop(&["two"]).answers(app).await, one_answer(&engine.echo("one"), "stop"));
        assert_eq!(
            echo("Grüße 🌍!").stop(&["🌍"]).answers(app).await,
            one_answer(&engine.echo("Grüße "), "stop")
        );
        // A stop text at the beginning leaves an empty answer.
        assert_eq!(echo("xy").stop(&[&engine.echo("x")]).answers(app).await, one_answer("", "stop"));
        // A stop text may span two messages. A prefix of it is delivered as text.
        let slow = || BothRequests::new("fake:slow:10", "x");
        let first = one_answer("message 0\n\nmessage ", "stop");
        assert_eq!(slow().stop(&["1\n\nmess"]).answers(app).await, first);
        let whole = (0..5).map(|n| format!("message {n}")).collect::<Vec<_>>().join("\n\n");
        assert_eq!(slow().stop(&["4\n\nmess"]).answers(app).await, one_answer(&whole, "stop"));
    })
    .await;
}

both_engines!(token_limit_ends_the_answer);
async fn token_limit_ends_the_answer(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let echo = |text| BothRequests::new("fake:echo", text);
        let (cut, reason) = echo("one two three four five six").max_tokens(4).answers(app).await.remove(0);
        // With `exec`, the echo begins with `USER: `, which counts.
        let expected = match engine {
            Engine::Exec => "USER: one two",
            Engine::AppServer => "one two three four",
        };
        assert_eq!((cut.as_str(), reason.as_str()), (expected, "length"));
        assert_eq!(echo("one").max_tokens(100).answers(app).await, one_answer(&engine.echo("one"), "stop"));
        // The limit that is reached first ends the answer.
        let both = echo("one two three four five").stop(&["two"]).max_tokens(50);
        assert_eq!(both.answers(app).await, one_answer(&engine.echo("one "), "stop"));
        let both = echo("one two three four five").stop(&["five"]).max_tokens(3);
        let expected = match engine {
            Engine::Exec => "USER: one",
            Engine::AppServer => "one two three",
        };
        assert_eq!(both.answers(app).await, one_answer(expected, "length"));
    })
    .await;
}

both_engines!(several_choices_run_several_turns);
async fn several_choices_run_several_turns(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let three = BothRequests::new("fake:slow:5", "x").n(3).stop(&["\n\n"]).answers(app).await;
        assert_eq!(
            three,
            [
                one_answer("message 0", "stop"),
                one_answer("message 0", "stop"),
                one_answer("message 0", "stop")
            ]
            .concat()
        );
        // Usage is the sum of all turns.
        let mut two = body("fake:usage", "x");
        two["n"] = 2.into();
        assert_eq!(app.complete(&two).await["usage"]["prompt_tokens"], 2400);
    })
    .await;
}

both_engines!(choices_above_the_limit_are_refused_with_the_field);
async fn choices_above_the_limit_are_refused_with_the_field(engine: Engine) {
    // Limited by the setting, and by the number of running and waiting turns.
    for settings in
        [&[("CODEX_MAX_CHOICES", "3")][..], &[("CODEX_MAX_CONCURRENCY", "1"), ("CODEX_MAX_QUEUE", "2")]]
    {
        with_app(AppConfig::fake(engine).envs(settings), async |app| {
            let BothRequests { grpc, http } = BothRequests::new("fake:echo", "x").n(4);
            let (status, error) = app.http_error(&http).await;
            assert_eq!((status, &error["param"]), (400, &json!("n")), "{error}");
            assert!(error["message"].as_str().unwrap().contains('3'), "{error}");
            let refused = app.grpc_error(grpc).await;
            assert_eq!(
                (code_and_reason(&refused).0, violated_field(&refused).as_str()),
                (Code::InvalidArgument, "n")
            );
            let three = app.complete(&BothRequests::new("fake:echo", "x").n(3).http).await;
            assert_eq!(three["choices"].as_array().unwrap().len(), 3);
        })
        .await;
    }
}

both_engines!(answer_tags_are_stripped_if_the_setting_is_on);
async fn answer_tags_are_stripped_if_the_setting_is_on(engine: Engine) {
    let text = "<answer>42</answer>!</answer></answ";
    with_app(AppConfig::fake(engine), async |app| {
        assert_eq!(
            BothRequests::new("fake:echo", text).answers(app).await,
            one_answer(&engine.echo(text), "stop")
        );
    })
    .await;
    with_app(AppConfig::fake(engine).env("CODEX_STRIP_ANSWER_TAGS", "1"), async |app| {
        assert_eq!(
            BothRequests::new("fake:echo", text).answers(app).await,
            one_answer(&engine.echo("<answer>42!</answ"), "stop")
        );
    })
    .await;
}
