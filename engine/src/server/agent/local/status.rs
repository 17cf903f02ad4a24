//! How is a check doing, and when does a result change that?

use std::fmt;

/// Status of a check. The order is from good to bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// All is well.
    Passing,
    /// Something is not.
    Warning,
    /// It does not work, or nothing is known of it.
    #[default]
    Critical,
}

impl Status {
    /// The status with this name.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "passing" => Some(Self::Passing),
            "warning" => Some(Self::Warning),
            "critical" => Some(Self::Critical),
            _ => None,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many results in a row a check needs for a change of its status. Consul: `StatusHandler`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// `SuccessBeforePassing`.
    pub success_before_passing: u32,
    /// `FailuresBeforeWarning`; as the next one where it was not given.
    pub failures_before_warning: u32,
    /// `FailuresBeforeCritical`.
    pub failures_before_critical: u32,
}

/// Results of one kind in a row. The first result of all counts at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    successes: u32,
    failures: u32,
    begun: bool,
}

impl Standing {
    /// Counts a result; the status that the check gets by it, if any.
    pub fn count(&mut self, thresholds: Thresholds, result: Status) -> Option<Status> {
        if !std::mem::replace(&mut self.begun, true) {
            // As if enough of either kind had come before.
            self.successes = thresholds.success_before_passing;
            self.failures = thresholds.failures_before_critical;
        }
        if result == Status::Critical {
            self.failures = self.failures.saturating_add(1);
            self.successes = 0;
            if self.failures >= thresholds.failures_before_critical {
                return Some(Status::Critical);
            }
            return (self.failures >= thresholds.failures_before_warning)
                .then_some(Status::Warning);
        }
        self.successes = self.successes.saturating_add(1);
        self.failures = 0;
        (self.successes >= thresholds.success_before_passing).then_some(result)
    }
}

/// Cuts an output to `bytes_max` bytes, and says so in Consul's words.
pub(super) fn trimmed(output: String, bytes_max: usize) -> String {
    let total = output.len();
    if total <= bytes_max {
        return output;
    }
    let kept = &output[..output.floor_char_boundary(bytes_max)];
    format!("{kept} ... (captured {bytes_max} of {total} bytes)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use Status::{Critical, Passing, Warning};

    /// Consul's `TestStatusHandlerUpdateStatusAfterConsecutiveChecksThresholdIsReached`, told anew.
    #[test]
    fn a_status_changes_after_so_many_results_in_a_row() {
        let thresholds = Thresholds {
            success_before_passing: 2,
            failures_before_warning: 3,
            failures_before_critical: 3,
        };
        let mut standing = Standing::default();
        for (result, status) in [
            (Passing, Some(Passing)),
            (Critical, None),
            (Critical, None),
            (Critical, Some(Critical)),
            (Critical, Some(Critical)),
            (Passing, None),
            (Critical, None),
            (Passing, None),
            (Warning, Some(Warning)),
            (Passing, Some(Passing)),
        ] {
            assert_eq!(standing.count(thresholds, result), status);
        }
    }

    #[test]
    fn failures_warn_before_they_are_critical() {
        let thresholds = Thresholds {
            success_before_passing: 0,
            failures_before_warning: 1,
            failures_before_critical: 3,
        };
        let mut standing = Standing::default();
        for (result, status) in [
            (Passing, Some(Passing)),
            (Critical, Some(Warning)),
            (Critical, Some(Warning)),
            (Critical, Some(Critical)),
            (Passing, Some(Passing)),
        ] {
            assert_eq!(standing.count(thresholds, result), status);
        }
    }

    #[test]
    fn without_thresholds_every_result_counts() {
        let mut standing = Standing::default();
        for result in [Critical, Passing, Critical, Warning] {
            assert_eq!(standing.count(Thresholds::default(), result), Some(result));
        }
    }

    #[test]
    fn long_outputs_are_cut_between_characters() {
        assert_eq!(trimmed("short".into(), 5), "short");
        assert_eq!(
            trimmed("a\u{e9}b".into(), 2),
            "a ... (captured 2 of 4 bytes)"
        );
    }
}
