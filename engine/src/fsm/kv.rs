//! What do Consul's KV verbs do to the state?
//!
//! Exactly what Consul's state store does, quirks included, because lock libraries depend on them:
//! a plain set keeps the session that holds the key and zeroes its lock index; a write that
//! changes nothing does not move the modify index; deleting what is not there succeeds and leaves
//! no tombstone; a recursive delete leaves one, and none if it deletes everything.

use wire::{Index, KvCommand, KvRowRef, KvVerb, Uuid, limits};

use super::{Outcome, sessions};
use crate::state::{
    IndexRow, KvRow, Txn,
    row::SESSION_BYTES_MAX,
    schema::{Kvs, Tombstones},
};

/// Carries out one KV command at `index`. `scratch` is kept by the caller.
pub(super) fn apply(
    txn: &mut Txn<'_>,
    index: Index,
    kv: &KvCommand<'_>,
    scratch: &mut Vec<u8>,
) -> Outcome {
    if let Some(refusal) = refusal(kv) {
        return Outcome::Refused(refusal);
    }
    let held = txn.get::<Kvs>(kv.key).cloned();
    let modified = held.as_ref().map(KvRow::modify_index);
    let expected = Index(kv.index);
    let ok = match kv.verb {
        KvVerb::Set => set(txn, index, kv, held, scratch),
        KvVerb::Cas => match modified {
            None => kv.index == 0 && set(txn, index, kv, None, scratch),
            Some(_) if mutant!(CasIgnoresIndex) => set(txn, index, kv, held, scratch),
            Some(at) => at == expected && kv.index != 0 && set(txn, index, kv, held, scratch),
        },
        KvVerb::Delete => held.is_none() || delete(txn, index, kv.key),
        KvVerb::DeleteCas => match modified {
            None => true,
            Some(at) => at == expected && delete(txn, index, kv.key),
        },
        KvVerb::DeleteTree => delete_tree(txn, index, kv.key),
        KvVerb::Lock => return lock(txn, index, kv, held, scratch),
        KvVerb::Unlock => unlock(txn, index, kv, held, scratch),
    };
    Outcome::Done { ok }
}

/// What no state could make right, in words for the client.
fn refusal(kv: &KvCommand<'_>) -> Option<String> {
    let (key, session) = (kv.key.len(), kv.session.len());
    if key == 0 && kv.verb != KvVerb::DeleteTree {
        return Some("missing key name".to_owned());
    }
    if key > limits::KEY_BYTES_MAX {
        return Some(format!(
            "key of {key} bytes is over the limit of {}",
            limits::KEY_BYTES_MAX
        ));
    }
    if session > SESSION_BYTES_MAX {
        return Some(format!(
            "session id of {session} bytes is over the limit of {SESSION_BYTES_MAX}"
        ));
    }
    let locks = matches!(kv.verb, KvVerb::Lock | KvVerb::Unlock);
    (locks && session == 0).then(|| "missing session".to_owned())
}

fn set(
    txn: &mut Txn<'_>,
    index: Index,
    kv: &KvCommand<'_>,
    held: Option<KvRow>,
    scratch: &mut Vec<u8>,
) -> bool {
    let session = match mutant!(SetForgetsHolder) {
        true => b"",
        false => held.as_ref().map_or(&b""[..], KvRow::session),
    };
    write(txn, index, kv, held.as_ref(), 0, session, scratch)
}

/// Puts the command's value and flags under its key, unless that changes nothing.
fn write(
    txn: &mut Txn<'_>,
    index: Index,
    kv: &KvCommand<'_>,
    held: Option<&KvRow>,
    lock_index: u64,
    session: &[u8],
    scratch: &mut Vec<u8>,
) -> bool {
    if let Some(held) = held
        && held.value() == kv.value
        && held.flags() == kv.flags
        && held.lock_index() == lock_index
        && held.session() == session
    {
        return true;
    }
    let row = KvRowRef {
        key: kv.key,
        value: kv.value,
        flags: kv.flags,
        create_index: held.map_or(index, KvRow::create_index),
        modify_index: index,
        lock_index,
        session,
    };
    txn.put::<Kvs>(KvRow::new(row, scratch))
        .expect("no index of kvs can refuse a row");
    txn.touch::<Kvs>(index);
    true
}

/// Deletes a key that exists.
pub(super) fn delete(txn: &mut Txn<'_>, index: Index, key: &[u8]) -> bool {
    bury(txn, index, key);
    txn.remove::<Kvs>(key);
    txn.touch::<Kvs>(index);
    true
}

fn delete_tree(txn: &mut Txn<'_>, index: Index, prefix: &[u8]) -> bool {
    if txn.remove_prefix::<Kvs>(prefix) > 0 {
        // Older tombstones would speak for the listings of longer prefixes, whose index would fall
        // back to them. Without, and where everything goes, the index of the table speaks.
        txn.remove_prefix::<Tombstones>(prefix);
        if !prefix.is_empty() {
            bury(txn, index, prefix);
        }
        txn.touch::<Kvs>(index);
    }
    true
}

fn bury(txn: &mut Txn<'_>, index: Index, key: &[u8]) {
    if mutant!(TombstoneNotWritten) {
        return;
    }
    txn.put::<Tombstones>(IndexRow::new(key, index))
        .expect("no index of tombstones can refuse a row");
    txn.touch::<Tombstones>(index);
}

/// Takes a key for a session; its holder may do so again, and writes value and flags.
fn lock(
    txn: &mut Txn<'_>,
    index: Index,
    kv: &KvCommand<'_>,
    held: Option<KvRow>,
    scratch: &mut Vec<u8>,
) -> Outcome {
    if sessions::is_delayed(txn.tables(), kv.key) {
        return Outcome::Done { ok: false };
    }
    let id = std::str::from_utf8(kv.session).ok();
    let Some(session) = id.and_then(|id| sessions::get(txn.tables(), id)) else {
        let session = session_text(kv.session);
        return Outcome::Refused(format!("invalid session \"{session}\""));
    };
    let id = session.id.clone().into_bytes();
    let lock_index = match &held {
        None => 1,
        Some(held) if held.session() == id => held.lock_index(),
        Some(held) if held.session().is_empty() || mutant!(LockTakenTwice) => held.lock_index() + 1,
        Some(_) => return Outcome::Done { ok: false },
    };
    let ok = write(txn, index, kv, held.as_ref(), lock_index, &id, scratch);
    Outcome::Done { ok }
}

/// A session's id as errors name it.
pub(super) fn session_text(session: &[u8]) -> String {
    match Uuid::from_slice(session) {
        Some(uuid) => uuid.to_string(),
        None => session.escape_ascii().to_string(),
    }
}

/// Releases a key that the session holds; the command's value and flags are written with it.
fn unlock(
    txn: &mut Txn<'_>,
    index: Index,
    kv: &KvCommand<'_>,
    held: Option<KvRow>,
    scratch: &mut Vec<u8>,
) -> bool {
    let holds = |held: &KvRow| {
        held.session() == kv.session || mutant!(ReleaseByAnybody) && !held.session().is_empty()
    };
    let Some(held) = held.filter(holds) else {
        return false;
    };
    let lock_index = held.lock_index();
    write(txn, index, kv, Some(&held), lock_index, b"", scratch)
}
