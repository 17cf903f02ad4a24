//! `/v1/agent/metrics`: what is counted here, in Consul's shapes and under the operator's names.
//!
//! ```text
//! gauges     as they are now               board, this executor's HTTP service, the process
//! counters   of the last whole interval    meters       (Prometheus: totals)
//! samples    the same, in ms
//!
//! consul.<name>    telemetry.metrics_prefix in place of `consul`; gauges with the host's name behind
//!                  it where Consul has it: with a sink (Prometheus's) and without disable_hostname
//! curia.<name>     ours, always by this name
//! ```
//!
//! `prefix_filter` is asked for the name without the host's: the longest prefix decides, and
//! `filter_default` where none fits. `/v1/agent/metrics/stream` tells the same document as a line of
//! JSON at once and then every interval, for as long as the client listens.

use std::{collections::BTreeMap, fmt::Write, fs, sync::Arc};

use bytes::Bytes;
use futures_lite::stream;
use glommio::timer::sleep;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::{
    agent,
    call::{Call, Outcome},
    failure::Refusal,
    json::Style,
    reply::{Content, Reply},
    watch::EventsBody,
};
use crate::server::{
    config::options::TelemetryOptions,
    gateway::Gateway,
    meters::{COUNTED, Figures, INTERVAL, Interval, Meters, TIMED, Times},
};

const CONSUL: &str = "consul.";

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Gauge {
    name: String,
    value: f64,
    labels: BTreeMap<String, String>,
}

/// A counter or a sample. Consul: `SampledValue`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Sampled {
    name: String,
    count: u64,
    rate: f64,
    sum: f64,
    min: f64,
    max: f64,
    mean: f64,
    stddev: f64,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    timestamp: String,
    gauges: Vec<Gauge>,
    points: [(); 0],
    counters: Vec<Sampled>,
    samples: Vec<Sampled>,
}

/// Under which names what is shown.
struct Names<'t> {
    telemetry: &'t TelemetryOptions,
    /// Empty for none.
    host: String,
}

impl<'t> Names<'t> {
    fn new(telemetry: &'t TelemetryOptions) -> Self {
        let with_host =
            !telemetry.prometheus_retention_time.is_zero() && !telemetry.disable_hostname;
        let host = match with_host {
            true => fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default(),
            false => String::new(),
        };
        Self {
            telemetry,
            host: host.trim().to_owned(),
        }
    }

    /// The name of something that is `name` in this code; `None` for what is not to be shown.
    fn shown(&self, name: &str, is_gauge: bool) -> Option<String> {
        let prefix = &self.telemetry.metrics_prefix;
        let Some(rest) = name.strip_prefix(CONSUL) else {
            return self.passes(name).then(|| name.to_owned());
        };
        let full = format!("{prefix}.{rest}");
        if !self.passes(&full) {
            return None;
        }
        Some(match (is_gauge, &*self.host) {
            (false, _) | (_, "") => full,
            (true, host) => format!("{prefix}.{host}.{rest}"),
        })
    }

    fn passes(&self, name: &str) -> bool {
        let fits = self.telemetry.prefix_filter.iter();
        let fits = fits.filter(|(prefix, _)| name.starts_with(&**prefix));
        let longest = fits.max_by_key(|(prefix, _)| prefix.len());
        longest.map_or(self.telemetry.filter_default, |(_, shown)| *shown)
    }

    fn gauges(&self, gauges: &BTreeMap<String, f64>) -> Vec<Gauge> {
        let shown = gauges.iter().filter_map(|(name, value)| {
            // A gauge's label, if it has one, stands behind its name: `name;label=value`.
            let (name, label) = name.split_once(';').unwrap_or((name, ""));
            let label = label.split_once('=');
            Some(Gauge {
                name: self.shown(name, true)?,
                value: *value,
                labels: label
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into_iter()
                    .collect(),
            })
        });
        shown.collect()
    }

    fn document(&self, gauges: &BTreeMap<String, f64>, last: &Interval) -> Document {
        let begun = humantime::format_rfc3339_seconds(last.begun).to_string();
        let counters = COUNTED.iter().zip(last.figures.counts);
        let samples = TIMED.iter().zip(&last.figures.times);
        Document {
            timestamp: begun.replace('T', " ").replace('Z', " +0000 UTC"),
            gauges: self.gauges(gauges),
            points: [],
            counters: counters
                .filter(|(_, count)| *count > 0)
                .filter_map(|(name, count)| Some(counter(self.shown(name, false)?, count)))
                .collect(),
            samples: samples
                .filter(|(_, times)| times.count > 0)
                .filter_map(|(name, times)| Some(sample(self.shown(name, false)?, times)))
                .collect(),
        }
    }

