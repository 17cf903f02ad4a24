//! What happens on the server port?
//!
//! The first frame says who is there: a *probe* (a server that looks for its cluster), a *peer*
//! (another server's link) or a *client*. Anything malformed ends the one connection it came on,
//! with a reason where the protocol still allows one, and touches nobody else.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use futures_lite::{AsyncReadExt, FutureExt};
use glommio::timer::sleep;
use socket2::Socket;
use wire::{
    Bootstrap, BootstrapAnswer, Credit, EntriesChunk, EntriesFetch, FLAG_NO_FORWARD, Failure,
    FailureKind, Frame, FrameDecoder, FrameKind, Hello, ImageChunk, ImageFetch, Index, Query,
    ReplyBody, RequestId, Role, ServerId, decode_raft_frame, limits,
};

use super::{
    admission::{Admission, Permit},
    answer::{NativeAsker, OutboxSink, over_bounds, plain},
    cancels::{Cancels, Entered},
    dial::frame,
    links::Introduce,
    pipe::Outbox,
    places::{CLIENTS_MAX, Place, Places, STRANGERS_MAX},
    router::Router,
    shell::{Asker, Shell},
    stream::Stream,
    throttle::{Throttle, left_out},
    window::{Window, Windows, may_be_long},
};
use crate::fsm::records;
use crate::shard::{Event, Request, failure};

/// How long a new connection may take to introduce itself, and a probe to propose something.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers that a client does not read, beyond which its connection is closed, bytes.
const CLIENT_OUTBOX_BYTES_MAX: usize = 16 << 20;
/// Between two lines of log about connections that were refused.
const REFUSALS_PAUSE: Duration = Duration::from_secs(1);
/// Why native clients are refused where ACLs are on.
const NO_TOKENS: &str = "Permission denied: this server has ACLs enabled (acl.enabled), and the \
    native protocol has no tokens yet; use the HTTP API";
/// Handles on a client's write half that the connection itself has: its task's, its [`Asks`]' and its
/// place's. (Unless they are left out of the count, an idle client that closed its sending side is
/// kept for the whole of [`HALF_CLOSED_PATIENCE`].)
const OWN_HANDLES: usize = 3;
/// How long a client that closed its sending side may wait for its answers.
const HALF_CLOSED_PATIENCE: Duration = Duration::from_secs(30);

/// What a server is at present.
#[derive(Clone)]
pub enum Phase {
    /// It has no cluster yet: probes are answered, proposals judged.
    Forming(Rc<dyn FormingDesk>),
    /// The first executor's log is being repaired: its clients are refused. What peers send goes
    /// to the shards' executors, of which the others may serve.
    Repairing(Router),
    /// It serves.
    Serving(Serving),
    /// It is stopping.
    Stopping,
}

/// What a serving executor's connections use.
#[derive(Clone)]
pub struct Serving {
    /// The executor.
    pub shell: Rc<Shell>,
    /// The way into the cluster.
    pub router: Router,
    /// The door.
    pub admission: Admission,
    /// Whether ACLs are on: then native clients, who show no token, are refused.
    pub acl: bool,
}

/// Where proposals to form a cluster are judged.
pub trait FormingDesk {
    /// Another empty server introduced itself.
    fn seen(&self, hello: &Hello);
    /// Whether this server joins the proposed cluster. The promise holds until `released`.
    fn propose(&self, proposal: &Bootstrap) -> BootstrapAnswer;
    /// The cluster was formed as promised.
    fn commit(&self, decision: Bootstrap);
    /// The proposer's connection ended.
    fn released(&self, proposal: &Bootstrap);
}

/// The server port of one executor.
pub struct Port {
    phase: RefCell<Phase>,
    introduce: Introduce,
    places: Rc<Places<Rc<Outbox>>>,
    refusals: Throttle,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Wire(#[from] wire::WireError),
    #[error("{0}")]
    Refused(String),
    /// A server that knows already of the cluster that this one is about to learn of.
    #[error("{0}")]
    Forming(String),
    #[error("no introduction in time")]
    Late,
}

impl Port {
    /// A port in its first phase.
    pub fn new(phase: Phase, introduce: Introduce) -> Rc<Self> {
        Rc::new(Self {
            phase: RefCell::new(phase),
            introduce,
            places: Places::new(),
            refusals: Throttle::new(REFUSALS_PAUSE),
        })
    }

    /// Changes the phase for connections to come and for what arrives on those that are.
    pub fn enter(&self, phase: Phase) {
        *self.phase.borrow_mut() = phase;
    }

    fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Serves one accepted connection until it ends.
    pub async fn serve(self: Rc<Self>, socket: Socket) {
        let peer = socket.peer_addr().ok().and_then(|a| a.as_socket());
        let Err(end) = self.converse(socket).await else {
            return;
        };
        let peer = peer.map_or_else(|| "?".to_owned(), |p| p.to_string());
        match end {
            // They come and go.
            End::Io(_) => {}
            End::Forming(_) => {
                log::debug!(target: "agent.server.rpc", "connection refused: from={peer} error={end}");
            }
            End::Wire(_) | End::Refused(_) | End::Late => {
                if let Some(others) = self.refusals.speak(Instant::now()) {
                    log::warn!(
                        target: "agent.server.rpc",
                        "connection refused: from={peer} error={end}{}",
                        left_out(others)
                    );
                }
            }
        }
    }

    /// A place among the strangers.
    fn admit(&self, outbox: &Rc<Outbox>) -> Place<Rc<Outbox>> {
        let (place, evicted) = self.places.arrive(Rc::clone(outbox));
        if let Some(evicted) = evicted {
            evicted.connection.close();
            if evicted.first {
                log::warn!(
                    target: "agent.server.rpc",
                    "more than {STRANGERS_MAX} connections that have not introduced themselves: \
                     the oldest are closed"
                );
            }
        }
        place
    }

    async fn converse(&self, socket: Socket) -> Result<(), End> {
        socket.set_tcp_nodelay(true)?;
        let outbox = Outbox::new(&socket, CLIENT_OUTBOX_BYTES_MAX)?;
        let mut stream = Stream::new(socket)?;
        // A client may not send more than a client; a peer's link is told apart by its Hello.
        let mut decoder = FrameDecoder::new(limits::FRAME_BYTES_MAX);
        let mut place = self.admit(&outbox);
        let Some(first) = next_in_time(&mut stream, &mut decoder).await? else {
            return Ok(());
        };
        if first.kind != FrameKind::Hello {
            return Err(End::Refused(format!(
                "the first frame is {:?}, not Hello",
                first.kind
            )));
        }
        let hello = Hello::decode(&first.payload)?;
        let mut answer = (self.introduce)();
        answer.role = hello.role;
        push(&outbox, &frame(FrameKind::Hello, answer.encode()));
        outbox.flush();
        if hello.protocol != limits::PROTOCOL_VERSION {
            return Err(End::Refused(format!(
                "protocol version {} is not supported (this build speaks {})",
                hello.protocol,
                limits::PROTOCOL_VERSION
            )));
        }
        let asks = Asks {
            outbox: Rc::clone(&outbox),
            waiting: Cancels::default(),
            windows: (hello.role == Role::Peer).then(Windows::new),
        };
        let result = match hello.role {
            Role::Probe => {
                self.probe(&hello, &mut stream, &mut decoder, &outbox, &mut place)
                    .await
            }
            Role::Peer => {
                self.peer(
                    &hello,
                    &answer,
                    &mut stream,
                    &mut decoder,
                    &asks,
                    &mut place,
                )
                .await
            }
            Role::Client => {
                self.client(&mut stream, &mut decoder, &asks, &mut place)
                    .await
            }
        };
        asks.waiting.cancel_all();
        outbox.close();
        result
    }

    async fn probe(
        &self,
        hello: &Hello,
        stream: &mut Stream,
        decoder: &mut FrameDecoder,
        outbox: &Rc<Outbox>,
        place: &mut Place<Rc<Outbox>>,
    ) -> Result<(), End> {
        if let Phase::Forming(desk) = self.phase() {
            desk.seen(hello);
        }
        let mut promised = None;
        let result = self
            .judge_proposals(stream, decoder, outbox, place, &mut promised)
            .await;
        if let Some((desk, proposal)) = promised {
            desk.released(&proposal);
        }
        result
    }

