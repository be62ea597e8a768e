//! Bounds texts of the upstream, of Codex and of its files, and removes keys, addresses and paths from them. `Status::from`
//! applies it to every error, and the engines to notices. Pure.
//!
//! The text around an address stays. Links to public pages stay too, because Codex tells with them what to do.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

/// Replaces an address in the middle of a sentence.
const REMOVED: &str = "<address>";

/// Hosts of public pages. Their subdomains are public too, except [`API_HOSTS`].
const PUBLIC_HOSTS: &[&str] = &["openai.com", "chatgpt.com", "github.com"];
const API_HOSTS: &[&str] = &["api.openai.com", "auth.openai.com"];
const API_PATHS: &[&str] = &["/backend-api", "/api", "/v1"];

/// Marks that end with an address and tell nothing without it.
const MARKS: &[&str] = &[", url: ", " for url (", " ("];

/// Starts of keys and tokens: API keys, sessions and JSON Web Tokens.
const KEY_STARTS: &[&str] = &[
    "sk-",
    "sess-",
    "eyJ",
    "gsk_",
    "xai-",
    "hf_",
    "AIza",
    "AKIA",
    "ASIA",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "xoxb-",
    "xoxp-",
];

/// Words, in lower case, after which the next word is a key or a password.
const KEY_NAMES: &[&str] = &[
    "bearer",
    "basic",
    "api_key",
    "api-key",
    "apikey",
    "x-api-key",
    "access_token",
    "refresh_token",
    "client_secret",
    "password",
];

/// Minimum length of a key. Shorter words only look like one.
const MIN_KEY_BYTES: usize = 16;

/// Replaces a key.
const REMOVED_KEY: &str = "<key>";

/// Maximum length of a text for callers, in bytes.
const MAX_BYTES: usize = 2000;

/// Replaces what is cut out of the middle of a text.
const CUT: &str = " … ";

/// Folders that hold files of a server. Other absolute paths, such as `/v1/responses`, are routes.
const FILE_ROOTS: &[&str] = &[
    "/Users/",
    "/app/",
    "/data/",
    "/dev/shm/",
    "/etc/",
    "/home/",
    "/mnt/",
    "/nix/",
    "/opt/",
    "/private/",
    "/proc/",
    "/root/",
    "/run/",
    "/srv/",
    "/tmp/",
    "/usr/",
    "/var/",
    "/work/",
    "~/",
];

/// Replaces a path.
const REMOVED_PATH: &str = "<path>";

/// Bytes of a text that are searched. Far more than callers get, so that the cut splits no key that they would see. A search
/// of 5 MB would hold up the other streams of the thread.
const MAX_READ_BYTES: usize = 64 << 10;

/// Returns a text for callers: without keys, addresses and paths, and not longer than a few thousand bytes.
pub(crate) fn bounded(text: &str) -> String {
    cut_middle(&scrubbed(text), MAX_BYTES, |c| c.len_utf8())
}

/// Returns a text without keys, addresses and paths.
pub(crate) fn scrubbed(text: &str) -> String {
    without_paths(&without_addresses(text))
}

/// Returns the text for the log: without keys, and at most `max_chars` long.
pub(crate) fn for_log(text: &str, max_chars: usize) -> String {
    let read = cut_middle(text, max_chars.saturating_mul(2).saturating_add(MAX_READ_BYTES), |_| 1);
    cut_middle(&without_keys(&read), max_chars, |_| 1)
}

/// Cuts the middle out of a text whose characters cost more than `max`. Three quarters of the rest are the start.
pub(crate) fn cut_middle(text: &str, max: usize, cost: impl Fn(char) -> usize) -> String {
    let sum = |chars: &mut dyn Iterator<Item = char>, max: usize| {
        let mut spent = 0;
        let fits = |c: &char| {
            spent += cost(*c);
            spent <= max
        };
        chars.take_while(fits).map(char::len_utf8).sum::<usize>()
    };
    if sum(&mut text.chars(), max) == text.len() {
        return text.to_owned();
    }
    let max = max.saturating_sub(CUT.chars().map(&cost).sum());
    let start = sum(&mut text.chars(), max / 4 * 3);
    let end = text.len() - sum(&mut text[start..].chars().rev(), max / 4);
    format!("{}{CUT}{}", &text[..start], &text[end..])
}

