//! The commands about sessions, services, configuration and the server itself, against a real one.

mod cli_support;
mod cluster;

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixListener,
    thread,
};

use cli_support::{Dev, curia, finish, read};
use cluster::{check, wait_for};

#[test]
fn what_was_exported_is_imported() {
    let dev = Dev::start();
    let mut ops = Vec::new();
    for key in 0..150 {
        ops.push(format!(
            r#"{{"key":"dir/{key:03}","flags":{key},"value":"{}"}}"#,
            ["", "djE=", "AP8="][key % 3]
        ));
    }
    let imported = dev.run_with(&format!("[{}]", ops.join(",")), &["kv", "import", "-"]);
    assert_eq!((imported.code, &*imported.err), (Some(0), ""));
    let expected: String = (0..150)
        .map(|key| format!("Imported: dir/{key:03}\n"))
        .collect();
    assert_eq!(imported.out, expected);
    let exported = dev.run(&["kv", "export", "dir/"]).out;
    assert!(exported.starts_with(
        "[\n\t{\n\t\t\"key\": \"dir/000\",\n\t\t\"flags\": 0,\n\t\t\"value\": \"\"\n\t},\n"
    ));
    assert_eq!(
        dev.run_with(&exported, &["kv", "import", "-prefix=copy", "-"])
            .code,
        Some(0)
    );
    let copied = dev.run(&["kv", "export", "/copy/"]).out;
    assert_eq!(copied.replace("copy/dir/", "dir/"), exported);
    // 64 keys to a transaction, each of one index.
    let indexes: std::collections::BTreeSet<String> = dev
        .run(&["kv", "get", "-recurse", "-detailed", "copy/"])
        .out
        .lines()
        .filter(|line| line.starts_with("ModifyIndex"))
        .map(String::from)
        .collect();
    assert_eq!(indexes.len(), 3);
    dev.run(&["kv", "export", "nothing"]).says("[]\n");
    dev.run(&["kv", "import", "[]"]).says("");
}

