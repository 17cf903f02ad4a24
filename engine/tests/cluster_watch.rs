//! Is every change told once and in order, whoever is killed, and wherever a watch goes on?
//!
//! Real servers. Loads write each key once, so that what a watch of everything was told must be
//! the final listing in the order of its modify indexes: nothing lost, nothing twice.

mod cluster;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::Duration,
};

use cluster::{PATIENCE, check, group::Group, http::Row, load::Load, server::Server, wait_for};
use serde_json::Value;

/// One server-sent event.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    name: String,
    data: Value,
    id: Option<String>,
}

impl Event {
    fn parse(text: &str) -> Self {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(|rest| rest.trim_start().to_owned())
        };
        Self {
            name: field("event:").expect("every event has a name"),
            data: serde_json::from_str(&field("data:").expect("data")).expect("JSON"),
            id: field("id:"),
        }
    }

    fn key(&self) -> &str {
        self.data["Key"].as_str().expect("a key")
    }

    /// What it did to which key, at which index.
    fn what(&self) -> (String, String, u64) {
        let op = self.data["Op"].as_str().expect("an operation").to_owned();
        let index = self.data["ModifyIndex"].as_u64().expect("an index");
        (op, self.key().to_owned(), index)
    }
}

/// A stream of events.
struct Watch {
    stream: BufReader<TcpStream>,
    waiting: Vec<Event>,
    /// The stream ended with its last chunk.
    ended_whole: bool,
}

impl Watch {
    /// Asks; the status and text of a refusal.
    fn try_open(address: SocketAddr, target: &str, id: &str) -> Result<Self, String> {
        let io = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(address).map_err(io)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(io)?;
        let head =
            format!("GET /v1/kv/{target} HTTP/1.1\r\nHost: curia\r\nLast-Event-ID: {id}\r\n\r\n");
        stream.write_all(head.as_bytes()).map_err(io)?;
        let mut stream = BufReader::new(stream);
        let (mut head, mut line) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line).map_err(io)? == 0 {
                return Err("closed".to_owned());
            }
            head.push_str(&line);
        }
        if !head.starts_with("HTTP/1.1 200") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "));
            let mut text = vec![0; length.and_then(|text| text.parse().ok()).unwrap_or(0)];
            stream.read_exact(&mut text).map_err(io)?;
            return Err(format!(
                "{} {}",
                &head[9..12],
                String::from_utf8_lossy(&text)
            ));
        }
        Ok(Self {
            stream,
            waiting: Vec::new(),
            ended_whole: false,
        })
    }

    fn open(server: &Server, target: &str, id: &str) -> Self {
        Self::try_open(server.http_address(), target, id)
            .unwrap_or_else(|why| panic!("{target} at {}: {why}", server.name))
    }

    /// The next event; `None` at the end of the stream.
    fn next(&mut self) -> Option<Event> {
        while self.waiting.is_empty() {
            let mut size = String::new();
            self.stream.read_line(&mut size).ok().filter(|n| *n > 0)?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            self.stream.read_exact(&mut chunk).ok()?;
            if size == 0 {
                self.ended_whole = true;
                return None;
            }
            let text = std::str::from_utf8(&chunk[..size]).expect("text");
            self.waiting = text.split_terminator("\n\n").map(Event::parse).collect();
            self.waiting.reverse();
        }
        self.waiting.pop()
    }

    /// The next event that is no progress.
    fn news(&mut self) -> Event {
        loop {
            let event = self.next().expect("the stream goes on");
            if event.name != "progress" {
                return event;
            }
        }
    }

    fn whats(&mut self, count: usize) -> Vec<(String, String, u64)> {
        (0..count).map(|_| self.news().what()).collect()
    }
}

fn put(server: &Server, key: &str, value: impl AsRef<[u8]>) -> u64 {
    let answer = server
        .http()
        .put(&format!("/v1/kv/{key}"), value.as_ref())
        .expect("an answer");
    assert!(answer.is_true(), "{key}: {}", answer.text());
    answer.header("x-consul-index").parse().expect("an index")
}

fn delete(server: &Server, path: &str) -> u64 {
    let answer = server
        .http()
        .delete(&format!("/v1/kv/{path}"))
        .expect("an answer");
    assert!(answer.is_true(), "{path}: {}", answer.text());
    answer.header("x-consul-index").parse().expect("an index")
}

