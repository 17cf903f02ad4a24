//! When the faults are over: is it one cluster again, and is what clients saw possible?
//!
//! Every server must come to hold what the leader says the newest state is; every key is read once
//! more and written down with the rest; then both judges read the history. Whoever finds something
//! keeps everything: data directories, what the servers said, and the history, with the command that
//! judges it again.
//!
//! Invariant: a round without operations proves nothing, and is a failure.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::client::Stage;
use super::http::{Http, Mode, row};
use super::link::Heard;
use super::place::tool;
use super::servers::Servers;
use crate::judge::{self, Answer, Call, History, Operation, Row};
use crate::{Error, Result};

/// How long servers may take to become one cluster of equal copies.
pub const EQUAL_MAX: Duration = Duration::from_secs(90);
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Who reads at the end: no client has this number.
const READER: u32 = 1_000;

type Rows = BTreeMap<String, Row>;

/// Waits until every server's own copy is what a consistent listing shows; its rows.
pub fn wait_equal(servers: &mut Servers, prefix: &str) -> Result<Rows> {
    let deadline = Instant::now() + EQUAL_MAX;
    servers.wait_agreed(EQUAL_MAX)?;
    let mut links: Vec<Http> = servers.http().into_iter().map(Http::new).collect();
    loop {
        servers.check_alive()?;
        let newest = list(&mut links[0], prefix, "consistent");
        let own: Vec<Option<Rows>> = links
            .iter_mut()
            .map(|link| list(link, prefix, "stale"))
            .collect();
        if let Some(newest) = newest
            && own.iter().all(|rows| rows.as_ref() == Some(&newest))
        {
            return Ok(newest);
        }
        if Instant::now() > deadline {
            let counts: Vec<Option<usize>> = own
                .iter()
                .map(|rows| rows.as_ref().map(Rows::len))
                .collect();
            let words: Vec<String> = (0..servers.count())
                .map(|at| format!("--- node-{}:\n{}", at + 1, servers.last_words(at)))
                .collect();
            return Err(Error::Violation(format!(
                "{EQUAL_MAX:?} after the end of all faults the servers' copies still differ; rows: {counts:?}\n{}",
                words.join("\n")
            )));
        }
        sleep(ASK_EVERY);
    }
}

fn list(link: &mut Http, prefix: &str, mode: &str) -> Option<Rows> {
    let response = link.ask("GET", &format!("/v1/kv/{prefix}?recurse&{mode}"), b"")?;
    if response.status == 404 {
        return Some(Rows::new());
    }
    let json: serde_json::Value = serde_json::from_slice(&response.body).ok()?;
    let rows = json.as_array()?.iter();
    rows.map(|json| Some((json["Key"].as_str()?.to_owned(), row(json)?)))
        .collect()
}

/// Reads every key that was touched, consistently and from each server's own copy.
pub fn read_all(servers: &Servers, stage: &Stage, history: &mut History) -> Result<()> {
    let mut links: Vec<Http> = servers.http().into_iter().map(Http::new).collect();
    for key in keys(history) {
        let mut calls = vec![(0, Call::Get { key: key.clone() })];
        calls.extend((0..links.len()).map(|at| (at, Call::GetStale { key: key.clone() })));
        for (at, call) in calls {
            let called_ns = stage.now_ns();
            match links[at].call(&call, Mode::Consistent) {
                Heard::Answer(answer) => history.operations.push(Operation {
                    client: READER + at as u32,
                    call,
                    called_ns,
                    answer: Some((stage.now_ns(), answer)),
                }),
                other => {
                    let what = format!("a healed server answered {other:?} to {call:?}");
                    return Err(Error::Violation(what));
                }
            }
        }
    }
    Ok(())
}

fn keys(history: &History) -> Vec<String> {
    use judge::Step;
    let of_step = |step: &Step| match step {
        Step::Set { key, .. }
        | Step::Cas { key, .. }
        | Step::Delete { key }
        | Step::DeleteCas { key, .. }
        | Step::Acquire { key, .. }
        | Step::Release { key, .. }
        | Step::Get { key } => Some(key.clone()),
        Step::DeleteTree { .. } => None,
    };
    let mut keys: Vec<String> = Vec::new();
    for operation in &history.operations {
        match &operation.call {
            Call::Get { key } | Call::GetStale { key } => keys.push(key.clone()),
            Call::Step(step) => keys.extend(of_step(step)),
            Call::Txn(steps) => keys.extend(steps.iter().filter_map(of_step)),
            Call::CreateSession | Call::DestroySession { .. } => {}
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

/// What a history holds, for the report.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Counts {
    /// Calls written down.
    pub operations: u64,
    /// Changes that were acknowledged: done, or their condition did not hold.
    pub acknowledged: u64,
    /// Calls of which it was promised that nothing happened.
    pub refused: u64,
    /// Calls of which nobody knows.
    pub unknown: u64,
    /// Reads.
    pub reads: u64,
    /// Objects that were judged.
    pub objects: u64,
    /// Objects too large to be decided.
    pub undecided: u64,
}

impl Counts {
    /// Counts one history.
    pub fn of(history: &History) -> Self {
        let mut counts = Self {
            operations: history.operations.len() as u64,
            ..Self::default()
        };
        for operation in &history.operations {
            match &operation.answer {
                None => counts.unknown += 1,
                Some((_, Answer::Refused)) => counts.refused += 1,
                Some((_, Answer::Row(..))) => counts.reads += 1,
                Some(_) => counts.acknowledged += 1,
            }
        }
        counts
    }

    /// Adds another round's.
    pub fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.reads += other.reads;
        self.objects += other.objects;
        self.undecided += other.undecided;
    }
}

/// Lets both judges read a history; `Err` with what they found.
pub fn judge(history: &History, counts: &mut Counts) -> Result<()> {
    let verdict = judge::all(history);
    counts.objects += verdict.objects as u64;
    counts.undecided += verdict.undecided.len() as u64;
    for line in &verdict.undecided {
        eprintln!("undecided: {line}");
    }
    match verdict.violations.is_empty() {
        true => Ok(()),
        false => Err(Error::Violation(verdict.violations.join("\n"))),
    }
}

/// Stops the servers, and copies data from disks that go with this process to where it stays.
pub fn save_data(servers: &mut Servers, home: &Path) {
    let all: Vec<usize> = (0..servers.count()).collect();
    servers.kill_after_power_cut(&all);
    for at in all {
        let server = servers.at(at);
        if server.disk.is_none() {
            continue;
        }
        let to = home.join(format!("node-{}.data", at + 1));
        let from = server.node.data_dir.display().to_string();
        if let Err(error) = tool("cp", &["-a", &from, &to.display().to_string()]) {
            eprintln!("not kept: {error}");
        }
    }
}

/// Adds to a failure where everything about it is.
pub fn keep(error: &Error, history: Option<&History>, home: &Path) -> Error {
    let mut text = match error {
        Error::Violation(text) => text.clone(),
        other => other.to_string(),
    };
    text += &format!(
        "\nkept: data and output of all servers in {}",
        home.display()
    );
    if let Some(history) = history {
        let path = home.join("history.jsonl");
        match judge::file::write(history, &path) {
            Ok(()) => text += &format!("\nto judge it again: curia-bench judge {}", path.display()),
            Err(error) => text += &format!("\nthe history could not be kept: {error}"),
        }
    }
    Error::Violation(text)
}
