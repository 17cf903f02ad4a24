//! What is being measured: one running cluster, the load on it, and what it acknowledged.
//!
//! A subject is measured in slices, so that several (curia, a peer, the floor) can take turns
//! on a host that drifts, and slices of one rung are merged afterwards.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use clap::ValueEnum;
use serde::Serialize;

use crate::cluster::{Cluster, Product, curia, etcd};
use crate::counters::{Cost, Counters};
use crate::http;
use crate::load::{
    Consistency, EtcdGrpc, Frames, Http, Ledger, Load, Mux, Op, Outcome, Rung, Shape, Until,
    Unwatched, Watch,
};
use crate::volume::Volume;
use crate::{Error, Result};

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The product's own: curia's frames, etcd's gRPC; many requests in flight per connection.
    Native,
    /// HTTP/1.1, one request in flight per keep-alive connection. For etcd its JSON gateway.
    Http,
}

impl Protocol {
    /// Name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Http => "http",
        }
    }

    /// What a reader of a comparison must know about the peer's protocol.
    pub fn remark_on(self, peer: &Product) -> &'static str {
        match (peer, self) {
            (Product::Etcd(_), Self::Http) => {
                "etcd was driven through its JSON gateway, which inside etcd is a gRPC client of \
                 its own server: its CPU and latency by gRPC are lower (--peer-protocol native)."
            }
            (Product::Etcd(_), Self::Native) => {
                "etcd was driven by gRPC over as many connections as curia, from the same load \
                 generator: unary KV.Put and KV.Range, indexed headers, no client library."
            }
            (Product::Curia(_), _) => "The peer is curia itself.",
        }
    }
}

/// Requests in flight while a ledger is filled or checked.
const FILL_IN_FLIGHT: usize = 64;
/// Answers awaited at once on one connection while a ledger is checked.
const CHECK_AT_ONCE: usize = 32;
const CHECK_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a follower may take until it holds everything that was acknowledged.
const CATCH_UP_MAX: Duration = Duration::from_secs(20);

/// Result of one slice, or of several merged.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// Latencies and failures.
    pub outcome: Outcome,
    /// What it cost; `None` before anything was measured.
    pub cost: Option<Cost>,
}

impl Slice {
    /// Adds another slice of the same rung.
    pub fn merge(&mut self, other: &Slice) {
        self.outcome.merge(&other.outcome);
        match (&mut self.cost, &other.cost) {
            (Some(sum), Some(cost)) => sum.merge(cost),
            (sum, cost) => *sum = sum.or(*cost),
        }
    }
}

/// A running cluster under load.
pub struct Subject {
    cluster: Cluster,
    protocol: Protocol,
    load: Box<dyn Load>,
    ledger: Ledger,
    volume: Volume,
}

impl Subject {
    /// Starts a cluster, waits until it is ready, and aims at its leader.
    pub fn start(
        product: Product,
        protocol: Protocol,
        servers: usize,
        shape: Shape,
        place: &Place<'_>,
    ) -> Result<Self> {
        let ledger = Ledger::new(shape)?;
        let volume = Volume::of(place.data_dir)?;
        let mut cluster = Cluster::start(
            product,
            servers,
            place.network,
            place.data_dir,
            place.keep_data,
        )?;
        cluster.wait_ready()?;
        let load = new_load(&cluster, protocol)?;
        let mut subject = Self {
            cluster,
            protocol,
            load,
            ledger,
            volume,
        };
        subject.aim_at_leader()?;
        Ok(subject)
    }

    /// `curia native`, `etcd http`: for tables and histogram tags.
    pub fn label(&self) -> String {
        format!("{} {}", self.cluster.product().name(), self.protocol.name())
    }

    /// The cluster.
    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// What was acknowledged.
    pub fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Uses another protocol from now on, on the same data.
    pub fn switch(&mut self, protocol: Protocol) -> Result<()> {
        self.load = new_load(&self.cluster, protocol)?;
        self.protocol = protocol;
        self.aim_at_leader().map(|_| ())
    }

    /// Sends to the leader from now on, and returns its position.
    pub fn aim_at_leader(&mut self) -> Result<usize> {
        let leader = self.cluster.wait_ready()?;
        self.load.aim(&[leader]);
        Ok(leader)
    }

    /// Sends to all these servers in turn from now on.
    pub fn aim(&mut self, positions: &[usize]) {
        self.load.aim(positions);
    }

    /// Runs load without measuring what it costs the servers.
    pub fn drive(&mut self, rung: &Rung, watch: &mut dyn Watch) -> Result<Outcome> {
        self.load.run(rung, &mut self.ledger, watch)
    }

    /// Runs one slice and measures what it cost.
    pub fn measure(&mut self, rung: &Rung, watch: &mut dyn Watch) -> Result<Slice> {
        let before = Counters::before(&self.cluster, &self.volume)?;
        let outcome = self.load.run(rung, &mut self.ledger, watch)?;
        self.cluster.check_alive()?;
        let cost = Counters::after(&self.cluster, &self.volume)?.since(&before);
        Ok(Slice {
            outcome,
            cost: Some(cost),
        })
    }

