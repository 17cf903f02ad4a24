//! Every input that was ever worth keeping still keeps every promise.
//!
//! The corpora are what the coverage-guided runs have found, minimised, and the inputs of every bug
//! that was found, `bug-*`. Replaying them takes no fuzzer.

use std::{fs, path::PathBuf};

use fuzz::targets::TARGETS;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder was opened").path())
        .collect();
    files.sort();
    let read = |path: PathBuf| (path.clone(), fs::read(path).expect("it was listed"));
    files.into_iter().map(read).collect()
}

#[test]
fn every_corpus_is_kept() {
    let mut broken = Vec::new();
    for target in &TARGETS {
        let inputs = corpus(target.name);
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        for (path, input) in inputs {
            if std::panic::catch_unwind(|| (target.run)(&input)).is_err() {
                broken.push(path);
            }
        }
    }
    assert!(broken.is_empty(), "promises are broken by {broken:#?}");
}

#[test]
fn the_shortest_inputs_are_taken() {
    for target in &TARGETS {
        (target.run)(b"");
        for byte in 0..=u8::MAX {
            (target.run)(&[byte]);
            (target.run)(&[byte, byte]);
        }
    }
}
