//! Is every command that is let in at the door one that the state machine can carry out?
//!
//! `{kind, …}`: MessagePack as the body of a command of each kind, or the bytes of a whole command.
//! What [`records::check`] accepts from a client is proposed; if applying it then failed, every
//! server would stop. Accepted commands are applied to a state with rows in it and judged by
//! [`machine`](super::machine).

use std::sync::OnceLock;

use bytes::Bytes;
use engine::{
    documents::Question,
    fsm::records::{self, RecordOp},
};
use wire::{Command, Index, RecordCommand, RecordKind, Term};

use super::machine::{self, Entry};
use crate::{commands, feed::Feed};

/// A command of any bytes.
pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let kind = usize::from(feed.byte());
    let rest = feed.rest();
    let Some(kind) = RecordKind::ALL.get(kind % (RecordKind::ALL.len() + 2)) else {
        match kind % 2 {
            0 => check(Bytes::copy_from_slice(rest)),
            _ => question(rest),
        }
        return;
    };
    let record = RecordCommand {
        kind: *kind,
        body: rest,
    };
    if let Ok(op) = RecordOp::decode(&record) {
        let encoded = op.encode();
        let Ok(Command::Record(again)) = Command::decode(&encoded) else {
            panic!("what was read cannot be written: {op:?}");
        };
        let again = RecordOp::decode(&again).expect("what was written can be read");
        assert_eq!(again.encode(), encoded);
    }
    check(Command::Record(record).encode());
}

fn check(command: Bytes) {
    if records::check(&command).is_err() {
        return;
    }
    let mut script = rows().to_vec();
    script.push((Index(script.len() as u64 + 1), Term(1), command.clone()));
    script.push((Index(script.len() as u64 + 1), Term(1), command));
    let at = script.len() as u64 - 1;
    machine::check(&script, 5, at, &[]);
}

/// A question of any bytes, asked of a state with rows in it.
fn question(bytes: &[u8]) {
    if let Ok(question) = Question::decode(bytes) {
        machine::check(rows(), 5, 0, &[question]);
    }
}

/// A script that leaves rows in most tables.
fn rows() -> &'static [Entry] {
    static ROWS: OnceLock<Vec<Entry>> = OnceLock::new();
    ROWS.get_or_init(|| {
        let seed: Vec<u8> = (0..4000_u32).map(|at| ((at * 7919) >> 5) as u8).collect();
        let mut feed = Feed::new(&seed);
        let one = |index| (Index(index), Term(1), commands::command(&mut feed, index));
        (1..=40).map(one).collect()
    })
}
