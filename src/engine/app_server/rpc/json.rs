//! JSON as Codex accepts it, which allows numbers of any size. Pure.

use serde_json::Value;

/// Parses JSON. Numbers beyond the range of `f64` become strings.
pub(crate) fn parse(json: &[u8]) -> Option<Value> {
    serde_json::from_slice(json).ok().or_else(|| serde_json::from_slice(&quote_huge_numbers(json)?).ok())
}

/// Returns the text with every number beyond the range of `f64` in quotes, or `None` if no number is that large.
fn quote_huge_numbers(json: &[u8]) -> Option<Vec<u8>> {
    let mut quoted = Vec::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        let rest = &json[at..];
        at += match byte {
            b'"' => string_length(rest),
            b'-' | b'0'..=b'9' => {
                let length = rest.iter().take_while(|byte| b"+-.0123456789Ee".contains(byte)).count();
                let number = std::str::from_utf8(&rest[..length]).unwrap_or_default();
                if number.parse().is_ok_and(f64::is_infinite) {
                    quoted.extend_from_slice(&json[copied..at]);
                    quoted.extend_from_slice(format!("\"{number}\"").as_bytes());
                    copied = at + length;
                }
                length
            }
            _ => 1,
        };
    }
    quoted.extend_from_slice(&json[copied..]);
    (copied > 0).then_some(quoted)
}

/// Returns the length in bytes of the string literal at the start, quotes included.
fn string_length(json: &[u8]) -> usize {
    let mut escaped = false;
    let end = json.iter().skip(1).position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    end.map_or(json.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parse_numbers_beyond_f64_become_strings() {
        for (text, expected) in [
            (r#"{"a":1e+999}"#, json!({"a": "1e+999"})),
            (
                r#"[-1E999,1e5,"1e999","\"1e999",{"1e999":2}]"#,
                json!(["-1E999", 1e5, "1e999", "\"1e999", {"1e999": 2}]),
            ),
            (r#"{"a":1e999"#, Value::Null),
            (r#"{"a":1e999,"b":"\ud800"}"#, Value::Null),
            ("1e999", json!("1e999")),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_or_default(), expected, "{text}");
        }
        let long = "9".repeat(400);
        assert_eq!(parse(long.as_bytes()), Some(json!(long)));
    }
}
