//! How does a call travel over HTTP, and what does the answer prove?
//!
//! As Consul's clients do it. A connection is kept until something goes wrong on it; one that the
//! server has closed meanwhile is noticed before a request is sent on it, so that its outcome is not
//! unknown for nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::link::Heard;
use crate::http::{Response, ResponseReader, request};
use crate::judge::{Answer, Call, Row, Step};

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// Longest wait for an answer: more than servers hold a request in these runs.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// The catalog's node that sessions are of; no server tends it.
pub const NODE: &str = "nemesis";

/// How exact a read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Under the leader's lease.
    Default,
    /// Confirmed by a quorum.
    Consistent,
}

/// A client's connection to one server.
#[derive(Debug)]
pub struct Http {
    address: SocketAddr,
    open: Option<(TcpStream, ResponseReader)>,
}

enum Broken {
    /// Nothing was sent.
    Before,
    /// Something was.
    After,
}

impl Http {
    /// Not connected yet.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            open: None,
        }
    }

    /// Makes a call; `mode` is for reads that may not be stale.
    pub fn call(&mut self, call: &Call, mode: Mode) -> Heard {
        let (method, path, body) = encode(call, mode);
        match self.exchange(method, &path, &body) {
            Ok(response) => judge(call, &response),
            Err(Broken::Before) => Heard::Refused,
            Err(Broken::After) => Heard::Unknown,
        }
    }

    /// Any request; `None` without an answer.
    pub fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Option<Response> {
        self.exchange(method, path, body).ok()
    }

    fn exchange(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Response, Broken> {
        let request = request(method, path, self.address, body);
        let (mut stream, mut reader) = match self.open.take().filter(|(s, _)| is_open(s)) {
            Some(open) => open,
            None => (
                self.connect().map_err(|_| Broken::Before)?,
                ResponseReader::default(),
            ),
        };
        stream.write_all(&request).map_err(|_| Broken::After)?;
        loop {
            if let Some(response) = reader.next_response().map_err(|_| Broken::After)? {
                if !response.close {
                    self.open = Some((stream, reader));
                }
                return Ok(response);
            }
            match stream.read(reader.space()) {
                Ok(0) | Err(_) => return Err(Broken::After),
                Ok(n) => reader.received(n),
            }
        }
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, CONNECT_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        Ok(stream)
    }
}

