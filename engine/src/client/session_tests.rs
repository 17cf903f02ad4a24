//! The session against a model of what a server sees.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};
use wire::{Failure, Index, KvRow};

use super::*;

/// A server that greets at once, before our Hello has left whole, was sent the rest of it never: the
/// first request stood in the middle of the Hello, and the server closed the connection on it. (Fuzz
/// target `session`.)
#[test]
fn a_hello_is_finished_whatever_the_server_says_meanwhile() {
    let mut session = Session::new(&Hello::default(), 1 << 20);
    let now = Instant::now();
    let ask = Ask::<true> {
        ticket: 7,
        padding: 0,
    };
    session.make(&ask, 7, now, now + Duration::from_secs(1));
    session.connected();
    let mut far = Far::default();
    let begun = session.to_send()[..3].to_vec();
    assert!(far.take(&begun).is_empty());
    session.sent(begun.len());
    session.open();
    while !session.to_send().is_empty() {
        let rest = session.to_send().to_vec();
        let seen = far.take(&rest);
        session.sent(rest.len());
        assert!(seen.is_empty() || session.to_send().is_empty());
    }
    assert_eq!(far.open.len(), 1);
}

/// A request that carries its ticket, so that the server's side can tell who it was.
struct Ask<const WRITE: bool> {
    ticket: u32,
    padding: usize,
}

impl<const WRITE: bool> Request for Ask<WRITE> {
    const IS_WRITE: bool = WRITE;

    fn bytes(&self) -> usize {
        self.padding
    }

    fn encode(&self, request: RequestId, out: &mut BytesMut) {
        let mut payload = vec![0; 4 + self.padding];
        payload[..4].copy_from_slice(&self.ticket.to_le_bytes());
        let frame = Frame {
            kind: FrameKind::Propose,
            shard: ShardId(0),
            request,
            flags: 0,
            payload: payload.into(),
            blob: Bytes::new(),
        };
        frame.encode(out);
    }
}

/// The far end of one connection.
#[derive(Default)]
struct Far {
    decoder: FrameDecoder,
    /// Requests seen whole and not answered: number and ticket.
    open: Vec<(RequestId, u32)>,
}

impl Far {
    fn take(&mut self, mut bytes: &[u8]) -> Vec<u32> {
        let mut seen = Vec::new();
        while !bytes.is_empty() {
            let space = self.decoder.space();
            let n = space.len().min(bytes.len());
            space[..n].copy_from_slice(&bytes[..n]);
            self.decoder.received(n);
            bytes = &bytes[n..];
            while let Some(frame) = self.decoder.next_frame().unwrap() {
                if frame.kind == FrameKind::Propose {
                    let ticket = u32::from_le_bytes(frame.payload[..4].try_into().unwrap());
                    self.open.push((frame.request, ticket));
                    seen.push(ticket);
                }
            }
        }
        seen
    }
}

fn reply(body: ReplyBody, more: bool) -> Reply {
    Reply {
        index: Index(1),
        known_leader: true,
        last_contact_ms: 0,
        more,
        body,
    }
}

fn written(index: u64) -> Reply {
    let index = Index(index);
    reply(ReplyBody::Written { ok: true, index }, false)
}

fn row(n: u8) -> KvRow {
    KvRow {
        key: vec![n].into(),
        value: Bytes::new(),
        flags: 0,
        create_index: Index(1),
        modify_index: Index(1),
        lock_index: 0,
        session: Bytes::new(),
    }
}

fn not_leader() -> Reply {
    let failure = Failure {
        kind: FailureKind::NotLeader,
        message: "this server does not lead".into(),
        leader: "127.0.0.2:8300".into(),
        retry_after_ms: 0,
    };
    reply(ReplyBody::Failed(failure), false)
}

type Told = Vec<(u32, Outcome)>;

