use super::*;

fn reason(message: &str) -> &'static str {
    match classify_message(message) {
        TurnEnd::Error(error) => error.reason(),
        TurnEnd::Truncated(pb::FinishReason::Length) => "truncated: length",
        TurnEnd::Truncated(_) => "truncated: other",
    }
}

#[test]
fn classify_message_of_each_known_text_returns_its_error() {
    let quota = r#"{"error":{"message":"no","type":"x","code":"insufficient_quota"}}"#;
    let table = [
        (
            r#"{"error":{"message":"bad thing","type":"invalid_request_error","code":"bad_param"}}"#,
            "UPSTREAM_REJECTED",
        ),
        (r#"{"error":{"message":"gone","code":"model_not_found"}}"#, "MODEL_NOT_FOUND"),
        (r#"{"detail":"The 'x' model is not found here"}"#, "MODEL_NOT_FOUND"),
        (r#"{"error":{"message":"long","code":"context_length_exceeded"}}"#, "CONTEXT_LENGTH_EXCEEDED"),
        (
            r#"{"detail":"The 'gpt-5-codex' model is not supported when using Codex with a ChatGPT account."}"#,
            "MODEL_NOT_FOUND",
        ),
        ("The model `x` has been deprecated, learn more here.", "MODEL_NOT_FOUND"),
        ("Project `p` does not have access to model `x`", "MODEL_NOT_FOUND"),
        ("unexpected status 400 Bad Request: The model `x` does not exist, url: http://u", "MODEL_NOT_FOUND"),
        (
            r#"{"error":{"message":"Unsupported value: 'xhigh' is not supported with the 'gpt-5' model.","code":"unsupported_value"}}"#,
            "UPSTREAM_REJECTED",
        ),
        (quota, "INSUFFICIENT_QUOTA"),
        ("<html>Bad Request: Upgrade not supported by proxy</html>", "UPSTREAM_UNAVAILABLE"),
        ("workspace routing discovery failed", "UPSTREAM_UNAVAILABLE"),
        ("unexpected status 302 Found: Unknown error, url: http://u", "UPSTREAM_UNAVAILABLE"),
        ("unexpected status 407 Proxy Authentication Required: no, url: http://u", "UPSTREAM_UNAVAILABLE"),
        (
            "unexpected status 403 Forbidden: <!DOCTYPE html><html>log in</html>, url: http://u",
            "UPSTREAM_UNAVAILABLE",
        ),
        ("workspace routing discovery timed out", "UPSTREAM_UNAVAILABLE"),
        ("The requested model 'x' does not exist.", "MODEL_NOT_FOUND"),
        ("unexpected status 401 Unauthorized: Incorrect API key, url: http://u", "ENGINE_UNAVAILABLE"),
        ("unexpected status 403 Forbidden: no, url: http://u", "ENGINE_UNAVAILABLE"),
        ("unexpected status 402 Payment Required: pay, url: http://u", "INSUFFICIENT_QUOTA"),
        ("unexpected status 404 Not Found: model not found, url: http://u", "MODEL_NOT_FOUND"),
        ("unexpected status 404 Not Found: nothing here, url: http://u", "TURN_FAILED"),
        ("unexpected status 413 Payload Too Large: big, url: http://u", "CONTEXT_LENGTH_EXCEEDED"),
        ("unexpected status 422 Unprocessable: odd, url: http://u", "UPSTREAM_REJECTED"),
        ("unexpected status 503 Service Unavailable: <html>", "UPSTREAM_UNAVAILABLE"),
        ("exceeded retry limit, last status: 429 Too Many Requests", "RATE_LIMIT_EXCEEDED"),
        ("Invalid prompt: your prompt was flagged.", "UPSTREAM_REJECTED"),
        ("rate limit exceeded: Rate limit reached. Please try again in 1.5s.", "RATE_LIMIT_EXCEEDED"),
        ("Quota exceeded. Check your plan and billing details.", "INSUFFICIENT_QUOTA"),
        ("You've hit your usage limit. Try again at 4:27 PM.", "INSUFFICIENT_QUOTA"),
        (
            "We're currently experiencing high demand, which may cause temporary errors.",
            "UPSTREAM_UNAVAILABLE",
        ),
        ("Selected model is at capacity. Please try a different model.", "UPSTREAM_UNAVAILABLE"),
        (
            "Codex ran out of room in the model's context window. Start a new thread",
            "CONTEXT_LENGTH_EXCEEDED",
        ),
        ("stream disconnected before completion: stream closed", "UPSTREAM_UNAVAILABLE"),
        ("Incomplete response returned, reason: max_output_tokens", "truncated: length"),
        (
            "stream disconnected before completion: Incomplete response returned, reason: content_filter",
            "truncated: other",
        ),
        ("idle timeout waiting for SSE", "UPSTREAM_UNAVAILABLE"),
        ("Missing environment variable: `MOCK_KEY`.", "ENGINE_UNAVAILABLE"),
        ("unexpected status 403 Forbidden: blocked, url: ws://u/v1/responses", "UPSTREAM_UNAVAILABLE"),
        ("unexpected status 404 Not Found: nothing, url: wss://u/v1/responses", "UPSTREAM_UNAVAILABLE"),
        ("unexpected status 400 Bad Request: no upgrade, url: ws://u/v1/responses", "UPSTREAM_UNAVAILABLE"),
        ("unexpected status 401 Unauthorized: no, url: ws://u/v1/responses", "ENGINE_UNAVAILABLE"),
        (
            "Your access token could not be refreshed because your refresh token was already used. Please log out and sign in again.",
            "ENGINE_UNAVAILABLE",
        ),
        (
            "Your access token could not be refreshed because you have since logged out or signed in to another account. \
             Please sign in again.",
            "ENGINE_UNAVAILABLE",
        ),
        (
            "Your authentication session could not be refreshed automatically. Please log out and sign in again.",
            "ENGINE_UNAVAILABLE",
        ),
        (
            "To use Codex with your ChatGPT plan, upgrade to Plus: https://chatgpt.com/explore/plus.",
            "INSUFFICIENT_QUOTA",
        ),
        ("workspace routing discovery unauthorized (401)", "ENGINE_UNAVAILABLE"),
        ("selected workspace missing from routing discovery", "ENGINE_UNAVAILABLE"),
        ("workspace routing discovery failed (500)", "UPSTREAM_UNAVAILABLE"),
        ("an unknown message", "TURN_FAILED"),
    ];
    for (message, expected) in table {
        assert_eq!(reason(message), expected, "{message}");
    }
}

#[test]
fn is_login_refused_is_true_for_the_login_itself_only() {
    let table = [
        ("unexpected status 401 Unauthorized: no, url: http://u", true),
        ("unexpected status 401 Unauthorized: no, url: ws://u", true),
        ("Your access token could not be refreshed because your refresh token was already used.", true),
        ("workspace routing discovery unauthorized (401)", true),
        ("unexpected status 403 Forbidden: no, url: http://u", false),
        ("Missing environment variable: `MOCK_KEY`.", false),
        ("unexpected status 503 Service Unavailable: 401, url: http://u", false),
    ];
    for (message, expected) in table {
        let TurnEnd::Error(error) = classify_message(message) else { panic!("{message}") };
        assert_eq!(is_login_refused(&error), expected, "{message}");
    }
}

#[test]
fn classify_message_parses_the_delay_and_removes_the_url() {
    let TurnEnd::Error(Error::RateLimited { retry_after, .. }) =
        classify_message("rate limit exceeded: Please try again in 1.5s.")
    else {
        panic!("expected a rate limit");
    };
    assert_eq!(retry_after, Some(Duration::from_millis(1500)));
    for (text, expected) in [
        ("unexpected status 429 Too Many Requests: Slow down, try again in 3.2s., url: http://u", 3200),
        ("exceeded retry limit, last status: 429 Too Many Requests; try again in 3.2s", 3200),
        ("You've hit your usage limit. Try again in 3 days 4 hours.", 273_600_000),
        ("You've hit your usage limit. Try again at 4:27 PM.", 0),
        ("You've hit your usage limit. Visit https://u or try again in 3 days 4 hours.", 273_600_000),
    ] {
        let TurnEnd::Error(Error::RateLimited { retry_after, .. } | Error::UsageLimit { retry_after, .. }) =
            classify_message(text)
        else {
            panic!("expected a limit: {text}");
        };
        let expected = (expected > 0).then(|| Duration::from_millis(expected));
        assert_eq!(retry_after, expected, "{text}");
    }
    assert_eq!(retry_delay("try again in 250ms"), Some(Duration::from_millis(250)));
    for (delay, seconds) in [
        ("2m", 120),
        ("2h.", 7200),
        ("1h20m", 4800),
        ("1d", 86400),
        ("1m30s.", 90),
        ("6m0s", 360),
        ("1 minute", 60),
        ("20 seconds. 3 requests are left.", 20),
        ("7", 7),
    ] {
        assert_eq!(
            retry_delay(&format!("try again in {delay}")),
            Some(Duration::from_secs(seconds)),
            "{delay}"
        );
    }
    assert_eq!(retry_delay("try again in 2 fortnights"), None);
    assert_eq!(retry_delay("try again at 4 PM"), None);

    let TurnEnd::Error(error) =
        classify_message("unexpected status 503 Busy: come back, url: http://10.1.2.3/v1")
    else {
        panic!("expected a failure");
    };
    assert_eq!(error.to_string(), "the upstream answered 503: come back");
}

#[test]
fn classify_message_keeps_public_links_and_no_internal_address() {
    for (message, expected) in [
        (
            "You’ve hit your usage limit. Upgrade to Pro (https://chatgpt.com/explore/pro), or try again at 4:27 PM.",
            "You exceeded your current quota: You’ve hit your usage limit. Upgrade to Pro (https://chatgpt.com/explore/pro), or try again at 4:27 PM.",
        ),
        (
            "unexpected status 403 Forbidden: <html>blocked by proxy</html>, url: ws://10.1.2.3/v1/responses",
            "the WebSocket to the upstream was refused, possibly by a proxy or a firewall (403)",
        ),
        (r#"{"error":{"message":"ask http://10.1.2.3/help or 10.1.2.3:80"}}"#, "ask <address> or <address>"),
        ("something new at proxy.corp:8443", "something new at <address>"),
    ] {
        let TurnEnd::Error(error) = classify_message(message) else { panic!("{message}") };
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn classify_exit_of_each_known_stderr_returns_its_error() {
    let table = [
        (Some(0), "", "TURN_FAILED"),
        (Some(101), "thread 'main' panicked", "TURN_FAILED"),
        (None, "", "TURN_FAILED"),
        (Some(1), "Not logged in. Run `codex login`", "ENGINE_UNAVAILABLE"),
        (
            Some(1),
            "ChatGPT login is required, but an API key is currently being used. Logging out.",
            "ENGINE_UNAVAILABLE",
        ),
        (
            Some(1),
            "API key login is required, but ChatGPT is currently being used. Logging out.",
            "ENGINE_UNAVAILABLE",
        ),
        (
            Some(1),
            "Login is restricted to workspace(s) w, but current credentials lack a workspace identifier. Logging out.",
            "ENGINE_UNAVAILABLE",
        ),
        (
            Some(1),
            "Error: failed to initialize in-process app-server client: Read-only file system (os error 30)",
            "ENGINE_UNAVAILABLE",
        ),
        (Some(1), "Error finding codex home: CODEX_HOME points to \"/x\", but", "ENGINE_UNAVAILABLE"),
        (Some(2), "error: unexpected argument '--ephemeral' found", "ENGINE_UNAVAILABLE"),
        (Some(1), "Error loading config.toml: bad", "ENGINE_UNAVAILABLE"),
        (
            Some(1),
            "turn/start failed: Input exceeds the maximum length of 1048576 characters.",
            "PROMPT_TOO_LARGE",
        ),
        (Some(127), "codex-api supervise: No such file or directory", "ENGINE_UNAVAILABLE"),
    ];
    for (code, stderr, expected) in table {
        assert_eq!(classify_exit(code, stderr).reason(), expected, "{stderr}");
    }
}

#[test]
fn classify_message_of_a_refused_login_removes_keys() {
    let error_text = |text: &str| match classify_message(text) {
        TurnEnd::Error(error) => error.to_string(),
        TurnEnd::Truncated(_) => panic!("expected a failure"),
    };
    assert_eq!(
        error_text(
            "unexpected status 403 Forbidden: Country, region,\n or territory not supported, url: http://u"
        ),
        "the upstream refused the server's own login (403: Country, region, or territory not supported); \
         the operator must log in with an account that has access, or fix the named cause"
    );
    let refused = error_text("unexpected status 401 Unauthorized: Missing scopes: api.write, url: http://u");
    assert_eq!(refused, "the upstream refused the server's own login (401); the operator must log in again");
    for secret in ["sk-proj-ab**cd.", "\"eyJhbGciOi.x.y\"", "Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5"] {
        let message =
            error_text(&format!("unexpected status 403 Forbidden: the key {secret} is bad, url: http://u"));
        assert!(message.contains("403: the key … is bad"), "{message}");
    }
    let long = error_text(&format!("unexpected status 403 Forbidden: {}", "no ".repeat(1000)));
    assert!(long.chars().count() < 2 * MAX_QUOTE_CHARS, "{long}");
}

#[test]
fn errors_have_the_words_that_clients_look_for() {
    let error_text = |text: &str| match classify_message(text) {
        TurnEnd::Error(error) => error.to_string(),
        TurnEnd::Truncated(_) => panic!("expected a failure"),
    };
    for (text, words) in [
        ("You've hit your usage limit. Try again at 4:27 PM.", "You exceeded your current quota: You've hit"),
        ("Quota exceeded. Check your plan and billing details.", "You exceeded your current quota: Quota"),
        (
            "{\"detail\":\"The 'gpt-5-codex' model is not supported when using Codex with a ChatGPT account.\"}",
            "The model does not exist or you do not have access to it: The 'gpt-5-codex' model",
        ),
        (
            "{\"error\":{\"message\":\"The model `x` does not exist or you do not have access to it.\",\"code\":\"model_not_found\"}}",
            "The model `x` does not exist or you do not have access to it.",
        ),
    ] {
        let message = error_text(text);
        assert!(message.starts_with(words), "{message}");
    }
}

#[test]
fn unreadable_bodies_become_a_fixed_text() {
    for body in [
        "<html><body>blocked by proxy.corp</body></html>",
        "<!-- x --><!DOCTYPE html><title>Blocked</title>",
        "\u{1f}\u{fffd}\u{8}\0\0blocked",
    ] {
        for code in [400, 401, 403, 404, 429, 500, 503] {
            let text = format!("unexpected status {code} Some Reason: {body}, url: http://u/v1");
            for error in [classify_status(code, &text), classify_status(code, body), classify_failure(body)] {
                let found = error.to_string();
                assert!(matches!(error, Error::UpstreamUnavailable { .. }), "{code}: {found}");
                assert!(!found.contains("locked") && !found.contains('\0'), "{code}: {found}");
            }
        }
    }
}
