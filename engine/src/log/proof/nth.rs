//! What if the N-th operation fails, for every N?
//!
//! A script runs on a disk of which one operation fails: while writing, then while recovering.
//! The log either dies, names file and reason, and issues nothing more; or what failed was done
//! aside, is tried again, and the script ends as if nothing had been. In both cases the process is
//! then killed or the power fails, and what was acknowledged is there, and nothing else.

use bytes::Bytes;
use wire::ShardId;

use super::{
    IDENTITY, Rig, Rng, Tally, Violation, checkpoint, data, ensure, hard_state,
    life::{Commit, Fact, Models, ShardModel, equals},
    small,
};
use crate::{
    io::{
        LogOp,
        mem::{Fault, MemDisk, Survival},
    },
    log::{Log, LogError, Space},
};

/// The ways in which an operation fails.
pub const FAULTS: [Fault; 5] = [
    Fault::Errno(libc::EIO),
    Fault::Errno(libc::ENOSPC),
    Fault::Late(libc::EIO),
    Fault::Lost(libc::EIO),
    Fault::Short,
];

/// What a run of the script left.
struct Run {
    rig: Rig,
    fact: Fact,
    /// The shards as of each batch.
    as_of: Vec<(u64, Models)>,
}

/// A script of so many turns over several segments: appends, votes, conflicts, checkpoints.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// Turns; each writes at least one batch.
    pub turns: u64,
}

impl Script {
    /// How many operations the script has when none fails.
    ///
    /// # Errors
    /// When it does not run through even then.
    pub fn operations(&self) -> Result<u64, Violation> {
        let rig = Rig::new(small());
        let before = rig.disk.operations();
        let run = self.run(rig).map_err(|what| at("no fault", what))?;
        Ok(run.rig.disk.operations() - before)
    }

    fn run(&self, mut rig: Rig) -> Result<Run, String> {
        let mut models = Models::new();
        let mut as_of = vec![(0, models.clone())];
        for turn in 0..self.turns {
            wait_for_space(&mut rig)?;
            if rig.log.failure().is_some() {
                break;
            }
            act(&mut rig, &mut models, turn);
            as_of.push((rig.log.open_lsn().0, models.clone()));
            // Only the end of it may still have to be compared: what is durable stays.
            let durable = rig.log.durable_lsn().0;
            let done = as_of.partition_point(|known| known.0 <= durable);
            as_of.drain(..done.saturating_sub(1));
            drive(&mut rig);
        }
        let fact = Fact {
            acknowledged: rig.log.durable_lsn().0,
            opened: rig.log.open_lsn().0,
        };
        match rig.log.failure() {
            Some(failure) => {
                let text = failure.to_string();
                ensure!(
                    text.contains(".segment at offset") && text.contains("until the server"),
                    "the failure does not say where and what to do: {text}"
                );
                ensure!(rig.ops().is_empty(), "a dead log issues something");
            }
            None => ensure!(
                fact.acknowledged == fact.opened,
                "it lives, and {fact:?} was never answered"
            ),
        }
        Ok(Run { rig, fact, as_of })
    }

