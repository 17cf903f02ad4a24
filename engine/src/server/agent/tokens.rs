//! Which tokens does this server use itself, and what was changed about them while it runs?
//!
//! The configuration names some (`acl.tokens`); `PUT /v1/agent/token/<kind>` puts others in their
//! place. With `acl.enable_token_persistence` those are in a file of the data directory before the
//! request is answered, and count before the configuration's after a restart, as in Consul:
//!
//! ```text
//! <data-dir>/acl-tokens.json    {"Version":1,"Tokens":{"agent":"…","default":"…"}}
//!                               an empty one: the configuration's does not count either
//! ```
//!
//! Golden: `engine/golden/agent/acl-tokens.v1.json`. A file that cannot be read keeps the server from
//! starting: with the configuration's tokens it might grant more than an operator has decided since.
//!
//! Every executor holds a copy ([`View`]), which it takes anew when the generation says so: a token
//! that was answered counts for every request that comes later, wherever it comes in. The lock is
//! held for a copy at such a change and nowhere else.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs, io,
    path::Path,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Value, json};

use crate::server::config::acl::{AclTokens, Secret};

/// Name of the file in the data directory.
pub const FILE: &str = "acl-tokens.json";

/// Version of the file's contents.
const VERSION: u64 = 1;

/// Longest token that is taken, bytes. Consul's are 36.
pub const TOKEN_BYTES_MAX: usize = 512;

/// What a token of the server is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenKind {
    /// What the agent does itself.
    Agent,
    /// The agent's API while there is no leader.
    AgentRecovery,
    /// Services and checks of configuration files.
    ConfigFileServiceRegistration,
    /// Requests that bring none.
    Default,
    /// Answers to DNS questions. There is no DNS here: it is kept, and without an effect.
    Dns,
    /// Replication of ACLs. There is one datacenter here: it is kept, and without an effect.
    Replication,
}

/// Kinds with the names that Consul's API has for them; the first is today's.
const NAMES: [(TokenKind, &[&str]); 6] = [
    (TokenKind::Agent, &["agent", "acl_agent_token"]),
    (
        TokenKind::AgentRecovery,
        &["agent_recovery", "agent_master", "acl_agent_master_token"],
    ),
    (
        TokenKind::ConfigFileServiceRegistration,
        &["config_file_service_registration"],
    ),
    (TokenKind::Default, &["default", "acl_token"]),
    (TokenKind::Dns, &["dns"]),
    (
        TokenKind::Replication,
        &["replication", "acl_replication_token"],
    ),
];

impl TokenKind {
    /// The kind that Consul's API has this name for, old or new.
    pub fn parse(name: &str) -> Option<Self> {
        let found = NAMES.iter().find(|(_, names)| names.contains(&name));
        found.map(|(kind, _)| *kind)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let found = NAMES.iter().find(|(kind, _)| *kind == self);
        found.map_or("", |(_, names)| names[0])
    }

    /// Where the configuration has it, if it has.
    fn of(self, tokens: &mut AclTokens) -> Option<&mut Option<Secret>> {
        Some(match self {
            Self::Agent => &mut tokens.agent,
            Self::AgentRecovery => &mut tokens.agent_recovery,
            Self::ConfigFileServiceRegistration => &mut tokens.config_file_service_registration,
            Self::Default => &mut tokens.default,
            Self::Replication => &mut tokens.replication,
            Self::Dns => return None,
        })
    }
}

/// Tokens that were set by the API, by kind; empty ones take the configuration's away.
type Set = BTreeMap<TokenKind, Secret>;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "{FILE}: {0}; put it right or remove it (then the tokens of the configuration count), and start again"
)]
pub struct TokenFileError(String);

/// The tokens of a server, for all its executors.
#[derive(Debug, Default)]
pub struct Tokens {
    generation: AtomicU64,
    held: Mutex<Held>,
    persistent: bool,
}

#[derive(Debug, Default)]
struct Held {
    configured: AclTokens,
    set: Set,
}

