//! `curia-bench nemesis`: does every promise hold while everything goes wrong?
//!
//! Clusters of the given sizes, one after the other, each tormented until its share of kills is
//! done, in rounds that are judged (see [`crate::nemesis`]). It prints the seed, which repeats what
//! is chosen though not when processes are scheduled, and ends with an error at the first thing that
//! is not as promised, leaving everything about it in place.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;

use super::{Common, CuriaBinary, Progress, Sizes};
use crate::cluster::Product;
use crate::guard::Scratch;
use crate::judge::History;
use crate::nemesis::aftermath::{self, Counts};
use crate::nemesis::client::{Clients, Stage};
use crate::nemesis::disk::Disk;
use crate::nemesis::faults::{Fault, Need};
use crate::nemesis::http::{Http, NODE};
use crate::nemesis::place::Place;
use crate::nemesis::servers::Servers;
use crate::nemesis::torment::{Done, Torment, wait_for_service};
use crate::report::table::Table;
use crate::{Error, Result};

/// Kills of a round, after which it is judged.
const KILLS_PER_ROUND: u64 = 40;
/// A round without kills is over after this.
const ROUND_MAX: Duration = Duration::from_secs(60);
/// Cycles for which clients stay with the same keys.
const CYCLES_PER_GENERATION: u64 = 2;
/// Decided calls that show that clients are served again.
const SERVED: u64 = 40;

/// Options of the sub-command.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    curia: CuriaBinary,
    /// Cluster sizes, one after the other; at least 3 each.
    #[arg(long, default_value = "3,5")]
    servers: Sizes,
    /// Servers to kill in all, with `kill -9` or power cuts.
    #[arg(long, default_value_t = 50)]
    kills: u64,
    /// Goes on for at least this long, seconds.
    #[arg(long, default_value_t = 0)]
    seconds: u64,
    /// Repeats the choices of another run [default: from the clock].
    #[arg(long)]
    seed: Option<u64>,
    /// Only these faults [default: all that the host allows].
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Clients.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Writes a report (with --report-dir: there).
    #[arg(long)]
    report: bool,
}

/// What came of one size.
#[derive(Clone, Debug, Serialize)]
struct Row {
    servers: usize,
    seed: u64,
    rounds: u64,
    seconds: f64,
    #[serde(flatten)]
    done: Done,
    #[serde(flatten)]
    counts: Counts,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    if options.servers.0.iter().any(|size| !(3..=9).contains(size)) {
        return Err(Error::Usage(
            "--servers takes sizes from 3 to 9: fewer survive no failure".into(),
        ));
    }
    if options.clients == 0 {
        return Err(Error::Usage("--clients must be at least 1".into()));
    }
    let Product::Curia(binary) = options.curia.product()? else {
        return Err(Error::Usage("only curia is tormented".into()));
    };
    let site = options.common.site()?;
    let seed = options.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(1, |now| now.as_micros() as u64 % 1_000_000_000)
    });
    println!("seed {seed}");
    let mut report = options.common.report("nemesis", &site);
    let mut rows = Vec::new();
    let place = Place::enter();
    let sizes = &options.servers.0;
    for (nth, &size) in sizes.iter().enumerate() {
        if nth == 0 {
            report.note(format!("Servers lived in {}.", place.describe()));
        }
        let (faults, missing) = allowed(&options.faults, &place);
        if !missing.is_empty() {
            let names: Vec<String> = missing.iter().map(|fault| fault.name()).collect();
            let note = format!("NOT TESTED, impossible on this host: {}.", names.join(", "));
            println!("{note}");
            if nth == 0 {
                report.note(note);
            }
        }
        let share = |total: u64| {
            total * (nth as u64 + 1) / sizes.len() as u64 - total * nth as u64 / sizes.len() as u64
        };
        let run = Run {
            binary: binary.clone(),
            size,
            seed: seed.wrapping_add(nth as u64),
            kills: share(options.kills),
            seconds: share(options.seconds),
            clients: options.clients,
            network: site.network(),
            faults,
        };
        let mut home = Scratch::create(site.data_dir(), "nemesis", false)?;
        match run.torment(place.again(), home.path()) {
            Ok(row) => rows.push(row),
            Err(error) => {
                home.keep();
                return Err(error);
            }
        }
    }
    let table = table(&rows);
    println!("{}", table.render());
    if options.report {
        report.table(table);
        for row in &rows {
            report.raw(row);
        }
        options.common.finish(&report)?;
    }
    let undecided: u64 = rows.iter().map(|row| row.counts.undecided).sum();
    match undecided {
        0 => Ok(()),
        n => Err(Error::Environment(format!(
            "{n} objects could not be decided within the judge's memory"
        ))),
    }
}