    /// Answers proposals until the connection ends. What is left in `promised` was not decided.
    async fn judge_proposals(
        &self,
        stream: &mut Stream,
        decoder: &mut FrameDecoder,
        outbox: &Rc<Outbox>,
        place: &mut Place<Rc<Outbox>>,
        promised: &mut Option<(Rc<dyn FormingDesk>, Bootstrap)>,
    ) -> Result<(), End> {
        loop {
            // A proposer has as long as it takes to make its cluster durable; others have seen all
            // that there is to see.
            let frame = match promised {
                Some(_) => next(stream, decoder).await?,
                None => match next_in_time(stream, decoder).await {
                    Err(End::Late) => return Ok(()),
                    other => other?,
                },
            };
            let Some(frame) = frame else {
                return Ok(());
            };
            let phase = self.phase();
            match (frame.kind, phase) {
                (FrameKind::BootstrapPropose, Phase::Forming(desk)) => {
                    let proposal = Bootstrap::decode(&frame.payload)?;
                    let answer = desk.propose(&proposal);
                    if answer.accepted {
                        *promised = Some((desk, proposal));
                        place.trusted();
                    }
                    push(
                        outbox,
                        &super::dial::frame(FrameKind::BootstrapAnswer, answer.encode()),
                    );
                    outbox.flush();
                }
                (FrameKind::BootstrapPropose, _) => {
                    let reason = "this server already has a cluster".to_owned();
                    let answer = BootstrapAnswer {
                        accepted: false,
                        reason,
                    };
                    push(
                        outbox,
                        &super::dial::frame(FrameKind::BootstrapAnswer, answer.encode()),
                    );
                    outbox.flush();
                }
                (FrameKind::BootstrapCommit, Phase::Forming(_)) => {
                    let decision = Bootstrap::decode(&frame.payload)?;
                    match promised.take() {
                        Some((desk, proposal)) if proposal == decision => desk.commit(decision),
                        _ => {
                            return Err(End::Refused(
                                "a decision that was not proposed here".to_owned(),
                            ));
                        }
                    }
                }
                (FrameKind::BootstrapCommit, _) => {}
                (other, _) => return Err(unexpected(other, "probe")),
            }
        }
    }

