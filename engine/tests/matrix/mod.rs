//! The table, and the cluster that is asked.
//!
//! What is wrong is collected, so that one run shows all of it.

pub mod raw;
mod rights;
mod row;
mod spellings;
mod table;
mod waits;

use std::collections::BTreeMap;

use super::cluster::{
    acl::{ROOT, accessor, bearer, guarded},
    check,
    group::Group,
    server::Server,
    wait_for,
};
use engine::server::http::ROUTES;
use raw::{Answer, ask, ask_with};
pub use row::Row;
use row::{Ask, Mark, Right};
use serde_json::json;

/// Servers of the cluster: a leader and those who are not.
const SERVERS: usize = 3;
/// Longer than any body may be, bytes.
const TOO_LONG_BYTES: usize = 1 << 30;

/// Every row of the table.
pub fn rows() -> Vec<Row> {
    [
        table::kv::rows(),
        table::acl::rows(),
        table::agent::rows(),
        table::catalog::rows(),
        table::cluster::rows(),
        table::queries::rows(),
    ]
    .concat()
}

/// Three servers with ACLs on, and what they did wrong.
pub struct World {
    group: Group,
    wrong: Vec<String>,
    asked: u64,
    /// Secret and accessor of tokens by their rules.
    bearers: BTreeMap<String, (String, String)>,
}

/// A request with its places filled.
pub struct Filled {
    pub method: &'static str,
    pub path: String,
    pub body: String,
    number: String,
    id: String,
}

impl Filled {
    fn fill(&self, text: &str) -> String {
        text.replace("$N", &self.number).replace("$ID", &self.id)
    }
}

impl World {
    pub fn new() -> Self {
        Self {
            group: guarded(SERVERS, json!({})),
            wrong: Vec::new(),
            asked: 0,
            bearers: BTreeMap::new(),
        }
    }

    /// The one that most is asked of.
    fn server(&self) -> &Server {
        &self.group.servers[0]
    }

    /// What the rows take for granted.
    pub fn settle(&mut self) {
        for before in table::catalog::BEFORE {
            self.root(before, "");
        }
    }

    /// Has a request of the all-powerful answered, which must succeed.
    fn root(&mut self, request: &Ask, id: &str) -> Answer {
        self.asked += 1;
        let number = self.asked.to_string();
        self.root_as(request, &number, id)
    }

    fn root_as(&self, request: &Ask, number: &str, id: &str) -> Answer {
        let fill = |text: &str| text.replace("$N", number).replace("$ID", id);
        let (path, body) = (fill(request.path), fill(request.body));
        let answer = ask(self.server(), request.method, &path, &body, ROOT);
        let Ask { method, .. } = request;
        assert_eq!(answer.status, 200, "{method} {path} {body}: {answer}");
        answer
    }

    /// A row's request with its places filled, after what comes before it.
    fn fill(&mut self, row: &Row) -> Filled {
        self.asked += 1;
        let number = self.asked.to_string();
        let mut id = String::new();
        if let Some(before) = &row.before {
            let made = self.root_as(before, &number, "").json();
            let named = made["AccessorID"].as_str().or(made["ID"].as_str());
            named.unwrap_or_default().clone_into(&mut id);
        }
        let mut filled = Filled {
            method: row.route.0,
            path: String::new(),
            body: String::new(),
            number,
            id,
        };
        (filled.path, filled.body) = (filled.fill(row.path), filled.fill(row.body));
        filled
    }

    fn ask(&self, request: &Filled, token: &str) -> Answer {
        let Filled {
            method, path, body, ..
        } = request;
        ask(self.server(), method, path, body, token)
    }

    fn wrong(&mut self, request: &Filled, who: &str, expected: &str, answer: &Answer) {
        let Filled {
            method, path, body, ..
        } = request;
        self.wrong.push(format!(
            "{method} {path} {body} as {who}: expected {expected}, was {answer}"
        ));
    }

    /// Notes an answer that has not this status, or does not contain this.
    fn expect(&mut self, request: &Filled, who: &str, expected: (u16, &str), answer: &Answer) {
        let says = request.fill(expected.1);
        if answer.status != expected.0 || !answer.text().contains(&says) {
            let expected = format!("{} {says:?}", expected.0);
            self.wrong(request, who, &expected, answer);
        }
    }

    /// Does it what it is there for?
    pub fn is_there(&mut self, row: &Row) {
        if !row.only_denied {
            let request = self.fill(row);
            let answer = self.ask(&request, ROOT);
            self.expect(&request, "root", row.succeeds, &answer);
        }
    }

