//! Do clients that no one here wrote get what they expect, through the death of a leader?
//!
//! `py-consul`, `consul` from npm and `rs-consul` each run a script of theirs (`tests/clients/`)
//! against three servers. A script goes through its parts three times: while all servers run, when
//! the leader has just been killed (nobody waits for the next: the servers hold what comes), and
//! when the dead one is back. It asks for the kill and for the start on its standard output and is
//! told on its standard input; a part that it did not report is a failure, so that nothing is left
//! out by mistake.
//!
//! `scripts/clients` installs the clients and runs this; `cargo test` alone does not, since it must
//! pass without Python and Node.

mod cluster;

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
};

use cluster::{PATIENCE, group::Group};

/// What every client exercises.
const PARTS: [&str; 4] = ["kv", "watch", "lock", "catalog"];
/// What only those exercise that know it: `rs-consul` has no transactions, sessions of its own, or health.
const PARTS_OF_SOME: [&str; 4] = ["txn", "session", "health", "agent"];

/// Where `scripts/clients` installed them.
fn installed() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    target.expect("a target directory").join("clients")
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// A script that runs, and is ended with the test.
struct Script {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Script {
    fn start(program: &Path, script: Option<&Path>, group: &Group, parts: &[&str]) -> Self {
        // Followers come first: a script that speaks to the first server outlives the leader.
        let mut order = group.followers();
        order.push(group.wait_for_leader());
        let addresses: Vec<String> = order
            .iter()
            .map(|at| group[*at].http_address().to_string())
            .collect();
        let mut child = Command::new(program)
            .args(script)
            .args([addresses.join(","), parts.join(",")])
            .env("NODE_PATH", installed().join("node/node_modules"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}: run scripts/clients", program.display()));
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            input,
            lines,
        }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the script listens");
    }

    /// Serves what the script asks for, to its end; the parts that it went through.
    fn run(mut self, group: &mut Group) -> BTreeSet<String> {
        let mut done = BTreeSet::new();
        let mut killed = None;
        loop {
            let line = match self.lines.recv_timeout(2 * PATIENCE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the script says nothing more"),
            };
            println!("{line}");
            match line.split_once(' ').unwrap_or((&line, "")) {
                ("kill", "") => {
                    let leader = group.wait_for_leader();
                    let address = group[leader].http_address();
                    group[leader].kill();
                    killed = Some(leader);
                    self.say(&address.to_string());
                }
                ("start", "") => {
                    group[killed.expect("killed before")].start();
                    group.wait_for_leader();
                    group.wait_for_equal_states();
                    self.say("started");
                }
                ("done", part) => assert!(done.insert(part.to_owned()), "{part} twice"),
                _ => panic!("not understood: {line}"),
            }
        }
        let status = self.child.wait().expect("a child can be waited for");
        assert!(status.success(), "the script ended with {status}");
        assert!(killed.is_some(), "no leader was killed");
        done
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn check(program: &Path, script: Option<&Path>, parts: &[&str]) {
    let mut group = Group::formed(3, &[]);
    let script = Script::start(program, script, &group, parts);
    let done = script.run(&mut group);
    let asked: BTreeSet<String> = parts.iter().map(|part| (*part).to_owned()).collect();
    assert_eq!(done, asked);
}

#[test]
fn py_consul() {
    let python = installed().join("python/bin/python");
    let script = scripts().join("python/main.py");
    let parts = [&PARTS[..], &PARTS_OF_SOME].concat();
    check(&python, Some(&script), &parts);
}

#[test]
fn consul_of_npm() {
    let script = scripts().join("node/main.js");
    let parts = [&PARTS[..], &PARTS_OF_SOME].concat();
    check(Path::new("node"), Some(&script), &parts);
}

#[test]
fn rs_consul() {
    let program = installed().join("rs/debug/client");
    check(&program, None, &PARTS);
}
