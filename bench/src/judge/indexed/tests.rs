//! Is every kind of lie found, and nothing else?
//!
//! Each test takes a history that is possible and plants one lie in it.

use super::*;

const KEY: &str = "k";

fn row(value: &str, create: u64, modify: u64) -> Row {
    Row {
        value: value.to_owned(),
        create_index: create,
        modify_index: modify,
        lock_index: 0,
        session: String::new(),
    }
}

fn set(value: &str) -> Call {
    Call::Step(Step::Set {
        key: KEY.to_owned(),
        value: value.to_owned(),
    })
}

fn cas(value: &str, index: u64) -> Call {
    Call::Step(Step::Cas {
        key: KEY.to_owned(),
        value: value.to_owned(),
        index,
    })
}

fn get() -> Call {
    Call::Get {
        key: KEY.to_owned(),
    }
}

fn acquire(value: &str, session: &str) -> Call {
    Call::Step(Step::Acquire {
        key: KEY.to_owned(),
        value: value.to_owned(),
        session: session.to_owned(),
    })
}

fn done(index: u64) -> Answer {
    Answer::Done { ok: true, index }
}

fn failed(index: u64) -> Answer {
    Answer::Done { ok: false, index }
}

fn read(row: Row) -> Answer {
    let index = row.modify_index;
    Answer::Row(Some(row), index)
}

/// One after the other, each answered before the next is called.
fn in_turn(operations: Vec<(Call, Option<Answer>)>) -> History {
    let operations = operations.into_iter().zip(0..);
    let operations = operations.map(|((call, answer), at)| Operation {
        client: 0,
        call,
        called_ns: 10 * at + 1,
        answer: answer.map(|answer| (10 * at + 5, answer)),
    });
    History {
        operations: operations.collect(),
    }
}

fn accused(operations: Vec<(Call, Option<Answer>)>) -> Option<usize> {
    let verdict = judge(&in_turn(operations), &[]);
    verdict.err().map(|impossible| impossible.operation)
}

#[test]
fn what_is_possible_is_passed() {
    let history = in_turn(vec![
        (get(), Some(Answer::Row(None, 1))),
        (set("a"), Some(done(5))),
        (get(), Some(read(row("a", 5, 5)))),
        (cas("b", 4), Some(failed(6))),
        (cas("c", 5), Some(done(7))),
        (get(), Some(read(row("c", 5, 7)))),
        (
            Call::CreateSession,
            Some(Answer::Session {
                session: "s".to_owned(),
                index: 8,
            }),
        ),
        (acquire("d", "s"), Some(done(9))),
        (acquire("e", "t"), Some(failed(10))),
        (
            Call::DestroySession {
                session: "s".to_owned(),
            },
            Some(done(11)),
        ),
        (
            get(),
            Some(read(Row {
                lock_index: 1,
                ..row("d", 5, 11)
            })),
        ),
    ]);
    let judged = judge(&history, &[]).unwrap();
    assert_eq!(judged.clouded, 0);
    assert_eq!(judged.model.rows[KEY].value, "d");
}

#[test]
fn a_stale_read_is_found() {
    let stale = vec![
        (set("a"), Some(done(5))),
        (set("b"), Some(done(6))),
        (get(), Some(read(row("a", 5, 5)))),
    ];
    assert_eq!(accused(stale.clone()), Some(2));
    // The same from any server is no lie.
    let mut allowed = stale;
    allowed[2].0 = Call::GetStale {
        key: KEY.to_owned(),
    };
    assert_eq!(accused(allowed), None);
}

#[test]
fn a_read_that_goes_back_behind_another_is_found() {
    // The write is under way all the time, so that both values are possible: but not this order.
    let mut history = in_turn(vec![
        (set("a"), Some(done(5))),
        (set("b"), Some(done(6))),
        (get(), Some(read(row("b", 5, 6)))),
        (get(), Some(read(row("a", 5, 5)))),
    ]);
    history.operations[1].answer = Some((1000, done(6)));
    assert_eq!(judge(&history, &[]).unwrap_err().operation, 3);
    history.operations.swap_remove(2);
    judge(&history, &[]).unwrap();
}

#[test]
fn a_lost_write_is_found() {
    let lost = vec![
        (set("a"), Some(done(5))),
        (get(), Some(Answer::Row(None, 1))),
    ];
    assert_eq!(accused(lost), Some(1));
}

#[test]
fn a_value_from_nowhere_or_from_the_future_is_found() {
    let nowhere = vec![(get(), Some(read(row("x", 5, 5))))];
    assert_eq!(accused(nowhere), Some(0));
    let future = vec![
        (get(), Some(read(row("a", 5, 5)))),
        (set("a"), Some(done(5))),
    ];
    assert_eq!(accused(future), Some(0));
}

#[test]
fn a_refused_write_that_was_read_is_found() {
    let refused = vec![
        (set("a"), Some(Answer::Refused)),
        (get(), Some(read(row("a", 5, 5)))),
    ];
    assert_eq!(accused(refused), Some(1));
}

#[test]
fn a_refused_write_that_is_in_the_log_is_found() {
    let history = in_turn(vec![(set("a"), Some(Answer::Refused))]);
    assert!(judge(&history, &[Place::Never]).is_ok());
    assert!(judge(&history, &[Place::At(5)]).is_err());
}

#[test]
fn an_acknowledged_write_that_is_not_in_the_log_is_found() {
    let history = in_turn(vec![(set("a"), Some(done(5)))]);
    assert!(judge(&history, &[Place::At(5)]).is_ok());
    assert!(judge(&history, &[Place::Never]).is_err());
    assert!(judge(&history, &[Place::At(6)]).is_err());
}