fn metric(server: &Server, name: &str) -> f64 {
    let answer = server.http().get("/v1/agent/metrics").expect("an answer");
    let metrics = answer.json();
    let gauges = metrics["Gauges"].as_array().expect("gauges");
    let gauge = gauges.iter().find(|gauge| gauge["Name"] == name);
    gauge.unwrap_or_else(|| panic!("no {name}"))["Value"]
        .as_f64()
        .expect("a number")
}

fn own(what: (&str, &str, u64)) -> (String, String, u64) {
    (what.0.to_owned(), what.1.to_owned(), what.2)
}

/// A client that goes on at the next server when its stream ends.
struct Wanderer {
    thread: JoinHandle<(Vec<Event>, usize)>,
    /// The index behind which it has nothing more to do; 0 while that is unknown.
    until: Arc<AtomicU64>,
}

impl Wanderer {
    fn start(servers: Vec<SocketAddr>, first: usize, target: &str) -> Self {
        let until = Arc::new(AtomicU64::new(0));
        let (goal, target) = (until.clone(), target.to_owned());
        let thread = thread::spawn(move || wander(&servers, first, &target, &goal));
        Self { thread, until }
    }

    /// The changes that it was told up to this index, and how often it changed servers.
    fn finish(self, until: u64) -> (Vec<Event>, usize) {
        self.until.store(until, Ordering::Relaxed);
        self.thread.join().expect("a watcher ends well")
    }
}

fn wander(
    servers: &[SocketAddr],
    first: usize,
    target: &str,
    until: &AtomicU64,
) -> (Vec<Event>, usize) {
    let (mut told, mut id, mut streams) = (Vec::new(), String::new(), 0);
    for at in first.. {
        let Ok(mut watch) = Watch::try_open(servers[at % servers.len()], target, &id) else {
            sleep(Duration::from_millis(20));
            continue;
        };
        streams += 1;
        while let Some(event) = watch.next() {
            let index = event.data["Index"]
                .as_u64()
                .or(event.data["ModifyIndex"].as_u64());
            match event.name.as_str() {
                "change" => told.push(event.clone()),
                "progress" => {}
                other => panic!("{other} from an unbroken history: {event:?}"),
            }
            id = event.id.expect("each event here has an id");
            let until = until.load(Ordering::Relaxed);
            if until > 0 && index >= Some(until) {
                return (told, streams);
            }
        }
    }
    unreachable!("the range has no end")
}

/// What a watch of everything from the beginning must have been told.
fn in_order(mut rows: Vec<Row>) -> Vec<(String, String, u64)> {
    rows.sort_by_key(|row| row.modify_index);
    rows.into_iter()
        .map(|row| own(("set", &row.key, row.modify_index)))
        .collect()
}

#[test]
fn watches_miss_nothing_and_repeat_nothing_whoever_is_killed() {
    let mut group = Group::formed(3, &[]);
    let begin = put(&group[0], "begin", "1");
    let addresses: Vec<SocketAddr> = group.servers.iter().map(Server::http_address).collect();
    let wanderers: Vec<Wanderer> = ["", "&stale", "&consistent"]
        .iter()
        .enumerate()
        .map(|(at, mode)| {
            let target = format!("?watch&index={begin}{mode}");
            Wanderer::start(addresses.clone(), at, &target)
        })
        .collect();
    let load = Load::start(&addresses, 4, 100);
    for round in 0..6 {
        load.wait_for_more(60);
        let leader = group.wait_for_leader();
        let victim = match round % 3 {
            2 => (leader + 1) % 3,
            _ => leader,
        };
        group[victim].kill();
        load.wait_for_more(20);
        group[victim].start();
    }
    load.wait_for_more(60);
    let history = load.finish();
    group.wait_for_leader();
    let end = put(&group[0], "end", "1");
    let rows = group.wait_for_equal_states();
    history.check(
        &rows
            .iter()
            .filter(|row| row.key.starts_with("load"))
            .cloned()
            .collect::<Vec<_>>(),
    );
    let mut expected = in_order(rows);
    assert_eq!(expected.remove(0).1, "begin");
    assert!(expected.len() > 500, "the test tests little");
    let mut streams = 0;
    for wanderer in wanderers {
        let (told, moved) = wanderer.finish(end);
        let told: Vec<_> = told.iter().map(Event::what).collect();
        assert_eq!(told.len(), expected.len());
        assert!(told == expected, "the same changes in the same order");
        streams += moved;
    }
    assert!(streams > 6, "{streams} streams: nobody was cut off");
}