    /// Writes every key once. Failures are an error: a fill has to be whole.
    pub fn fill(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        self.ledger.start_fill();
        let rung = Rung {
            op: Op::Put,
            consistency: Consistency::Default,
            in_flight: FILL_IN_FLIGHT,
            until: Until::Requests(u64::MAX),
        };
        let outcome = self.load.run(&rung, &mut self.ledger, watch);
        self.ledger.end_fill();
        let outcome = outcome?;
        if outcome.failed() > 0 {
            let what = format!("writing the first keys failed: {:?}", outcome.errors);
            return Err(self.cluster.failure(&what));
        }
        Ok(outcome)
    }

    /// Writes for `seconds` before anything is measured.
    pub fn warm_up(&mut self, rung: &Rung, seconds: f64) -> Result<()> {
        if seconds > 0.0 {
            let until = Until::Time(Duration::from_secs_f64(seconds));
            self.drive(&Rung { until, ..*rung }, &mut Unwatched)?;
        }
        Ok(())
    }

    /// Reads every acknowledged key back, exactly (`consistent`), through one server. Returns how
    /// many were found; a lost, damaged or invented value is [`Error::Violation`].
    pub fn verify(&mut self, through: usize) -> Result<u64> {
        self.check(through, Consistency::Consistent)
    }

    /// Waits until the server's own copy (`stale`) holds everything acknowledged.
    pub fn verify_own_copy(&mut self, of: usize) -> Result<u64> {
        let deadline = Instant::now() + CATCH_UP_MAX;
        loop {
            match self.check(of, Consistency::Stale) {
                Err(Error::Violation(_)) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                other => return other,
            }
        }
    }

    fn check(&mut self, through: usize, consistency: Consistency) -> Result<u64> {
        let address = self.cluster.http_addresses()[through];
        let mut connection = http::Connection::open(address, CHECK_TIMEOUT)?;
        let keys: Vec<u32> = self.ledger.keys_to_find().collect();
        let mut requests = BytesMut::new();
        let mut name = Vec::new();
        for keys in keys.chunks(CHECK_AT_ONCE) {
            requests.clear();
            for key in keys {
                name.clear();
                self.ledger.key(*key, &mut name);
                read_request(
                    self.cluster.product(),
                    address,
                    &name,
                    consistency,
                    &mut requests,
                );
            }
            let answers = connection.exchange_many(&requests, keys.len())?;
            for (key, answer) in keys.iter().zip(answers) {
                let found = read_answer(self.cluster.product(), &answer).map_err(|e| {
                    self.cluster
                        .failure(&format!("{address}: reading back: {e}"))
                })?;
                self.ledger
                    .check(*key, found.as_deref())
                    .map_err(|why| Error::Violation(format!("read through {address}: {why}")))?;
            }
        }
        Ok(keys.len() as u64)
    }
}

/// Where a subject runs.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Parent of the data directories.
    pub data_dir: &'a Path,
    /// Address block.
    pub network: [u8; 3],
    /// Leave the data behind.
    pub keep_data: bool,
}

fn new_load(cluster: &Cluster, protocol: Protocol) -> Result<Box<dyn Load>> {
    let at = |port| cluster.nodes().iter().map(|node| node.at(port)).collect();
    let http = cluster.http_addresses();
    Ok(match (cluster.product(), protocol) {
        (Product::Curia(_), Protocol::Native) => {
            Box::new(Mux::new(Frames, at(curia::SERVER_PORT))?)
        }
        (Product::Curia(_), Protocol::Http) => Box::new(Mux::new(Http(curia::KvDialect), http)?),
        (Product::Etcd(_), Protocol::Native) => {
            Box::new(Mux::new(EtcdGrpc, at(etcd::CLIENT_PORT))?)
        }
        (Product::Etcd(_), Protocol::Http) => Box::new(Mux::new(Http(etcd::GatewayDialect), http)?),
    })
}

fn read_request(
    product: &Product,
    host: SocketAddr,
    key: &[u8],
    consistency: Consistency,
    out: &mut BytesMut,
) {
    use crate::load::Dialect;
    match product {
        Product::Curia(_) => {
            let mode = match consistency {
                Consistency::Default => "",
                Consistency::Consistent => "&consistent",
                Consistency::Stale => "&stale",
            };
            let key = String::from_utf8_lossy(key);
            out.extend_from_slice(&http::get(&format!("/v1/kv/{key}?raw{mode}"), host));
        }
        Product::Etcd(_) => etcd::GatewayDialect.get(host, key, consistency, out),
    }
}

fn read_answer(
    product: &Product,
    answer: &http::Response,
) -> std::result::Result<Option<Vec<u8>>, String> {
    match (product, answer.status) {
        (Product::Curia(_), 200) => Ok(Some(answer.body.clone())),
        (Product::Curia(_), 404) => Ok(None),
        (Product::Etcd(_), 200) => Ok(etcd::value_of(&answer.body)),
        (_, status) => Err(format!(
            "{status} {}",
            String::from_utf8_lossy(&answer.body)
        )),
    }
}
