//! `curia watch` against a real server: what handlers are given, and when.

mod cli_support;
mod cluster;

use cli_support::{Dev, read};
use cluster::{check, wait_for};

#[test]
fn without_a_command_it_prints_and_ends() {
    let dev = Dev::start();
    dev.run(&["watch", "-type=key", "-key=a"]).says("null\n");
    dev.run(&["watch", "-type=keyprefix", "-prefix=a/"])
        .says("null\n");
    dev.run(&["kv", "put", "-flags=3", "a", "blue"]);
    let row = dev.run(&["watch", "-type=key", "-key=a"]);
    let index = dev.run(&["kv", "get", "-detailed", "a"]).out;
    let index = index
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .last()
        .unwrap();
    row.says(&format!(
        "{{\n    \"Key\": \"a\",\n    \"CreateIndex\": {index},\n    \"ModifyIndex\": {index},\n    \
         \"LockIndex\": 0,\n    \"Flags\": 3,\n    \"Value\": \"Ymx1ZQ==\",\n    \"Session\": \"\"\n}}\n"
    ));
    dev.run(&["watch"])
        .fails("Watch type must be specified; see curia watch -help");
    dev.run(&["watch", "-type=key"])
        .fails("Must specify a single key to watch");
}

#[test]
fn a_change_runs_the_command_once() {
    let dev = Dev::start();
    let log = dev.dir().join("handled");
    let script = format!("(echo \"at $CONSUL_INDEX\"; cat) >> {}", log.display());
    let mut watch = dev.start_command("watch", &["watch", "-type=key", "-key=k", &script]);
    let runs = |number: usize| {
        wait_for("runs of the handler", || {
            let text = read(&log);
            // Each writes two lines.
            check(text.lines().count() >= 2 * number, || text.clone())?;
            Ok(text)
        })
    };
    let first = runs(1);
    assert!(first.ends_with("\nnull\n"), "{first}");
    dev.run(&["kv", "put", "k", "one"]);
    assert!(runs(2).contains("\"Value\":\"b25l\""));
    // Others' changes, and the same value again, are no news.
    dev.run(&["kv", "put", "k", "one"]);
    dev.run(&["kv", "put", "other", "x"]);
    dev.run(&["kv", "delete", "k"]);
    let text = runs(3);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6, "{text}");
    assert_eq!(lines[5], "null");
    let index = |line: &str| line.strip_prefix("at ").unwrap().parse::<u64>().unwrap();
    assert!(index(lines[0]) < index(lines[2]) && index(lines[2]) < index(lines[4]));
    watch.signal(libc::SIGINT);
    let (status, said) = watch.wait();
    assert!(status.success() && said.is_empty(), "{said}");
}

#[test]
fn a_prefix_is_watched_whole() {
    let dev = Dev::start();
    let log = dev.dir().join("handled");
    let script = format!("cat >> {}", log.display());
    let _watch = dev.start_command(
        "watch",
        &["watch", "-type=keyprefix", "-prefix=dir/", &script],
    );
    let lines = |number: usize| {
        wait_for("runs of the handler", || {
            let text = read(&log);
            check(text.lines().count() >= number, || text.clone())?;
            Ok(text)
        })
    };
    assert_eq!(lines(1), "null\n");
    dev.run(&["kv", "put", "dir/b", "2"]);
    lines(2);
    dev.run(&["kv", "put", "dir/a", "1"]);
    let text = lines(3);
    let keys: Vec<&str> = text.lines().last().unwrap().matches("dir/").collect();
    assert_eq!(keys.len(), 2, "{text}");
}

#[test]
fn a_command_that_fails_ends_the_watch() {
    let dev = Dev::start();
    let mut watch = dev.start_command("watch", &["watch", "-type=key", "-key=k", "exit 4"]);
    let (status, said) = watch.wait();
    assert_eq!(status.code(), Some(1));
    assert_eq!(said, "Error executing handler: exit status: 4\n");
    let mut watch = dev.start_command(
        "watch",
        &[
            "watch",
            "-type=key",
            "-key=k",
            "-shell=false",
            "/nonexistent/handler",
        ],
    );
    let (status, said) = watch.wait();
    assert_eq!(status.code(), Some(1));
    assert!(
        said.starts_with("Error executing handler: No such file"),
        "{said}"
    );
}

#[test]
fn a_handler_hears_signals_and_may_ignore_its_input() {
    let dev = Dev::start();
    // More than a pipe holds.
    let value = "v".repeat(300_000);
    assert_eq!(
        dev.run_with(&value, &["kv", "put", "big", "-"]).code,
        Some(0)
    );
    let script = "trap 'echo bye; exit' TERM; echo ready; while :; do sleep 0.05; done";
    let mut watch = dev.start_command("watch", &["watch", "-type=key", "-key=big", script]);
    watch.wait_for_output("ready\n");
    watch.signal(libc::SIGTERM);
    let (status, said) = watch.wait();
    assert!(status.success(), "{said}");
    assert_eq!(said, "ready\nbye\n");
}

/// The server is away for a moment: the watch says so, asks again, and misses nothing.
#[test]
fn a_watch_outlives_its_server() {
    let mut dev = Dev::start();
    let log = dev.dir().join("handled");
    let script = format!("cat >> {}", log.display());
    let watch = dev.start_command("watch", &["watch", "-type=key", "-key=k", &script]);
    wait_for("the first run", || {
        check(!read(&log).is_empty(), String::new)
    });
    // A server with -dev forgets: its index goes back.
    dev.server().kill();
    watch.wait_for_output("Watch errored: ");
    dev.server().start();
    wait_for("a server again", || {
        let put = dev.run(&["kv", "put", "k", "new"]);
        check(put.code == Some(0), || put.err)
    });
    wait_for("news of the new server", || {
        let text = read(&log);
        check(text.contains("\"Value\":\"bmV3\""), || text)
    });
}
