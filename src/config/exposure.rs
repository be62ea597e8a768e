//! Checks of settings that together expose the server. Each finding names its reason.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{ServerConfig, settings, sources::RawSettings};

/// Minimum length of a token on an address that is not loopback.
const MIN_TOKEN: usize = 8;

/// Length below which a token is reported as short. 16 random hexadecimal digits are 64 bits.
const SHORT_TOKEN: usize = 16;

/// Minimum number of different characters of a token.
const MIN_DIFFERENT: usize = 4;

/// Values that examples and manuals use for tokens.
const PLACEHOLDERS: [&str; 14] = [
    "changeme",
    "change-me",
    "password",
    "your-token",
    "your_token",
    "yourtoken",
    "gateway-token",
    "12345678",
    "your-token-here",
    "your_token_here",
    "password1",
    "secret",
    "secret-token",
    "example",
];

/// Checks the listeners, the token, the hosts and the origins of a server.
pub(super) fn check(server: &ServerConfig, raw: &mut RawSettings) {
    check_token(server, raw);
    if server.token.is_none() && server.cors_origins.iter().any(|origin| origin == "*") {
        raw.push_error_of(
            &settings::CORS_ORIGINS,
            "* without CODEX_GATEWAY_TOKEN lets every web page that a user of this machine visits run the agent; \
             set a token, or name the origins",
        );
    }
    for host in server.allowed_hosts.iter().filter(|host| host.contains('*')) {
        let reason = "host names are compared as they are, and a wildcard would let any web page call by DNS \
                      rebinding; name each host, or set CODEX_GATEWAY_TOKEN, which accepts every host";
        raw.push_error_of(&settings::ALLOWED_HOSTS, &format!("{host:?} has no effect: {reason}"));
    }
    if let Some(grpc) = server.grpc_listen.filter(|grpc| overlaps(*grpc, server.listen)) {
        raw.push_error_of(
            &settings::GRPC_LISTEN,
            &format!(
                "{grpc} is the address of both doors, {}, which serves gRPC already; leave it empty, or choose \
                 another port",
                server.listen
            ),
        );
    }
}

fn check_token(server: &ServerConfig, raw: &mut RawSettings) {
    let token = raw.text(settings::GATEWAY_TOKEN.setting.env);
    if server.token.is_none() {
        return;
    }
    let key = &settings::GATEWAY_TOKEN;
    let advice = "make one with `openssl rand -hex 32`";
    match weakness(&token) {
        Some(weakness) if server.is_public() => raw.push_error_of(
            key,
            &format!("{weakness}, and others than this machine can try tokens at this address; {advice}"),
        ),
        Some(weakness) => raw.push_warning_of(key, &format!("{weakness}; {advice}")),
        None if server.is_public() && token.len() < SHORT_TOKEN => raw.push_warning_of(
            key,
            &format!("has less than {SHORT_TOKEN} characters, which can be guessed in time; {advice}"),
        ),
        None => {}
    }
}

/// Returns why a token can be guessed quickly.
fn weakness(token: &str) -> Option<&'static str> {
    if token.len() < MIN_TOKEN {
        return Some("has less than 8 characters");
    }
    if token.chars().collect::<BTreeSet<_>>().len() < MIN_DIFFERENT {
        return Some("repeats a few characters");
    }
    if token.starts_with('$') {
        return Some("looks like a variable that was not replaced by its value");
    }
    PLACEHOLDERS.contains(&token.to_ascii_lowercase().as_str()).then_some("is a placeholder of examples")
}

/// Returns `true` if two listeners cannot be open at the same time. Port 0 selects a free port.
fn overlaps(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0
        && one.port() == other.port()
        && (any || one.ip().to_canonical() == other.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Sources};

    fn load(settings: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let env = settings.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let config = Config::load(Sources { env, ..Sources::default() });
        config.map(|config| config.warnings).map_err(|errors| errors.to_string())
    }

    #[test]
    fn token_on_a_public_address_must_not_be_guessable() {
        for token in [
            "a",
            "1234567",
            "aaaaaaaaaaaaaaaa",
            "abababababababab",
            "changeme",
            "Password",
            "your-token-here",
            "$CODEX_TOKEN",
        ] {
            let public = [("CODEX_GATEWAY_HOST", "0.0.0.0"), ("CODEX_GATEWAY_TOKEN", token)];
            let error = load(&public).unwrap_err();
            assert!(error.starts_with("CODEX_GATEWAY_TOKEN: ") && error.contains("openssl"), "{error}");
            assert!(!error.contains(&format!("{token:?}")), "{error}");
            let local = load(&[("CODEX_GATEWAY_TOKEN", token)]).unwrap();
            assert!(local[0].starts_with("CODEX_GATEWAY_TOKEN: "), "{local:?}");
        }
        let public = |token| load(&[("CODEX_GRPC_LISTEN", "0.0.0.0:1"), ("CODEX_GATEWAY_TOKEN", token)]);
        assert!(public("correct-horse").unwrap()[0].contains("less than 16 characters"));
        assert_eq!(public("0123456789abcdef").unwrap(), Vec::<String>::new());
        assert_eq!(load(&[("CODEX_GATEWAY_TOKEN", "correct-horse")]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn any_origin_needs_a_token() {
        let error = load(&[("CODEX_CORS_ORIGINS", "*")]).unwrap_err();
        assert!(error.starts_with("CODEX_CORS_ORIGINS: * without CODEX_GATEWAY_TOKEN"), "{error}");
        load(&[("CODEX_CORS_ORIGINS", "https://a.test,*")]).unwrap_err();
        load(&[("CODEX_CORS_ORIGINS", "*"), ("CODEX_GATEWAY_TOKEN", "correct-horse")]).unwrap();
        load(&[("CODEX_CORS_ORIGINS", "https://a.test")]).unwrap();
    }

    #[test]
    fn allowed_hosts_have_no_wildcards() {
        for hosts in ["*", "a.test,*", "*.a.test", "*:8000"] {
            let error = load(&[("CODEX_ALLOWED_HOSTS", hosts)]).unwrap_err();
            assert!(error.starts_with("CODEX_ALLOWED_HOSTS: ") && error.contains("rebinding"), "{error}");
        }
    }

    #[test]
    fn grpc_address_must_differ_from_the_shared_address() {
        let token = ("CODEX_GATEWAY_TOKEN", "0123456789abcdef");
        for (host, grpc, is_refused) in [
            ("127.0.0.1", "127.0.0.1:8000", true),
            ("127.0.0.1", "localhost:8000", true),
            ("0.0.0.0", "127.0.0.1:8000", true),
            ("127.0.0.1", "0.0.0.0:8000", true),
            ("127.0.0.1", "[::ffff:127.0.0.1]:8000", true),
            ("127.0.0.1", "127.0.0.2:8000", false),
            ("127.0.0.1", "127.0.0.1:8001", false),
        ] {
            let loaded = load(&[("CODEX_GATEWAY_HOST", host), ("CODEX_GRPC_LISTEN", grpc), token]);
            assert_eq!(loaded.is_err(), is_refused, "{host} and {grpc}: {loaded:?}");
        }
        let free = [("CODEX_GATEWAY_PORT", "0"), ("CODEX_GRPC_LISTEN", "127.0.0.1:0")];
        load(&free).unwrap();
    }
}
