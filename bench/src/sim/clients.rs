//! What do clients go through, from a call to its answer?
//!
//! ```text
//!   call ─► ask ─► (a server) ─► heard: answered            the history has the answer
//!            ▲                    heard: refused, try again  nothing happened: asked once more
//!            └────────────────────┘      unknown, cut off    the history has none
//! ```
//!
//! As the production router does, a request that was refused before anything happened is asked
//! again, of another server; one of which nobody knows what became of it never is, unless it is a
//! read. A refusal is a promise too: what was refused must not be in the log at the end.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use engine::shard::{Answered, Reply, Request, Ticket};
use wire::{FailureKind, ReadMode, ShardId};

use super::{
    draw::Draw,
    plan::{MS, Plan},
    recorder::Broken,
    workload::{Client, Mix, Wanted, registration},
    world::{Happening, World},
};
use crate::judge::{Answer, Call, History, Operation, Row};

/// Shortest and longest patience of a client, ns.
const PATIENCE_NS: (u64, u64) = (300 * MS, 1500 * MS);

/// Patience of what must be answered before the rest makes sense, ns.
const LONG_PATIENCE_NS: u64 = 60_000 * MS;

/// What is asked for.
enum Body {
    /// An operation of a client: (client, its number in the history).
    Operation(usize, usize, Wanted),
    /// A command of the simulator's own.
    Command(Bytes),
}

struct Asking {
    shard: u16,
    body: Body,
    /// The request under way.
    ticket: Option<Ticket>,
    aim: usize,
}

/// All clients.
pub struct Clients {
    clients: Vec<Client>,
    mixes: Vec<Mix>,
    draw: Draw,
    asking: BTreeMap<u64, Asking>,
    tickets: HashMap<Ticket, u64>,
    next_ticket: u64,
    next_asking: u64,
    next_client: u32,
    called: u64,
    /// What clients saw, by shard.
    pub histories: Vec<History>,
    /// Requests of each operation: (shard, operation, ticket).
    pub tickets_of: Vec<(u16, usize, Ticket)>,
    /// Requests of which it was said that nothing happened.
    refused: Vec<(u16, Ticket)>,
}

