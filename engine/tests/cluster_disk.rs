//! What do servers do whose disks are full or damaged? (Reliability promises 5, 7 and 15.)

mod cluster;

use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use cluster::{
    check, group::Group, http::Row, load::Load, mounts::SmallDisk, server::Server, wait_for,
};

// ---------------------------------------------------------------- full

const DISK_MIB: usize = 40;
const BALLAST_MIB: usize = 20;

/// A small disk, half of which is taken.
fn half_full(group: &Group) -> Option<SmallDisk> {
    let disk = SmallDisk::tmpfs(group.home().join("small"), DISK_MIB)?;
    disk.take_space(BALLAST_MIB);
    Some(disk)
}

/// Lets the server at `at` keep its data on the disk.
fn keep_on(disk: &SmallDisk, server: &mut Server) {
    server.flags.retain(|flag| !flag.starts_with("-data-dir="));
    server
        .flags
        .push(format!("-data-dir={}", disk.data().display()));
    server.data = disk.data();
}

/// Starts all and restarts leaders until the server at `wanted` leads, or (not) as asked.
fn start_until(group: &mut Group, wanted: usize, leads: bool) -> usize {
    group.start_all();
    loop {
        let leader = group.wait_for_leader();
        if (leader == wanted) == leads {
            return leader;
        }
        group[leader].kill();
        group[leader].start();
    }
}

/// Writes until the server says that its disk is full; what it acknowledged.
fn write_until_full(server: &Server, prefix: &str) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0..1000 {
        let key = format!("{prefix}/{number:04}");
        let answer = server
            .http()
            .put(&format!("/v1/kv/{key}"), &vec![b'x'; 100_000])
            .unwrap();
        match answer.status {
            200 => acknowledged.push(key),
            507 => {
                assert!(answer.text().contains("space"), "{}", answer.text());
                return acknowledged;
            }
            // On a host this busy a leader may lose its place; what became of the write is not known.
            500 if answer.text().contains("leadership lost") => {}
            status => panic!("{status}: {}", answer.text()),
        }
    }
    panic!("a disk of {DISK_MIB} MiB took 100 MB");
}

fn keys(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.key.clone()).collect()
}

fn reads_go_on(server: &Server, acknowledged: &[String]) {
    for mode in ["", "&consistent", "&stale"] {
        let answer = server
            .http()
            .get(&format!("/v1/kv/?recurse{mode}"))
            .unwrap();
        let found = keys(&answer.rows());
        for key in acknowledged {
            assert!(found.contains(key), "{key} is lost (read with {mode:?})");
        }
    }
}

#[test]
fn a_full_disk_refuses_writes_and_serves_reads_until_there_is_space() {
    full_and_back(&[]);
}

#[test]
fn a_full_ext4_is_no_different() {
    let group = Group::empty();
    let disk = SmallDisk::ext4(group.home().join("small"), DISK_MIB);
    full_and_back_on(group, disk, &[]);
}

/// The same while images are written, which need space as well.
#[test]
fn a_disk_that_is_full_of_images_and_log_is_no_worse() {
    full_and_back(&[
        "-set=raft_snapshot_threshold=20",
        "-set=raft_snapshot_interval=50ms",
    ]);
}

fn full_and_back(flags: &[&str]) {
    let group = Group::empty();
    let disk = SmallDisk::tmpfs(group.home().join("small"), DISK_MIB);
    full_and_back_on(group, disk, flags);
}

fn full_and_back_on(mut group: Group, disk: Option<SmallDisk>, flags: &[&str]) {
    let Some(disk) = disk else { return };
    disk.take_space(BALLAST_MIB);
    let mut all = vec![
        "-bootstrap".to_owned(),
        format!("-data-dir={}", disk.data().display()),
    ];
    all.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let server = group.add_plain(&all);
    server.data = disk.data();
    server.start();
    group.wait_for_leader();
    let mut acknowledged = write_until_full(&group[0], "first");
    reads_go_on(&group[0], &acknowledged);
    // A server that is killed while its disk is full comes back, and is no worse off.
    group[0].kill();
    group[0].start();
    group.wait_for_leader();
    reads_go_on(&group[0], &acknowledged);
    acknowledged.extend(write_until_full(&group[0], "again"));
    let pid = group[0].pid();
    disk.make_room();
    wait_for("writes resume", || {
        let answer = group[0]
            .http()
            .put("/v1/kv/after", b"x")
            .map_err(|why| format!("{why:?}"))?;
        check(answer.is_true(), || {
            format!("{} {}", answer.status, answer.text())
        })
    });
    assert_eq!(
        (group[0].pid(), group[0].ended()),
        (pid, None),
        "without a restart"
    );
    acknowledged.push("after".to_owned());
    reads_go_on(&group[0], &acknowledged);
    acknowledged.extend(write_until_full(&group[0], "second"));
    reads_go_on(&group[0], &acknowledged);
    let found = group.wait_for_equal_states().len();
    assert_eq!(
        found,
        acknowledged.len(),
        "what was refused was not written"
    );
}