fn give(session: &mut Session<u32>, bytes: &[u8], now: Instant) -> Result<Told, Lost> {
    let space = session.space();
    space[..bytes.len()].copy_from_slice(bytes);
    session.received(bytes.len(), now);
    let mut told = Vec::new();
    while let Some(event) = session.next_event()? {
        if let Event::Ended(ticket, outcome) = event {
            told.push((ticket, outcome));
        }
    }
    Ok(told)
}

fn answer(session: &mut Session<u32>, number: RequestId, reply: &Reply) -> Result<Told, Lost> {
    let mut bytes = BytesMut::new();
    reply.encode_frame(ShardId(0), number, &mut bytes);
    give(session, &bytes, Instant::now())
}

fn new() -> Session<u32> {
    Session::new(&Hello::default(), 1 << 20)
}

/// Greets and opens a connection.
fn open(session: &mut Session<u32>, now: Instant) {
    session.connected();
    let greeting = session.to_send().len();
    session.sent(greeting);
    assert!(
        session.to_send().is_empty(),
        "nothing leaves before the server's Hello"
    );
    let bytes = session.hello.clone();
    give(session, &bytes, now).unwrap();
    session.open();
}

fn send_all(session: &mut Session<u32>, far: &mut Far) -> Vec<u32> {
    let seen = far.take(session.to_send());
    session.sent(session.to_send().len());
    seen
}

const LONG: Duration = Duration::from_secs(3600);

fn make<const WRITE: bool>(session: &mut Session<u32>, ticket: u32) {
    let now = Instant::now();
    session.make(
        &Ask::<WRITE> {
            ticket,
            padding: 10,
        },
        ticket,
        now,
        now + LONG,
    );
}