    /// Is each mistake refused in its words, by whoever it is made?
    pub fn errors(&mut self, row: &Row) {
        for wrong in &row.errors {
            let mut request = self.fill(row);
            request.path = request.fill(wrong.path);
            request.body = request.fill(match wrong.body {
                "" => row.body,
                body => body,
            });
            let answer = self.ask(&request, ROOT);
            self.expect(&request, "root", (wrong.status, wrong.says), &answer);
        }
        if row.route.1 == "/" || row.only_denied {
            return;
        }
        self.wrong_methods(row);
        let all: [(&str, u16, &str, bool); 6] = [
            ("dc=elsewhere", 500, "No path to datacenter", true),
            (
                "made-up=1",
                400,
                "Unknown query parameter \"made-up\"",
                true,
            ),
            (
                "stale&consistent",
                400,
                "Cannot specify ?stale with ?consistent, conflicting semantics.",
                row.modes,
            ),
            (
                "max_stale=x",
                400,
                "Invalid max_stale value \"x\"",
                row.modes,
            ),
            ("index=x", 400, "Invalid index", self.has_index(row)),
            ("wait=x", 400, "Invalid wait time", row.blocking.is_some()),
        ];
        for (query, status, says, concerns) in all {
            if concerns {
                let mut request = self.fill(row);
                request.path = with(&request.path, query);
                let answer = self.ask(&request, ROOT);
                self.expect(&request, "root", (status, says), &answer);
            }
        }
        if row.json {
            let mut request = self.fill(row);
            request.body = "{".to_owned();
            let answer = self.ask(&request, ROOT);
            let says = match row.route.1 {
                "/v1/txn" => "Failed to parse body: ",
                _ => " decod",
            };
            self.expect(&request, "root", (400, says), &answer);
        }
        if !row.body.is_empty() {
            let request = self.fill(row);
            let path = &request.path;
            let answer = ask_with(
                self.server(),
                request.method,
                path,
                "",
                TOO_LONG_BYTES,
                ROOT,
            );
            self.expect(&request, "root, very long,", (413, "equest body"), &answer);
        }
    }

    fn has_index(&self, row: &Row) -> bool {
        row.blocking
            .is_some_and(|blocking| blocking.mark != Mark::Hash)
    }

    /// A method that the route does not know is said before anything else, and which it knows.
    fn wrong_methods(&mut self, row: &Row) {
        let mut all = ROUTES.iter();
        let served = all.find(|served| served.pattern == row.route.1);
        let Some(served) = served else { return };
        let names: Vec<&str> = served.methods.iter().map(|m| m.as_str()).collect();
        let allow = format!("OPTIONS,{}", names.join(","));
        for method in ["GET", "PUT", "POST", "DELETE", "OPTIONS"] {
            if names.contains(&method) {
                continue;
            }
            let mut request = self.fill(row);
            (request.method, request.body) = (method, String::new());
            let answer = self.ask(&request, "");
            let expected = match method {
                "OPTIONS" => (200, String::new()),
                _ => (405, format!("method {method} not allowed")),
            };
            self.expect(&request, "nobody", (expected.0, &expected.1), &answer);
            if answer.header("allow") != allow {
                let got = format!("Allow: {allow}, got {:?}", answer.header("allow"));
                self.wrong(&request, "nobody", &got, &answer);
            }
        }
    }

    /// Does every server answer it, in every mode, and say how fresh it is?
    pub fn modes(&mut self, row: &Row) {
        if !row.modes {
            return;
        }
        let request = self.fill(row);
        let says = request.fill(row.succeeds.1);
        for at in 0..SERVERS {
            for mode in ["", "stale", "consistent"] {
                let path = with(&request.path, mode);
                let server = &self.group.servers[at];
                // What is stale may be behind what was just made.
                wait_for(&format!("{path} of server {at}"), || {
                    let answer = ask(server, request.method, &path, "", ROOT);
                    let found = answer.status == row.succeeds.0 && answer.text().contains(&says);
                    check(found, || format!("{answer}, no {says:?}"))?;
                    if row.route.1.starts_with("/v1/operator/") {
                        return Ok(());
                    }
                    let knows = answer.header("x-consul-knownleader");
                    check(knows == "true", || format!("known leader {knows:?}"))?;
                    for number in ["x-consul-index", "x-consul-lastcontact"] {
                        let text = answer.header(number);
                        let is = text.parse::<u64>().is_ok();
                        check(is, || format!("{number}: {text:?}"))?;
                    }
                    Ok(())
                });
            }
        }
    }

    /// Secret and accessor of a token with these rules.
    fn bearer(&mut self, rules: &str) -> (String, String) {
        if let Some(known) = self.bearers.get(rules) {
            return known.clone();
        }
        let name = format!("matrix-{}", self.bearers.len());
        let secret = bearer(self.server(), &name, rules);
        let made = (secret.clone(), accessor(self.server(), &secret));
        self.bearers.insert(rules.to_owned(), made.clone());
        made
    }

    /// Shows all that was wrong.
    pub fn judge(&self) {
        assert!(
            self.wrong.is_empty(),
            "{} of the matrix's answers are not those of its table:\n{}",
            self.wrong.len(),
            self.wrong.join("\n")
        );
    }
}

/// A path with more of a query.
fn with(path: &str, query: &str) -> String {
    match (query, path.contains('?')) {
        ("", _) => path.to_owned(),
        (_, true) => format!("{path}&{query}"),
        (_, false) => format!("{path}?{query}"),
    }
}
