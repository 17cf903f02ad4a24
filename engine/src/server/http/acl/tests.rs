//! When is a token looked up, how long does what was found count, and what of an answer is left?
//!
//! The guard stands before a gateway that answers from a state of its own (`here`) or of a leader
//! (`there`), and counts how often it was asked. Sifted answers are compared with a model that
//! builds them anew from the elements that may be seen.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use bytes::Bytes;
use futures_lite::future::block_on;
use http::{HeaderMap, HeaderValue, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};
use wire::{
    ClusterStatus, Failure, FailureKind, Index, KvRow, Query, QueryBody, ReadMode, ShardId, Term,
    TxnResult,
};

use super::{guard::now_ns, *};
use crate::{
    acl::{Access, GLOBAL_MANAGEMENT, Resource, builtin_policy},
    documents::Question,
    fsm::{
        Fsm,
        acl::{PolicySet, TokenDelete, TokenSet, decisions_index},
        records::RecordOp,
    },
    server::{
        agent::request::{AgentReply, AgentRequest},
        config::acl::{AclOptions, AclTokens, DefaultPolicy, DownPolicy, Secret},
        gateway::{Answer, AnswerBody, Gateway, RowStream, ServerInfo, Written},
        http::failure::Refusal,
    },
    state::records::{AclPolicy, AclToken, PolicyLink},
};

/// A state that is changed by commands.
#[derive(Default)]
struct State {
    fsm: Fsm,
    index: u64,
}

impl State {
    fn apply(&mut self, op: &RecordOp) {
        self.index += 1;
        let entry = (Index(self.index), Term(1), op.encode());
        let mut outcomes = Vec::new();
        self.fsm
            .apply_run(&[entry], &mut outcomes)
            .expect("a command that can be read");
        assert!(
            matches!(outcomes[..], [crate::fsm::Outcome::Done { ok: true }]),
            "{outcomes:?}"
        );
    }

    fn policy(&mut self, number: u8, rules: &str, create: bool) {
        let policy = AclPolicy {
            id: uuid(number),
            name: format!("p{number}"),
            rules: rules.to_owned(),
            ..AclPolicy::default()
        };
        let policies = vec![policy];
        self.apply(&RecordOp::AclPolicySet(PolicySet { policies, create }));
    }

    /// A token with a policy, if one is given; its secret is `uuid(number + 100)`.
    fn token(&mut self, number: u8, policy: Option<u8>, expiration_time: u64) {
        let link = |policy| PolicyLink {
            id: uuid(policy),
            name: String::new(),
        };
        let token = AclToken {
            accessor_id: uuid(number),
            secret_id: uuid(number + 100),
            policies: policy.into_iter().map(link).collect(),
            expiration_time,
            ..AclToken::default()
        };
        self.apply(&RecordOp::AclTokenSet(TokenSet {
            tokens: vec![token],
            create: true,
            cas: false,
            now_ns: 0,
        }));
    }
}

fn uuid(number: u8) -> String {
    format!("a0000000-0000-4000-8000-0000000000{number:02x}")
}

#[derive(Clone, Default)]
struct Fake(Rc<RefCell<Inside>>);

#[derive(Default)]
struct Inside {
    here: State,
    /// The leader's; as here if there is none.
    there: Option<State>,
    /// What `here` becomes for who waits for a change.
    next: Vec<State>,
    asked: BTreeMap<&'static str, usize>,
    down: bool,
}

struct NoRows;

impl RowStream for NoRows {
    type Batch = Vec<KvRow>;
    async fn next_batch(&mut self) -> Option<Result<Vec<KvRow>, Failure>> {
        None
    }
}