impl Tokens {
    /// Those of a configuration alone.
    pub fn of(configured: AclTokens) -> Arc<Self> {
        let held = Held {
            configured,
            set: Set::new(),
        };
        Arc::new(Self {
            generation: AtomicU64::new(1),
            held: Mutex::new(held),
            persistent: false,
        })
    }

    /// Those of a configuration, and where they are `persistent`, those in the data directory
    /// before them. Blocks.
    ///
    /// # Errors
    /// When there is a file that cannot be read, or was written by a later version.
    pub fn open(
        data: &Path,
        configured: AclTokens,
        persistent: bool,
    ) -> Result<Arc<Self>, TokenFileError> {
        let set = match persistent {
            true => read(data)?,
            false => Set::new(),
        };
        for kind in set.keys() {
            let mut configured = configured.clone();
            if kind
                .of(&mut configured)
                .is_some_and(|token| token.is_some())
            {
                let name = kind.name();
                log::warn!(target: "agent", "acl.tokens.{name}: a token that was set by the API is kept in the data directory, and counts before the configuration's");
            }
        }
        let held = Held { configured, set };
        Ok(Arc::new(Self {
            generation: AtomicU64::new(1),
            held: Mutex::new(held),
            persistent,
        }))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the file must hold once `kind` is `secret`; `None` if nothing is to be kept.
    pub fn file_with(&self, kind: TokenKind, secret: &Secret) -> Option<Vec<u8>> {
        if !self.persistent {
            return None;
        }
        let mut set = self.held().set.clone();
        set.insert(kind, secret.clone());
        Some(encode(&set))
    }

    /// From now on `kind` is `secret`. Whether that is another than before.
    pub fn set(&self, kind: TokenKind, secret: Secret) -> bool {
        let mut held = self.held();
        let before = held.effective();
        held.set.insert(kind, secret);
        let changed = held.effective() != before;
        // After the change: whoever sees the number finds it.
        self.generation.fetch_add(1, Ordering::Release);
        changed
    }

    /// The tokens as they are now.
    pub fn now(&self) -> AclTokens {
        self.held().effective()
    }
}

impl Held {
    fn effective(&self) -> AclTokens {
        let mut tokens = self.configured.clone();
        for (kind, secret) in &self.set {
            if let Some(token) = kind.of(&mut tokens) {
                *token = Some(secret.clone()).filter(|secret| !secret.expose().is_empty());
            }
        }
        tokens
    }
}

/// One executor's copy.
pub struct View {
    tokens: Arc<Tokens>,
    seen: Cell<u64>,
    copy: RefCell<Rc<AclTokens>>,
}

impl View {
    /// A copy that is made when it is first looked at.
    pub fn new(tokens: Arc<Tokens>) -> Self {
        Self {
            tokens,
            seen: Cell::new(0),
            copy: RefCell::default(),
        }
    }

    /// The tokens as they are now.
    pub fn now(&self) -> Rc<AclTokens> {
        // Before the copy is made: at worst it is made once more.
        let generation = self.tokens.generation.load(Ordering::Acquire);
        if self.seen.replace(generation) != generation {
            *self.copy.borrow_mut() = Rc::new(self.tokens.now());
        }
        Rc::clone(&self.copy.borrow())
    }
}

fn encode(set: &Set) -> Vec<u8> {
    let tokens: BTreeMap<&str, &str> = set
        .iter()
        .map(|(kind, secret)| (kind.name(), secret.expose()))
        .collect();
    json!({"Version": VERSION, "Tokens": tokens})
        .to_string()
        .into_bytes()
}

fn read(data: &Path) -> Result<Set, TokenFileError> {
    match fs::read(data.join(FILE)) {
        Ok(bytes) => decode(&bytes).map_err(TokenFileError),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Set::new()),
        Err(error) => Err(TokenFileError(error.to_string())),
    }
}

