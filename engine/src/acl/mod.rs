//! Who may do what? The rule language, and the decisions that follow from it.
//!
//! ```text
//! text ──syntax──► Node ──rules──► Rules ─┐
//! service and node identities ──identity──┼──authorizer──► Authorizer ──► may / may not
//! built-in policies ──builtin─────────────┘
//! ```
//!
//! A policy's text is read once, when it is stored; a token's policies are compiled into one
//! [`Authorizer`] once, when the token is first seen, so that a decision is a lookup by name.
//! Nothing here knows a socket, a clock or a table: whoever asks says which policies count, and
//! what happens where no rule speaks.
//!
//! Invariant: what is not granted is refused. A text that cannot be understood to its last word is
//! an error and never a policy with a rule less.

mod authorizer;
mod builtin;
mod hcl;
mod identity;
mod rules;
mod syntax;

pub use authorizer::{Authorizer, Fallback};
pub use builtin::{
    ANONYMOUS_ACCESSOR, ANONYMOUS_SECRET, BuiltinPolicy, GLOBAL_MANAGEMENT, GLOBAL_READ_ONLY,
    RESERVED_ID_PREFIX, builtin_policy,
};
pub use identity::{node_identity, service_identity, valid_identity_name};
pub use rules::{RULES_BYTES_MAX, Rule, Rules, RulesError, Scope};

/// How much is granted, or wanted. The order is what enforcing needs: a grant covers every want
/// that is not greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Nothing. As a grant only.
    Deny,
    /// To see.
    Read,
    /// To see, and to list; of keys only.
    List,
    /// To see, to list and to change.
    Write,
}

impl Access {
    /// The word in the rule language and in refusals.
    pub fn word(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Read => "read",
            Self::List => "list",
            Self::Write => "write",
        }
    }

    /// Of two grants for the same name, the one that counts: the refusal before all, else the
    /// greater (Consul `takesPrecedenceOver`).
    pub fn merged(self, other: Self) -> Self {
        match (self, other) {
            (Self::Deny, _) | (_, Self::Deny) => Self::Deny,
            (a, b) => a.max(b),
        }
    }
}

macro_rules! resources {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $named:literal;)*) => {
        /// What a rule is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Resource { $($(#[$doc])* $name,)* }

        impl Resource {
            /// Every resource.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its word in the rule language and in refusals.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// Whether its rules name what they are about; else there is one for the whole.
            pub fn is_named(self) -> bool {
                match self { $(Self::$name => $named,)* }
            }
        }
    };
}

resources! {
    /// Tokens, policies and roles themselves.
    Acl = "acl", false;
    /// An agent's own endpoints, by node name.
    Agent = "agent", true;
    /// User events.
    Event = "event", true;
    /// Workload identities; accepted, nothing here asks for them.
    Identity = "identity", true;
    /// Intentions, by their destination's name; said within a service's rule.
    Intention = "intention", true;
    /// Keys.
    Key = "key", true;
    /// The gossip's keyring.
    Keyring = "keyring", false;
    /// The mesh; where no rule speaks of it, the operator's counts.
    Mesh = "mesh", false;
    /// Nodes.
    Node = "node", true;
    /// What concerns the cluster as a whole.
    Operator = "operator", false;
    /// Peerings; where no rule speaks of them, the operator's counts.
    Peering = "peering", false;
    /// Prepared queries.
    Query = "query", true;
    /// Services.
    Service = "service", true;
    /// Sessions, by the name of their node.
    Session = "session", true;
}

#[cfg(test)]
mod tests;
