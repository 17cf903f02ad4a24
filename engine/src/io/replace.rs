//! How is a small file changed so that a crash leaves the old content or the new one?
//!
//! The new content is written beside it, flushed, and moved over it; then the directory is
//! flushed. Nothing of the old file is touched before all of the new one is durable.

use std::io;

use super::Disk;

/// Replaces a file, or makes it; durable when it returns. After a failure or a crash the file has
/// its old content or the new one, and `<name>.tmp` may be left.
///
/// # Errors
/// What the disk reports.
pub fn replace_file(disk: &dyn Disk, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    // What an earlier attempt left may be longer.
    if disk.length(&temporary)?.is_some() {
        disk.remove(&temporary)?;
    }
    disk.write_at(&temporary, 0, content)?;
    disk.sync(&temporary)?;
    disk.rename(&temporary, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::mem::{Fault, MemDisk, Survival};

    const NAME: &str = "identity.json";

    /// Contents of several lengths, so that a rest of one would show in another.
    fn content(version: usize) -> Vec<u8> {
        vec![b'a' + version as u8; [3000, 10, 1400, 600, 5000][version % 5]]
    }

    fn found(disk: &MemDisk) -> Option<Vec<u8>> {
        let length = disk.length(NAME).unwrap()?;
        let mut bytes = vec![0; length as usize];
        disk.read_at(NAME, 0, &mut bytes).unwrap();
        Some(bytes)
    }

    fn draw(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            state >> 33
        }
    }

    #[test]
    fn at_every_crash_there_is_the_old_content_or_the_new_one() {
        for seed in 0..100 {
            let disk = MemDisk::new();
            let mut draw = draw(seed);
            let mut old = None;
            for version in 0..6 {
                let new = Some(content(version));
                disk.record();
                replace_file(&disk, NAME, &content(version)).unwrap();
                let moments = disk.take_moments();
                let last = moments.len() - 1;
                for (no, moment) in moments.iter().enumerate() {
                    for survival in Survival::ALL {
                        let image = moment.clone();
                        image.crash_as(survival, &mut draw);
                        let found = found(&image);
                        assert!(
                            found == new || (found == old && no < last),
                            "seed {seed} version {version} boundary {no} {survival:?}: {} bytes",
                            found.map_or(0, |bytes| bytes.len())
                        );
                        // And whatever an attempt left, the next one succeeds.
                        replace_file(&image, NAME, b"next").unwrap();
                        image.crash_as(Survival::Nothing, &mut draw);
                        assert_eq!(self::found(&image).unwrap(), b"next");
                    }
                }
                old = new;
            }
        }
    }

    #[test]
    fn when_any_operation_fails_there_is_the_old_content_or_the_new_one() {
        let faults = [
            Fault::Errno(libc::EIO),
            Fault::Errno(libc::ENOSPC),
            Fault::Late(libc::EIO),
            Fault::Short,
        ];
        for fault in faults {
            let mut failed = 0;
            for nth in 1..20 {
                let disk = MemDisk::new();
                replace_file(&disk, NAME, &content(0)).unwrap();
                disk.fail_at(nth, fault);
                let replaced = replace_file(&disk, NAME, &content(1));
                failed += usize::from(replaced.is_err());
                disk.fail_at(u64::MAX / 2, fault);
                for survival in Survival::ALL {
                    let image = disk.clone();
                    image.crash_as(survival, &mut draw(nth));
                    let found = found(&image).unwrap();
                    let old = found == content(0);
                    assert!(
                        found == content(1) || (old && replaced.is_err()),
                        "{fault:?} at {nth}"
                    );
                }
            }
            assert!(failed >= 5, "{failed}");
        }
    }
}