impl Gateway for Fake {
    type Rows = NoRows;
    async fn write(&self, _: ShardId, _: Bytes) -> Result<Written, Failure> {
        unimplemented!("nothing is written")
    }
    async fn record(&self, _: Bytes) -> Result<Written, Failure> {
        unimplemented!("nothing is written")
    }
    async fn record_with_answer(&self, _: Bytes) -> Result<(Index, Bytes), Failure> {
        unimplemented!("nothing is written")
    }
    async fn txn(&self, _: Bytes) -> Result<(Index, TxnResult), Failure> {
        unimplemented!("nothing is written")
    }
    async fn read(&self, query: Query) -> Result<Answer<NoRows>, Failure> {
        let mut inside = self.0.borrow_mut();
        if inside.down {
            return Err(Failure {
                kind: FailureKind::NoLeader,
                message: String::new(),
                leader: String::new(),
                retry_after_ms: 0,
            });
        }
        if query.wait.ms > 0
            && let Some(next) = inside.next.pop()
        {
            inside.here = next;
        }
        let stale = query.mode == ReadMode::Stale;
        *inside
            .asked
            .entry(if stale { "here" } else { "there" })
            .or_default() += 1;
        let QueryBody::Record(question) = query.body else {
            panic!("only records are asked for")
        };
        let state = match (&inside.there, stale) {
            (Some(there), false) => there,
            _ => &inside.here,
        };
        let tables = state.fsm.store().tables();
        let json = Question::decode(&question)
            .expect("a question")
            .answer(tables);
        Ok(Answer {
            index: Index(1),
            known_leader: true,
            last_contact_ms: 0,
            body: AnswerBody::Document(json.expect("short").into()),
        })
    }
    async fn agent(&self, _: AgentRequest) -> AgentReply {
        unimplemented!("there is no agent")
    }
    fn shard_of(&self, _: &[u8]) -> ShardId {
        ShardId(0)
    }
    fn status(&self) -> ClusterStatus {
        ClusterStatus::default()
    }
    fn info(&self) -> ServerInfo {
        ServerInfo::default()
    }
    fn acl_index(&self) -> u64 {
        decisions_index(self.0.borrow().here.fsm.store().tables()).0
    }
    fn metrics(&self) -> BTreeMap<String, f64> {
        BTreeMap::new()
    }
    async fn reload(&self) -> Result<(), String> {
        unimplemented!("nothing is reloaded")
    }
}

impl Fake {
    fn asked(&self) -> (usize, usize) {
        let inside = self.0.borrow();
        let of = |place| inside.asked.get(place).copied().unwrap_or_default();
        (of("here"), of("there"))
    }

    fn who(&self, guard: &Guard, secret: &str) -> Result<Who, Refusal> {
        block_on(guard.who(self, &HeaderMap::new(), Some(secret)))
    }
}

fn options() -> AclOptions {
    AclOptions {
        enabled: true,
        default_policy: DefaultPolicy::Deny,
        ..AclOptions::default()
    }
}

fn guard(options: &AclOptions) -> Rc<Guard> {
    Guard::new(options, "dc1", "n1").expect("ACLs are on")
}

fn reads_a(who: &Who) -> bool {
    who.may(Resource::Key, b"a", Access::Read)
}

const READS_A: &str = "key \"a\" { policy = \"read\" }";

#[test]
fn without_acls_there_is_no_guard() {
    assert!(Guard::new(&AclOptions::default(), "dc1", "n1").is_none());
    assert!(Who::ANYONE.may(Resource::Acl, b"", Access::Write));
    assert!(Who::ANYONE.may_write_prefix(b"") && Who::ANYONE.may_read_prefix(b""));
}

