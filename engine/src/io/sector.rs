//! How does a sector on disk prove itself?
//!
//! A disk tears a write at sector boundaries: after a power cut each 512-byte sector holds either
//! all of its new bytes or all of its old ones. So the sector is the unit that must be able to
//! say which write it belongs to, and that it is whole. Each sector of a log segment therefore
//! ends in a *stamp*:
//!
//! ```text
//!   0                                                496      504         508    512
//!   +-------------------------------------------------+--------+-----------+------+
//!   | payload                                         | lsn    | head bit, | check|
//!   |                                                 | u64 LE | incarnat. | u32  |
//!   +-------------------------------------------------+--------+-----------+------+
//!   the top bit of the incarnation word marks the first sector of a batch
//!   check = CRC32C of bytes 0..508, started from a seed made of the log's key and of the
//!           sector's place in its segment
//! ```
//!
//! The seed makes a sector that was written to the wrong place, or that belongs to another log,
//! as invalid as one with a flipped bit. A segment is *formatted*, not zero-filled: a sector that
//! was never written carries a valid stamp of batch 0, so nothing is ever inferred from zeros.
//!
//! No byte of a stamp comes from a client, so no value can contain what passes for the head of a
//! batch, wherever it falls.
//!
//! Every sector is thus exactly one of: written by batch *n* of incarnation *i*, blank, or
//! damaged. A torn write leaves only whole sectors, old and new; damage is never mistaken for it.

/// The unit in which a disk tears writes, bytes.
pub const SECTOR_BYTES: usize = 512;
/// Bytes of a sector that carry payload.
pub const SECTOR_PAYLOAD_BYTES: usize = 496;

const LSN_AT: usize = SECTOR_PAYLOAD_BYTES;
const INCARNATION_AT: usize = 504;
const CHECK_AT: usize = 508;
const HEAD_BIT: u32 = 1 << 31;

/// The secret of one log that seeds its checks, so that neither another log's sector nor bytes
/// that a client chose can pass for one of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SectorKey(pub u32);

impl SectorKey {
    fn seed(self, sector: u64) -> u32 {
        if mutant!(ForgedBatchBelieved) {
            return (sector as u32).wrapping_mul(0x9E37_79B1);
        }
        // An odd factor is a bijection modulo 2^32: two sectors of a segment never share a seed.
        self.0 ^ (sector as u32).wrapping_mul(0x9E37_79B1)
    }
}

/// Which write a sector belongs to. Ordered by incarnation first: what a later start of the
/// server wrote is newer, whatever its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Which start of the server wrote it; 0 for a blank sector.
    pub incarnation: u32,
    /// The batch; 0 for a blank sector.
    pub lsn: u64,
}

impl Stamp {
    /// The stamp of a formatted sector that no batch has written yet.
    pub const BLANK: Stamp = Stamp {
        incarnation: 0,
        lsn: 0,
    };
}

/// A sector that passed its check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Which write it belongs to.
    pub stamp: Stamp,
    /// Whether it is the first sector of its batch.
    pub head: bool,
    /// Its check.
    pub check: u32,
}

/// Highest incarnation: the top bit of its word marks heads.
pub const INCARNATION_MAX: u32 = u32::MAX >> 1;

/// Stamps the sector and computes its check, which is returned. `sector_no` counts from the
/// segment's start.
#[inline]
pub fn seal(sector: &mut [u8], key: SectorKey, sector_no: u64, stamp: Stamp, head: bool) -> u32 {
    debug_assert!(stamp.incarnation <= INCARNATION_MAX);
    let word = stamp.incarnation | if head { HEAD_BIT } else { 0 };
    let sector: &mut [u8; SECTOR_BYTES] = sector.try_into().expect("one whole sector");
    sector[LSN_AT..INCARNATION_AT].copy_from_slice(&stamp.lsn.to_le_bytes());
    sector[INCARNATION_AT..CHECK_AT].copy_from_slice(&word.to_le_bytes());
    let check = crc32c::crc32c_append(key.seed(sector_no), &sector[..CHECK_AT]);
    sector[CHECK_AT..].copy_from_slice(&check.to_le_bytes());
    check
}

/// What the sector says about itself, or `None` when it is damaged (or does not belong at this
/// place).
#[inline]
pub fn verify(sector: &[u8], key: SectorKey, sector_no: u64) -> Option<Verified> {
    let sector: &[u8; SECTOR_BYTES] = sector.try_into().expect("one whole sector");
    let check = u32::from_le_bytes(sector[CHECK_AT..].try_into().expect("4 bytes"));
    let right = crc32c::crc32c_append(key.seed(sector_no), &sector[..CHECK_AT]) == check;
    if !right && !mutant!(CheckIgnored) {
        return None;
    }
    let lsn = u64::from_le_bytes(sector[LSN_AT..INCARNATION_AT].try_into().expect("8 bytes"));
    let word = u32::from_le_bytes(
        sector[INCARNATION_AT..CHECK_AT]
            .try_into()
            .expect("4 bytes"),
    );
    Some(Verified {
        stamp: Stamp {
            incarnation: word & !HEAD_BIT,
            lsn,
        },
        head: word & HEAD_BIT != 0,
        check,
    })
}

/// Formats `buf`, whole sectors of which the first is number `first_sector` of its segment.
pub fn format_blank(buf: &mut [u8], key: SectorKey, first_sector: u64) {
    for (sector, no) in buf.chunks_exact_mut(SECTOR_BYTES).zip(first_sector..) {
        sector[..SECTOR_PAYLOAD_BYTES].fill(0);
        seal(sector, key, no, Stamp::BLANK, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SectorKey = SectorKey(0xABCD_1234);

    fn sealed() -> ([u8; SECTOR_BYTES], Stamp) {
        let stamp = Stamp {
            incarnation: 3,
            lsn: 77,
        };
        let mut sector = [0u8; SECTOR_BYTES];
        for (at, byte) in sector.iter_mut().enumerate() {
            *byte = at as u8;
        }
        seal(&mut sector, KEY, 9, stamp, true);
        (sector, stamp)
    }

    #[test]
    fn every_bit_counts() {
        let (mut sector, stamp) = sealed();
        let verified = verify(&sector, KEY, 9).unwrap();
        assert_eq!((verified.stamp, verified.head), (stamp, true));
        for bit in 0..SECTOR_BYTES * 8 {
            sector[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verify(&sector, KEY, 9), None, "bit {bit}");
            sector[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn another_place_or_another_log_is_damage() {
        let (sector, _) = sealed();
        for place in (0..200_000).filter(|place| *place != 9) {
            assert_eq!(verify(&sector, KEY, place), None);
        }
        assert_eq!(verify(&sector, SectorKey(1), 9), None);
    }

    #[test]
    fn zeros_are_damage_and_blank_is_not() {
        let mut sectors = [0u8; 4 * SECTOR_BYTES];
        for (no, sector) in sectors.chunks(SECTOR_BYTES).enumerate() {
            assert_eq!(verify(sector, KEY, no as u64), None);
        }
        format_blank(&mut sectors, KEY, 40);
        for (no, sector) in sectors.chunks(SECTOR_BYTES).enumerate() {
            let blank = verify(sector, KEY, 40 + no as u64).unwrap();
            assert_eq!((blank.stamp, blank.head), (Stamp::BLANK, false));
        }
    }
}
