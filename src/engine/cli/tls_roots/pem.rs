//! The certificates of a PEM file. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Certificate {
    /// The certificate as DER, which identifies it.
    pub(super) der: Vec<u8>,
    /// The lines of its block.
    pub(super) pem: String,
}

/// The reason why a file must not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PemError {
    /// A block is not closed, or does not contain DER.
    Malformed,
    /// OpenSSL reads a block that rustls does not.
    OpenSslOnly,
}

/// Returns the certificates, without other blocks and text between them. Any mistake fails, because Codex, rustls and OpenSSL
/// differ in what they do with the rest of such a file.
pub(super) fn certificates(text: &[u8]) -> Result<Vec<Certificate>, PemError> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().map(str::trim);
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) else {
            continue;
        };
        let end = format!("-----END {label}-----");
        let mut body = Vec::new();
        loop {
            match lines.next() {
                Some(line) if line == end => break,
                Some(line) if !line.starts_with("-----") => body.push(line),
                Some(_) | None => return Err(PemError::Malformed),
            }
        }
        match label {
            "CERTIFICATE" => found.push(Certificate::new(&body)?),
            "TRUSTED CERTIFICATE" | "X509 CERTIFICATE" => return Err(PemError::OpenSslOnly),
            _ => {}
        }
    }
    Ok(found)
}

impl Certificate {
    fn new(body: &[&str]) -> Result<Self, PemError> {
        let der = STANDARD.decode(body.concat()).map_err(|_| PemError::Malformed)?;
        if !element(&der).is_some_and(|all| all.tag == 0x30 && all.rest.is_empty()) {
            return Err(PemError::Malformed);
        }
        let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", body.join("\n"));
        Ok(Self { der, pem })
    }

    /// Returns `true` if the certificate is that of an authority and names no host, as all certificates of Mozilla's bundle do.
    /// OpenSSL and rustls trust the same servers by such a certificate.
    pub(super) fn is_authority(&self) -> bool {
        let is_authority = self.extensions(BASIC_CONSTRAINTS).any(|value| value.starts_with(TRUE));
        is_authority && !self.extensions(ALTERNATIVE_NAMES).any(names_a_host)
    }

    /// Returns the content of the SEQUENCE of an extension. Searches for its identifier, which suffices for certificates that
    /// the operator trusts.
    fn extensions(&self, identifier: &'static [u8]) -> impl Iterator<Item = &[u8]> {
        memchr::memmem::find_iter(&self.der, identifier).filter_map(move |at| {
            let rest = self.der.get(at + identifier.len()..)?;
            let value = element(rest.strip_prefix(TRUE).unwrap_or(rest)).filter(|value| value.tag == 0x04)?;
            Some(element(value.content).filter(|value| value.tag == 0x30)?.content)
        })
    }
}

/// The identifier of `basicConstraints`, whose first value is whether the certificate is that of an authority.
const BASIC_CONSTRAINTS: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x13];

/// The identifier of `subjectAltName`.
const ALTERNATIVE_NAMES: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x11];

/// A BOOLEAN of DER.
const TRUE: &[u8] = &[0x01, 0x01, 0xff];

/// Returns `true` if one of these alternative names is a DNS name or an IP address.
fn names_a_host(mut names: &[u8]) -> bool {
    while let Some(name) = element(names) {
        if matches!(name.tag, 0x82 | 0x87) {
            return true;
        }
        names = name.rest;
    }
    false
}

/// An element of DER with the bytes behind it.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    rest: &'a [u8],
}

