//! Which value may each key hold now?
//!
//! Every write carries its key's next sequence number, and each key is written by one slot only,
//! one request at a time. So after any crash the value of a key must be at least the last
//! acknowledged one and at most the last one sent. After a write whose outcome is unknown the key
//! is never written again in this ledger's life: the lost request might still take effect after a
//! later one, and then nothing could be told from the value.
//!
//! Values differ on every write, because a write that changes nothing is cheaper for some
//! products (Consul does not move the modify index).

use crate::{Error, Result};

/// Sizes of what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Length of every key, bytes; at least [`KEY_BYTES_MIN`].
    pub key_bytes: usize,
    /// Length of every value, bytes; at least [`VALUE_BYTES_MIN`].
    pub value_bytes: usize,
    /// Number of different keys (more if there are more slots).
    pub keys: usize,
}

/// Shortest key that has room for the prefix and a key number.
pub const KEY_BYTES_MIN: usize = 16;
/// Shortest value that has room for key and sequence number.
pub const VALUE_BYTES_MIN: usize = 16;

/// One write on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Number of the key.
    pub key: u32,
    /// Sequence number of the value within its key, from 1.
    pub sequence: u32,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    acknowledged: u32,
    sent: u32,
    retired: bool,
}

/// What was sent and what was acknowledged, by key.
pub struct Ledger {
    shape: Shape,
    entries: Vec<Entry>,
    random: u64,
    fill_next: Option<u32>,
}

impl Ledger {
    /// No key written yet.
    pub fn new(shape: Shape) -> Result<Self> {
        if shape.key_bytes < KEY_BYTES_MIN || shape.value_bytes < VALUE_BYTES_MIN {
            return Err(Error::Usage(format!(
                "keys need at least {KEY_BYTES_MIN} bytes and values at least {VALUE_BYTES_MIN} \
                 (--key-bytes, --value-bytes): they carry a key number and a sequence number"
            )));
        }
        if shape.keys == 0 || shape.keys > 1 << 30 {
            return Err(Error::Usage(
                "--keys must be between 1 and 1073741824".into(),
            ));
        }
        Ok(Self {
            shape,
            entries: vec![Entry::default(); shape.keys],
            random: 0x9E37_79B9_7F4A_7C15,
            fill_next: None,
        })
    }

    /// Sizes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// From now on slots take the keys in order, each once, until [`Self::filled`].
    pub fn start_fill(&mut self) {
        self.fill_next = Some(0);
    }

    /// Whether every key has been handed out; then writes pick keys at random again.
    pub fn filled(&self) -> bool {
        self.fill_next.is_none()
    }

    /// The next write of slot `slot` of `slots`; `None` when a fill has handed out its last key.
    pub fn next_put(&mut self, slot: usize, slots: usize) -> Option<Ticket> {
        let key = match self.fill_next {
            Some(next) if (next as usize) < self.entries.len() => {
                self.fill_next = Some(next + 1);
                next as usize
            }
            Some(_) => return None,
            None => self.pick_own(slot, slots),
        };
        let entry = &mut self.entries[key];
        entry.sent += 1;
        Some(Ticket {
            key: key as u32,
            sequence: entry.sent,
        })
    }

    /// Ends a fill.
    pub fn end_fill(&mut self) {
        self.fill_next = None;
    }

    /// A key of the slot's own class (key mod slots = slot) that is not retired.
    fn pick_own(&mut self, slot: usize, slots: usize) -> usize {
        let own = (self.entries.len().saturating_sub(slot)).div_ceil(slots);
        for _ in 0..8 {
            if own == 0 {
                break;
            }
            let key = slot + slots * (self.next_random() as usize % own);
            if !self.entries[key].retired {
                return key;
            }
        }
        // All tried ones are retired, or there are fewer keys than slots: make a new one.
        let mut key = slot + slots * own;
        while key < self.entries.len() && self.entries[key].retired {
            key += slots;
        }
        if key >= self.entries.len() {
            self.entries.resize(key + 1, Entry::default());
        }
        key
    }

