//! What can be said of a route, and how is it written down?
//!
//! In paths and bodies `$N` is a number that no request had before, and `$ID` the id of what the
//! request made that comes before.

/// A request of the all-powerful.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub method: &'static str,
    pub path: &'static str,
    pub body: &'static str,
}

pub const fn put(path: &'static str, body: &'static str) -> Ask {
    let method = "PUT";
    Ask { method, path, body }
}

/// A request that is refused, whoever sends it.
#[derive(Clone, Copy, Debug)]
pub struct Wrong {
    pub path: &'static str,
    pub body: &'static str,
    pub status: u16,
    /// What the answer contains.
    pub says: &'static str,
}

/// Which right a route takes.
#[derive(Clone, Copy, Debug)]
pub enum Right {
    /// None.
    Open,
    /// This one.
    Needs {
        /// The rule that grants it; `$A` is how much.
        rule: &'static str,
        /// What is missing, in the refusal's words.
        lacks: &'static str,
        /// Whether it takes the right to change.
        writes: bool,
        /// The status of a refusal.
        status: u16,
    },
    /// None, but without this one nothing is shown.
    Hides {
        /// The rules that show it; `$A` is how much.
        rules: &'static str,
        /// What is left for those who may see nothing.
        left: (u16, &'static str),
    },
    /// None but one's own: what nobody, and the bearer of an unknown token, are answered.
    Own {
        nobody: (u16, &'static str),
        unknown: (u16, &'static str),
    },
}

/// What a blocking query wakes for, and what not.
#[derive(Clone, Copy, Debug)]
pub struct Blocking {
    pub wakes: Ask,
    pub sleeps: Ask,
    pub mark: Mark,
}

/// What a blocking query waits to be another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// An index, which only grows.
    Index,
    /// In the place of an index, what is no number of anything.
    Id,
    /// A hash.
    Hash,
}

impl Mark {
    /// The header that it comes in, and the parameter that it goes back in.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Hash => ("x-consul-contenthash", "hash"),
            Self::Index | Self::Id => ("x-consul-index", "index"),
        }
    }
}

/// All that is claimed of a route, for one of its requests.
#[derive(Clone, Debug)]
pub struct Row {
    /// Method and pattern, as the engine lists them.
    pub route: (&'static str, &'static str),
    pub path: &'static str,
    pub body: &'static str,
    /// Comes before each request.
    pub before: Option<Ask>,
    /// Status, and what the answer contains.
    pub succeeds: (u16, &'static str),
    pub errors: Vec<Wrong>,
    /// Whether `stale`, `consistent` and `default` are told apart.
    pub modes: bool,
    pub blocking: Option<Blocking>,
    pub right: Right,
    /// Carried out it would end the test's servers, or is not served yet: see its own tests.
    pub only_denied: bool,
    /// Whether a body that is not JSON is refused.
    pub json: bool,
}

pub fn row(method: &'static str, pattern: &'static str, path: &'static str) -> Row {
    Row {
        route: (method, pattern),
        path,
        body: "",
        before: None,
        succeeds: (200, ""),
        errors: Vec::new(),
        modes: false,
        blocking: None,
        right: Right::Open,
        only_denied: false,
        json: false,
    }
}

impl Row {
    /// With this body, which is JSON.
    pub fn json(mut self, body: &'static str) -> Self {
        (self.body, self.json) = (body, true);
        self
    }

    /// With this body, whatever it is.
    pub fn body(mut self, body: &'static str) -> Self {
        self.body = body;
        self
    }

    pub fn after(mut self, before: Ask) -> Self {
        self.before = Some(before);
        self
    }

    pub fn gives(mut self, status: u16, says: &'static str) -> Self {
        self.succeeds = (status, says);
        self
    }

    pub fn refuses(mut self, path: &'static str, status: u16, says: &'static str) -> Self {
        self.errors.push(Wrong {
            path,
            body: "",
            status,
            says,
        });
        self
    }

    pub fn refuses_body(mut self, body: &'static str, status: u16, says: &'static str) -> Self {
        self.errors.push(Wrong {
            path: self.path,
            body,
            status,
            says,
        });
        self
    }

    pub fn modes(mut self) -> Self {
        self.modes = true;
        self
    }

    /// Has modes, and blocks.
    pub fn blocks(mut self, wakes: Ask, sleeps: Ask) -> Self {
        self.modes = true;
        self.blocking = Some(Blocking {
            wakes,
            sleeps,
            mark: Mark::Index,
        });
        self
    }

    /// Blocks, but is of one server and has no modes.
    pub fn blocks_here(mut self, mark: Mark, wakes: Ask, sleeps: Ask) -> Self {
        self.blocking = Some(Blocking {
            wakes,
            sleeps,
            mark,
        });
        self
    }

    pub fn reads(self, rule: &'static str, lacks: &'static str) -> Self {
        self.needs(rule, lacks, false, 403)
    }

    pub fn writes(self, rule: &'static str, lacks: &'static str) -> Self {
        self.needs(rule, lacks, true, 403)
    }

    pub fn needs(
        mut self,
        rule: &'static str,
        lacks: &'static str,
        writes: bool,
        status: u16,
    ) -> Self {
        self.right = Right::Needs {
            rule,
            lacks,
            writes,
            status,
        };
        self
    }

    pub fn hides(mut self, rules: &'static str, status: u16, left: &'static str) -> Self {
        let left = (status, left);
        self.right = Right::Hides { rules, left };
        self
    }

    pub fn own(mut self, nobody: (u16, &'static str), unknown: (u16, &'static str)) -> Self {
        self.right = Right::Own { nobody, unknown };
        self
    }

    pub fn only_denied(mut self) -> Self {
        self.only_denied = true;
        self
    }
}