    /// Everything as Prometheus's text, version 0.0.4.
    fn prometheus(&self, gauges: &BTreeMap<String, f64>, totals: &Figures) -> String {
        let mut text = String::with_capacity(gauges.len() * 96);
        // Writing into memory does not fail.
        let mut before = String::new();
        let mut say = |name: &str, kind: &str, lines: &[(&str, String)]| {
            let name = underscored(name);
            if name != before {
                let _ = writeln!(text, "# HELP {name} {name}\n# TYPE {name} {kind}");
            }
            for (suffix, value) in lines {
                let _ = writeln!(text, "{name}{suffix} {value}");
            }
            before = name;
        };
        for gauge in self.gauges(gauges) {
            let labels = gauge.labels.iter();
            let labels: String = labels
                .map(|(name, of)| format!("{{{name}=\"{of}\"}}"))
                .collect();
            say(&gauge.name, "gauge", &[(&labels, gauge.value.to_string())]);
        }
        for (name, count) in COUNTED.iter().zip(totals.counts) {
            if let Some(name) = self.shown(name, false) {
                say(&name, "counter", &[("", count.to_string())]);
            }
        }
        for (name, times) in TIMED.iter().zip(&totals.times) {
            if let Some(name) = self.shown(name, false) {
                let sum_ms = (times.sum_us as f64 / 1e3).to_string();
                let lines = [("_sum", sum_ms), ("_count", times.count.to_string())];
                say(&name, "summary", &lines);
            }
        }
        text
    }
}

fn counter(name: String, count: u64) -> Sampled {
    Sampled {
        name,
        count,
        rate: count as f64 / INTERVAL.as_secs_f64(),
        sum: count as f64,
        min: 1.0,
        max: 1.0,
        mean: 1.0,
        stddev: 0.0,
        labels: BTreeMap::new(),
    }
}

fn sample(name: String, times: &Times) -> Sampled {
    let sum_ms = times.sum_us as f64 / 1e3;
    Sampled {
        name,
        count: times.count,
        rate: sum_ms / INTERVAL.as_secs_f64(),
        sum: sum_ms,
        min: times.min_us as f64 / 1e3,
        max: times.max_us as f64 / 1e3,
        mean: times.mean_ms(),
        stddev: times.deviation_ms(),
        labels: BTreeMap::new(),
    }
}

fn underscored(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    name.chars().map(plain).collect()
}

/// What the kernel says of this process's memory, bytes: what it allocated and uses, and all of it.
fn memory() -> [(&'static str, f64); 2] {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next());
        kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) as f64 * 1024.0
    };
    [
        ("consul.runtime.alloc_bytes", bytes("RssAnon:")),
        ("consul.runtime.sys_bytes", bytes("VmRSS:")),
    ]
}

/// `/v1/agent/metrics`.
pub(super) fn answer<G: Gateway>(call: &Call<'_, G>) -> Outcome<G> {
    let inner = call.inner;
    let source = Source::of(call);
    let names = Names::new(&source.telemetry);
    if call.params.get("format") != Some("prometheus") {
        let document = names.document(&source.gauges(inner.metrics()), &source.meters.last());
        let document = agent::document(&document, inner.style(call.params.pretty));
        return Ok(Reply::json(Content::Whole(document)));
    }
    if source.telemetry.prometheus_retention_time.is_zero() {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Prometheus is not enabled since its retention time is not positive",
        ));
    }
    let text = names.prometheus(&source.gauges(inner.metrics()), &source.meters.totals());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    let reply = Reply::new(StatusCode::OK, Content::Whole(text.into()));
    Ok(reply.header(header::CONTENT_TYPE, kind))
}

/// `/v1/agent/metrics/stream`.
pub(super) fn streamed<G: Gateway>(mut call: Call<'_, G>) -> Outcome<G> {
    call.admit_watch()?;
    let source = Source::of(&call);
    let told = (source, call.lifeline(), false);
    let body = stream::unfold(told, |(source, life, begun)| async move {
        if begun {
            life.until(sleep(INTERVAL)).await?;
        }
        let line = source.line();
        Some((Ok(line), (source, life, true)))
    });
    let body = Content::Events(EventsBody::of(body));
    let no_store = HeaderValue::from_static("no-store");
    Ok(Reply::json(body).header(header::CACHE_CONTROL, no_store))
}

