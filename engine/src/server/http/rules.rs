//! Which requests are let in at all, and what does every answer carry?
//!
//! Consul's `http_config`: endpoints that are blocked, networks that may write, headers of every
//! answer. Looked at before anything is parsed; a server without rules pays one branch.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::failure::Refusal;

/// `http_config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRules {
    /// `response_headers`.
    pub response_headers: Vec<(HeaderName, HeaderValue)>,
    /// `block_endpoints`: prefixes of paths that are answered `403`.
    pub block_endpoints: Vec<String>,
    /// `allow_write_http_from`: who may do more than read; empty for everyone.
    pub allow_write_http_from: Vec<Network>,
}

/// Addresses with a common prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `10.0.0.0/8`; `None` for what is no network.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let digits = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
        let bits = bits.parse().ok().filter(|_| digits)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(Self { address, bits })
    }

    /// Whether the address is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                u32::from(self.bits) <= differ.leading_zeros()
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                u32::from(self.bits) <= differ.leading_zeros()
            }
            _ => false,
        }
    }
}

impl HttpRules {
    /// Lets a request in. `path` is as the client sent it, `client` is only asked for if it matters
    /// and is `None` for one that has no address, which is in no network.
    pub(super) fn admit(
        &self,
        method: &Method,
        path: &str,
        client: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<(), Refusal> {
        if !self.block_endpoints.is_empty() {
            let path: Vec<u8> = percent_encoding::percent_decode_str(path).collect();
            let blocked = |prefix: &String| path.starts_with(prefix.as_bytes());
            if self.block_endpoints.iter().any(blocked) {
                return Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "Endpoint is blocked by agent configuration",
                ));
            }
        }
        let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if reads || self.allow_write_http_from.is_empty() {
            return Ok(());
        }
        let may = |ip| {
            self.allow_write_http_from
                .iter()
                .any(|net| net.contains(ip))
        };
        match client().is_some_and(may) {
            true => Ok(()),
            false => Err(Refusal::new(StatusCode::FORBIDDEN, "Access is restricted")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Network {
        Network::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn networks_are_read_and_contain_what_begins_like_them() {
        let ip = |text: &str| text.parse().unwrap();
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("127.0.0.1/32", "127.0.0.1", "127.0.0.2"),
            ("127.0.0.1/32", "::ffff:127.0.0.1", "::1"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
            ("::/0", "::1", "1.2.3.4"),
            ("fe80::/10", "fe80::1", "fd00::1"),
        ] {
            assert!(net(network).contains(ip(inside)), "{network} {inside}");
            assert!(!net(network).contains(ip(outside)), "{network} {outside}");
        }
        for wrong in [
            "10.0.0.0",
            "10.0.0.0/33",
            "::/129",
            "x/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
        ] {
            assert_eq!(Network::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn blocked_endpoints_are_blocked_however_they_are_spelt() {
        let rules = HttpRules {
            block_endpoints: vec!["/v1/kv".into(), "/v1/agent/".into()],
            ..HttpRules::default()
        };
        let admit = |path| rules.admit(&Method::GET, path, || None).is_ok();
        for (path, let_in) in [
            ("/v1/kv/a", false),
            ("/v1/%6bv/a", false),
            ("/v1/agent/self", false),
            ("/v1/agent", true),
            ("/v1/status/leader", true),
        ] {
            assert_eq!(admit(path), let_in, "{path}");
        }
    }

    #[test]
    fn only_the_named_networks_may_write() {
        let rules = HttpRules {
            allow_write_http_from: vec![net("10.0.0.0/8"), net("127.0.0.0/8")],
            ..HttpRules::default()
        };
        let admit = |method, client: &str| {
            let client = client.parse().ok();
            rules.admit(&method, "/v1/kv/a", || client).is_ok()
        };
        assert!(admit(Method::GET, "192.0.2.1"));
        assert!(admit(Method::PUT, "10.1.2.3"));
        assert!(admit(Method::DELETE, "127.0.0.1"));
        assert!(!admit(Method::PUT, "192.0.2.1"));
        assert!(!admit(Method::PUT, "a socket of the file system"));
        assert!(
            HttpRules::default()
                .admit(&Method::PUT, "/", || None)
                .is_ok()
        );
    }
}
