//! What is left of a run, so that somebody else can judge and repeat it?
//!
//! `perf-reports/<kind>/<date>-<commit>/`: `report.md` to read, `raw.json` with every figure, and
//! `histograms.hlog`, all latency histograms in HdrHistogram's interval log format (V2 compressed,
//! base64), tagged by rung, which every HdrHistogram tool reads. A second run on the same day and
//! commit gets a number; nothing is ever overwritten.

pub mod row;
pub mod table;

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use serde::Serialize;
use serde_json::{Value, json};

use crate::machine::{Machine, command_line, today};
use crate::{Context, Error, Result};
use table::Table;

const ABOUT_LATENCIES: &str = "Servers and load generator share these cores. Latencies in \
    milliseconds, from just before the request is sent to its whole answer; closed loop. \
    Histograms: `histograms.hlog` (HdrHistogram interval log, nanoseconds).";

/// A report in the making.
pub struct Report {
    kind: &'static str,
    about: &'static str,
    machine: Machine,
    command: String,
    started: SystemTime,
    tables: Vec<Table>,
    notes: Vec<String>,
    rows: Vec<Value>,
    histograms: Vec<(String, Histogram<u64>)>,
}

impl Report {
    /// A report of `kind`, which names its folder.
    pub fn new(kind: &'static str, machine: Machine) -> Self {
        Self {
            kind,
            about: ABOUT_LATENCIES,
            machine,
            command: command_line(std::env::args()),
            started: SystemTime::now(),
            tables: Vec::new(),
            notes: Vec::new(),
            rows: Vec::new(),
            histograms: Vec::new(),
        }
    }

    /// Says what the figures are, instead of latencies of requests to servers.
    pub fn about(&mut self, about: &'static str) {
        self.about = about;
    }

    /// Adds a table; it is printed as well.
    pub fn table(&mut self, table: Table) {
        println!("\n{}", table.render());
        self.tables.push(table);
    }

    /// Adds a sentence that a reader needs to judge the figures; it is printed as well.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        println!("* {note}");
        self.notes.push(note);
    }

    /// Adds one row of raw figures.
    pub fn raw(&mut self, row: &impl Serialize) {
        self.rows
            .push(serde_json::to_value(row).expect("rows are plain data"));
    }

    /// Adds a histogram of nanoseconds under a tag, e.g. `curia-native-put-n3-c256`.
    pub fn histogram(&mut self, tag: impl Into<String>, histogram: &Histogram<u64>) {
        self.histograms.push((tag.into(), histogram.clone()));
    }

    /// Writes all files below `root` and returns their folder.
    pub fn write(&self, root: &Path) -> Result<PathBuf> {
        let dir = self.new_dir(root)?;
        let file = |name: &str| dir.join(name);
        let put = |path: PathBuf, text: String| {
            fs::write(&path, text).context(|| format!("write {}", path.display()))
        };
        put(file("report.md"), self.markdown())?;
        let raw = json!({
            "kind": self.kind,
            "command": self.command,
            "machine": self.machine,
            "started": humantime::format_rfc3339_seconds(self.started).to_string(),
            "notes": self.notes,
            "rows": self.rows,
        });
        let text = serde_json::to_string_pretty(&raw).expect("plain data");
        put(file("raw.json"), text + "\n")?;
        if !self.histograms.is_empty() {
            let path = file("histograms.hlog");
            write_histograms(&path, self.started, &self.histograms)?;
        }
        println!("\nreport: {}", dir.display());
        Ok(dir)
    }

    fn new_dir(&self, root: &Path) -> Result<PathBuf> {
        let parent = root.join(self.kind);
        fs::create_dir_all(&parent).context(|| {
            format!(
                "create {} (pass another --report-dir, or --no-report)",
                parent.display()
            )
        })?;
        let base = format!("{}-{}", today(), self.machine.commit);
        for n in 1.. {
            let name = if n == 1 {
                base.clone()
            } else {
                format!("{base}-{n}")
            };
            let dir = parent.join(name);
            match fs::create_dir(&dir) {
                Ok(()) => return Ok(dir),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e).context(|| format!("create {}", dir.display())),
            }
        }
        unreachable!("the loop has no end")
    }

    fn markdown(&self) -> String {
        let m = &self.machine;
        let mut out = format!(
            "# {}\n\n    {}\n\n\
             Commit `{}`, {}. {} × {}{}, {} MiB memory, {}; data on {}. \
             {} Raw figures: `raw.json`.\n",
            self.kind,
            self.command,
            m.commit,
            humantime::format_rfc3339_seconds(self.started),
            m.cores,
            m.cpu,
            if m.virtualised { " (virtual)" } else { "" },
            m.memory_mib,
            m.kernel,
            m.data_on,
            self.about,
        );
        for table in &self.tables {
            out += "\n";
            out += &table.render();
        }
        if !self.notes.is_empty() {
            out += "\nNotes\n\n";
            for note in &self.notes {
                out += &format!("* {note}\n");
            }
        }
        out
    }
}