/// Returns the first element.
fn element(der: &[u8]) -> Option<Element<'_>> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    // From 0x80, the byte has the number of the bytes of the length.
    let digits = usize::from(first & 0x7f);
    let (length, rest) = if first & 0x80 == 0 {
        (digits, rest)
    } else {
        let (length, rest) = rest.split_at_checked(digits).filter(|_| (1..=4).contains(&digits))?;
        (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some(Element { tag: *tag, content, rest })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns a block whose content is a SEQUENCE with this name and the extension of an authority.
    pub(in super::super) fn authority(name: &[u8]) -> String {
        block(&[name, BASIC_CONSTRAINTS, TRUE, &[0x04, 0x05, 0x30, 0x03], TRUE].concat())
    }

    /// Returns a block whose content is a SEQUENCE with these bytes.
    pub(in super::super) fn block(content: &[u8]) -> String {
        let length = u8::try_from(content.len()).unwrap();
        assert!(length < 0x80);
        let der = [&[0x30, length], content].concat();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
    }

    #[test]
    fn certificates_of_a_bundle_skips_text_and_other_blocks() {
        let (first, second) = (block(b"one"), block(b"two"));
        let other = "-----BEGIN X509 CRL-----\n*\n-----END X509 CRL-----\n";
        let text = format!("# Root One\r\n{}{other}\n  {second}", first.replace('\n', "\r\n"));
        let found = certificates(text.as_bytes()).unwrap();
        let pems: Vec<_> = found.iter().map(|certificate| certificate.pem.clone()).collect();
        assert_eq!(pems, [first, second]);
        assert_eq!(found[0].der, b"\x30\x03one");
        assert_eq!(certificates(b"no block\xff"), Ok(Vec::new()));
    }

    #[test]
    fn certificates_of_a_file_with_a_mistake_fails() {
        let good = block(b"one");
        let begin = "-----BEGIN CERTIFICATE-----\n";
        let encoded = |der: &[u8]| format!("{begin}{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der));
        for bad in [
            begin.to_owned(),
            format!("{begin}{good}"),
            good.replace("END CERTIFICATE", "END X509 CRL"),
            good.replace("MAN", "M*N"),
            encoded(b""),
            encoded(b"\x30"),
            encoded(b"\x31\x00"),
            encoded(b"\x30\x02x"),
            encoded(b"\x30\x01xx"),
            encoded(b"\x30\x80x"),
            encoded(b"\x30\x82\x01"),
            encoded(b"\x30\x85\0\0\0\0\x01x"),
        ] {
            assert_eq!(certificates(format!("{good}{bad}").as_bytes()), Err(PemError::Malformed), "{bad}");
        }
        for label in ["TRUSTED CERTIFICATE", "X509 CERTIFICATE"] {
            let other = good.replace("CERTIFICATE", label);
            assert_eq!(certificates(format!("{good}{other}").as_bytes()), Err(PemError::OpenSslOnly));
        }
    }

    #[test]
    fn is_authority_needs_the_extension_with_true_and_no_host() {
        let is_authority = |text: &str| certificates(text.as_bytes()).unwrap()[0].is_authority();
        let constraints = |rest: &[u8]| block(&[b"name", BASIC_CONSTRAINTS, rest].concat());
        assert!(is_authority(&authority(b"name")));
        // Not critical, with a length of the path.
        assert!(is_authority(&constraints(&[0x04, 0x08, 0x30, 0x06, 0x01, 0x01, 0xff, 0x02, 0x01, 0x00])));
        for bad in [
            constraints(&[0x01, 0x01, 0xff, 0x04, 0x02, 0x30, 0x00]),
            constraints(&[0x04, 0x05, 0x30, 0x03, 0x01, 0x01, 0x00]),
            constraints(&[]),
            block(b"name"),
        ] {
            assert!(!is_authority(&bad), "{bad}");
        }
        // A mail address, alone and before a DNS name or an IP address.
        let named = |names: &[u8]| {
            let length = u8::try_from(names.len()).unwrap();
            authority(&[ALTERNATIVE_NAMES, &[0x04, length + 2, 0x30, length], names].concat())
        };
        assert!(is_authority(&named(b"\x81\x03a@b")));
        for host in [b"\x81\x03a@b\x82\x02h.", b"\x81\x03a@b\x87\x02\x01\x02"].map(|host| &host[..]) {
            assert!(!is_authority(&named(host)), "{host:?}");
        }
    }

    #[test]
    fn element_with_a_long_length_is_read() {
        let der = [&[0x30, 0x82, 0x01, 0x00][..], &[7; 257]].concat();
        let found = element(&der).unwrap();
        assert_eq!((found.tag, found.content.len(), found.rest), (0x30, 256, &[7][..]));
        assert!(element(&der[..259]).is_none());
    }
}
