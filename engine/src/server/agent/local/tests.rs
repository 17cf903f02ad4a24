//! Registrations against a plain model, through restarts; files against their goldens; refusals
//! word for word.

use std::{collections::BTreeMap, fs, path::PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{state::AgentError, *};

/// What a check is, as far as the model goes: service, name, TTL (ms), status, output, deadline.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    service: String,
    ttl_ms: u64,
    status: Status,
    output: String,
    deadline_ms: Option<u64>,
}

/// The obvious way to keep registrations: look through all of them each time.
#[derive(Clone, Debug, Default)]
struct Model {
    services: BTreeMap<String, u16>,
    checks: BTreeMap<String, Told>,
}

impl Model {
    fn put(&mut self, now_ms: u64, id: &str, service: &str, ttl_ms: u64) {
        let before = self.checks.get(id).cloned();
        let (status, output) = match before {
            Some(told) => (told.status, told.output),
            None => (Status::Critical, String::new()),
        };
        let told = Told {
            service: service.to_owned(),
            ttl_ms,
            status,
            output,
            deadline_ms: (ttl_ms > 0).then_some(now_ms + ttl_ms),
        };
        self.checks.insert(id.to_owned(), told);
    }

    fn expire(&mut self, now_ms: u64) {
        for told in self.checks.values_mut() {
            if told.deadline_ms.is_some_and(|at| at <= now_ms) {
                told.deadline_ms = None;
                told.status = Status::Critical;
                if told.output.is_empty() {
                    told.output = "TTL expired".into();
                } else if !told.output.starts_with("TTL expired") {
                    let last = &told.output;
                    told.output =
                        format!("TTL expired (last output before timeout follows): {last}");
                }
            }
        }
    }