#[test]
fn imports_of_large_values_and_mistakes() {
    let dev = Dev::start();
    let large = |bytes: usize| "A".repeat(bytes / 3 * 4);
    let entry =
        |key: &str, value: &str| format!(r#"{{"key":"{key}","flags":0,"value":"{value}"}}"#);
    let fits = [
        entry("l/1", &large(510_000)),
        entry("l/2", &large(150_000)),
        entry("l/3", &large(150_000)),
        entry("l/4", "djE="),
    ];
    let file = dev.dir().join("large.json");
    fs::write(&file, format!("[{}]", fits.join(","))).unwrap();
    let file = format!("@{}", file.display());
    let imported = dev.run(&["kv", "import", &file]);
    assert_eq!(
        (imported.code, imported.out.lines().count()),
        (Some(0), 4),
        "{imported:?}"
    );
    let too_large = format!("[{}]", entry("l/5", &large(600_000)));
    let refused = dev.run_with(&too_large, &["kv", "import", "-"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused
            .err
            .starts_with("Error! Failed writing data for key l/5: Unexpected response code: 413 ("),
        "{}",
        refused.err
    );
    for (args, err) in [
        (&["kv", "import"][..], "Error! Missing DATA argument"),
        (&["kv", "import", ""], "Error! Empty DATA argument"),
        (
            &["kv", "import", "a", "b"],
            "Error! Too many arguments (expected 1, got 2); flags come before DATA",
        ),
        (
            &["kv", "export", "a", "b"],
            "Error! Too many arguments (expected 1, got 2); flags come before PREFIX",
        ),
        (
            &["kv", "import", "@/nonexistent"],
            "Error! Failed to read file /nonexistent: No such file or directory (os error 2)",
        ),
    ] {
        dev.run(args).fails(err);
    }
}

#[test]
fn sessions_are_made_shown_renewed_and_ended() {
    let dev = Dev::start();
    let made = dev.run(&[
        "session",
        "create",
        "-ttl=20s",
        "-name=me",
        "-behavior=delete",
    ]);
    let id = made.out.trim();
    assert_eq!(id.len(), 36, "{made:?}");
    dev.run(&["session", "list"]).says(&format!(
        "ID                                    Name  Node  TTL  Behavior\n{id}  me    dev   20s  delete\n"
    ));
    assert_eq!(
        dev.run(&["session", "list", "-node=dev"]).out,
        dev.run(&["session", "list"]).out
    );
    let info = dev.run(&["session", "info", id]).out;
    for line in [
        "LockDelay        15s\n",
        "NodeChecks       serfHealth\n",
        "ServiceChecks    -\n",
    ] {
        assert!(info.contains(line), "{info}");
    }
    assert!(
        dev.run(&["session", "info", "-format=json", id])
            .out
            .starts_with("[\n    {\n        \"ID\": \"")
    );
    dev.run(&["session", "renew", id])
        .says(&format!("Session renewed: {id} (TTL 20s)\n"));
    let held = format!("-session={id}");
    dev.run(&["kv", "put", "-acquire", &held, "l", "x"])
        .says("Success! Lock acquired on: l\n");
    dev.run(&["session", "destroy", id])
        .says(&format!("Session destroyed: {id}\n"));
    dev.run(&["kv", "get", "l"])
        .fails("Error! No key exists at: l");
    dev.run(&["session", "info", id])
        .fails(&format!("Error! No session exists with id: {id}"));
    dev.run(&["session", "renew", id]).fails(&format!(
        "Error renewing session: Unexpected response code: 404 (Session id '{id}' not found)"
    ));
    dev.run(&["session", "create", "-ttl=1s"]).fails(
        "Error creating session: Unexpected response code: 500 (Invalid Session TTL '1000000000', must be between [10s=24h0m0s])",
    );
    dev.run(&["session", "renew"])
        .fails("Error! Missing ID argument");
    let bare = dev.run(&["session", "create", "-node-check="]);
    assert!(
        dev.run(&["session", "info", bare.out.trim()])
            .out
            .contains("NodeChecks       -\n")
    );
}

#[test]
fn services_come_and_go_and_are_maintained() {
    let dev = Dev::start();
    dev.run(&[
        "services",
        "register",
        "-name=web",
        "-port=80",
        "-tag=b",
        "-tag=a",
        "-meta=owner=me",
    ])
    .says("Registered service: web\n");
    let file = dev.dir().join("two.hcl");
    fs::write(
        &file,
        "service {\n  name = \"db\"\n  id = \"db-1\"\n  port = 5432\n}\nservice {\n  name = \"cache\"\n}\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    dev.run(&["services", "register", file])
        .says("Registered service: db\nRegistered service: cache\n");
    let found = dev.run(&["watch", "-type=agent_service", "-service=db-1"]);
    assert!(
        found.out.contains("\"Service\": \"db\"") && found.out.contains("\"Port\": 5432"),
        "{found:?}"
    );
    dev.run(&["maint", "-enable", "-service=web", "-reason=new disks"])
        .says("Service maintenance is now enabled for \"web\"\n");
    dev.run(&["maint", "-enable"])
        .says("Node maintenance is now enabled\n");
    let listed = dev.run(&["maint"]).out;
    assert!(
        listed.contains("Service:\n  ID:     web\n  Reason: new disks\n\n"),
        "{listed}"
    );
    assert!(
        listed.contains("Node:\n  Name:   dev\n  Reason: "),
        "{listed}"
    );
    dev.run(&["maint", "-disable", "-service=web"])
        .says("Service maintenance is now disabled for \"web\"\n");
    dev.run(&["maint", "-disable"])
        .says("Node maintenance is now disabled\n");
    dev.run(&["maint"]).says("");
    dev.run(&["services", "deregister", file])
        .says("Deregistered service: db-1\nDeregistered service: cache\n");
    dev.run(&["services", "deregister", "-id=web"])
        .says("Deregistered service: web\n");
    for (args, err) in [
        (
            &["services", "register"][..],
            "Service registration requires at least one argument or flags.",
        ),
        (
            &["services", "register", "-name=a", file],
            "Service registration requires arguments or -id, not both.",
        ),
        (
            &["services", "deregister"],
            "Service deregistration requires at least one argument or -id flag.",
        ),
        (
            &["services", "register", "-name=a", "-meta=b"],
            "Error! -meta=b: give KEY=VALUE",
        ),
        (
            &["maint", "-enable", "-disable"],
            "Only one of -enable or -disable may be provided",
        ),
        (
            &["maint", "-reason=x"],
            "Reason may only be provided with -enable",
        ),
        (
            &["maint", "-service=x"],
            "Service requires either -enable or -disable",
        ),
    ] {
        dev.run(args).fails(err);
    }
}

#[test]
fn config_entries_are_written_listed_read_and_deleted() {
    let dev = Dev::start();
    let text = "kind = \"service-defaults\"\nname = \"web\"\nProtocol = \"http\"\n";
    dev.run_with(text, &["config", "write", "-"])
        .says("Config entry written: service-defaults/web\n");
    dev.run(&["config", "list", "-kind=service-defaults"])
        .says("web\n");
    let read = dev
        .run(&["config", "read", "-kind=service-defaults", "-name=web"])
        .out;
    let entry: serde_json::Value = serde_json::from_str(&read).unwrap();
    assert_eq!(entry["Protocol"], "http");
    assert!(
        read.starts_with("{\n    \"") && read.ends_with("\n}\n"),
        "{read}"
    );
    dev.run_with(text, &["config", "write", "-cas", "-modify-index=1", "-"])
        .fails("Config entry not updated: service-defaults/web");
    let index = format!("-modify-index={}", entry["ModifyIndex"]);
    dev.run_with(text, &["config", "write", "-cas", &index, "-"])
        .says("Config entry written: service-defaults/web\n");
    dev.run(&[
        "config",
        "delete",
        "-cas",
        "-modify-index=1",
        "-kind=service-defaults",
        "-name=web",
    ])
    .fails("Config entry not deleted: service-defaults/web");
    dev.run(&["config", "delete", "-kind=service-defaults", "-name=web"])
        .says("Config entry deleted: service-defaults/web\n");
    dev.run(&["config", "read", "-kind=service-defaults", "-name=web"])
        .fails(
            "Error reading config entry service-defaults/web: Unexpected response code: 404 \
         (Config entry not found for \"service-defaults\" / \"web\")",
        );
    dev.run(&["config", "list"])
        .fails("Must specify the -kind parameter");
    dev.run(&["config", "read", "-kind=a"])
        .fails("Must specify the -name parameter");
}

#[test]
fn members_and_info() {
    let dev = Dev::start();
    let members = dev.run(&["members"]).out;
    let lines: Vec<Vec<&str>> = members
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        [
            "Node",
            "Address",
            "Status",
            "Type",
            "Build",
            "Protocol",
            "DC",
            "Partition",
            "Segment"
        ]
    );
    assert_eq!(
        (lines[1][0], lines[1][2], lines[1][3]),
        ("dev", "alive", "server")
    );
    assert!(
        dev.run(&["members", "-detailed"])
            .out
            .contains("role=consul")
    );
    assert_eq!(dev.run(&["members", "-status=failed"]).code, Some(2));
    let info = dev.run(&["info"]).out;
    assert!(info.contains("\nraft:\n\tapplied_index = "), "{info}");
}

/// Passes bytes between a unix socket and the server.
fn relay(socket: UnixListener, server: String) {
    thread::spawn(move || {
        while let Ok((mut client, _)) = socket.accept() {
            let mut upstream = TcpStream::connect(&server).unwrap();
            let (mut back, mut forth) =
                (upstream.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut back, &mut forth);
                let _ = forth.shutdown(Shutdown::Both);
            });
            thread::spawn(move || {
                let _ = std::io::copy(&mut client, &mut upstream);
                let _ = upstream.shutdown(Shutdown::Both);
            });
        }
    });
}

