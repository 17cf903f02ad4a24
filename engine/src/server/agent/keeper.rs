//! When is the catalog told what is registered here?
//!
//! At once when something changes, and of everything each minute, since others may have written to
//! this node's part of the catalog. One task does it, one command after the other; while there is
//! no leader it tries again, ever more rarely. Nobody waits for it: a registration is answered when
//! it is on disk, as in Consul. With ACLs it is told with tokens, which count as they are then:
//! what they do not allow is said in the log, and tried again with the next comparison of everything,
//! which a new token of the server's begins at once.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use futures_lite::FutureExt;
use glommio::timer::sleep;
use wire::{Failure, FailureKind, Index, Query, QueryBody, ReadMode, Wait};

use super::{
    local::{Item, Origin},
    service::{Agent, now_ms, random_below},
    sync::{Seen, Telling},
};
use crate::{
    acl::Resource,
    documents::{AgentQuestion, NodeRows, Question},
    fsm::records::RecordOp,
    server::{
        gateway::{AnswerBody, Gateway},
        http::{Bearer, Judge},
    },
};

/// Between two comparisons of everything (Consul: `aeInterval`).
const FULL_INTERVAL: Duration = Duration::from_secs(60);
/// They come up to so much later, so that servers which started together do not go together.
const STAGGER_NS: u64 = 30_000_000_000;
/// First and longest pause after something failed.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(15);
/// Registrations that are compared without letting others run.
const COMPARED_AT_ONCE: usize = 256;

/// Keeps the catalog in step with an agent.
pub(in super::super) struct Keeper<G> {
    agent: Rc<Agent>,
    gateway: G,
    judge: Judge<G>,
    /// `None`: it must be read.
    seen: Option<Seen>,
}

fn bearer(origin: Origin, token: &str) -> Bearer<'_> {
    match origin {
        Origin::Client => Bearer::Client(token),
        Origin::Configuration => Bearer::File(token),
    }
}

impl<G: Gateway> Keeper<G> {
    /// Of the agent of this node.
    pub(in super::super) fn new(agent: Rc<Agent>, gateway: G, judge: Judge<G>) -> Self {
        Self {
            agent,
            gateway,
            judge,
            seen: None,
        }
    }

    /// For ever.
    pub(in super::super) async fn run(mut self) {
        let mut pause = RETRY_FIRST;
        loop {
            match self.step().await {
                Ok(()) => {
                    pause = RETRY_FIRST;
                    self.wait().await;
                }
                Err(failure) => {
                    self.seen = None;
                    log::debug!(target: "agent", "the catalog was not told: {}", failure.message);
                    sleep(pause).await;
                    pause = (pause * 2).min(RETRY_LONGEST);
                }
            }
        }
    }

    /// Waits for a change, or until everything is due.
    async fn wait(&mut self) {
        let changed = async {
            self.agent.changed.rung().await;
            false
        };
        let due = async {
            sleep(FULL_INTERVAL + Duration::from_nanos(random_below(STAGGER_NS))).await;
            true
        };
        if changed.or(due).await || self.agent.take_resync() {
            self.seen = None;
        }
    }

    async fn step(&mut self) -> Result<(), Failure> {
        let items = self.agent.with_local(|local| local.take_unsynced());
        let items = match self.seen {
            Some(_) => items,
            None => {
                let read = self.read().await;
                let seen = read.inspect_err(|_| {
                    let items = items.clone();
                    self.agent.with_local(|local| local.not_synced(items));
                })?;
                let overridden = self.agent.with_local(|local| seen.overridden_tags(local));
                for (id, tags) in overridden {
                    self.agent
                        .with_local(|local| local.override_tags(&id, &tags));
                }
                let all = self.agent.with_local(|local| seen.all(local));
                let node = seen.node_telling(&self.agent.own());
                self.seen = Some(seen);
                if let Some(node) = node {
                    self.tell(node).await?;
                }
                self.agent.after_sync().await;
                all.into_iter().chain(items).collect()
            }
        };
        let mut rest: Vec<Item> = items.into_iter().collect();
        while !rest.is_empty() {
            let next = rest.split_off(rest.len().saturating_sub(COMPARED_AT_ONCE));
            self.tell_all(next.into_iter().collect()).await?;
            glommio::executor().yield_task_queue_now().await;
        }
        Ok(())
    }

