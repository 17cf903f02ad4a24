//! What can happen to an executor, and what can it ask for?

use bytes::Bytes;
use wire::{
    ClusterStatus, EntriesChunk, EntriesFetch, Failure, FailureKind, ImageChunk, ImageFetch, Index,
    Lsn, Query, RaftEnvelope, ServerId, ShardId, Term,
};

use super::history::Changes;
use crate::{
    consensus::{Configuration, Outgoing},
    fsm::TxnOutcome,
    io::{FileDone, FileOp, LogDone, LogOp},
    state::{KvKeys, KvList, KvRow},
};

/// The shell's name for a request that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a client may ask of a shard.
#[derive(Debug)]
pub enum Request {
    /// An encoded command.
    Write(Bytes),
    /// A read.
    Read(Query),
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A request arrived; it is answered exactly once.
    Request {
        /// Who waits.
        ticket: Ticket,
        /// Which shard.
        shard: ShardId,
        /// For what.
        request: Request,
    },
    /// Nobody waits any longer for the answers to these reads: their places are free.
    Cancel {
        /// Which shard they were asked of.
        shard: ShardId,
        /// Their names; answered ones among them are passed over.
        tickets: Vec<Ticket>,
    },
    /// Raft messages arrived.
    Peer {
        /// From whom.
        from: ServerId,
        /// For which shard.
        shard: ShardId,
        /// The messages.
        messages: Vec<RaftEnvelope>,
    },
    /// The connection to a peer broke.
    PeerDown {
        /// Which.
        server: ServerId,
    },
    /// A log operation ended.
    Log(LogDone),
    /// A background file operation ended.
    File(FileDone),
    /// A peer wants a piece of an image.
    ImageFetch {
        /// Who.
        from: ServerId,
        /// Of which shard.
        shard: ShardId,
        /// Which piece.
        fetch: ImageFetch,
    },
    /// A piece of an image arrived.
    ImageChunk {
        /// From whom.
        from: ServerId,
        /// Of which shard.
        shard: ShardId,
        /// What it is.
        chunk: ImageChunk,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A peer lost entries and asks for them.
    EntriesFetch {
        /// Who.
        from: ServerId,
        /// Of which shard.
        shard: ShardId,
        /// Which.
        fetch: EntriesFetch,
    },
    /// Entries that this server lost arrived, or a peer's word that it has none to give.
    EntriesChunk {
        /// From whom.
        from: ServerId,
        /// Of which shard.
        shard: ShardId,
        /// The entries.
        chunk: EntriesChunk,
    },
    /// Other bounds for compaction from now on.
    Compaction(CompactionBounds),
    /// Time may have passed. (Every turn looks at the clock; this only makes one happen.)
    Wake,
    /// Nothing else is under way on this executor.
    Rest,
    /// The server is stopping: answer what waits, mark the log's tail durable.
    Shutdown,
}

/// Bounds of compaction that may change while the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionBounds {
    /// Entries applied since the last image that call for a new one at the next look.
    pub threshold_entries: u64,
    /// Between two looks, ns. The next one comes at once.
    pub interval_ns: u64,
    /// Entries kept in memory behind an image, at most.
    pub trailing_entries_max: u64,
}

/// What a read found.
#[derive(Debug)]
pub struct ReadAnswer {
    /// `X-Consul-Index`.
    pub index: Index,
    /// `X-Consul-KnownLeader`.
    pub known_leader: bool,
    /// `X-Consul-LastContact`, ms.
    pub last_contact_ms: u64,
    /// What.
    pub body: ReadBody,
}

/// What was read.
#[derive(Debug)]
pub enum ReadBody {
    /// One key.
    Row(Option<KvRow>),
    /// A listing, as a cursor over one point in time.
    List(KvList),
    /// Key names, likewise.
    Keys(KvKeys),
    /// The cluster.
    Status(ClusterStatus),
    /// A transaction that only reads.
    Txn(TxnOutcome),
    /// The JSON answer to a question about records.
    Document(Bytes),
    /// What a watch is told.
    Changes(Changes),
}

