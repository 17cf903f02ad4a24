//! `curia lock` against a real server: who holds, who waits, and what a child sees of it.

mod cli_support;
mod cluster;

use std::os::unix::process::ExitStatusExt;

use cli_support::{Dev, Running, read};
use cluster::{check, wait_for};

/// A holder that writes its name to a key and then runs until the key `stop/NAME` exists.
fn holder(dev: &Dev, name: &str, flags: &[&str], prefix: &str) -> Running {
    let script = format!(
        "{curia} kv put runs/{name} yes; while ! {curia} kv get stop/{name} >/dev/null 2>&1; do sleep 0.05; done",
        curia = env!("CARGO_BIN_EXE_curia"),
    );
    let mut args = vec!["lock", "-verbose"];
    args.extend(flags);
    args.extend([prefix, &script]);
    dev.start_command(name, &args)
}

fn stop(dev: &Dev, name: &str) {
    dev.run(&["kv", "put", &format!("stop/{name}"), "yes"]);
}

fn holds(dev: &Dev, name: &str) {
    dev.wait_for_value(&format!("runs/{name}"), "yes");
}

/// Waits until a contender looks at the lock that another has: its session is there.
fn sessions(dev: &Dev, number: usize) -> Vec<String> {
    wait_for("sessions of contenders", || {
        let listed = dev.run(&["session", "list"]).out;
        let ids: Vec<String> = listed
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().next().map(String::from))
            .collect();
        check(ids.len() == number, || listed).map(|()| ids)
    })
}

#[test]
fn a_command_runs_with_the_lock_and_leaves_nothing_behind() {
    let dev = Dev::start();
    dev.run(&["lock", "-verbose", "a/b", "echo $CONSUL_LOCK_HELD"])
        .says(
            "Setting up lock at path: a/b/.lock\nAttempting lock acquisition\n\
             Starting handler 'echo $CONSUL_LOCK_HELD'\ntrue\n\
             Child terminated, releasing lock\nCleanup succeeded\n",
        );
    dev.run(&["kv", "get", "-keys", "-separator=", ""]).says("");
    sessions(&dev, 0);
    let lock = dev.run(&[
        "lock",
        "-shell=false",
        "a",
        env!("CARGO_BIN_EXE_curia"),
        "kv",
        "get",
        "-detailed",
        "a/.lock",
    ]);
    assert!(
        lock.out.contains("Flags            3304740253564472344\n"),
        "{lock:?}"
    );
    assert!(!lock.out.contains("Session          -"), "{lock:?}");
    assert_eq!(0x2ddc_cbc0_58a5_0c18_u64, 3_304_740_253_564_472_344);
}

#[test]
fn exit_codes() {
    let dev = Dev::start();
    assert_eq!(dev.run(&["lock", "p", "exit 3"]).code, Some(0));
    let failed = dev.run(&["lock", "-child-exit-code", "p", "exit 3"]);
    assert_eq!(failed.code, Some(2));
    assert_eq!(failed.err, "Error running handler: exit status: 3\n");
    assert_eq!(
        dev.run(&["lock", "-child-exit-code", "p", "true"]).code,
        Some(0)
    );
    dev.run_with("from outside", &["lock", "-pass-stdin", "p", "cat"])
        .says("from outside");
    dev.run_with("from outside", &["lock", "p", "cat"]).says("");
    for (args, err) in [
        (
            &["lock", "p"][..],
            "Key prefix and child command must be specified",
        ),
        (&["lock"], "Key prefix and child command must be specified"),
        (
            &["lock", "-n=0", "p", "true"],
            "Lock holder limit must be positive",
        ),
        (
            &["lock", "-timeout=-1s", "p", "true"],
            "Timeout must be positive, such as 10s or 1m30s",
        ),
        (
            &["lock", "-monitor-retry=-1", "p", "true"],
            "Number for 'monitor-retry' must be >= 0",
        ),
    ] {
        dev.run(args).fails(err);
    }
    dev.run(&["kv", "put", "data/.lock", "mine"]);
    dev.run(&["lock", "data", "true"])
        .fails("Lock acquisition failed: Existing key does not match lock use");
    dev.run(&["lock", "-n=2", "data", "true"])
        .fails("Lock acquisition failed: Existing key does not match semaphore use");
    sessions(&dev, 0);
}

