//! The calls that locks make, and which of their failures one rides out.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::super::{
    CliError,
    client::{Client, Reply, kv_path, next_index, pair},
    kv::Row,
};

/// How a read waits and what it may miss.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    /// Waits for a change after this index; 0 does not wait.
    pub(super) index: u64,
    /// Longest wait.
    pub(super) wait: Duration,
    /// Asks the leader, which asks a quorum.
    pub(super) consistent: bool,
}

/// Why a call failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) why: String,
    /// No answer, or a server's trouble (500): it may be over in a moment.
    pub(super) passing: bool,
}

impl Failure {
    pub(super) fn saying(self, what: &str) -> CliError {
        CliError(format!("{what}: {}", self.why))
    }
}

/// A key's value as contenders write it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) key: &'a str,
    pub(super) flags: u64,
    pub(super) value: &'a [u8],
}

#[derive(Clone)]
pub(super) struct Store {
    pub(super) client: Client,
}

impl Store {
    /// The row of a key, and the index to wait with next.
    pub(super) fn get(&self, key: &str, look: Look) -> Result<(Option<Row>, u64), Failure> {
        let (rows, index) = self.rows(key, &[], look)?;
        Ok((rows.into_iter().next(), index))
    }

    /// The rows below a prefix, and the index to wait with next.
    pub(super) fn list(&self, prefix: &str, look: Look) -> Result<(Vec<Row>, u64), Failure> {
        self.rows(prefix, &["recurse".into()], look)
    }

    fn rows(&self, key: &str, more: &[String], look: Look) -> Result<(Vec<Row>, u64), Failure> {
        let mut query = more.to_vec();
        if look.consistent {
            query.push("consistent".into());
        }
        if look.index > 0 {
            query.push(format!("index={}", look.index));
            query.push(format!("wait={}ms", look.wait.as_millis()));
        }
        let reply = self
            .client
            .get_blocking(&kv_path(key), &query, look.wait)
            .map_err(unanswered)?;
        let index = next_index(look.index, reply.index);
        if reply.status == 404 {
            return Ok((Vec::new(), index));
        }
        let rows = serde_json::from_slice(&answered(reply)?).map_err(|error| Failure {
            why: format!("the server's answer is not as expected: {error}"),
            passing: false,
        })?;
        Ok((rows, index))
    }

    /// Writes an entry and takes it for `session`, unless another has it.
    pub(super) fn acquire(&self, entry: Entry<'_>, session: &str) -> Result<bool, Failure> {
        self.put(entry, pair("acquire", session))
    }

    /// Writes an entry and gives it up, if `session` has it.
    pub(super) fn release(&self, entry: Entry<'_>, session: &str) -> Result<bool, Failure> {
        self.put(entry, pair("release", session))
    }

    /// Writes an entry if its row is still that of `index`.
    pub(super) fn cas(&self, entry: Entry<'_>, index: u64) -> Result<bool, Failure> {
        self.put(entry, format!("cas={index}"))
    }

    fn put(&self, entry: Entry<'_>, how: String) -> Result<bool, Failure> {
        let query = [format!("flags={}", entry.flags), how];
        let reply = self.client.put(&kv_path(entry.key), &query, entry.value);
        took_effect(reply)
    }

    pub(super) fn delete(&self, key: &str) -> Result<bool, Failure> {
        took_effect(self.client.delete(&kv_path(key), &[]))
    }

    /// Deletes a key if its row is still that of `index`.
    pub(super) fn delete_cas(&self, key: &str, index: u64) -> Result<bool, Failure> {
        let query = [format!("cas={index}")];
        took_effect(self.client.delete(&kv_path(key), &query))
    }
}

fn unanswered(CliError(why): CliError) -> Failure {
    Failure { why, passing: true }
}

fn answered(reply: Reply) -> Result<Vec<u8>, Failure> {
    let passing = reply.status >= 500 || reply.status == 429;
    reply
        .success()
        .map_err(|CliError(why)| Failure { why, passing })
}

fn took_effect(reply: Result<Reply, CliError>) -> Result<bool, Failure> {
    Ok(answered(reply.map_err(unanswered)?)?.trim_ascii() == b"true")
}

/// The bytes of a row's value; one that is not Base64 has none.
pub(super) fn bytes(row: &Row) -> Vec<u8> {
    STANDARD.decode(&row.value).unwrap_or_default()
}
