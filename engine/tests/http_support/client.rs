//! A client that sends exactly the bytes it is told to, and reads answers one by one.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
    events: VecDeque<Event>,
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    pub data: Value,
    /// `Some("")` for an empty one.
    pub id: Option<String>,
}

impl Event {
    fn parse(text: &str) -> Self {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(|rest| rest.strip_prefix(' ').unwrap_or(rest).to_owned())
        };
        Self {
            name: field("event:").expect("every event has a name"),
            data: serde_json::from_str(&field("data:").expect("data")).unwrap(),
            id: field("id:"),
        }
    }

    /// Name, and what it is about: the key with the operation, or nothing.
    pub fn what(&self) -> String {
        match (self.data["Op"].as_str(), self.data["Key"].as_str()) {
            (Some(op), Some(key)) => format!("{} {op} {key}", self.name),
            _ => self.name.clone(),
        }
    }
}

/// One answer. Header names are as they came.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether all of the body came.
    pub complete: bool,
}

/// The bytes of a request with a body of known length.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: curia\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() || method == "PUT" {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// The bytes of a GET.
pub fn get(target: &str) -> Vec<u8> {
    request("GET", target, &[], b"")
}

/// The bytes of a PUT.
pub fn put(target: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    request("PUT", target, &[], body.as_ref())
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        // Only a test that fails waits so long.
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        stream
            .set_write_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        Self {
            reader: BufReader::new(stream.try_clone().unwrap()),
            events: VecDeque::new(),
            stream,
        }
    }

    pub fn get(&mut self, target: &str) -> Response {
        self.request("GET", target, &[], b"")
    }

    pub fn put(&mut self, target: &str, body: impl AsRef<[u8]>) -> Response {
        self.request("PUT", target, &[], body.as_ref())
    }

    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.send(&request(method, target, headers, body));
        self.read_for(method)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    pub fn read(&mut self) -> Response {
        self.read_for("GET")
    }

    /// The next answer, to a request of this method.
    pub fn read_for(&mut self, method: &str) -> Response {
        self.try_read(method).expect("an answer")
    }

    /// The next answer; `None` when the connection ends instead.
    pub fn try_read(&mut self, method: &str) -> Option<Response> {
        let line = self.line()?;
        let status = line.strip_prefix("HTTP/1.1 ").expect("a status line")[..3]
            .parse()
            .unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line().expect("a header");
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            headers.push((name.to_string(), value.to_string()));
        }
        let mut response = Response {
            status,
            headers,
            body: Vec::new(),
            complete: true,
        };
        let bodiless = method == "HEAD" || status == 100;
        if bodiless {
        } else if response.header("Transfer-Encoding") == Some("chunked") {
            self.read_chunks(&mut response);
        } else if let Some(length) = response.header("Content-Length") {
            response.body = vec![0; length.parse().unwrap()];
            self.reader.read_exact(&mut response.body).unwrap();
        }
        Some(response)
    }

    fn read_chunks(&mut self, response: &mut Response) {
        loop {
            let Some(size) = self.line() else {
                response.complete = false;
                return;
            };
            let size = usize::from_str_radix(&size, 16).unwrap();
            let mut chunk = vec![0; size + 2];
            self.reader.read_exact(&mut chunk).unwrap();
            if size == 0 {
                return;
            }
            response.body.extend_from_slice(&chunk[..size]);
        }
    }

    /// The head of an answer whose body is read by [`Self::event`].
    pub fn read_head(&mut self) -> Response {
        self.try_read("HEAD").expect("an answer")
    }

    /// The next event of a stream; `None` at its end. A chunk holds whole events.
    pub fn event(&mut self) -> Option<Event> {
        while self.events.is_empty() {
            let size = usize::from_str_radix(&self.line()?, 16).unwrap();
            let mut chunk = vec![0; size + 2];
            self.reader.read_exact(&mut chunk).unwrap();
            if size == 0 {
                return None;
            }
            let text = std::str::from_utf8(&chunk[..size]).unwrap();
            self.events = text.split_terminator("\n\n").map(Event::parse).collect();
        }
        self.events.pop_front()
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end_matches("\r\n").to_string()),
        }
    }

    /// Whether the server has closed the connection; waits for it.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        matches!(self.reader.read_to_end(&mut rest), Ok(0)) && rest.is_empty()
    }
}

impl Response {
    /// A header by its name, spelt as on the wire.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| &**value)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and body, for a table of cases.
    pub fn outcome(&self) -> (u16, &str) {
        (self.status, self.text())
    }
}