    /// The `nth` operation of the script fails in each way, and the server ends in each.
    ///
    /// Counts: `runs`; `died`, `went on` (logs after the fault); `recoveries`.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn fail_writing(&self, nth: u64) -> Result<Tally, Violation> {
        let mut tally = Tally::default();
        for fault in FAULTS {
            let written = self.fail_one(nth, fault, &mut tally);
            written.map_err(|what| at(format!("operation {nth} of writing, {fault:?}"), what))?;
        }
        Ok(tally)
    }

    fn fail_one(&self, nth: u64, fault: Fault, tally: &mut Tally) -> Result<(), String> {
        let rig = Rig::new(small());
        rig.disk.fail_at(nth, fault);
        let run = self.run(rig)?;
        tally.add("runs", 1);
        let died = run.rig.log.failure().is_some();
        tally.add(if died { "died" } else { "went on" }, 1);
        let mut rng = Rng(nth);
        for end in [None].into_iter().chain(Survival::ALL.map(Some)) {
            let disk = run.rig.disk.clone();
            if let Some(survival) = end {
                disk.crash_as(survival, &mut || rng.next());
            }
            tally.add("recoveries", 1);
            run.judge(disk)
                .map_err(|what| format!("then {end:?}: {what}"))?;
        }
        Ok(())
    }

    /// Runs the script without a fault, and stops with writes under way.
    ///
    /// # Errors
    /// When it does not run through.
    pub fn leave(&self) -> Result<Left, Violation> {
        let run = self.run(Rig::new(small()));
        let mut run = run.map_err(|what| at("no fault", what))?;
        let mut models = run.as_of.last().expect("the end is kept").1.clone();
        act(&mut run.rig, &mut models, self.turns);
        for op in run.rig.ops() {
            if let LogOp::Write { .. } = op {
                let _begun = run.rig.disk.begin(op);
            }
        }
        run.fact.opened = run.rig.log.open_lsn().0;
        run.as_of.push((run.fact.opened, models));
        Ok(Left { run })
    }
}

/// What the script left behind.
pub struct Left {
    run: Run,
}

impl Left {
    /// The `nth` operation of recovering what the script left fails in each way; then it is
    /// recovered again, after a power cut or without one. `false` when recovery has fewer.
    ///
    /// Counts: `runs`; `refused`, `opened` (recoveries with the fault); `recoveries`.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn fail_recovering(&self, nth: u64) -> Result<(bool, Tally), Violation> {
        let mut tally = Tally::default();
        let mut struck = false;
        for fault in FAULTS {
            let recovered = self.fail_one(nth, fault, &mut tally);
            struck |= recovered
                .map_err(|what| at(format!("operation {nth} of recovery, {fault:?}"), what))?;
        }
        Ok((struck, tally))
    }

    fn fail_one(&self, nth: u64, fault: Fault, tally: &mut Tally) -> Result<bool, String> {
        let disk = self.run.rig.disk.clone();
        disk.fail_at(nth, fault);
        tally.add("runs", 1);
        let opened = Log::recover(&disk, small(), IDENTITY, true);
        let struck = disk.struck();
        disk.fail_at(u64::MAX / 2, fault);
        match opened {
            // Then the fault did not matter: everything must be there.
            Ok((log, recovered)) => {
                tally.add("opened", 1);
                let (disk, now) = (disk.clone(), 0);
                let rig = Rig { disk, log, now };
                let (_, models) = self.run.as_of.last().expect("the end is kept");
                equals(models, &rig, &recovered, Commit::Exact)?;
            }
            Err(error @ (LogError::Io { .. } | LogError::Undecided { .. })) => {
                tally.add("refused", 1);
                let text = error.to_string();
                let named = text.contains("segment") || text.contains("the log directory");
                ensure!(named, "the error does not say where: {text}");
            }
            Err(error) => {
                return Err(format!(
                    "an I/O error was taken for something else: {error}"
                ));
            }
        }
        let mut rng = Rng(nth);
        for end in [None].into_iter().chain(Survival::ALL.map(Some)) {
            let disk = disk.clone();
            if let Some(survival) = end {
                disk.crash_as(survival, &mut || rng.next());
            }
            tally.add("recoveries", 1);
            self.run
                .judge(disk)
                .map_err(|what| format!("then {end:?}: {what}"))?;
        }
        Ok(struck)
    }
}

