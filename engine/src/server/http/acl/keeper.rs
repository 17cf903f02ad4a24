//! What does a leader keep in order where ACLs are on?
//!
//! Every cluster has the two built-in policies, the anonymous token and, if the configuration names
//! a secret for it, the initial management token. Tokens whose time is over are refused at once
//! wherever they are shown; here they are deleted too. All of it goes through the log like any
//! other write, so two leaders that overlap do no harm: what is there already is refused.

use std::time::Duration;

use glommio::timer::sleep;
use wire::ReadMode;

use super::{
    endpoints::management_token,
    guard::{ask, now_ns},
};
use crate::{
    acl::{ANONYMOUS_ACCESSOR, ANONYMOUS_SECRET, builtin_policy},
    documents::{AclQuestion, Question, acl::Duties},
    fsm::{
        acl::{Bootstrap, PolicySet, TokenDelete, TokenSet},
        records::RecordOp,
    },
    server::{config::acl::AclOptions, gateway::Gateway},
    state::records::{AclPolicy, AclToken},
};

/// Between two looks until everything is there: a server serves within a second of its start.
const LOOK_AT_FIRST: Duration = Duration::from_millis(100);

/// Between two looks afterwards (Consul reaps tokens once a second).
const LOOK: Duration = Duration::from_secs(1);

/// Keeps the ACL in order for as long as `leads` says that this server is the leader; for ever.
pub(in crate::server) async fn keep<G: Gateway>(
    gateway: G,
    options: AclOptions,
    leads: impl Fn() -> bool,
) {
    loop {
        let settled = leads() && look(&gateway, &options).await;
        sleep(if settled { LOOK } else { LOOK_AT_FIRST }).await;
    }
}

/// Looks once, and writes what is missing. True if nothing was.
async fn look<G: Gateway>(gateway: &G, options: &AclOptions) -> bool {
    let initial = options.tokens.initial_management.as_ref();
    let initial = initial.map_or("", |secret| secret.expose());
    let question = Question::from(AclQuestion::Duties {
        now_ns: now_ns(),
        initial_management: initial.to_owned(),
    });
    let Ok(duties) = ask::<_, Duties>(gateway, ReadMode::Stale, &question).await else {
        return false;
    };
    let mut settled = true;
    for op in due(&duties, initial) {
        settled = false;
        if let Err(failure) = gateway.record(op.encode()).await {
            log::debug!(target: "agent.acl", "not written yet: {}", failure.message);
            return false;
        }
        said(&op);
    }
    settled
}

fn due(duties: &Duties, initial_management: &str) -> Vec<RecordOp> {
    let mut ops = Vec::new();
    let missing = duties.policies.iter().filter_map(|id| builtin_policy(id));
    for builtin in missing {
        let policy = AclPolicy {
            id: builtin.id.to_owned(),
            name: builtin.name.to_owned(),
            description: builtin.description.to_owned(),
            rules: builtin.rules.to_owned(),
            ..AclPolicy::default()
        };
        let (policies, create) = (vec![policy], true);
        ops.push(RecordOp::AclPolicySet(PolicySet { policies, create }));
    }
    if duties.anonymous {
        let token = AclToken {
            accessor_id: ANONYMOUS_ACCESSOR.to_owned(),
            secret_id: ANONYMOUS_SECRET.to_owned(),
            description: "Anonymous Token".to_owned(),
            create_time: now_ns(),
            ..AclToken::default()
        };
        ops.push(token_made(token));
    }
    if duties.management {
        let description = "Initial Management Token";
        // Without a random number there is a next look.
        if let Ok(token) = management_token(initial_management.to_owned(), description) {
            ops.push(match duties.bootstrapped_index {
                0 => RecordOp::AclBootstrap(Bootstrap {
                    token,
                    reset_index: 0,
                }),
                _ => token_made(token),
            });
        }
    }
    if !duties.ended.is_empty() {
        let ids = duties.ended.clone();
        ops.push(RecordOp::AclTokenDelete(TokenDelete { ids }));
    }
    ops
}

fn token_made(token: AclToken) -> RecordOp {
    RecordOp::AclTokenSet(TokenSet {
        tokens: vec![token],
        create: true,
        cas: false,
        now_ns: 0,
    })
}

fn said(op: &RecordOp) {
    match op {
        RecordOp::AclPolicySet(set) => {
            let names: Vec<&str> = set.policies.iter().map(|policy| &*policy.name).collect();
            log::info!(target: "agent.acl", "made policy: {}", names.join(", "));
        }
        RecordOp::AclTokenSet(_) | RecordOp::AclBootstrap(_) => {
            log::info!(target: "agent.acl", "made a token that every cluster has");
        }
        RecordOp::AclTokenDelete(delete) => {
            log::info!(target: "agent.acl", "deleted tokens that have ended: {}", delete.ids.len());
        }
        _ => {}
    }
}
