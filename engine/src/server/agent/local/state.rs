//! What does a request do to what is registered?
//!
//! One structure with all registrations, changed by one method per request. A change names what it
//! touched twice: until its file is written ([`Local::take_dirty`]), and by a version that moves
//! whenever the catalog may have to be told ([`Local::version`]).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    CHECKS_MAX, CheckDefinition, CheckKind, SERVICES_MAX, ServiceDefinition, Status,
    files::{Item, Place},
    status::{Standing, trimmed},
    timers::Timers,
};
use crate::server::http::go_text::quote;

/// Id of the check that stands for maintenance of the node.
pub const NODE_MAINTENANCE: &str = "_node_maintenance";
/// What the ids of checks that stand for maintenance of a service begin with.
pub const SERVICE_MAINTENANCE: &str = "_service_maintenance:";

const NODE_REASON: &str = "Maintenance mode is enabled for this node, but no reason was provided. This is a default message.";
const SERVICE_REASON: &str = "Maintenance mode is enabled for this service, but no reason was provided. This is a default message.";

/// Why a request to the agent was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// The request says something that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// No service has this id.
    #[error(
        "Unknown service ID {}. Ensure that the service ID is passed, not the service name.",
        quote(.0)
    )]
    UnknownService(String),
    /// No check has this id.
    #[error(
        "Unknown check ID {}. Ensure that the check ID is passed, not the check name.",
        quote(.0)
    )]
    UnknownCheck(String),
    /// A check is to be of a service that is not here.
    #[error("ServiceID {} does not exist", quote(.0))]
    NoSuchService(String),
    /// A check that is not told its status.
    #[error("CheckID {} does not have associated TTL", quote(.0))]
    NoTtl(String),
    /// There is no room for more.
    #[error("this agent has {0} already, the most that it takes")]
    Full(String),
}

/// Who registered something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// A client. Kept in the data directory.
    #[default]
    Client,
    /// The configuration files, which say so again at each start.
    Configuration,
}

/// A registered service. Its definition's checks are registered beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// As registered, without checks.
    pub definition: ServiceDefinition,
    /// By whom.
    pub origin: Origin,
}

/// A registered check.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// As registered.
    pub definition: CheckDefinition,
    /// By whom.
    pub origin: Origin,
    /// How it is doing.
    pub status: Status,
    /// What was last said of that.
    pub output: String,
    /// Name of its service; empty for a check of the node.
    pub service_name: String,
    /// Tags of its service.
    pub service_tags: Vec<String>,
    /// Changes whenever it is to be run otherwise than before: results of older runs do not count.
    pub generation: u64,
    /// Since when it is critical.
    pub critical_since_ms: Option<u64>,
    /// Since when only its output differs from what the catalog may have.
    pub output_changed_ms: Option<u64>,
    pub(super) standing: Standing,
    /// A TTL check turns critical at this time.
    pub(super) deadline_ms: Option<u64>,
}

/// All that is registered with this agent.
#[derive(Debug, Default)]
pub struct Local {
    pub(super) node: String,
    pub(super) services: BTreeMap<String, Service>,
    pub(super) checks: BTreeMap<String, Check>,
    pub(super) timers: Timers,
    pub(super) dirty: BTreeSet<Place>,
    pub(super) version: u64,
    /// What the catalog may have to be told of.
    unsynced: BTreeSet<Item>,
    generations: u64,
}

type Done = Result<(), AgentError>;

