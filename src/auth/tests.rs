use super::*;

/// Returns an authenticator of the default configuration with `change`.
fn authenticator(change: impl FnOnce(&mut ServerConfig)) -> Authenticator {
    let mut config = crate::config::Config::load(crate::config::Sources {
        current_dir: "/here".into(),
        ..crate::config::Sources::default()
    })
    .unwrap()
    .server;
    change(&mut config);
    Authenticator::new(&config)
}

fn check(authenticator: &Authenticator, headers: &[(&str, &str)]) -> Result<Caller, Error> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    authenticator.check(&map, &Uri::from_static("/v1/models"))
}

fn reason(authenticator: &Authenticator, headers: &[(&str, &str)]) -> &'static str {
    match check(authenticator, headers) {
        Ok(caller) => caller.as_str(),
        Err(error) => error.reason(),
    }
}

#[test]
fn check_token_in_either_header_is_accepted() {
    let authenticator = authenticator(|config| config.token = Some(Secret::new("swordfish")));
    for (headers, expected) in [
        (&[("authorization", "Bearer swordfish")][..], "token"),
        (&[("authorization", "bearer  swordfish ")], "token"),
        (&[("x-api-key", "swordfish")], "token"),
        (&[("authorization", "Bearer sk-from-the-sdk"), ("x-api-key", "swordfish")], "token"),
        (&[("authorization", "Basic swordfish")], "INVALID_API_KEY"),
        (&[("authorization", "swordfish")], "INVALID_API_KEY"),
        (&[("authorization", "Bearer swordfis")], "INVALID_API_KEY"),
        (&[("authorization", "Bearer ")], "INVALID_API_KEY"),
        (&[("x-api-key", "")], "INVALID_API_KEY"),
        (&[], "INVALID_API_KEY"),
        // With a token neither host nor origin matter.
        (&[("host", "elsewhere.test"), ("x-api-key", "swordfish")], "token"),
        (&[("origin", "null"), ("x-api-key", "swordfish")], "token"),
        (&[("origin", "https://evil.test"), ("x-api-key", "wrong")], "INVALID_API_KEY"),
    ] {
        assert_eq!(reason(&authenticator, headers), expected, "{headers:?}");
    }
}

#[test]
fn check_wrong_token_is_not_repeated_in_the_error() {
    let authenticator = authenticator(|config| config.token = Some(Secret::new("swordfish")));
    let missing = check(&authenticator, &[]).unwrap_err().to_string();
    assert!(missing.starts_with("Incorrect API key provided: the token is missing; send"), "{missing}");
    let wrong = check(&authenticator, &[("x-api-key", "guess")]).unwrap_err().to_string();
    assert!(wrong.contains("Authorization: Bearer") && !wrong.contains("guess"), "{wrong}");
}

#[test]
fn check_without_a_token_refuses_unknown_hosts() {
    let authenticator = authenticator(|config| {
        config.allowed_hosts = vec!["Box.test".into(), "pinned.test:8000".into(), "[fd00::1]".into()];
    });
    for host in [
        "localhost",
        "LOCALHOST:8000",
        "localhost.:8000",
        "127.0.0.1",
        "127.1.2.3:9",
        "[::1]",
        "[::1]:8000",
        "[::ffff:127.0.0.1]",
        "box.test",
        "box.test:1234",
        "pinned.test:8000",
        "[fd00::1]:80",
    ] {
        assert_eq!(reason(&authenticator, &[("host", host)]), "anonymous", "{host}");
    }
    for host in [
        "evil.test",
        "evil.test:8000",
        "localhost.evil.test",
        "127.0.0.1.evil.test",
        "evil@localhost",
        "localhost:port",
        "localhost:",
        "0.0.0.0",
        "10.0.0.1",
        "[::]",
        "pinned.test",
        "pinned.test:8001",
        "",
    ] {
        assert_eq!(reason(&authenticator, &[("host", host)]), "HOST_REFUSED", "{host}");
    }
    assert_eq!(reason(&authenticator, &[]), "HOST_REFUSED");
    assert_eq!(reason(&authenticator, &[("host", "localhost"), ("host", "evil.test")]), "HOST_REFUSED");
}

#[test]
fn check_http2_authority_counts_as_a_host() {
    let authenticator = authenticator(|_| {});
    let check = |uri: &'static str, host: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, host.parse().unwrap());
        }
        authenticator.check(&headers, &Uri::from_static(uri)).is_ok()
    };
    assert!(check("http://127.0.0.1:8000/v1/models", None));
    assert!(!check("http://evil.test/v1/models", None));
    assert!(!check("http://localhost/v1/models", Some("evil.test")));
    assert!(!check("http://evil.test/v1/models", Some("localhost")));
}

#[test]
fn check_origin_must_be_listed_or_the_server() {
    let listed = authenticator(|config| config.cors_origins = vec!["https://app.test/".into()]);
    for (host, origin, expected) in [
        ("localhost:8000", "https://app.test", "anonymous"),
        ("localhost:8000", "HTTPS://APP.TEST", "anonymous"),
        ("localhost:8000", "https://app.test:8443", "ORIGIN_REFUSED"),
        ("localhost:8000", "http://localhost:8000", "anonymous"),
        ("localhost", "http://localhost:80", "anonymous"),
        ("localhost", "https://localhost", "anonymous"),
        ("localhost:8000", "http://localhost:3000", "ORIGIN_REFUSED"),
        ("localhost:8000", "http://127.0.0.1:8000", "ORIGIN_REFUSED"),
        ("localhost:8000", "http://localhost", "ORIGIN_REFUSED"),
        ("localhost:8000", "null", "ORIGIN_REFUSED"),
        ("localhost:8000", "file://", "ORIGIN_REFUSED"),
        ("localhost:8000", "", "ORIGIN_REFUSED"),
        // The host is checked first, because under DNS rebinding host and origin belong to the attacker.
        ("evil.test:8000", "http://evil.test:8000", "HOST_REFUSED"),
    ] {
        assert_eq!(reason(&listed, &[("host", host), ("origin", origin)]), expected, "{origin} at {host}");
    }
    let open = authenticator(|config| config.cors_origins = vec!["*".into()]);
    assert_eq!(reason(&open, &[("host", "localhost"), ("origin", "https://any.test")]), "anonymous");
    assert_eq!(reason(&open, &[("host", "evil.test"), ("origin", "https://any.test")]), "HOST_REFUSED");
}
