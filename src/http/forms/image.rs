//! Decodes an `image_url`. Accepts only `data:` URLs, because this server fetches nothing. The core checks the format of
//! the bytes.

use super::{data_url::DataUrl, types::ImageUrl};
use crate::{http::error::ApiError, pb};

/// Decodes an image; `param` is its place in the request.
pub(in crate::http) fn decode_image(image_url: ImageUrl, param: &str) -> Result<pb::Image, ApiError> {
    let ImageUrl { url, detail } = image_url;
    let invalid = |error: &str| ApiError::invalid(param, format!("{param}: {error}"));
    let (scheme, rest) =
        url.split_once(':').ok_or_else(|| invalid("not a URL; send `data:image/png;base64,…`"))?;
    match scheme.to_ascii_lowercase().as_str() {
        "data" => {}
        "http" | "https" => {
            let error = "this server does not fetch images; send the image as `data:image/png;base64,…`";
            return Err(ApiError::unsupported(param, format!("{param}: {error}")));
        }
        _ => return Err(invalid("only `data:` URLs are accepted; send `data:image/png;base64,…`")),
    }
    let url = DataUrl::parse(rest).ok_or_else(|| invalid("a `data:` URL without a comma"))?;
    match url.media_type.as_str() {
        "image/png" | "image/jpeg" | "image/jpg" | "image/webp" | "image/gif" => {}
        _ => return Err(invalid("only image/png, image/jpeg, image/webp and image/gif are accepted")),
    }
    if !url.is_base64 {
        return Err(invalid("the data must be base64: `data:image/png;base64,…`"));
    }
    let data = url.decode().map_err(|error| invalid(&format!("the data is not valid base64: {error}")))?;
    if data.is_empty() {
        return Err(invalid("the image is empty"));
    }
    Ok(pb::Image { data: data.into(), detail: detail.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(url: &str) -> Result<Vec<u8>, serde_json::Value> {
        let url = ImageUrl { url: url.to_owned(), detail: Some("low".into()) };
        match decode_image(url, "messages[0].content[1].image_url") {
            Ok(image) => {
                assert_eq!(image.detail, "low");
                Ok(image.data.to_vec())
            }
            Err(error) => Err(serde_json::to_value(error.body()).unwrap()["error"].take()),
        }
    }

    #[test]
    fn decode_image_accepts_missing_padding_and_line_breaks() {
        for url in [
            "data:image/png;base64,AAEC/w==",
            "data:image/png;base64,AAEC/w",
            "DATA:Image/PNG;Base64,AAEC/w==",
            "data:image/jpeg;charset=utf-8;base64,AAEC\r\n/w==\n",
            "data:image/jpg;base64,AAEC/w==",
            "data:image/webp;base64,AAEC/w==",
            "data:image/gif;base64,AAEC/w==",
        ] {
            assert_eq!(decode(url).unwrap(), [0, 1, 2, 255], "{url}");
        }
    }

    #[test]
    fn decode_image_other_url_is_refused_by_place() {
        for (url, code, part) in [
            ("https://example.test/a.png", "unsupported_parameter", "does not fetch"),
            ("HTTP://example.test/a.png", "unsupported_parameter", "does not fetch"),
            ("file:///etc/passwd", "invalid_value", "only `data:`"),
            ("/etc/passwd", "invalid_value", "not a URL"),
            ("", "invalid_value", "not a URL"),
            ("data:image/png;base64", "invalid_value", "comma"),
            ("data:image/png,abc", "invalid_value", "must be base64"),
            ("data:image/svg+xml;base64,AAAA", "invalid_value", "image/webp"),
            ("data:;base64,AAAA", "invalid_value", "image/webp"),
            ("data:image/png;base64,", "invalid_value", "empty"),
            ("data:image/png;base64,%%%", "invalid_value", "not valid base64"),
            ("data:image/png;base64,AAEC/w===", "invalid_value", "not valid base64"),
        ] {
            let error = decode(url).unwrap_err();
            assert_eq!(error["param"], "messages[0].content[1].image_url", "{url}");
            assert_eq!(error["code"], code, "{url}");
            assert!(error["message"].as_str().unwrap().contains(part), "{url}: {error}");
        }
    }
}