#[test]
fn a_follower_with_a_full_disk_holds_up_nobody_and_catches_up() {
    let mut group = Group::new(3, &[]);
    let Some(disk) = half_full(&group) else {
        return;
    };
    keep_on(&disk, &mut group[2]);
    let leader = start_until(&mut group, 2, false);
    let mut acknowledged = Vec::new();
    for number in 0..250 {
        let key = format!("key/{number:04}");
        let answer = group[leader]
            .http()
            .put(&format!("/v1/kv/{key}"), &vec![b'x'; 100_000])
            .unwrap();
        assert!(answer.is_true(), "{}: {}", answer.status, answer.text());
        acknowledged.push(key);
    }
    let stale = group[2].http().get("/v1/kv/?recurse&stale").unwrap().rows();
    assert!(
        stale.len() < acknowledged.len(),
        "its disk cannot hold all of it"
    );
    reads_go_on(&group[leader], &acknowledged);
    let pid = group[2].pid();
    disk.make_room();
    assert_eq!(keys(&group.wait_for_equal_states()), acknowledged);
    assert_eq!(
        (group[2].pid(), group[2].ended()),
        (pid, None),
        "without a restart"
    );
}

/// A leader whose disk is full refuses writes and says so; whoever leads next takes them.
#[test]
fn a_leader_with_a_full_disk_says_so_and_loses_nothing() {
    let mut group = Group::new(3, &[]);
    let Some(disk) = half_full(&group) else {
        return;
    };
    keep_on(&disk, &mut group[0]);
    start_until(&mut group, 0, true);
    let acknowledged = write_until_full(&group[0], "key");
    reads_go_on(&group[0], &acknowledged);
    let through_another = group[1]
        .http()
        .put("/v1/kv/more", &vec![b'x'; 100_000])
        .unwrap();
    assert_eq!(through_another.status, 507, "{}", through_another.text());
    group[0].kill();
    put(&group, 1, "zz");
    reads_go_on(&group[1], &acknowledged);
    disk.make_room();
    group[0].start();
    group.wait_for_leader();
    assert_eq!(group.wait_for_equal_states().len(), acknowledged.len() + 1);
}

// ---------------------------------------------------------------- hung and failing

fn addresses(group: &Group) -> Vec<std::net::SocketAddr> {
    group.servers.iter().map(Server::http_address).collect()
}

/// A leader whose disk hangs must not hold the cluster: it steps down, another takes over, and
/// when the disk goes on so does the server.
#[test]
fn a_disk_that_hangs_holds_up_its_own_server_only() {
    let mut group = Group::new(3, &[]);
    let Some(disk) = SmallDisk::ext4(group.home().join("frozen"), 64) else {
        return;
    };
    keep_on(&disk, &mut group[0]);
    start_until(&mut group, 0, true);
    let load = Load::start(&addresses(&group), 4, 100);
    for _ in 0..3 {
        load.wait_for_more(50);
        disk.freeze();
        wait_for("another leader", || {
            let named = group[1]
                .http()
                .get("/v1/status/leader")
                .map_err(|why| format!("{why:?}"))?
                .text();
            let own = group[0].server_address().to_string();
            check(!named.contains(&own) && named.contains(':'), || {
                named.clone()
            })
        });
        load.wait_for_more(50);
        let stale = group[0].http().get("/v1/kv/load-0/00000000?stale").unwrap();
        assert_eq!(stale.status, 200, "its reads go on");
        disk.thaw();
        start_until(&mut group, 0, true);
    }
    let history = load.finish();
    history.check(&group.wait_for_equal_states());
}

/// A write that fails is final: that server stops and says why, and nobody misses anything.
#[test]
fn a_disk_that_fails_ends_its_own_server_only() {
    for leads in [true, false] {
        let mut group = Group::new(3, &[]);
        let Some(disk) = SmallDisk::fragile(group.home().join("fragile"), 48) else {
            return;
        };
        keep_on(&disk, &mut group[0]);
        start_until(&mut group, 0, leads);
        let load = Load::start(&addresses(&group), 4, 100);
        load.wait_for_more(50);
        disk.break_down();
        let status = group[0].wait_for_exit();
        assert!(!status.success(), "{status}");
        let said = group[0].log_text();
        assert!(
            said.contains("nothing more is written to this log"),
            "{said}"
        );
        load.wait_for_more(50);
        let history = load.finish();
        history.check(&group.wait_for_equal_states());
    }
}