/// Bootstrap in the first moments of a cluster was answered 500, because the policy that its token
/// is linked to was still to be made.
#[test]
fn bootstrap_waits_for_the_policies_that_every_cluster_has() {
    let fake = Fake::default();
    let wait = |hold| block_on(ready::wait(&fake, hold)).map_err(|refusal| refusal.text);
    let why = wait(std::time::Duration::ZERO).unwrap_err();
    assert!(
        why.starts_with("the built-in policies are not there yet"),
        "{why}"
    );
    assert_eq!(fake.asked(), (0, 1), "it does not wait longer than it may");
    let mut made = State::default();
    let builtin = builtin_policy(GLOBAL_MANAGEMENT.id).expect("built in");
    let policies = vec![AclPolicy {
        id: builtin.id.to_owned(),
        name: builtin.name.to_owned(),
        ..AclPolicy::default()
    }];
    made.apply(&RecordOp::AclPolicySet(PolicySet {
        policies,
        create: true,
    }));
    let mut other = State::default();
    other.policy(1, "", true);
    fake.0.borrow_mut().next = vec![made, other];
    let hold = std::time::Duration::from_secs(3600);
    assert_eq!(wait(hold), Ok(()));
    assert_eq!(
        fake.asked(),
        (0, 4),
        "woken by another policy, and by this one"
    );
    assert_eq!(wait(hold), Ok(()));
    assert_eq!(fake.asked(), (0, 5));
}

#[test]
fn a_token_is_looked_up_once_until_anything_changes() {
    let fake = Fake::default();
    let guard = guard(&options());
    fake.0.borrow_mut().here.policy(1, READS_A, true);
    fake.0.borrow_mut().here.token(2, Some(1), 0);
    let secret = uuid(102);
    for _ in 0..3 {
        assert!(reads_a(&fake.who(&guard, &secret).unwrap()));
    }
    assert_eq!(fake.asked(), (1, 0));
    fake.0.borrow_mut().here.policy(1, "", false);
    assert!(!reads_a(&fake.who(&guard, &secret).unwrap()));
    assert_eq!(fake.asked(), (2, 0));
    let ids = vec![uuid(2)];
    fake.0
        .borrow_mut()
        .here
        .apply(&RecordOp::AclTokenDelete(TokenDelete { ids }));
    let refusal = fake.who(&guard, &secret).err().expect("it is gone");
    assert_eq!(
        (refusal.status, &*refusal.text),
        (StatusCode::FORBIDDEN, "ACL not found")
    );
    assert_eq!(fake.asked(), (3, 1), "the leader was asked once");
}

#[test]
fn what_was_found_counts_no_longer_than_its_time_to_live() {
    let fake = Fake::default();
    let guard = guard(&AclOptions {
        token_ttl: std::time::Duration::ZERO,
        ..options()
    });
    fake.0.borrow_mut().here.token(2, None, 0);
    for times in 1..4 {
        fake.who(&guard, &uuid(102)).unwrap();
        assert_eq!(fake.asked(), (times, 0));
    }
}

#[test]
fn a_token_that_only_the_leader_knows_works_here() {
    let fake = Fake::default();
    let guard = guard(&options());
    let mut leader = State::default();
    leader.policy(1, READS_A, true);
    leader.token(2, Some(1), 0);
    fake.0.borrow_mut().there = Some(leader);
    assert!(reads_a(&fake.who(&guard, &uuid(102)).unwrap()));
    assert_eq!(fake.asked(), (1, 1));
    // And is looked up anew as soon as this server hears of a change.
    fake.0.borrow_mut().here.policy(1, "", true);
    assert!(reads_a(&fake.who(&guard, &uuid(102)).unwrap()));
    assert_eq!(fake.asked(), (2, 2));
}

#[test]
fn a_token_whose_time_is_over_is_refused_at_once() {
    let fake = Fake::default();
    let guard = guard(&options());
    fake.0.borrow_mut().here.token(2, None, now_ns() - 1);
    fake.0
        .borrow_mut()
        .here
        .token(3, None, now_ns() + 3_600_000_000_000);
    for _ in 0..2 {
        let refusal = fake.who(&guard, &uuid(102)).err().expect("it has ended");
        assert_eq!(&*refusal.text, "ACL not found");
        fake.who(&guard, &uuid(103)).unwrap();
    }
    assert_eq!(fake.asked(), (2, 0), "also when it was looked up before");
}

