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
