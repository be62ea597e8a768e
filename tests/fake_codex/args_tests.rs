use super::{Command, Exec, Usage, parse};

fn parse_line(line: &[&str]) -> Result<Command, Usage> {
    parse(&line.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
}

fn exec(line: &[&str]) -> Exec {
    let mut all = vec!["exec", "--json"];
    all.extend(line);
    match parse_line(&all) {
        Ok(Command::Exec(exec)) => exec,
        other => panic!("{line:?}: {other:?}"),
    }
}

fn assert_refused(line: &[&str], code: u8, text: &str) {
    let usage = parse_line(line).expect_err("a refusal");
    assert_eq!(usage.code, code, "{line:?}: {}", usage.text);
    assert!(usage.text.contains(text), "{line:?}: {}", usage.text);
}

#[test]
fn options_are_parsed_in_each_spelling() {
    for line in [
        ["-m", "x"].as_slice(),
        &["-mx"],
        &["-m=x"],
        &["--model", "x"],
        &["--model=x"],
        &["-c", "model=\"x\""],
    ] {
        assert_eq!(exec(line).model.as_deref(), Some("x"), "{line:?}");
    }
}

#[test]
fn options_after_exec_override_those_before() {
    let Ok(Command::Exec(got)) = parse_line(&["-a", "never", "-m", "a", "exec", "--json", "-m", "b", "-"])
    else {
        panic!("refused")
    };
    assert_eq!((got.model.as_deref(), got.prompt.as_deref()), (Some("b"), Some("-")));
}

#[test]
fn image_option_takes_all_following_values() {
    let got = exec(&["-i", "a.png,b.png", "c.png", "-", "--ephemeral"]);
    assert_eq!(
        (got.images, got.prompt),
        (["a.png", "b.png", "c.png", "-"].map(str::to_owned).to_vec(), None)
    );
    let got = exec(&["--image=a.png", "-"]);
    assert_eq!((got.images, got.prompt.as_deref()), (vec!["a.png".to_owned()], Some("-")));
    let got = exec(&["-i", "a.png", "-i", "b.png", "--", "-"]);
    assert_eq!((got.images.len(), got.prompt.as_deref()), (2, Some("-")));
}

#[test]
fn assignment_within_a_value_is_kept() {
    let got = exec(&["--config=model=x", "--add-dir", "/", "--add-dir", "/"]);
    assert_eq!(got.model.as_deref(), Some("x"));
}

#[test]
fn arguments_refused_by_the_real_cli_are_refused() {
    assert_refused(&["-a", "untrusted", "exec"], 2, "[possible values: on-request, never]");
    assert_refused(&["exec", "-a", "never"], 2, "unexpected argument '-a' found");
    assert_refused(&["exec", "-s", "read-only", "-s", "read-only"], 2, "cannot be used multiple times");
    assert_refused(&["exec", "-s", "full"], 2, "invalid value 'full' for '--sandbox <SANDBOX_MODE>'");
    assert_refused(&["exec", "--json", "--json"], 2, "'--json' cannot be used multiple times");
    assert_refused(
        &["exec", "--full-auto"],
        2,
        "tip: to pass '--full-auto' as a value, use '-- --full-auto'",
    );
    assert_refused(&["exec", "a", "b"], 2, "unexpected argument 'b' found");
    assert_refused(&["exec", "-m"], 2, "a value is required for '--model <MODEL>' but none was supplied");
    assert_refused(&["exec", "--json", "-c", "x"], 1, "missing '='");
    assert_refused(&["exec", "--json", "--disable", "nope"], 1, "Unknown feature flag: nope");
    assert_refused(&["exec", "--json", "-C", "/nonexistent"], 1, "No such file or directory");
    assert_refused(&["fork"], 1, "stdin is not a terminal");
    assert_refused(&["app-server", "-m", "x"], 2, "unexpected argument '-m' found");
    assert_refused(&["app-server", "bogus"], 2, "unrecognized subcommand 'bogus'");
    assert_refused(&["app-server", "--disable", "nope"], 1, "Unknown feature flag: nope");
}

#[test]
fn small_commands_are_parsed() {
    assert_eq!(parse_line(&["--version"]), Ok(Command::Version { name: "codex-cli" }));
    assert_eq!(parse_line(&["exec", "--version"]), Ok(Command::Version { name: "codex-cli-exec" }));
    assert_eq!(parse_line(&["login", "status"]), Ok(Command::LoginStatus));
    assert_eq!(parse_line(&["features", "list", "--disable", "plugins"]), Ok(Command::FeaturesList));
    assert_eq!(
        parse_line(&["-m", "x", "app-server", "--disable", "apps", "-c", "a=1", "--stdio"]),
        Ok(Command::AppServer { overrides: vec!["a=1".to_owned()], model: Some("x".to_owned()) })
    );
    assert_eq!(parse_line(&["debug", "models", "--bundled"]), Ok(Command::DebugModels));
}
