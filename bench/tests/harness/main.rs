//! Does the harness measure, prove, notice cheats, and clean up after itself?
//!
//! Against a scripted stand-in for curia, because a harness that has only ever met an honest
//! product proves nothing: the stand-in can be told to acknowledge without a quorum, to forget,
//! to crash. It is this very test executable, started again through a one-line script.

mod fake;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let script = dir.path().join("fake-curia");
        let own = std::env::current_exe().unwrap();
        let text = format!(
            "#!/bin/sh\n{}=\"$*\" exec '{}' --exact fake::serve --nocapture\n",
            fake::ARGUMENTS,
            own.display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn reports(&self) -> PathBuf {
        self.dir.path().join("reports")
    }

    fn command(&self, mode: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_curia-bench"));
        command
            .arg(mode)
            .arg("--curia")
            .arg(self.dir.path().join("fake-curia"))
            .arg("--data-dir")
            .arg(self.data())
            .arg("--report-dir")
            .arg(self.reports())
            .arg("--allow-tmpfs")
            .args(args)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, mode: &str, args: &[&str], script: &[(&str, &str)]) -> Output {
        let output = self
            .command(mode, args)
            .envs(script.iter().copied())
            .output()
            .unwrap();
        self.assert_clean();
        output
    }

    fn assert_clean(&self) {
        let left: Vec<_> = fs::read_dir(self.data()).into_iter().flatten().collect();
        assert!(left.is_empty(), "data left behind: {left:?}");
        let left = self.processes();
        assert!(left.is_empty(), "processes left behind: {left:?}");
    }

    /// Process ids of stand-ins that were started for this bench.
    fn processes(&self) -> Vec<u32> {
        let ours = self.data().display().to_string();
        let mentions = |pid: &u32| {
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let environ = read("environ");
            String::from_utf8_lossy(&environ).contains(&format!("-data-dir={ours}"))
        };
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(mentions)
            .collect()
    }

    fn report(&self, kind: &str) -> PathBuf {
        let mut dirs = fs::read_dir(self.reports().join(kind)).unwrap();
        dirs.next().unwrap().unwrap().path()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn succeeds(output: &Output) -> String {
    let text = text(output);
    assert!(output.status.success(), "{text}");
    text
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

const SHORT: &[&str] = &[
    "--seconds",
    "0.2",
    "--warm-up",
    "0.05",
    "--in-flight",
    "1,8",
    "--keys",
    "100",
    "--rounds",
    "2",
];

#[test]
fn commit_latency_measures_proves_and_reports() {
    let bench = Bench::new();
    let proof = [
        "--servers",
        "1,3",
        "--silent-seconds",
        "0.5",
        "--protocol",
        "native,http",
    ];
    let text = succeeds(&bench.run("commit-latency", &[SHORT, &proof].concat(), &[]));
    assert!(text.contains("3 servers: proved"), "{text}");

    let report = bench.report("commit-latency");
    let markdown = fs::read_to_string(report.join("report.md")).unwrap();
    assert!(
        !markdown.contains(bench.dir.path().to_str().unwrap()),
        "no paths in reports"
    );
    let raw = json(&report.join("raw.json"));
    let rows = raw["rows"].as_array().unwrap();
    let rung = |subject: &str, servers: u64, in_flight: u64| {
        let found = rows.iter().find(|r| {
            r["subject"] == subject && r["servers"] == servers && r["in_flight"] == in_flight
        });
        found.unwrap_or_else(|| panic!("{servers} servers, {in_flight} in flight: {rows:#?}"))
    };
    for (servers, quorum, tolerance) in [(1, 1, 0), (3, 2, 1)] {
        for (subject, in_flight) in [
            ("curia native", 1),
            ("curia native", 8),
            ("curia http", 1),
            ("curia http", 8),
        ] {
            let row = rung(subject, servers, in_flight);
            assert_eq!(
                (&row["quorum"], &row["tolerance"]),
                (&quorum.into(), &tolerance.into())
            );
            assert!(row["count"].as_u64().unwrap() > 0);
            assert!(row["cost"]["cpu_ns"].as_u64().unwrap() > 0);
            assert_eq!(row["errors"], serde_json::json!({}));
            // The stand-in says 4096 bytes for each write, on each server.
            let per_write =
                row["cost"]["log_bytes"].as_f64().unwrap() / row["count"].as_f64().unwrap();
            assert_eq!(per_write, 4096.0 * servers as f64);
            assert!(row["floor_p50_ns"].is_number() == (in_flight == 1));
        }
    }
    let proof = rows
        .iter()
        .find(|r| r["servers"] == 3 && r["silent_s"].is_number())
        .unwrap();
    assert!(proof["silent_attempts"].as_u64().unwrap() > 0);
    assert_eq!(proof["silent_acknowledged"], 0);
    assert!(proof["found"].as_u64().unwrap() >= 100);
    assert!(fs::metadata(report.join("histograms.hlog")).unwrap().len() > 500);
}

/// A proof that cannot fail proves nothing.
#[test]
fn a_product_that_acknowledges_without_a_quorum_is_caught() {
    let bench = Bench::new();
    let proof = [
        "--servers",
        "3",
        "--silent-seconds",
        "0.5",
        "--with-floor=false",
    ];
    let output = bench.run(
        "commit-latency",
        &[SHORT, &proof].concat(),
        &[(fake::ACKS_ALONE, "1")],
    );
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(
        text(&output).contains("fewer than a quorum"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_product_that_forgets_what_it_acknowledged_is_caught() {
    let bench = Bench::new();
    // What is forgotten shows only if no later write of the key hid it: with every fiftieth, one run
    // in eight had nothing to show.
    let output = bench.run("smoke", &["--keys", "100"], &[(fake::FORGETS_EVERY, "5")]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(
        text(&output).contains("PROMISE BROKEN"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_server_that_crashes_under_load_ends_the_run_with_its_last_words() {
    let bench = Bench::new();
    let output = bench.run(
        "smoke",
        &["--keys", "100", "--seconds", "2"],
        &[(fake::CRASHES_AFTER, "300")],
    );
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("scripted crash"),
        "{}",
        text(&output)
    );
}

#[test]
fn smoke_reads_and_writes_in_every_way() {
    let bench = Bench::new();
    let text = succeeds(&bench.run("smoke", &["--keys", "100", "--seconds", "0.1"], &[]));
    for needed in [
        "put",
        "get default",
        "get consistent",
        "get stale",
        "acknowledged keys found",
    ] {
        assert!(text.contains(needed), "{needed}: {text}");
    }
}

#[test]
fn failover_kills_leaders_and_loses_nothing() {
    let bench = Bench::new();
    let args = ["--kills", "2", "--in-flight", "6", "--keys", "100"];
    succeeds(&bench.run("failover", &args, &[]));
    let raw = json(&bench.report("failover").join("raw.json"));
    let row = &raw["rows"][0];
    assert_eq!(row["gaps_ms"].as_array().unwrap().len(), 2);
    assert!(row["found"].as_u64().unwrap() >= 100);
}

#[test]
fn memory_loads_kills_and_restarts() {
    let bench = Bench::new();
    succeeds(&bench.run("memory", &["--load", "500", "--servers", "1,3"], &[]));
    let raw = json(&bench.report("memory").join("raw.json"));
    for (row, servers) in raw["rows"].as_array().unwrap().iter().zip([1, 3]) {
        assert_eq!(row["resident_bytes"].as_array().unwrap().len(), servers);
        assert!(row["restart_s"].as_f64().unwrap() > 0.0);
        // The write that ended the restart may have made one more.
        assert!(row["found"].as_u64().unwrap() >= 500);
    }
}

#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let bench = Bench::new();
        let mut child = bench
            .command("smoke", &["--seconds", "600", "--keys", "10"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while bench.processes().len() < 3 {
            assert!(Instant::now() < deadline, "servers did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        // SAFETY: a plain system call on a child that has not been reaped.
        unsafe { libc::kill(child.id() as i32, signal) };
        assert_eq!(child.wait().unwrap().code(), Some(128 + signal));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !bench.processes().is_empty() {
            assert!(Instant::now() < deadline, "servers outlived the bench");
            std::thread::sleep(Duration::from_millis(20));
        }
        bench.assert_clean();
    }
}

/// `kill -9` of the bench itself: nothing of ours runs any more, only the kernel can clean up.
#[test]
fn a_killed_bench_takes_its_servers_with_it() {
    let bench = Bench::new();
    let mut child = bench
        .command("smoke", &["--seconds", "600", "--keys", "10"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while bench.processes().len() < 3 {
        assert!(Instant::now() < deadline, "servers did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !bench.processes().is_empty() {
        assert!(Instant::now() < deadline, "servers outlived the bench");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn wrong_arguments_name_the_flag() {
    let bench = Bench::new();
    for (mode, args, named) in [
        ("commit-latency", &["--in-flight", "0"][..], "--in-flight"),
        ("commit-latency", &["--servers", "0"], "--servers"),
        ("commit-latency", &["--value-bytes", "3"], "--value-bytes"),
        (
            "commit-latency",
            &["--requests", "5", "--seconds", "5"],
            "--requests",
        ),
        ("failover", &["--servers", "2"], "--servers"),
        (
            "compare",
            &["--peer-binary", "/nonexistent"],
            "--peer-binary",
        ),
    ] {
        let output = bench.run(mode, args, &[]);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output));
        assert!(text(&output).contains(named), "{}", text(&output));
    }
}
