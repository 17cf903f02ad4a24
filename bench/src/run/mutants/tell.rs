//! What is said of the hunts?

use std::{fmt::Write as _, fs, path::Path};

use super::{
    Options,
    hunt::{Control, Hunt},
};
use crate::{
    Context, Result,
    machine::{Machine, command_line, today},
    report::table::Table,
    volume::Volume,
};

/// Longest reason in the table, characters.
const WHY_CHARS_MAX: usize = 110;

/// By what a mutant was found, from what was said of it.
const CHECKERS: &[(&str, &str)] = &[
    (
        "panic: a message that needs batch",
        "effect order (assertion)",
    ),
    ("panic", "assertion in the engine"),
    ("no end", "time of a seed"),
    ("both lead in term", "election safety"),
    ("sends another entry", "log matching"),
    ("was committed", "committed entries"),
    ("nobody has applied", "committed entries"),
    ("the state of server", "equal digests"),
    ("stopped: state differs", "digest checks in the log"),
    ("stopped:", "a server stops"),
    ("finds its log damaged", "recovery"),
    ("does not start", "recovery"),
    ("does not open", "recovery"),
    ("no liveness", "liveness"),
    ("is acknowledged at index", "acknowledged is decided"),
    ("was refused as if", "refused is not done"),
    ("carried out twice", "carried out once"),
    ("answered twice", "answered once"),
    ("slept through", "watches"),
    ("woke for nothing", "watches"),
    ("index of", "indexes never fall"),
    ("operation", "linear-time judge"),
    ("server", "final states"),
];

fn checker(why: &str) -> &'static str {
    let found = CHECKERS.iter().find(|(said, _)| why.contains(said));
    found.map_or("other", |(_, checker)| checker)
}

fn shorten(why: &str) -> String {
    let why = why.replace(['|', '\n'], " ");
    match why.char_indices().nth(WHY_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &why[..end]),
        None => why,
    }
}

/// One hunt in a line, while others go on.
pub fn line(hunt: &Hunt) -> String {
    let name = hunt.mutant.name();
    let seconds = hunt.took.as_secs_f64();
    match &hunt.found {
        Some(found) => format!(
            "{name}: found after {} seeds, {seconds:.1} s; SEED={}: {}",
            hunt.seeds, found.seed, found.why
        ),
        None => format!(
            "{name}: NOT FOUND in {} seeds, {seconds:.1} s ({} of them fail without it too)",
            hunt.seeds, hunt.unsound
        ),
    }
}

/// The control run in a line.
pub fn control(control: &Control) -> String {
    let mut text = format!(
        "control: {} seeds without a mutant, {} operations, {:.1} s: {} failed",
        control.seeds,
        control.operations,
        control.took.as_secs_f64(),
        control.failures.len()
    );
    for (seed, why) in &control.failures {
        let _ = write!(text, "\n  SEED={seed}: {}", shorten(why));
    }
    text
}

fn rows(hunts: &[Hunt]) -> Table {
    let columns = [
        "mutant",
        "promise",
        "seeds",
        "s",
        "found by",
        "seed",
        "what was seen",
    ];
    let found = hunts.iter().filter(|hunt| hunt.found.is_some()).count();
    let mut table = Table::new(
        format!("{found} of {} mutants found", hunts.len()),
        &columns,
    );
    for hunt in hunts {
        let (by, seed, why) = match &hunt.found {
            Some(found) => (
                checker(&found.why).to_owned(),
                found.seed.to_string(),
                shorten(&found.why),
            ),
            None => ("NOT FOUND".to_owned(), String::new(), String::new()),
        };
        table.row(vec![
            hunt.mutant.name().to_owned(),
            hunt.mutant.promise().to_owned(),
            hunt.seeds.to_string(),
            format!("{:.1}", hunt.took.as_secs_f64()),
            by,
            seed,
            why,
        ]);
    }
    table
}

/// Prints the table.
pub fn table(hunts: &[Hunt]) {
    println!("\n{}", rows(hunts).render());
}

/// Writes `reliability/<date>-<commit>-mutants.md`.
pub fn write(options: &Options, control_run: &Control, hunts: &[Hunt]) -> Result<()> {
    let machine = Machine::describe(&Volume::of(Path::new("."))?);
    let dir = options.report_dir.join("reliability");
    fs::create_dir_all(&dir).context(|| format!("create {}", dir.display()))?;
    let base = format!("{}-{}-mutants", today(), machine.commit);
    let names = (1..).map(|no| match no {
        1 => format!("{base}.md"),
        no => format!("{base}-{no}.md"),
    });
    let mut paths = names.map(|name| dir.join(name));
    let path = paths.find(|path| !path.exists()).expect("there is no last");
    let mut text = format!(
        "# Mutants\n\n    {}\n\nCommit `{}`; {} × {}. Each mutant is one planted fault \
         (`engine/src/mutant/planted.rs`); seeds run from {} on, at most {} and {} s for each, {} operations in each \
         seed, {} at a time. A finding counts only if the same seed passes without the mutant. Seconds are wall clock \
         on a machine that did other work as well.\n\n{}\n\n",
        command_line(std::env::args()),
        machine.commit,
        machine.cores,
        machine.cpu,
        options.first,
        options.seeds,
        options.seconds,
        options.operations,
        options.jobs,
        control(control_run),
    );
    text.push_str(&rows(hunts).render());
    text.push_str("\n## What each does wrong\n\n");
    for hunt in hunts {
        let _ = writeln!(text, "- `{}`: {}", hunt.mutant.name(), hunt.mutant.text());
    }
    fs::write(&path, text).context(|| format!("write {}", path.display()))?;
    println!("\nreport: {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_particular_checker_is_named() {
        assert_eq!(
            checker("server 2 stopped: state differs"),
            "digest checks in the log"
        );
        assert_eq!(checker("shard 0: operation 7: no"), "linear-time judge");
        assert_eq!(checker("shard 0: server 1: k differs"), "final states");
        assert_eq!(checker("?"), "other");
    }
}
