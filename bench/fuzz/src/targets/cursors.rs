//! Does a watch that goes on from any cursor hear everything once, and nothing twice?
//!
//! A script of commands on keys is applied; two histories keep what each changed, one of them all of
//! it and one as much as fits. Whoever reads from a cursor, in as many answers as it takes, hears
//! what the whole history tells behind that cursor of the rows with its prefix; the short history
//! tells the same or says that it is gone. The rows follow from the changes alone.

use std::collections::BTreeMap;

use engine::{fsm::Fsm, shard::History};
use wire::{ChangeOp, Cursor, Index, KvChange, ShardId, Term, Uuid};

use crate::{commands, feed::Feed};

const COMMANDS_MAX: usize = 40;
const PREFIXES: [&[u8]; 6] = [b"", b"a", b"a/", b"a/b", b"\xff", b"b"];

/// Watches.
pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let cluster = Uuid([7; 16]);
    let history = |bytes| History::new(cluster, ShardId(0), Index(0), bytes);
    let (mut all, mut short) = (history(usize::MAX), history(1 + 16 * feed.below(400)));
    let asked = Cursor {
        index: Index(1 + feed.below(COMMANDS_MAX) as u64),
        position: match feed.below(4) {
            3 => Cursor::ALL,
            position => position as u32,
        },
    };
    let prefix = feed.pick(&PREFIXES);
    let mut fsm = Fsm::new();
    let mut applied = Index(0);
    while !feed.is_empty() && applied.0 < COMMANDS_MAX as u64 {
        applied = Index(applied.0 + 1);
        let entry = (applied, Term(1), commands::command(&mut feed, applied.0));
        fsm.apply_run_watched(
            &[entry],
            &mut Vec::new(),
            Some(&mut |index, changes| {
                all.record(index, changes);
                short.record(index, changes);
            }),
        )
        .expect("every command here is one of this build's");
    }
    let whole = heard(&all, b"", Cursor::behind(Index(0)), applied).expect("nothing was forgotten");
    assert!(
        whole.is_sorted_by(|a, b| a.at < b.at),
        "cursors are in order"
    );
    rows_follow(&fsm, &whole);
    for history in [&all, &short] {
        let Some(told) = heard(history, prefix, asked, applied) else {
            assert!(std::ptr::eq(history, &short), "the whole history forgot");
            continue;
        };
        let expected: Vec<KvChange> = whole
            .iter()
            .filter(|change| change.at > asked)
            .filter_map(|change| as_watched(change, prefix))
            .collect();
        assert_eq!(told, expected, "behind {asked:?} of {prefix:?}");
    }
    for change in &whole {
        let before = whole.iter().filter(|other| other.at <= change.at).count();
        let rest = heard(&all, b"", change.at, applied).expect("nothing was forgotten");
        assert_eq!(rest, whole[before..], "behind {:?}", change.at);
    }
}

/// All changes behind a cursor, in as many answers as they take; `None` if they are gone.
fn heard(
    history: &History,
    prefix: &[u8],
    mut after: Cursor,
    applied: Index,
) -> Option<Vec<KvChange>> {
    let mut told = Vec::new();
    loop {
        let answer = history.since(prefix, after, applied).to_wire();
        if answer.gone {
            return None;
        }
        assert!(answer.next >= after, "a cursor that goes back");
        assert!(
            answer.caught_up || answer.next > after,
            "an answer that leads nowhere"
        );
        told.extend(answer.changes);
        after = answer.next;
        if answer.caught_up {
            return Some(told);
        }
    }
}

/// A change as whoever watches a prefix is told it.
fn as_watched(change: &KvChange, prefix: &[u8]) -> Option<KvChange> {
    let key = change.row.borrow().key;
    match change.op {
        ChangeOp::DeleteTree if prefix.starts_with(key) => {
            let mut row = change.row.borrow();
            row.key = prefix;
            Some(KvChange {
                row: row.to_row(),
                ..change.clone()
            })
        }
        _ => key.starts_with(prefix).then(|| change.clone()),
    }
}

fn rows_follow(fsm: &Fsm, changes: &[KvChange]) {
    let mut rows = BTreeMap::new();
    for change in changes {
        let row = change.row.borrow();
        match change.op {
            ChangeOp::Set | ChangeOp::Lock | ChangeOp::Unlock => {
                rows.insert(row.key.to_vec(), change.row.clone());
            }
            ChangeOp::Delete => assert!(rows.remove(row.key).is_some(), "deleted what was not"),
            ChangeOp::DeleteTree => rows.retain(|key, _| !key.starts_with(row.key)),
        }
    }
    let mut state = Vec::new();
    let mut list = fsm.store().kv_list(b"", b"", 0);
    while list.next_rows(1000, usize::MAX, &mut state) {}
    let state: Vec<_> = state.iter().map(|row| row.as_ref().to_row()).collect();
    assert_eq!(rows.into_values().collect::<Vec<_>>(), state);
}