#[test]
fn one_holds_and_the_next_gets_it_when_it_ends() {
    let dev = Dev::start();
    let mut first = holder(&dev, "first", &[], "p");
    holds(&dev, "first");
    dev.run(&["lock", "-timeout=50ms", "p", "true"])
        .fails("Shutdown triggered or timeout during lock acquisition");
    dev.run(&["lock", "-try=50ms", "p", "true"])
        .fails("Shutdown triggered or timeout during lock acquisition");
    let mut second = holder(&dev, "second", &[], "p");
    sessions(&dev, 2);
    assert_eq!(dev.value("runs/second"), None);
    stop(&dev, "first");
    holds(&dev, "second");
    let (status, said) = first.wait();
    assert!(status.success(), "{said}");
    stop(&dev, "second");
    let (status, said) = second.wait();
    assert!(
        status.success() && said.ends_with("Cleanup succeeded\n"),
        "{said}"
    );
    sessions(&dev, 0);
}

#[test]
fn a_semaphore_has_as_many_slots_as_it_says() {
    let dev = Dev::start();
    let mut running: Vec<Running> = ["a", "b"]
        .map(|name| holder(&dev, name, &["-n=2"], "pool"))
        .into();
    holds(&dev, "a");
    holds(&dev, "b");
    running.push(holder(&dev, "c", &["-n=2"], "pool"));
    sessions(&dev, 3);
    dev.run(&["lock", "-n=2", "-timeout=50ms", "pool", "true"])
        .fails("Shutdown triggered or timeout during lock acquisition");
    dev.run(&["lock", "-n=3", "pool", "true"])
        .fails("Lock acquisition failed: semaphore limit conflict (lock: 2, local: 3)");
    dev.run(&["lock", "pool", "true"])
        .fails("Lock acquisition failed: Existing key does not match lock use");
    assert_eq!(dev.value("runs/c"), None);
    let document = dev.value("pool/.lock").unwrap();
    assert!(
        document.starts_with("{\"Limit\":2,\"Holders\":{\""),
        "{document}"
    );
    stop(&dev, "a");
    holds(&dev, "c");
    stop(&dev, "b");
    stop(&dev, "c");
    for running in &mut running {
        let (status, said) = running.wait();
        assert!(status.success(), "{said}");
    }
    dev.run(&["kv", "get", "-keys", "pool"]).says("");
    sessions(&dev, 0);
}

#[test]
fn a_lost_lock_ends_the_child_and_all_it_started() {
    let dev = Dev::start();
    let told = dev.dir().join("told");
    // A grandchild that takes its time to tidy up after the shell that started it is gone.
    let script = format!(
        "sh -c 'trap \"echo tidied > {told}; exit\" TERM; {curia} kv put runs/it yes; while :; do sleep 0.05; done' & wait",
        told = told.display(),
        curia = env!("CARGO_BIN_EXE_curia"),
    );
    let mut lock = dev.start_command("lock", &["lock", "-verbose", "p", &script]);
    holds(&dev, "it");
    let [session] = &sessions(&dev, 1)[..] else {
        panic!("one session");
    };
    assert_eq!(dev.run(&["session", "destroy", session]).code, Some(0));
    let (status, said) = lock.wait();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("Lock lost, killing child\n"), "{said}");
    assert!(
        said.ends_with("Lock lost: it is no longer held by this session\n"),
        "{said}"
    );
    assert_eq!(read(&told), "tidied\n");
}

#[test]
fn a_child_that_does_not_listen_is_killed() {
    let dev = Dev::start();
    let script = format!(
        "trap '' TERM; {curia} kv put runs/deaf yes; while :; do sleep 0.05; done",
        curia = env!("CARGO_BIN_EXE_curia"),
    );
    let mut lock = dev.start_command("lock", &["lock", "-verbose", "p", &script]);
    holds(&dev, "deaf");
    let session = sessions(&dev, 1).remove(0);
    assert_eq!(dev.run(&["session", "destroy", &session]).code, Some(0));
    let (status, said) = lock.wait();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("Sending signal 9 to child pid"), "{said}");
}