// ---------------------------------------------------------------- damaged

fn flip(file: &Path, offset: u64) {
    let mut open = fs::File::options()
        .read(true)
        .write(true)
        .open(file)
        .unwrap();
    let mut byte = [0];
    open.seek(SeekFrom::Start(offset)).unwrap();
    open.read_exact(&mut byte).unwrap();
    open.seek(SeekFrom::Start(offset)).unwrap();
    open.write_all(&[byte[0] ^ 0x10]).unwrap();
    open.sync_all().unwrap();
}

/// Writes enough for a few segments.
fn fill(server: &Server, keys: usize, bytes: usize) {
    for key in 0..keys {
        let answer = server
            .http()
            .put(&format!("/v1/kv/fill/{key:04}"), &vec![b'f'; bytes])
            .unwrap();
        assert!(answer.is_true(), "{} {}", answer.status, answer.text());
    }
}

fn put(group: &Group, at: usize, key: &str) {
    wait_for(&format!("{key} is written"), || {
        let answer = group[at]
            .http()
            .put(&format!("/v1/kv/{key}"), b"x")
            .map_err(|why| format!("{why:?}"))?;
        check(answer.is_true(), || answer.text())
    });
}

#[test]
fn a_damaged_log_is_repaired_from_the_peers() {
    let mut group = Group::formed(3, &[]);
    let leader = group.wait_for_leader();
    fill(&group[leader], 120, 100_000);
    let damaged = group.followers()[0];
    group.wait_for_equal_states();
    for (round, place) in [0.1, 0.5, 0.9].into_iter().enumerate() {
        group[damaged].kill();
        let segment = group[damaged].segments()[1].clone();
        let bytes = fs::metadata(&segment).unwrap().len();
        flip(&segment, (bytes as f64 * place) as u64);
        // Meanwhile the others go on.
        put(&group, (damaged + 1) % 3, &format!("round/{round}"));
        group[damaged].start();
        group[damaged].wait_for_log("corrupt record: ");
        group.wait_for_leader();
        let rows = group.wait_for_equal_states();
        assert_eq!(rows.len(), 121 + round);
        // And it counts again: with another one gone, writes need it.
        let other = group.followers().into_iter().find(|at| *at != damaged);
        if let Some(other) = other {
            group[other].kill();
            put(&group, damaged, "fill/0000");
            group[other].start();
        }
        group.wait_for_equal_states();
    }
    // The damage stays mended: the log reads back whole from the disk alone.
    let said = group[damaged].log_text().matches("corrupt record").count();
    group[damaged].stop();
    group[damaged].start();
    group.wait_for_leader();
    group.wait_for_equal_states();
    eprintln!(
        "reported {said} times, now {}",
        group[damaged].log_text().matches("corrupt record").count()
    );
}

#[test]
fn a_damaged_tail_is_asked_for_and_not_cut() {
    let mut group = Group::formed(3, &[]);
    for round in 0..6 {
        let damaged = group.followers()[round % 2];
        fill(&group[damaged], 20, 3000);
        group.wait_for_equal_states();
        group[damaged].kill();
        // Everything near the end: the last entries, hard states and marks.
        let (segment, end) = end_of_log(&group[damaged]);
        for block in 0..3 + round as u64 {
            flip(
                &segment,
                end.saturating_sub(block * 4096 + 2000 - 300 * round as u64),
            );
        }
        group[damaged].start();
        put(&group, (damaged + 1) % 3, &format!("round/{round}"));
        group.wait_for_leader();
        let rows = group.wait_for_equal_states();
        assert_eq!(rows.len(), 21 + round);
    }
    let reported = group
        .servers
        .iter()
        .filter(|server| server.log_text().contains("corrupt record"))
        .count();
    assert!(reported > 0, "no damage was seen: the test proves nothing");
}

/// What the damaged record held may be gone from the peers' logs as well, into their images.
#[test]
fn a_damaged_log_that_the_peers_have_compacted_is_replaced_by_an_image() {
    let mut group = Group::formed(
        3,
        &[
            "-set=raft_snapshot_threshold=50",
            "-set=raft_snapshot_interval=50ms",
            "-set=raft_trailing_logs=0",
        ],
    );
    let damaged = group.followers()[0];
    fill(&group[damaged], 30, 20_000);
    group.wait_for_equal_states();
    group[damaged].kill();
    flip(&group[damaged].segments()[0].clone(), 300_000);
    fill(&group[(damaged + 1) % 3], 200, 20_000);
    group[damaged].start();
    group[damaged].wait_for_log("corrupt record: ");
    assert_eq!(group.wait_for_equal_states().len(), 200);
}

