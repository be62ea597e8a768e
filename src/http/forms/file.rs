//! Decodes files. Accepts only their data, because this server stores and fetches none. The core reads the text.

use super::{
    data_url::{DataUrl, decode_base64},
    types::File,
};
use crate::{http::error::ApiError, pb};

/// Decodes a file; `param` is its place in the request.
pub(in crate::http) fn decode_file(file: File, param: &str) -> Result<pb::File, ApiError> {
    let File { filename, file_data, file_id, file_url } = file;
    let data_param = format!("{param}.file_data");
    let Some(text) = file_data else {
        if file_id.is_some() {
            let param = format!("{param}.file_id");
            let error = format!("{param}: this server stores no files; send the file as `file_data`");
            return Err(ApiError::unsupported(param, error));
        }
        if file_url.is_some() {
            let param = format!("{param}.file_url");
            let error = format!("{param}: this server does not fetch files; send the file as `file_data`");
            return Err(ApiError::unsupported(param, error));
        }
        return Err(ApiError::invalid(&data_param, format!("{data_param} is missing")));
    };
    let invalid = |error: &str| ApiError::invalid(&data_param, format!("{data_param}: {error}"));
    const FORMS: &str = "send `data:text/plain;base64,…` or base64";
    let scheme = text.get(..5).unwrap_or_default();
    let (media_type, data) = if scheme.eq_ignore_ascii_case("data:") {
        let url = text.get(5..).and_then(DataUrl::parse);
        let url = url.ok_or_else(|| invalid("a `data:` URL without a comma"))?;
        let data = url.decode();
        (url.media_type, data)
    } else {
        (String::new(), decode_base64(&text))
    };
    let data = data.map_err(|error| invalid(&format!("the data is not valid base64: {error}; {FORMS}")))?;
    Ok(pb::File { filename: filename.unwrap_or_default(), media_type, data: data.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(file: serde_json::Value) -> Result<pb::File, serde_json::Value> {
        decode_file(serde_json::from_value(file).unwrap(), "f")
            .map_err(|error| serde_json::to_value(error.body()).unwrap()["error"].take())
    }

    #[test]
    fn decode_file_takes_data_urls_and_base64() {
        for (data, media_type) in [
            ("data:text/plain;base64,aGk=", "text/plain"),
            ("data:text/markdown;charset=utf-8;base64,aGk", "text/markdown"),
            ("DATA:application/json,hi", "application/json"),
            ("data:,h%69", ""),
            ("aGk=", ""),
            ("aG\r\nk=\n", ""),
        ] {
            let file = decode(serde_json::json!({"filename": "a.txt", "file_data": data})).unwrap();
            assert_eq!((&*file.data, &*file.media_type, &*file.filename), (&b"hi"[..], media_type, "a.txt"));
        }
    }

    #[test]
    fn decode_file_without_readable_data_is_refused_by_place() {
        for (file, param, code) in [
            (serde_json::json!({}), "f.file_data", "invalid_value"),
            (serde_json::json!({"file_data": null}), "f.file_data", "invalid_value"),
            (serde_json::json!({"file_data": "%%%"}), "f.file_data", "invalid_value"),
            (serde_json::json!({"file_data": "data:text/plain;base64"}), "f.file_data", "invalid_value"),
            (serde_json::json!({"file_data": "https://example.test/a"}), "f.file_data", "invalid_value"),
            (serde_json::json!({"file_id": "file-1"}), "f.file_id", "unsupported_parameter"),
            (serde_json::json!({"file_url": "https://e.test"}), "f.file_url", "unsupported_parameter"),
        ] {
            let error = decode(file.clone()).unwrap_err();
            assert_eq!((&error["param"], &error["code"]), (&param.into(), &code.into()), "{file}");
        }
    }
}
