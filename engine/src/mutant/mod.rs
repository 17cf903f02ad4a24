//! Would the harness notice if this code were wrong?
//!
//! A test that cannot fail proves nothing, and neither does a simulator. So there are *mutants*:
//! faults that are planted at the very places where the code does the right thing, each a slip that
//! somebody could make. The simulator must find every one of them (`curia-bench mutants`).
//!
//! They exist only with the cargo feature `mutants`, which no release has: without it `mutant!` is
//! the constant `false`, and what stands behind it is not compiled. With it, a thread
//! chooses the one that is active on it.

#[cfg(feature = "mutants")]
mod planted;

#[cfg(feature = "mutants")]
pub use planted::{Mutant, active, choose};

/// Whether a mutant is active on this thread; `false` in a build without mutants.
#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutant::active($crate::mutant::Mutant::$name)
    };
}

/// Whether a mutant is active on this thread; `false` in a build without mutants.
#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}
