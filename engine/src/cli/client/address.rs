//! Where is the server? `-http-addr` and `CONSUL_HTTP_ADDR`, as Consul's clients read them.

use std::path::PathBuf;

use super::super::CliError;

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// `http://HOST:PORT`
    Tcp(String),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Address {
    /// Reads HOST:PORT, http://HOST:PORT, tcp://HOST:PORT or unix://PATH.
    pub(super) fn parse(address: &str) -> Result<Self, CliError> {
        let wrong = |why: &str| {
            CliError(format!(
                "Error: -http-addr (CONSUL_HTTP_ADDR) {address:?}: {why}: give HOST:PORT, \
                 http://HOST:PORT or unix://PATH"
            ))
        };
        let ssl = std::env::var("CONSUL_HTTP_SSL").unwrap_or_default();
        if address.starts_with("https://") || matches!(&*ssl, "1" | "true") {
            return Err(wrong("HTTPS is not supported yet"));
        }
        if let Some(path) = address.strip_prefix("unix://") {
            return match path.is_empty() {
                true => Err(wrong("not a path")),
                false => Ok(Self::Unix(path.into())),
            };
        }
        let host = ["http://", "tcp://"]
            .iter()
            .find_map(|scheme| address.strip_prefix(scheme))
            .unwrap_or(address)
            .trim_end_matches('/');
        if host.is_empty() || host.contains(['/', ' ']) {
            return Err(wrong("not an address"));
        }
        Ok(Self::Tcp(format!("http://{host}")))
    }

    /// What URLs begin with.
    pub(super) fn base(&self) -> &str {
        match self {
            Self::Tcp(base) => base,
            // Go's client sends the path of the socket as the host; nobody reads it.
            Self::Unix(_) => "http://localhost",
        }
    }

    /// What people call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Tcp(base) => base.clone(),
            Self::Unix(path) => format!("unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        let tcp = |base: &str| Address::Tcp(base.into());
        for (text, address) in [
            ("127.0.0.1:8500", tcp("http://127.0.0.1:8500")),
            ("http://curia.example:1/", tcp("http://curia.example:1")),
            ("tcp://[::1]:8500", tcp("http://[::1]:8500")),
            (
                "unix:///run/curia.sock",
                Address::Unix("/run/curia.sock".into()),
            ),
        ] {
            assert_eq!(Address::parse(text).unwrap(), address);
        }
        for bad in ["https://a:1", "unix://", "", "a/b", "http://"] {
            assert!(
                Address::parse(bad).unwrap_err().0.contains("-http-addr"),
                "{bad}"
            );
        }
    }
}
