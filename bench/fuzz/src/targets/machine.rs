//! Is the state a function of the log and of nothing else?
//!
//! A script of commands is applied by three servers: one command at a time, in runs, and by one
//! that is replaced from an image in the middle. All must answer the same, hold the same digest,
//! write the same image, and answer every question alike; every index must agree with its table,
//! and the index of a question may never fall.

use bytes::Bytes;
use engine::{
    documents::Question,
    fsm::{Fsm, Outcome},
    snapshot::image::{ImageLoader, ImageWriter},
};
use wire::{Index, ShardId, Term, Uuid};

use crate::{commands, feed::Feed, questions};

/// Commands in one script.
const COMMANDS_MAX: usize = 48;

/// Applies a script.
pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let questions = [(); 3].map(|()| questions::question(&mut feed));
    let (run_length, image_at) = (1 + feed.below(9), feed.below(COMMANDS_MAX) as u64);
    let mut script = Vec::new();
    while !feed.is_empty() && script.len() < COMMANDS_MAX {
        let index = script.len() as u64 + 1;
        script.push((Index(index), Term(1), commands::command(&mut feed, index)));
    }
    check(&script, run_length, image_at, &questions);
}

/// An entry of a log: a command.
pub(super) type Entry = (Index, Term, Bytes);

/// Applies these commands in all ways and compares.
pub(super) fn check(script: &[Entry], run_length: usize, image_at: u64, questions: &[Question]) {
    let (mut one_by_one, mut in_runs, mut replaced) = (Fsm::new(), Fsm::new(), Fsm::new());
    let mut outcomes = [const { Vec::<Outcome>::new() }; 3];
    let mut indexes = vec![Index(0); questions.len()];
    for entry in script {
        apply(
            &mut one_by_one,
            std::slice::from_ref(entry),
            &mut outcomes[0],
        );
        apply(&mut replaced, std::slice::from_ref(entry), &mut outcomes[2]);
        if entry.0.0 == image_at {
            let loaded = load(&image(&replaced), 7);
            replaced.replace(loaded);
        }
        for (question, before) in questions.iter().zip(&mut indexes) {
            let now = question.index(one_by_one.store().tables());
            assert!(now >= *before, "{question:?}: {before:?}, then {now:?}");
            assert!(now <= entry.0, "{question:?}: {now:?} at {:?}", entry.0);
            *before = now;
        }
    }
    for run in script.chunks(run_length) {
        apply(&mut in_runs, run, &mut outcomes[1]);
    }
    assert_eq!(outcomes[0], outcomes[1], "a run is not its commands");
    assert_eq!(outcomes[0], outcomes[2], "an image is not its state");
    one_by_one.store().tables().check();
    replaced.store().tables().check();
    let bytes = image(&one_by_one);
    assert_eq!(bytes, image(&in_runs));
    assert_eq!(bytes, image(&replaced));
    let loaded = load(&bytes, bytes.len());
    for fsm in [&in_runs, &replaced, &loaded] {
        assert_eq!(fsm.digest(), one_by_one.digest());
        for question in questions {
            let answers = [&one_by_one, fsm].map(|fsm| question.answer(fsm.store().tables()));
            assert_eq!(answers[0], answers[1], "{question:?}");
        }
    }
    for question in questions {
        let answer = question.answer(one_by_one.store().tables()).expect("short");
        let json: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(&answer);
        assert!(
            json.is_ok(),
            "{question:?}: {}",
            String::from_utf8_lossy(&answer)
        );
    }
}

fn apply(fsm: &mut Fsm, entries: &[Entry], outcomes: &mut Vec<Outcome>) {
    let applied = fsm.apply_run(entries, outcomes);
    applied.expect("every command here is one of this build's");
}

/// The image of a state.
pub(super) fn image(fsm: &Fsm) -> Vec<u8> {
    let cluster = Uuid([7; 16]);
    let configuration = Bytes::from_static(b"members");
    let mut writer = ImageWriter::new(fsm.view(), cluster, ShardId(0), configuration);
    let mut bytes = Vec::new();
    while let Some(chunk) = writer.next_chunk(usize::MAX) {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

/// The state of an image that comes in pieces.
fn load(bytes: &[u8], piece: usize) -> Fsm {
    let mut loader = ImageLoader::new();
    for piece in bytes.chunks(piece.max(1)) {
        loader.push(piece).expect("it was just written");
    }
    let (fsm, _) = loader.finish().expect("it was just written");
    fsm
}
