//! Does a blocking query return at a change that concerns it, and at no other?

use std::{
    thread::{scope, sleep},
    time::Duration,
};

use super::{
    super::cluster::{
        acl::{accessor, bearer},
        check, wait_for,
    },
    ROOT, Right, Row, World, ask,
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
        let (header, param) = blocking.mark.names();
        let mark = first.header(header).to_owned();
        assert!(!mark.is_empty(), "{}: no {header}", request.path);
        let path = with(&request.path, &format!("{param}={mark}&wait=30s"));
        let id = request.id.clone();
        let (mut early, mut last) = (false, None);
        let numbers = [self.asked + 1, self.asked + 2].map(|number| number.to_string());
        self.asked += 2;
        scope(|threads| {
            let waiter = threads.spawn(|| ask(self.server(), request.method, &path, "", ROOT));
            self.wait_for_waiter(|| waiter.is_finished());
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

    /// Who may no longer ask when the answer is there is not given it. What is about one thing (a
    /// node's coordinate, a config entry) was once only judged when the question came.
    pub fn ended_rights(&mut self, row: &Row) {
        let (Right::Needs { rule, .. } | Right::Hides { rules: rule, .. }) = row.right else {
            return;
        };
        let Some(blocking) = row.blocking else {
            return;
        };
        // The end of the token is itself what this one waits for, and may be heard of there first.
        if row.route.1 == "/v1/acl/tokens" {
            return;
        }
        self.asked += 1;
        let name = format!("ends-{}", self.asked);
        let secret = bearer(self.server(), &name, &rule.replace("$A", "read"));
        let token = format!("/v1/acl/token/{}", accessor(self.server(), &secret));
        let request = self.fill(row);
        let first = self.ask(&request, &secret);
        self.expect(&request, "one who may read", row.succeeds, &first);
        let (header, param) = blocking.mark.names();
        let query = format!("{param}={}&wait=30s", first.header(header));
        let path = with(&request.path, &query);
        self.asked += 1;
        let number = self.asked.to_string();
        let answer = scope(|threads| {
            let waiter = threads.spawn(|| ask(self.server(), request.method, &path, "", &secret));
            self.wait_for_waiter(|| waiter.is_finished());
            let deleted = ask(self.server(), "DELETE", &token, "", ROOT);
            assert_eq!(deleted.status, 200, "{token}: {deleted}");
            // Whatever wakes the waiter must not come before this server has heard of it.
            wait_for("the end of a token", || {
                let known = ask(self.server(), "GET", "/v1/agent/members", "", &secret);
                check(known.status == 403, || known.to_string())
            });
            self.root_as(&blocking.wakes, &number, &request.id);
            waiter.join().expect("the waiter is answered")
        });
        if (answer.status, answer.text().as_str()) != (403, "ACL not found") {
            let who = "one whose token was deleted while it waited";
            self.wrong(&request, who, "403 \"ACL not found\"", &answer);
        }
    }

    /// Waits until one waits, or waits no longer.
    fn wait_for_waiter(&self, is_over: impl Fn() -> bool) {
        wait_for("a waiter", || {
            let waiting = self.waiting();
            check(waiting == 1.0 || is_over(), || format!("{waiting} wait"))
        });
    }

    fn waiting(&self) -> f64 {
        let metrics = ask(self.server(), "GET", "/v1/agent/metrics", "", ROOT).json();
        let mut all = metrics["Gauges"].as_array().into_iter().flatten();
        let found = all.find(|gauge| gauge["Name"] == "curia.http.requests_waiting");
        let value = found.and_then(|gauge| gauge["Value"].as_f64());
        value.expect("a gauge of waiters")
    }
}
