//! What does a watch say, word for word?
//!
//! Server-sent events (WHATWG HTML §9.2), one JSON object on one line of `data:` each:
//!
//! ```text
//! event: row        data: {…,"Op":"set"}                     a row of the beginning
//! event: synced     data: {"Index":41}              id: C    all rows of the beginning were told
//! event: change     data: {…,"Op":"lock"}           id: C    one change
//! event: progress   data: {"Index":57,"KnownLeader":true,"LastContact":0}    id: C    nothing new
//! event: reset      data: {"Reason":"…"}            id:      start over; the stream ends
//! ```
//!
//! A `set`, `lock` or `unlock` holds Consul's KV entry; a `delete` or `delete-tree` holds `Key` (of
//! the latter a prefix) and `ModifyIndex`, the index of the deletion. `C` is a [`Place`], to be
//! sent back as `Last-Event-ID`. A row of the beginning has no id, so that a client that loses its
//! connection before `synced` begins anew; the empty id of a `reset` makes it forget the one it had.
//!
//! A `Place` as text: 16 hexadecimal digits that tell clusters and shards apart, a hyphen, the
//! index, and for a place between two changes of one entry a dot and how many lie before it.

use std::fmt;

use wire::{ChangeOp, Cursor, Index, KvChange, KvRowRef, limits::INDEX_MAX};

use super::json::{self, Style};

/// A cursor, and whose history it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) origin: u64,
    pub(super) cursor: Cursor,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cursor { index, position } = self.cursor;
        write!(f, "{:016x}-{}", self.origin, index.0)?;
        match position {
            Cursor::ALL => Ok(()),
            position => write!(f, ".{position}"),
        }
    }
}

impl Place {
    /// Reads what [`fmt::Display`] wrote, and nothing else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (origin, cursor) = text.split_once('-')?;
        let (index, position) = match cursor.split_once('.') {
            Some((index, position)) => (index, position.parse().ok()?),
            None => (cursor, Cursor::ALL),
        };
        let index = Index(index.parse().ok()?);
        let place = Self {
            origin: u64::from_str_radix(origin, 16).ok()?,
            cursor: Cursor { index, position },
        };
        (index.0 <= INDEX_MAX && place.to_string() == text).then_some(place)
    }
}

/// A row of the beginning.
pub(super) fn row(out: &mut Vec<u8>, row: &KvRowRef<'_>) {
    open(out, "row");
    entry(out, row, ChangeOp::Set);
    out.extend_from_slice(b"\n\n");
}

/// All rows of the beginning were told.
pub(super) fn synced(out: &mut Vec<u8>, place: Place) {
    open(out, "synced");
    let Index(index) = place.cursor.index;
    out.extend_from_slice(format!("{{\"Index\":{index}}}").as_bytes());
    close(out, Some(place));
}

/// One change.
pub(super) fn change(out: &mut Vec<u8>, origin: u64, change: &KvChange) {
    open(out, "change");
    let row = change.row.borrow();
    match change.op {
        ChangeOp::Set | ChangeOp::Lock | ChangeOp::Unlock => entry(out, &row, change.op),
        ChangeOp::Delete | ChangeOp::DeleteTree => {
            out.extend_from_slice(b"{\"Key\":");
            json::string(out, row.key);
            let (Index(index), op) = (change.at.index, change.op.name());
            out.extend_from_slice(format!(",\"ModifyIndex\":{index},\"Op\":\"{op}\"}}").as_bytes());
        }
    }
    let cursor = change.at;
    close(out, Some(Place { origin, cursor }));
}

/// Nothing new up to here.
pub(super) fn progress(out: &mut Vec<u8>, place: Place, known_leader: bool, last_contact_ms: u64) {
    open(out, "progress");
    let Index(index) = place.cursor.index;
    out.extend_from_slice(
        format!(
            "{{\"Index\":{index},\"KnownLeader\":{known_leader},\"LastContact\":{last_contact_ms}}}"
        )
        .as_bytes(),
    );
    close(out, Some(place));
}

/// What came before cannot be gone on from.
pub(super) fn reset(out: &mut Vec<u8>, reason: &str) {
    open(out, "reset");
    out.extend_from_slice(b"{\"Reason\":");
    json::string(out, reason.as_bytes());
    out.push(b'}');
    close(out, None);
}

