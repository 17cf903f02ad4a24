//! `curia-bench pairs`: is one build slower than another?
//!
//! Two clusters, one of each build, take turns under the same load: the machine's noise falls on
//! both. Each pair of turns gives a ratio, after to before; which of the two goes first alternates.
//! The median is the verdict, the spread says what it is worth.

use clap::Args;
use serde::Serialize;

use super::{Common, LadderOptions, Progress, ShapeOptions};
use crate::cluster::Product;
use crate::load::Unwatched;
use crate::report::table::{Table, number};
use crate::subject::{Protocol, Subject};
use crate::{Error, Result};
use std::path::PathBuf;

/// Options of the sub-command.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// The curia executable to compare with.
    #[arg(long)]
    before: PathBuf,
    /// The curia executable that is judged [default: the one beside this executable].
    #[arg(long)]
    after: Option<PathBuf>,
    #[command(flatten)]
    shape: ShapeOptions,
    #[command(flatten)]
    ladder: LadderOptions,
    /// Servers of each cluster.
    #[arg(long, default_value_t = 3)]
    servers: usize,
    /// How the servers are asked.
    #[arg(long, value_enum, default_value = "http")]
    protocol: Protocol,
    /// Pairs of turns.
    #[arg(long, default_value_t = 10)]
    pairs: usize,
}

#[derive(Serialize)]
struct Row {
    in_flight: usize,
    pair: usize,
    before: f64,
    after: f64,
    ratio: f64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    options.ladder.check()?;
    if options.pairs == 0 {
        return Err(Error::Usage("--pairs must be at least 1".into()));
    }
    let product = |path: Option<&PathBuf>| -> Result<Product> {
        let path = match path {
            Some(path) => path.clone(),
            None => super::beside_us("curia")?,
        };
        match path.is_file() {
            true => Ok(Product::Curia(path)),
            false => Err(Error::Usage(format!(
                "there is no curia executable at {}",
                path.display()
            ))),
        }
    };
    let products = [
        product(Some(&options.before))?,
        product(options.after.as_ref())?,
    ];
    let site = options.common.site()?;
    let mut report = options.common.report("pairs", &site);
    let mut progress = Progress::new();
    let mut subjects = Vec::new();
    for (at, product) in products.into_iter().enumerate() {
        progress.say(format!("start cluster {}", at + 1));
        let mut place = site.place();
        place.network[2] = place.network[2].wrapping_add(at as u8);
        let data_dir = site.data_dir().join(["before", "after"][at]);
        std::fs::create_dir_all(&data_dir).map_err(|e| Error::Usage(e.to_string()))?;
        place.data_dir = &data_dir;
        let mut subject = Subject::start(
            product,
            options.protocol,
            options.servers,
            options.shape.shape(),
            &place,
        )?;
        subject.fill(&mut progress)?;
        subjects.push(subject);
    }
    let mut table = Table::new(
        format!(
            "{:?} over {}, {} servers, {} pairs: after to before",
            options.ladder.op,
            options.protocol.name(),
            options.servers,
            options.pairs
        ),
        &[
            "in flight",
            "before per s",
            "after per s",
            "median ratio",
            "least",
            "greatest",
        ],
    );
    for &in_flight in &options.ladder.in_flight {
        let rows = turns(options, in_flight, &mut subjects, &mut progress)?;
        for row in &rows {
            report.raw(row);
        }
        table.row(cells(in_flight, &rows));
    }
    progress.clear();
    report.table(table);
    options.common.finish(&report)
}

fn turns(
    options: &Options,
    in_flight: usize,
    subjects: &mut [Subject],
    progress: &mut Progress,
) -> Result<Vec<Row>> {
    let rung = options.ladder.slice(in_flight, 1);
    for subject in subjects.iter_mut() {
        subject.warm_up(&rung, options.ladder.warm_up)?;
    }
    let mut rows = Vec::new();
    for pair in 0..options.pairs {
        progress.say(format!("{in_flight} in flight, pair {}", pair + 1));
        let mut rates = [0.0; 2];
        let order = if pair % 2 == 0 { [0, 1] } else { [1, 0] };
        for at in order {
            let outcome = subjects[at].drive(&rung, &mut Unwatched)?;
            if outcome.failed() > 0 {
                let what = format!("requests failed: {:?}", outcome.errors);
                return Err(subjects[at].cluster().failure(&what));
            }
            rates[at] = outcome.rate();
        }
        let [before, after] = rates;
        rows.push(Row {
            in_flight,
            pair,
            before,
            after,
            ratio: after / before,
        });
    }
    Ok(rows)
}

fn cells(in_flight: usize, rows: &[Row]) -> Vec<String> {
    let ratios = sorted(rows.iter().map(|row| row.ratio));
    vec![
        in_flight.to_string(),
        number(median(&sorted(rows.iter().map(|row| row.before)))),
        number(median(&sorted(rows.iter().map(|row| row.after)))),
        format!("{:.3}", median(&ratios)),
        format!("{:.3}", ratios.first().copied().unwrap_or_default()),
        format!("{:.3}", ratios.last().copied().unwrap_or_default()),
    ]
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The middle of sorted values, or the mean of the two in the middle.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        length if length % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert_eq!(median(&sorted([9.0, 1.0, 2.0].into_iter())), 2.0);
    }
}