fn write_histograms(
    path: &Path,
    started: SystemTime,
    all: &[(String, Histogram<u64>)],
) -> Result<()> {
    let what = || format!("write {}", path.display());
    let mut file = BufWriter::new(File::create(path).context(what)?);
    let mut serializer = V2DeflateSerializer::new();
    let failed = |e: &dyn std::fmt::Debug| Error::Io {
        what: what(),
        source: io::Error::other(format!("{e:?}")),
    };
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(
            "latencies in nanoseconds, one line per rung; the interval columns mean nothing",
        )
        .with_start_time(started)
        .with_max_value_divisor(1e6)
        .begin_log_with(&mut file, &mut serializer)
        .map_err(|e| failed(&e))?;
    for (tag, histogram) in all {
        let tag = Tag::new(tag).ok_or_else(|| failed(&format!("tag {tag:?}")))?;
        log.write_histogram(histogram, Duration::ZERO, Duration::from_secs(1), Some(tag))
            .map_err(|e| failed(&e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::new_histogram;
    use base64::Engine as _;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn machine() -> Machine {
        Machine {
            cpu: "Some CPU".into(),
            cores: 2,
            memory_mib: 1024,
            kernel: "Linux 6".into(),
            virtualised: true,
            data_on: "ext4 on vda".into(),
            commit: "abc1234".into(),
        }
    }

    fn report() -> Report {
        let mut report = Report::new("commit-latency", machine());
        let mut table = Table::new("Title", &["servers"]);
        table.row(vec!["3".into()]);
        report.table(table);
        report.note("A note.");
        report.raw(&json!({"servers": 3, "p50_ns": 214_000}));
        let mut histogram = new_histogram();
        histogram.record_n(214_000, 1000).unwrap();
        histogram.record(9_000_000).unwrap();
        report.histogram("curia-http-put-n3-c1", &histogram);
        report
    }

    #[test]
    fn a_report_says_what_is_needed_to_judge_it() {
        let root = tempfile::tempdir().unwrap();
        let dir = report().write(root.path()).unwrap();
        let text = fs::read_to_string(dir.join("report.md")).unwrap();
        for needed in [
            "abc1234",
            "2 × Some CPU (virtual)",
            "ext4 on vda",
            "| servers |",
            "* A note.",
        ] {
            assert!(text.contains(needed), "{needed} in {text}");
        }
        let raw: Value = serde_json::from_slice(&fs::read(dir.join("raw.json")).unwrap()).unwrap();
        assert_eq!(raw["rows"][0]["p50_ns"], 214_000);
        assert_eq!(raw["machine"]["commit"], "abc1234");
    }

    #[test]
    fn histograms_can_be_read_back_by_tag() {
        let root = tempfile::tempdir().unwrap();
        let dir = report().write(root.path()).unwrap();
        let log = fs::read(dir.join("histograms.hlog")).unwrap();
        let interval = IntervalLogIterator::new(&log)
            .find_map(|entry| match entry.unwrap() {
                LogEntry::Interval(interval) => Some(interval),
                _ => None,
            })
            .unwrap();
        assert_eq!(interval.tag().unwrap().as_str(), "curia-http-put-n3-c1");
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(interval.encoded_histogram())
            .unwrap();
        let histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .unwrap();
        assert_eq!(histogram.len(), 1001);
        assert!(histogram.equivalent(histogram.value_at_quantile(0.5), 214_000));
    }

    #[test]
    fn nothing_is_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let dirs = [(); 3].map(|()| report().write(root.path()).unwrap());
        assert!(dirs[0] != dirs[1] && dirs[1] != dirs[2]);
        assert!(dirs[2].to_str().unwrap().ends_with("abc1234-3"));
    }
}
