//! Removes what callers and logs must not contain from texts of the CLI about its configuration: quoted values, which may be
//! keys, and paths.

/// Length from which a word of letters and digits may be a key.
const KEY_LENGTH: usize = 20;

/// Replaces quoted values and words like keys by `…`, and paths by the names of their files. Keeps what a message expects, and
/// the name of the place.
pub(crate) fn without_values(message: &str) -> String {
    let mut text = String::new();
    let mut rest = message;
    while let Some((before, quote, after)) = split_at_quote(rest) {
        text.push_str(before);
        let Some((quoted, after)) = after.split_once(quote) else {
            // The quote is not closed.
            text.push('…');
            rest = "";
            break;
        };
        let is_kept = is_name(quoted) && (text.contains("expected") || text.trim_end().ends_with(" in"));
        text.push(quote);
        text.push_str(if is_kept { quoted } else { "…" });
        text.push(quote);
        rest = after;
    }
    text.push_str(rest);
    let words = text.split_whitespace().map(|word| match word.rsplit_once('/') {
        Some((_, name)) => name,
        None => word,
    });
    words.map(|word| if is_like_a_key(word) { "…" } else { word }).collect::<Vec<_>>().join(" ")
}

/// Splits a text at its first quote that does not belong to a word, such as an apostrophe.
fn split_at_quote(text: &str) -> Option<(&str, char, &str)> {
    let mut before = None;
    for (at, c) in text.char_indices() {
        if matches!(c, '`' | '"') || c == '\'' && !before.is_some_and(char::is_alphanumeric) {
            return Some((&text[..at], c, &text[at + c.len_utf8()..]));
        }
        before = Some(c);
    }
    None
}

/// Returns `true` for a name of the configuration, such as `sandbox_workspace_write.writable_roots`.
fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'-' | b'.'))
        && !is_like_a_key(text)
}

/// Returns `true` for a word that may be a key or a part of one.
fn is_like_a_key(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric());
    let has = |test: fn(&u8) -> bool| word.as_bytes().iter().any(test);
    word.starts_with("sk-")
        || word.len() >= KEY_LENGTH && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)
        || word.len() >= KEY_LENGTH && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_values_keeps_the_mistake_and_its_place() {
        for (message, expected) in [
            (
                "Error: /home/ann/.codex/config.toml:2:10: string values must be quoted, expected literal string",
                "Error: config.toml:2:10: string values must be quoted, expected literal string",
            ),
            (
                "unknown variant `sk-abc`, expected one of `read-only`, `workspace-write` in `sandbox_mode`",
                "unknown variant `…`, expected one of `read-only`, `workspace-write` in `sandbox_mode`",
            ),
            (
                "invalid type: string \"hunter2\", expected a boolean",
                "invalid type: string \"…\", expected a boolean",
            ),
            ("the file isn't there: 'my secret'", "the file isn't there: '…'"),
            ("bad key AbCdEfGhIjKlMnOpQrStUvWx", "bad key …"),
            ("bad value 0123456789abcdef0123456789", "bad value …"),
            ("never closed: \"hunter2", "never closed: …"),
            ("failed to read \"/home/my user/x\"", "failed to read \"…\""),
            ("no file /home/my user/config.toml", "no file my config.toml"),
        ] {
            assert_eq!(without_values(message), expected);
        }
    }
}
