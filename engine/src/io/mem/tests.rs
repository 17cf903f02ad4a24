//! The disk in memory keeps its own promises: what a crash may leave, which operation fails.

use super::*;

#[test]
fn a_crash_keeps_what_is_durable_and_some_of_the_rest() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..200u64 {
        let disk = MemDisk::new();
        disk.write_at("a", 0, &[1; 2048]).unwrap();
        disk.sync("a").unwrap();
        disk.sync_dir().unwrap();
        disk.write_at("a", 512, &[2; 1024]).unwrap();
        disk.write_at("b", 0, &[3; 512]).unwrap();
        let mut state = seed;
        disk.crash(&mut || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            state >> 33
        });
        let a = disk.contents("a");
        assert_eq!((a.len(), a[0], a[2047]), (2048, 1, 1));
        match (a[512], a[1024]) {
            (2, 2) => kept += 1,
            (1, 1) => lost += 1,
            _ => torn += 1,
        }
        assert!(
            a.chunks(512)
                .all(|sector| sector.iter().all(|byte| *byte == sector[0]))
        );
    }
    assert!(kept > 20 && lost > 20 && torn > 20, "{kept} {lost} {torn}");
}

#[test]
fn names_survive_in_their_order_and_a_removal_may_be_undone() {
    let disk = MemDisk::new();
    disk.write_at("a", 0, b"old").unwrap();
    disk.sync("a").unwrap();
    disk.sync_dir().unwrap();
    disk.record();
    disk.write_at("b", 0, b"new").unwrap();
    disk.sync("b").unwrap();
    disk.rename("b", "a").unwrap();
    let moments = disk.take_moments();
    assert_eq!(
        moments.len(),
        5,
        "the start, write, flush, rename, and its flush"
    );
    let mut state = 1u64;
    let mut draw = || {
        state = u64::wrapping_add(u64::wrapping_mul(state, 25), 13);
        state >> 3
    };
    for (no, moment) in moments.iter().enumerate() {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let image = moment.clone();
            image.crash(&mut draw);
            let names: Vec<_> = image.list().unwrap().into_iter().map(|f| f.0).collect();
            seen.insert((names, image.contents("a")));
        }
        let state = |names: &[&str], a: &[u8]| {
            let names = names.iter().map(|name| name.to_string()).collect();
            (names, a.to_vec())
        };
        let old: [(Vec<String>, Vec<u8>); 2] = [state(&["a"], b"old"), state(&["a", "b"], b"old")];
        let expected = match no {
            0 => vec![old[0].clone()],
            1 | 2 => old.to_vec(),
            3 => vec![state(&["a"], b"new"), old[0].clone(), old[1].clone()],
            _ => vec![state(&["a"], b"new")],
        };
        assert_eq!(seen, expected.into_iter().collect(), "boundary {no}");
    }
}

#[test]
fn a_late_fault_has_its_effect() {
    let disk = MemDisk::new();
    for nth in 1..=3 {
        disk.fail_at(nth, Fault::Late(libc::EIO));
        let written = disk.write_at("a", 0, b"x");
        let synced = disk.sync("a");
        let named = disk.sync_dir();
        let failed = [written, synced, named].map(|result| result.is_err());
        assert_eq!(failed, [nth == 1, nth == 2, nth == 3]);
        assert!(disk.struck());
        let image = disk.clone();
        image.crash_as(Survival::Nothing, &mut || 0);
        assert_eq!(image.contents("a"), b"x");
    }
}

#[test]
fn faults_strike_the_nth_operation_only() {
    let disk = MemDisk::new();
    disk.fail_at(2, Fault::Errno(libc::EIO));
    disk.write_at("a", 0, b"x").unwrap();
    assert_eq!(disk.sync("a").unwrap_err().raw_os_error(), Some(libc::EIO));
    disk.sync("a").unwrap();
    disk.set_capacity(Some(4));
    assert_eq!(
        disk.write_at("a", 2, b"abc").unwrap_err().raw_os_error(),
        Some(libc::ENOSPC)
    );
    disk.write_at("a", 2, b"ab").unwrap();
}
