//! How do the command-line clients talk to a server, and what do they say when none is there?
//!
//! Two kinds of failure are told apart, because locks and watches ride out the one and not the
//! other: a request that was not answered is an `Err`, an answer of any status is a [`Reply`].

mod address;
mod unix;

use std::{io::Read, time::Duration};

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use ureq::{Agent, Body, RequestBuilder, Timeout, http::Response, typestate::WithBody};

use super::{CliError, flags::ClientFlags};
use address::Address;

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
/// What is escaped in one segment of a path: everything but what RFC 3986 calls unreserved.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// For a server's machine to answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a server to begin its answer, beyond what it was told to wait. It waits up to 7 s for a
/// leader itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest answer that is read, bytes.
const ANSWER_BYTES_MAX: u64 = 4 << 30;

/// A server's HTTP API. Copies share connections, and may be used on several threads.
#[derive(Clone)]
pub(super) struct Client {
    agent: Agent,
    address: Address,
    token: Option<String>,
    query: Vec<String>,
    /// For a server to begin its answer, beyond what it was told to wait.
    patience: Duration,
}

/// A server's answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// `X-Consul-Index`; 0 if there is none.
    pub(super) index: u64,
    /// `X-Consul-ContentHash`, of documents that are waited for by their hash.
    pub(super) content_hash: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Client {
    pub(super) fn new(flags: &ClientFlags) -> Result<Self, CliError> {
        let address = Address::parse(&flags.http_addr)?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .build();
        let agent = match &address {
            Address::Tcp(_) => config.into(),
            Address::Unix(path) => {
                Agent::with_parts(config, unix::UnixConnector(path.clone()), unix::NoResolver)
            }
        };
        let mut query = Vec::new();
        if let Some(datacenter) = &flags.datacenter {
            query.push(pair("dc", datacenter));
        }
        if flags.stale {
            query.push("stale".into());
        }
        Ok(Self {
            agent,
            address,
            token: token(flags)?,
            query,
            patience: ANSWER_TIMEOUT,
        })
    }

    /// The same, less or more patient.
    pub(super) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// GETs `path` with the pairs of `query`.
    pub(super) fn get(&self, path: &str, query: &[String]) -> Result<Reply, CliError> {
        self.get_within(path, query, self.patience)
    }

    /// As [`Client::get`], of a server that was told to wait up to `wait` before it answers.
    pub(super) fn get_blocking(
        &self,
        path: &str,
        query: &[String],
        wait: Duration,
    ) -> Result<Reply, CliError> {
        // Servers add up to a sixteenth.
        self.get_within(path, query, wait + wait / 16 + self.patience)
    }

    /// GETs what goes on until somebody leaves; its body, once the server has begun it.
    pub(super) fn stream(
        &self,
        path: &str,
        query: &[String],
    ) -> Result<impl Read + Send + 'static, CliError> {
        let called = self.begin(path, query, self.patience);
        let response = called.map_err(|error| self.failed(error, self.patience))?;
        match response.status().as_u16() {
            200 => Ok(response.into_body().into_reader()),
            _ => Err(self.read(Ok(response), self.patience)?.refusal()),
        }
    }

    fn get_within(
        &self,
        path: &str,
        query: &[String],
        timeout: Duration,
    ) -> Result<Reply, CliError> {
        let called = self.begin(path, query, timeout);
        self.read(called, timeout)
    }

    fn begin(
        &self,
        path: &str,
        query: &[String],
        timeout: Duration,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(self.url(path, query));
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token);
        }
        let request = request
            .config()
            .timeout_recv_response(Some(timeout))
            .build();
        request.call()
    }

    /// PUTs `body` to `path`.
    pub(super) fn put(&self, path: &str, query: &[String], body: &[u8]) -> Result<Reply, CliError> {
        let request = self.put_request(path, query).config();
        let request = request.timeout_recv_response(Some(self.patience)).build();
        self.read(request.send(body), self.patience)
    }

    /// PUTs a document to `path`; the document that is answered.
    pub(super) fn put_json(
        &self,
        path: &str,
        document: &impl Serialize,
    ) -> Result<Vec<u8>, CliError> {
        let body = serde_json::to_vec(document)
            .map_err(|error| CliError(format!("this cannot be said in JSON: {error}")))?;
        self.put(path, &[], &body)?.success()
    }

    /// As [`Client::put`], given up after `timeout` whatever it hangs at.
    pub(super) fn put_within(
        &self,
        path: &str,
        query: &[String],
        body: &[u8],
        timeout: Duration,
    ) -> Result<Reply, CliError> {
        let request = self.put_request(path, query).config();
        let request = request.timeout_global(Some(timeout)).build();
        self.read(request.send(body), timeout)
    }

    fn put_request(&self, path: &str, query: &[String]) -> RequestBuilder<WithBody> {
        let request = self.agent.put(self.url(path, query));
        match &self.token {
            Some(token) => request.header("X-Consul-Token", token),
            None => request,
        }
    }

    /// DELETEs `path`.
    pub(super) fn delete(&self, path: &str, query: &[String]) -> Result<Reply, CliError> {
        let mut request = self.agent.delete(self.url(path, query));
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token);
        }
        let request = request
            .config()
            .timeout_recv_response(Some(self.patience))
            .build();
        self.read(request.call(), self.patience)
    }

    fn url(&self, path: &str, query: &[String]) -> String {
        let mut url = format!("{}{path}", self.address.base());
        for (at, pair) in self.query.iter().chain(query).enumerate() {
            url.push(if at == 0 { '?' } else { '&' });
            url.push_str(pair);
        }
        url
    }

    fn read(
        &self,
        called: Result<Response<Body>, ureq::Error>,
        timeout: Duration,
    ) -> Result<Reply, CliError> {
        let name = self.address.name();
        let response = called.map_err(|error| self.failed(error, timeout))?;
        let status = response.status().as_u16();
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            Some(value.to_str().ok()?.to_owned())
        };
        let index = header("X-Consul-Index")
            .and_then(|index| index.parse().ok())
            .unwrap_or(0);
        let content_hash = header("X-Consul-ContentHash");
        let mut body = Vec::new();
        response
            .into_body()
            .into_with_config()
            .limit(ANSWER_BYTES_MAX)
            .reader()
            .read_to_end(&mut body)
            .map_err(|error| CliError(format!("the answer of {name} broke off: {error}")))?;
        Ok(Reply {
            status,
            index,
            content_hash,
            body,
        })
    }

    fn failed(&self, error: ureq::Error, timeout: Duration) -> CliError {
        match error {
            ureq::Error::Timeout(Timeout::RecvResponse | Timeout::Global) => CliError(format!(
                "the server at {} has taken the request and not answered it for {} s. If it \
                 was a write, it may or may not have happened: read before you try again",
                self.address.name(),
                timeout.as_secs()
            )),
            error => self.unreachable(&error.to_string()),
        }
    }

    fn unreachable(&self, why: &str) -> CliError {
        CliError(format!(
            "no server answers at {}: {why}. Is one running there? Start one with `curia agent -dev`, \
             or name another with -http-addr=HOST:PORT or CONSUL_HTTP_ADDR",
            self.address.name()
        ))
    }
}

