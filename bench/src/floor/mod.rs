//! How fast could this host commit at all?
//!
//! A durable write in parallel with one round trip to a quorum, and nothing else: no engine code,
//! no log format, no consensus. One process per server, blocking std threads, `TCP_NODELAY`,
//! `pwritev2` with `RWF_DSYNC` and `O_DIRECT` into a file that was written before (so that no
//! write changes metadata). The leader sends to its followers, writes its own disk while they
//! work, and answers once a quorum (itself counted) is durable; followers write, then acknowledge.
//! A follower that fell behind writes all that waits at once, as a real log would.
//!
//! Every cluster latency is printed as a ratio to this, taken in turns in the same run, because
//! hosts drift by a factor of two over minutes.

mod device;
mod message;
mod server;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;

pub use server::{ServerOptions, serve};

use crate::guard::{ChildGuard, Scratch};
use crate::{Context, Error, Result};
use message::{Kind, Message};

/// Port that floor servers listen on, on their own loopback addresses.
const PORT: u16 = 8390;
/// Name of the hidden sub-command that is one floor server.
pub const SERVER_COMMAND: &str = "floor-server";
/// How long the servers may take to write their files and connect.
const START_MAX: Duration = Duration::from_secs(60);

/// What one round costs and carries.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Bytes of each durable write, a multiple of 4096.
    pub write_bytes: usize,
    /// Bytes of the request, and of what goes to each follower.
    pub message_bytes: usize,
}

/// Running floor servers and the connection of their one client.
pub struct Floor {
    client: TcpStream,
    load: Load,
    round: u64,
    servers: Vec<ChildGuard>,
    _scratch: Scratch,
}

impl Floor {
    /// Starts `servers` processes with files under `data_dir` and waits until they are connected.
    pub fn start(servers: usize, network: [u8; 3], data_dir: &Path, load: Load) -> Result<Self> {
        let scratch = Scratch::create(data_dir, "floor", false)?;
        let addresses: Vec<SocketAddr> = (0..servers).map(|i| address(network, i)).collect();
        let own = std::env::current_exe().context(|| "find our own executable".into())?;
        let mut children = Vec::new();
        // Followers first; the leader connects to them before it listens.
        for i in (0..servers).rev() {
            let mut command = Command::new(&own);
            command
                .arg(SERVER_COMMAND)
                .arg(format!("--listen={}", addresses[i]))
                .arg(format!(
                    "--file={}",
                    scratch.path().join(i.to_string()).display()
                ))
                .arg(format!("--write-bytes={}", load.write_bytes))
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            if i == 0 {
                for follower in &addresses[1..] {
                    command.arg(format!("--follower={follower}"));
                }
            }
            let child =
                ChildGuard::spawn(&mut command).context(|| "start a floor server".into())?;
            children.push(child);
        }
        let client = connect(addresses[0], &mut children)?;
        Ok(Self {
            client,
            load,
            round: 0,
            servers: children,
            _scratch: scratch,
        })
    }

    /// Runs `rounds` rounds as a client sees them, one after the other.
    pub fn with_client(&mut self, rounds: u64, into: &mut Histogram<u64>) -> Result<()> {
        let request = vec![0x5a; self.load.message_bytes];
        for _ in 0..rounds {
            self.round += 1;
            let started = Instant::now();
            Message::new(Kind::Round, self.round).send(&mut self.client, &request)?;
            let answer = Message::receive(&mut self.client, &mut Vec::new())?;
            if answer != Message::new(Kind::Done, self.round) {
                return Err(Error::Server(format!(
                    "the floor's leader answered {answer:?}"
                )));
            }
            into.saturating_record(started.elapsed().as_nanos() as u64);
        }
        Ok(())
    }

    /// Runs `rounds` rounds that the leader makes by itself: the same without the client's hop.
    pub fn without_client(&mut self, rounds: u64, into: &mut Histogram<u64>) -> Result<()> {
        let length = (self.load.message_bytes as u64).to_le_bytes();
        Message::new(Kind::Drive, rounds).send(&mut self.client, &length)?;
        let mut bytes = Vec::new();
        Message::receive(&mut self.client, &mut bytes)?;
        let measured: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|e| Error::Server(format!("the floor's leader sent no histogram: {e:?}")))?;
        into.add(&measured)
            .map_err(|e| Error::Server(format!("the floor's histogram does not fit: {e}")))
    }

    /// Process ids of the servers.
    pub fn pids(&self) -> Vec<i32> {
        self.servers.iter().map(ChildGuard::pid).collect()
    }
}

fn address(network: [u8; 3], server: usize) -> SocketAddr {
    let [a, b, c] = network;
    // The upper half of the last byte, so that a measured cluster can run at the same time.
    SocketAddrV4::new(Ipv4Addr::new(a, b, c, 201 + server as u8), PORT).into()
}

fn connect(leader: SocketAddr, children: &mut [ChildGuard]) -> Result<TcpStream> {
    let deadline = Instant::now() + START_MAX;
    loop {
        match TcpStream::connect(leader) {
            Ok(stream) => {
                stream
                    .set_nodelay(true)
                    .context(|| "set TCP_NODELAY".into())?;
                return Ok(stream);
            }
            Err(e) if Instant::now() > deadline => {
                return Err(e).context(|| format!("connect to the floor's leader {leader}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        if let Some(status) = children.iter_mut().find_map(ChildGuard::ended) {
            return Err(Error::Environment(format!(
                "a floor server ended at its start with {status}; its reason is above"
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_servers_and_measured_servers_never_share_an_address() {
        for i in 0..7 {
            let SocketAddr::V4(a) = address([127, 9, 9], i) else {
                panic!("not IPv4")
            };
            assert!(a.ip().is_loopback() && a.ip().octets()[3] > 200);
        }
    }
}