#[test]
fn two_winners_of_one_cas_are_found() {
    let twice = vec![
        (set("a"), Some(done(5))),
        (cas("b", 5), Some(done(6))),
        (cas("c", 5), Some(done(7))),
    ];
    assert_eq!(accused(twice), Some(2));
}

#[test]
fn a_cas_that_should_have_won_is_found() {
    let none = vec![(set("a"), Some(done(5))), (cas("b", 5), Some(failed(6)))];
    assert_eq!(accused(none), Some(1));
}

#[test]
fn two_holders_of_a_lock_are_found() {
    let session = |id: &str, index| {
        let session = id.to_owned();
        (
            Call::CreateSession,
            Some(Answer::Session { session, index }),
        )
    };
    let both = vec![
        session("s", 5),
        session("t", 6),
        (acquire("a", "s"), Some(done(7))),
        (acquire("b", "t"), Some(done(8))),
    ];
    assert_eq!(accused(both), Some(3));
}

#[test]
fn a_lock_that_outlives_its_session_is_found() {
    let held = Row {
        lock_index: 1,
        session: "s".to_owned(),
        ..row("a", 6, 6)
    };
    let outlived = vec![
        (
            Call::CreateSession,
            Some(Answer::Session {
                session: "s".to_owned(),
                index: 5,
            }),
        ),
        (acquire("a", "s"), Some(done(6))),
        (
            Call::DestroySession {
                session: "s".to_owned(),
            },
            Some(done(7)),
        ),
        (get(), Some(read(held))),
    ];
    assert_eq!(accused(outlived), Some(3));
}

#[test]
fn a_write_decided_before_what_was_seen_before_it_is_found() {
    let back = vec![(set("a"), Some(done(6))), (set("b"), Some(done(5)))];
    assert_eq!(accused(back), Some(1));
}

#[test]
fn two_writes_at_one_place_are_found() {
    let same = vec![(set("a"), Some(done(5))), (set("b"), Some(done(5)))];
    assert_eq!(accused(same), Some(1));
}

#[test]
fn half_a_transaction_is_found() {
    let steps = vec![
        Step::Set {
            key: KEY.to_owned(),
            value: "b".to_owned(),
        },
        Step::Cas {
            key: "other".to_owned(),
            value: "c".to_owned(),
            index: 3,
        },
    ];
    let other = || Call::Get {
        key: "other".to_owned(),
    };
    let history = |answer, seen: Row| {
        vec![
            (set("a"), Some(done(5))),
            (Call::Txn(steps.clone()), Some(answer)),
            (get(), Some(read(seen))),
            (other(), Some(Answer::Row(None, 5))),
        ]
    };
    let rolled_back = || Answer::RolledBack { failed: vec![1] };
    assert_eq!(accused(history(rolled_back(), row("a", 5, 5))), None);
    // It was rolled back, and yet its first half is there.
    let mut verdict = in_turn(history(rolled_back(), row("b", 5, 6)));
    assert!(judge(&verdict, &[]).is_err());
    // It says that it was done, and its condition did not hold.
    verdict.operations[1].answer = Some((
        15,
        Answer::Txn {
            rows: vec![Some(row("", 5, 6)), Some(row("", 6, 6))],
            index: 6,
        },
    ));
    assert!(judge(&verdict, &[]).is_err());
}

#[test]
fn a_wrong_row_in_a_transaction_is_found() {
    let txn = |seen: Row| {
        vec![
            (set("a"), Some(done(5))),
            (
                Call::Txn(vec![Step::Get {
                    key: KEY.to_owned(),
                }]),
                Some(Answer::Txn {
                    rows: vec![Some(seen)],
                    index: 6,
                }),
            ),
        ]
    };
    assert_eq!(accused(txn(row("a", 5, 5))), None);
    assert_eq!(accused(txn(row("a", 4, 5))), Some(1));
}

#[test]
fn a_wrong_index_of_a_missing_key_is_found() {
    let delete = Call::Step(Step::Delete {
        key: KEY.to_owned(),
    });
    let missing = |at| {
        vec![
            (set("a"), Some(done(5))),
            (delete.clone(), Some(done(7))),
            (get(), Some(Answer::Row(None, at))),
        ]
    };
    assert_eq!(accused(missing(7)), None);
    assert_eq!(accused(missing(6)), Some(2));
}

#[test]
fn a_write_of_unknown_outcome_may_have_happened_or_not_but_not_both() {
    let perhaps = |rows: [Row; 2]| {
        let [first, second] = rows;
        vec![
            (set("a"), Some(done(5))),
            (set("b"), None),
            (get(), Some(read(first))),
            (get(), Some(read(second))),
        ]
    };
    let (a, b) = (|| row("a", 5, 5), || row("b", 5, 6));
    assert_eq!(accused(perhaps([a(), a()])), None);
    assert_eq!(accused(perhaps([a(), b()])), None);
    assert_eq!(accused(perhaps([b(), b()])), None);
    assert_eq!(accused(perhaps([b(), a()])), Some(3));
}

#[test]
fn an_unknown_delete_clouds_its_key_and_no_other() {
    let delete = Call::Step(Step::Delete {
        key: KEY.to_owned(),
    });
    let history = in_turn(vec![
        (set("a"), Some(done(5))),
        (delete, None),
        (get(), Some(Answer::Row(None, 6))),
        (set("b"), Some(done(8))),
    ]);
    let judged = judge(&history, &[]).unwrap();
    assert_eq!(judged.clouded, 1);
}