/// Each executor repairs its own log, while the others serve or repair theirs. A server whose second
/// log was damaged did not start.
#[test]
fn the_log_of_each_executor_is_repaired_from_the_peers() {
    let mut group = Group::formed(3, &["-executors=2", "-shards=2"]);
    let prefixes: Vec<String> = (0..8).map(|folder| format!("folder-{folder}/")).collect();
    let write = |group: &Group, at: usize, round: usize| {
        for (number, prefix) in prefixes.iter().enumerate() {
            for key in 0..6 {
                put(group, at, &format!("{prefix}{round}-{number}-{key}"));
            }
        }
    };
    let damaged = group.followers()[0];
    write(&group, damaged, 0);
    group.wait_for_equal_rows(&prefixes);
    for (round, logs) in [&[1][..], &[0], &[0, 1]].into_iter().enumerate() {
        group[damaged].kill();
        for log in logs {
            let (segment, end) = end_of(group[damaged].segments_of(*log));
            // The beginning of a block in the middle, and of the last one.
            flip(&segment, end / 2 / 4096 * 4096 + 96);
            flip(&segment, end - 4000);
        }
        let repaired = group[damaged].log_text().matches("repaired: ").count();
        write(&group, (damaged + 1) % 3, 1 + round);
        group[damaged].start();
        wait_for("both logs are whole", || {
            let now = group[damaged].log_text().matches("repaired: ").count();
            check(now == repaired + logs.len(), || format!("{now} repaired"))
        });
        let rows = group.wait_for_equal_rows(&prefixes);
        assert_eq!(rows.len(), prefixes.len() * 6 * (2 + round));
        // And it counts again: with another one gone, writes to both shards need it.
        let other = (damaged + 1) % 3;
        group[other].kill();
        write(&group, damaged, 1 + round);
        group[other].start();
        group.wait_for_equal_rows(&prefixes);
    }
}

/// Where a stopped server's log ends: behind the last block that differs from a segment that was
/// prepared and never written.
fn end_of_log(server: &Server) -> (PathBuf, u64) {
    end_of(server.segments())
}

fn end_of(segments: Vec<PathBuf>) -> (PathBuf, u64) {
    for segment in segments.into_iter().rev() {
        let bytes = fs::read(&segment).unwrap();
        let used = bytes
            .chunks(4096)
            .rposition(|block| block[..256].iter().any(|byte| *byte != 0));
        if let Some(block) = used {
            return (segment, (block as u64 + 1) * 4096);
        }
    }
    panic!("a log without a written block");
}

#[test]
fn a_lost_segment_is_repaired_from_the_peers() {
    let mut group = Group::formed(3, &[]);
    let leader = group.wait_for_leader();
    fill(&group[leader], 120, 100_000);
    let damaged = group.followers()[0];
    group.wait_for_equal_states();
    group[damaged].kill();
    fs::remove_file(&group[damaged].segments()[1]).unwrap();
    group[damaged].start();
    group[damaged].wait_for_log("repaired: ");
    assert_eq!(group.wait_for_equal_states().len(), 120);
    group[damaged].kill();
    group[damaged].start();
    group.wait_for_leader();
    assert_eq!(group.wait_for_equal_states().len(), 120);
}

#[test]
fn a_lone_server_with_a_damaged_log_refuses_and_says_where() {
    let mut group = Group::formed(1, &[]);
    fill(&group[0], 120, 100_000);
    group[0].kill();
    let segment = group[0].segments()[1].clone();
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    flip(&segment, 2_000_000);
    let (status, said) = group[0].run_to_its_end();
    assert!(!status.success(), "{said}");
    assert!(said.contains(&name), "the file is named: {said}");
    let numbers: Vec<u64> = said
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .filter(|offset| (1_500_000..=2_000_000).contains(offset))
        .collect();
    assert!(
        !numbers.is_empty(),
        "the offset of the batch is named: {said}"
    );
    // It changed nothing: with the byte mended it starts and has everything.
    flip(&segment, 2_000_000);
    group[0].start();
    group.wait_for_leader();
    assert_eq!(group.wait_for_equal_states().len(), 120);
}

#[test]
fn a_log_with_a_lost_segment_is_not_a_short_log() {
    let mut group = Group::formed(1, &[]);
    fill(&group[0], 120, 100_000);
    group[0].kill();
    let segment = group[0].segments()[1].clone();
    let kept = segment.with_extension("kept");
    fs::rename(&segment, &kept).unwrap();
    let (status, said) = group[0].run_to_its_end();
    assert!(!status.success() && said.contains("segment"), "{said}");
    fs::rename(&kept, &segment).unwrap();
    group[0].start();
    group.wait_for_leader();
    assert_eq!(group.wait_for_equal_states().len(), 120);
}
