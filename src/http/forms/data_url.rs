//! Decodes `data:` URLs and base64.

use std::borrow::Cow;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// Base64 with or without padding, because many clients omit the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The parts of a `data:` URL.
#[derive(Debug, PartialEq)]
pub(in crate::http) struct DataUrl<'a> {
    /// The media type in lower case, without parameters. May be empty.
    pub(in crate::http) media_type: String,
    /// Whether `data` is base64. Otherwise it is percent-encoded.
    pub(in crate::http) is_base64: bool,
    /// The data, encoded.
    pub(in crate::http) data: &'a str,
}

impl<'a> DataUrl<'a> {
    /// Parses the part of the URL behind `data:`. Returns `None` if it lacks a comma.
    pub(in crate::http) fn parse(rest: &'a str) -> Option<Self> {
        let (head, data) = rest.split_once(',')?;
        let head = head.to_ascii_lowercase();
        let mut words = head.split(';').map(str::trim);
        let media_type = words.next().unwrap_or_default().to_owned();
        Some(Self { media_type, is_base64: words.next_back() == Some("base64"), data })
    }

    /// Decodes the data.
    pub(in crate::http) fn decode(&self) -> Result<Vec<u8>, base64::DecodeError> {
        if self.is_base64 { decode_base64(self.data) } else { Ok(decode_percent(self.data)) }
    }
}

/// Decodes base64, also with line breaks and in a percent-encoded form.
pub(in crate::http) fn decode_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    let text = match text.contains('%') {
        true => Cow::Owned(String::from_utf8_lossy(&decode_percent(text)).into_owned()),
        false => Cow::Borrowed(text),
    };
    // MIME encoders break lines.
    if text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        return BASE64.decode(text.split_ascii_whitespace().collect::<String>());
    }
    BASE64.decode(&*text)
}

/// Decodes `%41`. A percent sign without two digits stands for itself.
fn decode_percent(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits =
            tail.get(..2).filter(|digits| *first == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (byte, tail.get(2..)) {
            (Some(byte), Some(after)) => {
                decoded.push(byte);
                rest = after;
            }
            _ => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_splits_type_encoding_and_data() {
        for (rest, media_type, data) in [
            ("text/plain;base64,aGk=", "text/plain", "hi"),
            ("Text/Markdown; charset=utf-8;BASE64,aGk", "text/markdown", "hi"),
            (";base64,aGk%3D", "", "hi"),
            ("text/plain,a%20b%2", "text/plain", "a b%2"),
            ("text/csv;charset=utf-8,%C3%A4;b,c", "text/csv", "ä;b,c"),
            (",100%", "", "100%"),
        ] {
            let url = DataUrl::parse(rest).unwrap();
            assert_eq!(url.media_type, media_type, "{rest}");
            assert_eq!(url.decode().unwrap(), data.as_bytes(), "{rest}");
        }
        assert_eq!(DataUrl::parse("text/plain;base64"), None);
        assert!(DataUrl::parse(";base64,a").unwrap().decode().is_err());
    }
}