/// Which of the wanted faults this host allows, and which it does not.
fn allowed(wanted: &[Fault], place: &Place) -> (Vec<Fault>, Vec<Fault>) {
    let wanted = match wanted {
        [] => Fault::all(),
        some => some,
    };
    wanted.iter().partition(|fault| place.meets(fault.need()))
}

/// One size's torment.
struct Run {
    binary: PathBuf,
    size: usize,
    seed: u64,
    kills: u64,
    seconds: u64,
    clients: usize,
    network: [u8; 3],
    faults: Vec<Fault>,
}

impl Run {
    fn torment(&self, place: Place, home: &std::path::Path) -> Result<Row> {
        let began = Instant::now();
        let needs = |needs: &[Need]| self.faults.iter().any(|f| needs.contains(&f.need()));
        let recording = needs(&[Need::Recorder]);
        let own_disks = recording || needs(&[Need::Disk, Need::Throttle]);
        let disk = |place: &std::path::Path| match own_disks {
            true => Disk::create(place, recording).map(Some),
            false => Ok(None),
        };
        let mut servers = Servers::new(&self.binary, home, self.network, self.size, disk)?;
        let mut torment = Torment::new(place, self.faults.clone(), self.size, self.seed);
        let mut counts = Counts::default();
        let progress = Progress::new();
        for at in 0..self.size {
            servers.start(at)?;
        }
        let mut rounds = 0;
        let result: Result<()> = (|| {
            servers.wait_agreed(aftermath::EQUAL_MAX)?;
            register_node(&servers)?;
            while torment.done.kills < self.kills
                || began.elapsed().as_secs() < self.seconds
                || rounds == 0
            {
                rounds += 1;
                self.round(rounds, &mut servers, &mut torment, &mut counts, home)?;
                progress.line(format!(
                    "{} servers, round {rounds}: {} kills, {} operations judged, {:.0} s",
                    self.size,
                    torment.done.kills,
                    counts.operations,
                    began.elapsed().as_secs_f64()
                ));
            }
            Ok(())
        })();
        progress.clear();
        if let Err(error) = result {
            aftermath::save_data(&mut servers, home);
            let seed = format!(
                "seed {}, round {rounds}, {:?}: {error}",
                self.seed, torment.done
            );
            return Err(Error::Violation(seed));
        }
        Ok(Row {
            servers: self.size,
            seed: self.seed,
            rounds,
            seconds: began.elapsed().as_secs_f64(),
            done: torment.done.clone(),
            counts,
        })
    }

