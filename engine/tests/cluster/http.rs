//! What does an HTTP client see, and what may it conclude?
//!
//! One connection per request, and never a second attempt: so a refused connection proves that
//! nothing was asked, and any other break leaves the outcome open.

use std::{collections::BTreeMap, io, net::SocketAddr, time::Duration};

use ureq::Agent;

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// No answer.
#[derive(Clone, Debug)]
pub enum NoAnswer {
    /// Nobody listened: nothing was asked.
    Refused,
    /// The request may or may not have been carried out.
    Unknown(String),
}

/// A row of a listing, as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub key: String,
    pub value: Vec<u8>,
    pub create_index: u64,
    pub modify_index: u64,
    pub flags: u64,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("not JSON: {e}: {}", self.text()))
    }

    pub fn is_true(&self) -> bool {
        self.status == 200 && self.text().trim() == "true"
    }

    /// The rows of a listing; none for 404.
    pub fn rows(&self) -> Vec<Row> {
        if self.status == 404 {
            return Vec::new();
        }
        assert_eq!(self.status, 200, "a listing failed: {}", self.text());
        let json = self.json();
        json.as_array()
            .expect("a listing is an array")
            .iter()
            .map(row)
            .collect()
    }
}

fn row(value: &serde_json::Value) -> Row {
    use base64::Engine;
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| {
        value[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name} is not a number: {value}"))
    };
    Row {
        key: text("Key"),
        value: base64::engine::general_purpose::STANDARD
            .decode(text("Value"))
            .expect("values are base64"),
        create_index: number("CreateIndex"),
        modify_index: number("ModifyIndex"),
        flags: number("Flags"),
    }
}

/// A client of one server.
#[derive(Clone)]
pub struct Http {
    address: SocketAddr,
    agent: Agent,
}

impl Http {
    /// A client that waits for each answer as long as `patience`.
    pub fn new(address: SocketAddr, patience: Duration) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_idle_connections(0)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(patience))
            .build()
            .new_agent();
        Self { address, agent }
    }

    pub fn get(&self, path: &str) -> Result<Answer, NoAnswer> {
        take(self.agent.get(self.url(path)).call())
    }

    pub fn put(&self, path: &str, body: &[u8]) -> Result<Answer, NoAnswer> {
        take(self.agent.put(self.url(path)).send(body))
    }

    pub fn post(&self, path: &str, body: &[u8]) -> Result<Answer, NoAnswer> {
        take(self.agent.post(self.url(path)).send(body))
    }

    pub fn delete(&self, path: &str) -> Result<Answer, NoAnswer> {
        take(self.agent.delete(self.url(path)).call())
    }

    /// A GET with one header.
    pub fn get_with(&self, path: &str, name: &str, value: &str) -> Result<Answer, NoAnswer> {
        take(self.agent.get(self.url(path)).header(name, value).call())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn take(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answer, NoAnswer> {
    let response = result.map_err(broken)?;
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    let mut body = response.into_body();
    let body = body
        .with_config()
        .limit(1 << 30)
        .read_to_vec()
        .map_err(broken)?;
    Ok(Answer {
        status,
        headers,
        body,
    })
}

fn broken(error: ureq::Error) -> NoAnswer {
    match &error {
        ureq::Error::Io(io) if io.kind() == io::ErrorKind::ConnectionRefused => NoAnswer::Refused,
        _ => NoAnswer::Unknown(error.to_string()),
    }
}