#[test]
fn while_tokens_cannot_be_looked_up_the_down_policy_counts() {
    for (down_policy, known, unknown) in [
        (DownPolicy::ExtendCache, Some(true), None),
        (DownPolicy::AsyncCache, Some(true), None),
        (DownPolicy::Allow, Some(true), Some(true)),
        (DownPolicy::Deny, None, None),
    ] {
        let fake = Fake::default();
        let guard = guard(&AclOptions {
            down_policy,
            token_ttl: std::time::Duration::ZERO,
            ..options()
        });
        fake.0.borrow_mut().here.policy(1, READS_A, true);
        fake.0.borrow_mut().here.token(2, Some(1), 0);
        fake.who(&guard, &uuid(102)).unwrap();
        fake.0.borrow_mut().down = true;
        let decided = |secret: &str| fake.who(&guard, secret).ok().map(|who| reads_a(&who));
        assert_eq!(decided(&uuid(102)), known, "{down_policy:?}");
        assert_eq!(decided(&uuid(103)), unknown, "{down_policy:?}");
    }
}

#[test]
fn the_recovery_token_needs_no_cluster() {
    let fake = Fake::default();
    fake.0.borrow_mut().down = true;
    let guard = guard(&AclOptions {
        tokens: AclTokens {
            agent_recovery: Some(Secret::new("rescue".into())),
            ..AclTokens::default()
        },
        ..options()
    });
    let who = fake.who(&guard, "rescue").unwrap();
    assert!(who.may(Resource::Agent, b"n1", Access::Write));
    assert!(!who.may(Resource::Agent, b"n2", Access::Read));
    assert!(who.may(Resource::Node, b"n2", Access::Read));
    assert!(!who.may(Resource::Key, b"a", Access::Read));
}

#[test]
fn a_policy_that_cannot_be_read_refuses_its_tokens() {
    let fake = Fake::default();
    let guard = guard(&options());
    fake.0
        .borrow_mut()
        .here
        .policy(1, "kee \"a\" { policy = \"read\" }", true);
    fake.0.borrow_mut().here.token(2, Some(1), 0);
    let refusal = fake.who(&guard, &uuid(102)).err().expect("not understood");
    assert!(
        refusal.text.starts_with("Failed to parse ACL rules: kee"),
        "{}",
        refusal.text
    );
}

#[test]
fn no_more_than_so_many_tokens_are_kept() {
    let fake = Fake::default();
    let guard = guard(&options());
    let anonymous = fake.who(&guard, "").unwrap();
    assert!(!anonymous.is_told_of_filters());
    // All but the first are unknown, and nothing is kept of those.
    for number in 0..10 {
        assert!(fake.who(&guard, &uuid(number)).is_err());
    }
    assert_eq!(guard.cached(), 1);
    guard.fill();
    assert!(guard.cached() >= super::guard::TOKENS_CACHED_MAX);
    fake.0.borrow_mut().here.token(2, None, 0);
    fake.who(&guard, &uuid(102)).unwrap();
    assert_eq!(guard.cached(), 1);
}

#[test]
fn tokens_are_taken_in_consuls_order() {
    let with_default = AclOptions {
        tokens: AclTokens {
            default: Some(Secret::new("d".into())),
            ..AclTokens::default()
        },
        ..options()
    };
    let guard = guard(&with_default);
    let headers = |pairs: &[(&'static str, &'static str)]| {
        let pairs = pairs.iter().map(|(name, value)| {
            let name = name.parse::<http::HeaderName>().unwrap();
            (name, HeaderValue::from_static(value))
        });
        pairs.collect::<HeaderMap>()
    };
    let all = headers(&[("x-consul-token", "h"), ("authorization", "Bearer b")]);
    let bearer = headers(&[("x-consul-token", ""), ("authorization", "BEARER  b ")]);
    let basic = headers(&[("authorization", "Basic b")]);
    for (headers, param, token) in [
        (&all, Some("p"), "p"),
        (&all, Some(""), "h"),
        (&all, None, "h"),
        (&bearer, None, "b"),
        (&basic, None, "d"),
    ] {
        assert_eq!(guard.token_of(headers, param), token);
    }
    let none = super::Guard::new(&options(), "dc1", "n1").unwrap();
    assert_eq!(none.token_of(&basic, None), crate::acl::ANONYMOUS_SECRET);
}