#[test]
fn signals_reach_the_child_and_the_lock_is_released() {
    let dev = Dev::start();
    let script = format!(
        "trap 'echo hup' USR1; trap 'echo term; exit' TERM; {curia} kv put runs/it yes; while :; do sleep 0.05; done",
        curia = env!("CARGO_BIN_EXE_curia"),
    );
    let mut lock = dev.start_command("lock", &["lock", "p", &script]);
    holds(&dev, "it");
    lock.signal(libc::SIGUSR1);
    lock.wait_for_output("hup\n");
    lock.signal(libc::SIGTERM);
    let (status, said) = lock.wait();
    assert!(status.success() && said.ends_with("term\n"), "{said}");
    dev.run(&["kv", "get", "-keys", "p"]).says("");
    sessions(&dev, 0);
}

#[test]
fn one_that_waits_can_be_stopped() {
    let dev = Dev::start();
    let _first = holder(&dev, "first", &[], "p");
    holds(&dev, "first");
    for flags in [&[][..], &["-n=1"]] {
        let mut second = holder(&dev, "second", flags, "p");
        sessions(&dev, 2);
        second.signal(libc::SIGINT);
        let (status, said) = second.wait();
        assert_eq!(status.code(), Some(1), "{said}");
        sessions(&dev, 1);
    }
    assert_eq!(dev.value("runs/second"), None);
}

/// The holder is killed so that it can tell nobody: the session ends by its TTL of 15 s, at the
/// latest after 30 s, and the lock-delay of 15 s keeps the next one out until then. The orphaned
/// child is ended by the kernel at once.
#[test]
fn a_holder_that_is_killed_loses_the_lock_after_ttl_and_lock_delay() {
    let dev = Dev::start();
    let told = dev.dir().join("told");
    let script = format!(
        "trap 'echo orphaned > {told}; exit' TERM; {curia} kv put runs/first yes; while :; do sleep 0.05; done",
        told = told.display(),
        curia = env!("CARGO_BIN_EXE_curia"),
    );
    let mut first = dev.start_command("first", &["lock", "p", &script]);
    holds(&dev, "first");
    let mut second = holder(&dev, "second", &[], "p");
    sessions(&dev, 2);
    first.signal(libc::SIGKILL);
    assert_eq!(first.wait().0.signal(), Some(libc::SIGKILL));
    wait_for("the orphan's end", || {
        let text = read(&told);
        check(text == "orphaned\n", || text)
    });
    assert_eq!(
        dev.value("runs/second"),
        None,
        "nobody said that the lock is free"
    );
    holds(&dev, "second");
    stop(&dev, "second");
    let (status, said) = second.wait();
    assert!(status.success(), "{said}");
    sessions(&dev, 0);
}

/// The server goes away for good: the lock counts as lost after the retries, not never.
#[test]
fn a_server_that_is_gone_is_a_lock_that_is_lost() {
    let mut dev = Dev::start();
    let mut lock = holder(&dev, "it", &["-monitor-retry=1"], "p");
    holds(&dev, "it");
    dev.server().kill();
    let (status, said) = lock.wait();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("Lock lost, killing child\n"), "{said}");
    assert!(
        said.contains("\nLock lost: no server answers at "),
        "{said}"
    );
}

/// A connection that hangs says nothing of a lost lock; that the session may be over must be
/// concluded from the silence.
#[test]
fn a_server_that_hangs_is_a_lock_that_is_lost() {
    let mut dev = Dev::start();
    let mut lock = holder(&dev, "it", &[], "p");
    holds(&dev, "it");
    dev.server().pause();
    let (status, said) = lock.wait();
    dev.server().resume();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("Lock lost, killing child\n"), "{said}");
    assert!(said.contains(" could not be renewed for 15 s: "), "{said}");
}