    fn of(local: &Local) -> Self {
        let services = local.services().iter();
        let checks = local.checks().iter().map(|(id, check)| {
            let ttl_ms = match check.definition.kind {
                CheckKind::Ttl { ttl_ns } => ttl_ns / 1_000_000,
                _ => 0,
            };
            let told = Told {
                service: check.definition.service_id.clone(),
                ttl_ms,
                status: check.status,
                output: check.output.clone(),
                deadline_ms: check.deadline_ms,
            };
            (id.clone(), told)
        });
        Self {
            services: services
                .map(|(id, service)| (id.clone(), service.definition.port))
                .collect(),
            checks: checks.collect(),
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Register {
        id: &'static str,
        port: u16,
        ttls: Vec<u64>,
        replace: bool,
    },
    Deregister(&'static str),
    Check {
        id: &'static str,
        service: &'static str,
        ttl_s: u64,
    },
    Uncheck(&'static str),
    Update(&'static str, Status, &'static str),
    Maintain(&'static str, bool),
    Pass(u64),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let id = || prop::sample::select(vec!["web", "db", "Web"]);
    let check = || {
        prop::sample::select(vec![
            "service:web",
            "service:web:1",
            "service:web:2",
            "service:db",
            "mem",
            "web",
        ])
    };
    let status = prop::sample::select(vec![Status::Passing, Status::Warning, Status::Critical]);
    prop_oneof![
        3 => (id(), 0..3u16, prop::collection::vec(1..4u64, 0..3), any::<bool>())
            .prop_map(|(id, port, ttls, replace)| Act::Register { id, port, ttls, replace }),
        1 => id().prop_map(Act::Deregister),
        2 => (check(), prop_oneof![Just(""), id()], 1..4u64)
            .prop_map(|(id, service, ttl_s)| Act::Check { id, service, ttl_s }),
        1 => check().prop_map(Act::Uncheck),
        4 => (check(), status, prop::sample::select(vec!["", "fine", "hm"]))
            .prop_map(|(id, status, output)| Act::Update(id, status, output)),
        1 => (prop_oneof![Just(""), id()], any::<bool>()).prop_map(|(id, on)| Act::Maintain(id, on)),
        3 => (0..2500u64).prop_map(Act::Pass),
        1 => Just(Act::Restart),
    ]
}

/// A data directory: what [`Local`] said its files are to hold.
#[derive(Default)]
struct Files(BTreeMap<(usize, String), Vec<u8>>);

impl Files {
    fn write(&mut self, stored: Vec<Stored>) {
        for file in stored {
            let folder = match file.place {
                Place::Service(_) => 0,
                Place::Check(_) => 1,
                Place::Status(_) => 2,
            };
            match file.bytes {
                Some(bytes) => self.0.insert((folder, file.place.path()), bytes),
                None => self.0.remove(&(folder, file.place.path())),
            };
        }
    }

    fn read(&self, now_ms: u64, unix_ms: u64) -> Local {
        let mut local = Local::new("n1");
        for ((folder, path), bytes) in &self.0 {
            local
                .load(*folder, bytes, now_ms, unix_ms)
                .unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        local
    }
}

fn service(id: &str, port: u16, ttls: &[u64]) -> ServiceDefinition {
    let checks: Vec<Value> = ttls
        .iter()
        .map(|ttl| json!({"TTL": format!("{ttl}s")}))
        .collect();
    let body = json!({"Name": id, "Port": port, "Checks": checks});
    ServiceDefinition::from_value(&body).unwrap()
}

fn check(id: &str, service: &str, ttl_s: u64) -> CheckDefinition {
    let body = json!({"Name": id, "ServiceID": service, "TTL": format!("{ttl_s}s")});
    CheckDefinition::from_value(&body).unwrap()
}

/// Unix time at monotonic 0, ms.
const EPOCH_MS: u64 = 1_700_000_000_000;

fn perform(act: &Act, now_ms: u64, local: &mut Local, model: &mut Model) {
    match act {
        Act::Register {
            id,
            port,
            ttls,
            replace,
        } => {
            let definition = service(id, *port, ttls);
            local
                .register_service(now_ms, definition, Origin::Client, *replace)
                .unwrap();
            model.services.insert((*id).to_owned(), *port);
            let ids: Vec<String> = match ttls.len() {
                1 => vec![format!("service:{id}")],
                many => (1..=many).map(|n| format!("service:{id}:{n}")).collect(),
            };
            if *replace {
                model.checks.retain(|check, told| {
                    told.service != *id || ids.contains(check) || told.ttl_ms == 0
                });
            }
            for (check, ttl_s) in ids.iter().zip(ttls) {
                model.put(now_ms, check, id, ttl_s * 1000);
            }
        }
        Act::Deregister(id) => {
            let done = local.deregister_service(id);
            assert_eq!(done.is_ok(), model.services.remove(*id).is_some());
            model
                .checks
                .retain(|_, told| told.service != *id || id.is_empty());
        }
        Act::Check { id, service, ttl_s } => {
            let done = local.register_check(now_ms, check(id, service, *ttl_s), Origin::Client);
            let known = service.is_empty() || model.services.contains_key(*service);
            assert_eq!(done.is_ok(), known);
            if known {
                model.put(now_ms, id, service, ttl_s * 1000);
            }
        }
        Act::Uncheck(id) => {
            let done = local.deregister_check(id);
            assert_eq!(done.is_ok(), model.checks.remove(*id).is_some());
        }
        Act::Update(id, status, output) => {
            let done = local.update_ttl(now_ms, id, *status, output);
            assert_eq!(done.is_ok(), model.checks.contains_key(*id));
            if let Some(told) = model.checks.get_mut(*id) {
                told.status = *status;
                told.output = (*output).to_owned();
                told.deadline_ms = Some(now_ms + told.ttl_ms);
            }
        }
        Act::Maintain("", on) => {
            local.maintain_node(now_ms, *on, "why").unwrap();
            maintain(model, now_ms, NODE_MAINTENANCE.to_owned(), "", *on);
        }
        Act::Maintain(id, on) => {
            let done = local.maintain_service(now_ms, id, *on, "");
            let known = model.services.contains_key(*id);
            assert_eq!(done.is_ok(), known);
            if known {
                maintain(model, now_ms, format!("{SERVICE_MAINTENANCE}{id}"), id, *on);
            }
        }
        Act::Pass(_) | Act::Restart => {}
    }
}

fn maintain(model: &mut Model, now_ms: u64, id: String, service: &str, on: bool) {
    match on {
        true if !model.checks.contains_key(&id) => model.put(now_ms, &id, service, 0),
        true => {}
        false => drop(model.checks.remove(&id)),
    }
}

proptest! {
    /// Whatever clients ask, in whatever order, and through restarts, the registrations are those
    /// of a model that looks through everything each time.
    #[test]
    fn registrations_are_those_of_a_plain_model(acts in prop::collection::vec(act(), 1..60)) {
        let (mut local, mut model, mut files) = (Local::new("n1"), Model::default(), Files::default());
        // The monotonic clock of each process begins elsewhere; `skew_ms` is what that adds up to.
        let (mut now_ms, mut skew_ms) = (0, 0);
        for act in &acts {
            perform(act, now_ms, &mut local, &mut model);
            if let Act::Pass(ms) = act {
                now_ms += ms;
                local.expire(now_ms);
                model.expire(now_ms);
            }
            let version = local.version();
            files.write(local.take_dirty(now_ms, EPOCH_MS + now_ms - skew_ms));
            prop_assert_eq!(local.version(), version, "writing is not a change");
            if let Act::Restart = act {
                let shift = 77;
                local = files.read(now_ms + shift, EPOCH_MS + now_ms - skew_ms);
                now_ms += shift;
                skew_ms += shift;
                // What had expired and was not told since is expired still.
                for told in model.checks.values_mut() {
                    told.deadline_ms = told.deadline_ms.map(|at| at + shift);
                }
                prop_assert!(!local.is_dirty());
            }
            let found = Model::of(&local);
            prop_assert_eq!(&found.services, &model.services);
            prop_assert_eq!(&found.checks, &model.checks, "after {:?}", act);
            let next = model.checks.values().filter_map(|told| told.deadline_ms).min();
            prop_assert_eq!(local.next_deadline_ms(), next);
            for told in found.checks.values() {
                prop_assert!(told.service.is_empty() || found.services.contains_key(&told.service));
            }
        }
    }

    /// No bytes that a client sends end the process.
    #[test]
    fn any_json_is_read_or_refused(body in any::<String>(), name in "[A-Za-z]{1,8}") {
        let _ = ServiceDefinition::from_json(body.as_bytes());
        let _ = CheckDefinition::from_json(body.as_bytes());
        for value in [json!(7), json!(""), json!([{}]), json!({"a": 1}), json!(-1.5), json!(true)] {
            for field in ["Name", "Port", "Checks", "Check", "Weights", "TTL", "Tags", &name] {
                let mut body = json!({"Name": "x", "TTL": "1s"});
                body[field] = value.clone();
                let _ = ServiceDefinition::from_value(&body);
                let _ = CheckDefinition::from_value(&body);
            }
        }
    }
}

fn refused(value: Value) -> String {
    ServiceDefinition::from_value(&value)
        .unwrap_err()
        .to_string()
}

fn refused_check(value: Value) -> String {
    CheckDefinition::from_value(&value).unwrap_err().to_string()
}

#[test]
fn services_are_refused_in_consuls_words() {
    let meta: BTreeMap<String, String> = (0..=META_PAIRS_MAX)
        .map(|n| (format!("k{n}"), String::new()))
        .collect();
    let long_value = "v".repeat(META_VALUE_BYTES_MAX + 1);
    for (body, text) in [
        (json!({}), "Missing service name"),
        (
            json!([]),
            "Request decode failed: expected an object, found a list",
        ),
        (
            json!({"Name": "a", "Port": "80"}),
            "Request decode failed: Port: expected a whole number, found a string",
        ),
        (
            json!({"Name": "a", "Port": 65536}),
            "Invalid service port 65536",
        ),
        (
            json!({"Name": "a", "Address": "0.0.0.0"}),
            "Invalid service address",
        ),
        (
            json!({"Name": "a", "Address": "::"}),
            "Invalid service address",
        ),
        (
            json!({"Name": "a", "Weights": {"Passing": 0, "Warning": 1}}),
            "Invalid Weights: Passing must be greater than 0",
        ),
        (
            json!({"Name": "a", "Weights": {"Passing": 65536, "Warning": 1}}),
            "Invalid Weights: DNS Weight must be between 0 and 65535",
        ),
        (
            json!({"Name": "a", "Meta": meta}),
            "Invalid Service Meta: Node metadata cannot contain more than 64 key/value pairs",
        ),
        (
            json!({"Name": "a", "Meta": {"a b": "c"}}),
            "Invalid Service Meta: Couldn't load metadata pair ('a b', 'c'): Key contains invalid characters",
        ),
        (
            json!({"Name": "a", "Meta": {"consul-x": "c"}}),
            "Invalid Service Meta: Couldn't load metadata pair ('consul-x', 'c'): Key prefix 'consul-' is reserved for internal use",
        ),
        (
            json!({"Name": "a", "Meta": {"k": long_value}}),
            &format!(
                "Invalid Service Meta: Couldn't load metadata pair ('k', '{long_value}'): Value is too long (limit: 512 characters)"
            ),
        ),
        (
            json!({"Name": "a", "Check": {"Interval": "1s", "TTL": "1s"}}),
            "Invalid check: Interval and TTL cannot both be specified",
        ),
        (
            json!({"Name": "a", "Checks": [{"HTTP": "http://x"}]}),
            "Invalid check: Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks",
        ),
        (
            json!({"Name": "a", "Check": {"Name": "no TTL"}}),
            "Invalid check: TTL must be > 0 for TTL checks",
        ),
        (
            json!({"Name": "a", "Check": {"TTL": "1s", "Status": "fine"}}),
            "Status for checks must 'passing', 'warning', 'critical'",
        ),
        (
            json!({"Name": "a", "Check": {"args": ["sh", "-c", "true"], "Interval": "1s"}}),
            "Invalid check: script checks are not supported: this agent runs TTL, HTTP and TCP checks",
        ),
        (
            json!({"Name": "a", "Connect": {"SidecarService": {}}}),
            "Connect.SidecarService is not supported: there is no service mesh here; register the proxy as a service of its own",
        ),
    ] {
        assert_eq!(refused(body), text);
    }
    assert_eq!(
        ServiceDefinition::from_json(b"").unwrap_err().to_string(),
        "Request decode failed: EOF"
    );
}

#[test]
fn checks_are_refused_in_consuls_words() {
    for (body, text) in [
        (json!({"TTL": "1s"}), "Missing check name"),
        (
            json!({"Name": "a", "TTL": "1s", "Status": "x"}),
            "Bad check status",
        ),
        (
            json!({"Name": "a", "TTL": "soon"}),
            "Request decode failed: TTL: time: invalid duration \"soon\"",
        ),
        (
            json!({"Name": "a"}),
            "Invalid check: TTL must be > 0 for TTL checks",
        ),
        (
            json!({"Name": "a", "HTTP": "ftp://x", "Interval": "1s"}),
            "Invalid check: HTTP \"ftp://x\" is neither http://host/… nor https://host/…",
        ),
        (
            json!({"Name": "a", "HTTP": "/x", "Interval": "1s"}),
            "Invalid check: HTTP \"/x\" is neither http://host/… nor https://host/…",
        ),
        (
            json!({"Name": "a", "TCP": "localhost", "Interval": "1s"}),
            "Invalid check: TCP \"localhost\" is not host:port",
        ),
        (
            json!({"Name": "a", "GRPC": "x:1", "Interval": "1s"}),
            "Invalid check: gRPC checks are not supported: this agent runs TTL, HTTP and TCP checks",
        ),
        (
            json!({"Name": "a", "TTL": "1s", "FailuresBeforeWarning": 2, "FailuresBeforeCritical": 1}),
            "Invalid check: FailuresBeforeWarning can't be higher than FailuresBeforeCritical",
        ),
        (
            json!({"Name": "a", "AliasService": "b", "TTL": "1s"}),
            "Invalid check: TTL must be not be set for Alias checks",
        ),
        (
            json!({"Name": "a", "TTL": "1s", "OutputMaxSize": -1}),
            "Invalid check: MaxOutputMaxSize must be positive",
        ),
    ] {
        assert_eq!(refused_check(body), text);
    }
    let name = "n".repeat(ID_BYTES_MAX + 1);
    assert_eq!(
        refused_check(json!({"Name": name, "TTL": "1s"})),
        "Check name of 513 bytes is too long, at most 512 bytes"
    );
}

#[test]
fn names_are_read_as_gos_decoder_forgives_them() {
    let check = json!({
        "name": "a", "HTTP": "http://127.0.0.1:1/x", "interval": 5_000_000_000u64, "timeout": "2s",
        "deregister_critical_service_after": "5s", "header": {"X-A": ["1", "2"], "X-B": "3"},
        "success_before_passing": 3, "check_id": "c", "args": null,
    });
    let check = CheckDefinition::from_value(&check).unwrap();
    assert_eq!(
        (&*check.id, check.interval_ns, check.timeout_ns),
        ("c", 5_000_000_000, 2_000_000_000)
    );
    // Consul's minimum.
    assert_eq!(check.deregister_after_ns, 60_000_000_000);
    assert_eq!(check.thresholds.success_before_passing, 3);
    let CheckKind::Http(request) = &check.kind else {
        panic!("an HTTP check");
    };
    assert_eq!(request.method, "GET");
    assert_eq!(request.headers["X-A"], ["1", "2"]);
    assert_eq!(request.headers["X-B"], ["3"]);
    let service = json!({"Name": "s", "enable_tag_override": true, "Address": "10.0.0.1", "Port": 5,
        "Check": {}, "Checks": null, "Connect": {}});
    let service = ServiceDefinition::from_value(&service).unwrap();
    assert!(service.enable_tag_override && service.checks.is_empty() && service.connect.is_none());
    assert_eq!(
        service.tagged_addresses["lan_ipv4"],
        ("10.0.0.1".to_owned(), 5)
    );
}

#[test]
fn there_is_room_for_so_many_and_no_more() {
    let mut local = Local::new("n1");
    for n in 0..SERVICES_MAX {
        let definition = service(&format!("s{n}"), 1, &[1, 1]);
        local
            .register_service(0, definition, Origin::Client, false)
            .unwrap();
    }
    assert_eq!(local.checks().len(), CHECKS_MAX);
    let full = local.register_service(0, service("one", 1, &[]), Origin::Client, false);
    assert_eq!(
        full,
        Err(AgentError::Full(format!("{SERVICES_MAX} services")))
    );
    let full = local.register_check(0, check("one", "", 1), Origin::Client);
    assert_eq!(full, Err(AgentError::Full(format!("{CHECKS_MAX} checks"))));
    // One that is there may be registered again.
    local
        .register_service(0, service("s7", 2, &[5, 5]), Origin::Client, false)
        .unwrap();
    let tags = vec!["t"; TAGS_MAX + 1];
    assert_eq!(
        refused(json!({"Name": "a", "Tags": tags})),
        "257 tags are too many, at most 256"
    );
}

#[test]
fn outputs_are_bounded() {
    let mut local = Local::new("n1");
    local
        .register_check(0, check("c", "", 9), Origin::Client)
        .unwrap();
    let long = "o".repeat(CHECK_OUTPUT_BYTES + 1);
    local.update_ttl(0, "c", Status::Passing, &long).unwrap();
    let kept = &local.checks()["c"].output;
    assert!(
        kept.ends_with("... (captured 4096 of 4097 bytes)"),
        "{kept}"
    );
    let wide = json!({"Name": "a", "TTL": "1s", "OutputMaxSize": 1 << 30});
    let wide = CheckDefinition::from_value(&wide).unwrap();
    assert_eq!(wide.output_bytes_max, OUTPUT_BYTES_MAX);
    let pairs: BTreeMap<String, u8> = BTreeMap::new();
    assert!(pairs.is_empty() && META_KEY_BYTES_MAX == 128);
}

#[test]
fn only_ttl_checks_are_told_their_status() {
    let mut local = Local::new("n1");
    let tcp = json!({"Name": "t", "TCP": "127.0.0.1:1", "Interval": "10ms"});
    let tcp = CheckDefinition::from_value(&tcp).unwrap();
    assert_eq!(tcp.interval_ns, 1_000_000_000, "Consul's minimum");
    local.register_check(0, tcp, Origin::Client).unwrap();
    let refused = local.update_ttl(0, "t", Status::Passing, "").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "CheckID \"t\" does not have associated TTL"
    );
    let unknown = local.update_ttl(0, "u", Status::Passing, "").unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "Unknown check ID \"u\". Ensure that the check ID is passed, not the check name."
    );
}

#[test]
fn results_of_a_check_that_was_changed_meanwhile_do_not_count() {
    let mut local = Local::new("n1");
    let tcp = |address: &str| {
        let body = json!({"Name": "t", "TCP": address, "Interval": "1s"});
        CheckDefinition::from_value(&body).unwrap()
    };
    local
        .register_check(0, tcp("127.0.0.1:1"), Origin::Client)
        .unwrap();
    let before = local.checks()["t"].generation;
    local
        .register_check(0, tcp("127.0.0.1:1"), Origin::Client)
        .unwrap();
    assert_eq!(
        local.checks()["t"].generation,
        before,
        "nothing has changed"
    );
    local
        .register_check(0, tcp("127.0.0.1:2"), Origin::Client)
        .unwrap();
    local.observe(1, "t", before, Status::Passing, "old".into());
    assert_eq!(local.checks()["t"].status, Status::Critical);
    let now = local.checks()["t"].generation;
    local.observe(1, "t", now, Status::Passing, "new".into());
    assert_eq!(local.checks()["t"].status, Status::Passing);
}

#[test]
fn a_service_goes_when_its_check_is_critical_for_too_long() {
    let mut local = Local::new("n1");
    let body =
        json!({"Name": "web", "Check": {"TTL": "1s", "DeregisterCriticalServiceAfter": "2m"}});
    let definition = ServiceDefinition::from_value(&body).unwrap();
    local
        .register_service(0, definition, Origin::Client, false)
        .unwrap();
    local
        .update_ttl(10_000, "service:web", Status::Passing, "")
        .unwrap();
    assert_eq!(local.expire(11_000), ["service:web"]);
    assert!(local.overdue(131_000).is_empty());
    assert_eq!(local.overdue(131_001), ["web"]);
    local
        .update_ttl(131_001, "service:web", Status::Warning, "")
        .unwrap();
    assert!(local.overdue(500_000).is_empty());
}

#[test]
fn an_alias_follows_its_service() {
    let mut local = Local::new("n1");
    let alias = json!({"Name": "as web", "AliasService": "web"});
    local
        .register_check(
            0,
            CheckDefinition::from_value(&alias).unwrap(),
            Origin::Client,
        )
        .unwrap();
    let seen = |local: &Local| {
        let check = &local.checks()["as web"];
        (check.status, check.output.clone())
    };
    assert_eq!(
        seen(&local),
        (
            Status::Critical,
            "Service web could not be found on node n1".into()
        )
    );
    local
        .register_service(0, service("web", 1, &[]), Origin::Client, false)
        .unwrap();
    assert_eq!(seen(&local), (Status::Passing, "No checks found.".into()));
    local
        .register_service(0, service("web", 1, &[5]), Origin::Client, false)
        .unwrap();
    local
        .update_ttl(0, "service:web", Status::Warning, "slow")
        .unwrap();
    assert_eq!(
        seen(&local),
        (
            Status::Warning,
            "Aliased check \"Service 'web' check\" failing: slow".into()
        )
    );
    local
        .update_ttl(0, "service:web", Status::Passing, "")
        .unwrap();
    assert_eq!(
        seen(&local),
        (Status::Passing, "All checks passing.".into())
    );
}

#[test]
fn configuration_files_own_what_they_say() {
    let mut local = Local::new("n1");
    local
        .register_service(0, service("client", 1, &[]), Origin::Client, false)
        .unwrap();
    let errors = local.configure(
        0,
        vec![service("a", 1, &[1]), service("b", 1, &[])],
        vec![check("c", "", 1)],
    );
    assert_eq!(errors, []);
    let kept: Vec<Stored> = local
        .take_dirty(0, 0)
        .into_iter()
        .filter(|f| f.bytes.is_some())
        .collect();
    let durable = |file: &&Stored| file.kept == Kept::Durably;
    assert_eq!(
        kept.iter().filter(durable).count(),
        1,
        "only the client's: {kept:?}"
    );
    // A reload: `a` has lost its check, `b` is gone, and a check of nothing is refused.
    let errors = local.configure(
        0,
        vec![service("a", 2, &[])],
        vec![check("d", "nothing", 1)],
    );
    assert_eq!(errors, [AgentError::NoSuchService("nothing".into())]);
    let services: Vec<&String> = local.services().keys().collect();
    assert_eq!(services, ["a", "client"]);
    assert!(local.checks().is_empty());
}

/// While a server is down, nobody hears a check's signs of life: what was passing when it stopped
/// must not pass for good.
#[test]
fn a_ttl_goes_on_while_the_server_is_down() {
    let mut local = Local::new("n1");
    for id in ["short", "long"] {
        let ttl_s = if id == "short" { 5 } else { 60 };
        local
            .register_check(0, check(id, "", ttl_s), Origin::Client)
            .unwrap();
        local.update_ttl(0, id, Status::Passing, "well").unwrap();
    }
    let mut files = Files::default();
    files.write(local.take_dirty(0, EPOCH_MS));
    let again = files.read(1000, EPOCH_MS + 10_000);
    let seen = |id: &str| (again.checks()[id].status, &*again.checks()[id].output);
    assert_eq!(seen("short"), (Status::Critical, "TTL expired"));
    assert_eq!(seen("long"), (Status::Passing, "well"));
    assert_eq!(again.next_deadline_ms(), Some(1000 + 50_000));
    // A clock that was set back by a year lends no check a year.
    let again = files.read(1000, EPOCH_MS - 365 * 86_400_000);
    assert_eq!(again.next_deadline_ms(), Some(1000 + 5_000));
}

/// The files of a service with one of everything, of each kind of check, and of a status. A file
/// that an older version wrote must be read by every later one; written anew when it does not exist.
#[test]
fn files_are_those_of_version_1() {
    let body = json!({
        "ID": "web-1", "Name": "web", "Kind": "", "Tags": ["a", "b"], "Address": "10.1.2.3", "Port": 80,
        "TaggedAddresses": {"wan": {"Address": "1.2.3.4", "Port": 8080}}, "Meta": {"version": "4"},
        "Weights": {"Passing": 10, "Warning": 2}, "EnableTagOverride": true, "Token": "t",
        "Proxy": {"Config": {"x": 1}},
        "Checks": [
            {"CheckID": "http", "HTTP": "http://127.0.0.1/h", "Method": "POST", "Header": {"X-A": ["1"]},
             "Body": "b", "Interval": "10s", "Timeout": "3s", "DisableRedirects": true,
             "DeregisterCriticalServiceAfter": "1h", "FailuresBeforeCritical": 3, "FailuresBeforeWarning": 1},
            {"CheckID": "tcp", "TCP": "127.0.0.1:80", "Interval": "10s", "Notes": "n", "Status": "passing"},
            {"CheckID": "https", "HTTP": "https://10.1.2.3/h", "Interval": "10s",
             "TLSServerName": "web.example", "TLSSkipVerify": true},
            {"CheckID": "tls", "TCP": "127.0.0.1:443", "Interval": "10s", "TCPUseTLS": true,
             "TLSServerName": "web.example"},
            {"CheckID": "ttl", "TTL": "30s"},
            {"CheckID": "alias", "AliasService": "web-1"},
        ],
    });
    let mut local = Local::new("n1");
    let definition = ServiceDefinition::from_value(&body).unwrap();
    local
        .register_service(0, definition, Origin::Client, false)
        .unwrap();
    local.update_ttl(0, "ttl", Status::Warning, "hm").unwrap();
    local.maintain_node(0, true, "upgrade").unwrap();
    let mut files = Files::default();
    files.write(local.take_dirty(0, EPOCH_MS));
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/agent");
    fs::create_dir_all(&dir).unwrap();
    let mut read = Files::default();
    for ((folder, path), bytes) in &files.0 {
        let golden = dir.join(format!("{}.v1.json", path.replace('/', "-")));
        if !golden.exists() {
            fs::write(&golden, bytes).unwrap();
        }
        read.0
            .insert((*folder, path.clone()), fs::read(&golden).unwrap());
        assert_eq!(
            String::from_utf8_lossy(&read.0[&(*folder, path.clone())]),
            String::from_utf8_lossy(bytes)
        );
    }
    let again = read.read(0, EPOCH_MS);
    assert_eq!(again.services(), local.services());
    assert_eq!(Model::of(&again).checks, Model::of(&local).checks);
    for (id, check) in again.checks() {
        assert_eq!(check.definition, local.checks()[id].definition);
    }
}

#[test]
fn files_that_are_not_ours_are_refused_by_name() {
    let mut local = Local::new("n1");
    let mut load = |folder, text: &str| {
        let refused = local.load(folder, text.as_bytes(), 0, 0).unwrap_err();
        assert!(local.services().is_empty() && local.checks().is_empty());
        refused.to_string()
    };
    assert_eq!(
        load(0, "{\"Version\":2}"),
        "it has version 2, this build reads version 1"
    );
    assert_eq!(load(0, "{}"), "it is not a registration: no version");
    assert!(load(0, "\0\0\0").starts_with("it is not a registration: "));
    assert_eq!(
        load(0, "{\"Version\":1,\"Service\":{}}"),
        "Missing service name"
    );
    assert_eq!(
        load(
            1,
            "{\"Version\":1,\"Check\":{\"Name\":\"a\",\"ServiceID\":\"b\",\"TTL\":1}}"
        ),
        "ServiceID \"b\" does not exist"
    );
    assert!(
        load(
            2,
            "{\"Version\":1,\"CheckID\":\"a\",\"Status\":\"passing\",\"Output\":\"\"}"
        )
        .starts_with("Unknown check ID \"a\"")
    );
}