#[test]
fn a_server_is_reached_by_unix_socket() {
    let dev = Dev::start();
    let path = dev.dir().join("http.sock");
    relay(UnixListener::bind(&path).unwrap(), dev.address());
    let unix = format!("unix://{}", path.display());
    let run = |args: &[&str], input: &str| {
        let mut command = curia(args);
        command.env("CONSUL_HTTP_ADDR", &unix);
        finish(command, input)
    };
    let value = "v".repeat(400_000);
    run(&["kv", "put", "k", "-"], &value).says("Success! Data written to: k\n");
    run(&["kv", "get", "k"], "").says(&format!("{value}\n"));
    run(&["lock", "p", "echo held"], "").says("held\n");
    finish(
        curia(&["kv", "get", "-http-addr=unix:///nonexistent", "k"]),
        "",
    )
    .fails(
        "Error querying curia agent: no server answers at unix:///nonexistent: io: No such file or \
         directory (os error 2). Is one running there? Start one with `curia agent -dev`, or name \
         another with -http-addr=HOST:PORT or CONSUL_HTTP_ADDR",
    );
}

/// What a client sends when it asks for a key, in lower case.
fn request_of(set_up: impl FnOnce(&mut std::process::Command), flags: &[&str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("-http-addr=http://{}", listener.local_addr().unwrap());
    let asked = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut bytes = [0; 1024];
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = stream.read(&mut bytes).unwrap();
            request.extend_from_slice(&bytes[..read]);
        }
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(answer).unwrap();
        String::from_utf8(request).unwrap().to_lowercase()
    });
    let mut args = vec!["kv", "get", &*address];
    args.extend(flags);
    args.push("k");
    let mut command = curia(&args);
    set_up(&mut command);
    finish(command, "").fails("Error! No key exists at: k");
    asked.join().unwrap()
}