impl Reply {
    /// The body of a success; otherwise status and text as Consul's client library prints them.
    pub(super) fn success(self) -> Result<Vec<u8>, CliError> {
        match self.status {
            200 => Ok(self.body),
            _ => Err(self.refusal()),
        }
    }

    /// The error that an answer other than 200 is.
    pub(super) fn refusal(&self) -> CliError {
        CliError(format!(
            "Unexpected response code: {} ({})",
            self.status,
            String::from_utf8_lossy(&self.body).trim_end()
        ))
    }

    /// The document of a success.
    pub(super) fn json<T: DeserializeOwned>(self) -> Result<T, CliError> {
        serde_json::from_slice(&self.success()?)
            .map_err(|error| CliError(format!("the server's answer is not as expected: {error}")))
    }

    /// Consul's answer to a write.
    pub(super) fn took_effect(self) -> Result<bool, CliError> {
        Ok(self.success()?.trim_ascii() == b"true")
    }
}

/// The index to wait with after an answer of index `answered` to a wait with `asked`.
///
/// An index that goes back (the state was restored) means to start over, with 0; no index at all
/// is 1, for 0 would not wait.
pub(super) fn next_index(asked: u64, answered: u64) -> u64 {
    match answered < asked {
        true => 0,
        false => answered.max(1),
    }
}

/// The token to send: that of the file, if one is named, as in Consul.
fn token(flags: &ClientFlags) -> Result<Option<String>, CliError> {
    let token = match flags.token_file.as_deref().filter(|path| !path.is_empty()) {
        None => flags.token.clone(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| CliError(format!("Error loading token file {path} : {error}")))?;
            Some(text.trim().to_owned())
        }
    };
    Ok(token.filter(|token| !token.is_empty()))
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

/// `prefix/name`, where the name is one segment whatever is in it.
pub(super) fn path_of(prefix: &str, name: &str) -> String {
    format!("{prefix}/{}", utf8_percent_encode(name, SEGMENT))
}

/// `name=value`, escaped.
pub(super) fn pair(name: &str, value: &str) -> String {
    format!("{name}={}", utf8_percent_encode(value, QUERY))
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
        assert_eq!(
            path_of("/v1/catalog/node", "a/b c"),
            "/v1/catalog/node/a%2Fb%20c"
        );
    }
}