impl Local {
    /// Nothing registered yet, on the node with this name.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            ..Self::default()
        }
    }

    /// Name of the node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Services by id.
    pub fn services(&self) -> &BTreeMap<String, Service> {
        &self.services
    }

    /// Checks by id.
    pub fn checks(&self) -> &BTreeMap<String, Check> {
        &self.checks
    }

    /// Grows with each check that is to be run otherwise than before.
    pub fn generations(&self) -> u64 {
        self.generations
    }

    /// What has changed since this was last asked, as far as the catalog goes.
    pub fn take_unsynced(&mut self) -> BTreeSet<Item> {
        std::mem::take(&mut self.unsynced)
    }

    /// The catalog could not be told of these.
    pub fn not_synced(&mut self, items: BTreeSet<Item>) {
        self.unsynced.extend(items);
    }

    /// Grows with each change that the catalog should learn at once.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Registers a service with its checks, in place of one with its id. With `replace`, checks of
    /// that one which are not named again go.
    ///
    /// # Errors
    /// `Full`; then nothing has changed.
    pub fn register_service(
        &mut self,
        now_ms: u64,
        mut service: ServiceDefinition,
        origin: Origin,
        replace: bool,
    ) -> Done {
        let checks = std::mem::take(&mut service.checks);
        self.room_for(&service.id, checks.iter().map(|check| &*check.id))?;
        let id = service.id.clone();
        if replace {
            let named: BTreeSet<&str> = checks.iter().map(|check| &*check.id).collect();
            let gone: Vec<String> = self
                .checks_of(&id)
                .filter(|check| !named.contains(&*check.definition.id))
                .filter(|check| check.definition.kind != CheckKind::Maintenance)
                .map(|check| check.definition.id.clone())
                .collect();
            gone.iter().for_each(|check| self.drop_check(check));
        }
        let service = Service {
            definition: service,
            origin,
        };
        if self.services.get(&id) != Some(&service) {
            // The catalog shows name and tags with each of them.
            for (check_id, check) in &mut self.checks {
                if check.definition.service_id == id {
                    check.service_name.clone_from(&service.definition.name);
                    check.service_tags.clone_from(&service.definition.tags);
                    self.unsynced.insert(Item::Check(check_id.clone()));
                }
            }
            self.services.insert(id.clone(), service);
            self.touch(Place::Service(id));
        }
        for check in checks {
            self.put_check(now_ms, check, origin);
        }
        self.refresh_aliases();
        Ok(())
    }

    fn room_for<'a>(&self, id: &str, checks: impl Iterator<Item = &'a str>) -> Done {
        if !self.services.contains_key(id) && self.services.len() >= SERVICES_MAX {
            return Err(AgentError::Full(format!("{SERVICES_MAX} services")));
        }
        self.room_for_checks(checks)
    }

    fn room_for_checks<'a>(&self, checks: impl Iterator<Item = &'a str>) -> Done {
        let new: BTreeSet<&str> = checks.filter(|id| !self.checks.contains_key(*id)).collect();
        if !new.is_empty() && self.checks.len() + new.len() > CHECKS_MAX {
            return Err(AgentError::Full(format!("{CHECKS_MAX} checks")));
        }
        Ok(())
    }

    /// Takes out a service and its checks.
    ///
    /// # Errors
    /// `UnknownService`.
    pub fn deregister_service(&mut self, id: &str) -> Done {
        if self.services.remove(id).is_none() {
            return Err(AgentError::UnknownService(id.to_owned()));
        }
        self.touch(Place::Service(id.to_owned()));
        let checks: Vec<String> = self
            .checks_of(id)
            .map(|check| check.definition.id.clone())
            .collect();
        checks.iter().for_each(|check| self.drop_check(check));
        self.refresh_aliases();
        Ok(())
    }

    /// Registers a check, in place of one with its id.
    ///
    /// # Errors
    /// `NoSuchService`, `Full`.
    pub fn register_check(&mut self, now_ms: u64, check: CheckDefinition, origin: Origin) -> Done {
        if !check.service_id.is_empty() && !self.services.contains_key(&check.service_id) {
            return Err(AgentError::NoSuchService(check.service_id));
        }
        self.room_for_checks([&*check.id].into_iter())?;
        self.put_check(now_ms, check, origin);
        self.refresh_aliases();
        Ok(())
    }

    /// Takes out a check.
    ///
    /// # Errors
    /// `UnknownCheck`.
    pub fn deregister_check(&mut self, id: &str) -> Done {
        if !self.checks.contains_key(id) {
            return Err(AgentError::UnknownCheck(id.to_owned()));
        }
        self.drop_check(id);
        self.refresh_aliases();
        Ok(())
    }

    /// A check that was there before keeps its status: whoever registers again does not flap.
    pub(super) fn put_check(&mut self, now_ms: u64, definition: CheckDefinition, origin: Origin) {
        let id = definition.id.clone();
        let (service_name, service_tags) = match self.services.get(&definition.service_id) {
            Some(service) => (
                service.definition.name.clone(),
                service.definition.tags.clone(),
            ),
            None => Default::default(),
        };
        let before = self.checks.remove(&id);
        let same = before
            .as_ref()
            .is_some_and(|before| before.definition == definition && before.origin == origin);
        let (status, output, standing) = match &before {
            Some(before) => (before.status, before.output.clone(), before.standing),
            None => (definition.status, String::new(), Standing::default()),
        };
        let generation = match &before {
            Some(before) if same => before.generation,
            _ => {
                self.generations += 1;
                self.generations
            }
        };
        let critical_since_ms = before.as_ref().and_then(|before| before.critical_since_ms);
        let check = Check {
            origin,
            status,
            output,
            service_name,
            service_tags,
            generation,
            critical_since_ms: (status == Status::Critical)
                .then_some(critical_since_ms.unwrap_or(now_ms)),
            output_changed_ms: before.as_ref().and_then(|before| before.output_changed_ms),
            standing,
            deadline_ms: None,
            definition,
        };
        let deadline_ms = check.expiry_ms(now_ms);
        self.timers
            .set(&id, before.and_then(|b| b.deadline_ms), deadline_ms);
        if deadline_ms.is_some() {
            self.dirty.insert(Place::Status(id.clone()));
        }
        self.checks.insert(
            id.clone(),
            Check {
                deadline_ms,
                ..check
            },
        );
        if !same {
            self.touch(Place::Check(id));
        }
    }

    pub(super) fn drop_check(&mut self, id: &str) {
        if let Some(check) = self.checks.remove(id) {
            self.timers.set(id, check.deadline_ms, None);
            self.touch(Place::Check(id.to_owned()));
            self.dirty.insert(Place::Status(id.to_owned()));
        }
    }

    /// A TTL check is told its status.
    ///
    /// # Errors
    /// `UnknownCheck`, `NoTtl`.
    pub fn update_ttl(&mut self, now_ms: u64, id: &str, status: Status, output: &str) -> Done {
        let Some(check) = self.checks.get_mut(id) else {
            return Err(AgentError::UnknownCheck(id.to_owned()));
        };
        if !matches!(check.definition.kind, CheckKind::Ttl { .. }) {
            return Err(AgentError::NoTtl(id.to_owned()));
        }
        let deadline_ms = check.expiry_ms(now_ms);
        let before = std::mem::replace(&mut check.deadline_ms, deadline_ms);
        self.timers.set(id, before, deadline_ms);
        self.dirty.insert(Place::Status(id.to_owned()));
        self.set_status(now_ms, id, status, output.to_owned());
        Ok(())
    }

    /// A run of a check ended. One of an older generation does not count.
    pub fn observe(
        &mut self,
        now_ms: u64,
        id: &str,
        generation: u64,
        result: Status,
        output: String,
    ) {
        let Some(check) = self.checks.get_mut(id) else {
            return;
        };
        if check.generation != generation {
            return;
        }
        let thresholds = check.definition.thresholds;
        if let Some(status) = check.standing.count(thresholds, result) {
            self.set_status(now_ms, id, status, output);
        }
    }

    pub(super) fn set_status(&mut self, now_ms: u64, id: &str, status: Status, output: String) {
        let Some(check) = self.checks.get_mut(id) else {
            return;
        };
        let output = trimmed(output, check.definition.output_bytes_max);
        if check.status == status && check.output == output {
            return;
        }
        self.dirty.insert(Place::Status(id.to_owned()));
        if check.status == status {
            check.output = output;
            check.output_changed_ms.get_or_insert(now_ms);
            return;
        }
        check.status = status;
        check.output = output;
        check.critical_since_ms = (status == Status::Critical).then_some(now_ms);
        self.moved(Item::Check(id.to_owned()));
        self.refresh_aliases();
    }

    /// The catalog has this check's output now.
    pub fn output_told(&mut self, id: &str, output: &str) {
        if let Some(check) = self.checks.get_mut(id)
            && check.output == output
        {
            check.output_changed_ms = None;
        }
    }

    /// Tags that were changed in the catalog, for a service that allows it.
    pub fn override_tags(&mut self, id: &str, tags: &[String]) {
        if let Some(service) = self.services.get_mut(id)
            && service.definition.enable_tag_override
            && service.definition.tags != tags
        {
            service.definition.tags = tags.to_vec();
            for (check_id, check) in &mut self.checks {
                if check.definition.service_id == id {
                    check.service_tags = tags.to_vec();
                    self.unsynced.insert(Item::Check(check_id.clone()));
                }
            }
            self.dirty.insert(Place::Service(id.to_owned()));
        }
    }

    /// Turns maintenance of a service on, with a reason or a default one, or off.
    ///
    /// # Errors
    /// `UnknownService`, `Full`.
    pub fn maintain_service(&mut self, now_ms: u64, id: &str, on: bool, reason: &str) -> Done {
        let Some(service) = self.services.get(id) else {
            return Err(AgentError::UnknownService(id.to_owned()));
        };
        let check = CheckDefinition {
            name: "Service Maintenance Mode".into(),
            service_id: id.to_owned(),
            token: service.definition.token.clone(),
            ..maintenance(format!("{SERVICE_MAINTENANCE}{id}"), reason, SERVICE_REASON)
        };
        self.maintain(now_ms, check, on)
    }

    /// Turns maintenance of the node on, with a reason or a default one, or off.
    ///
    /// # Errors
    /// `Full`.
    pub fn maintain_node(&mut self, now_ms: u64, on: bool, reason: &str) -> Done {
        let check = CheckDefinition {
            name: "Node Maintenance Mode".into(),
            ..maintenance(NODE_MAINTENANCE.into(), reason, NODE_REASON)
        };
        self.maintain(now_ms, check, on)
    }

    fn maintain(&mut self, now_ms: u64, check: CheckDefinition, on: bool) -> Done {
        match (on, self.checks.contains_key(&check.id)) {
            (true, false) => self.register_check(now_ms, check, Origin::Client),
            (false, true) => self.deregister_check(&check.id),
            _ => Ok(()),
        }
    }

    /// Makes what the configuration files say all that is registered by them.
    ///
    /// # Errors
    /// One for each definition that could not be registered; the others are.
    pub fn configure(
        &mut self,
        now_ms: u64,
        services: Vec<ServiceDefinition>,
        checks: Vec<CheckDefinition>,
    ) -> Vec<AgentError> {
        let named: BTreeSet<&str> = services.iter().map(|service| &*service.id).collect();
        let of_files = |origin: Origin| origin == Origin::Configuration;
        let gone: Vec<String> = self
            .services
            .iter()
            .filter(|(id, service)| of_files(service.origin) && !named.contains(&***id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.deregister_service(&id).expect("it was just listed");
        }
        let named: BTreeSet<&str> = services
            .iter()
            .flat_map(|service| &service.checks)
            .chain(&checks)
            .map(|check| &*check.id)
            .collect();
        let gone: Vec<String> = self
            .checks
            .iter()
            .filter(|(id, check)| of_files(check.origin) && !named.contains(&***id))
            .map(|(id, _)| id.clone())
            .collect();
        gone.iter().for_each(|id| self.drop_check(id));
        let mut errors = Vec::new();
        for service in services {
            let done = self.register_service(now_ms, service, Origin::Configuration, true);
            errors.extend(done.err());
        }
        for check in checks {
            let done = self.register_check(now_ms, check, Origin::Configuration);
            errors.extend(done.err());
        }
        errors
    }

    /// Checks of a service; with an empty id, those of the node.
    pub fn checks_of<'a>(&'a self, service_id: &'a str) -> impl Iterator<Item = &'a Check> {
        self.checks
            .values()
            .filter(move |check| check.definition.service_id == service_id)
    }

    pub(super) fn touch(&mut self, place: Place) {
        match &place {
            Place::Service(id) => self.moved(Item::Service(id.clone())),
            Place::Check(id) => self.moved(Item::Check(id.clone())),
            Place::Status(_) => {}
        }
        self.dirty.insert(place);
    }

    /// The catalog should learn of this at once.
    fn moved(&mut self, item: Item) {
        self.unsynced.insert(item);
        self.version += 1;
    }

    /// Aliases follow what they stand for. An alias of an alias follows at the next change: each is
    /// looked at once, so that two of each other end.
    fn refresh_aliases(&mut self) {
        let news: Vec<_> = self
            .checks
            .iter()
            .filter_map(|(id, check)| match &check.definition.kind {
                CheckKind::Alias { service_id } => {
                    let (status, output) = self.aliased(service_id);
                    let moved = check.status != status || check.output != output;
                    moved.then(|| (id.clone(), status, output))
                }
                _ => None,
            })
            .collect();
        for (id, status, output) in news {
            if let Some(check) = self.checks.get_mut(&id) {
                check.status = status;
                check.output = output;
                self.moved(Item::Check(id));
            }
        }
    }

    /// Consul's `CheckAlias`: the worst of the node's checks and the service's own.
    fn aliased(&self, service_id: &str) -> (Status, String) {
        if !service_id.is_empty() && !self.services.contains_key(service_id) {
            let node = &self.node;
            let why = format!("Service {service_id} could not be found on node {node}");
            return (Status::Critical, why);
        }
        let relevant = self.checks.values().filter(|check| {
            let of = &check.definition.service_id;
            let alias = matches!(check.definition.kind, CheckKind::Alias { .. });
            (of.is_empty() || of == service_id) && !alias
        });
        let worst = relevant.max_by_key(|check| check.status);
        match worst {
            None => (Status::Passing, "No checks found.".into()),
            Some(check) if check.status == Status::Passing => {
                (Status::Passing, "All checks passing.".into())
            }
            Some(check) => {
                let (name, output) = (quote(&check.definition.name), &check.output);
                (
                    check.status,
                    format!("Aliased check {name} failing: {output}"),
                )
            }
        }
    }
}

impl Check {
    /// When it turns critical if it is told nothing from now on.
    pub(super) fn expiry_ms(&self, now_ms: u64) -> Option<u64> {
        match self.definition.kind {
            CheckKind::Ttl { ttl_ns } => Some(now_ms + ttl_ns.div_ceil(1_000_000)),
            _ => None,
        }
    }
}

pub(super) fn maintenance(id: String, reason: &str, default: &str) -> CheckDefinition {
    CheckDefinition {
        id,
        name: String::new(),
        notes: if reason.is_empty() { default } else { reason }.to_owned(),
        service_id: String::new(),
        status: Status::Critical,
        kind: CheckKind::Maintenance,
        interval_ns: 0,
        timeout_ns: 0,
        thresholds: super::status::Thresholds::default(),
        deregister_after_ns: 0,
        output_bytes_max: super::CHECK_OUTPUT_BYTES,
        token: String::new(),
    }
}
