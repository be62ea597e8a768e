//! Text attachments and pictures.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use codex_api::pb::{self, content_part::Part};
use serde_json::{Value, json};
use tonic::Code;

use super::{reporting, seen_by_codex};
use crate::{
    both_engines,
    support::{
        AppConfig, Engine, chat_request,
        grpc::{code_and_reason, violated_field},
        http::body,
        with_app,
    },
};

const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

fn request_with_file(model: &str, file: &pb::File) -> pb::ChatRequest {
    let mut request = chat_request(model, "look");
    request.messages[0].parts.push(pb::ContentPart { part: Some(Part::File(file.clone())) });
    request
}

fn parts_with_file(part: &Value) -> Value {
    json!([{"role": "user", "content": [{"type": "text", "text": "look"}, part]}])
}

both_engines!(text_files_reach_the_model_with_their_name_at_both_doors);
async fn text_files_reach_the_model_with_their_name_at_both_doors(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        for (name, media_type, text) in [
            ("a.txt", "text/plain", "plain text"),
            ("b.md", "text/markdown", "# heading"),
            ("c.json", "application/json", "[1, 2]"),
            ("d.csv", "text/csv", "x;y"),
            ("e.rs", "application/octet-stream", "fn main() {}"),
        ] {
            let base64 = BASE64.encode(text);
            let url = format!("data:{media_type};base64,{base64}");
            let file = json!({"filename": name, "file_data": url});
            for part in [
                json!({"type": "file", "file": file}),
                json!({"type": "file", "file": {"filename": name, "file_data": base64}}),
                json!({"type": "input_file", "filename": name, "file_data": url}),
            ] {
                let seen = seen_by_codex(app, engine, parts_with_file(&part)).await;
                assert!(seen.contains(name) && seen.contains(text), "{part}: {seen}");
            }
            let file = pb::File {
                filename: name.into(),
                media_type: media_type.into(),
                data: text.as_bytes().to_vec().into(),
            };
            let seen = app.chat(request_with_file(reporting(engine), &file)).await;
            assert!(seen.contains(name) && seen.contains(text), "{name}: {seen}");
        }
    })
    .await;
}

both_engines!(files_that_are_no_text_are_refused_by_name_at_both_doors);
async fn files_that_are_no_text_are_refused_by_name_at_both_doors(engine: Engine) {
    with_app(AppConfig::fake(engine).max_prompt_chars(100), async |app| {
        let pdf = BASE64.encode("%PDF-1.7 …");
        let png = format!("data:image/png;base64,{PNG}");
        for (file, param) in [
            (json!({"filename": "a.pdf", "file_data": format!("data:application/pdf;base64,{pdf}")}), ""),
            (json!({"filename": "a.png", "file_data": png}), ""),
            (json!({"filename": "a.bin", "file_data": "AAH/"}), ""),
            (json!({"file_id": "file-1"}), ".file.file_id"),
        ] {
            let request = json!({"model": "fake:echo",
                "messages": parts_with_file(&json!({"type": "file", "file": file}))});
            let (status, error) = app.http_error(&request).await;
            assert_eq!((status, &error["code"]), (400, &json!("unsupported_parameter")), "{file}");
            assert_eq!(error["param"], format!("messages[0].content[1]{param}"), "{file}");
            if let Some(name) = file["filename"].as_str() {
                assert!(error["message"].as_str().unwrap().contains(name), "{error}");
            }
        }
        let pdf = pb::File { filename: "a.pdf".into(), ..Default::default() };
        let status = app.grpc_error(request_with_file("fake:echo", &pdf)).await;
        assert_eq!(code_and_reason(&status), (Code::InvalidArgument, "UNSUPPORTED_PARAMETER".into()));
        assert_eq!(violated_field(&status), "messages[0].parts[1].file");
        let long = pb::File { data: vec![b'x'; 101].into(), ..Default::default() };
        let status = app.grpc_error(request_with_file("fake:echo", &long)).await;
        assert_eq!(code_and_reason(&status), (Code::InvalidArgument, "PROMPT_TOO_LARGE".into()));
    })
    .await;
}

both_engines!(fifty_pictures_of_a_long_history_pass_by_default);
async fn fifty_pictures_of_a_long_history_pass_by_default(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let picture =
            json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{PNG}")}});
        let message = json!({"role": "user", "content": [{"type": "text", "text": "look"}, picture]});
        let request =
            |count: usize| json!({"model": "fake:text:5", "messages": vec![message.clone(); count]});
        assert_eq!(app.post(&request(50)).await.status(), 200);
        let (status, error) = app.http_error(&request(51)).await;
        assert_eq!((status, &error["param"]), (400, &json!("messages")));
    })
    .await;
}

both_engines!(resolution_of_a_picture_is_named_as_ignored);
async fn resolution_of_a_picture_is_named_as_ignored(engine: Engine) {
    with_app(AppConfig::fake(engine), async |app| {
        let request = |detail: &str| {
            let url = json!({"url": format!("data:image/png;base64,{PNG}"), "detail": detail});
            let mut request = body("fake:text:5", "look");
            request["messages"][0]["content"] = json!([{"type": "image_url", "image_url": url}]);
            request
        };
        for (detail, ignored) in [
            ("auto", None),
            ("low", Some("messages[].content[].image_url.detail")),
            ("original", Some("messages[].content[].image_url.detail")),
        ] {
            let response = app.post(&request(detail)).await;
            assert_eq!(response.status(), 200, "{detail}");
            let header = response.headers().get("x-codex-ignored-params");
            assert_eq!(header.map(|header| header.to_str().unwrap()), ignored, "{detail}");
        }
        let (status, error) = app.http_error(&request("huge")).await;
        assert_eq!((status, &error["param"]), (400, &json!("messages[0].content[0].image_url.detail")));
    })
    .await;
}
