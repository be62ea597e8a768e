//! Who is calling, and whether from a place that may: the token, and the `Host` and `Origin` guard that keeps web
//! pages from driving a server on the reader's own machine. Both doors ask here; how a refusal looks is theirs.

use std::net::IpAddr;

use http::{HeaderMap, Uri, header, uri::Authority};
use subtle::ConstantTimeEq;

use super::{
    config::{Secret, ServerConfig},
    context::Caller,
    error::Error,
};

/// Decides by headers alone whether a request may come in.
#[derive(Debug)]
pub struct Authenticator {
    token: Option<Secret>,
    hosts: Vec<Host>,
    origins: Vec<String>,
    any_origin: bool,
}

impl Authenticator {
    /// Reads what the operator allows.
    pub fn new(doors: &ServerConfig) -> Self {
        Self {
            token: doors.token.clone(),
            hosts: doors.allowed_hosts.iter().filter_map(|host| Host::parse(host)).collect(),
            origins: doors.cors_origins.iter().map(|o| o.trim_end_matches('/').to_owned()).collect(),
            any_origin: doors.cors_origins.iter().any(|origin| origin == "*"),
        }
    }

    /// Checks one request. `uri` carries the authority of HTTP/2 and of absolute request targets.
    pub fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<Caller, Error> {
        let hosts = Host::all_of(headers, uri);
        // A token is proof enough: a page that was led here by DNS rebinding does not know it.
        if self.token.is_none() {
            self.check_hosts(&hosts)?;
        }
        self.check_origins(headers, &hosts)?;
        match &self.token {
            None => Ok(Caller::Anonymous),
            Some(token) => check_token(token, headers),
        }
    }

    fn check_hosts(&self, hosts: &[Option<Host>]) -> Result<(), Error> {
        let permitted = |host: &Option<Host>| host.as_ref().is_some_and(|host| self.permits(host));
        if !hosts.is_empty() && hosts.iter().all(permitted) {
            return Ok(());
        }
        Err(Error::PermissionDenied {
            reason: "HOST_REFUSED",
            message: "this server asks for no token and so answers only to loopback host names such as \
                      localhost or 127.0.0.1; the operator can add names with CODEX_ALLOWED_HOSTS or set \
                      CODEX_GATEWAY_TOKEN"
                .to_owned(),
        })
    }

    fn permits(&self, host: &Host) -> bool {
        let same = |allowed: &Host| {
            allowed.name == host.name && (allowed.port.is_none() || allowed.port == host.port)
        };
        host.is_loopback() || self.hosts.iter().any(same)
    }

    fn check_origins(&self, headers: &HeaderMap, hosts: &[Option<Host>]) -> Result<(), Error> {
        if self.any_origin || headers.get_all(header::ORIGIN).iter().all(|o| self.knows(o.as_bytes(), hosts))
        {
            return Ok(());
        }
        Err(Error::PermissionDenied {
            reason: "ORIGIN_REFUSED",
            message: "web pages of this origin may not call this server; the operator can allow it with \
                      CODEX_CORS_ORIGINS"
                .to_owned(),
        })
    }

    fn knows(&self, origin: &[u8], hosts: &[Option<Host>]) -> bool {
        let Ok(origin) = std::str::from_utf8(origin) else { return false };
        if self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
            return true;
        }
        // The page came from this very server, or from whatever stands before it under the same name.
        let (site, default_port) = match origin.split_once("://") {
            Some((scheme, site)) if scheme.eq_ignore_ascii_case("http") => (site, 80),
            Some((scheme, site)) if scheme.eq_ignore_ascii_case("https") => (site, 443),
            Some(_) | None => return false,
        };
        let Some(site) = Host::parse(site) else { return false };
        let same = |host: &Option<Host>| {
            host.as_ref().is_some_and(|host| {
                host.name == site.name
                    && host.port.unwrap_or(default_port) == site.port.unwrap_or(default_port)
            })
        };
        !hosts.is_empty() && hosts.iter().all(same)
    }
}

fn check_token(token: &Secret, headers: &HeaderMap) -> Result<Caller, Error> {
    let mut shown = false;
    for candidate in candidates(headers) {
        shown = true;
        // Hashes have one length and tell nothing by how far they agree.
        if bool::from(Secret::new(candidate).hash().ct_eq(token.hash())) {
            return Ok(Caller::TokenHolder);
        }
    }
    let what = if shown { "the token given is not this server's" } else { "no token was given" };
    Err(Error::Unauthenticated {
        message: format!(
            "{what}; send the value of the server's CODEX_GATEWAY_TOKEN as `Authorization: Bearer TOKEN` (in SDKs: the API \
             key) or as `x-api-key: TOKEN`"
        ),
    })
}

fn candidates(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let bearer = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let keys = headers.get_all("x-api-key").iter().filter_map(|value| value.to_str().ok());
    bearer.chain(keys.map(str::trim)).filter(|token| !token.is_empty())
}

/// A host name or address with its port, as it stands in `Host`, `:authority` and `Origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    name: String,
    port: Option<u16>,
}

impl Host {
    /// Every host that a request names; `None` for one that cannot be read and so is never permitted.
    fn all_of(headers: &HeaderMap, uri: &Uri) -> Vec<Option<Self>> {
        let named = headers.get_all(header::HOST).iter();
        let named = named.map(|value| value.to_str().ok().and_then(Self::parse));
        named.chain(uri.authority().map(|authority| Self::parse(authority.as_str()))).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        // A path or a user would be cut off or passed over by the parser, and hide another name.
        if text.contains(['@', '/', '?', '#']) {
            return None;
        }
        let authority: Authority = text.parse().ok()?;
        let name = authority.host().to_ascii_lowercase();
        let port = authority.port_u16();
        if port.is_none() && authority.as_str().len() != authority.host().len() {
            return None;
        }
        Some(Self { name: name.strip_suffix('.').map(str::to_owned).unwrap_or(name), port })
    }

    fn is_loopback(&self) -> bool {
        let bare = self.name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let address = bare.unwrap_or(&self.name).parse::<IpAddr>();
        self.name == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

#[cfg(test)]
mod tests;
