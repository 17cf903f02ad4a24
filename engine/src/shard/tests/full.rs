//! A log without space: what may still be written to it?

use super::*;
use crate::{
    fsm::{
        catalog::RegisterRequest,
        records::RecordOp,
        sessions::{SessionRequest, SessionVerb, get},
    },
    log::Space,
    state::records::Session,
};

const SESSION: &str = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";

impl World {
    fn command(&mut self, command: Bytes, what: &str) {
        self.next_ticket += 1;
        self.asked.insert((0, self.next_ticket), what.to_owned());
        self.nodes[0].events.push(Event::Request {
            ticket: Ticket(self.next_ticket),
            shard: SHARD,
            request: Request::Write(command),
        });
    }

    fn is_full(&mut self) -> bool {
        let core = self.nodes[0].core.as_mut().expect("it is up");
        matches!(core.log_mut().space(), Space::Full { .. })
    }

    fn last_index(&self) -> u64 {
        self.positions()[0].1
    }

    /// A session whose TTL keeps the lease clock going, once a second.
    fn hold_a_session(&mut self) {
        let register = RegisterRequest {
            node: "n".into(),
            address: "10.0.0.1".into(),
            ..RegisterRequest::default()
        };
        self.command(RecordOp::Register(register).encode(), "node");
        self.steps(50);
        let session = Session {
            id: SESSION.into(),
            node: "n".into(),
            ttl: "10s".into(),
            ttl_ms: 10_000,
            ..Session::default()
        };
        let op = SessionVerb::Create;
        let create = RecordOp::Session(SessionRequest { op, session });
        self.command(create.encode(), "session");
        self.steps(50);
        for what in ["node", "session"] {
            assert!(self.acknowledged.remove(what), "{what} was not made");
        }
    }
}

/// Found by reading: clients were refused when the log was full, but the leader's own commands were
/// not looked at. The lease clock of a single session added an entry a second to what is kept for
/// terms and votes; after some hours a full disk had become a log that could not even take the vote
/// that would have moved the leadership to a server with space.
#[test]
fn a_leader_whose_log_is_full_adds_nothing_of_its_own() {
    let mut world = World::new(11, 1, 0, u64::MAX);
    world.steps(600);
    world.hold_a_session();
    let before = world.last_index();
    world.steps(3_000);
    assert!(
        world.last_index() >= before + 2,
        "the lease clock does not move: the test tests nothing"
    );
    // As much as there is by now: segments that were prepared are written, none is added.
    let disk = &world.nodes[0].log_disk;
    let used = disk.list().unwrap().iter().map(|(_, bytes)| bytes).sum();
    disk.set_capacity(Some(used));
    for _ in 0..100_000 {
        if world.is_full() {
            break;
        }
        world.write();
        world.step();
    }
    assert!(world.is_full(), "the log did not fill up");
    world.steps(100);
    let full = world.last_index();
    for _ in 0..30_000 {
        world.step();
        let core = world.nodes[0].core.as_ref().expect("it is up");
        assert!(
            core.next_deadline_ns() > world.now,
            "an executor that waits for space must not spin"
        );
    }
    assert_eq!(world.last_index(), full, "half a minute of a full log");
    // With space everything goes on, and the session has lost nothing of its time.
    world.nodes[0].log_disk.set_capacity(None);
    for _ in 0..200_000 {
        if !world.is_full() {
            break;
        }
        world.step();
    }
    assert!(!world.is_full(), "space did not return");
    let resumed = world.last_index();
    world.steps(3_000);
    assert!(world.last_index() >= resumed + 2, "the clock stands still");
    let core = world.nodes[0].core.as_ref().expect("it is up");
    let tables = core
        .member(SHARD)
        .expect("one shard")
        .fsm()
        .store()
        .tables();
    assert!(get(tables, SESSION).is_some(), "the session is gone");
}
