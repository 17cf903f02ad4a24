//! What does a configuration say of access control?
//!
//! Consul's `acl` with its tokens, under old and new names. A [`Secret`] cannot be printed: the
//! configuration as a whole may be.

use std::{fmt, time::Duration};

/// A token that must not appear in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being printed.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The token itself. Comparisons with what a client sent must take constant time.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// What is allowed to whom no rule speaks of (`acl.default_policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultPolicy {
    /// Everything.
    #[default]
    Allow,
    /// Nothing.
    Deny,
}

/// What is done while tokens cannot be looked up (`acl.down_policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DownPolicy {
    /// Everything is allowed.
    Allow,
    /// Nothing is allowed.
    Deny,
    /// What was known last counts on.
    #[default]
    ExtendCache,
    /// As `ExtendCache`, and always looked up beside the request.
    AsyncCache,
}

/// `acl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclOptions {
    /// `acl.enabled`; also by the old `acl_datacenter`, as in Consul.
    pub enabled: bool,
    /// `acl.default_policy`.
    pub default_policy: DefaultPolicy,
    /// `acl.down_policy`.
    pub down_policy: DownPolicy,
    /// `acl.token_ttl`: how long a looked-up token is remembered.
    pub token_ttl: Duration,
    /// `acl.policy_ttl`.
    pub policy_ttl: Duration,
    /// `acl.role_ttl`; 0 for not at all.
    pub role_ttl: Duration,
    /// `acl.enable_key_list_policy`: listing keys needs `list`.
    pub enable_key_list_policy: bool,
    /// `acl.enable_token_persistence`: tokens set by the API are kept in the data directory.
    pub enable_token_persistence: bool,
    /// `acl.enable_token_replication`.
    pub enable_token_replication: bool,
    /// `acl.tokens`.
    pub tokens: AclTokens,
}

impl Default for AclOptions {
    fn default() -> Self {
        Self {
            enabled: false,
            default_policy: DefaultPolicy::default(),
            down_policy: DownPolicy::default(),
            token_ttl: Duration::from_secs(30),
            policy_ttl: Duration::from_secs(30),
            role_ttl: Duration::ZERO,
            enable_key_list_policy: false,
            enable_token_persistence: false,
            enable_token_replication: false,
            tokens: AclTokens::default(),
        }
    }
}

/// `acl.tokens`; an empty one counts as not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AclTokens {
    /// `initial_management` (old: `master`): made with all rights when the cluster has no such.
    pub initial_management: Option<Secret>,
    /// `agent`: for what the agent does itself.
    pub agent: Option<Secret>,
    /// `agent_recovery` (old: `agent_master`): for the agent's API while there is no leader.
    pub agent_recovery: Option<Secret>,
    /// `default`: of requests that bring none.
    pub default: Option<Secret>,
    /// `replication`.
    pub replication: Option<Secret>,
    /// `config_file_service_registration`: for services of configuration files.
    pub config_file_service_registration: Option<Secret>,
}