/// Answer to a request.
#[derive(Debug)]
pub enum Reply {
    /// A write was committed and applied.
    Written {
        /// Whether it took effect (cas and the like).
        ok: bool,
        /// Its index.
        index: Index,
    },
    /// A transaction was committed and applied, or all of it refused.
    Txn {
        /// Its index.
        index: Index,
        /// What it came to.
        outcome: Box<TxnOutcome>,
    },
    /// A command was committed and applied, and has more to say than a word.
    Document {
        /// Its index.
        index: Index,
        /// What it says.
        json: Bytes,
    },
    /// A read.
    Read(ReadAnswer),
}

/// An answer that may go out.
#[derive(Debug)]
pub struct Answered {
    /// To whom.
    pub ticket: Ticket,
    /// What.
    pub result: Result<Reply, Failure>,
    /// Answered under the leader's lease: the shell reads the clock once more, and when this
    /// moment has passed asks again as a `consistent` read instead.
    pub lease_until_ns: Option<u64>,
}

/// Something for the shell to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// This server leads the shard, or no more.
    Leader {
        /// The shard.
        shard: ShardId,
        /// Whether it leads now.
        leads: bool,
    },
    /// The peer set changed.
    Configuration(Configuration),
    /// A line for the operator's log.
    Warn(String),
    /// Likewise.
    Info(String),
}

/// Everything a turn asks for.
#[derive(Debug, Default)]
pub struct Effects {
    /// Log writes and the like, to be submitted together.
    pub log: Vec<LogOp>,
    /// Background file work, in order.
    pub files: Vec<FileOp>,
    /// Raft messages, by peer and shard in order.
    pub raft: Vec<(ServerId, ShardId, RaftEnvelope)>,
    /// Image and repair traffic.
    pub transfers: Vec<(ServerId, ShardId, Transfer)>,
    /// Answers.
    pub answers: Vec<Answered>,
    /// Notices.
    pub notices: Vec<Notice>,
    /// The server cannot go on: say this and stop.
    pub fatal: Option<String>,
    /// There is more to do at once: another turn is due when the executor has looked around.
    pub again: bool,
    /// What the turn decided, for whoever looks on (the simulator); kept only where it is `Some`.
    pub trace: Option<Box<Trace>>,
}

/// What turns decided, as nobody but an onlooker needs to know it: a checker compares it among
/// servers. A server that nobody watches pays one branch for each proposed batch and applied run.
#[derive(Debug, Default)]
pub struct Trace {
    /// Requests that were given a place in the log, and at which term.
    pub proposed: Vec<(ShardId, Ticket, Index, Term)>,
    /// Entries that were applied, in order.
    pub applied: Vec<(ShardId, Index, Term, Bytes)>,
    /// States that were replaced by an image as of this index.
    pub installed: Vec<(ShardId, Index)>,
}

/// Image and repair messages.
#[derive(Debug)]
pub enum Transfer {
    /// Asks for a piece of an image.
    ImageFetch(ImageFetch),
    /// A piece of an image.
    ImageChunk(ImageChunk, Bytes),
    /// Lost entries.
    EntriesChunk(EntriesChunk),
}

impl Effects {
    /// Lets a raft message leave. What it promises must be durable already; this is asserted here,
    /// at the door, as well as where the decision is made.
    pub fn send(&mut self, shard: ShardId, outgoing: Outgoing, durable: Lsn) {
        assert!(
            outgoing.requires <= durable,
            "a message that needs batch {} would leave while only {} is durable",
            outgoing.requires,
            durable
        );
        self.raft.push((outgoing.to, shard, outgoing.envelope));
    }

    /// Refuses a request, or says that its outcome is unknown.
    pub fn fail(&mut self, ticket: Ticket, failure: Failure) {
        self.answers.push(Answered {
            ticket,
            result: Err(failure),
            lease_until_ns: None,
        });
    }

    /// Answers a read.
    pub fn read(&mut self, ticket: Ticket, answer: ReadAnswer, lease_until_ns: Option<u64>) {
        self.answers.push(Answered {
            ticket,
            result: Ok(Reply::Read(answer)),
            lease_until_ns,
        });
    }
}

/// A failure with its message, nothing else.
pub fn failure(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure {
        kind,
        message: message.into(),
        leader: String::new(),
        retry_after_ms: 0,
    }
}
