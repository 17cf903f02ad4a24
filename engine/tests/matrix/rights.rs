//! Each row as nobody, as the bearer of an unknown token, of one for something else, of one that
//! refuses, may read, may write, may do everything.

use super::{Filled, ROOT, Right, Row, World};

/// Rules that no row speaks of.
const ELSEWHERE: &str = "key \"nobody-asks-for-this\" { policy = \"write\" }";
/// A secret that no token has.
const UNKNOWN: &str = "a0000000-0000-4000-8000-00000000dead";
const FILTERED: &str = "x-consul-results-filtered-by-acls";

impl World {
    pub fn rights(&mut self, row: &Row) {
        match row.right {
            Right::Open => {
                let (elsewhere, _) = self.bearer(ELSEWHERE);
                for token in ["", UNKNOWN, &elsewhere] {
                    let request = self.fill(row);
                    let answer = self.ask(&request, token);
                    self.expect(&request, token, row.succeeds, &answer);
                }
            }
            Right::Own { nobody, unknown } => {
                for (token, expected) in [("", nobody), (UNKNOWN, unknown)] {
                    let request = self.fill(row);
                    let answer = self.ask(&request, token);
                    self.expect(&request, token, expected, &answer);
                }
            }
            Right::Needs {
                rule,
                lacks,
                writes,
                status,
            } => self.needs(row, rule, lacks, writes, status),
            Right::Hides { rules, left } => self.hides(row, rules, left),
        }
    }

    fn needs(&mut self, row: &Row, rule: &str, lacks: &str, writes: bool, status: u16) {
        let request = self.fill(row);
        let nobody = format!(
            "Permission denied: anonymous token lacks permission {}. The anonymous token is used \
             implicitly when a request does not specify a token.",
            request.fill(lacks)
        );
        self.refused(&request, "nobody", "", (status, &nobody));
        self.refused(&request, "a stranger", UNKNOWN, (403, "ACL not found"));
        let denied = rule.replace("$A", "deny");
        let reads = rule.replace("$A", "read");
        for rules in [ELSEWHERE, &denied, &reads] {
            if rules == reads && !writes {
                continue;
            }
            let (secret, accessor) = self.bearer(rules);
            let request = self.fill(row);
            let text = format!(
                "Permission denied: token with AccessorID '{accessor}' lacks permission {}",
                request.fill(lacks)
            );
            self.refused(&request, rules, &secret, (status, &text));
        }
        if row.only_denied {
            return;
        }
        for access in ["read", "write"] {
            if access == "write" || !writes {
                let (secret, _) = self.bearer(&rule.replace("$A", access));
                self.allowed(row, access, &secret);
            }
        }
        self.allowed(row, "root", ROOT);
    }

    fn allowed(&mut self, row: &Row, who: &str, token: &str) {
        let request = self.fill(row);
        let answer = self.ask(&request, token);
        self.expect(&request, who, row.succeeds, &answer);
    }

    /// A refusal's text is compared to its last letter; of a transaction it is that of its first
    /// operation.
    fn refused(&mut self, request: &Filled, who: &str, token: &str, expected: (u16, &str)) {
        let answer = self.ask(request, token);
        let text = match answer.status {
            409 => {
                let what = &answer.json()["Errors"][0]["What"];
                what.as_str().unwrap_or_default().to_owned()
            }
            _ => answer.text(),
        };
        if (answer.status, text.as_str()) != expected {
            self.wrong(request, who, &format!("{expected:?}"), &answer);
        }
    }

    fn hides(&mut self, row: &Row, rules: &str, left: (u16, &str)) {
        let (elsewhere, _) = self.bearer(ELSEWHERE);
        let (denied, _) = self.bearer(&rules.replace("$A", "deny"));
        // Only whoever brought a token is told that there was more.
        for (token, told) in [("", ""), (&elsewhere, "true"), (&denied, "true")] {
            let request = self.fill(row);
            let answer = self.ask(&request, token);
            let text = answer.text();
            // An empty document ends here; of a longer one more may follow.
            let is_left = text == left.1 || (left.1.len() > 4 && text.starts_with(left.1));
            if answer.status != left.0 || !is_left || answer.header(FILTERED) != told {
                let expected = format!("{left:?}, told {told:?}");
                self.wrong(&request, token, &expected, &answer);
            }
        }
        let request = self.fill(row);
        self.refused(&request, "a stranger", UNKNOWN, (403, "ACL not found"));
        for access in ["read", "write"] {
            let (secret, _) = self.bearer(&rules.replace("$A", access));
            self.allowed(row, access, &secret);
        }
        self.allowed(row, "root", ROOT);
    }
}
