//! The state machine against its model, and what stops it.

use proptest::prelude::*;
use wire::{Command, Index, KvCommand, KvRowRef, KvVerb, Term, limits};

use super::{DIGEST_INTERVAL, Fsm, FsmError, Outcome, model::Model};
use crate::state::{KvRow, row::SESSION_BYTES_MAX, schema::Kvs};

const HOLDER: [u8; 16] = [7; 16];

fn command(verb: KvVerb, key: &[u8]) -> KvCommand<'_> {
    KvCommand {
        verb,
        key,
        value: b"",
        flags: 0,
        index: 0,
        session: b"",
    }
}

fn run<'a>(fsm: &mut Fsm, commands: impl IntoIterator<Item = KvCommand<'a>>) -> Vec<Outcome> {
    let first = fsm.applied().0.0 + 1;
    let entries: Vec<_> = commands
        .into_iter()
        .zip(first..)
        .map(|(kv, index)| (Index(index), Term(1), Command::Kv(kv).encode()))
        .collect();
    let mut outcomes = Vec::new();
    fsm.apply_run(&entries, &mut outcomes)
        .expect("known commands");
    outcomes
}

fn one(fsm: &mut Fsm, kv: KvCommand<'_>) -> Outcome {
    run(fsm, [kv]).remove(0)
}

const YES: Outcome = Outcome::Done { ok: true };
const NO: Outcome = Outcome::Done { ok: false };

fn get<'a>(fsm: &'a Fsm, key: &[u8]) -> KvRowRef<'a> {
    fsm.store().tables().kvs.get(key).expect("a key").as_ref()
}

/// As `acquire` will: a row held by a session, put in behind the state machine's back.
fn hold(fsm: &mut Fsm, key: &[u8], lock_index: u64) {
    let row = KvRowRef {
        lock_index,
        session: &HOLDER,
        ..get(fsm, key)
    };
    let row = KvRow::new(row, &mut Vec::new());
    let mut txn = fsm.store.begin();
    txn.put::<Kvs>(row).expect("fits");
    txn.commit();
}

/// Commands are described by plain data, since `KvCommand` borrows.
type Described = (usize, Vec<u8>, u8, u64, Option<i64>, u8);

fn described() -> impl Strategy<Value = Described> {
    let key = prop::collection::vec(prop_oneof![3 => Just(b'a'), 1 => Just(b'b')], 0..4);
    let expected = prop_oneof![Just(None), (-1..3i64).prop_map(Some)];
    (0..KvVerb::ALL.len(), key, 0..3u8, 0..2u64, expected, 0..3u8)
}

