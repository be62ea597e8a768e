//! The time limit of a request: the smallest of three limits, of the server, of the call and of the request.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use crate::error::Error;

/// The end of a request's time, and the origin of the limit.
///
/// The core enforces the deadline. The admission queue, the start of a turn and the event stream time out at
/// [`Deadline::at`] with [`Deadline::exceeded`]. An engine gets the same instant in `Turn::deadline`, only to stop the
/// work of a turn whose events are not polled.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    limit: Duration,
    origin: &'static str,
}

impl Deadline {
    /// Returns the earliest of three limits that begin at `received_at`: the server's, the call's `grpc-timeout` and the
    /// request's own. Fails if `grpc-timeout` is malformed.
    pub fn new(
        received_at: Instant,
        server: Duration,
        metadata: &MetadataMap,
        requested: Option<Duration>,
    ) -> Result<Self, Error> {
        let call = match metadata.get("grpc-timeout") {
            Some(value) => Some(value.to_str().ok().and_then(parse_grpc_timeout).ok_or_else(|| {
                Error::invalid("grpc-timeout", "expected up to 8 digits and one of H, M, S, m, u, n")
            })?),
            None => None,
        };
        let limits = [
            (server, "the server's limit, CODEX_TIMEOUT_SECONDS"),
            (call.unwrap_or(Duration::MAX), "the call's deadline"),
            (requested.unwrap_or(Duration::MAX), "the request's own timeout"),
        ];
        let (limit, origin) = limits.into_iter().min_by_key(|(limit, _)| *limit).unwrap_or(limits[0]);
        Ok(Self { at: received_at + limit, limit, origin })
    }

    /// Returns the instant of the deadline.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Returns the error of a request that exceeds the deadline.
    pub fn exceeded(&self) -> Error {
        let seconds = self.limit.as_secs_f64();
        Error::DeadlineExceeded {
            message: format!("the turn took longer than {seconds} s ({})", self.origin),
        }
    }

    /// Returns the error of a request whose body is incomplete at the deadline.
    pub fn body_exceeded(&self) -> Error {
        let seconds = self.limit.as_secs_f64();
        Error::DeadlineExceeded {
            message: format!("the request was not received completely within {seconds} s ({})", self.origin),
        }
    }
}

/// Parses at most 8 digits and a unit. Returns `None` for any other text.
fn parse_grpc_timeout(text: &str) -> Option<Duration> {
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
    fn parse_grpc_timeout_follows_the_protocol() {
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
            assert_eq!(parse_grpc_timeout(text), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn deadline_of_three_limits_is_the_smallest() {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", "500m".parse().unwrap());
        let server = Duration::from_secs(10);
        let now = Instant::now();
        let origin = |requested| Deadline::new(now, server, &metadata, requested).unwrap().origin;
        assert_eq!(origin(None), "the call's deadline");
        assert_eq!(origin(Some(Duration::from_millis(1))), "the request's own timeout");
        let none = MetadataMap::new();
        let deadline = Deadline::new(now, server, &none, None).unwrap();
        assert!(deadline.origin.contains("CODEX_TIMEOUT_SECONDS"));
        assert_eq!(deadline.at(), now + server);
    }
}
