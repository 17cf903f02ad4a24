//! Which policies and tokens does every cluster with ACLs have?
//!
//! Their ids and names are Consul's: tools create tokens by them.

/// A policy that is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltinPolicy {
    /// UUID as text.
    pub id: &'static str,
    /// Its name at first; it may be changed.
    pub name: &'static str,
    /// For people.
    pub description: &'static str,
    /// Its rules, which may not be changed.
    pub rules: &'static str,
}

/// Ids that begin so are not given to what users make.
pub const RESERVED_ID_PREFIX: &str = "00000000-0000-0000-0000-0000000000";

/// Public name of the token of those who bring none.
pub const ANONYMOUS_ACCESSOR: &str = "00000000-0000-0000-0000-000000000002";

/// Secret of the token of those who bring none.
pub const ANONYMOUS_SECRET: &str = "anonymous";

macro_rules! everything {
    ($level:literal) => {
        concat!(
            "\nacl = \"",
            $level,
            "\"",
            "\nagent_prefix \"\" {\n\tpolicy = \"",
            $level,
            "\"\n}",
            "\nevent_prefix \"\" {\n\tpolicy = \"",
            $level,
            "\"\n}",
            "\nkey_prefix \"\" {\n\tpolicy = \"",
            $level,
            "\"\n}",
            "\nkeyring = \"",
            $level,
            "\"",
            "\nnode_prefix \"\" {\n\tpolicy = \"",
            $level,
            "\"\n}",
            "\noperator = \"",
            $level,
            "\"",
            "\nmesh = \"",
            $level,
            "\"",
            "\npeering = \"",
            $level,
            "\"",
            "\nquery_prefix \"\" {\n\tpolicy = \"",
            $level,
            "\"\n}",
            "\nservice_prefix \"\" {\n\tpolicy = \"",
            $level,
            "\"\n\tintentions = \"",
            $level,
            "\"\n}",
            "\nsession_prefix \"\" {\n\tpolicy = \"",
            $level,
            "\"\n}",
        )
    };
}

/// Everything may be done.
pub const GLOBAL_MANAGEMENT: BuiltinPolicy = BuiltinPolicy {
    id: "00000000-0000-0000-0000-000000000001",
    name: "global-management",
    description: "Builtin Policy that grants unlimited access",
    rules: everything!("write"),
};

/// Everything may be seen.
pub const GLOBAL_READ_ONLY: BuiltinPolicy = BuiltinPolicy {
    id: "00000000-0000-0000-0000-000000000002",
    name: "builtin/global-read-only",
    description: "Builtin Policy that grants unlimited read-only access to all components",
    rules: everything!("read"),
};

/// The built-in policy with this id.
pub fn builtin_policy(id: &str) -> Option<&'static BuiltinPolicy> {
    [&GLOBAL_MANAGEMENT, &GLOBAL_READ_ONLY]
        .into_iter()
        .find(|policy| policy.id.eq_ignore_ascii_case(id))
}