fn agrees(fsm: &Fsm, model: &Model) {
    let tables = fsm.store().tables();
    tables.check();
    assert_eq!(tables.kvs.len(), model.kvs.len());
    for (key, entry) in &model.kvs {
        let expected = KvRowRef {
            key,
            value: &entry.value,
            flags: entry.flags,
            create_index: Index(entry.create),
            modify_index: Index(entry.modify),
            lock_index: entry.lock,
            session: &entry.session,
        };
        assert_eq!(get(fsm, key), expected);
    }
    assert_eq!(tables.tombstones.len(), model.tombstones.len());
    for (key, index) in &model.tombstones {
        assert_eq!(
            tables.tombstones.get(key).map(|row| row.index()),
            Some(Index(*index))
        );
    }
    assert_eq!(tables.max_index(&["kvs"]), Index(model.kvs_index));
    assert_eq!(
        tables.max_index(&["tombstones"]),
        Index(model.tombstones_index)
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn kv_commands_do_what_consul_does(
        steps in prop::collection::vec((described(), any::<prop::sample::Index>(), 0..12u8), 1..80),
        run_length in 1..10usize,
    ) {
        let mut fsm = Fsm::new();
        let mut other = Fsm::new();
        let mut model = Model::default();
        let mut run_commands = Vec::new();
        let mut expected = Vec::new();
        let mut index = 0;
        for ((verb, key, value, flags, expects, session), place, lock) in steps {
            // Now and then a key becomes held, between two runs.
            if lock == 0 && !model.kvs.is_empty() && run_commands.is_empty() {
                let at = place.index(model.kvs.len());
                let (key, entry) = model.kvs.iter_mut().nth(at).expect("within");
                (entry.lock, entry.session) = (3, HOLDER.to_vec());
                hold(&mut fsm, key, 3);
                hold(&mut other, key, 3);
            }
            index += 1;
            let mut key = key;
            if key.is_empty() && KvVerb::ALL[verb] != KvVerb::DeleteTree {
                key.push(b'c'); // Such a command has no encoding.
            }
            // Expected indexes are near the real one, so that cas succeeds about as often as not.
            let modify = model.kvs.get(&key).map_or(0, |entry| entry.modify);
            let kv = KvCommand {
                verb: KvVerb::ALL[verb],
                key: &key,
                value: &vec![value; usize::from(value)],
                flags,
                index: expects.map_or(0, |near| modify.saturating_add_signed(near.clamp(-1, 0))),
                session: if session == 0 { b"" } else { &HOLDER },
            };
            expected.push(model.apply(index, &kv));
            run_commands.push((Index(index), Term(1), Command::Kv(kv).encode()));
            if run_commands.len() == run_length {
                let mut outcomes = Vec::new();
                fsm.apply_run(&run_commands, &mut outcomes).expect("known commands");
                // The same commands one by one come to the same state.
                for entry in &run_commands {
                    other.apply_run(std::slice::from_ref(entry), &mut Vec::new()).expect("known commands");
                }
                prop_assert_eq!(fsm.digest(), other.digest());
                let ok: Vec<Option<bool>> = outcomes
                    .iter()
                    .map(|outcome| match outcome {
                        Outcome::Done { ok } => Some(*ok),
                        Outcome::Refused(_) => None,
                        Outcome::Txn(_) | Outcome::Mixed(_) => unreachable!("no transactions here"),
                    })
                    .collect();
                prop_assert_eq!(ok, std::mem::take(&mut expected));
                run_commands.clear();
                agrees(&fsm, &model);
            }
        }
    }
}

#[test]
fn an_identical_write_does_not_move_the_modify_index() {
    let mut fsm = Fsm::new();
    let set = KvCommand {
        value: b"v",
        ..command(KvVerb::Set, b"k")
    };
    assert_eq!(run(&mut fsm, [set, set]), [YES, YES]);
    assert_eq!(get(&fsm, b"k").modify_index, Index(1));
    assert_eq!(fsm.store().kv_get(b"other").0, Index(1));
    run(&mut fsm, [KvCommand { flags: 1, ..set }]);
    assert_eq!(
        (get(&fsm, b"k").create_index, get(&fsm, b"k").modify_index),
        (Index(1), Index(3))
    );
}

#[test]
fn a_plain_set_of_a_held_key_keeps_the_session_and_zeroes_the_lock_index() {
    let mut fsm = Fsm::new();
    let set = KvCommand {
        value: b"v",
        ..command(KvVerb::Set, b"k")
    };
    one(&mut fsm, set);
    hold(&mut fsm, b"k", 5);
    assert_eq!(one(&mut fsm, set), YES);
    let row = get(&fsm, b"k");
    assert_eq!(
        (row.session, row.lock_index, row.modify_index),
        (&HOLDER[..], 0, Index(2))
    );
}

#[test]
fn a_release_writes_the_body_and_keeps_the_lock_index() {
    let mut fsm = Fsm::new();
    one(
        &mut fsm,
        KvCommand {
            value: b"v",
            ..command(KvVerb::Set, b"k")
        },
    );
    hold(&mut fsm, b"k", 5);
    let release = KvCommand {
        value: b"released",
        flags: 9,
        session: &HOLDER,
        ..command(KvVerb::Unlock, b"k")
    };
    assert_eq!(
        one(
            &mut fsm,
            KvCommand {
                session: &[1; 16],
                ..release
            }
        ),
        NO
    );
    assert_eq!(one(&mut fsm, release), YES);
    let row = get(&fsm, b"k");
    assert_eq!(
        (row.session, row.lock_index, row.value, row.flags),
        (&b""[..], 5, &b"released"[..], 9)
    );
    assert_eq!(one(&mut fsm, release), NO);
    assert_eq!(
        one(
            &mut fsm,
            KvCommand {
                session: &HOLDER,
                ..command(KvVerb::Unlock, b"none")
            }
        ),
        NO
    );
}

#[test]
fn locks_need_a_session_that_exists() {
    let mut fsm = Fsm::new();
    let lock = KvCommand {
        session: &HOLDER,
        ..command(KvVerb::Lock, b"k")
    };
    let text = "invalid session \"07070707-0707-0707-0707-070707070707\"";
    assert_eq!(one(&mut fsm, lock), Outcome::Refused(text.to_owned()));
    let missing = Outcome::Refused("missing session".to_owned());
    assert_eq!(one(&mut fsm, command(KvVerb::Lock, b"k")), missing);
    assert_eq!(one(&mut fsm, command(KvVerb::Unlock, b"k")), missing);
    assert_eq!((fsm.store().kv_len(), fsm.digest()), (0, 0));
}

#[test]
fn deleting_everything_leaves_no_tombstone() {
    let mut fsm = Fsm::new();
    run(
        &mut fsm,
        [
            command(KvVerb::Set, b"a"),
            command(KvVerb::Set, b"b"),
            command(KvVerb::DeleteTree, b""),
        ],
    );
    assert!(fsm.store().tables().tombstones.is_empty());
    assert_eq!(fsm.store().kv_list(b"", b"", 0).index(), Index(3));
    run(
        &mut fsm,
        [
            command(KvVerb::Set, b"dir/a"),
            command(KvVerb::Set, b"dirx"),
            command(KvVerb::DeleteTree, b"dir"),
        ],
    );
    assert_eq!(
        (fsm.store().kv_len(), fsm.store().tables().tombstones.len()),
        (0, 1)
    );
    assert_eq!(fsm.store().kv_list(b"dir", b"", 0).index(), Index(6));
    // Nothing there: nothing changes.
    assert_eq!(one(&mut fsm, command(KvVerb::DeleteTree, b"dir")), YES);
    assert_eq!(fsm.store().kv_list(b"dir", b"", 0).index(), Index(6));
}

/// Found by the simulator: the index of `a/b/` fell from that of its newest row to that of an older
/// deletion below it, when everything under `a/` was deleted. Consul's falls too; a client that
/// believes in growing indexes then misses changes.
#[test]
fn the_index_of_a_listing_never_falls_with_a_recursive_delete() {
    for deleted in [&b""[..], b"a", b"a/", b"a/b", b"a/b/"] {
        let mut fsm = Fsm::new();
        let mut before = Index(0);
        let mut grows = |fsm: &Fsm| {
            let now = fsm.store().kv_prefix_index(b"a/b/");
            assert!(now >= before, "{now:?} after {before:?}, {deleted:?}");
            before = now;
        };
        for (verb, key) in [
            (KvVerb::Set, &b"a/b/old"[..]),
            (KvVerb::DeleteTree, b"a/b/old"),
            (KvVerb::Set, b"a/b/new"),
            (KvVerb::DeleteTree, deleted),
            (KvVerb::Set, b"elsewhere"),
        ] {
            one(&mut fsm, command(verb, key));
            grows(&fsm);
        }
    }
}

#[test]
fn keys_and_sessions_over_their_limits_are_refused_not_panicked_on() {
    let mut fsm = Fsm::new();
    let mut outcomes = Vec::new();
    let key = vec![b'k'; limits::KEY_BYTES_MAX + 1];
    let session = vec![1; SESSION_BYTES_MAX + 1];
    let commands = [
        command(KvVerb::Set, &key[1..]),
        command(KvVerb::Set, &key),
        command(KvVerb::DeleteTree, &key),
        command(KvVerb::Set, b""),
        KvCommand {
            session: &session,
            ..command(KvVerb::Unlock, b"k")
        },
    ];
    let commands = commands
        .iter()
        .zip(1..)
        .map(|(kv, index)| (Index(index), Term(1), Ok(Some(Command::Kv(*kv)))));
    fsm.apply_commands(commands, &mut outcomes, None)
        .expect("known commands");
    assert_eq!(outcomes[0], YES);
    assert!(
        outcomes[1..]
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Refused(_))),
        "{outcomes:?}"
    );
}

