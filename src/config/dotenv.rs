//! Parses `.env` files: `NAME=value` lines, `#` comments, an optional `export`, single or double quotes. Variables
//! are not expanded, because a token may contain a `$`.

use std::collections::BTreeMap;

/// Parses a `.env` file. The error names the line.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut variables = BTreeMap::new();
    // Some editors write a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let exported = line.strip_prefix("export").filter(|rest| rest.starts_with(char::is_whitespace));
        let assignment = exported.unwrap_or(line);
        let Some((name, value)) = assignment.split_once('=') else {
            return Err(format!("line {}: expected NAME=value", index + 1));
        };
        let name = name.trim();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(format!("line {}: {name:?} is not a variable name", index + 1));
        }
        let value = unquote(value.trim()).map_err(|e| format!("line {}: {e}", index + 1))?;
        variables.insert(name.to_owned(), value);
    }
    Ok(variables)
}

fn unquote(value: &str) -> Result<String, &'static str> {
    if let Some(rest) = value.strip_prefix('\'') {
        let (inside, after) = rest.split_once('\'').ok_or("a quote is not closed")?;
        only_comment(after)?;
        return Ok(inside.to_owned());
    }
    if let Some(rest) = value.strip_prefix('"') {
        return double_quoted(rest);
    }
    // A comment needs white space before it, because `#` is common within tokens and colours.
    let is_comment = |start: &usize| value[..*start].chars().next_back().is_none_or(char::is_whitespace);
    let end = value.match_indices('#').map(|(start, _)| start).find(is_comment).unwrap_or(value.len());
    Ok(value[..end].trim_end().to_owned())
}

fn double_quoted(rest: &str) -> Result<String, &'static str> {
    let mut text = String::new();
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                only_comment(chars.as_str())?;
                return Ok(text);
            }
            '\\' => match chars.next() {
                Some('n') => text.push('\n'),
                Some(c @ ('"' | '\\' | '$')) => text.push(c),
                Some(other) => text.extend(['\\', other]),
                None => break,
            },
            other => text.push(other),
        }
    }
    Err("a quote is not closed")
}

fn only_comment(after: &str) -> Result<(), &'static str> {
    let after = after.trim();
    if after.is_empty() || after.starts_with('#') { Ok(()) } else { Err("text after a closed quote") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_usual_forms_returns_their_values() {
        let text = "# c\n\nA=1\nexport B = two words # c\nC='a # b' # c\nD=\"x\\n\\\"y\\\"\"\nE=#nothing\nF=a#b\nG=\nH=a\t# b # c";
        let map = parse(text).unwrap();
        let get = |k: &str| map.get(k).map(String::as_str);
        assert_eq!(get("A"), Some("1"));
        assert_eq!(get("B"), Some("two words"));
        assert_eq!(get("C"), Some("a # b"));
        assert_eq!(get("D"), Some("x\n\"y\""));
        assert_eq!(get("E"), Some(""));
        assert_eq!(get("F"), Some("a#b"));
        assert_eq!(get("G"), Some(""));
        assert_eq!(get("H"), Some("a"), "a comment after a tab, with another comment sign in it");
    }

    #[test]
    fn parse_comment_after_any_white_space_ends_the_value() {
        for space in [" ", "\t", " \t ", "\u{b}", "\u{a0}", "\u{3000}"] {
            let text = format!(
                "A=value{space}# comment\r\nB={space}#\nC='q'{space}# c\nD=\"q\"{space}#c\nE=a#b{space}c\n"
            );
            let map = parse(&text).unwrap();
            let values: Vec<&str> = map.values().map(String::as_str).collect();
            assert_eq!(values, ["value", "", "q", "q", &format!("a#b{space}c")], "{space:?}");
        }
    }

    #[test]
    fn parse_export_and_byte_order_mark_are_skipped() {
        let map = parse("\u{feff}export\tA=1\nexported=2\n").unwrap();
        assert_eq!((map["A"].as_str(), map["exported"].as_str()), ("1", "2"));
    }

    #[test]
    fn parse_malformed_line_is_reported_by_number() {
        assert_eq!(parse("A=1\noops").unwrap_err(), "line 2: expected NAME=value");
        assert_eq!(parse("A='x").unwrap_err(), "line 1: a quote is not closed");
        assert!(parse("A=\"x\" y").unwrap_err().contains("after a closed quote"));
    }
}