    async fn peer(
        &self,
        hello: &Hello,
        own: &Hello,
        stream: &mut Stream,
        decoder: &mut FrameDecoder,
        asks: &Asks,
        place: &mut Place<Rc<Outbox>>,
    ) -> Result<(), End> {
        if own.cluster_id.is_nil() {
            let (name, cluster) = (&hello.name, hello.cluster_id);
            let why =
                format!("server {name} is of cluster {cluster} already, this one of none yet");
            return Err(End::Forming(why));
        }
        if hello.cluster_id != own.cluster_id {
            return Err(End::Refused(format!(
                "server {} at {} is of cluster {}, this one of {}",
                hello.name, hello.address, hello.cluster_id, own.cluster_id
            )));
        }
        if !own
            .members
            .iter()
            .any(|member| member.raft_id == hello.raft_id)
        {
            return Err(End::Refused(format!(
                "server {} at {} (raft id {}) is not in the peer set; was its data directory wiped?",
                hello.name, hello.address, hello.raft_id
            )));
        }
        if let Some(oldest) = place.peer(hello.raft_id) {
            oldest.close();
        }
        while let Some(frame) = next(stream, decoder).await? {
            if frame.kind == FrameKind::Credit {
                let credit = Credit::decode(&frame.payload)?;
                asks.credit(frame.request, credit.pieces as usize);
                continue;
            }
            let is_request = matches!(frame.kind, FrameKind::Propose | FrameKind::Query);
            match self.phase() {
                Phase::Serving(serving) if is_request => request(&serving, &frame, asks)?,
                phase @ Phase::Repairing(_) if is_request => {
                    asks.refuse(&frame, failure(FailureKind::NotMember, not_serving(&phase)));
                }
                Phase::Serving(Serving { router, .. }) | Phase::Repairing(router) => {
                    peer_frame(&router, hello.raft_id, frame)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn client(
        &self,
        stream: &mut Stream,
        decoder: &mut FrameDecoder,
        asks: &Asks,
        place: &mut Place<Rc<Outbox>>,
    ) -> Result<(), End> {
        if let Err(full) = place.client() {
            if full.first {
                log::warn!(
                    target: "agent.server.rpc",
                    "more than {CLIENTS_MAX} native clients are connected: further ones are refused"
                );
            }
            return turn_away(stream, decoder, &asks.outbox).await;
        }
        while let Some(frame) = next_limited(stream, decoder).await? {
            if frame.kind == FrameKind::Cancel {
                asks.waiting.cancel(&frame.request);
                continue;
            }
            let phase = self.phase();
            let Phase::Serving(serving) = phase else {
                asks.refuse(&frame, failure(FailureKind::NotMember, not_serving(&phase)));
                continue;
            };
            if serving.acl {
                asks.refuse(&frame, failure(FailureKind::Invalid, NO_TOKENS));
                continue;
            }
            request(&serving, &frame, asks)?;
        }
        // A client that is gone looks the same as one that has only closed its sending side. It
        // gets the answers that are under way, and waits for no change.
        asks.waiting.cancel_all();
        asks.outbox.drained(OWN_HANDLES, HALF_CLOSED_PATIENCE).await;
        Ok(())
    }
}

/// Why a server that has no cluster, or is repairing its log, serves nothing.
pub fn not_serving(phase: &Phase) -> &'static str {
    match phase {
        Phase::Forming(_) => {
            "this server is not in the peer set of any cluster; it serves nothing until its cluster has formed"
        }
        Phase::Repairing(_) => super::repair::REFUSAL,
        Phase::Stopping => "this server is shutting down",
        Phase::Serving(_) => "",
    }
}

fn peer_frame(router: &Router, from: ServerId, frame: Frame) -> Result<(), End> {
    let shard = frame.shard;
    match frame.kind {
        FrameKind::Raft => {
            let messages = decode_raft_frame(&frame.payload, &frame.blob)?;
            router.to_shard(
                shard,
                Event::Peer {
                    from,
                    shard,
                    messages,
                },
            );
        }
        FrameKind::ImageFetch => {
            let fetch = ImageFetch::decode(&frame.payload)?;
            router.to_shard(shard, Event::ImageFetch { from, shard, fetch });
        }
        FrameKind::ImageChunk => {
            let chunk = ImageChunk::decode(&frame.payload)?;
            router.to_shard(
                shard,
                Event::ImageChunk {
                    from,
                    shard,
                    chunk,
                    bytes: frame.blob,
                },
            );
        }
        FrameKind::EntriesFetch => {
            let fetch = EntriesFetch::decode(&frame.payload)?;
            router.to_shard(shard, Event::EntriesFetch { from, shard, fetch });
        }
        FrameKind::EntriesChunk => {
            let chunk = EntriesChunk::decode(&frame.payload, &frame.blob)?;
            router.to_shard(shard, Event::EntriesChunk { from, shard, chunk });
        }
        FrameKind::Event => router.user_event(&frame.blob),
        other => return Err(unexpected(other, "peer")),
    }
    Ok(())
}

/// Where a connection's requests are answered.
struct Asks {
    outbox: Rc<Outbox>,
    /// Its blocking queries.
    waiting: Cancels<RequestId>,
    /// Of another server's connection: how far long answers may be ahead.
    windows: Option<Windows<RequestId>>,
}

impl Asks {
    /// The asker took pieces of an answer, or with 0 wants no more of it.
    fn credit(&self, id: RequestId, pieces: usize) {
        if let Some(windows) = &self.windows {
            windows.credit(id, pieces);
        }
        if pieces == 0 {
            self.waiting.cancel(&id);
        }
    }

    /// The window of a forwarded request, if its answer may be long.
    fn window(&self, request: &Request, frame: &Frame) -> Option<Window<RequestId>> {
        match (request, &self.windows) {
            (Request::Read(query), Some(windows))
                if may_be_long(query) && frame.flags & FLAG_NO_FORWARD != 0 =>
            {
                windows.open(frame.request)
            }
            _ => None,
        }
    }

    fn refuse(&self, frame: &Frame, why: Failure) {
        refuse(&self.outbox, frame, why);
        self.outbox.flush();
    }

    /// A place for a blocking query; none for another request.
    fn enter(
        &self,
        request: &Request,
        id: RequestId,
    ) -> Result<Option<Entered<RequestId>>, Failure> {
        match request {
            Request::Read(query) if query.waits() => match self.waiting.enter(id) {
                Some(entered) => Ok(Some(entered)),
                None => Err(failure(
                    FailureKind::Invalid,
                    format!("request {id} still waits; another needs an id of its own"),
                )),
            },
            _ => Ok(None),
        }
    }
}

/// Takes a request of a native client or a forwarding server.
fn request(serving: &Serving, frame: &Frame, asks: &Asks) -> Result<(), End> {
    if let Some(windows) = &asks.windows
        && windows.is_open(frame.request)
    {
        let twice = format!("request {} is under way already", frame.request);
        return Err(End::Refused(twice));
    }
    if let Err(why) = admit(serving, frame, asks) {
        asks.refuse(frame, why);
    }
    Ok(())
}

fn admit(serving: &Serving, frame: &Frame, asks: &Asks) -> Result<(), Failure> {
    let admission = &serving.admission;
    let mut permit = admission
        .enter(frame.payload.len())
        .map_err(|what| over_bounds(&format!("{what} in flight")))?;
    let request = parse(frame).map_err(|error| failure(FailureKind::Invalid, error.to_string()))?;
    let (shard, id) = (frame.shard, frame.request);
    if shard.0 >= serving.router.shards() {
        let why = format!("there is no shard {shard}");
        return Err(failure(FailureKind::Invalid, why));
    }
    serving.router.check_placement(shard, &request)?;
    let window = asks.window(&request, frame);
    let waiting = asks.enter(&request, id)?;
    if waiting.is_some() {
        permit = permit.waits().map_err(over_bounds)?;
    }
    let here = serving.router.leads_here(shard);
    let stale = matches!(&request, Request::Read(query) if query.mode == wire::ReadMode::Stale);
    if serving.router.is_here(shard) && (here || stale || frame.flags & FLAG_NO_FORWARD != 0) {
        let waits = waiting.is_some();
        let asker = NativeAsker {
            outbox: Rc::clone(&asks.outbox),
            request: id,
            shard,
            window,
            _permit: permit,
            _waiting: waiting,
        };
        let ticket = serving.shell.ask(shard, request, Asker::Native(asker));
        if waits {
            let shell = Rc::clone(&serving.shell);
            let cancel = move || shell.cancel(shard, vec![ticket]);
            asks.waiting.on_cancel(&id, cancel);
        }
        return Ok(());
    }
    let sink = OutboxSink {
        outbox: Rc::clone(&asks.outbox),
        shard,
        request: id,
        window,
    };
    let forward = forward(serving.router.clone(), request, sink, permit);
    match waiting {
        Some(waiting) => glommio::spawn_local(waiting.or_cancelled(forward)).detach(),
        None => glommio::spawn_local(forward).detach(),
    };
    Ok(())
}

async fn forward(router: Router, request: Request, sink: OutboxSink, permit: Permit) {
    let request = match request {
        // It may wait for minutes, and must not keep its frame alive that long.
        Request::Read(query) if query.waits() => Request::Read(query.detached()),
        request => request,
    };
    router.relay(sink.shard, request, &sink).await;
    drop(permit);
}

fn parse(frame: &Frame) -> Result<Request, wire::WireError> {
    match frame.kind {
        FrameKind::Propose => {
            // Verified once, here; what follows trusts the bytes.
            records::check(&frame.payload)?;
            Ok(Request::Write(frame.payload.clone()))
        }
        FrameKind::Query => Ok(Request::Read(Query::decode(&frame.payload)?)),
        other => Err(wire::WireError::Kind(other as u8)),
    }
}

fn refuse(outbox: &Rc<Outbox>, frame: &Frame, why: wire::Failure) {
    let reply = plain(Index(0), ReplyBody::Failed(why));
    if outbox
        .push(|out| reply.encode_frame(frame.shard, frame.request, out))
        .is_err()
    {
        outbox.close();
    }
}

fn push(outbox: &Rc<Outbox>, frame: &Frame) {
    if outbox.push(|out| frame.encode(out)).is_err() {
        outbox.close();
    }
}

fn unexpected(kind: FrameKind, role: &str) -> End {
    End::Refused(format!("a {role} does not send {kind:?} frames"))
}

async fn next(stream: &mut Stream, decoder: &mut FrameDecoder) -> Result<Option<Frame>, End> {
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return Ok(Some(frame));
        }
        let read = stream.read(decoder.space()).await?;
        if read == 0 {
            return Ok(None);
        }
        decoder.received(read);
    }
}

/// The next frame of a connection that may not be silent.
async fn next_in_time(
    stream: &mut Stream,
    decoder: &mut FrameDecoder,
) -> Result<Option<Frame>, End> {
    let late = async {
        sleep(HELLO_TIMEOUT).await;
        Err(End::Late)
    };
    next(stream, decoder).or(late).await
}

/// Tells a client that there are too many of them, whatever it asks. It is still among the
/// strangers, and does not stay.
async fn turn_away(
    stream: &mut Stream,
    decoder: &mut FrameDecoder,
    outbox: &Rc<Outbox>,
) -> Result<(), End> {
    let why = over_bounds("native clients");
    let answer = async {
        while let Some(frame) = next_limited(stream, decoder).await? {
            refuse(outbox, &frame, why.clone());
            outbox.flush();
        }
        Ok(())
    };
    let enough = async {
        sleep(HELLO_TIMEOUT).await;
        Ok(())
    };
    answer.or(enough).await
}

async fn next_limited(
    stream: &mut Stream,
    decoder: &mut FrameDecoder,
) -> Result<Option<Frame>, End> {
    match next(stream, decoder).await? {
        Some(frame) if frame.payload.len() + frame.blob.len() > limits::CLIENT_FRAME_BYTES_MAX => {
            Err(End::Wire(wire::WireError::TooLarge {
                what: "client frame",
                found: (frame.payload.len() + frame.blob.len()) as u64,
                max: limits::CLIENT_FRAME_BYTES_MAX as u64,
            }))
        }
        other => Ok(other),
    }
}
