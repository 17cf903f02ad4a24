//! How is one key found without walking down a tree?
//!
//! A hash index beside the tree: one probe and one comparison, where the tree takes four nodes.
//! It is cut into a thousand small tables by bits of the hash, so that growth moves a thousandth of
//! the rows at a time, and it keeps each row's hash, so that moving a row does not touch it. The
//! tables get unequal shares of the rows, the first twice as many as the last: equal ones would
//! all double within a few percent of growth, and be half empty together afterwards.
//!
//! It knows the present only (views read the tree), it is never iterated (its order differs
//! between servers), and it always holds every row of its tree; after a prefix was removed, for a
//! while, rows that are gone as well (see [`super::table`]).

use ahash::RandomState;
use hashbrown::{HashTable, hash_table::Entry};

use super::tree::Keyed;

/// Number of tables. At 10,000,000 rows the growth of one moves 10,000 rows (about 100 µs).
const PARTS: usize = 1024;

#[derive(Debug)]
struct Slot<T> {
    hash: u64,
    row: T,
}

/// Finds rows by their whole key.
#[derive(Debug)]
pub struct PointIndex<T> {
    hasher: RandomState,
    parts: Vec<HashTable<Slot<T>>>,
}

impl<T: Keyed> Default for PointIndex<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Keyed> PointIndex<T> {
    /// An empty index.
    pub fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            parts: (0..PARTS).map(|_| HashTable::new()).collect(),
        }
    }

    /// `hashbrown` places by the lowest bits and tags by the highest; the part is chosen by others.
    fn part(hash: u64) -> usize {
        // u(2 + u)/3 for a uniform u from 0 to 1 has a density that falls from 3/2 to 3/4.
        let uniform = (hash >> 32) & 0xffff;
        let skewed = uniform * ((2 << 16) + uniform) / 3;
        ((skewed * PARTS as u64) >> 32) as usize
    }

    /// The row of this key.
    pub fn get(&self, key: &[u8]) -> Option<&T> {
        let hash = self.hasher.hash_one(key);
        let slot = self.parts[Self::part(hash)]
            .find(hash, |slot| slot.hash == hash && slot.row.key() == key)?;
        Some(&slot.row)
    }

    /// Puts a row in; returns the one that had its key before.
    pub fn insert(&mut self, row: T) -> Option<T> {
        let hash = self.hasher.hash_one(row.key());
        let same = |slot: &Slot<T>| slot.hash == hash && slot.row.key() == row.key();
        match self.parts[Self::part(hash)].entry(hash, same, |slot| slot.hash) {
            Entry::Occupied(mut slot) => Some(std::mem::replace(&mut slot.get_mut().row, row)),
            Entry::Vacant(place) => {
                place.insert(Slot { hash, row });
                None
            }
        }
    }

    /// Takes out the row of this key.
    pub fn remove(&mut self, key: &[u8]) -> Option<T> {
        let hash = self.hasher.hash_one(key);
        let part = &mut self.parts[Self::part(hash)];
        let slot = part
            .find_entry(hash, |slot| slot.hash == hash && slot.row.key() == key)
            .ok()?;
        Some(slot.remove().0.row)
    }

    /// Takes out the row of this key if `unwanted` says so of it.
    pub fn remove_if(&mut self, key: &[u8], unwanted: impl FnOnce(&T) -> bool) {
        let hash = self.hasher.hash_one(key);
        let part = &mut self.parts[Self::part(hash)];
        let same = |slot: &Slot<T>| slot.hash == hash && slot.row.key() == key;
        if let Ok(slot) = part.find_entry(hash, same)
            && unwanted(&slot.get().row)
        {
            slot.remove();
        }
    }

    /// Takes out everything, as pieces small enough to be dropped one at a time.
    pub fn take_parts(&mut self) -> Vec<DiscardedPart<T>> {
        self.parts
            .iter_mut()
            .filter(|part| !part.is_empty())
            .map(|part| DiscardedPart(std::mem::take(part)))
            .collect()
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.parts.iter().map(HashTable::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A piece of a discarded index; dropping it drops its rows' references.
#[derive(Debug)]
pub struct DiscardedPart<T>(HashTable<Slot<T>>);

impl<T> DiscardedPart<T> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::row::IndexRow;

    #[test]
    fn the_first_part_gets_twice_as_many_rows_as_the_last() {
        let mut shares = vec![0u32; PARTS];
        for high in 0..=u64::from(u16::MAX) {
            shares[PointIndex::<IndexRow>::part(high << 32 | 0xabc)] += 1;
        }
        assert_eq!(shares.iter().sum::<u32>(), 1 << 16);
        let (first, last) = (shares[0], shares[PARTS - 1]);
        assert!(
            (94..=98).contains(&first) && (46..=50).contains(&last),
            "{first} and {last}"
        );
    }

    #[test]
    fn rows_are_found_replaced_and_removed_by_their_whole_key() {
        let mut index = PointIndex::new();
        for n in 0..20_000u64 {
            assert!(
                index
                    .insert(IndexRow::new(&n.to_be_bytes(), wire::Index(n)))
                    .is_none()
            );
        }
        assert_eq!(index.len(), 20_000);
        let new = IndexRow::new(&7u64.to_be_bytes(), wire::Index(0));
        assert_eq!(
            index.insert(new).map(|old| old.index()),
            Some(wire::Index(7))
        );
        assert!(index.get(&20_000u64.to_be_bytes()).is_none());
        index.remove_if(&7u64.to_be_bytes(), |row| row.index() == wire::Index(7));
        assert_eq!(
            index.get(&7u64.to_be_bytes()).map(|row| row.index()),
            Some(wire::Index(0))
        );
        assert!(
            index.remove(&7u64.to_be_bytes()).is_some()
                && index.remove(&7u64.to_be_bytes()).is_none()
        );
        assert_eq!(
            index
                .take_parts()
                .iter()
                .map(DiscardedPart::len)
                .sum::<usize>(),
            19_999
        );
        assert!(index.is_empty());
    }
}