#[test]
fn tokens_come_from_flags_files_and_the_environment() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, "from-file\n").unwrap();
    let file = file.to_str().unwrap();
    let sends = |set_up: fn(&mut std::process::Command), flags: &[&str]| request_of(set_up, flags);
    assert!(!sends(|_| {}, &[]).contains("x-consul-token"));
    assert!(sends(|_| {}, &["-token=abc"]).contains("x-consul-token: abc\r\n"));
    let env = |command: &mut std::process::Command| {
        command.env("CONSUL_HTTP_TOKEN", "env");
    };
    assert!(sends(env, &[]).contains("x-consul-token: env\r\n"));
    assert!(sends(env, &["-token=flag"]).contains("x-consul-token: flag\r\n"));
    let by_file = format!("-token-file={file}");
    assert!(sends(env, &[&by_file]).contains("x-consul-token: from-file\r\n"));
    let request = request_of(
        |command| {
            command.env("CONSUL_HTTP_TOKEN_FILE", file);
        },
        &["-datacenter=dc2", "-stale", "-stale=false", "-stale=T"],
    );
    assert!(
        request.contains("x-consul-token: from-file\r\n"),
        "{request}"
    );
    assert!(
        request.starts_with("get /v1/kv/k?dc=dc2&stale http/1.1\r\n"),
        "{request}"
    );
    finish(curia(&["kv", "get", "-token-file=/nonexistent", "k"]), "")
        .fails("Error loading token file /nonexistent : No such file or directory (os error 2)");
    finish(curia(&["kv", "get", "-stale=maybe", "k"]), "")
        .fails("Error: -stale=maybe: must be true or false");
}

#[test]
fn the_catalog_is_listed() {
    let dev = Dev::start();
    for (name, tag) in [("web", "-tag=b"), ("api", "-tag=x")] {
        let name = format!("-name={name}");
        let registered = dev.run(&["services", "register", &name, tag, "-tag=a"]);
        assert_eq!(registered.code, Some(0), "{registered:?}");
    }
    wait_for("both services in the catalog", || {
        let listed = dev.run(&["catalog", "services", "-tags"]).out;
        let whole = "api         a,x\nconsul\nweb         a,b\n";
        check(listed == whole, || listed)
    });
    dev.run(&["catalog", "services"]).says("api\nconsul\nweb\n");
    dev.run(&["catalog", "services", "-node=dev", "-tags"])
        .says("api         a,x\nconsul\nweb         a,b\n");
    dev.run(&["catalog", "datacenters"]).says("dc1\n");
    let nodes = dev.run(&["catalog", "nodes"]).out;
    let cells: Vec<&str> = nodes.split_whitespace().collect();
    assert_eq!(
        cells[..5],
        ["Node", "ID", "Address", "DC", "dev"],
        "{nodes}"
    );
    assert_eq!(cells[5].len(), 8, "{nodes}");
    assert_eq!(dev.run(&["catalog", "nodes", "-service=web"]).out, nodes);
    assert_eq!(
        dev.run(&["catalog", "nodes", "-filter=Node == dev", "-near=_agent"])
            .out,
        nodes
    );
    assert!(
        dev.run(&["catalog", "nodes", "-detailed"])
            .out
            .contains("lan=")
    );
    let none = "No nodes match the given query - try expanding your search.\n";
    for flag in ["-service=none", "-node-meta=a=b", "-filter=Node == other"] {
        dev.run(&["catalog", "nodes", flag]).says(none);
    }
    dev.run(&["catalog", "services", "-node=none"])
        .says("No services match the given query - try expanding your search.\n");
    dev.run(&["catalog", "nodes", "-node-meta=a"])
        .fails("Error! -node-meta=a: give KEY=VALUE");
    let refused = dev.run(&["catalog", "nodes", "-filter=Nod == a"]);
    assert!(
        refused.err.starts_with("Error listing nodes: Unexpected response code: 500 (Failed to create boolean expression evaluator"),
        "{}",
        refused.err
    );
    let service = dev.run(&[
        "watch",
        "-type=service",
        "-service=web",
        "-tag=b",
        "-passingonly",
    ]);
    assert!(service.out.contains("\"Service\": \"web\""), "{service:?}");
    dev.run(&["watch", "-type=service", "-service=web", "-tag=none"])
        .says("[]\n");
    assert!(
        dev.run(&["watch", "-type=checks"])
            .out
            .contains("serfHealth")
    );
    dev.run(&["watch", "-type=checks", "-state=critical"])
        .says("[]\n");
    assert!(
        dev.run(&["watch", "-type=nodes"])
            .out
            .contains("\"Node\": \"dev\"")
    );
}