fn decode(bytes: &[u8]) -> Result<Set, String> {
    let document: Value = serde_json::from_slice(bytes)
        .map_err(|error| format!("it is not what was written: {error}"))?;
    match document["Version"].as_u64() {
        Some(VERSION) => {}
        Some(version) => {
            return Err(format!(
                "it has version {version}, this build reads version {VERSION}"
            ));
        }
        None => return Err("it has no version".to_owned()),
    }
    let tokens = document["Tokens"].as_object().ok_or("it has no tokens")?;
    let token = |(name, secret): (&String, &Value)| {
        let kind = TokenKind::parse(name).ok_or(format!("there is no token {name:?}"))?;
        let secret = secret.as_str().ok_or(format!("{name} is not text"))?;
        Ok((kind, Secret::new(secret.to_owned())))
    };
    tokens.iter().map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn configured() -> AclTokens {
        AclTokens {
            default: Some(secret("from-the-file")),
            ..AclTokens::default()
        }
    }

    #[test]
    fn consuls_names_old_and_new_are_one_token_each() {
        for (name, kind) in [
            ("default", TokenKind::Default),
            ("acl_token", TokenKind::Default),
            ("agent", TokenKind::Agent),
            ("acl_agent_token", TokenKind::Agent),
            ("agent_recovery", TokenKind::AgentRecovery),
            ("agent_master", TokenKind::AgentRecovery),
            ("acl_agent_master_token", TokenKind::AgentRecovery),
            ("replication", TokenKind::Replication),
            ("acl_replication_token", TokenKind::Replication),
            ("dns", TokenKind::Dns),
        ] {
            assert_eq!(TokenKind::parse(name), Some(kind), "{name}");
        }
        for (kind, _) in NAMES {
            assert_eq!(TokenKind::parse(kind.name()), Some(kind));
        }
        assert_eq!(TokenKind::parse("Default"), None);
    }

    #[test]
    fn a_token_that_was_set_counts_at_once_and_an_empty_one_takes_it_away() {
        let tokens = Tokens::of(configured());
        let view = View::new(Arc::clone(&tokens));
        assert_eq!(view.now().default, Some(secret("from-the-file")));
        assert!(tokens.set(TokenKind::Default, secret("set")));
        assert_eq!(view.now().default, Some(secret("set")));
        assert!(!tokens.set(TokenKind::Default, secret("set")), "the same");
        assert!(tokens.set(TokenKind::Default, secret("")));
        assert_eq!(view.now().default, None);
        assert!(!tokens.set(TokenKind::Dns, secret("unused")));
    }

    #[test]
    fn what_was_kept_counts_before_the_configuration_where_it_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let tokens = Tokens::open(path, configured(), true).unwrap();
        let file = tokens
            .file_with(TokenKind::Default, &secret("set"))
            .unwrap();
        assert_eq!(tokens.now(), configured(), "not before it is written");
        fs::write(path.join(FILE), file).unwrap();
        let again = Tokens::open(path, configured(), true).unwrap();
        assert_eq!(again.now().default, Some(secret("set")));
        let without = Tokens::open(path, configured(), false).unwrap();
        assert_eq!(without.now(), configured());
        assert_eq!(without.file_with(TokenKind::Agent, &secret("a")), None);
    }

    #[test]
    fn the_file_is_the_golden_one() {
        let golden = include_bytes!("../../../golden/agent/acl-tokens.v1.json");
        let set: Set = [
            (
                TokenKind::Agent,
                secret("a1b2c3d4-0000-4000-8000-000000000001"),
            ),
            (TokenKind::Default, secret("")),
            (TokenKind::ConfigFileServiceRegistration, secret("s")),
        ]
        .into();
        assert_eq!(
            String::from_utf8(encode(&set)).unwrap(),
            String::from_utf8_lossy(golden)
        );
        assert_eq!(decode(golden).unwrap(), set);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_passed_over() {
        for (file, why) in [
            ("", "it is not what was written"),
            ("{}", "it has no version"),
            (r#"{"Version":2,"Tokens":{}}"#, "it has version 2"),
            (r#"{"Version":1}"#, "it has no tokens"),
            (
                r#"{"Version":1,"Tokens":{"x":"y"}}"#,
                "there is no token \"x\"",
            ),
            (r#"{"Version":1,"Tokens":{"dns":1}}"#, "dns is not text"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FILE), file).unwrap();
            let error = Tokens::open(dir.path(), configured(), true).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
