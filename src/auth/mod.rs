//! Authenticates callers by token, and checks `Host` and `Origin`, so that web pages cannot call a server on the
//! user's own machine. Each door renders a refusal in its own protocol.

mod failures;

use std::net::IpAddr;

use http::{HeaderMap, Uri, header, uri::Authority};
use subtle::ConstantTimeEq;

use self::failures::Failures;
use super::{
    config::{Secret, ServerConfig},
    context::Caller,
    error::Error,
};

/// Decides by headers whether a request is accepted.
#[derive(Debug)]
pub struct Authenticator {
    token: Option<Secret>,
    hosts: Vec<Host>,
    origins: Vec<String>,
    any_origin: bool,
    failures: Failures,
}

impl Authenticator {
    /// Creates an authenticator from the configuration.
    pub fn new(config: &ServerConfig) -> Self {
        Self {
            token: config.token.clone(),
            hosts: config.allowed_hosts.iter().filter_map(|host| Host::parse(host)).collect(),
            origins: config.cors_origins.iter().map(|o| o.trim_end_matches('/').to_owned()).collect(),
            any_origin: config.cors_origins.iter().any(|origin| origin == "*"),
            failures: Failures::default(),
        }
    }

    /// Checks one request and delays the refusal of a missing or wrong token, the longer, the more requests of the peer
    /// were refused. Other requests are not delayed.
    pub async fn admit(&self, headers: &HeaderMap, uri: &Uri, peer: Option<IpAddr>) -> Result<Caller, Error> {
        let checked = self.check(headers, uri);
        if let (Err(Error::Unauthenticated { .. }), Some(peer)) = (&checked, peer) {
            tokio::time::sleep(self.failures.record(peer)).await;
        }
        checked
    }

    /// Checks one request. `uri` has the authority of HTTP/2 and of absolute request targets.
    pub fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<Caller, Error> {
        // A token is proof enough: a foreign web page cannot send it, neither with its own origin nor by DNS rebinding.
        // Desktop applications, which hold the token, send origins such as `app://obsidian.md` and `null`.
        if let Some(token) = &self.token {
            return check_token(token, headers);
        }
        let hosts = Host::from_request(headers, uri);
        self.check_hosts(&hosts)?;
        self.check_origins(headers, &hosts)?;
        Ok(Caller::Anonymous)
    }

    fn check_hosts(&self, hosts: &[Option<Host>]) -> Result<(), Error> {
        let permitted = |host: &Option<Host>| host.as_ref().is_some_and(|host| self.host_allowed(host));
        if !hosts.is_empty() && hosts.iter().all(permitted) {
            return Ok(());
        }
        Err(Error::PermissionDenied {
            reason: "HOST_REFUSED",
            message: "this server has no token and accepts only loopback host names such as localhost or 127.0.0.1; \
                      the operator can add names with CODEX_ALLOWED_HOSTS or set CODEX_GATEWAY_TOKEN"
                .to_owned(),
        })
    }

    fn host_allowed(&self, host: &Host) -> bool {
        let same = |allowed: &Host| {
            allowed.name == host.name && (allowed.port.is_none() || allowed.port == host.port)
        };
        host.is_loopback() || self.hosts.iter().any(same)
    }

    fn check_origins(&self, headers: &HeaderMap, hosts: &[Option<Host>]) -> Result<(), Error> {
        if self.any_origin
            || headers.get_all(header::ORIGIN).iter().all(|o| self.origin_allowed(o.as_bytes(), hosts))
        {
            return Ok(());
        }
        Err(Error::PermissionDenied {
            reason: "ORIGIN_REFUSED",
            message:
                "web pages of this origin may not call this server, which has no token; the operator can set \
                      CODEX_GATEWAY_TOKEN, or allow the origin with CODEX_CORS_ORIGINS"
                    .to_owned(),
        })
    }

    fn origin_allowed(&self, origin: &[u8], hosts: &[Option<Host>]) -> bool {
        let Ok(origin) = std::str::from_utf8(origin) else { return false };
        if self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
            return true;
        }
        // A page of this server, or of a proxy in front of the server with the same name, may call.
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
    let mut has_candidate = false;
    for candidate in candidates(headers) {
        has_candidate = true;
        // The comparison of hashes of equal length reveals nothing about the token.
        if bool::from(Secret::new(candidate).hash().ct_eq(token.hash())) {
            return Ok(Caller::TokenHolder);
        }
    }
    let problem = if has_candidate { "the token is wrong" } else { "the token is missing" };
    Err(Error::Unauthenticated {
        // Clients look for the first words, which are OpenAI's.
        message: format!(
            "Incorrect API key provided: {problem}; send the value of the server's CODEX_GATEWAY_TOKEN as `Authorization: Bearer TOKEN` (in SDKs: the API \
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

/// A host name or address with its port, as in `Host`, `:authority` and `Origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    name: String,
    port: Option<u16>,
}

impl Host {
    /// Returns every host in a request. `None` stands for a host that cannot be parsed and is never allowed.
    fn from_request(headers: &HeaderMap, uri: &Uri) -> Vec<Option<Self>> {
        let hosts = headers.get_all(header::HOST).iter();
        let hosts = hosts.map(|value| value.to_str().ok().and_then(Self::parse));
        hosts.chain(uri.authority().map(|authority| Self::parse(authority.as_str()))).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        // The parser would cut off a path and skip user information, which could hide another name.
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
