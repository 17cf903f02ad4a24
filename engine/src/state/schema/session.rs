//! Sessions, the checks they are bound to, and the delays they leave behind.

use super::{UNIQUE, UNIQUE_PREFIX};
use crate::state::{
    index::{Attributes, DeclaredIndex, Field, FunctionalIndex, Write},
    records::{LockDelay, RecordRow, Session, SessionCheck},
};

record_table! {
    /// Sessions. Consul: `sessions`.
    Sessions: Session = 8 "sessions", by SESSIONS_ID, and [SESSIONS_NODE, SESSIONS_DEADLINE, SESSIONS_TTL]
}

/// `sessions.id`: the id.
pub const SESSIONS_ID: DeclaredIndex<RecordRow<Session>> = DeclaredIndex {
    name: "id",
    attributes: UNIQUE,
    fields: &[Field::Lower(|session| &session.id)],
};

/// `sessions.node`: the node.
pub const SESSIONS_NODE: DeclaredIndex<RecordRow<Session>> = DeclaredIndex {
    name: "node",
    attributes: Attributes::NONE,
    fields: &[Field::Lower(|session| &session.node)],
};

/// `sessions.deadline`: when it expires ([`Session::deadline_ms`]), if it has a TTL. Any query by
/// prefix goes through all of them, those that expire first in front.
pub const SESSIONS_DEADLINE: FunctionalIndex<RecordRow<Session>, u64> = FunctionalIndex {
    name: "deadline",
    attributes: BY_TIME,
    read: |ms, key| {
        key.unsigned(*ms);
    },
    write: Write::One(|session, key| {
        let deadline = session.deadline_ms();
        deadline.is_some_and(|ms| !key.unsigned(ms).as_bytes().is_empty())
    }),
    prefix: Some(|_, _| ()),
};

/// `sessions.ttl`: its TTL, if it has one. Any query by prefix goes through all of them, the
/// shortest in front.
pub const SESSIONS_TTL: FunctionalIndex<RecordRow<Session>, u64> = FunctionalIndex {
    name: "ttl",
    attributes: BY_TIME,
    read: |ms, key| {
        key.unsigned(*ms);
    },
    write: Write::One(|session, key| {
        session.ttl_ms > 0 && !key.unsigned(session.ttl_ms).as_bytes().is_empty()
    }),
    prefix: Some(|_, _| ()),
};

const BY_TIME: Attributes = Attributes {
    allow_missing: true,
    prefix: true,
    ..Attributes::NONE
};

record_table! {
    /// Which sessions are bound to which checks. Consul: `session_checks`.
    SessionChecks: SessionCheck = 9 "session_checks", by SESSION_CHECKS_ID, and [SESSION_CHECKS_NODE_CHECK, SESSION_CHECKS_SESSION]
}

/// `session_checks.id`: node, check id and session.
pub const SESSION_CHECKS_ID: DeclaredIndex<RecordRow<SessionCheck>> = DeclaredIndex {
    name: "id",
    attributes: UNIQUE,
    fields: &[
        Field::Lower(|bound| &bound.node),
        Field::Lower(|bound| &bound.check_id),
        Field::Lower(|bound| &bound.session),
    ],
};

/// `session_checks.node_check`: node and check id.
pub const SESSION_CHECKS_NODE_CHECK: DeclaredIndex<RecordRow<SessionCheck>> = DeclaredIndex {
    name: "node_check",
    attributes: Attributes::NONE,
    fields: &[
        Field::Lower(|bound| &bound.node),
        Field::Lower(|bound| &bound.check_id),
    ],
};

/// `session_checks.session`: the session.
pub const SESSION_CHECKS_SESSION: DeclaredIndex<RecordRow<SessionCheck>> = DeclaredIndex {
    name: "session",
    attributes: Attributes::NONE,
    fields: &[Field::Lower(|bound| &bound.session)],
};

record_table! {
    /// Keys that cannot be locked for a while. Ours.
    LockDelays: LockDelay = 10 "lock-delays", by LOCK_DELAYS_ID, and [LOCK_DELAYS_UNTIL]
}

/// `lock-delays.id`: the key in `kvs`.
pub const LOCK_DELAYS_ID: FunctionalIndex<RecordRow<LockDelay>, [u8]> = FunctionalIndex {
    name: "id",
    attributes: UNIQUE_PREFIX,
    read: |kv_key, key| {
        key.raw(kv_key);
    },
    write: Write::One(|delay, key| !key.raw(&delay.key).as_bytes().is_empty()),
    prefix: Some(|kv_key, key| {
        key.raw(kv_key);
    }),
};

/// `lock-delays.until`: when it ends. Any query by prefix goes through all of them, those that
/// end first in front.
pub const LOCK_DELAYS_UNTIL: FunctionalIndex<RecordRow<LockDelay>, u64> = FunctionalIndex {
    name: "until",
    attributes: BY_TIME,
    read: |ms, key| {
        key.unsigned(*ms);
    },
    write: Write::One(|delay, key| !key.unsigned(delay.until_ms).as_bytes().is_empty()),
    prefix: Some(|_, _| ()),
};
