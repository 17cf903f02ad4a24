//! Who asks?
//!
//! A request's token is looked up in this server's own copy of the state, which may be a little
//! behind; one that is not there is asked of the leader once, so that a token works everywhere as
//! soon as it was answered. What it may do is compiled once per executor and kept until any token,
//! policy or role changes here ([`Gateway::acl_index`]), or its time to live is over.
//!
//! The index is read before the look-up: what is compiled from a newer state is at worst compiled
//! again. Secrets are compared in constant time; the map that finds them hashes with a random key.

use std::{
    borrow::Cow,
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};

use ahash::{AHashMap, RandomState};
use http::{HeaderMap, StatusCode, header};
use subtle::ConstantTimeEq;
use wire::{Index, Query, QueryBody, ReadMode, Wait};

use super::super::failure::Refusal;
use crate::{
    acl::{
        ANONYMOUS_ACCESSOR, ANONYMOUS_SECRET, Access, Authorizer, Fallback, Resource, Rule, Rules,
        Scope, node_identity, service_identity,
    },
    documents::{AclQuestion, Question, acl::Resolved},
    server::{
        agent::tokens::{Tokens, View},
        config::acl::{AclOptions, AclTokens, DefaultPolicy, DownPolicy},
        gateway::{AnswerBody, Gateway},
    },
};

/// Most tokens that an executor keeps compiled; beyond, it begins anew.
pub(super) const TOKENS_CACHED_MAX: usize = 4096;

/// A token, compiled.
struct Bearer {
    accessor: String,
    secret: String,
    /// ns since 1970; 0 for never.
    expiration_time: u64,
    authorizer: Authorizer,
    /// [`Gateway::acl_index`] when it was looked up.
    index: u64,
    made: Instant,
}

/// Who asks. Without ACLs anyone, who may do anything.
#[derive(Clone)]
pub(in super::super) struct Who(Option<Rc<Bearer>>);

impl Who {
    /// Whoever asks a server without ACLs.
    pub(in super::super) const ANYONE: Self = Self(None);

    /// Whether ACLs are off.
    pub(in super::super) fn is_anyone(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it may.
    pub(in super::super) fn may(&self, resource: Resource, name: &[u8], wanted: Access) -> bool {
        match &self.0 {
            None => true,
            Some(bearer) => bearer.authorizer.allows(resource, name, wanted),
        }
    }

    /// Refuses what it may not.
    pub(in super::super) fn must(
        &self,
        resource: Resource,
        name: &[u8],
        wanted: Access,
    ) -> Result<(), Refusal> {
        match self.may(resource, name, wanted) {
            true => Ok(()),
            false => Err(forbidden(self.lacks(resource, name, wanted))),
        }
    }

    /// Refuses unless everything under a prefix may be changed.
    pub(in super::super) fn must_write_prefix(&self, prefix: &[u8]) -> Result<(), Refusal> {
        match self.may_write_prefix(prefix) {
            true => Ok(()),
            false => Err(forbidden(self.lacks(Resource::Key, prefix, Access::Write))),
        }
    }

    /// Whether everything under a prefix may be changed.
    pub(in super::super) fn may_write_prefix(&self, prefix: &[u8]) -> bool {
        match &self.0 {
            None => true,
            Some(bearer) => bearer.authorizer.may_write_prefix(prefix),
        }
    }

    /// Whether no key under a prefix is hidden from it.
    pub(in super::super) fn may_read_prefix(&self, prefix: &[u8]) -> bool {
        match &self.0 {
            None => true,
            Some(bearer) => bearer.authorizer.may_read_prefix(prefix),
        }
    }

    /// Whether any key under a prefix may be seen.
    pub(in super::super) fn may_read_some(&self, prefix: &[u8]) -> bool {
        match &self.0 {
            None => true,
            Some(bearer) => bearer.authorizer.may_read_some(prefix),
        }
    }

    /// Whether its rights are those of a token that it brought: only then it is told that
    /// something was left out, as in Consul.
    pub(in super::super) fn is_told_of_filters(&self) -> bool {
        let named = |bearer: &Rc<Bearer>| bearer.accessor != ANONYMOUS_ACCESSOR;
        self.0.as_ref().is_some_and(named)
    }

    /// The secret that it showed.
    pub(super) fn secret(&self) -> &str {
        self.0.as_ref().map_or("", |bearer| &bearer.secret)
    }

    /// Consul's sentence about what is missing.
    pub(in super::super) fn lacks(
        &self,
        resource: Resource,
        name: &[u8],
        wanted: Access,
    ) -> String {
        let accessor = self.0.as_ref().map_or("", |bearer| &bearer.accessor);
        let is_anonymous = accessor == ANONYMOUS_ACCESSOR;
        let who = match is_anonymous {
            true => "anonymous token".to_owned(),
            false => format!("token with AccessorID '{accessor}'"),
        };
        let on = match resource.is_named() && !name.is_empty() {
            true => format!(" on \"{}\"", String::from_utf8_lossy(name)),
            false => String::new(),
        };
        let hint = match is_anonymous {
            true => {
                ". The anonymous token is used implicitly when a request does not specify a token."
            }
            false => "",
        };
        let (resource, wanted) = (resource.word(), wanted.word());
        format!("Permission denied: {who} lacks permission '{resource}:{wanted}'{on}{hint}")
    }
}

/// A refusal for want of rights.
pub(super) fn forbidden(text: String) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, text)
}