    fn round(
        &self,
        number: u64,
        servers: &mut Servers,
        torment: &mut Torment,
        counts: &mut Counts,
        home: &std::path::Path,
    ) -> Result<()> {
        let stage = Stage::new(format!("n{number}/"), servers.http(), servers.native());
        let clients = Clients::start(&stage, self.clients, self.seed.wrapping_add(number << 20));
        let tormented = self.cycles(&stage, servers, torment);
        let mut history = History {
            operations: clients.finish(),
        };
        let judged = tormented.and_then(|()| {
            if let Some(odd) = stage.odd().first() {
                let what = format!("an answer that no server should give: {odd}");
                return Err(Error::Violation(what));
            }
            let rows = aftermath::wait_equal(servers, &stage.prefix)?;
            aftermath::read_all(servers, &stage, &mut history)?;
            let mut found = Counts::of(&history);
            let verdict = aftermath::judge(&history, &mut found);
            counts.add(&found);
            if found.acknowledged == 0 || rows.is_empty() {
                let what = "nothing was acknowledged: the round proves nothing";
                return Err(Error::Violation(what.into()));
            }
            verdict
        });
        judged.map_err(|error| aftermath::keep(&error, Some(&history), home))?;
        forget(servers, &stage.prefix);
        Ok(())
    }

    fn cycles(
        &self,
        stage: &Arc<Stage>,
        servers: &mut Servers,
        torment: &mut Torment,
    ) -> Result<()> {
        let began = Instant::now();
        let until = (torment.done.kills + KILLS_PER_ROUND).min(self.kills.max(torment.done.kills));
        let mut cycles = 0;
        while (torment.done.kills < until || cycles == 0) && began.elapsed() < ROUND_MAX {
            torment.cycle(servers)?;
            cycles += 1;
            if cycles % CYCLES_PER_GENERATION == 0 {
                stage.next_generation();
            }
        }
        torment.heal(servers)?;
        servers.wait_agreed(aftermath::EQUAL_MAX)?;
        wait_for_service(|| stage.decided(), SERVED, aftermath::EQUAL_MAX, servers)
    }
}

/// Sessions are of a node that nobody tends, so that only clients end them.
fn register_node(servers: &Servers) -> Result<()> {
    let body = format!(r#"{{"Node":"{NODE}","Address":"127.0.0.9"}}"#);
    let deadline = Instant::now() + aftermath::EQUAL_MAX;
    let mut link = Http::new(servers.http()[0]);
    loop {
        let answer = link.ask("PUT", "/v1/catalog/register", body.as_bytes());
        match answer {
            Some(answer) if answer.body.starts_with(b"true") => return Ok(()),
            other if Instant::now() > deadline => {
                return Err(Error::Server(format!(
                    "a node cannot be registered: {other:?}"
                )));
            }
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Deletes a judged round's keys; if that fails they only take space.
fn forget(servers: &Servers, prefix: &str) {
    let mut link = Http::new(servers.http()[0]);
    link.ask("DELETE", &format!("/v1/kv/{prefix}?recurse"), b"");
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(
        "Torment of real servers: what was done, and what clients saw, judged",
        &[
            "servers",
            "seed",
            "rounds",
            "s",
            "kills",
            "leaders",
            "faults",
            "operations",
            "acknowledged",
            "refused",
            "unknown",
            "reads",
            "objects",
            "undecided",
            "violations",
        ],
    );
    for row in rows {
        let faults: Vec<String> = row
            .done
            .faults
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        table.row(vec![
            row.servers.to_string(),
            row.seed.to_string(),
            row.rounds.to_string(),
            format!("{:.0}", row.seconds),
            row.done.kills.to_string(),
            row.done.leaders_killed.to_string(),
            faults.join(", "),
            row.counts.operations.to_string(),
            row.counts.acknowledged.to_string(),
            row.counts.refused.to_string(),
            row.counts.unknown.to_string(),
            row.counts.reads.to_string(),
            row.counts.objects.to_string(),
            row.counts.undecided.to_string(),
            "0".into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_does_not_allow_is_named_and_not_run() {
        let (faults, missing) = allowed(&[], &Place::bare());
        assert!(faults.contains(&Fault::Kill) && faults.contains(&Fault::Rot));
        assert!(missing.contains(&Fault::Cut) && missing.contains(&Fault::Power));
        assert_eq!(faults.len() + missing.len(), Fault::all().len());
    }
}
