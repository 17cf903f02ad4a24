//! Some servers that belong together: how are they brought up, and when are they one cluster?

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::{Index, IndexMut},
    path::PathBuf,
    sync::atomic::{AtomicU8, Ordering},
};

use tempfile::TempDir;

use super::{check, http::Row, server::Server, wait_for};

/// Addresses of one test.
const ADDRESSES_PER_TEST: u8 = 8;

/// Servers of one test, on addresses that no other test uses.
pub struct Group {
    pub servers: Vec<Server>,
    net: (u8, u8, u8),
    home: PathBuf,
    /// Removed at the end, unless the test failed.
    _home: Option<TempDir>,
}

impl Group {
    /// A group without servers.
    pub fn empty() -> Self {
        static TESTS: AtomicU8 = AtomicU8::new(0);
        let test = TESTS.fetch_add(1, Ordering::Relaxed);
        assert!(
            test < 255 / ADDRESSES_PER_TEST,
            "more tests than address blocks in one process"
        );
        let pid = std::process::id();
        let net = (
            1 + (pid >> 8 & 0xff) as u8 % 254,
            pid as u8,
            1 + test * ADDRESSES_PER_TEST,
        );
        let home = TempDir::with_prefix_in("cluster-", env!("CARGO_TARGET_TMPDIR"))
            .expect("a directory on the disk");
        Self {
            servers: Vec::new(),
            net,
            home: home.path().to_owned(),
            _home: Some(home),
        }
    }

    /// `size` servers that will form one cluster, not started. `flags` go to each of them.
    pub fn new(size: usize, flags: &[&str]) -> Self {
        let mut group = Self::empty();
        for _ in 0..size {
            group.add(size, flags);
        }
        group
    }

    /// The same, started and with a leader.
    pub fn formed(size: usize, flags: &[&str]) -> Self {
        let mut group = Self::new(size, flags);
        group.start_all();
        group.wait_for_leader();
        group
    }

    /// One more server, not started, that expects a cluster of `expect`.
    pub fn add(&mut self, expect: usize, flags: &[&str]) -> &mut Server {
        let at = self.servers.len();
        let joins: Vec<String> = (0..expect.max(at))
            .map(|at| format!("{}:8300", self.ip(at)))
            .collect();
        let mut all = vec![
            format!("-bootstrap-expect={expect}"),
            format!("-retry-join={}", joins.join(",")),
        ];
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self.add_plain(&all)
    }

    /// One more server with these flags beside, or instead of, its name, addresses and data directory.
    pub fn add_plain(&mut self, flags: &[String]) -> &mut Server {
        let at = self.servers.len();
        let (name, ip) = (format!("s{}", at + 1), self.ip(at));
        let mut all = vec![
            "-server".to_owned(),
            format!("-node={name}"),
            format!("-bind={ip}"),
            format!("-client={ip}"),
            "-http-port=8500".to_owned(),
            "-server-port=8300".to_owned(),
            format!("-data-dir={}", self.home.join(&name).display()),
            "-executors=1".to_owned(),
            "-log-level=debug".to_owned(),
        ];
        // A few small segments, or a hundred servers would spend the test on zero-filling.
        all.push("-set=log.segment_mb=4".to_owned());
        let name_of = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
        all.retain(|default| {
            default.starts_with("-set")
                || flags.iter().all(|flag| name_of(flag) != name_of(default))
        });
        all.extend_from_slice(flags);
        let server = Server::new(&self.home, &name, ip, all);
        self.servers.push(server);
        self.servers.last_mut().expect("just added")
    }

    /// Address of the server at `at`, there or to come.
    pub fn ip(&self, at: usize) -> IpAddr {
        assert!(
            at < usize::from(ADDRESSES_PER_TEST),
            "more servers than addresses"
        );
        let (a, b, c) = self.net;
        // The first octets tell processes apart, the third tests, the last servers.
        IpAddr::V4(Ipv4Addr::new(127, a, b, c + at as u8))
    }

    /// Directory of the test.
    pub fn home(&self) -> &std::path::Path {
        &self.home
    }

    pub fn start_all(&mut self) {
        for server in self
            .servers
            .iter_mut()
            .filter(|server| !server.is_running())
        {
            server.start();
        }
    }

    /// Waits until all running servers name the same leader, which is one of them; its position.
    pub fn wait_for_leader(&self) -> usize {
        wait_for("a leader that all agree on", || self.leader())
    }

    /// The leader, when all running servers name the same one and it leads.
    pub fn leader(&self) -> Result<usize, String> {
        let mut named: Option<String> = None;
        for server in self.servers.iter().filter(|server| server.is_running()) {
            let answer = server
                .http()
                .get("/v1/status/leader")
                .map_err(|why| format!("{}: {why:?}", server.name))?;
            let leader = answer.text().trim().trim_matches('"').to_owned();
            if leader.is_empty() || named.as_ref().is_some_and(|other| *other != leader) {
                return Err(format!(
                    "{} names {leader:?}, others {named:?}",
                    server.name
                ));
            }
            named = Some(leader);
        }
        let named = named.ok_or("no server runs")?;
        self.servers
            .iter()
            .position(|server| server.is_running() && server.server_address().to_string() == named)
            .ok_or_else(|| format!("{named} does not run"))
    }

    /// Positions of running servers that do not lead.
    pub fn followers(&self) -> Vec<usize> {
        let leader = self.wait_for_leader();
        (0..self.servers.len())
            .filter(|at| *at != leader && self.servers[*at].is_running())
            .collect()
    }

    /// Waits until all running servers hold what the leader (asked for the newest) holds, as their
    /// own (stale) listings show; the rows. For when nobody writes.
    pub fn wait_for_equal_states(&self) -> Vec<Row> {
        self.wait_for_equal_rows(&[String::new()])
    }

    /// The same for these prefixes: with shards there is no listing of everything.
    pub fn wait_for_equal_rows(&self, prefixes: &[String]) -> Vec<Row> {
        let newest = wait_for("a consistent listing", || {
            let server = self
                .servers
                .iter()
                .find(|server| server.is_running())
                .ok_or("no server runs")?;
            list(server, prefixes, "consistent")
        });
        for server in self.servers.iter().filter(|server| server.is_running()) {
            wait_for("all servers hold the same state", || {
                let rows = list(server, prefixes, "stale")?;
                check(rows == newest, || {
                    let differ = rows.iter().zip(&newest).find(|(a, b)| a != b);
                    let (found, wanted) = (rows.len(), newest.len());
                    format!(
                        "{} holds {found} rows, the leader {wanted}; first difference {differ:?}",
                        server.name
                    )
                })
            });
        }
        newest
    }
}

fn list(server: &Server, prefixes: &[String], mode: &str) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for prefix in prefixes {
        let answer = server
            .http()
            .get(&format!("/v1/kv/{prefix}?recurse&{mode}"));
        let answer = answer.map_err(|why| format!("{}: {why:?}", server.name))?;
        check(matches!(answer.status, 200 | 404), || {
            format!("{}: {}", server.name, answer.text())
        })?;
        rows.extend(answer.rows());
    }
    Ok(rows)
}

impl Index<usize> for Group {
    type Output = Server;
    fn index(&self, at: usize) -> &Server {
        &self.servers[at]
    }
}

impl IndexMut<usize> for Group {
    fn index_mut(&mut self, at: usize) -> &mut Server {
        &mut self.servers[at]
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.servers.clear();
        if std::thread::panicking()
            && let Some(home) = self._home.take()
        {
            eprintln!("kept for inspection: {}", home.keep().display());
        }
    }
}
