use serde_json::json;

use super::*;

#[test]
fn incoming_nested_beyond_the_parser_limit_keeps_its_ids() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let params = format!(r#"{{"threadId":"t","turnId":"u","callId":"c","arguments":{{"a":{deep}}}}}"#);
    let line = format!(r#"{{"method":"item/tool/call","id":3,"params":{params}}}"#);
    let read = Incoming::parse(line.as_bytes()).unwrap();
    assert_eq!((read.id, read.method.as_deref()), (Some(json!(3)), Some("item/tool/call")));
    assert_eq!(read.params, json!({"threadId": "t", "callId": "c"}));
    assert!(Incoming::parse(b"nonsense").is_none() && Incoming::parse(b"[1]").is_none());
}

#[test]
fn notification_with_wrong_field_types_keeps_its_method() {
    for params in
        [json!(null), json!([]), json!({}), json!({"turn": 1, "item": 2, "error": [], "usage": "x"})]
    {
        for (method, expected) in [
            ("item/started", "ItemStarted"),
            ("item/completed", "ItemCompleted"),
            ("item/reasoning/summaryPartAdded", "ReasoningSummaryPartAdded"),
            ("turn/plan/updated", "PlanUpdated"),
            ("warning", "Warning"),
            ("error", "Error"),
            ("rawResponseItem/completed", "RawResponseItemCompleted"),
            ("rawResponse/completed", "RawResponseCompleted"),
            ("thread/tokenUsage/updated", "ThreadUsageUpdated"),
            ("turn/completed", "TurnCompleted"),
            ("some/news", "Unknown"),
        ] {
            let name = format!("{:?}", Notification::parse(method, params.clone()));
            assert!(name.starts_with(expected), "{method} {params}: {name}");
        }
    }
}

#[test]
fn turn_error_with_known_or_unknown_info_returns_type_and_status() {
    let info = |info: Value| {
        let params = json!({"turn": {"status": "failed", "error": {"message": "m", "codexErrorInfo": info}}});
        let Notification::TurnCompleted(turn) = Notification::parse("turn/completed", params) else {
            unreachable!("the method is known")
        };
        assert_eq!((turn.status, turn.error.message.as_str()), (TurnStatus::Failed, "m"));
        turn.error.codex_error_info
    };
    let status = |http_status_code| UpstreamStatus { http_status_code };
    assert_eq!(info(json!("usageLimitExceeded")), CodexErrorInfo::UsageLimitExceeded);
    assert_eq!(
        info(json!({"httpConnectionFailed": {"httpStatusCode": 401}})),
        CodexErrorInfo::HttpConnectionFailed(status(Some(401)))
    );
    for unusable in [json!({}), json!({"httpStatusCode": null}), json!({"httpStatusCode": "401"})] {
        assert_eq!(
            info(json!({"responseStreamDisconnected": unusable})),
            CodexErrorInfo::ResponseStreamDisconnected(status(None))
        );
    }
    for unknown in [json!(null), json!("brandNew"), json!({"brandNew": {}}), json!(7)] {
        assert_eq!(info(unknown), CodexErrorInfo::Unknown);
    }
}

#[test]
fn thread_item_keeps_id_and_status_of_unknown_kinds() {
    for item in
        [json!({"id": "i", "status": "declined"}), json!({"type": "new", "id": "i", "status": "declined"})]
    {
        let item = ThreadItem::from(item);
        assert_eq!((item.id.as_str(), item.status), ("i", ItemStatus::Declined));
        assert!(matches!(item.kind, ThreadItemKind::Unknown));
    }
    let command = json!({"type": "commandExecution", "id": "i", "command": "ls", "exitCode": "x", "cwd": 1});
    let ThreadItemKind::CommandExecution { command, exit_code: None, .. } = ThreadItem::from(command).kind
    else {
        panic!("expected a command");
    };
    assert_eq!(command, "ls");
}

#[test]
fn file_change_kind_from_object_or_string_returns_the_name() {
    for (kind, expected) in [
        (json!({"type": "update", "movePath": null}), "update"),
        (json!("add"), "add"),
        (json!({}), ""),
        (json!(null), ""),
    ] {
        let change = serde_json::from_value::<FileChange>(json!({"path": "p", "kind": kind})).unwrap();
        assert_eq!((change.path.as_str(), change.kind.into_name().as_str()), ("p", expected));
    }
}

#[test]
fn raw_item_round_trip_is_lossless() {
    let item = r#"{"z":1,"type":"function_call","call_id":"c","name":"n","arguments":"{\"b\":1,\"a\":2.50}","new":[null,1e+300]}"#;
    let line = format!(r#"{{"threadId":"t","turnId":"u","item":{item}}}"#);
    let params = serde_json::from_str(&line).unwrap();
    let Notification::RawResponseItemCompleted(raw) =
        Notification::parse("rawResponseItem/completed", params)
    else {
        panic!("expected a raw item");
    };
    assert_eq!(raw.turn_id, "u");
    assert_eq!(
        (raw.item.kind(), raw.item.call_id(), raw.item.name()),
        ("function_call", Some("c"), Some("n"))
    );
    assert_eq!(raw.item.arguments(), Some(r#"{"b":1,"a":2.50}"#));
    assert_eq!(raw.item.namespace(), None);
    assert_eq!(serde_json::to_string(&raw.item).unwrap(), item);
}

#[test]
fn outgoing_lines_have_the_members_of_the_protocol() {
    let line = |line: Vec<u8>| String::from_utf8(line).unwrap();
    assert_eq!(
        line(call_line(7, &InterruptTurn { thread_id: "t", turn_id: "u" })),
        "{\"id\":7,\"method\":\"turn/interrupt\",\"params\":{\"threadId\":\"t\",\"turnId\":\"u\"}}\n"
    );
    let params = json!({"ephemeral": true, "environments": []});
    let fork = ForkThread { thread_id: "s", path: Path::new("/seeds/s"), params: &params };
    assert_eq!(
        line(call_line(8, &fork)),
        "{\"id\":8,\"method\":\"thread/fork\",\"params\":{\"threadId\":\"s\",\"path\":\"/seeds/s\",\"ephemeral\":true,\
         \"environments\":[]}}\n"
    );
    assert_eq!(line(notification_line(INITIALIZED)), "{\"method\":\"initialized\"}\n");
    let result = ToolCallResult::failure("no".to_owned());
    assert_eq!(
        line(result_line(&RequestId(json!("r")), &result)),
        "{\"id\":\"r\",\"result\":{\"success\":false,\"contentItems\":[{\"type\":\"inputText\",\"text\":\"no\"}]}}\n"
    );
}

#[test]
fn limits_reading_of_each_form_keeps_what_is_known() {
    let window = |used_percent: f64, minutes: Option<u64>, resets_at: Option<u64>| LimitWindow {
        limit_id: "codex".to_owned(),
        used_percent,
        duration: minutes.map(|minutes| Duration::from_secs(minutes * 60)),
        resets_at: resets_at.map(|at| SystemTime::UNIX_EPOCH + Duration::from_secs(at)),
    };
    let limits = json!({"limitId": "codex", "limitName": null, "news": {"a": 1},
        "primary": {"usedPercent": 42, "windowDurationMins": 300, "resetsAt": 1_795_720_856_u64, "news": []},
        "secondary": {"usedPercent": 12.5, "windowDurationMins": 10_080, "resetsAt": null},
        "credits": {"hasCredits": true, "unlimited": false, "balance": "12.50"}, "planType": "pro"});
    let found = limits_reading(json!({"rateLimits": limits}));
    let windows = vec![window(42.0, Some(300), Some(1_795_720_856)), window(12.5, Some(10_080), None)];
    assert_eq!((found.plan.as_str(), found.windows), ("pro", windows));
    assert_eq!(found.credits.map(|credits| credits.balance).as_deref(), Some("12.50"));
    // 0.140 has fewer members.
    let old = json!({"rateLimits": {"primary": {"usedPercent": 7.0}, "secondary": null}});
    assert_eq!(limits_reading(old).windows, [window(7.0, None, None)]);
    let odd = json!({"rateLimits": {"limitId": 1, "primary": {"usedPercent": 1, "windowDurationMins": -1, "resetsAt": -5},
        "secondary": "x", "credits": 3, "planType": []}});
    assert_eq!(limits_reading(odd).windows, [window(1.0, None, None)]);
    let nothing =
        json!({"limitId": "codex", "primary": null, "secondary": null, "credits": null, "planType": null});
    for params in [json!(null), json!({}), json!({"rateLimits": []}), json!({"rateLimits": nothing})] {
        assert_eq!(limits_reading(params.clone()), LimitsReading::default(), "{params}");
    }
    let long = json!({"rateLimits": {"planType": "p".repeat(1000)}});
    assert_eq!(limits_reading(long).plan.len(), MAX_ACCOUNT_TEXT);
}
