//! Does a blocking query return at a change that concerns it, and at no other?

use std::{
    thread::{scope, sleep},
    time::Duration,
};

use super::{
    super::cluster::{check, wait_for},
    ROOT, Row, World, ask,
    row::Mark,
    with,
};

/// How long a waiter is watched that should go on waiting. Longer finds more; none is too short to
/// be right.
const WATCHED: Duration = Duration::from_millis(50);

impl World {
    pub fn blocking(&mut self, row: &Row) {
        let Some(blocking) = row.blocking else {
            return;
        };
        let request = self.fill(row);
        let first = self.ask(&request, ROOT);
        let (header, param) = match blocking.mark {
            Mark::Hash => ("x-consul-contenthash", "hash"),
            Mark::Index | Mark::Id => ("x-consul-index", "index"),
        };
        let mark = first.header(header).to_owned();
        assert!(!mark.is_empty(), "{}: no {header}", request.path);
        let path = with(&request.path, &format!("{param}={mark}&wait=30s"));
        let id = request.id.clone();
        let (mut early, mut last) = (false, None);
        let numbers = [self.asked + 1, self.asked + 2].map(|number| number.to_string());
        self.asked += 2;
        scope(|threads| {
            let waiter = threads.spawn(|| ask(self.server(), request.method, &path, "", ROOT));
            wait_for("a waiter", || {
                let waiting = self.waiting();
                check(waiting == 1.0 || waiter.is_finished(), || {
                    format!("{waiting} wait")
                })
            });
            self.root_as(&blocking.sleeps, &numbers[0], &id);
            sleep(WATCHED);
            early = waiter.is_finished();
            self.root_as(&blocking.wakes, &numbers[1], &id);
            last = waiter.join().ok();
        });
        let answer = last.expect("the waiter was answered");
        if early {
            let what = format!(
                "to sleep through {} {}",
                blocking.sleeps.path, blocking.sleeps.body
            );
            self.wrong(&request, "root, waiting,", &what, &answer);
        }
        let mark_after = answer.header(header);
        let moved = match blocking.mark {
            Mark::Hash | Mark::Id => mark_after != mark,
            Mark::Index => mark_after.parse::<u64>().ok() > mark.parse().ok(),
        };
        if !moved || answer.status != 200 {
            let what = format!("{header} to move on from {mark}, was {mark_after}");
            self.wrong(&request, "root, waiting,", &what, &answer);
        }
    }

    fn waiting(&self) -> f64 {
        let metrics = ask(self.server(), "GET", "/v1/agent/metrics", "", ROOT).json();
        let mut all = metrics["Gauges"].as_array().into_iter().flatten();
        let found = all.find(|gauge| gauge["Name"] == "curia.http.requests_waiting");
        let value = found.and_then(|gauge| gauge["Value"].as_f64());
        value.expect("a gauge of waiters")
    }
}