#[test]
fn an_unknown_command_stops_the_server_and_keeps_what_was_before() {
    let mut fsm = Fsm::new();
    let set = Command::Kv(command(KvVerb::Set, b"k")).encode();
    let entries = [
        (Index(1), Term(1), set.to_vec()),
        (Index(2), Term(1), b"not a flatbuffer".to_vec()),
        (Index(3), Term(1), set.to_vec()),
    ];
    let mut outcomes = Vec::new();
    let error = fsm.apply_run(&entries, &mut outcomes).expect_err("unknown");
    assert!(
        matches!(
            error,
            FsmError::UnknownCommand {
                index: Index(2),
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(
        (outcomes, fsm.applied(), fsm.store().kv_len()),
        (vec![YES], (Index(1), Term(1)), 1)
    );
}

#[test]
fn entries_without_a_command_and_ignorable_ones_move_the_applied_index_only() {
    let mut fsm = Fsm::new();
    let entries = [
        (Index(1), Term(1), Command::Ignorable.encode()),
        (Index(2), Term(3), Default::default()),
    ];
    let mut outcomes = Vec::new();
    fsm.apply_run(&entries, &mut outcomes)
        .expect("nothing to do");
    assert_eq!(
        (outcomes.len(), fsm.applied(), fsm.digest()),
        (2, (Index(2), Term(3)), 0)
    );
}

#[test]
#[should_panic(expected = "applied once, in order")]
fn an_entry_is_never_applied_twice() {
    let mut fsm = Fsm::new();
    one(&mut fsm, command(KvVerb::Set, b"k"));
    let again = [(
        Index(1),
        Term(1),
        Command::Kv(command(KvVerb::Set, b"k")).encode(),
    )];
    let _ = fsm.apply_run(&again, &mut Vec::new());
}

fn fill(fsm: &mut Fsm, count: u64) {
    for _ in 0..count {
        let n = fsm.applied().0.0;
        let value = n.to_le_bytes();
        let key = [b'k', (n % 97) as u8];
        one(
            fsm,
            KvCommand {
                value: &value,
                ..command(KvVerb::Set, &key)
            },
        );
    }
}

fn check(fsm: &mut Fsm, index: Index, digest: u64) -> Result<(), FsmError> {
    let next = Index(fsm.applied().0.0 + 1);
    fsm.apply_run(
        &[(
            next,
            Term(1),
            Command::DigestCheck { index, digest }.encode(),
        )],
        &mut Vec::new(),
    )
}

#[test]
fn a_replica_that_differs_stops_itself() {
    let (mut leader, mut same, mut differs) = (Fsm::new(), Fsm::new(), Fsm::new());
    fill(&mut leader, DIGEST_INTERVAL - 1);
    assert_eq!(leader.latest_digest(), None);
    fill(&mut leader, 10);
    fill(&mut same, DIGEST_INTERVAL + 9);
    // Another first write, which later ones do not cover.
    one(&mut differs, command(KvVerb::Set, b"other"));
    fill(&mut differs, DIGEST_INTERVAL + 8);
    let (index, digest) = leader.latest_digest().expect("one interval is over");
    assert_eq!(index, Index(DIGEST_INTERVAL));
    assert_ne!(differs.latest_digest(), Some((index, digest)));
    assert_eq!(check(&mut leader, index, digest), Ok(()));
    assert_eq!(check(&mut same, index, digest), Ok(()));
    let error = check(&mut differs, index, digest).expect_err("divergence");
    assert!(
        matches!(error, FsmError::Divergence { index: Index(DIGEST_INTERVAL), theirs, .. } if theirs == digest)
    );
    // What is not remembered cannot be compared.
    assert_eq!(check(&mut same, Index(17), 1), Ok(()));
}

/// The digest of an index in the middle of a run has to include the index table's row, which is
/// written at the end of a run: where a run ends differs from server to server.
#[test]
fn digests_do_not_depend_on_where_runs_end() {
    let commands: Vec<_> = (0..2 * DIGEST_INTERVAL + 5)
        .map(|n| n.to_le_bytes())
        .collect();
    let set = |key| Command::Kv(command(KvVerb::Set, key)).encode();
    let entries: Vec<_> = commands
        .iter()
        .zip(1..)
        .map(|(key, at)| (Index(at), Term(1), set(&key[..])))
        .collect();
    let mut digests = Vec::new();
    for length in [1, 7, 1000, entries.len()] {
        let mut fsm = Fsm::new();
        for run in entries.chunks(length) {
            fsm.apply_run(run, &mut Vec::new()).expect("known commands");
        }
        digests.push((fsm.digest(), fsm.latest_digest()));
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[test]
fn a_view_keeps_the_state_of_its_index() {
    let mut fsm = Fsm::new();
    fill(&mut fsm, 200);
    let view = fsm.view();
    fill(&mut fsm, 200);
    assert_eq!((view.index, view.tables.kvs.len()), (Index(200), 97));
    assert_eq!(view.tables.kvs.max_stamp(b""), 200);
    assert_ne!(view.digest, fsm.digest());
}

mod transactions {
    use wire::{TxnOp, TxnOps, TxnVerb};

    use super::*;
    use crate::fsm::{TxnOutcome, read_only};

    fn op(verb: TxnVerb, key: &[u8]) -> TxnOp<'_> {
        TxnOp {
            verb,
            key,
            value: b"v",
            flags: 0,
            index: 0,
            session: b"",
        }
    }

    fn carry_out(fsm: &mut Fsm, ops: &[TxnOp<'_>]) -> TxnOutcome {
        let index = Index(fsm.applied().0.0 + 1);
        let command = Command::Txn(TxnOps::new(ops)).encode();
        let mut outcomes = Vec::new();
        fsm.apply_run(&[(index, Term(1), command)], &mut outcomes)
            .expect("a known command");
        match outcomes.remove(0) {
            Outcome::Txn(outcome) => *outcome,
            other => panic!("{other:?}"),
        }
    }

    fn texts(outcome: &TxnOutcome) -> Vec<(u32, &str)> {
        let errors = outcome.errors.iter();
        errors.map(|error| (error.op, &*error.what)).collect()
    }

    #[test]
    fn operations_see_each_other_and_share_one_index() {
        let mut fsm = Fsm::new();
        one(&mut fsm, command(KvVerb::Set, b"old"));
        let outcome = carry_out(
            &mut fsm,
            &[
                op(TxnVerb::CheckNotExists, b"a/1"),
                op(TxnVerb::Kv(KvVerb::Set), b"a/1"),
                op(TxnVerb::Kv(KvVerb::Set), b"a/2"),
                op(TxnVerb::GetTree, b"a/"),
                op(TxnVerb::Kv(KvVerb::Delete), b"old"),
                op(TxnVerb::GetOrEmpty, b"old"),
            ],
        )
        .to_wire();
        assert!(outcome.errors.is_empty());
        let rows: Vec<_> = outcome
            .rows
            .iter()
            .map(|row| (&row.key[..], &row.value[..], row.modify_index.0))
            .collect();
        assert_eq!(
            rows,
            [
                (&b"a/1"[..], &b""[..], 2),
                (b"a/2", b"", 2),
                (b"a/1", b"v", 2),
                (b"a/2", b"v", 2),
                (b"old", b"", 0),
            ]
        );
        assert!(fsm.store().tables().kvs.get(b"old").is_none());
    }

    #[test]
    fn one_failure_undoes_all_and_every_failure_is_named() {
        let mut fsm = Fsm::new();
        one(&mut fsm, command(KvVerb::Set, b"k"));
        hold(&mut fsm, b"k", 1);
        let before = fsm.digest();
        let indexes = fsm.store().tables().max_index(&["kvs", "tombstones"]);
        let session = TxnOp {
            session: b"other",
            ..op(TxnVerb::CheckSession, b"k")
        };
        let outcome = carry_out(
            &mut fsm,
            &[
                op(TxnVerb::Kv(KvVerb::Set), b"new"),
                op(TxnVerb::Kv(KvVerb::Cas), b"k"),
                op(TxnVerb::Kv(KvVerb::DeleteCas), b"k"),
                op(TxnVerb::Get, b"none"),
                op(TxnVerb::CheckIndex, b"none"),
                op(TxnVerb::CheckIndex, b"k"),
                op(TxnVerb::CheckNotExists, b"new"),
                TxnOp {
                    session: b"s",
                    ..op(TxnVerb::Kv(KvVerb::Unlock), b"k")
                },
                TxnOp {
                    session: b"s",
                    ..op(TxnVerb::Kv(KvVerb::Lock), b"k")
                },
                op(TxnVerb::Kv(KvVerb::Lock), b"k"),
                session,
                op(TxnVerb::CheckSession, b"none"),
                op(TxnVerb::Kv(KvVerb::DeleteTree), b""),
            ],
        );
        assert_eq!(
            texts(&outcome),
            [
                (1, "failed to set key \"k\", index is stale"),
                (2, "failed to delete key \"k\", index is stale"),
                (3, "key \"none\" doesn't exist"),
                (4, "failed to check index, key \"none\" doesn't exist"),
                (
                    5,
                    "failed index check for key \"k\", current modify index 1 != 0"
                ),
                (6, "key \"new\" exists"),
                (
                    7,
                    "failed to unlock key \"k\", lock isn't held, or is held by another session"
                ),
                (8, "invalid session \"s\""),
                (9, "missing session"),
                (
                    10,
                    "failed session check for key \"k\", current session \"07070707-0707-0707-0707-070707070707\" != \"other\""
                ),
                (11, "failed to check session, key \"none\" doesn't exist"),
            ]
        );
        assert!(outcome.to_wire().rows.is_empty());
        assert_eq!(fsm.digest(), before);
        assert_eq!(
            fsm.store().tables().max_index(&["kvs", "tombstones"]),
            indexes
        );
        assert_eq!(fsm.applied().0, Index(2), "it took its place in the log");
    }

    #[test]
    fn rows_beyond_txn_rows_bytes_max_are_an_error_and_not_half_an_answer() {
        let mut fsm = Fsm::new();
        let value = vec![7; limits::VALUE_BYTES_MAX];
        let fit = limits::TXN_ROWS_BYTES_MAX / limits::VALUE_BYTES_MAX - 1;
        let keys: Vec<_> = (0..=fit).map(|at| format!("p/{at}")).collect();
        run(
            &mut fsm,
            keys[..fit].iter().map(|key| KvCommand {
                value: &value,
                ..command(KvVerb::Set, key.as_bytes())
            }),
        );
        let ops = [op(TxnVerb::GetTree, b"p/")];
        let read = |fsm: &Fsm| read_only(fsm.store().tables(), &TxnOps::new(&ops));
        assert_eq!(read(&fsm).to_wire().rows.len(), fit);
        one(
            &mut fsm,
            KvCommand {
                value: &value,
                ..command(KvVerb::Set, keys[fit].as_bytes())
            },
        );
        let outcome = read(&fsm);
        assert!(
            texts(&outcome)[0].1.contains("over the limit"),
            "{outcome:?}"
        );
        assert!(outcome.to_wire().rows.is_empty());
    }

    proptest! {
        /// Against the model: all of it on a copy, which is kept only if nothing failed.
        #[test]
        fn all_or_nothing(
            txns in prop::collection::vec(prop::collection::vec(described(), 1..6), 1..30),
        ) {
            let mut fsm = Fsm::new();
            let mut model = Model::default();
            for (index, steps) in (1..).zip(txns) {
                let mut trial = model.clone();
                let (mut ops, mut failed) = (Vec::new(), Vec::new());
                let values: Vec<Vec<u8>> = (0..3u8).map(|n| vec![n; usize::from(n)]).collect();
                let keys: Vec<Vec<u8>> = steps
                    .iter()
                    .map(|(verb, key, ..)| match key.is_empty() && KvVerb::ALL[*verb] != KvVerb::DeleteTree {
                        true => b"c".to_vec(),
                        false => key.clone(),
                    })
                    .collect();
                for ((verb, _, value, flags, expects, session), (at, key)) in
                    steps.iter().zip(keys.iter().enumerate())
                {
                    let modify = trial.kvs.get(key).map_or(0, |entry| entry.modify);
                    let kv = KvCommand {
                        verb: KvVerb::ALL[*verb],
                        key,
                        value: &values[usize::from(*value)],
                        flags: *flags,
                        index: expects.map_or(0, |near| modify.saturating_add_signed(near.clamp(-1, 0))),
                        session: if *session == 0 { b"" } else { &HOLDER },
                    };
                    if trial.apply(index, &kv) != Some(true) {
                        failed.push(at as u32);
                    }
                    ops.push(TxnOp {
                        verb: TxnVerb::Kv(kv.verb),
                        key: kv.key,
                        value: kv.value,
                        flags: kv.flags,
                        index: kv.index,
                        session: kv.session,
                    });
                }
                let outcome = carry_out(&mut fsm, &ops);
                let named: Vec<u32> = outcome.errors.iter().map(|error| error.op).collect();
                prop_assert_eq!(&named, &failed);
                if failed.is_empty() {
                    model = trial;
                }
                agrees(&fsm, &model);
            }
        }
    }
}