/// The time, ns since 1970.
pub(super) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// One executor's door where ACLs are on.
pub(in super::super) struct Guard {
    options: AclOptions,
    /// The server's own, which may change while it runs.
    tokens: View,
    datacenter: String,
    node: String,
    hasher: RandomState,
    cache: RefCell<AHashMap<u64, Rc<Bearer>>>,
}

impl Guard {
    /// The guard of a server with these options; `None` with ACLs off.
    pub(in super::super) fn new(
        options: &AclOptions,
        datacenter: &str,
        node: &str,
    ) -> Option<Rc<Self>> {
        let tokens = Tokens::of(options.tokens.clone());
        Self::with_tokens(options, tokens, datacenter, node)
    }

    /// The guard of a server whose own tokens may change.
    pub(in super::super) fn with_tokens(
        options: &AclOptions,
        tokens: Arc<Tokens>,
        datacenter: &str,
        node: &str,
    ) -> Option<Rc<Self>> {
        options.enabled.then(|| {
            Rc::new(Self {
                options: options.clone(),
                tokens: View::new(tokens),
                datacenter: datacenter.to_owned(),
                node: node.to_owned(),
                hasher: RandomState::new(),
                cache: RefCell::default(),
            })
        })
    }

    /// `X-Consul-Default-Acl-Policy`.
    pub(in super::super) fn default_policy(&self) -> &'static str {
        match self.options.default_policy {
            DefaultPolicy::Allow => "allow",
            DefaultPolicy::Deny => "deny",
        }
    }

    /// Whether listing keys needs `list`.
    pub(in super::super) fn lists_need_list(&self) -> bool {
        self.options.enable_key_list_policy
    }

    /// Whoever sent a request with these headers and this `?token=`.
    pub(in super::super) async fn who<G: Gateway>(
        &self,
        gateway: &G,
        headers: &HeaderMap,
        param: Option<&str>,
    ) -> Result<Who, Refusal> {
        let secret = self.token_of(headers, param);
        self.bearer_of(gateway, &secret).await
    }

    /// Whoever bears this token, now: what goes on for long asks again and again.
    pub(in super::super) async fn bearer_of<G: Gateway>(
        &self,
        gateway: &G,
        secret: &str,
    ) -> Result<Who, Refusal> {
        if let Some(recovery) = &self.tokens.now().agent_recovery
            && same(secret, recovery.expose())
        {
            return Ok(self.recovery(secret));
        }
        let index = gateway.acl_index();
        let slot = self.hasher.hash_one(secret);
        let cached = self.cache.borrow().get(&slot).cloned();
        let cached = cached.filter(|bearer| same(&bearer.secret, secret));
        let is_fresh = |bearer: &Rc<Bearer>| {
            bearer.index == index && bearer.made.elapsed() < self.options.token_ttl
        };
        if let Some(bearer) = cached.as_ref().filter(|bearer| is_fresh(bearer)) {
            return alive(bearer);
        }
        let bearer = match self.look_up(gateway, secret).await {
            Ok(resolved) => Rc::new(self.compile(secret, resolved, index)?),
            Err(refusal) => return self.while_down(secret, cached, refusal),
        };
        let mut cache = self.cache.borrow_mut();
        if cache.len() >= TOKENS_CACHED_MAX {
            cache.clear();
        }
        cache.insert(slot, Rc::clone(&bearer));
        alive(&bearer)
    }

    /// The server's own tokens, now.
    pub(super) fn own_tokens(&self) -> Rc<AclTokens> {
        self.tokens.now()
    }

    /// `?token=`, else `X-Consul-Token`, else a bearer's, else the agent's for such requests.
    pub(in super::super) fn token_of<'a>(
        &self,
        headers: &'a HeaderMap,
        param: Option<&'a str>,
    ) -> Cow<'a, str> {
        match (brought(headers, param), &self.tokens.now().default) {
            (Some(brought), _) => Cow::Borrowed(brought),
            (None, Some(own)) => Cow::Owned(own.expose().to_owned()),
            (None, None) => Cow::Borrowed(ANONYMOUS_SECRET),
        }
    }

    async fn look_up<G: Gateway>(
        &self,
        gateway: &G,
        secret: &str,
    ) -> Result<Option<Resolved>, Refusal> {
        let question = Question::from(AclQuestion::Resolve {
            secret: secret.to_owned(),
            datacenter: self.datacenter.clone(),
        });
        let here: Option<Resolved> = ask(gateway, ReadMode::Stale, &question).await?;
        if here.is_some() || secret == ANONYMOUS_SECRET {
            return Ok(here);
        }
        ask(gateway, ReadMode::Default, &question).await
    }

    fn compile(
        &self,
        secret: &str,
        resolved: Option<Resolved>,
        index: u64,
    ) -> Result<Bearer, Refusal> {
        let resolved = match resolved {
            Some(resolved) => resolved,
            // Before a leader has made it, it has no rights of its own.
            None if secret == ANONYMOUS_SECRET => Resolved {
                accessor: ANONYMOUS_ACCESSOR.to_owned(),
                secret: ANONYMOUS_SECRET.to_owned(),
                ..Resolved::default()
            },
            None => return Err(forbidden("ACL not found".to_owned())),
        };
        let parsed = resolved.rules.iter().map(|text| Rules::parse(text));
        let mut rules = parsed
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Refusal::internal(error.to_string()))?;
        rules.extend(resolved.services.iter().map(|name| service_identity(name)));
        rules.extend(resolved.nodes.iter().map(|name| node_identity(name)));
        Ok(Bearer {
            accessor: resolved.accessor,
            secret: resolved.secret,
            expiration_time: resolved.expiration_time,
            authorizer: Authorizer::new(&rules, self.fallback()),
            index,
            made: Instant::now(),
        })
    }

    /// How many tokens are kept compiled.
    #[cfg(test)]
    pub(super) fn cached(&self) -> usize {
        self.cache.borrow().len()
    }

    /// Keeps as many as there is room for.
    #[cfg(test)]
    pub(super) fn fill(&self) {
        let mut cache = self.cache.borrow_mut();
        let any = cache.values().next().cloned().expect("one is kept");
        for slot in 0.. {
            if cache.len() >= TOKENS_CACHED_MAX {
                break;
            }
            cache.insert(slot, Rc::clone(&any));
        }
    }

    fn fallback(&self) -> Fallback {
        match self.options.default_policy {
            DefaultPolicy::Allow => Fallback::Allow,
            DefaultPolicy::Deny => Fallback::Deny,
        }
    }

    /// The token for an agent whose cluster is not there: this agent, and to see nodes.
    fn recovery(&self, secret: &str) -> Who {
        let rules = Rules::of(vec![
            Rule {
                resource: Resource::Agent,
                scope: Scope::Exact(self.node.clone()),
                access: Access::Write,
            },
            Rule {
                resource: Resource::Node,
                scope: Scope::Prefix(String::new()),
                access: Access::Read,
            },
        ]);
        Who(Some(Rc::new(Bearer {
            accessor: "agent-recovery".to_owned(),
            secret: secret.to_owned(),
            expiration_time: 0,
            authorizer: Authorizer::new([&rules], self.fallback()),
            index: 0,
            made: Instant::now(),
        })))
    }

    /// `acl.down_policy`: tokens cannot be looked up.
    fn while_down(
        &self,
        secret: &str,
        cached: Option<Rc<Bearer>>,
        refusal: Refusal,
    ) -> Result<Who, Refusal> {
        match (self.options.down_policy, cached) {
            (DownPolicy::ExtendCache | DownPolicy::AsyncCache, Some(bearer)) => alive(&bearer),
            (DownPolicy::Allow, _) => Ok(Who(Some(Rc::new(Bearer {
                accessor: String::new(),
                secret: secret.to_owned(),
                expiration_time: 0,
                authorizer: Authorizer::new([], Fallback::Allow),
                index: 0,
                made: Instant::now(),
            })))),
            _ => Err(refusal),
        }
    }
}