#[derive(Clone, Debug)]
enum Step {
    Make {
        write: bool,
        padding: usize,
    },
    Send(prop::sample::Index),
    Answer(prop::sample::Index),
    NotLeader(prop::sample::Index),
    Connect,
    Disconnect,
    /// Ends what was made that many steps ago or earlier.
    Expire(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = any::<prop::sample::Index>;
    let step = prop_oneof![
        6 => (any::<bool>(), 0..2000usize).prop_map(|(write, padding)| Step::Make { write, padding }),
        5 => at().prop_map(Step::Send),
        4 => at().prop_map(Step::Answer),
        1 => at().prop_map(Step::NotLeader),
        2 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
        1 => (1..40u64).prop_map(Step::Expire),
    ];
    vec(step, 1..120)
}

/// What is known of one request.
#[derive(Debug, Default)]
struct Known {
    write: bool,
    seen: usize,
    ended: Option<Outcome>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// Over any history: a request ends once; a write is seen at most once unless its caller was
    /// told to make it again after a server said that nothing happened; whoever is told that
    /// nothing happened is right; an unknown outcome is told only where a byte left.
    #[test]
    fn the_promise_about_writes(steps in steps()) {
        let start = Instant::now();
        let at = |step: usize| start + Duration::from_secs(step as u64);
        let mut session = new();
        let mut far: Option<Far> = None;
        let mut known: BTreeMap<u32, Known> = BTreeMap::new();
        let mut refused = BTreeSet::new();
        for (step, what) in steps.iter().enumerate() {
            let now = at(step);
            let mut told: Told = Vec::new();
            match what {
                Step::Make { write, padding } => {
                    let ticket = step as u32;
                    known.insert(ticket, Known { write: *write, ..Known::default() });
                    let padding = *padding;
                    // The deadline is where the step `Expire` looks for it.
                    match write {
                        true => session.make(&Ask::<true> { ticket, padding }, ticket, now, now + LONG),
                        false => session.make(&Ask::<false> { ticket, padding }, ticket, now, now + LONG),
                    }
                }
                Step::Send(part) => if let Some(far) = &mut far {
                    let n = part.index(session.to_send().len() + 1);
                    for ticket in far.take(&session.to_send()[..n]) {
                        let known = known.get_mut(&ticket).unwrap();
                        // What had begun to leave is finished, also after its time was up.
                        let honest = match &known.ended {
                            None | Some(Outcome::Failed(ClientError::OutcomeUnknown(_))) => true,
                            Some(_) => !known.write,
                        };
                        prop_assert!(honest, "{ticket} left after its end {known:?}");
                        known.seen += 1;
                    }
                    session.sent(n);
                },
                Step::Answer(which) | Step::NotLeader(which) => if let Some(far) = &mut far && !far.open.is_empty() {
                    let (number, ticket) = far.open.swap_remove(which.index(far.open.len()));
                    let reply = match what {
                        Step::NotLeader(_) => not_leader(),
                        _ if known[&ticket].write => written(u64::from(ticket)),
                        _ => reply(ReplyBody::Rows(vec![row(1)]), false),
                    };
                    if matches!(what, Step::NotLeader(_)) {
                        refused.insert(ticket);
                    }
                    told = answer(&mut session, number, &reply).unwrap();
                },
                Step::Connect => if far.is_none() {
                    open(&mut session, now);
                    far = Some(Far::default());
                },
                Step::Disconnect => if far.take().is_some() {
                    told = session.disconnected(&Lost::Closed);
                },
                Step::Expire(age) => {
                    let limit = now + LONG - Duration::from_secs(*age);
                    let ended = session.expire(limit, LONG, "test");
                    told = ended.into_iter().map(|(ticket, error)| (ticket, Outcome::Failed(error))).collect();
                }
            }
            for (ticket, outcome) in told {
                let known = known.get_mut(&ticket).unwrap();
                prop_assert!(known.ended.is_none(), "{ticket} ended twice");
                match &outcome {
                    Outcome::Reply(_) => prop_assert_eq!(known.seen, 1),
                    Outcome::Again => prop_assert!(!known.write || refused.contains(&ticket)),
                    Outcome::Failed(ClientError::Timeout { .. }) => prop_assert!(!known.write || known.seen == 0),
                    Outcome::Failed(ClientError::OutcomeUnknown(_)) => prop_assert!(known.write),
                    other => prop_assert!(false, "{other:?}"),
                }
                known.ended = Some(outcome);
            }
            prop_assert_eq!(session.flights.len(), known.values().filter(|k| k.ended.is_none()).count());
            let left = session.flights.values().filter(|flight| flight.begins_at < session.sent).count();
            prop_assert_eq!(session.left, left);
        }
        for known in known.values() {
            prop_assert!(known.seen <= 1, "seen twice: {known:?}");
        }
        // What never left and was never ended leaves in the end, whole and once.
        if far.take().is_some() {
            for (ticket, outcome) in session.disconnected(&Lost::Closed) {
                known.get_mut(&ticket).unwrap().ended = Some(outcome);
            }
        }
        open(&mut session, at(steps.len()));
        let seen = send_all(&mut session, &mut Far::default());
        let open: Vec<u32> = known.iter().filter(|(_, k)| k.ended.is_none()).map(|(ticket, _)| *ticket).collect();
        prop_assert_eq!(seen, open);
    }
}

#[test]
fn a_write_that_began_to_leave_is_unknown_and_the_next_one_is_not() {
    let mut session = new();
    let now = Instant::now();
    make::<true>(&mut session, 1);
    make::<true>(&mut session, 2);
    open(&mut session, now);
    session.sent(1);
    let told = session.disconnected(&Lost::Closed);
    assert!(
        matches!(
            &told[..],
            [(1, Outcome::Failed(ClientError::OutcomeUnknown(_)))]
        ),
        "{told:?}"
    );
    open(&mut session, now);
    assert_eq!(send_all(&mut session, &mut Far::default()), [2]);
}

/// A caller that is told "nothing happened" must be right: its frame may not leave afterwards.
#[test]
fn what_expires_before_it_leaves_never_leaves() {
    let mut session = new();
    let now = Instant::now();
    let soon = now + Duration::from_millis(1);
    for (ticket, deadline) in [(1, now + LONG), (2, soon), (3, now + LONG), (4, soon)] {
        session.make(
            &Ask::<true> {
                ticket,
                padding: 10,
            },
            ticket,
            now,
            deadline,
        );
    }
    let mut expired = session.expire(soon, LONG, "no server");
    expired.sort_by_key(|(ticket, _)| *ticket);
    let last = "no server".to_owned();
    let timeout = ClientError::Timeout { after: LONG, last };
    assert_eq!(expired, [(2, timeout.clone()), (4, timeout)]);
    open(&mut session, now);
    assert_eq!(send_all(&mut session, &mut Far::default()), [1, 3]);
}

#[test]
fn draining_finishes_the_frame_that_has_begun() {
    let mut session = new();
    let mut far = Far::default();
    let now = Instant::now();
    open(&mut session, now);
    make::<true>(&mut session, 1);
    make::<true>(&mut session, 2);
    make::<true>(&mut session, 3);
    assert!(far.take(&session.to_send()[..10]).is_empty());
    session.sent(10);
    session.drain("127.0.0.9:8300".into());
    assert_eq!(session.drained(), None);
    assert_eq!(send_all(&mut session, &mut far), [1]);
    assert_eq!(session.drained(), None, "its answer is awaited");
    let (number, _) = far.open[0];
    assert_eq!(answer(&mut session, number, &written(5)).unwrap().len(), 1);
    assert_eq!(session.drained(), Some("127.0.0.9:8300"));
    assert!(session.disconnected(&Lost::Elsewhere).is_empty());
    open(&mut session, now);
    assert_eq!(send_all(&mut session, &mut Far::default()), [2, 3]);
}

#[test]
fn pieces_become_one_answer() {
    let mut session = new();
    let mut far = Far::default();
    open(&mut session, Instant::now());
    make::<false>(&mut session, 1);
    make::<false>(&mut session, 2);
    send_all(&mut session, &mut far);
    let [(rows, _), (keys, _)] = far.open[..] else {
        panic!()
    };
    let key = |n: u8| Bytes::from(vec![n]);
    for (number, piece, more) in [
        (rows, ReplyBody::Rows(vec![row(1), row(2)]), true),
        (keys, ReplyBody::Keys(vec![key(1)]), true),
        (rows, ReplyBody::Rows(vec![]), true),
    ] {
        let told = answer(&mut session, number, &reply(piece, more)).unwrap();
        assert_eq!(told, []);
    }
    let last = reply(ReplyBody::Rows(vec![row(3)]), false);
    let whole = reply(ReplyBody::Rows(vec![row(1), row(2), row(3)]), false);
    assert_eq!(
        answer(&mut session, rows, &last).unwrap(),
        [(1, Outcome::Reply(whole))]
    );
    let last = reply(ReplyBody::Keys(vec![key(2)]), false);
    let whole = reply(ReplyBody::Keys(vec![key(1), key(2)]), false);
    assert_eq!(
        answer(&mut session, keys, &last).unwrap(),
        [(2, Outcome::Reply(whole))]
    );
}

/// A listing that fails half way is a failure, not a short listing.
#[test]
fn an_answer_that_fails_half_way_fails() {
    let mut session = new();
    let mut far = Far::default();
    open(&mut session, Instant::now());
    make::<false>(&mut session, 1);
    send_all(&mut session, &mut far);
    let (number, _) = far.open[0];
    let piece = reply(ReplyBody::Rows(vec![row(1)]), true);
    assert_eq!(answer(&mut session, number, &piece).unwrap(), []);
    let failure = Failure {
        kind: FailureKind::Internal,
        message: "the disk is gone".into(),
        leader: String::new(),
        retry_after_ms: 0,
    };
    let failed = reply(ReplyBody::Failed(failure.clone()), false);
    let outcome = Outcome::Failed(ClientError::Refused(failure));
    assert_eq!(
        answer(&mut session, number, &failed).unwrap(),
        [(1, outcome)]
    );
}

#[test]
fn an_answer_over_its_bound_is_given_up() {
    let mut session = Session::new(&Hello::default(), 3 * 1024);
    let mut far = Far::default();
    open(&mut session, Instant::now());
    make::<false>(&mut session, 1);
    send_all(&mut session, &mut far);
    let (number, _) = far.open[0];
    let long = KvRow {
        value: vec![0; 1024].into(),
        ..row(1)
    };
    let piece = reply(ReplyBody::Rows(vec![long]), true);
    let told: Vec<_> = (0..4)
        .flat_map(|_| answer(&mut session, number, &piece).unwrap())
        .collect();
    let too_long = ClientError::AnswerTooLong { max: 3 * 1024 };
    assert_eq!(told, [(1, Outcome::Failed(too_long))]);
}

#[test]
fn answers_that_make_no_sense_end_the_connection() {
    let status = reply(ReplyBody::Status(Default::default()), false);
    let rows = |more| reply(ReplyBody::Rows(vec![]), more);
    let cases: [(bool, Vec<Reply>); 5] = [
        (true, vec![rows(false)]),
        (false, vec![written(1)]),
        (true, vec![reply(written(1).body, true)]),
        (
            false,
            vec![rows(true), reply(ReplyBody::Keys(vec![]), false)],
        ),
        (false, vec![rows(true), status]),
    ];
    for (write, replies) in cases {
        let mut session = new();
        let mut far = Far::default();
        open(&mut session, Instant::now());
        match write {
            true => make::<true>(&mut session, 1),
            false => make::<false>(&mut session, 1),
        }
        send_all(&mut session, &mut far);
        let (number, _) = far.open[0];
        let told: Result<Vec<_>, _> = replies
            .iter()
            .map(|reply| answer(&mut session, number, reply))
            .collect();
        assert!(matches!(told, Err(Lost::Wire(_))), "{replies:?}: {told:?}");
    }
    // An answer to what has not left yet.
    let mut session = new();
    open(&mut session, Instant::now());
    make::<true>(&mut session, 1);
    let told = answer(&mut session, RequestId(1), &written(1));
    assert!(matches!(told, Err(Lost::Wire(_))), "{told:?}");
    // A second Hello.
    let mut session = new();
    open(&mut session, Instant::now());
    let hello = session.hello.clone();
    assert!(give(&mut session, &hello, Instant::now()).is_err());
}

/// Its caller was told that the time was up; the answer comes late.
#[test]
fn late_answers_are_nobodys() {
    let mut session = new();
    let mut far = Far::default();
    open(&mut session, Instant::now());
    make::<true>(&mut session, 1);
    send_all(&mut session, &mut far);
    let told = session.expire(Instant::now() + 2 * LONG, LONG, "nothing");
    assert!(
        matches!(&told[..], [(1, ClientError::OutcomeUnknown(_))]),
        "{told:?}"
    );
    let (number, _) = far.open[0];
    assert_eq!(answer(&mut session, number, &written(1)).unwrap(), []);
}

#[test]
fn silence_is_noticed() {
    let start = Instant::now();
    let at = |s| start + Duration::from_secs(s);
    let patience = Duration::from_secs(10);
    let mut session = new();
    open(&mut session, at(0));
    session.make(
        &Ask::<true> {
            ticket: 1,
            padding: 0,
        },
        1,
        at(5),
        at(15),
    );
    assert!(!session.is_silent(at(20), patience), "it has not left");
    send_all(&mut session, &mut Far::default());
    assert!(!session.is_silent(at(14), patience));
    assert!(session.is_silent(at(15), patience));
    let bytes = {
        let mut bytes = BytesMut::new();
        written(1).encode_frame(ShardId(0), RequestId(99), &mut bytes);
        bytes
    };
    give(&mut session, &bytes, at(15)).unwrap();
    assert!(!session.is_silent(at(16), patience), "it speaks to others");
}
