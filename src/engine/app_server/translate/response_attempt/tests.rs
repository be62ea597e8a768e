use super::*;
use crate::engine::app_server::rpc::delta::DeltaKind;

const CUT: &str = "stream disconnected before completion: x";

fn retry(attempt: &mut ResponseAttempt, number: u32, max_retries: u32) -> bool {
    attempt.try_retry(&format!("Reconnecting... {number}/5"), CUT, max_retries)
}

fn text(attempt: &mut ResponseAttempt, text: &str) -> String {
    attempt.push_text(text.to_owned()).unwrap().map(|new| new.text).unwrap_or_default()
}

fn reason(attempt: &mut ResponseAttempt, item: &str, text: &str) -> Option<String> {
    attempt.push_reasoning((DeltaKind::ReasoningSummary, Some(item.to_owned())), text.to_owned())
}

#[test]
fn announced_retry_fails_after_text_and_beyond_the_limit() {
    let mut attempt = ResponseAttempt::default();
    assert!(retry(&mut attempt, 1, 2) && retry(&mut attempt, 2, 2) && !retry(&mut attempt, 3, 2));
    attempt.complete().unwrap();
    assert!(retry(&mut attempt, 1, 1), "the count starts again");
    attempt.complete().unwrap();
    attempt.start_message();
    text(&mut attempt, "x");
    assert!(!retry(&mut attempt, 1, 2));
}

#[test]
fn usage_completes_a_response_only_without_a_reported_completion() {
    let mut attempt = ResponseAttempt::default();
    text(&mut attempt, "x");
    attempt.usage_reported().unwrap();
    assert!(retry(&mut attempt, 1, 1));
    attempt.complete().unwrap();
    text(&mut attempt, "x");
    attempt.usage_reported().unwrap();
    assert!(!retry(&mut attempt, 1, 1));
}

#[test]
fn repeated_message_delivers_only_what_follows_the_delivered_text() {
    // The second attempt breaks off before, in or behind the repetition.
    for second in ["", "one", "one two", "one two th"] {
        let mut attempt = ResponseAttempt::default();
        assert!(attempt.start_message());
        let mut got = text(&mut attempt, "one two");
        for next in [second, "one two three"] {
            assert!(!attempt.start_message(), "the client has the start of the message");
            got += &text(&mut attempt, next);
        }
        got +=
            &attempt.complete_message("one two three four").unwrap().map(|new| new.text).unwrap_or_default();
        attempt.complete().unwrap();
        assert_eq!(got, "one two three four", "{second:?}");
    }
}

#[test]
fn other_answer_after_delivered_text_fails_where_it_differs() {
    let broken = || {
        let mut attempt = ResponseAttempt::default();
        attempt.start_message();
        text(&mut attempt, "one two");
        attempt
    };
    let mut attempt = broken();
    attempt.start_message();
    assert_eq!(text(&mut attempt, "one"), "");
    assert_eq!(attempt.push_text(" thing".to_owned()).unwrap_err().reason(), "UPSTREAM_UNAVAILABLE");

    let mut shorter = broken();
    shorter.start_message();
    assert!(shorter.complete_message("one").is_err());

    let mut call_instead = broken();
    call_instead.on_call();
    assert!(call_instead.complete().is_err());

    let mut fallback = broken();
    fallback.on_fallback();
    assert!(fallback.check_repeated().is_err());
}

#[test]
fn message_start_without_text_is_delivered_once() {
    let mut attempt = ResponseAttempt::default();
    assert!(attempt.start_message());
    assert!(!attempt.start_message());
    assert_eq!(text(&mut attempt, "all"), "all");
}

#[test]
fn message_after_a_complete_one_is_a_repetition_only_if_equal() {
    for (second, expected) in
        [("one two", None), ("one", Some("one")), ("one thing", Some("one thing")), ("other", Some("other"))]
    {
        let mut attempt = ResponseAttempt::default();
        attempt.start_message();
        text(&mut attempt, "one two");
        assert_eq!(attempt.complete_message("one two").unwrap(), None);
        assert!(!attempt.start_message());
        let mut news = Vec::new();
        for char in second.chars() {
            news.extend(attempt.push_text(char.to_string()).unwrap());
        }
        news.extend(attempt.complete_message(second).unwrap());
        attempt.complete().unwrap();
        let got: String = news.iter().map(|new| &*new.text).collect();
        assert_eq!(got, expected.unwrap_or_default(), "{second}");
        let starts: Vec<bool> = news.iter().map(|new| new.starts_message).collect();
        assert_eq!(starts.iter().filter(|starts| **starts).count(), usize::from(expected.is_some()));
        assert!(starts.first().is_none_or(|first| *first));
    }
}

