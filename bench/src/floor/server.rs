//! One server of the floor: what is the least that a leader and a follower must do?
//!
//! A follower with several messages waiting makes them durable with one write and answers once,
//! for the last. The leader's own write is made by the thread that also sends and collects: a
//! second thread would have to be woken, which costs more than it hides, since followers need
//! at least as long.
//!
//! Invariant: `Done` for a round leaves only after a quorum, the leader or not, has it durable.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::serialization::{Serializer, V2Serializer};

use super::device::{Device, WRITES_AT_ONCE_MAX};
use super::message::{HEADER_BYTES, Kind, Message};
use crate::quorum::quorum;
use crate::{Context, Error, Result};

/// Arguments of the hidden sub-command.
#[derive(Args, Debug)]
pub struct ServerOptions {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    file: PathBuf,
    #[arg(long)]
    write_bytes: usize,
    #[arg(long)]
    follower: Vec<SocketAddr>,
}

/// Serves one connection to its end. With followers this is the leader.
pub fn serve(options: &ServerOptions) -> Result<()> {
    let device = Device::create(&options.file, options.write_bytes)?;
    let mut followers = Vec::new();
    for address in &options.follower {
        followers.push(Follower::connect(*address, options.listen)?);
    }
    let listener = TcpListener::bind(options.listen).context(|| {
        format!(
            "listen on {} (another bench running there?)",
            options.listen
        )
    })?;
    let (stream, _) = listener.accept().context(|| "accept".into())?;
    stream
        .set_nodelay(true)
        .context(|| "set TCP_NODELAY".into())?;
    // Who accepts a client and who accepts a leader differ only in what they are asked: a
    // cluster of one has no followers and is its own leader.
    let leader = Leader {
        device,
        followers,
        round: 0,
    };
    leader.run(stream)
}

struct Follower {
    stream: TcpStream,
    durable: u64,
    partial: Vec<u8>,
}

impl Follower {
    fn connect(address: SocketAddr, from: SocketAddr) -> Result<Self> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let stream = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(e) if Instant::now() > deadline => {
                    return Err(e).context(|| format!("{from}: connect to follower {address}"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        stream
            .set_nodelay(true)
            .context(|| "set TCP_NODELAY".into())?;
        Ok(Self {
            stream,
            durable: 0,
            partial: Vec::new(),
        })
    }

    /// Takes in the acknowledgements that are there.
    fn receive(&mut self) -> Result<()> {
        let mut chunk = [0; 64 * HEADER_BYTES];
        let n = self
            .stream
            .read(&mut chunk)
            .context(|| "floor: read from a follower".into())?;
        if n == 0 {
            return Err(Error::Server("floor: a follower has gone".into()));
        }
        self.partial.extend_from_slice(&chunk[..n]);
        let whole = self.partial.len() / HEADER_BYTES * HEADER_BYTES;
        for header in self.partial[..whole].chunks_exact(HEADER_BYTES) {
            let (message, _) = Message::parse(header.try_into().expect("a header's length"))?;
            self.durable = self.durable.max(message.number);
        }
        self.partial.drain(..whole);
        Ok(())
    }
}

struct Leader {
    device: Device,
    followers: Vec<Follower>,
    round: u64,
}

impl Leader {
    fn run(mut self, mut stream: TcpStream) -> Result<()> {
        let mut buffer = Vec::new();
        let mut filled = 0;
        loop {
            // All whole messages that are there make one write.
            let mut at = 0;
            let mut waiting = 0;
            let mut last = 0;
            while waiting < WRITES_AT_ONCE_MAX {
                let Some((message, end)) = whole_message(&buffer[at..filled])? else {
                    break;
                };
                let body = &buffer[at + HEADER_BYTES..at + end];
                at += end;
                if message.kind == Kind::Drive {
                    let length = u64::from_le_bytes(body.try_into().unwrap_or_default());
                    self.drive(message.number, length as usize, &mut stream)?;
                    continue;
                }
                waiting += 1;
                last = message.number;
                if !self.followers.is_empty() {
                    let body = body.to_vec();
                    self.send(&body)?;
                }
            }
            if waiting > 0 {
                self.commit(waiting)?;
                let done = Message::new(Kind::Done, last).header(0);
                stream.write_all(&done).context(|| "floor: answer".into())?;
            }
            if at > 0 {
                buffer.copy_within(at..filled, 0);
                filled -= at;
                continue;
            }
            if buffer.len() - filled < 64 << 10 {
                buffer.resize((buffer.len() * 2).max(256 << 10), 0);
            }
            match stream.read(&mut buffer[filled..]) {
                Ok(0) => return Ok(()),
                Ok(n) => filled += n,
                // A leader that ends with our answers unread resets the connection: also an end.
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(e) => return Err(e).context(|| "floor: read".into()),
            }
        }
    }

    fn send(&mut self, body: &[u8]) -> Result<()> {
        self.round += 1;
        for follower in &mut self.followers {
            Message::new(Kind::Round, self.round).send(&mut follower.stream, body)?;
        }
        Ok(())
    }

    /// Writes our own disk, then waits until enough followers have the round as well.
    fn commit(&mut self, writes: usize) -> Result<()> {
        self.device.write(writes)?;
        let needed = quorum(self.followers.len() + 1) - 1;
        loop {
            let have = self
                .followers
                .iter()
                .filter(|f| f.durable >= self.round)
                .count();
            if have >= needed {
                return Ok(());
            }
            let mut polled: Vec<libc::pollfd> = self
                .followers
                .iter()
                .map(|f| libc::pollfd {
                    fd: f.stream.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                })
                .collect();
            // SAFETY: the array is live and its length is passed.
            let n = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) };
            if n < 0 {
                let e = std::io::Error::last_os_error();
                if e.kind() == std::io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(e).context(|| "floor: wait for followers".into());
            }
            for (follower, polled) in self.followers.iter_mut().zip(&polled) {
                if polled.revents != 0 {
                    follower.receive()?;
                }
            }
        }
    }

    fn drive(&mut self, rounds: u64, bytes: usize, client: &mut TcpStream) -> Result<()> {
        let mut histogram = crate::load::new_histogram();
        let body = vec![0x5a; bytes.min(super::message::MESSAGE_BYTES_MAX)];
        for _ in 0..rounds {
            let started = Instant::now();
            self.send(&body)?;
            self.commit(1)?;
            histogram.saturating_record(started.elapsed().as_nanos() as u64);
        }
        let mut bytes = Vec::new();
        V2Serializer::new()
            .serialize(&histogram, &mut bytes)
            .map_err(|e| Error::Server(format!("floor: serialise a histogram: {e}")))?;
        Message::new(Kind::Driven, rounds).send(client, &bytes)
    }
}

/// The message at the start of `bytes` and its whole length, if all of it is there.
fn whole_message(bytes: &[u8]) -> Result<Option<(Message, usize)>> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let (message, length) = Message::parse(header)?;
    let end = HEADER_BYTES + length;
    Ok((bytes.len() >= end).then_some((message, end)))
}