fn open(out: &mut Vec<u8>, event: &str) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\ndata: ");
}

fn close(out: &mut Vec<u8>, place: Option<Place>) {
    out.extend_from_slice(b"\nid:");
    if let Some(place) = place {
        out.extend_from_slice(format!(" {place}").as_bytes());
    }
    out.extend_from_slice(b"\n\n");
}

fn entry(out: &mut Vec<u8>, row: &KvRowRef<'_>, op: ChangeOp) {
    out.push(b'{');
    json::row_members(out, Style::Compact, row);
    out.extend_from_slice(format!(",\"Op\":\"{}\"}}", op.name()).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    const AT: Cursor = Cursor {
        index: Index(57),
        position: 2,
    };
    const PLACE: Place = Place {
        origin: 0x00c0_ffee_0000_0001,
        cursor: AT,
    };

    fn said(say: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        say(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn told(op: ChangeOp) -> KvChange {
        KvChange {
            op,
            at: AT,
            row: wire::KvRow {
                key: Bytes::from_static(b"a/\n\xff"),
                value: Bytes::from_static(b"line\nid: 1"),
                flags: 42,
                create_index: Index(11),
                modify_index: Index(57),
                lock_index: 1,
                session: Bytes::from_static(b"adf4"),
            },
        }
    }

    #[test]
    fn events_are_written_as_documented() {
        assert_eq!(
            said(|out| change(out, PLACE.origin, &told(ChangeOp::Lock))),
            "event: change\n\
             data: {\"LockIndex\":1,\"Key\":\"a/\\n\\ufffd\",\"Flags\":42,\"Value\":\"bGluZQppZDogMQ==\",\
             \"Session\":\"adf4\",\"CreateIndex\":11,\"ModifyIndex\":57,\"Op\":\"lock\"}\n\
             id: 00c0ffee00000001-57.2\n\n"
        );
        assert_eq!(
            said(|out| change(out, PLACE.origin, &told(ChangeOp::DeleteTree))),
            "event: change\n\
             data: {\"Key\":\"a/\\n\\ufffd\",\"ModifyIndex\":57,\"Op\":\"delete-tree\"}\n\
             id: 00c0ffee00000001-57.2\n\n"
        );
        assert!(
            said(|out| row(out, &told(ChangeOp::Set).row.borrow()))
                .ends_with("\"ModifyIndex\":57,\"Op\":\"set\"}\n\n"),
            "without an id"
        );
        let behind = Place {
            cursor: Cursor::behind(Index(57)),
            ..PLACE
        };
        assert_eq!(
            said(|out| synced(out, behind)),
            "event: synced\ndata: {\"Index\":57}\nid: 00c0ffee00000001-57\n\n"
        );
        assert_eq!(
            said(|out| progress(out, behind, true, 3)),
            "event: progress\ndata: {\"Index\":57,\"KnownLeader\":true,\"LastContact\":3}\n\
             id: 00c0ffee00000001-57\n\n"
        );
        assert_eq!(
            said(|out| reset(out, "why \"so\"")),
            "event: reset\ndata: {\"Reason\":\"why \\\"so\\\"\"}\nid:\n\n"
        );
    }

    #[test]
    fn what_is_no_place_is_not_taken_for_one() {
        for text in [
            "",
            "57",
            "-57",
            "c0ffee-57",
            "00c0ffee00000001-",
            "00c0ffee00000001-57.",
            "00c0ffee00000001-57.4294967295",
            "00c0ffee00000001-57.4294967296",
            "00c0ffee00000001-+57",
            "00c0ffee00000001-057",
            "00C0FFEE00000001-57",
            "00c0ffee00000001-57.2 ",
            "00c0ffee00000001-4611686018427387905",
        ] {
            assert_eq!(Place::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn places_are_read_back(origin: u64, index in 0..=INDEX_MAX, position: u32) {
            let cursor = Cursor { index: Index(index), position };
            let place = Place { origin, cursor };
            prop_assert_eq!(Place::parse(&place.to_string()), Some(place));
        }
    }
}