/// The rights of whoever asks for something that goes on for long: judged anew each time.
pub(in super::super) struct Rights<G>(Option<(Rc<Guard>, G, String)>);

impl<G: Gateway> Rights<G> {
    /// The rights of whoever sent a request with these headers and this `?token=`.
    pub(in super::super) fn new(
        guard: Option<&Rc<Guard>>,
        gateway: &G,
        headers: &HeaderMap,
        param: Option<&str>,
    ) -> Self {
        Self(guard.map(|guard| {
            let secret = guard.token_of(headers, param).into_owned();
            (Rc::clone(guard), gateway.clone(), secret)
        }))
    }

    /// Who it is, with the rights of this moment.
    pub(in super::super) async fn now(&self) -> Result<Who, Refusal> {
        match &self.0 {
            None => Ok(Who::ANYONE),
            Some((guard, gateway, secret)) => guard.bearer_of(gateway, secret).await,
        }
    }
}

/// The token that a request brought: `?token=`, else `X-Consul-Token`, else a bearer's.
pub(in super::super) fn brought<'a>(
    headers: &'a HeaderMap,
    param: Option<&'a str>,
) -> Option<&'a str> {
    let given = |token: &&str| !token.is_empty();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = || {
        let value = header(header::AUTHORIZATION.as_str())?;
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    };
    param
        .filter(given)
        .or_else(|| header("x-consul-token").filter(given))
        .or_else(|| bearer().filter(given))
}

/// Whoever bears it, unless its time is over.
fn alive(bearer: &Rc<Bearer>) -> Result<Who, Refusal> {
    if bearer.expiration_time > 0 && bearer.expiration_time <= now_ns() {
        return Err(forbidden("ACL not found".to_owned()));
    }
    Ok(Who(Some(Rc::clone(bearer))))
}

fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

/// Asks a question for this server's own use.
pub(super) async fn ask<G: Gateway, T: serde::de::DeserializeOwned>(
    gateway: &G,
    mode: ReadMode,
    question: &Question,
) -> Result<T, Refusal> {
    let query = Query {
        mode,
        min_index: Index(0),
        wait: Wait::default(),
        body: QueryBody::Record(question.encode()),
    };
    match gateway.read(query).await?.body {
        AnswerBody::Document(json) => serde_json::from_slice(&json)
            .map_err(|error| Refusal::internal(format!("internal error: {error}"))),
        _ => Err(Refusal::internal(
            "internal error: no document for a question",
        )),
    }
}