#[test]
fn events_are_fired_and_watched() {
    let dev = Dev::start();
    let fired = dev.run(&["event", "-name=deploy", "1.2.3"]);
    let id = fired.out.strip_prefix("Event ID: ").unwrap().trim();
    assert_eq!(id.len(), 36, "{fired:?}");
    let log = dev.dir().join("events");
    let script = format!("cat >> {}", log.display());
    let _watch = dev.start_command("watch", &["watch", "-type=event", "-name=deploy", &script]);
    let lines = |number: usize| {
        wait_for("handled events", || {
            let text = read(&log);
            check(text.lines().count() >= number, || text.clone())?;
            Ok(text)
        })
    };
    assert!(lines(1).contains(id));
    dev.run(&["event", "-name=other"]);
    // A server takes no note of events that are not for it.
    dev.run(&["event", "-name=deploy", "-service=none", "-tag=canary"]);
    let second = dev.run(&["event", "-name=deploy", "-node=^d", "2"]);
    let second = second.out.strip_prefix("Event ID: ").unwrap().trim();
    let text = lines(2);
    let line = text.lines().nth(1).unwrap();
    assert!(
        line.contains(second) && !line.contains(id),
        "only what is new: {line}"
    );
    assert!(line.contains("\"NodeFilter\":\"^d\""), "{line}");
    for (args, err) in [
        (
            &["event"][..],
            "Event name must be specified; see curia event -help",
        ),
        (
            &["event", "-name=a", "-tag=b"],
            "Cannot provide tag filter without service filter.",
        ),
        (
            &["event", "-name=a", "b", "c"],
            "Too many command line arguments.",
        ),
    ] {
        dev.run(args).fails(err);
    }
    let wrong = dev.run(&["event", "-name=a", "-node=("]);
    assert!(
        wrong.err.starts_with("Error parsing node filter regexp: "),
        "{}",
        wrong.err
    );
}

#[test]
fn a_change_of_a_service_runs_the_command() {
    let dev = Dev::start();
    let log = dev.dir().join("services");
    let script = format!("cat >> {}", log.display());
    let _watch = dev.start_command(
        "watch",
        &["watch", "-type=agent_service", "-service=web", &script],
    );
    let _all = dev.start_command("all", &["watch", "-type=services", &script]);
    wait_for("the first services", || {
        let text = read(&log);
        check(text.contains("{\"consul\":[]}\n"), || text)
    });
    dev.run(&["services", "register", "-name=db"])
        .says("Registered service: db\n");
    wait_for("a service more", || {
        let text = read(&log);
        check(text.contains("{\"consul\":[],\"db\":[]}\n"), || text)
    });
}

#[test]
fn monitor_shows_the_log_until_it_is_told_to_end_or_the_server_does() {
    let mut dev = Dev::start();
    let mut monitor = dev.start_command("monitor", &["monitor", "-log-level=debug"]);
    let fire = |dev: &Dev, name: &str| {
        let fired = dev.run(&["event", "-name", name]);
        assert_eq!(fired.code, Some(0), "{}", fired.err);
    };
    // It may not have begun yet.
    wait_for("a line", || {
        fire(&dev, "first");
        let log = read(&dev.dir().join("monitor.out"));
        check(log.contains("event_name=first"), || log)
    });
    monitor.signal(libc::SIGINT);
    let (status, _) = monitor.wait();
    assert!(status.success(), "{status}");
    let mut json = dev.start_command("json", &["monitor", "-log-level", "debug", "-log-json"]);
    wait_for("a line of JSON", || {
        fire(&dev, "second");
        let log = read(&dev.dir().join("json.out"));
        check(log.contains("{\"@level\":\"debug\""), || log)
    });
    dev.server().kill();
    let (status, text) = json.wait();
    assert_eq!(status.code(), Some(1));
    assert!(
        text.ends_with(
            "\nRemote side ended the monitor! This usually means that the\n\
             remote side has exited or crashed.\n"
        ),
        "{text}"
    );
    let none = dev.run(&["monitor"]);
    assert_eq!(none.code, Some(1));
    assert!(
        none.err.starts_with("Error starting monitor: "),
        "{}",
        none.err
    );
}

#[test]
fn monitor_says_what_the_server_refuses() {
    let dev = Dev::start();
    dev.run(&["monitor", "-log-level=loud"])
        .fails("Error starting monitor: Unexpected response code: 400 (Unknown log level: loud)");
}