fn without_paths(text: &str) -> String {
    let is_end = |c: char| is_separator(c) || matches!(c, ',' | ';' | '=' | '[' | ']' | '{' | '}' | '|');
    let mut result = String::with_capacity(text.len());
    for word in text.split_inclusive(is_end) {
        let end = word.strip_suffix(is_end).map_or(word.len(), str::len);
        let (path, separator) = word.split_at(end);
        let is_path =
            |path: &str| FILE_ROOTS.iter().any(|root| path.starts_with(root) && path.len() > root.len());
        // A path begins its word, or follows a colon: `file:/etc/x`.
        let start = if path.starts_with(['/', '~']) { Some(0) } else { path.find(":/").map(|at| at + 1) };
        match start.filter(|start| is_path(&path[*start..])) {
            Some(start) => {
                let trimmed = path.trim_end_matches(['.', ':', '!', '?']);
                result.push_str(&path[..start]);
                result.push_str(REMOVED_PATH);
                result.push_str(&path[trimmed.len()..]);
            }
            None => result.push_str(path),
        }
        result.push_str(separator);
    }
    result
}

/// Returns a text without keys and without addresses of the upstream: URLs, `host:port`, IP addresses.
pub(crate) fn without_addresses(text: &str) -> String {
    let text = &cut_middle(text, MAX_READ_BYTES, char::len_utf8);
    let text = &*without_keys(text);
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let start = rest.find(|c: char| !is_separator(c)).unwrap_or(rest.len());
        result.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(is_separator).unwrap_or(rest.len());
        let word = &rest[..end];
        let address = word.trim_end_matches(['.', ',', ';', ':', '!', '?']);
        rest = &rest[end..];
        let after = &word[address.len()..];
        if !is_internal(address) {
            result.push_str(word);
            continue;
        }
        let mark = MARKS.iter().find(|mark| {
            result.ends_with(**mark) && (!mark.ends_with('(') || (after.is_empty() && rest.starts_with(')')))
        });
        match mark {
            Some(mark) => {
                result.truncate(result.len() - mark.len());
                if mark.ends_with('(') {
                    rest = &rest[1..];
                }
            }
            None => result.push_str(REMOVED),
        }
        result.push_str(after);
    }
    result
}

/// Replaces keys and tokens.
fn without_keys(text: &str) -> Cow<'_, str> {
    // `*` masks the middle of a key that the upstream quotes.
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*' | '+' | '~');
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    let mut names_key = false;
    while !rest.is_empty() {
        let start = rest.find(is_part).unwrap_or(rest.len());
        result.push_str(&rest[..start]);
        // A name and its key are joined by a few characters, as in `api_key: "…"`.
        names_key &= rest[..start].len() <= 5 && !rest[..start].contains([',', ')', '\n']);
        rest = &rest[start..];
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let word = rest[..end].trim_end_matches('.');
        // A separator is one character at least, so that the loop ends.
        let end = if word.is_empty() { end } else { word.len() };
        let word = &rest[..end];
        rest = &rest[end..];
        let is_key = word.len() >= MIN_KEY_BYTES
            && (KEY_STARTS.iter().any(|start| word.starts_with(start))
                || names_key && word.contains(|c: char| c.is_ascii_digit()));
        names_key = KEY_NAMES.iter().any(|name| word.eq_ignore_ascii_case(name));
        result.push_str(if is_key { REMOVED_KEY } else { word });
    }
    result.into()
}

fn is_separator(c: char) -> bool {
    c.is_whitespace() || matches!(c, '(' | ')' | '<' | '>' | '"' | '\'' | '`' | '“' | '”' | '’')
}

fn is_internal(word: &str) -> bool {
    match word.find("://") {
        Some(at) => !is_public_link(word, at),
        None => is_ip(word) || is_host_with_port(word),
    }
}

fn is_public_link(word: &str, scheme_end: usize) -> bool {
    let address = &word[scheme_end + "://".len()..];
    let (host, path) = address.split_at(address.find(['/', '?', '#']).unwrap_or(address.len()));
    let host = host.to_ascii_lowercase();
    let is_listed = |hosts: &[&str]| {
        hosts.iter().any(|listed| {
            host.strip_suffix(listed).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        })
    };
    word[..scheme_end].eq_ignore_ascii_case("https")
        && is_listed(PUBLIC_HOSTS)
        && !is_listed(API_HOSTS)
        && !API_PATHS.iter().any(|start| path.starts_with(start))
}

fn is_ip(word: &str) -> bool {
    let (word, _) = word.split_once('/').unwrap_or((word, ""));
    let ip = word.trim_start_matches('[').trim_end_matches(']');
    // A text such as `a::b` is no address.
    ip.contains(|c: char| c.is_ascii_digit()) && ip.parse::<IpAddr>().is_ok()
        || word.parse::<SocketAddr>().is_ok()
}

