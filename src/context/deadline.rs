//! How long a request may take: the smallest of what the server, the call and the request itself say.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use crate::error::Error;

/// The end of a request's time, and whose limit it is.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    limit: Duration,
    whose: &'static str,
}

impl Deadline {
    /// From now on: the server's limit, the call's `grpc-timeout`, the request's own.
    pub fn new(server: Duration, metadata: &MetadataMap, own: Option<Duration>) -> Result<Self, Error> {
        let call = match metadata.get("grpc-timeout") {
            Some(value) => Some(value.to_str().ok().and_then(grpc_timeout).ok_or_else(|| {
                Error::invalid("grpc-timeout", "expected up to 8 digits and one of H, M, S, m, u, n")
            })?),
            None => None,
        };
        let limits = [
            (server, "the server's limit, CODEX_TIMEOUT_SECONDS"),
            (call.unwrap_or(Duration::MAX), "the call's deadline"),
            (own.unwrap_or(Duration::MAX), "the request's own timeout"),
        ];
        let (limit, whose) = limits.into_iter().min_by_key(|(limit, _)| *limit).unwrap_or(limits[0]);
        Ok(Self { at: Instant::now() + limit, limit, whose })
    }

    /// When it is.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// What a request fails with when it is met.
    pub fn exceeded(&self) -> Error {
        let seconds = self.limit.as_secs_f64();
        Error::DeadlineExceeded { message: format!("the turn took longer than {seconds} s ({})", self.whose) }
    }
}

/// The header's form: at most 8 digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().last().filter(char::is_ascii)?;
    let digits = &text[..text.len() - 1];
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(n * 3600)),
        'M' => Some(Duration::from_secs(n * 60)),
        'S' => Some(Duration::from_secs(n)),
        'm' => Some(Duration::from_millis(n)),
        'u' => Some(Duration::from_micros(n)),
        'n' => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_as_the_protocol_says() {
        let table = [
            ("300m", Some(Duration::from_millis(300))),
            ("2S", Some(Duration::from_secs(2))),
            ("1H", Some(Duration::from_secs(3600))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("123456789S", None),
            ("S", None),
            ("-1S", None),
            ("1x", None),
            ("", None),
            ("1€", None),
        ];
        for (text, expected) in table {
            assert_eq!(grpc_timeout(text), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn the_smallest_holds() {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", "500m".parse().unwrap());
        let server = Duration::from_secs(10);
        let whose = |own| Deadline::new(server, &metadata, own).unwrap().whose;
        assert_eq!(whose(None), "the call's deadline");
        assert_eq!(whose(Some(Duration::from_millis(1))), "the request's own timeout");
        let none = MetadataMap::new();
        assert!(Deadline::new(server, &none, None).unwrap().whose.contains("CODEX_TIMEOUT_SECONDS"));
    }
}