// ------------------------------------------------------------------------------ sifting

/// A token with these rules.
fn bearer(rules: &str) -> Who {
    let fake = Fake::default();
    let guard = guard(&options());
    fake.0.borrow_mut().here.policy(1, rules, true);
    fake.0.borrow_mut().here.token(2, Some(1), 0);
    fake.who(&guard, &uuid(102)).unwrap()
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ab", "a\"<", "é"]).prop_map(str::to_owned)
}

/// Which of the names are granted, of nodes and of services.
fn grants() -> impl Strategy<Value = (Vec<String>, Vec<String>)> {
    (
        prop::collection::vec(name(), 0..4),
        prop::collection::vec(name(), 0..4),
    )
}

fn rules(nodes: &[String], services: &[String]) -> String {
    let rule = |word: &str, name: &String| json!({ word: { name: { "policy": "read" } } });
    let mut all = json!({});
    for (word, names) in [("node", nodes), ("session", nodes), ("service", services)] {
        for name in names {
            for (word, rule) in rule(word, name).as_object().unwrap() {
                let held = all
                    .as_object_mut()
                    .unwrap()
                    .entry(word)
                    .or_insert(json!({}));
                for (name, rule) in rule.as_object().unwrap() {
                    held[name] = rule.clone();
                }
            }
        }
    }
    all.to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn lists_keep_what_may_be_seen_and_its_bytes(
        (nodes, services) in grants(),
        rows in prop::collection::vec((name(), name(), any::<bool>()), 0..8),
    ) {
        let who = bearer(&rules(&nodes, &services));
        let node = |name: &String| nodes.contains(name);
        let service = |name: &String| services.contains(name);
        let at = |position: usize| json!([position, "kept as it is", {"Node": "?", "Service": "?"}]);
        type Row = (String, String, bool);
        type Make = fn(&Row, Value) -> Value;
        type Case<'c> = (Sieve, Make, &'c dyn Fn(&Row) -> bool);
        let cases: [Case<'_>; 5] = [
            (Sieve::Nodes, |row, at| json!({"Node": row.0, "X": at}), &|row| node(&row.0)),
            (
                Sieve::ServiceRows,
                |row, at| json!({"X": at, "Node": row.0, "ServiceName": row.1}),
                &|row| node(&row.0) && service(&row.1),
            ),
            (
                Sieve::Checks,
                |row, at| match row.2 {
                    true => json!({"Node": row.0, "ServiceName": row.1, "X": at}),
                    false => json!({"Node": row.0, "ServiceName": "", "X": at}),
                },
                &|row| node(&row.0) && (!row.2 || service(&row.1)),
            ),
            (
                Sieve::CheckedServices,
                |row, at| json!({"Node": {"Node": row.0, "Meta": at}, "Service": {"Service": row.1, "Meta": at}, "Checks": []}),
                &|row| node(&row.0) && service(&row.1),
            ),
            (Sieve::Sessions, |row, at| json!({"Name": row.1, "Node": row.0, "X": at}), &|row| node(&row.0)),
        ];
        for (sieve, make, may) in cases {
            let made: Vec<(String, bool)> = rows
                .iter()
                .enumerate()
                .map(|(position, row)| (make(row, at(position)).to_string(), may(row)))
                .collect();
            let list = |keep: &dyn Fn(&bool) -> bool| {
                let kept = made.iter().filter(|(_, may)| keep(may)).map(|(text, _)| &**text);
                format!("[{}]", kept.collect::<Vec<_>>().join(","))
            };
            let sifted = sieve.sift(&who, list(&|_| true).into()).unwrap();
            let expected = list(&|may| *may);
            prop_assert_eq!(&sifted.json[..], expected.as_bytes(), "{:?}", sieve);
            prop_assert_eq!(sifted.filtered, made.iter().any(|(_, may)| !may));
        }
    }

    #[test]
    fn maps_keep_what_may_be_seen(
        (nodes, services) in grants(),
        names in prop::collection::btree_set(name(), 0..5),
        node in name(),
    ) {
        let who = bearer(&rules(&nodes, &services));
        let kept = || names.iter().filter(|name| services.contains(name));
        let sift = |sieve: Sieve, value: Value| {
            let sifted = sieve.sift(&who, value.to_string().into()).unwrap();
            let json: Value = serde_json::from_slice(&sifted.json).unwrap();
            (json, sifted.filtered)
        };
        let hides = kept().count() < names.len();
        let tags = |names: Vec<&String>| -> Value {
            names.into_iter().map(|name| (name.clone(), json!(["t"]))).collect::<serde_json::Map<_, _>>().into()
        };
        prop_assert_eq!(
            sift(Sieve::ServiceNames, tags(names.iter().collect())),
            (tags(kept().collect()), hides)
        );
        let by_id = |names: Vec<&String>| -> Value {
            names.into_iter().map(|name| (format!("id-{name}"), json!({"Service": name}))).collect::<serde_json::Map<_, _>>().into()
        };
        prop_assert_eq!(
            sift(Sieve::OwnServices, by_id(names.iter().collect())),
            (by_id(kept().collect()), hides)
        );
        let of_node = |names: Vec<&String>| json!({"Node": {"Node": node, "Address": "x"}, "Services": by_id(names)});
        let expected = match nodes.contains(&node) {
            true => (of_node(kept().collect()), hides),
            false => (Value::Null, true),
        };
        prop_assert_eq!(sift(Sieve::NodeServices, of_node(names.iter().collect())), expected);
    }

    #[test]
    fn what_is_not_of_the_form_is_never_let_through(text in "[\\[\\]{}\":,a-zN0-9 ]{0,30}") {
        let who = bearer("");
        for sieve in [Sieve::Nodes, Sieve::ServiceNames, Sieve::NodeServices, Sieve::OwnChecks, Sieve::OwnService] {
            if let Ok(sifted) = sieve.sift(&who, Bytes::copy_from_slice(text.as_bytes())) {
                let left = String::from_utf8_lossy(&sifted.json).into_owned();
                let is_nothing = ["", "null", "[]", "{}"].contains(&left.trim());
                let has_no_element = left.bytes().all(|b| b"[]{} ".contains(&b));
                let no_parts = sieve == Sieve::NodeServices && !text.contains("Node");
                prop_assert!(is_nothing || has_no_element || no_parts, "{:?}: {}", sieve, left);
            }
        }
    }
}

#[test]
fn an_answer_about_one_thing_is_given_or_refused() {
    let who = bearer("service \"web\" { policy = \"read\" } query \"q\" { policy = \"read\" }");
    let sift = |sieve: Sieve, value: Value| {
        let sifted = sieve.sift(&who, value.to_string().into());
        sifted
            .map(|sifted| sifted.json)
            .map_err(|refusal| refusal.text.into_owned())
    };
    assert!(sift(Sieve::OwnService, json!({"ID": "1", "Service": "web"})).is_ok());
    let refused = sift(Sieve::OwnService, json!({"ID": "1", "Service": "db"})).unwrap_err();
    assert!(
        refused.ends_with("lacks permission 'service:read' on \"db\""),
        "{refused}"
    );
    let checked = json!({"AggregatedStatus": "passing", "Service": {"Service": "db"}});
    assert!(sift(Sieve::OwnService, checked).is_err());
}