fn is_host_with_port(word: &str) -> bool {
    let (word, _) = word.split_once('/').unwrap_or((word, ""));
    let Some((host, port)) = word.rsplit_once(':') else { return false };
    let is_host = host.contains(|c: char| c.is_ascii_alphabetic())
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        && (host.contains('.') || host.eq_ignore_ascii_case("localhost"));
    is_host && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_addresses_keeps_the_sentence_around_an_internal_address() {
        for (text, expected) in [
            ("busy, url: http://10.1.2.3/v1/responses", "busy"),
            ("busy, url: ws://127.0.0.1:48778/v1/responses", "busy"),
            ("busy, url: wss://proxy.corp/v1, request id: r1", "busy, request id: r1"),
            ("error sending request for url (https://proxy.corp/v1?a=b)", "error sending request"),
            ("the server (https://proxy.corp/x), which is slow", "the server, which is slow"),
            ("the server (at https://proxy.corp/x) is slow", "the server (at <address>) is slow"),
            ("see http://proxy.corp/help.", "see <address>."),
            (
                r#"{"error":{"message":"no \"http://u:1/\" here"}}"#,
                r#"{"error":{"message":"no \"<address>" here"}}"#,
            ),
            ("cannot connect to proxy.corp:8443: refused", "cannot connect to <address>: refused"),
            ("cannot connect to localhost:80/v1", "cannot connect to <address>"),
            ("tcp connect error: 10.1.2.3: refused", "tcp connect error: <address>: refused"),
            ("tcp connect error: [::1]:443, fe80::1", "tcp connect error: <address>, <address>"),
            ("https://api.openai.com/v1/x", "<address>"),
            ("https://chatgpt.com/backend-api/codex/responses", "<address>"),
            ("https://chatgpt.com.evil.corp/x https://notopenai.com", "<address> <address>"),
            ("http://chatgpt.com/explore/plus", "<address>"),
        ] {
            assert_eq!(without_addresses(text), expected, "{text}");
        }
    }

    #[test]
    fn without_addresses_replaces_keys_and_keeps_similar_words() {
        let key = "sk-proj-0123456789abcdefghij";
        for (text, expected) in [
            (format!("bad key {key}."), "bad key <key>."),
            (format!("{{\"key\":\"{key}\"}}"), "{\"key\":\"<key>\"}"),
            ("Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1In0.c2ln".to_owned(), "Bearer <key>"),
            (
                "a risk-based task-1, sk-x, ask-me-another-question".to_owned(),
                "a risk-based task-1, sk-x, ask-me-another-question",
            ),
        ] {
            assert_eq!(without_addresses(&text), expected);
        }
    }

    #[test]
    fn without_addresses_replaces_keys_of_other_kinds() {
        for (text, expected) in [
            (
                "Incorrect API key provided: sk-proj-****************abcd.",
                "Incorrect API key provided: <key>.",
            ),
            ("Authorization: Bearer 0123456789abcdef0123", "Authorization: Bearer <key>"),
            ("{\"api_key\": \"0123456789abcdef0123\"}", "{\"api_key\": \"<key>\"}"),
            ("gsk_0123456789abcdef AIza0123456789abcdef ghp_0123456789abcdef", "<key> <key> <key>"),
            (
                "Missing bearer or basic authentication in header",
                "Missing bearer or basic authentication in header",
            ),
        ] {
            assert_eq!(without_addresses(text), expected);
        }
    }

    #[test]
    fn scrubbed_replaces_paths_of_files_and_keeps_routes() {
        for (text, expected) in [
            ("cannot read /root/.codex/auth.json: denied", "cannot read <path>: denied"),
            ("(\"/home/u/x y\"), ~/.codex/config.toml:3:1", "(\"<path> y\"), <path>"),
            ("at file:/etc/passwd.", "at file:<path>."),
            ("use /v1/responses and 3/5, not /root", "use /v1/responses and 3/5, not /root"),
        ] {
            assert_eq!(scrubbed(text), expected);
        }
    }

    #[test]
    fn cut_middle_keeps_start_and_end_within_the_bound() {
        assert_eq!(cut_middle("short", 5, |_| 1), "short");
        let text = format!("start{}end", "ß".repeat(5000));
        let cut = cut_middle(&text, 100, char::len_utf8);
        assert!(cut.len() <= 100, "{}", cut.len());
        assert!(cut.starts_with("start") && cut.ends_with("end") && cut.contains('…'), "{cut}");
    }

    #[test]
    fn without_addresses_keeps_public_links_and_other_text() {
        for text in [
            "",
            "You’ve hit your usage limit. Upgrade to Pro (https://chatgpt.com/explore/pro), visit \
             https://chatgpt.com/settings/usage to purchase more credits or try again at 4:27 PM.",
            "See https://help.openai.com/en/articles/1?a=b#c. Or https://developers.openai.com/codex",
            "at 12:30:45, std::fmt, a::b, status: 404, version 0.169.0, 3/5 (reason) ß",
        ] {
            assert_eq!(without_addresses(text), text);
        }
    }
}