impl Clients {
    /// As the plan has them.
    pub fn new(plan: &Plan) -> Self {
        let mut draw = Draw::new(plan.seed, 5);
        let mixes = (0..plan.shards).map(|_| Mix::draw(&mut draw, plan));
        let mixes = mixes.collect();
        let clients: Vec<Client> = (0..plan.clients * u32::from(plan.shards))
            .map(|number| Client {
                number,
                shard: (number % u32::from(plan.shards)) as u16,
                aim: draw.below(plan.servers as u64) as usize,
                ..Client::default()
            })
            .collect();
        Self {
            next_client: clients.len() as u32,
            clients,
            mixes,
            draw,
            asking: BTreeMap::new(),
            tickets: HashMap::new(),
            next_ticket: 0,
            next_asking: 0,
            called: 0,
            histories: vec![History::default(); usize::from(plan.shards)],
            tickets_of: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether every operation was called, and none is under way.
    pub fn are_done(&self, plan: &Plan) -> bool {
        self.called >= plan.operations && self.asking.is_empty()
    }

    /// Operations called so far.
    pub fn called(&self) -> u64 {
        self.called
    }

    /// What is still waited for.
    pub fn describe(&self) -> String {
        let waiting: Vec<String> = self
            .asking
            .values()
            .take(5)
            .map(|asking| match &asking.body {
                Body::Operation(_, no, wanted) => format!("operation {no} {:?}", wanted.call),
                Body::Command(_) => "a command of the simulator's".to_owned(),
            })
            .collect();
        waiting.join("; ")
    }

    fn add(&mut self, shard: u16, aim: usize, body: Body) -> u64 {
        self.next_asking += 1;
        let asking = Asking {
            shard,
            body,
            ticket: None,
            aim,
        };
        self.asking.insert(self.next_asking, asking);
        self.next_asking
    }

    /// The first thing that was refused and yet is in the log.
    pub fn broken_refusal(&self, decided: impl Fn(u16, Ticket) -> bool) -> Option<(u16, Ticket)> {
        let mut refused = self.refused.iter().copied();
        refused.find(|(shard, ticket)| decided(*shard, *ticket))
    }
}

impl World {
    /// Asks each shard for something that must be answered: at the start the node that sessions
    /// belong to, at the end the same again, which shows that writes are taken.
    pub(super) fn ask_all_shards(&mut self) {
        for shard in 0..self.plan.shards {
            let aim = self.clients.draw.below(self.plan.servers as u64) as usize;
            let body = Body::Command(registration());
            let asking = self.clients.add(shard, aim, body);
            let until = self.now_ns + LONG_PATIENCE_NS;
            self.queue.at(until, Happening::GiveUp(asking));
            self.ask(asking);
        }
    }

    /// A client asks for its next thing.
    pub(super) fn call(&mut self, at: usize) {
        let clients = &mut self.clients;
        if clients.called >= self.plan.operations {
            return;
        }
        clients.called += 1;
        let client = &clients.clients[at];
        let shard = client.shard;
        let history = &mut clients.histories[usize::from(shard)];
        let no = history.operations.len();
        let mix = &clients.mixes[usize::from(shard)];
        let wanted = mix.call(&mut clients.draw, client, no);
        history.operations.push(Operation {
            client: client.number,
            call: wanted.call.clone(),
            called_ns: self.now_ns,
            answer: None,
        });
        let aim = match wanted.mode == ReadMode::Stale || clients.draw.chance(50) {
            true => clients.draw.below(self.plan.servers as u64) as usize,
            false => client.aim,
        };
        let patience_ns = clients.draw.within(PATIENCE_NS.0, PATIENCE_NS.1);
        let patience_ns = patience_ns + u64::from(wanted.wait.ms) * MS;
        let asking = clients.add(shard, aim, Body::Operation(at, no, wanted));
        self.queue
            .at(self.now_ns + patience_ns, Happening::GiveUp(asking));
        self.ask(asking);
    }

    /// Sends a request to a server.
    pub(super) fn ask(&mut self, no: u64) {
        let clients = &mut self.clients;
        let Some(asking) = clients.asking.get_mut(&no) else {
            return;
        };
        clients.next_ticket += 1;
        let ticket = Ticket(clients.next_ticket);
        asking.ticket = Some(ticket);
        clients.tickets.insert(ticket, no);
        let request = match &asking.body {
            Body::Operation(_, op, wanted) => {
                let request = wanted.request();
                if matches!(request, Request::Write(_)) {
                    clients.tickets_of.push((asking.shard, *op, ticket));
                }
                request
            }
            Body::Command(command) => Request::Write(command.clone()),
        };
        let (to, shard) = (asking.aim, ShardId(asking.shard));
        let boot = self.servers[to].boot;
        self.waiting.insert(ticket, to);
        if let Request::Read(query) = &request {
            self.checks.asked(ticket, self.now_ns, query.wait);
        }
        let way_ns = self.time_draw.within(10_000, MS / 2);
        self.queue.at(
            self.now_ns + way_ns,
            Happening::Asked(to, boot, ticket, shard, Box::new(request)),
        );
    }

    /// An answer reached its client.
    pub(super) fn heard(&mut self, answered: Answered) -> Result<(), Broken> {
        let Answered { ticket, result, .. } = answered;
        self.digest.mix(ticket.0 << 8 | u64::from(result.is_ok()));
        let Some(no) = self.clients.tickets.remove(&ticket) else {
            return Err(format!("request {} is answered twice", ticket.0));
        };
        if let Err(failure) = &result
            && promises_nothing(failure.kind)
            && let Some(asking) = self.clients.asking.get(&no)
        {
            self.clients.refused.push((asking.shard, ticket));
        }
        let Some(asking) = self.clients.asking.get_mut(&no) else {
            // Its client has given up.
            return Ok(());
        };
        asking.ticket = None;
        let shard = ShardId(asking.shard);
        match result {
            Ok(reply) => {
                let decided = self.recorder.shard(shard).decided(ticket.0);
                check_decided(&reply, decided)?;
                let answer = match &asking.body {
                    Body::Operation(_, _, wanted) => Some(wanted.answer(reply)?),
                    Body::Command(_) => None,
                };
                self.end(no, answer);
            }
            Err(failure) if failure.kind == FailureKind::OutcomeUnknown => self.end(no, None),
            Err(failure) => {
                if let Body::Operation(_, _, wanted) = &asking.body
                    && let Some(answer) = wanted.refusal(&failure)
                {
                    self.end(no, Some(answer));
                } else if promises_nothing(failure.kind) {
                    self.try_again(no, &failure.leader);
                } else {
                    return Err(format!("a request is answered with {failure:?}"));
                }
            }
        }
        Ok(())
    }

    /// What was refused is asked again, of the leader that was named or of anybody.
    fn try_again(&mut self, no: u64, leader: &str) {
        let named = self.leader_at(leader);
        let asking = self.clients.asking.get_mut(&no).expect("it was there");
        let draw = &mut self.clients.draw;
        asking.aim = named.unwrap_or_else(|| draw.below(self.plan.servers as u64) as usize);
        if let (Body::Operation(client, ..), Some(named)) = (&asking.body, named) {
            self.clients.clients[*client].aim = named;
        }
        let pause_ns = draw.within(MS, 20 * MS);
        self.queue.at(self.now_ns + pause_ns, Happening::Again(no));
    }

    /// The connection broke before an answer came.
    pub(super) fn cut_off(&mut self, ticket: Ticket) {
        let Some(no) = self.clients.tickets.remove(&ticket) else {
            return;
        };
        let Some(asking) = self.clients.asking.get_mut(&no) else {
            return;
        };
        asking.ticket = None;
        let reads = match &asking.body {
            Body::Operation(_, _, wanted) => {
                matches!(wanted.call, Call::Get { .. } | Call::GetStale { .. })
            }
            // It does the same however often it is carried out.
            Body::Command(_) => true,
        };
        match reads {
            true => self.try_again(no, ""),
            false => self.end(no, None),
        }
    }

    /// A client waits no longer.
    pub(super) fn give_up(&mut self, no: u64) {
        if let Some(asking) = self.clients.asking.get(&no) {
            let answer = match asking.ticket {
                Some(_) => None,
                None => Some(Answer::Refused),
            };
            self.end(no, answer);
        }
    }

    /// An operation is over; without an answer nobody knows what came of it.
    fn end(&mut self, no: u64, answer: Option<Answer>) {
        let clients = &mut self.clients;
        let asking = clients.asking.remove(&no).expect("it was there");
        let Body::Operation(at, op, wanted) = asking.body else {
            return;
        };
        let client = &mut clients.clients[at];
        match &answer {
            Some(answer) => remember(client, &wanted.call, answer),
            None => {
                client.number = clients.next_client;
                clients.next_client += 1;
                client.aim = clients.draw.below(self.plan.servers as u64) as usize;
            }
        }
        let history = &mut clients.histories[usize::from(asking.shard)];
        history.operations[op].answer = answer.map(|answer| (self.now_ns, answer));
        let think_ns = clients.draw.below(self.plan.think_ns_max);
        self.queue.at(self.now_ns + think_ns, Happening::Call(at));
    }
}

/// Whether this failure says that nothing has happened.
fn promises_nothing(kind: FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::NotLeader
            | FailureKind::NoLeader
            | FailureKind::Busy
            | FailureKind::DiskFull
            | FailureKind::ShuttingDown
    )
}

/// What is acknowledged was decided where the answer says: it is in the log, and applied.
fn check_decided(reply: &Reply, decided: Option<wire::Index>) -> Result<(), Broken> {
    let said = match reply {
        Reply::Written { index, .. } | Reply::Txn { index, .. } | Reply::Document { index, .. } => {
            *index
        }
        Reply::Read(_) => return Ok(()),
    };
    match decided == Some(said) {
        true => Ok(()),
        false => Err(format!(
            "a write is acknowledged at index {said}, and was decided at {decided:?}"
        )),
    }
}

/// What a client learns from an answer.
fn remember(client: &mut Client, call: &Call, answer: &Answer) {
    let mut saw = |key: &str, row: &Row| {
        client.seen.insert(key.to_owned(), row.modify_index);
    };
    match (call, answer) {
        (Call::Get { key } | Call::GetStale { key }, Answer::Row(Some(row), _)) => saw(key, row),
        (Call::Get { key } | Call::GetStale { key }, Answer::Row(None, _)) => {
            client.seen.remove(key);
        }
        (Call::Step(step), Answer::Done { ok: true, index }) => {
            use crate::judge::Step;
            if let Step::Set { key, .. }
            | Step::Cas { key, .. }
            | Step::Acquire { key, .. }
            | Step::Release { key, .. } = step
            {
                client.seen.insert(key.clone(), *index);
            }
        }
        (Call::CreateSession, Answer::Session { session, .. }) => {
            client.sessions.push(session.clone());
        }
        // Sometimes it goes on with a session that is no more.
        (Call::DestroySession { .. }, _) if client.sessions.len() > 1 => {
            client.sessions.pop();
        }
        _ => {}
    }
}