/// Where figures come from.
struct Source<G> {
    gateway: G,
    telemetry: TelemetryOptions,
    meters: Arc<Meters>,
}

impl<G: Gateway> Source<G> {
    fn of(call: &Call<'_, G>) -> Self {
        let inner = call.inner;
        Self {
            gateway: inner.gateway.clone(),
            telemetry: inner.info.telemetry.clone(),
            meters: Arc::clone(inner.meter.meters()),
        }
    }

    fn gauges(&self, own: Vec<(&'static str, f64)>) -> BTreeMap<String, f64> {
        let mut gauges = self.gateway.metrics();
        for (name, value) in own.into_iter().chain(memory()) {
            gauges.entry(name.to_string()).or_insert(value);
        }
        gauges
    }

    /// One line of a stream.
    fn line(&self) -> Bytes {
        let names = Names::new(&self.telemetry);
        let document = names.document(&self.gauges(Vec::new()), &self.meters.last());
        let mut line = agent::document(&document, Style::Compact).to_vec();
        line.push(b'\n');
        line.into()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn names(telemetry: &TelemetryOptions) -> Names<'_> {
        Names {
            telemetry,
            host: "h1".to_owned(),
        }
    }

    #[test]
    fn names_are_the_operators() {
        let telemetry = TelemetryOptions {
            metrics_prefix: "acme".into(),
            ..TelemetryOptions::default()
        };
        let shown = |name, is_gauge| names(&telemetry).shown(name, is_gauge).unwrap();
        assert_eq!(
            shown("consul.server.isLeader", true),
            "acme.h1.server.isLeader"
        );
        assert_eq!(shown("consul.kvs.apply", false), "acme.kvs.apply");
        assert_eq!(shown("curia.log.batches", true), "curia.log.batches");
    }

    #[test]
    fn the_hosts_name_is_there_with_a_sink_only() {
        let mut telemetry = TelemetryOptions::default();
        assert_eq!(Names::new(&telemetry).host, "");
        telemetry.prometheus_retention_time = Duration::from_secs(60);
        assert_ne!(Names::new(&telemetry).host, "");
        telemetry.disable_hostname = true;
        assert_eq!(Names::new(&telemetry).host, "");
    }

    #[test]
    fn the_longest_prefix_decides() {
        let telemetry = TelemetryOptions {
            filter_default: false,
            prefix_filter: vec![
                ("consul.raft".into(), true),
                ("consul.raft.wal".into(), false),
            ],
            ..TelemetryOptions::default()
        };
        let shown = |name| names(&telemetry).shown(name, false).is_some();
        assert!(shown("consul.raft.last_index"));
        assert!(!shown("consul.raft.wal.log_appends"));
        assert!(!shown("consul.kvs.apply") && !shown("curia.log.batches"));
    }

    #[test]
    fn figures_have_consuls_shapes() {
        let telemetry = TelemetryOptions::default();
        let mut figures = Figures::default();
        figures.times[0] = Times {
            count: 2,
            sum_us: 4000,
            squares_us2: 10_000_000,
            min_us: 1000,
            max_us: 3000,
        };
        figures.counts[0] = 5;
        let last = Interval {
            begun: SystemTime::UNIX_EPOCH,
            figures,
        };
        let gauges = [("consul.server.isLeader".to_owned(), 1.0)].into();
        let document = names(&telemetry).document(&gauges, &last);
        let document = serde_json::to_value(&document).unwrap();
        assert_eq!(document["Timestamp"], "1970-01-01 00:00:00 +0000 UTC");
        assert_eq!(
            document["Samples"],
            serde_json::json!([{
                "Name": "consul.kvs.apply", "Count": 2, "Rate": 0.4, "Sum": 4.0, "Min": 1.0,
                "Max": 3.0, "Mean": 2.0, "Stddev": 2f64.sqrt(), "Labels": {},
            }])
        );
        assert_eq!(document["Counters"][0]["Name"], "consul.rpc.request");
        assert_eq!(document["Counters"][0]["Rate"], 0.5);
        let text = names(&telemetry).prometheus(&gauges, &figures);
        for line in [
            "# TYPE consul_h1_server_isLeader gauge\nconsul_h1_server_isLeader 1\n",
            "# TYPE consul_rpc_request counter\nconsul_rpc_request 5\n",
            "# TYPE consul_kvs_apply summary\nconsul_kvs_apply_sum 4\nconsul_kvs_apply_count 2\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
