//! How do empty servers find each other?
//!
//! Every `-retry-join` address is probed again and again; who probes is thereby seen as well.
//! What follows from what was seen is decided in [`crate::cluster::forming`].

use std::{
    cell::{Cell, RefCell},
    net::{SocketAddr, ToSocketAddrs},
    rc::Rc,
    time::{Duration, Instant},
};

use glommio::timer::sleep;
use wire::{Bootstrap, BootstrapAnswer, FrameDecoder, FrameKind, Hello, Role, limits};

use super::{
    config::AgentConfig,
    dial::{DialError, dial, exchange, exchange_hello, frame},
    links::Introduce,
    port::FormingDesk,
    shell::now_ns,
    stream::Stream,
    throttle::Throttle,
};
use crate::cluster::{
    forming::{Own, Promise, Seen, Step},
    identity::random_uuid,
};

/// Between two rounds of probing.
const ROUND: Duration = Duration::from_millis(100);
/// Between two rounds once a cluster was found that does not list this server.
const ROUND_UNLISTED: Duration = Duration::from_secs(2);
/// The same state is said again after so many rounds.
const SAY_AGAIN_ROUNDS: u32 = 100;

/// What this server knows while it has no cluster.
pub struct Desk {
    own: Own,
    seen: RefCell<Seen>,
    promise: RefCell<Promise>,
    decided: RefCell<Option<Bootstrap>>,
}

impl Desk {
    /// A desk for this server.
    pub fn new(own: Own) -> Rc<Self> {
        Rc::new(Self {
            own,
            seen: RefCell::default(),
            promise: RefCell::default(),
            decided: RefCell::default(),
        })
    }
}

impl FormingDesk for Desk {
    fn seen(&self, hello: &Hello) {
        self.seen.borrow_mut().note(hello, now_ns());
    }

    fn propose(&self, proposal: &Bootstrap) -> BootstrapAnswer {
        self.promise.borrow_mut().judge(&self.own, proposal)
    }

    fn commit(&self, decision: Bootstrap) {
        *self.decided.borrow_mut() = Some(decision);
    }

    fn released(&self, proposal: &Bootstrap) {
        if self.decided.borrow().is_none() {
            self.promise.borrow_mut().release(proposal);
        }
    }
}

/// A cluster to be part of, and whom to tell once that is durable.
pub struct Formed {
    /// The cluster.
    pub bootstrap: Bootstrap,
    /// Connections to members that have promised.
    pub promised: Vec<Stream>,
}

impl Formed {
    /// Tells the members: to be called once this server has made the cluster durable.
    pub async fn announce(self) {
        let mut out = bytes::BytesMut::new();
        frame(FrameKind::BootstrapCommit, self.bootstrap.encode()).encode(&mut out);
        for mut stream in self.promised {
            // Who misses it finds this server by probing.
            let _ = futures_lite::AsyncWriteExt::write_all(&mut stream, &out).await;
        }
    }
}

/// Probes until there is a cluster. `not_listed` is told the reason while another cluster exists;
/// an error is a conflict that no waiting resolves.
pub async fn find_cluster(
    config: &AgentConfig,
    desk: &Rc<Desk>,
    introduce: &Introduce,
    stopping: &Cell<bool>,
    not_listed: impl Fn(Option<String>),
) -> Result<Option<Formed>, String> {
    let mut said = String::new();
    let mut rounds = 0u32;
    let complaints = Throttle::for_each(&config.retry_join, config.retry_interval);
    while !stopping.get() {
        probe_all(config, desk, introduce, &complaints).await;
        if let Some(bootstrap) = desk.decided.borrow_mut().take() {
            return Ok(Some(Formed {
                bootstrap,
                promised: Vec::new(),
            }));
        }
        let step = desk.seen.borrow().decide(&desk.own, true, now_ns());
        let mut pause = ROUND;
        let state = match step {
            Step::Adopt(bootstrap) => {
                return Ok(Some(Formed {
                    bootstrap,
                    promised: Vec::new(),
                }));
            }
            Step::Conflict(why) => return Err(why),
            Step::Wait(why) => why,
            Step::NotListed { server, cluster_id } => {
                let why = format!(
                    "this server is not in the peer set of cluster {cluster_id} (found at {server}); it serves nothing until it is added"
                );
                not_listed(Some(why.clone()));
                pause = ROUND_UNLISTED;
                why
            }
            Step::Propose(members) => match propose(config, desk, introduce, members).await {
                Ok(formed) => return Ok(Some(formed)),
                Err(why) => why,
            },
        };
        rounds += 1;
        if state != said || rounds.is_multiple_of(SAY_AGAIN_ROUNDS) {
            log::info!(target: "agent.server", "no cluster yet: {state}");
            said = state;
        }
        sleep(pause).await;
    }
    Ok(None)
}

