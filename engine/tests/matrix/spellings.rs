//! Does a path mean the same to whoever routes it and to whoever judges it?
//!
//! With ACLs on, `GET /v%31/operator/raft/configuration` and `PUT /v%31/agent/reload` were once
//! carried out for everyone: the route was taken from the decoded path and the need from the one
//! that was sent, and what did not begin with `/v1/` needed nothing. So every row is asked for in
//! every spelling of its path: one that leads to the same route is answered as the plain one, and
//! every other one is not answered at all, not even to the all-powerful.

use super::{Filled, ROOT, Right, Row, World};

impl World {
    pub fn spellings(&mut self, row: &Row) {
        let is_read = row.route.0 == "GET";
        let is_denied = matches!(row.right, Right::Needs { .. });
        // What anyone may change is changed by each spelling; one of them is enough.
        if row.route.1 == "/" || !(is_read || is_denied) {
            return;
        }
        let plain = self.fill(row);
        let expected = self.ask(&plain, "");
        for path in same(&plain.path) {
            let request = respelt(&plain, path);
            let answer = self.ask(&request, "");
            if (answer.status, answer.text()) != (expected.status, expected.text()) {
                let expected = format!("as {}: {expected}", plain.path);
                self.wrong(&request, "nobody", &expected, &answer);
            }
            if is_read && !row.only_denied {
                let answer = self.ask(&request, ROOT);
                self.expect(&request, "root", row.succeeds, &answer);
            }
        }
        for path in others(&plain.path) {
            let request = respelt(&plain, path);
            for token in ["", ROOT] {
                let answer = self.ask(&request, token);
                if !matches!(answer.status, 301 | 404) {
                    self.wrong(&request, token, "301 or 404", &answer);
                }
            }
        }
    }
}

fn respelt(plain: &Filled, path: String) -> Filled {
    Filled {
        method: plain.method,
        path,
        body: plain.body.clone(),
        number: plain.number.clone(),
        id: plain.id.clone(),
    }
}

fn escaped(byte: u8) -> String {
    format!("%{byte:02x}")
}

/// Paths that decode to this one.
fn same(path: &str) -> Vec<String> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let every = |escape: &dyn Fn(usize, u8) -> bool| -> String {
        let bytes = path.bytes().enumerate();
        let spelt = bytes.map(|(at, byte)| match escape(at, byte) {
            true => escaped(byte),
            false => char::from(byte).to_string(),
        });
        spelt.collect()
    };
    let starts = |at: usize| at > 0 && path.as_bytes()[at - 1] == b'/';
    let family = path.find("/v1/").map_or(0, |at| at + "/v1".len());
    let all = [
        path.replacen("/v1/", "/v%31/", 1),
        path.replacen("/v1/", "/%76%31/", 1),
        every(&|at, byte| starts(at) && byte != b'/'),
        every(&|_, byte| byte != b'/'),
        every(&|_, byte| byte != b'/').to_uppercase(),
        // The slash itself, after the version.
        every(&|at, _| at == family),
        format!("http://elsewhere{path}"),
    ];
    let query = match query {
        "" => String::new(),
        query => format!("?{query}"),
    };
    all.iter().map(|path| format!("{path}{query}")).collect()
}

/// Paths that look like this one, and are none.
fn others(path: &str) -> Vec<String> {
    let below = path.strip_prefix("/v1/").expect("all but / are below it");
    let mut capital = below.to_owned();
    capital[..1].make_ascii_uppercase();
    vec![
        format!("//v1/{below}"),
        format!("/v1//{below}"),
        format!("/v1/./{below}"),
        format!("/v1/x/../{below}"),
        format!("/v1/x%2f..%2f{below}"),
        format!("/V1/{below}"),
        format!("/v1/{capital}"),
        format!("/v1%00/{below}").replace("%00", "%20"),
        format!("/v%2531/{below}"),
        format!("/v1/v1/{below}"),
    ]
}