/// Whether the server has not closed it while nothing was asked.
fn is_open(stream: &TcpStream) -> bool {
    let peek = || {
        stream.set_nonblocking(true)?;
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false)?;
        peeked
    };
    matches!(peek(), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn encode(call: &Call, mode: Mode) -> (&'static str, String, Vec<u8>) {
    let suffix = match mode {
        Mode::Default => "",
        Mode::Consistent => "?consistent",
    };
    let put = |key: &str, query: String, value: &str| {
        (
            "PUT",
            format!("/v1/kv/{key}{query}"),
            value.as_bytes().to_vec(),
        )
    };
    match call {
        Call::Get { key } => ("GET", format!("/v1/kv/{key}{suffix}"), Vec::new()),
        Call::GetStale { key } => ("GET", format!("/v1/kv/{key}?stale"), Vec::new()),
        Call::Step(Step::Set { key, value }) => put(key, String::new(), value),
        Call::Step(Step::Cas { key, value, index }) => put(key, format!("?cas={index}"), value),
        Call::Step(Step::Acquire {
            key,
            value,
            session,
        }) => put(key, format!("?acquire={session}"), value),
        Call::Step(Step::Release {
            key,
            value,
            session,
        }) => put(key, format!("?release={session}"), value),
        Call::Step(Step::Delete { key }) => ("DELETE", format!("/v1/kv/{key}"), Vec::new()),
        Call::Step(Step::DeleteCas { key, index }) => {
            ("DELETE", format!("/v1/kv/{key}?cas={index}"), Vec::new())
        }
        Call::Step(Step::DeleteTree { prefix }) => {
            ("DELETE", format!("/v1/kv/{prefix}?recurse"), Vec::new())
        }
        Call::Step(Step::Get { key }) => ("GET", format!("/v1/kv/{key}"), Vec::new()),
        Call::Txn(steps) => {
            let items: Vec<Value> = steps.iter().map(item).collect();
            (
                "PUT",
                "/v1/txn".into(),
                json!(items).to_string().into_bytes(),
            )
        }
        Call::CreateSession => {
            let session = json!({"Node": NODE, "NodeChecks": [], "TTL": "", "LockDelay": "0s"});
            (
                "PUT",
                "/v1/session/create".into(),
                session.to_string().into_bytes(),
            )
        }
        Call::DestroySession { session } => {
            ("PUT", format!("/v1/session/destroy/{session}"), Vec::new())
        }
    }
}

fn item(step: &Step) -> Value {
    let coded = |value: &str| STANDARD.encode(value);
    let kv = match step {
        Step::Set { key, value } => json!({"Verb": "set", "Key": key, "Value": coded(value)}),
        Step::Cas { key, value, index } => {
            json!({"Verb": "cas", "Key": key, "Value": coded(value), "Index": index})
        }
        Step::Delete { key } => json!({"Verb": "delete", "Key": key}),
        Step::DeleteCas { key, index } => {
            json!({"Verb": "delete-cas", "Key": key, "Index": index})
        }
        Step::DeleteTree { prefix } => json!({"Verb": "delete-tree", "Key": prefix}),
        Step::Acquire {
            key,
            value,
            session,
        } => {
            json!({"Verb": "lock", "Key": key, "Value": coded(value), "Session": session})
        }
        Step::Release {
            key,
            value,
            session,
        } => {
            json!({"Verb": "unlock", "Key": key, "Value": coded(value), "Session": session})
        }
        Step::Get { key } => json!({"Verb": "get", "Key": key}),
    };
    json!({ "KV": kv })
}

/// What an answer says. Texts are those that Consul's clients match on.
fn judge(call: &Call, response: &Response) -> Heard {
    let text = String::from_utf8_lossy(&response.body);
    let text = text.trim();
    let odd = || Heard::Odd(format!("{call:?}: {} {text}", response.status));
    let done = |ok| Heard::Answer(Answer::Done { ok, index: 0 });
    match (call, response.status) {
        (Call::Get { .. } | Call::GetStale { .. }, 404) => {
            Heard::Answer(Answer::Row(None, response.index))
        }
        (Call::Get { .. } | Call::GetStale { .. }, 200) => match one_row(&response.body) {
            Some(row) => Heard::Answer(Answer::Row(Some(row), response.index)),
            None => odd(),
        },
        (Call::Step(_) | Call::DestroySession { .. }, 200) => match text {
            "true" => done(true),
            "false" => done(false),
            _ => odd(),
        },
        (Call::Step(Step::Acquire { .. }), 500) if text.contains("invalid session") => done(false),
        (Call::Txn(steps), 200) => txn_rows(steps, &response.body)
            .map_or_else(odd, |rows| Heard::Answer(Answer::Txn { rows, index: 0 })),
        (Call::Txn(_), 409) => failed_steps(&response.body)
            .map_or_else(odd, |failed| Heard::Answer(Answer::RolledBack { failed })),
        (Call::CreateSession, 200) => {
            let id = json_of(&response.body).and_then(|json| Some(json["ID"].as_str()?.to_owned()));
            id.map_or_else(odd, |session| {
                Heard::Answer(Answer::Session { session, index: 0 })
            })
        }
        (_, 500) if text.contains("leadership lost while committing log") => Heard::Unknown,
        (_, 500) if is_promise(text) => Heard::Refused,
        (_, 429 | 503 | 507) => Heard::Refused,
        _ => odd(),
    }
}

/// Failures that promise that nothing happened.
fn is_promise(text: &str) -> bool {
    let promises = [
        "No cluster leader",
        "node is not the leader",
        "not in the peer set",
        "repaired",
    ];
    promises.iter().any(|promise| text.contains(promise))
}

fn json_of(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok()
}

fn one_row(body: &[u8]) -> Option<Row> {
    let json = json_of(body)?;
    let rows = json.as_array().filter(|rows| rows.len() == 1)?;
    row(&rows[0])
}

/// A row as Consul writes it.
pub fn row(json: &Value) -> Option<Row> {
    let number = |name: &str| json[name].as_u64();
    let value = match &json["Value"] {
        Value::Null => Vec::new(),
        value => STANDARD.decode(value.as_str()?).ok()?,
    };
    Some(Row {
        value: String::from_utf8(value).ok()?,
        create_index: number("CreateIndex")?,
        modify_index: number("ModifyIndex")?,
        lock_index: number("LockIndex")?,
        session: json["Session"].as_str().unwrap_or_default().to_owned(),
    })
}

/// The rows of a transaction, in the places of their steps. Values that it wrote itself are left
/// out of the answer, and put in here.
fn txn_rows(steps: &[Step], body: &[u8]) -> Option<Vec<Option<Row>>> {
    let json = json_of(body)?;
    let empty = Vec::new();
    let mut found = json["Results"].as_array().unwrap_or(&empty).iter();
    let mut rows = Vec::new();
    for step in steps {
        let written = match step {
            Step::Delete { .. } | Step::DeleteCas { .. } | Step::DeleteTree { .. } => {
                rows.push(None);
                continue;
            }
            Step::Set { value, .. }
            | Step::Cas { value, .. }
            | Step::Acquire { value, .. }
            | Step::Release { value, .. } => Some(value),
            Step::Get { .. } => None,
        };
        let mut row = row(&found.next()?["KV"])?;
        if let Some(value) = written {
            row.value.clone_from(value);
        }
        rows.push(Some(row));
    }
    found.next().is_none().then_some(rows)
}

fn failed_steps(body: &[u8]) -> Option<Vec<usize>> {
    let json = json_of(body)?;
    let errors = json["Errors"].as_array()?.iter();
    let failed: Option<Vec<usize>> = errors
        .map(|error| Some(error["OpIndex"].as_u64()? as usize))
        .collect();
    failed.filter(|failed| !failed.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Response {
        Response {
            status,
            body: body.as_bytes().to_vec(),
            close: false,
            index: 7,
        }
    }

    fn set() -> Call {
        Call::Step(Step::Set {
            key: "a".into(),
            value: "v".into(),
        })
    }

    #[test]
    fn each_answer_proves_what_it_says_and_no_more() {
        let done = |ok| Heard::Answer(Answer::Done { ok, index: 0 });
        for (status, body, expected) in [
            (200, "true", done(true)),
            (200, "false", done(false)),
            (500, "No cluster leader", Heard::Refused),
            (507, "no space left", Heard::Refused),
            (
                500,
                "raft apply failed: leadership lost while committing log",
                Heard::Unknown,
            ),
        ] {
            assert_eq!(judge(&set(), &answer(status, body)), expected, "{body}");
        }
        for (status, body) in [(500, "internal error"), (200, "maybe"), (404, "")] {
            assert!(matches!(
                judge(&set(), &answer(status, body)),
                Heard::Odd(_)
            ));
        }
        let get = Call::Get { key: "a".into() };
        let none = Heard::Answer(Answer::Row(None, 7));
        assert_eq!(judge(&get, &answer(404, "")), none);
    }

    #[test]
    fn rows_of_transactions_stand_where_their_steps_do() {
        let steps = [
            Step::Delete { key: "x".into() },
            Step::Set {
                key: "a".into(),
                value: "v".into(),
            },
            Step::Get { key: "b".into() },
        ];
        let body = r#"{"Results":[
            {"KV":{"Key":"a","Value":null,"Flags":0,"LockIndex":0,"CreateIndex":3,"ModifyIndex":4}},
            {"KV":{"Key":"b","Value":"dw==","Flags":0,"LockIndex":1,"CreateIndex":2,"ModifyIndex":2,"Session":"s"}}
        ],"Errors":null}"#;
        let rows = txn_rows(&steps, body.as_bytes()).unwrap();
        assert_eq!(rows[0], None);
        assert_eq!(rows[1].as_ref().unwrap().value, "v");
        let read = rows[2].as_ref().unwrap();
        assert_eq!((read.value.as_str(), read.session.as_str()), ("w", "s"));
        assert_eq!(
            txn_rows(&steps[..2], body.as_bytes()),
            None,
            "one row too many"
        );
        let errors = br#"{"Results":null,"Errors":[{"OpIndex":2,"What":"x"}]}"#;
        assert_eq!(failed_steps(errors), Some(vec![2]));
    }
}
