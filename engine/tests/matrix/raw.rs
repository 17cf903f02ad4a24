//! How is a request sent whose path nobody touches on its way?
//!
//! HTTP clients tidy paths up; here the bytes go out as they are, over HTTP/1.0, whose answers end
//! with their connection.

use std::{
    collections::BTreeMap,
    fmt,
    io::{Read, Write},
    net::TcpStream,
};

use super::super::cluster::{PATIENCE, server::Server};

/// What came back.
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        let short: String = text.chars().take(200).collect();
        write!(f, "{} {short:?}", self.status)
    }
}

/// Asks a server, as whoever bears this token; an empty one is none.
pub fn ask(server: &Server, method: &str, path: &str, body: &str, token: &str) -> Answer {
    let bytes = body.len();
    ask_with(server, method, path, body, bytes, token)
}

/// The same with a length that is not the body's.
pub fn ask_with(
    server: &Server,
    method: &str,
    path: &str,
    body: &str,
    bytes: usize,
    token: &str,
) -> Answer {
    let mut stream = TcpStream::connect(server.http_address()).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let token = match token {
        "" => String::new(),
        token => format!("X-Consul-Token: {token}\r\n"),
    };
    let head = format!("{method} {path} HTTP/1.0\r\n{token}Content-Length: {bytes}\r\n\r\n");
    let sent = stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice());
    sent.expect("the server reads");
    let mut all = Vec::new();
    let read = stream.read_to_end(&mut all);
    read.unwrap_or_else(|why| panic!("{method} {path}: {why}"));
    parse(&all).unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&all);
        panic!("{method} {path}: no answer: {text:?}")
    })
}

fn parse(all: &[u8]) -> Option<Answer> {
    let end = all.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&all[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Some(Answer {
        status,
        headers: headers.collect(),
        body: all[end + 4..].to_vec(),
    })
}
