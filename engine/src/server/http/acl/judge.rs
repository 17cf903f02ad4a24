//! May the agent tell the catalog what was registered with it?
//!
//! Whoever registered something was allowed to when it came. It is told again as long as the server
//! lives, and then its token counts as it is at that time, as in Consul: one that has been deleted
//! registers nothing any more. The order of tokens is Consul's:
//!
//! ```text
//! service, check    its own ─► of configuration files: config_file_service_registration ─► default
//! the node itself   agent ─► default
//! ```
//!
//! and without any of them the anonymous token. A deregistration needs no token here: whoever asked
//! for it was allowed to, and in Consul what was deregistered stays in the catalog of those who gave
//! their agents none.

use std::rc::Rc;

use http::StatusCode;
use wire::{Failure, FailureKind};

use super::guard::Guard;
use crate::{
    acl::{ANONYMOUS_SECRET, Access, Resource},
    server::{
        config::acl::{AclTokens, Secret},
        gateway::Gateway,
    },
};

/// For whom the catalog is told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer<'t> {
    /// The agent itself.
    Agent,
    /// A client that registered something, with this token; may be empty.
    Client(&'t str),
    /// A configuration file, with this token; may be empty.
    File(&'t str),
}

/// Judges what one server's agent tells the catalog.
pub struct Judge<G> {
    /// Not there with ACLs off.
    guard: Option<Rc<Guard>>,
    gateway: G,
}

impl<G: Gateway> Judge<G> {
    pub(in super::super) fn new(guard: Option<Rc<Guard>>, gateway: G) -> Self {
        Self { guard, gateway }
    }

    /// Whether `bearer` may write `name`, now.
    ///
    /// # Errors
    /// When its token could not be looked up.
    pub async fn may_write(
        &self,
        bearer: Bearer<'_>,
        resource: Resource,
        name: &str,
    ) -> Result<bool, Failure> {
        let Some(guard) = &self.guard else {
            return Ok(true);
        };
        let secret = secret(&guard.own_tokens(), bearer);
        match guard.bearer_of(&self.gateway, &secret).await {
            Ok(who) => Ok(who.may(resource, name.as_bytes(), Access::Write)),
            // There is no such token any more.
            Err(refusal) if refusal.status == StatusCode::FORBIDDEN => Ok(false),
            Err(refusal) => Err(Failure {
                kind: FailureKind::Internal,
                message: refusal.text.into_owned(),
                leader: String::new(),
                retry_after_ms: 0,
            }),
        }
    }
}

fn secret(tokens: &AclTokens, bearer: Bearer<'_>) -> String {
    let own = |token: &Option<Secret>| token.as_ref().map(|token| token.expose().to_owned());
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let found = match bearer {
        Bearer::Agent => own(&tokens.agent),
        Bearer::Client(text) => given(text),
        Bearer::File(text) => given(text).or_else(|| own(&tokens.config_file_service_registration)),
    };
    let found = found.or_else(|| own(&tokens.default));
    found.unwrap_or_else(|| ANONYMOUS_SECRET.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_taken_in_consuls_order() {
        let some = |text: &str| Some(Secret::new(text.to_owned()));
        let all = AclTokens {
            agent: some("a"),
            default: some("d"),
            config_file_service_registration: some("c"),
            ..AclTokens::default()
        };
        let default_only = AclTokens {
            default: some("d"),
            ..AclTokens::default()
        };
        for (bearer, with_all, with_default, with_none) in [
            (Bearer::Agent, "a", "d", ANONYMOUS_SECRET),
            (Bearer::Client("t"), "t", "t", "t"),
            (Bearer::Client(""), "d", "d", ANONYMOUS_SECRET),
            (Bearer::File("t"), "t", "t", "t"),
            (Bearer::File(""), "c", "d", ANONYMOUS_SECRET),
        ] {
            assert_eq!(secret(&all, bearer), with_all, "{bearer:?}");
            assert_eq!(secret(&default_only, bearer), with_default, "{bearer:?}");
            assert_eq!(
                secret(&AclTokens::default(), bearer),
                with_none,
                "{bearer:?}"
            );
        }
    }
}