/// The history of a server that was killed comes back from its log, cursors of before included.
#[test]
fn a_restarted_server_knows_its_history_from_its_log() {
    let mut group = Group::formed(1, &[]);
    let mut watch = Watch::open(&group[0], "w/?watch", "");
    assert_eq!(watch.news().name, "synced");
    let a = put(&group[0], "w/a", "1");
    put(&group[0], "other", "1");
    let b = put(&group[0], "w/b", "2");
    let gone = delete(&group[0], "w/?recurse");
    let first = watch.news();
    assert_eq!(first.what(), own(("set", "w/a", a)));
    assert_eq!(watch.whats(2).len(), 2);
    group[0].kill();
    assert!(
        watch.next().is_none() && !watch.ended_whole,
        "it is cut off"
    );
    group[0].start();
    group.wait_for_leader();
    let mut watch = Watch::open(
        &group[0],
        "w/?watch",
        first.id.as_deref().unwrap_or_default(),
    );
    assert_eq!(
        watch.whats(2),
        [own(("set", "w/b", b)), own(("delete-tree", "w/", gone))]
    );
    let later = put(&group[0], "w/c", "3");
    assert_eq!(watch.whats(1), [own(("set", "w/c", later))]);
    // From the very first index on there is all that ever happened.
    let mut all = Watch::open(&group[0], "w/a?watch&index=1", "");
    assert_eq!(
        all.whats(2),
        [own(("set", "w/a", a)), own(("delete-tree", "w/a", gone))],
        "in the words of the prefix that is watched"
    );
}

/// An image holds rows and no history: what came before it is gone, and is said to be.
#[test]
fn a_history_ends_at_the_image_that_a_server_starts_from() {
    let flags = [
        "-set=raft_snapshot_threshold=50",
        "-set=raft_snapshot_interval=20ms",
        "-set=raft_trailing_logs=0",
    ];
    let mut group = Group::formed(1, &flags);
    let mut watch = Watch::open(&group[0], "k?watch", "");
    let id = watch.news().id.expect("a cursor");
    for n in 0..200 {
        put(&group[0], "k", n.to_string());
    }
    // This server still knows.
    assert_eq!(Watch::open(&group[0], "k?watch", &id).news().name, "change");
    let images = group[0].data.join("images");
    wait_for("an image", || {
        let files = std::fs::read_dir(&images).map_err(|error| error.to_string())?;
        check(
            files
                .flatten()
                .any(|file| !file.file_name().to_string_lossy().contains("tmp")),
            || "none yet".to_owned(),
        )
    });
    group[0].stop();
    group[0].start();
    group.wait_for_leader();
    let mut late = Watch::open(&group[0], "k?watch", &id);
    let reset = late.news();
    assert_eq!((&*reset.name, reset.id.as_deref()), ("reset", Some("")));
    assert!(late.next().is_none() && late.ended_whole);
    let mut anew = Watch::open(&group[0], "k?watch", "");
    assert_eq!(anew.news().data["Value"], "MTk5");
    assert_eq!(anew.news().name, "synced");
    let index = put(&group[0], "k", "after");
    assert_eq!(anew.whats(1), [own(("set", "k", index))]);
}

/// One client reads nothing. Writes go on, the memory for it is bounded, and it is told in the end.
#[test]
fn a_slow_watcher_costs_nobody_anything_and_is_reset() {
    let group = Group::formed(1, &["-set=limits.watch_history_bytes=1048576"]);
    let server = &group[0];
    let mut slow = Watch::open(server, "big/?watch", "");
    assert_eq!(slow.news().name, "synced");
    for n in 0..60 {
        let value = vec![n; 400_000];
        put(server, &format!("big/{}", n % 4), value);
        assert!(metric(server, "curia.history.bytes") <= 1_048_576.0);
    }
    let mut told = 0;
    let last = loop {
        let event = slow.news();
        if event.name == "reset" {
            break event;
        }
        told += 1;
    };
    assert!(
        told < 60,
        "it was told all {told} of them: the test tests nothing"
    );
    assert!(
        last.data["Reason"]
            .as_str()
            .expect("a reason")
            .contains("start over")
    );
    assert!(slow.next().is_none() && slow.ended_whole);
    wait_for("its place is free", || {
        let watches = metric(server, "curia.http.watches");
        check(watches == 0.0, || format!("{watches} watches"))
    });
}