#[test]
fn equal_message_after_an_action_or_in_the_next_response_is_delivered() {
    for between in
        [ResponseAttempt::on_action as fn(&mut ResponseAttempt), ResponseAttempt::on_call, |attempt| {
            attempt.complete().unwrap();
        }]
    {
        let mut attempt = ResponseAttempt::default();
        attempt.start_message();
        text(&mut attempt, "wait");
        attempt.complete_message("wait").unwrap();
        between(&mut attempt);
        assert!(attempt.start_message());
        assert_eq!(text(&mut attempt, "wait"), "wait");
    }
}

#[test]
fn repeated_reasoning_delivers_the_rest_and_other_reasoning_nothing() {
    for (second, expected) in [("one two three", Some(" three".to_owned())), ("other", None)] {
        let mut attempt = ResponseAttempt::default();
        assert_eq!(reason(&mut attempt, "before", "before"), Some("before".to_owned()));
        attempt.complete().unwrap();
        attempt.on_reasoning_item(false);
        assert_eq!(reason(&mut attempt, "a", "one two"), Some("\n\none two".to_owned()));
        // The retry is silent: the next item begins although this one did not end.
        attempt.on_reasoning_item(false);
        assert_eq!(reason(&mut attempt, "b", second), expected);
        attempt.on_reasoning_item(true);
        assert!(attempt.start_message());
        assert_eq!(text(&mut attempt, "text"), "text");
        attempt.complete().unwrap();
        assert_eq!(reason(&mut attempt, "c", "next"), Some("\n\nnext".to_owned()));
    }
}

#[test]
fn silent_retries_count_to_the_limit() {
    let mut attempt = ResponseAttempt::default();
    attempt.start_message();
    attempt.start_message();
    assert!(retry(&mut attempt, 2, 2));
    attempt.start_message();
    assert!(!retry(&mut attempt, 3, 2));
}

/// Pushes whole items. Returns what the client gets, with `|` before each message.
fn items(attempt: &mut ResponseAttempt, response: u32, items: &[(&str, &str)]) -> String {
    let mut got = String::new();
    for (index, (kind, text)) in items.iter().enumerate() {
        if *kind == "reasoning" {
            attempt.on_reasoning_item(false);
            let item = format!("{response} {index}");
            let deltas = text.split_inclusive(' ').filter_map(|word| reason(attempt, &item, word));
            got.extend(deltas);
            attempt.on_reasoning_item(true);
            continue;
        }
        let mut starts = attempt.start_message();
        let mut news = Vec::new();
        for word in text.split_inclusive(' ') {
            news.extend(attempt.push_text(word.to_owned()).unwrap());
        }
        news.extend(attempt.complete_message(text).unwrap());
        for new in news {
            starts |= new.starts_message;
            if std::mem::take(&mut starts) {
                got.push('|');
            }
            got.push_str(&new.text);
        }
    }
    got
}

#[test]
fn response_that_breaks_off_between_items_is_delivered_once() {
    let whole = [
        ("reasoning", "I think hard"),
        ("reasoning", "I know it"),
        ("message", "Let me see"),
        ("message", "It is four"),
        ("message", "Or five"),
    ];
    let expected = "I think hard\n\nI know it|Let me see|It is four|Or five";
    for first in 0..=whole.len() {
        for second in 0..=whole.len() {
            let mut attempt = ResponseAttempt::default();
            let mut got = items(&mut attempt, 1, &whole[..first]);
            got += &items(&mut attempt, 2, &whole[..second]);
            got += &items(&mut attempt, 3, &whole);
            attempt.complete().unwrap();
            assert_eq!(got, expected, "{first} {second}");
        }
    }
}

#[test]
fn items_that_follow_a_complete_one_are_delivered() {
    let whole = [("reasoning", "I think"), ("reasoning", ""), ("reasoning", "I know"), ("message", "one")];
    let mut attempt = ResponseAttempt::default();
    assert_eq!(items(&mut attempt, 1, &whole), "I think\n\nI know|one");
    attempt.on_call();
    attempt.complete().unwrap();
    // The next response has the same reasoning and the same message.
    assert_eq!(items(&mut attempt, 2, &whole), "\n\nI think\n\nI know|one");
    // The model continues after the items that it has sent.
    assert_eq!(items(&mut attempt, 3, &[("reasoning", "I see"), ("message", "two")]), "\n\nI see|two");
}

#[test]
fn response_that_is_repeated_after_a_rejected_call_is_delivered_once() {
    let response = [("reasoning", "I think"), ("message", "Let me look.")];
    for (second, expected) in
        [(response, ""), ([("reasoning", "I see"), ("message", "It is warm.")], "\n\nI see|It is warm.")]
    {
        let mut attempt = ResponseAttempt::default();
        assert_eq!(items(&mut attempt, 1, &response), "I think|Let me look.");
        attempt.on_call();
        attempt.on_client_output();
        assert_eq!(items(&mut attempt, 2, &second), expected);
        attempt.on_call();
        attempt.complete().unwrap();
        // The response was complete, so that the calls went back to the model for their arguments.
        attempt.on_client_output();
        assert_eq!(items(&mut attempt, 3, &response), "\n\nI think|Let me look.");
    }
}