    /// A key to read, any that was acknowledged at least once; `None` if there is none.
    pub fn next_get(&mut self) -> Option<u32> {
        let n = self.entries.len();
        for _ in 0..64 {
            let key = self.next_random() as usize % n;
            if self.entries[key].acknowledged > 0 {
                return Some(key as u32);
            }
        }
        self.entries
            .iter()
            .position(|e| e.acknowledged > 0)
            .map(|key| key as u32)
    }

    /// The write was acknowledged.
    pub fn acknowledged(&mut self, ticket: Ticket) {
        let entry = &mut self.entries[ticket.key as usize];
        assert!(
            ticket.sequence <= entry.sent,
            "acknowledged what was never sent"
        );
        entry.acknowledged = entry.acknowledged.max(ticket.sequence);
    }

    /// The write failed or its answer never came.
    pub fn unknown(&mut self, ticket: Ticket) {
        self.entries[ticket.key as usize].retired = true;
    }

    /// Appends the key's bytes: URL-safe, with a common prefix as real keys have.
    pub fn key(&self, key: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(b"bench/");
        out.resize(start + self.shape.key_bytes, b'0');
        let mut digits = key;
        let mut at = start + self.shape.key_bytes;
        while digits > 0 {
            at -= 1;
            out[at] = b'0' + (digits % 10) as u8;
            digits /= 10;
        }
    }

    /// Appends the value's bytes: key and sequence number in hexadecimal, then filler.
    pub fn value(&self, ticket: Ticket, out: &mut Vec<u8>) {
        let end = out.len() + self.shape.value_bytes;
        hex8(ticket.key, out);
        hex8(ticket.sequence, out);
        let mut filler = u64::from(ticket.key) << 32 | u64::from(ticket.sequence) | 1;
        while out.len() < end {
            filler = xorshift(filler);
            let chunk = filler.to_le_bytes().map(|b| b'A' + (b & 0x0f));
            let take = chunk.len().min(end - out.len());
            out.extend_from_slice(&chunk[..take]);
        }
    }

    /// Keys that hold something acknowledged, which must therefore be found.
    pub fn keys_to_find(&self) -> impl Iterator<Item = u32> + '_ {
        self.entries
            .iter()
            .enumerate()
            .filter(|(_, e)| e.acknowledged > 0)
            .map(|(key, _)| key as u32)
    }

    /// Judges the value found under `key` (`None`: no such key).
    pub fn check(&self, key: u32, found: Option<&[u8]>) -> std::result::Result<(), String> {
        let entry = self.entries[key as usize];
        let Some(found) = found else {
            return match entry.acknowledged {
                0 => Ok(()),
                n => Err(format!(
                    "key {key}: write {n} was acknowledged and the key is gone"
                )),
            };
        };
        let sequence = found
            .get(8..16)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u32::from_str_radix(hex, 16).ok())
            .ok_or_else(|| format!("key {key}: its value is not one of ours"))?;
        let mut whole = Vec::new();
        self.value(Ticket { key, sequence }, &mut whole);
        if whole != found {
            return Err(format!("key {key}: value {sequence} came back damaged"));
        }
        if sequence < entry.acknowledged || sequence > entry.sent {
            return Err(format!(
                "key {key}: holds write {sequence}, but {} was acknowledged and {} sent",
                entry.acknowledged, entry.sent
            ));
        }
        Ok(())
    }

    fn next_random(&mut self) -> u64 {
        self.random = xorshift(self.random);
        self.random
    }
}

fn xorshift(mut x: u64) -> u64 {
    x ^= x << 13;
    x ^= x >> 7;
    x ^ (x << 17)
}