/// Executors hand watches on to each other; shards have histories of their own.
#[test]
fn watches_cross_executors_and_not_shards() {
    let group = Group::formed(1, &["-executors=2", "-shards=2"]);
    let server = &group[0];
    let spans = Watch::try_open(server.http_address(), "app?watch", "");
    assert_eq!(
        spans.err().as_deref(),
        Some(
            "400 a watch of a prefix without a full first segment spans shards, which a cluster of 2 shards does not support"
        )
    );
    let prefixes: Vec<String> = (0..4).map(|n| format!("app{n}/")).collect();
    // Connections are handed round: each prefix is watched from both executors.
    let mut watches: Vec<(String, Watch)> = prefixes
        .iter()
        .flat_map(|prefix| [prefix, prefix])
        .map(|prefix| {
            (
                prefix.clone(),
                Watch::open(server, &format!("{prefix}?watch"), ""),
            )
        })
        .collect();
    let mut ids = Vec::new();
    for (_, watch) in &mut watches {
        ids.push(watch.news().id.expect("synced"));
    }
    for prefix in &prefixes {
        for n in 0..3 {
            put(server, &format!("{prefix}{n}"), "v");
        }
    }
    for (prefix, watch) in &mut watches {
        let keys: Vec<String> = watch.whats(3).into_iter().map(|(_, key, _)| key).collect();
        assert_eq!(keys, [0, 1, 2].map(|n| format!("{prefix}{n}")));
    }
    let origin = |id: &str| id[..16].to_owned();
    let other = ids
        .iter()
        .find(|id| origin(id) != origin(&ids[0]))
        .expect("two shards");
    let reset = Watch::open(server, "app0/?watch", other).news();
    assert_eq!(reset.name, "reset");
    assert!(
        reset.data["Reason"]
            .as_str()
            .expect("a reason")
            .contains("another shard")
    );
    drop(watches);
    wait_for("all places are free", || {
        let (watches, waiters) = (
            metric(server, "curia.http.watches"),
            metric(server, "curia.waiters"),
        );
        check((watches, waiters) == (0.0, 0.0), || {
            format!("{watches} watches, {waiters} waiters")
        })
    });
}

#[test]
fn a_server_that_stops_ends_its_watches_and_one_without_a_history_has_none() {
    let mut group = Group::formed(1, &[]);
    put(&group[0], "k", "1");
    let mut watches: Vec<Watch> = (0..10)
        .map(|_| Watch::open(&group[0], "?watch", ""))
        .collect();
    for watch in &mut watches {
        assert_eq!((watch.news().key(), &*watch.news().name), ("k", "synced"));
    }
    group[0].stop();
    for mut watch in watches {
        assert!(watch.next().is_none() && watch.ended_whole);
    }
    let off = "-set=limits.watch_history_bytes=0".to_owned();
    group[0].flags.push(off);
    group[0].start();
    group.wait_for_leader();
    let refused = Watch::try_open(group[0].http_address(), "?watch", "");
    assert_eq!(
        refused.err().as_deref(),
        Some("400 watches are switched off on this server (limits.watch_history_bytes is 0)")
    );
    assert_eq!(metric(&group[0], "curia.history.bytes"), 0.0);
}

/// Everybody is told everything, also by followers.
#[test]
fn many_watch_the_same_keys_at_every_server() {
    let group = Group::formed(3, &[]);
    let mut watches: Vec<Watch> = (0..150)
        .map(|at| Watch::open(&group[at % 3], "crowd/?watch", ""))
        .collect();
    for watch in &mut watches {
        assert_eq!(watch.news().name, "synced");
    }
    let expected: Vec<_> = (0..50)
        .map(|n| {
            let key = format!("crowd/{}", n % 7);
            let index = put(&group[n % 3], &key, n.to_string());
            own(("set", &key, index))
        })
        .collect();
    for watch in &mut watches {
        assert_eq!(watch.whats(50), expected);
    }
}
