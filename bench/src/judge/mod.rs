//! Is what clients saw possible for a store that does one operation at a time?
//!
//! Both the simulator and the torment of real processes record a [`History`] of what clients
//! called and were answered. Two judges that were written apart, and share nothing but these
//! types, read it: a bug in one is not a bug in the other.
//!
//! | module | job |
//! |---|---|
//! | [`history`] | what clients called, when, and what they were told |
//! | [`file`] | histories as files of JSON lines |
//! | [`wgl`] | the complete judge: a search for an order that explains everything |
//! | [`indexed`] | the linear-time judge: by the places in the log that answers carry |
//!
//! Invariant: a judge never looks at the store, only at the history.

pub mod file;
pub mod history;
pub mod indexed;
pub mod wgl;

pub use history::{Answer, Call, History, Operation, Row, Step};

/// What the judges found together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Objects that the complete judge went through.
    pub objects: usize,
    /// What no store could have answered; one text each, with the name of its judge.
    pub violations: Vec<String>,
    /// What could not be decided within the bounds.
    pub undecided: Vec<String>,
}

/// Lets every judge there is read a history. This is the one place that calls them.
pub fn all(history: &History) -> Findings {
    let verdict = wgl::judge(history, &wgl::Rules::default());
    let by = |what: Vec<String>| what.into_iter().map(|text| format!("wgl: {text}"));
    let indexed = indexed::judge(history, &[]).err();
    let indexed = indexed.map(|found| {
        let call = &history.operations[found.operation];
        format!(
            "indexed: operation {} {call:?}: {}",
            found.operation, found.what
        )
    });
    Findings {
        objects: verdict.objects,
        violations: by(verdict.violations).chain(indexed).collect(),
        undecided: by(verdict.undecided).collect(),
    }
}
