//! How do the command-line clients talk to a server, and what do they say when none is there?

use std::{io::Read, time::Duration};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use ureq::{Agent, Body, Timeout, http::Response};

use super::{CliError, flags::ClientFlags};

/// What is escaped in a path: everything but what RFC 3986 allows there.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
/// What is escaped in a query: that, and what separates pairs.
const QUERY: &AsciiSet = &PATH.add(b'&').add(b'+').add(b'=').add(b'/');

/// For a server's machine to answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a server to begin its answer. It waits up to 7 s for a leader itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest answer that is read, bytes.
const ANSWER_BYTES_MAX: u64 = 4 << 30;

/// A server's HTTP API.
pub(super) struct Client {
    agent: Agent,
    base: String,
    token: Option<String>,
    query: Vec<String>,
}

/// A server's answer.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Client {
    pub(super) fn new(flags: &ClientFlags) -> Result<Self, CliError> {
        let base = base(&flags.http_addr)?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .build();
        let mut query = Vec::new();
        if let Some(datacenter) = &flags.datacenter {
            query.push(pair("dc", datacenter));
        }
        if flags.stale {
            query.push("stale".into());
        }
        let token = flags.token.clone().filter(|token| !token.is_empty());
        Ok(Self {
            agent: config.into(),
            base,
            token,
            query,
        })
    }

    /// GETs `path` with the pairs of `query`.
    pub(super) fn get(&self, path: &str, query: &[String]) -> Result<Reply, CliError> {
        let mut request = self.agent.get(self.url(path, query));
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token);
        }
        self.read(request.call())
    }

    /// PUTs `body` to `path`.
    pub(super) fn put(&self, path: &str, query: &[String], body: &[u8]) -> Result<Reply, CliError> {
        let mut request = self.agent.put(self.url(path, query));
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token);
        }
        self.read(request.send(body))
    }

    /// DELETEs `path`.
    pub(super) fn delete(&self, path: &str, query: &[String]) -> Result<Reply, CliError> {
        let mut request = self.agent.delete(self.url(path, query));
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token);
        }
        self.read(request.call())
    }

    fn url(&self, path: &str, query: &[String]) -> String {
        let mut url = format!("{}{path}", self.base);
        for (at, pair) in self.query.iter().chain(query).enumerate() {
            url.push(if at == 0 { '?' } else { '&' });
            url.push_str(pair);
        }
        url
    }

    fn read(&self, called: Result<Response<Body>, ureq::Error>) -> Result<Reply, CliError> {
        let response = called.map_err(|error| match error {
            ureq::Error::Timeout(Timeout::RecvResponse) => CliError(format!(
                "the server at {} has taken the request and not answered it for {} s. If it was a \
                 write, it may or may not have happened: read before you try again",
                self.base,
                ANSWER_TIMEOUT.as_secs()
            )),
            error => self.unreachable(&error.to_string()),
        })?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        response
            .into_body()
            .into_with_config()
            .limit(ANSWER_BYTES_MAX)
            .reader()
            .read_to_end(&mut body)
            .map_err(|error| CliError(format!("the answer of {} broke off: {error}", self.base)))?;
        Ok(Reply { status, body })
    }

    fn unreachable(&self, why: &str) -> CliError {
        CliError(format!(
            "no server answers at {}: {why}. Is one running there? Start one with `curia agent -dev`, \
             or name another with -http-addr=HOST:PORT or CONSUL_HTTP_ADDR",
            self.base
        ))
    }
}

impl Reply {
    /// The body of a success; otherwise status and text as Consul's client library prints them.
    pub(super) fn success(self) -> Result<Vec<u8>, CliError> {
        match self.status {
            200 => Ok(self.body),
            status => Err(CliError(format!(
                "Unexpected response code: {status} ({})",
                String::from_utf8_lossy(&self.body).trim_end()
            ))),
        }
    }

    /// Consul's answer to a write.
    pub(super) fn took_effect(self) -> Result<bool, CliError> {
        Ok(self.success()?.trim_ascii() == b"true")
    }
}

/// Path of a key.
pub(super) fn kv_path(key: &str) -> String {
    // A server would redirect `//`, `/./` and `/../` to another key; an escaped slash stays.
    let escaped = utf8_percent_encode(key, PATH).to_string();
    let odd = escaped.contains("//")
        || escaped
            .split('/')
            .any(|segment| matches!(segment, "." | ".."));
    format!(
        "/v1/kv/{}",
        if odd {
            escaped.replace('/', "%2F")
        } else {
            escaped
        }
    )
}

/// `name=value`, escaped.
pub(super) fn pair(name: &str, value: &str) -> String {
    format!("{name}={}", utf8_percent_encode(value, QUERY))
}

fn base(address: &str) -> Result<String, CliError> {
    let wrong = |why: &str| {
        CliError(format!(
            "Error: -http-addr (CONSUL_HTTP_ADDR) {address:?}: {why}: give HOST:PORT or http://HOST:PORT"
        ))
    };
    let ssl = std::env::var("CONSUL_HTTP_SSL").unwrap_or_default();
    if address.starts_with("https://") || matches!(&*ssl, "1" | "true") {
        return Err(wrong("HTTPS is not supported yet"));
    }
    if address.starts_with("unix://") {
        return Err(wrong("unix sockets are not supported"));
    }
    let host = address
        .strip_prefix("http://")
        .unwrap_or(address)
        .trim_end_matches('/');
    if host.is_empty() || host.contains(['/', ' ']) {
        return Err(wrong("not an address"));
    }
    Ok(format!("http://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_the_path() {
        for (key, path) in [
            ("a/b", "/v1/kv/a/b"),
            ("a b?c#d%", "/v1/kv/a%20b%3Fc%23d%25"),
            ("a//b", "/v1/kv/a%2F%2Fb"),
            ("a/../b", "/v1/kv/a%2F..%2Fb"),
            ("\u{e9}", "/v1/kv/%C3%A9"),
        ] {
            assert_eq!(kv_path(key), path);
        }
    }

    #[test]
    fn addresses_are_checked() {
        assert_eq!(base("127.0.0.1:8500").unwrap(), "http://127.0.0.1:8500");
        assert_eq!(
            base("http://curia.example:1/").unwrap(),
            "http://curia.example:1"
        );
        for bad in ["https://a:1", "unix:///run/x", "", "a/b"] {
            assert!(base(bad).unwrap_err().0.contains("-http-addr"), "{bad}");
        }
    }
}