impl Run {
    /// The server starts again, without peers.
    fn judge(&self, disk: MemDisk) -> Result<(), String> {
        let (rig, recovered) = Rig::reopen(disk, small(), true)
            .map_err(|error| format!("it does not open again: {error}"))?;
        let last = recovered.report.last_lsn.0;
        let Fact {
            acknowledged,
            opened,
        } = self.fact;
        ensure!(
            (acknowledged..=opened).contains(&last),
            "batch {last} is the last, and {acknowledged} were acknowledged of {opened}"
        );
        // Batches between two turns' ends hold a part of a turn: those are compared by the crash
        // images.
        believed_stays(&rig.disk, last)?;
        let at = self.as_of.partition_point(|known| known.0 <= last);
        match self.as_of[..at].last() {
            Some((lsn, models)) if *lsn == last => equals(models, &rig, &recovered, Commit::Exact),
            _ => Ok(()),
        }
    }
}

/// What a recovery has believed and built upon is there after a power cut.
fn believed_stays(disk: &MemDisk, last: u64) -> Result<(), String> {
    let disk = disk.clone();
    disk.crash_as(Survival::Nothing, &mut || 0);
    let (_, recovered) = Rig::reopen(disk, small(), true)
        .map_err(|error| format!("it does not open after a power cut: {error}"))?;
    let still = recovered.report.last_lsn.0;
    ensure!(
        still == last,
        "recovery believed {last} batches, and after a power cut {still} are there"
    );
    Ok(())
}

fn at(at: impl Into<String>, what: String) -> Violation {
    let at = at.into();
    Violation { at, what }
}

fn act(rig: &mut Rig, models: &mut Models, turn: u64) {
    let shard = ShardId(u16::from(turn % 7 == 3));
    let model = models.entry(shard).or_default();
    if turn.is_multiple_of(5) {
        let commit = model.last().saturating_sub(4);
        let commit = commit.max(model.hard_state.commit.0);
        model.hard_state = hard_state(1 + turn / 50, turn % 3, commit);
        rig.log.put_hard_state(shard, model.hard_state, true);
    }
    let conflict = turn % 13 == 12 && model.last() > model.hard_state.commit.0 + 1;
    let index = model.last() + u64::from(!conflict);
    let term = 1 + turn / 50 + u64::from(conflict);
    if conflict {
        model.entries.pop();
    }
    let bytes = data(index, term, [2500, 300, 20, 900][turn as usize % 4]);
    rig.append(shard, index, term, &bytes);
    model.entries.push((term, Bytes::from(bytes)));
    if turn % 20 == 19 {
        let shards: Vec<ShardId> = models.keys().copied().collect();
        shards
            .into_iter()
            .for_each(|shard| compact(rig, shard, models.get_mut(&shard).expect("listed")));
    }
}

/// An image up to five entries before the end takes the place of what is before it.
fn compact(rig: &mut Rig, shard: ShardId, model: &mut ShardModel) {
    let at = model.last().saturating_sub(5);
    if at <= model.snapshot.0 {
        return;
    }
    let term = model.term(at);
    model.entries.drain(..(at - model.snapshot.0) as usize);
    model.snapshot = (at, term);
    let state = model.hard_state;
    rig.log.put_checkpoint(shard, checkpoint(state, at, term));
}

/// Everything that the log asks for, until it asks for nothing or is dead.
fn drive(rig: &mut Rig) {
    loop {
        let ops = rig.ops();
        if ops.is_empty() {
            return;
        }
        for op in ops {
            let done = rig.disk.execute(op);
            if rig.log.done(rig.now, done).is_err() {
                return;
            }
        }
    }
}

/// What was refused room gets it by itself, at the log's own deadline.
fn wait_for_space(rig: &mut Rig) -> Result<(), String> {
    for _ in 0..3 {
        if rig.log.failure().is_some() || rig.log.space() == Space::Ok {
            return Ok(());
        }
        if let Some(deadline) = rig.log.next_deadline_ns() {
            rig.now = deadline;
        }
        drive(rig);
    }
    match rig.log.space() {
        Space::Ok => Ok(()),
        Space::Full { why } => Err(format!("it stays full after one failure: {why}")),
    }
}
