//! Decompresses the message of a call within the limits of the server.

use std::io::{Read, Result as IoResult};

use axum::http::HeaderMap;
use bytes::BytesMut;
use flate2::read::{GzDecoder, ZlibDecoder};
use zstd::stream::read::Decoder as ZstdDecoder;

use crate::{context::body_budget::BodyPermit, error::Error};

/// Bytes between two checks of the limits.
const STEP: usize = 64 << 10;

/// Maximum window of zstd, as a power of two: 8 MiB, as in RFC 9659. The decoder allocates the window, which no budget counts.
const ZSTD_WINDOW: u32 = 23;

/// An encoding of messages that the contract accepts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Encoding {
    Gzip,
    Deflate,
    Zstd,
}

impl Encoding {
    /// Returns the encoding of a call's compressed messages, or `None` if there is none or the server does not support it.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        match headers.get("grpc-encoding")?.as_bytes() {
            b"gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            b"zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Appends the decompressed message to `out`. It has at most `max_bytes` bytes, and each counts for the permit beside the
    /// `compressed` ones.
    pub(super) fn decompress(
        self,
        compressed: &[u8],
        out: &mut BytesMut,
        max_bytes: usize,
        permit: &mut BodyPermit,
    ) -> Result<(), Error> {
        let undecodable = |error| Error::invalid("", format!("Error decompressing: {error}"));
        let mut reader = self.reader(compressed).map_err(undecodable)?;
        let mut step = vec![0; STEP];
        let mut size = 0;
        loop {
            let count = reader.read(&mut step).map_err(undecodable)?;
            if count == 0 {
                return Ok(());
            }
            size += count;
            if size > max_bytes {
                return Err(Error::invalid(
                    "",
                    format!(
                        "the decompressed message is larger than the {max_bytes} bytes allowed \
                         (CODEX_MAX_BODY_BYTES)"
                    ),
                ));
            }
            // A message of the maximum size fits in any budget.
            permit.hold((compressed.len() + size).min(max_bytes))?;
            out.extend_from_slice(step.get(..count).unwrap_or_default());
        }
    }

    fn reader(self, compressed: &[u8]) -> IoResult<Box<dyn Read + '_>> {
        Ok(match self {
            Self::Gzip => Box::new(GzDecoder::new(compressed)),
            Self::Deflate => Box::new(ZlibDecoder::new(compressed)),
            Self::Zstd => {
                let mut decoder = ZstdDecoder::new(compressed)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                Box::new(decoder)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{
        Compression,
        write::{GzEncoder, ZlibEncoder},
    };

    use super::*;
    use crate::context::body_budget::BodyBudget;

    const MIB: usize = 1 << 20;

    fn zstd(plain: &[u8], window: u32) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(window).unwrap();
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn compressed(encoding: Encoding, plain: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(plain).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Zstd => zstd(plain, 20),
        }
    }

    fn decompressed(encoding: Encoding, bytes: &[u8], max: usize, total: usize) -> Result<Vec<u8>, String> {
        let mut permit = BodyBudget::new(total, MIB).open(bytes.len()).unwrap();
        let mut out = BytesMut::new();
        encoding
            .decompress(bytes, &mut out, max, &mut permit)
            .map(|()| out.to_vec())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn decompress_returns_the_message_up_to_the_limits() {
        for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd] {
            let plain = "abc".repeat(100_000).into_bytes();
            let bytes = compressed(encoding, &plain);
            assert_eq!(decompressed(encoding, &bytes, plain.len(), 8 * MIB), Ok(plain.clone()));
            let error = decompressed(encoding, &bytes, plain.len() - 1, 8 * MIB).unwrap_err();
            assert!(error.contains("CODEX_MAX_BODY_BYTES)"), "{encoding:?}: {error}");
            let bomb = compressed(encoding, &vec![0; 3 * MIB]);
            assert!(bomb.len() < MIB / 16);
            let error = decompressed(encoding, &bomb, 4 * MIB, 2 * MIB).unwrap_err();
            assert!(error.contains("CODEX_MAX_BODY_BYTES_TOTAL"), "{encoding:?}: {error}");
        }
    }

    #[test]
    fn decompress_refuses_what_is_truncated_or_has_another_encoding() {
        let all = [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd];
        for encoding in all {
            let bytes = compressed(encoding, b"some text of a message");
            let cut = bytes.get(..bytes.len() - 9).unwrap();
            for (bytes, other) in [(cut, encoding), (&bytes, all[(encoding as usize + 1) % 3])] {
                let error = decompressed(other, bytes, MIB, 8 * MIB).unwrap_err();
                assert!(error.contains("Error decompressing"), "{encoding:?}, {other:?}: {error}");
            }
        }
    }

    #[test]
    fn decompress_refuses_windows_beyond_8_mib() {
        assert!(decompressed(Encoding::Zstd, &zstd(b"x", 23), MIB, 8 * MIB).is_ok());
        let error = decompressed(Encoding::Zstd, &zstd(b"x", 24), MIB, 8 * MIB).unwrap_err();
        assert!(error.contains("Error decompressing"), "{error}");
    }
}