fn hex8(n: u32, out: &mut Vec<u8>) {
    for shift in (0..8).rev() {
        out.push(b"0123456789abcdef"[(n >> (shift * 4) & 15) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(keys: usize) -> Ledger {
        Ledger::new(Shape {
            key_bytes: 64,
            value_bytes: 256,
            keys,
        })
        .unwrap()
    }

    fn value(l: &Ledger, ticket: Ticket) -> Vec<u8> {
        let mut out = Vec::new();
        l.value(ticket, &mut out);
        out
    }

    #[test]
    fn keys_and_values_have_the_asked_sizes_and_differ() {
        let l = ledger(10);
        let mut keys = std::collections::HashSet::new();
        for key in [0, 1, 9, 10, 123_456_789, u32::MAX] {
            let mut out = b"/v1/kv/".to_vec();
            l.key(key, &mut out);
            assert_eq!(out.len(), 7 + 64);
            assert!(keys.insert(out));
        }
        let (a, b) = (
            Ticket {
                key: 1,
                sequence: 1,
            },
            Ticket {
                key: 1,
                sequence: 2,
            },
        );
        assert_eq!(value(&l, a).len(), 256);
        assert_ne!(value(&l, a), value(&l, b));
    }

    #[test]
    fn no_two_slots_ever_write_the_same_key() {
        for (keys, slots) in [(1, 1), (10, 3), (3, 10), (100, 7)] {
            let mut l = ledger(keys);
            for round in 0..200 {
                for slot in 0..slots {
                    let ticket = l.next_put(slot, slots).unwrap();
                    assert_eq!(ticket.key as usize % slots, slot);
                    if round % 50 == 7 {
                        l.unknown(ticket);
                    }
                }
            }
        }
    }

    #[test]
    fn a_key_with_an_unknown_outcome_is_never_written_again() {
        let mut l = ledger(4);
        let lost = l.next_put(0, 1).unwrap();
        l.unknown(lost);
        for _ in 0..500 {
            assert_ne!(l.next_put(0, 1).unwrap().key, lost.key);
        }
    }

    #[test]
    fn the_verdicts() {
        let mut l = ledger(1);
        let one = l.next_put(0, 1).unwrap();
        assert_eq!(
            l.check(0, None),
            Ok(()),
            "nothing acknowledged, nothing owed"
        );
        l.acknowledged(one);
        let two = l.next_put(0, 1).unwrap();
        let three = Ticket {
            key: 0,
            sequence: 3,
        };
        assert!(l.check(0, None).unwrap_err().contains("gone"));
        assert_eq!(l.check(0, Some(&value(&l, one))), Ok(()));
        assert_eq!(
            l.check(0, Some(&value(&l, two))),
            Ok(()),
            "sent, may have taken effect"
        );
        assert!(l.check(0, Some(&value(&l, three))).is_err(), "never sent");
        l.acknowledged(two);
        assert!(
            l.check(0, Some(&value(&l, one))).is_err(),
            "an acknowledged write was lost"
        );
        let mut damaged = value(&l, two);
        damaged[200] ^= 1;
        assert!(l.check(0, Some(&damaged)).unwrap_err().contains("damaged"));
        assert!(
            l.check(0, Some(b"foreign"))
                .unwrap_err()
                .contains("not one of ours")
        );
    }

    #[test]
    fn a_fill_hands_out_each_key_once_and_in_order() {
        let mut l = ledger(5);
        l.start_fill();
        let keys: Vec<u32> = std::iter::from_fn(|| l.next_put(2, 3).map(|t| t.key)).collect();
        assert_eq!(keys, [0, 1, 2, 3, 4]);
        assert!(!l.filled());
        l.end_fill();
        assert!(l.next_put(2, 3).is_some());
    }

    #[test]
    fn reads_pick_only_what_was_acknowledged() {
        let mut l = ledger(1000);
        assert_eq!(l.next_get(), None);
        l.start_fill();
        for _ in 0..1000 {
            let t = l.next_put(0, 1).unwrap();
            if t.key == 777 {
                l.acknowledged(t);
            }
        }
        assert_eq!(l.next_get(), Some(777));
        assert_eq!(l.keys_to_find().collect::<Vec<_>>(), [777]);
    }

    #[test]
    fn too_small_shapes_are_refused_by_flag() {
        for (key_bytes, value_bytes, keys) in [(15, 256, 1), (64, 15, 1), (64, 256, 0)] {
            let shape = Shape {
                key_bytes,
                value_bytes,
                keys,
            };
            assert!(
                Ledger::new(shape)
                    .err()
                    .unwrap()
                    .to_string()
                    .contains("--key")
            );
        }
    }
}