async fn probe_all(
    config: &AgentConfig,
    desk: &Rc<Desk>,
    introduce: &Introduce,
    complaints: &[Throttle],
) {
    let mut probes = Vec::new();
    for (seed, complaints) in config.retry_join.iter().zip(complaints) {
        for address in resolve(seed, complaints) {
            if address == config.server_advertise {
                continue;
            }
            let (desk, introduce) = (Rc::clone(desk), introduce.clone());
            let bind = config.server_bind.ip();
            probes.push(glommio::spawn_local(async move {
                if let Ok((hello, ..)) = probe(address, bind, &introduce).await {
                    desk.seen(&hello);
                }
            }));
        }
    }
    for probe in probes {
        probe.await;
    }
}

/// The addresses of a seed. That it has none is said once in each `-retry-interval`.
fn resolve(seed: &str, complaints: &Throttle) -> Vec<SocketAddr> {
    match seed.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            if complaints.speak(Instant::now()).is_some() {
                log::warn!(target: "agent.server", "-retry-join={seed}: cannot be resolved: {error}");
            }
            Vec::new()
        }
    }
}

async fn probe(
    address: SocketAddr,
    bind: std::net::IpAddr,
    introduce: &Introduce,
) -> Result<(Hello, Stream, FrameDecoder), DialError> {
    let (_, mut stream) = dial(address, Some(bind)).await?;
    let mut decoder = FrameDecoder::new(limits::FRAME_BYTES_MAX);
    let mut hello = introduce();
    hello.role = Role::Probe;
    let theirs = exchange_hello(&mut stream, &mut decoder, &hello).await?;
    Ok((theirs, stream, decoder))
}

async fn propose(
    config: &AgentConfig,
    desk: &Rc<Desk>,
    introduce: &Introduce,
    members: Vec<wire::Member>,
) -> Result<Formed, String> {
    let bootstrap = Bootstrap {
        cluster_id: random_uuid(),
        shards: desk.own.shards,
        members,
    };
    if !desk.promise.borrow_mut().give(&bootstrap) {
        return Err("promised to another server's proposal".to_owned());
    }
    let result = collect_promises(config, desk, introduce, &bootstrap).await;
    if result.is_err() {
        desk.promise.borrow_mut().release(&bootstrap);
    }
    result.map(|promised| Formed {
        bootstrap,
        promised,
    })
}

async fn collect_promises(
    config: &AgentConfig,
    desk: &Rc<Desk>,
    introduce: &Introduce,
    bootstrap: &Bootstrap,
) -> Result<Vec<Stream>, String> {
    let mut promised = Vec::new();
    for member in bootstrap
        .members
        .iter()
        .filter(|m| m.raft_id != desk.own.member.raft_id)
    {
        let failed =
            |why: String| format!("{} at {} does not join: {why}", member.name, member.address);
        let address: SocketAddr = member
            .address
            .parse()
            .map_err(|_| failed("its address is not ip:port".to_owned()))?;
        let (_, mut stream, mut decoder) = probe(address, config.server_bind.ip(), introduce)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let kind = FrameKind::BootstrapPropose;
        let answer = exchange(&mut stream, &mut decoder, kind, bootstrap.encode())
            .await
            .map_err(|error| failed(error.to_string()))?;
        let answer =
            BootstrapAnswer::decode(&answer.payload).map_err(|error| failed(error.to_string()))?;
        if !answer.accepted {
            return Err(failed(answer.reason));
        }
        promised.push(stream);
    }
    Ok(promised)
}
