//! What does a client see when a request is not carried out?
//!
//! Consul's statuses and texts, word for word where it has them, since client libraries match on
//! them; elsewhere the failure's own sentence. The body is plain text without a newline.

use std::borrow::Cow;

use http::StatusCode;
use wire::{Failure, FailureKind};

/// An answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) text: Cow<'static, str>,
    /// `Retry-After`, seconds.
    pub(super) retry_after_s: Option<u32>,
    /// The rest of the request is not read: the connection ends with this answer.
    pub(super) close: bool,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            text: text.into(),
            retry_after_s: None,
            close: false,
        }
    }

    pub(super) fn bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// Consul answers `500` to whatever it has no better status for, bad numbers included.
    pub(super) fn internal(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }

    /// Over a bound on what is in flight. Nothing happened.
    pub(super) fn busy(text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            retry_after_s: Some(1),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, text)
        }
    }

    /// A body over the limit, in Consul's words. `found` is what was announced or already seen.
    pub(super) fn body_too_large(found: u64, max: usize) -> Self {
        let text = format!(
            "Request body({found} bytes) too large, max size: {max} bytes. See \
             https://developer.hashicorp.com/docs/agent/config/config-files#kv_max_value_size."
        );
        Self {
            close: true,
            ..Self::new(StatusCode::PAYLOAD_TOO_LARGE, text)
        }
    }

    /// A client that was too slow.
    pub(super) fn timeout(text: &'static str) -> Self {
        Self {
            close: true,
            ..Self::new(StatusCode::REQUEST_TIMEOUT, text)
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let said = |default: &'static str| -> Cow<'static, str> {
            match failure.message.is_empty() {
                true => default.into(),
                false => failure.message.clone().into(),
            }
        };
        let mut refusal = match failure.kind {
            FailureKind::NoLeader => Self::internal("No cluster leader"),
            FailureKind::NotLeader => Self::internal("node is not the leader"),
            // The client must not take this for "nothing happened".
            FailureKind::OutcomeUnknown => {
                Self::internal("raft apply failed: leadership lost while committing log")
            }
            FailureKind::Busy => Self::busy(said(
                "rate limit exceeded, try again later or against a different server",
            )),
            FailureKind::Invalid => Self::bad(said("Invalid request")),
            FailureKind::TooLarge => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, said("Request too large"))
            }
            FailureKind::DiskFull => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                said("no space left for the log: writes are refused until there is, reads go on"),
            ),
            FailureKind::NotMember => {
                Self::internal(said("this server is not in the cluster's peer set"))
            }
            FailureKind::ShuttingDown => Self {
                retry_after_s: Some(1),
                ..Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    said("this server is shutting down"),
                )
            },
            FailureKind::SpansShards => Self::bad(said("the request spans shards")),
            FailureKind::Refused => {
                Self::internal(format!("raft apply failed: {}", said("refused")))
            }
            FailureKind::Internal => Self::internal(said("internal error")),
        };
        if failure.retry_after_ms > 0 {
            refusal.retry_after_s = Some(failure.retry_after_ms.div_ceil(1000));
        }
        refusal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_status_and_text() {
        use FailureKind::*;
        for (kind, status, text) in [
            (NoLeader, 500, "No cluster leader"),
            (NotLeader, 500, "node is not the leader"),
            (
                OutcomeUnknown,
                500,
                "raft apply failed: leadership lost while committing log",
            ),
            (Busy, 429, "why"),
            (Invalid, 400, "why"),
            (TooLarge, 413, "why"),
            (DiskFull, 507, "why"),
            (NotMember, 500, "why"),
            (ShuttingDown, 503, "why"),
            (SpansShards, 400, "why"),
            (Refused, 500, "raft apply failed: why"),
            (Internal, 500, "why"),
        ] {
            let refusal = Refusal::from(Failure {
                kind,
                message: "why".into(),
                leader: String::new(),
                retry_after_ms: 1500,
            });
            assert_eq!(
                (refusal.status.as_u16(), &*refusal.text),
                (status, text),
                "{kind:?}"
            );
            assert_eq!(refusal.retry_after_s, Some(2));
        }
    }
}
