//! Limits of images: number, size and file type.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use codex_api::pb;
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    both_engines, eventually,
    support::{
        AppConfig, Engine, TestApp, chat_request,
        grpc::{code_and_reason, violated_field},
        http::{answer_of_completion, body},
        with_app,
    },
};

/// Returns the smallest PNG file, followed by `extra` bytes.
fn png(extra: usize) -> Vec<u8> {
    let dot =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let mut file = BASE64.decode(dot).unwrap();
    file.resize(file.len() + extra, 0);
    file
}

fn requests_with_images(model: &str, files: &[Vec<u8>]) -> (pb::ChatRequest, Value) {
    let mut grpc = chat_request(model, "look");
    let mut http = body(model, "look");
    let mut content = vec![json!({"type": "text", "text": "look"})];
    for file in files {
        let image = pb::Image { data: file.clone().into(), ..Default::default() };
        let part = Some(pb::content_part::Part::Image(image));
        grpc.messages[0].parts.push(pb::ContentPart { part });
        let url = format!("data:image/png;base64,{}", BASE64.encode(file));
        content.push(json!({"type": "image_url", "image_url": {"url": url}}));
    }
    http["messages"][0]["content"] = content.into();
    (grpc, http)
}

/// Asserts that both doors refuse the images with the field and a part of the message.
async fn assert_refused(app: &TestApp, files: &[Vec<u8>], field: &str, param: &str, text: &str) {
    let (grpc, http) = requests_with_images("fake:report", files);
    let status = app.grpc_error(grpc).await;
    assert_eq!(code_and_reason(&status), (Code::InvalidArgument, "INVALID_VALUE".into()));
    assert_eq!(violated_field(&status), field);
    assert!(status.message().contains(text), "{status:?}");
    let (code, error) = app.http_error(&http).await;
    assert_eq!((code, &error["param"]), (400, &json!(param)), "{error}");
    assert!(error["message"].as_str().unwrap().contains(text), "{error}");
}

both_engines!(
    #[cfg_attr(feature = "portable", ignore = "needs the process interfaces of Linux")]
    images_within_the_limits_reach_the_cli_and_are_removed
);
async fn images_within_the_limits_reach_the_cli_and_are_removed(engine: Engine) {
    let limits = [("CODEX_MAX_IMAGES", "2"), ("CODEX_MAX_IMAGE_BYTES", "1000")];
    with_app(AppConfig::fake(engine).envs(&limits), async |app| {
        let largest = png(1000 - png(0).len());
        let (grpc, http) = requests_with_images("fake:report", &[png(0), largest]);
        for report in [app.chat(grpc).await, answer_of_completion(&app.complete(&http).await).text] {
            let report: Value = serde_json::from_str(&report).unwrap();
            let sizes: Vec<u64> = match engine {
                Engine::Exec => {
                    let images = report["images"].as_array().unwrap();
                    assert!(images.iter().all(|image| image["exists"] == true), "{images:?}");
                    images.iter().map(|image| image["bytes"].as_u64().unwrap()).collect()
                }
                Engine::AppServer => {
                    let parts = report["items"][0]["content"].as_array().unwrap();
                    let urls = parts.iter().filter_map(|part| part["image_url"].as_str());
                    let files = urls.map(|url| url.strip_prefix("data:image/png;base64,").unwrap());
                    files.map(|file| BASE64.decode(file).unwrap().len() as u64).collect()
                }
            };
            assert_eq!(sizes, [png(0).len() as u64, 1000], "{report}");
            eventually!("the files are removed", app.scratch_files().is_empty());
        }
    })
    .await;
}

both_engines!(images_beyond_the_limits_are_refused_with_the_field);
async fn images_beyond_the_limits_are_refused_with_the_field(engine: Engine) {
    let limits = [("CODEX_MAX_IMAGES", "2"), ("CODEX_MAX_IMAGE_BYTES", "1000")];
    with_app(AppConfig::fake(engine).envs(&limits), async |app| {
        assert_refused(app, &[png(0), png(0), png(0)], "messages", "messages", "CODEX_MAX_IMAGES").await;
        let second = ("messages[0].parts[2].image", "messages[0].content[2].image_url");
        let large = png(1001 - png(0).len());
        assert_refused(app, &[png(0), large], second.0, second.1, "CODEX_MAX_IMAGE_BYTES").await;
        let svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec();
        assert_refused(app, &[png(0), svg], second.0, second.1, "PNG").await;
    })
    .await;
}
