use serde_json::json;

use super::{
    super::tests::{Home, chatgpt},
    *,
};

const FAR: u64 = 4_000_000_000;

#[test]
fn current_after_a_refresh_has_the_same_generation() {
    let home = Home::new("", Some(&chatgpt("acc", FAR, "r1")));
    let watch = LoginWatch::new(&home.codex());
    let first = watch.current();
    home.log_in(&chatgpt("acc", FAR, "r2"));
    assert_eq!(watch.current(), first);
    fs::write(home.file(), chatgpt("acc", FAR, "r3").to_string()).unwrap();
    assert_eq!(watch.current(), first);
    home.log_in(&chatgpt("other", FAR, "r3"));
    let second = watch.current();
    assert!(second.generation > first.generation && second.identity != first.identity);
    // The same size, written within the same tick of the clock.
    for key in ["sk-1", "sk-2", "sk-3"] {
        let before = watch.current();
        fs::write(home.file(), json!({"OPENAI_API_KEY": key}).to_string()).unwrap();
        assert_ne!(watch.current().identity, before.identity, "{key}");
    }
}

#[tokio::test]
async fn partial_file_counts_as_unchanged_for_a_second() {
    let home = Home::new("", Some(&json!({"OPENAI_API_KEY": "sk-1"})));
    let watch = LoginWatch::new(&home.codex());
    let first = watch.current();
    fs::write(home.file(), "{\"OPENAI").unwrap();
    assert_eq!(watch.current(), first);
    // The write ends within the second.
    fs::write(home.file(), json!({"OPENAI_API_KEY": "sk-2"}).to_string()).unwrap();
    let second = watch.settled().await;
    assert!(second.problem.is_none() && second.identity != first.identity, "{second:?}");
    // The write never ends.
    fs::write(home.file(), "{\"OPENAI").unwrap();
    assert!(matches!(watch.settled().await.problem, Some(LoginError::Unreadable(_))));
    fs::remove_file(home.file()).unwrap();
    assert_eq!(watch.current().problem, Some(LoginError::NotLoggedIn));
    home.log_in(&json!({"OPENAI_API_KEY": "sk-2"}));
    let third = watch.current();
    assert_eq!((third.problem, third.identity), (None, second.identity));
}

#[test]
fn refusal_ends_with_a_new_login_or_an_accepted_turn() {
    let home = Home::new("", Some(&chatgpt("acc", FAR, "r1")));
    let watch = LoginWatch::new(&home.codex());
    let refused = || watch.current().problem == Some(LoginError::Refused);
    watch.refuse(&watch.mark());
    assert!(refused());
    watch.accept();
    assert!(!refused());
    let mark = watch.mark();
    home.log_in(&chatgpt("acc", FAR, "r2"));
    watch.refuse(&mark);
    assert!(!refused(), "the turn may have used the former tokens");
    watch.refuse(&watch.mark());
    assert!(refused());
    home.log_in(&chatgpt("acc", FAR, "r3"));
    assert!(!refused());
}

#[tokio::test]
async fn changed_since_returns_a_login_that_was_written_and_can_be_used() {
    let home = Home::new("", Some(&chatgpt("acc", FAR, "r1")));
    let watch = LoginWatch::new(&home.codex());
    let mark = watch.mark();
    assert_eq!(watch.changed_since(&mark).await, None);
    home.log_in(&chatgpt("acc", FAR, "r2"));
    assert_eq!(watch.changed_since(&mark).await, Some(watch.current()));
    assert_eq!(watch.changed_since(&watch.mark()).await, None);
    // Every attempt of a turn was refused.
    watch.exhaust();
    assert_eq!(watch.changed_since(&mark).await, None);
    watch.accept();
    assert!(watch.changed_since(&mark).await.is_some());
    watch.exhaust();
    home.log_in(&chatgpt("other", FAR, "r2"));
    assert!(watch.changed_since(&mark).await.is_some(), "another account");
    fs::remove_file(home.file()).unwrap();
    assert_eq!(watch.changed_since(&mark).await, None, "logged out");
}

#[test]
fn setting_that_changes_is_noticed() {
    let home = Home::new("forced_login_method = \"api\"", Some(&chatgpt("acc", FAR, "r1")));
    let watch = LoginWatch::new(&home.codex());
    assert!(watch.current().problem.is_some());
    fs::write(home.dir.path().join("config.toml"), "").unwrap();
    assert_eq!(watch.current().problem, None);
}
