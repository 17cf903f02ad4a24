//! When reads are answered, where one turn more or less makes the difference.

use super::*;

/// Asks `at` in a turn of its own; the answer if there is one at the end of it.
fn ask(world: &mut World, at: usize, mode: ReadMode) -> Option<Result<Reply, wire::Failure>> {
    let query = Query {
        mode,
        min_index: wire::Index(0),
        wait: wire::Wait::default(),
        body: QueryBody::KvGet {
            key: Bytes::from_static(b"k"),
        },
    };
    let request = Request::Read(query);
    world.nodes[at].events.push(Event::Request {
        ticket: Ticket(999),
        shard: SHARD,
        request,
    });
    answer_of_turn(world, at)
}

fn answer_of_turn(world: &mut World, at: usize) -> Option<Result<Reply, wire::Failure>> {
    let mut events = std::mem::take(&mut world.nodes[at].events);
    events.push(Event::Wake);
    let mut effects = Effects::default();
    let core = world.nodes[at].core.as_mut().expect("it is up");
    core.turn(world.now, &mut events, &mut effects);
    let mut answers = effects.answers.iter();
    let at_answer = answers.position(|answer| answer.ticket == Ticket(999));
    let answer = at_answer.map(|place| effects.answers.remove(place).result);
    world.perform(at, effects);
    answer
}

fn has_row(answer: Option<Result<Reply, wire::Failure>>) -> Option<bool> {
    match answer?.expect("a read that is answered") {
        Reply::Read(read) => Some(matches!(read.body, ReadBody::Row(Some(_)))),
        _ => unreachable!("a read was asked"),
    }
}

/// Found by `curia-bench nemesis --faults kill,full,power,throttle --seed 3`: the leader's disk was
/// slow, its two followers' were not. They held the entry durably, so it was committed, and they
/// applied it; a client read the new value from one of them (a watch would have told it as well),
/// asked the leader with mode `default`, and got the old one: the leader may not apply what it has
/// not on its own disk, and its lease allowed it to answer at once.
#[test]
fn a_default_read_knows_what_followers_with_faster_disks_have_shown() {
    let mut world = World::new(7, 3, 0, u64::MAX);
    for _ in 0..600 {
        world.step();
    }
    let leader = world
        .positions()
        .iter()
        .position(|position| position.3)
        .expect("a leader was elected");
    let follower = (leader + 1) % 3;
    let command = Command::Kv(KvCommand {
        verb: KvVerb::Set,
        key: b"k",
        value: b"v",
        flags: 0,
        index: 0,
        session: b"",
    })
    .encode();
    world.nodes[leader].events.push(Event::Request {
        ticket: Ticket(998),
        shard: SHARD,
        request: Request::Write(command),
    });
    world.asked.insert((leader, 998), "k".into());
    world.turn(leader);
    for _ in 0..40 {
        // The leader's disk takes its time.
        for (when, _) in &mut world.nodes[leader].writing {
            *when = u64::MAX;
        }
        world.step();
    }
    let shown = ask(&mut world, follower, ReadMode::Stale);
    assert_eq!(
        has_row(shown),
        Some(true),
        "committed without the leader's disk"
    );
    let early = ask(&mut world, leader, ReadMode::Default);
    assert_eq!(
        has_row(early),
        None,
        "answered with less than a follower has shown"
    );
    for (when, _) in &mut world.nodes[leader].writing {
        *when = 0;
    }
    world.complete(leader);
    let late = answer_of_turn(&mut world, leader);
    assert_eq!(has_row(late), Some(true), "and as soon as its disk is done");
}
