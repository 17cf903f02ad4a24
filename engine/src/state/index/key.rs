//! How do values become bytes that sort and part as the values do?

use wire::Uuid;

/// An index key being built.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(Vec<u8>);

impl Key {
    /// The bytes so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Empties it, keeping its space.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Back to the first `length` bytes.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.0.truncate(length);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Bytes as they are: for a last part, or one of fixed length.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A string, ended by NUL. The bytes 0 and 1 within it become two bytes each (1 and 1, 1 and
    /// 2), so that no string can contain the end of another, and the order stays that of the strings.
    pub fn text(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        self.text_prefix(text).raw(&[0])
    }

    /// The beginning of a string, not ended.
    pub fn text_prefix(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        let start = self.0.len();
        self.raw(text.as_ref()).escape(start)
    }

    /// A string in lower case (Unicode, as Go's `strings.ToLower`), ended by NUL as [`Self::text`].
    pub fn lower(&mut self, text: &str) -> &mut Self {
        self.lower_prefix(text).raw(&[0])
    }

    /// Makes the bytes 0 and 1 from `start` on two bytes each; they are so rare that looking for
    /// them is all this costs.
    fn escape(&mut self, start: usize) -> &mut Self {
        if self.0[start..].iter().all(|byte| *byte > 1) {
            return self;
        }
        let plain = self.0.split_off(start);
        for byte in plain {
            match byte {
                0 | 1 => self.0.extend_from_slice(&[1, byte + 1]),
                _ => self.0.push(byte),
            }
        }
        self
    }

    /// The beginning of a string in lower case, not ended.
    pub fn lower_prefix(&mut self, text: &str) -> &mut Self {
        let start = self.0.len();
        if text.is_ascii() {
            self.0
                .extend(text.bytes().map(|byte| byte.to_ascii_lowercase()));
        } else {
            // One character at a time: unlike `str::to_lowercase`, Go knows no final sigma.
            let mut utf8 = [0; 4];
            for lower in text.chars().flat_map(char::to_lowercase) {
                self.0
                    .extend_from_slice(lower.encode_utf8(&mut utf8).as_bytes());
            }
        }
        self.escape(start)
    }

    /// 16 bytes.
    pub fn uuid(&mut self, uuid: Uuid) -> &mut Self {
        self.raw(&uuid.0)
    }

    /// Eight bytes that sort as the numbers do.
    pub fn integer(&mut self, number: i64) -> &mut Self {
        self.raw(&((number as u64) ^ (1 << 63)).to_be_bytes())
    }

    /// Eight bytes that sort as the numbers do.
    pub fn unsigned(&mut self, number: u64) -> &mut Self {
        self.raw(&number.to_be_bytes())
    }

    /// One byte, 0 or 1.
    pub fn flag(&mut self, flag: bool) -> &mut Self {
        self.raw(&[u8::from(flag)])
    }
}

/// The keys of one object in one index; its space is kept from object to object.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    keys: Vec<Key>,
    count: usize,
}

impl Keys {
    /// Forgets all keys.
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether the object is not in the index.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a key.
    pub fn add(&mut self, build: impl FnOnce(&mut Key)) {
        self.add_if(|key| {
            build(key);
            true
        });
    }

    /// Adds a key, unless `build` finds that there is none.
    pub fn add_if(&mut self, build: impl FnOnce(&mut Key) -> bool) {
        if self.count == self.keys.len() {
            self.keys.push(Key::default());
        }
        let key = &mut self.keys[self.count];
        key.clear();
        self.count += usize::from(build(key));
    }

    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.keys[..self.count].iter().map(Key::as_bytes)
    }

    /// Whether `key` is one of them; they must be sorted.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.keys[..self.count]
            .binary_search_by(|other| other.as_bytes().cmp(key))
            .is_ok()
    }

    /// Sorts them and drops repetitions.
    pub(crate) fn sort(&mut self) {
        self.keys.truncate(self.count);
        self.keys.sort();
        self.keys.dedup();
        self.count = self.keys.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(build: impl FnOnce(&mut Key)) -> Key {
        let mut key = Key::default();
        build(&mut key);
        key
    }

    #[test]
    fn keys_sort_as_their_values() {
        let numbers = [i64::MIN, -2, -1, 0, 1, 255, 256, i64::MAX];
        let keys: Vec<Key> = numbers
            .iter()
            .map(|&n| {
                key(|k| {
                    k.integer(n);
                })
            })
            .collect();
        assert!(keys.is_sorted());
        assert!(
            key(|k| {
                k.text("a");
            }) < key(|k| {
                k.text("aa");
            })
        );
        assert_eq!(
            key(|k| {
                k.lower("NodE-Ä");
            })
            .as_bytes(),
            "node-ä\0".as_bytes()
        );
    }

    /// A node `a\0b` with the service `c` must not be the node `a` with the service `b\0c`.
    #[test]
    fn strings_cannot_run_into_each_other() {
        let pair = |first: &str, second: &str| {
            key(|k| {
                k.text(first).lower(second);
            })
        };
        assert_ne!(pair("a\0b", "c"), pair("a", "b\0c"));
        let texts = [
            "", "\0", "\0\0", "\u{1}", "\u{1}\0", "\u{2}", "a", "a\0", "a\0b", "a\u{1}", "b",
        ];
        let keys: Vec<Key> = texts
            .iter()
            .map(|text| {
                key(|k| {
                    k.text(text);
                })
            })
            .collect();
        assert!(
            keys.is_sorted_by(|a, b| a < b),
            "in the order of the strings"
        );
    }

    #[test]
    fn repeated_keys_count_once() {
        let mut keys = Keys::default();
        for text in ["b", "a", "b"] {
            keys.add(|key| {
                key.text(text);
            });
        }
        keys.add_if(|_| false);
        keys.sort();
        assert_eq!(keys.iter().collect::<Vec<_>>(), [b"a\0", b"b\0"]);
        assert!(keys.contains(b"a\0") && !keys.contains(b"c\0"));
    }
}