    async fn tell_all(&mut self, items: BTreeSet<Item>) -> Result<(), Failure> {
        let Some(seen) = &self.seen else {
            return Ok(());
        };
        let own = self.agent.own();
        let tellings = self
            .agent
            .with_local(|local| seen.tellings(local, &own, now_ms(), &items));
        for telling in tellings {
            self.tell(telling).await?;
        }
        Ok(())
    }

    /// Tells the catalog. What it refuses is said in the log, and again with the next comparison
    /// of everything; what failed otherwise is found again by it.
    async fn tell(&mut self, telling: Telling) -> Result<(), Failure> {
        if let Some(what) = self.forbidden(&telling).await? {
            log::warn!(target: "agent", "{what} blocked by ACLs: {:?}", telling.items);
            return Ok(());
        }
        match self.gateway.record(telling.op.encode()).await {
            Ok(_) => {
                log::debug!(target: "agent", "synced: {:?}", telling.items);
            }
            Err(failure) if failure.kind == FailureKind::Refused => {
                log::warn!(
                    target: "agent",
                    "the catalog refuses what is registered here: {:?}: {}",
                    telling.items,
                    failure.message
                );
                return Ok(());
            }
            Err(failure) => return Err(failure),
        }
        if let Some(seen) = &mut self.seen {
            seen.told(&telling.op);
        }
        if let RecordOp::Register(request) = &telling.op {
            self.agent.with_local(|local| {
                for check in &request.checks {
                    local.output_told(&check.check_id, &check.output);
                }
            });
        }
        Ok(())
    }

    /// What of it the tokens that it is told with do not allow, in Consul's words.
    async fn forbidden(&self, telling: &Telling) -> Result<Option<&'static str>, Failure> {
        let RecordOp::Register(request) = &telling.op else {
            return Ok(None);
        };
        let node = &request.node;
        if !request.skip_node_update {
            let may = self.judge.may_write(Bearer::Agent, Resource::Node, node);
            return Ok((!may.await?).then_some("Node info update"));
        }
        if let Some(service) = &request.service {
            let (origin, token) = self.agent.with_local(|local| {
                let held = local.services().get(&service.id);
                held.map_or_else(Default::default, |held| {
                    (held.origin, held.definition.token.clone())
                })
            });
            let bearer = bearer(origin, &token);
            let may = self
                .judge
                .may_write(bearer, Resource::Service, &service.service);
            if !may.await? {
                return Ok(Some("Service registration"));
            }
        }
        for check in &request.checks {
            let (origin, token) = self.agent.with_local(|local| {
                let held = local.checks().get(&check.check_id);
                held.map_or_else(Default::default, |held| {
                    (held.origin, held.definition.token.clone())
                })
            });
            let bearer = bearer(origin, &token);
            let (resource, name) = match &*check.service_id {
                "" => (Resource::Node, node),
                _ => (Resource::Service, &check.service_name),
            };
            if !self.judge.may_write(bearer, resource, name).await? {
                return Ok(Some("Check registration"));
            }
        }
        Ok(None)
    }

    /// What the catalog holds of this node.
    async fn read(&self) -> Result<Seen, Failure> {
        let question = Question::Agent(AgentQuestion::Node {
            node: self.agent.own().node.node.clone(),
        });
        let query = Query {
            mode: ReadMode::Default,
            body: QueryBody::Record(question.encode()),
            min_index: Index(0),
            wait: Wait::default(),
        };
        let answer = self.gateway.read(query).await?;
        let garbled = |why: String| Failure {
            kind: FailureKind::Internal,
            message: why,
            leader: String::new(),
            retry_after_ms: 0,
        };
        match answer.body {
            AnswerBody::Document(json) => NodeRows::decode(&json)
                .map(Seen::new)
                .map_err(|error| garbled(error.to_string())),
            _ => Err(garbled("no document for a question".to_owned())),
        }
    }
}
