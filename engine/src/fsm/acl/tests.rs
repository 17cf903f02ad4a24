//! Do commands about the ACL do what they say, all or nothing, and the same as a plain model?
//!
//! The model keeps lists and looks through them; names, ids and secrets are few, so that they
//! collide. After each command both must show the same objects and give the same verdict.

use proptest::prelude::*;

use super::*;
use crate::{
    acl::{ANONYMOUS_ACCESSOR, GLOBAL_MANAGEMENT},
    fsm::{Fsm, Outcome, records::RecordOp},
    state::records::{PolicyLink, RoleLink, ServiceIdentity},
};
use wire::Term;

struct Machine {
    fsm: Fsm,
    index: u64,
}

impl Machine {
    fn new() -> Self {
        let fsm = Fsm::new();
        Self { fsm, index: 0 }
    }

    fn tables(&self) -> &Tables {
        self.fsm.store().tables()
    }

    /// Commands of one run.
    fn run(&mut self, ops: &[RecordOp]) -> Vec<Result<bool, String>> {
        let entries: Vec<_> = ops
            .iter()
            .map(|op| {
                self.index += 1;
                (Index(self.index), Term(1), op.encode())
            })
            .collect();
        let mut outcomes = Vec::new();
        self.fsm
            .apply_run(&entries, &mut outcomes)
            .expect("commands that can be read");
        let verdict = |outcome| match outcome {
            Outcome::Done { ok } => Ok(ok),
            Outcome::Refused(why) => Err(why),
            Outcome::Txn(_) | Outcome::Mixed(_) => panic!("no transaction was asked for"),
        };
        outcomes.into_iter().map(verdict).collect()
    }

    fn apply(&mut self, op: RecordOp) -> Result<bool, String> {
        self.run(&[op]).remove(0)
    }
}

fn uuid(number: u8) -> String {
    format!("a0000000-0000-4000-8000-0000000000{number:02x}")
}

fn a_policy(id: u8, name: &str) -> AclPolicy {
    AclPolicy {
        id: uuid(id),
        name: name.to_owned(),
        ..AclPolicy::default()
    }
}

fn a_token(accessor: u8, secret: u8) -> AclToken {
    AclToken {
        accessor_id: uuid(accessor),
        secret_id: uuid(secret),
        ..AclToken::default()
    }
}

fn set_token(token: AclToken, create: bool) -> RecordOp {
    RecordOp::AclTokenSet(TokenSet {
        tokens: vec![token],
        create,
        cas: false,
        now_ns: 1000,
    })
}

fn set_policy(policy: AclPolicy, create: bool) -> RecordOp {
    let policies = vec![policy];
    RecordOp::AclPolicySet(PolicySet { policies, create })
}

fn refused(outcome: Result<bool, String>) -> String {
    outcome.expect_err("it was done")
}

/// Two bootstraps in one run both found that there had been none: the index table was written only
/// at the end of the run.
#[test]
fn of_two_bootstraps_in_one_run_one_is_done() {
    let mut machine = Machine::new();
    let token = |accessor, secret| Bootstrap {
        token: a_token(accessor, secret),
        reset_index: 0,
    };
    let outcomes = machine.run(&[
        RecordOp::AclBootstrap(token(1, 2)),
        RecordOp::AclBootstrap(token(3, 4)),
    ]);
    let why = "ACL bootstrap no longer allowed (reset index: 1)";
    assert_eq!(outcomes, [Ok(true), Err(why.to_owned())]);
    assert_eq!(machine.tables().acl_tokens.len(), 1);
    let mut wrong = token(3, 4);
    wrong.reset_index = 7;
    let why = refused(machine.apply(RecordOp::AclBootstrap(wrong)));
    assert_eq!(
        why,
        "Invalid bootstrap reset index (specified 7, reset index: 1)"
    );
    let mut right = token(3, 4);
    right.reset_index = 1;
    assert_eq!(machine.apply(RecordOp::AclBootstrap(right)), Ok(true));
    assert_eq!(bootstrapped_index(machine.tables()), Index(4));
}

#[test]
fn links_are_kept_by_id_once_and_never_to_nothing() {
    let mut machine = Machine::new();
    machine
        .apply(set_policy(a_policy(1, "Reader"), true))
        .unwrap();
    let link = |id: String, name: &str| PolicyLink {
        id,
        name: name.to_owned(),
    };
    let mut token = a_token(2, 3);
    token.policies = vec![
        link(String::new(), "reader"),
        link(uuid(1), ""),
        link(uuid(1).to_uppercase(), ""),
    ];
    token.service_identities = vec![ServiceIdentity::default(); 2];
    machine.apply(set_token(token.clone(), true)).unwrap();
    let kept = super::token(machine.tables(), &uuid(2)).unwrap();
    assert_eq!(kept.policies, [link(uuid(1), "")]);
    assert_eq!(kept.service_identities.len(), 1);
    token.policies = vec![link(uuid(9), "")];
    let why = refused(machine.apply(set_token(token.clone(), false)));
    assert_eq!(why, format!("No such ACL policy with ID {:?}", uuid(9)));
    token.policies = vec![];
    token.roles = vec![RoleLink {
        id: String::new(),
        name: "nobody".to_owned(),
    }];
    let why = refused(machine.apply(set_token(token, false)));
    assert_eq!(why, "No such ACL role with name \"nobody\"");
}

#[test]
fn what_makes_a_token_cannot_be_changed() {
    let mut machine = Machine::new();
    let mut token = a_token(1, 2);
    (token.expiration_time, token.create_time) = (2000, 500);
    machine.apply(set_token(token.clone(), true)).unwrap();
    let id = uuid(1);
    let change = |machine: &mut Machine, change: fn(&mut AclToken)| {
        let mut token = token.clone();
        change(&mut token);
        machine.apply(set_token(token, false))
    };
    for (what, why) in [
        (
            (|t| t.secret_id = uuid(3)) as fn(&mut AclToken),
            "Changing a tokens SecretID is not permitted".to_owned(),
        ),
        (
            |t| t.local = true,
            format!("cannot toggle local mode of {id}"),
        ),
        (
            |t| t.auth_method = "m".to_owned(),
            format!("Cannot change AuthMethod of {id}"),
        ),
        (
            |t| t.expiration_time = 3000,
            format!("Cannot change expiration time of {id}"),
        ),
        (
            |t| t.accessor_id = uuid(9),
            format!("Cannot find token {:?}", uuid(9)),
        ),
    ] {
        assert_eq!(change(&mut machine, what), Err(why));
    }
    let as_it_was = |t: &mut AclToken| {
        t.description = "new".to_owned();
        t.secret_id.clear();
        t.expiration_time = 0;
        t.create_time = 77;
    };
    assert_eq!(change(&mut machine, as_it_was), Ok(true));
    let kept = super::token(machine.tables(), &id).unwrap();
    assert_eq!(
        (
            &*kept.description,
            &kept.secret_id,
            kept.expiration_time,
            kept.create_time,
            kept.create_index
        ),
        ("new", &uuid(2), 2000, 500, 1)
    );
    // One that has ended is as good as gone.
    let late = TokenSet {
        tokens: vec![token.clone()],
        create: false,
        cas: false,
        now_ns: 2000,
    };
    let why = refused(machine.apply(RecordOp::AclTokenSet(late)));
    assert_eq!(why, format!("Cannot find token {id:?}"));
    assert_eq!(
        ended_tokens(machine.tables(), 1999, 9),
        Vec::<String>::new()
    );
    assert_eq!(ended_tokens(machine.tables(), 2000, 9), [id]);
    assert_eq!(
        ended_tokens(machine.tables(), 2000, 0),
        Vec::<String>::new()
    );
}

#[test]
fn a_set_with_cas_takes_effect_for_all_or_none() {
    let mut machine = Machine::new();
    for (accessor, secret) in [(1, 2), (3, 4)] {
        machine
            .apply(set_token(a_token(accessor, secret), true))
            .unwrap();
    }
    let with_index = |accessor, secret, index| AclToken {
        description: "changed".to_owned(),
        modify_index: index,
        ..a_token(accessor, secret)
    };
    let both = |index| {
        RecordOp::AclTokenSet(TokenSet {
            tokens: vec![with_index(1, 2, 1), with_index(3, 4, index)],
            create: false,
            cas: true,
            now_ns: 0,
        })
    };
    assert_eq!(machine.apply(both(7)), Ok(false));
    assert_eq!(
        super::token(machine.tables(), &uuid(1))
            .unwrap()
            .modify_index,
        1
    );
    assert_eq!(machine.apply(both(2)), Ok(true));
    assert_eq!(
        super::token(machine.tables(), &uuid(1))
            .unwrap()
            .modify_index,
        4
    );
}

#[test]
fn one_bad_object_of_several_undoes_the_others() {
    let mut machine = Machine::new();
    let policies = vec![a_policy(1, "a"), a_policy(2, "A")];
    let why = refused(machine.apply(RecordOp::AclPolicySet(PolicySet {
        policies,
        create: true,
    })));
    assert_eq!(
        why,
        "Invalid Policy: A Policy with Name \"A\" already exists"
    );
    assert_eq!(machine.tables().acl_policies.len(), 0);
    assert_eq!(decisions_index(machine.tables()), Index(0));
}

#[test]
fn what_every_cluster_has_stays() {
    let mut machine = Machine::new();
    let builtin = AclPolicy {
        id: GLOBAL_MANAGEMENT.id.to_owned(),
        name: GLOBAL_MANAGEMENT.name.to_owned(),
        rules: GLOBAL_MANAGEMENT.rules.to_owned(),
        ..AclPolicy::default()
    };
    machine.apply(set_policy(builtin.clone(), true)).unwrap();
    let renamed = AclPolicy {
        name: "root".to_owned(),
        ..builtin.clone()
    };
    assert_eq!(machine.apply(set_policy(renamed, false)), Ok(true));
    let narrowed = AclPolicy {
        datacenters: vec!["dc1".to_owned()],
        ..builtin
    };
    assert!(
        refused(machine.apply(set_policy(narrowed, false))).starts_with("Changing the Datacenters")
    );
    let ids = vec![GLOBAL_MANAGEMENT.id.to_owned()];
    let why = refused(machine.apply(RecordOp::AclPolicyDelete(PolicyDelete { ids })));
    assert!(why.starts_with("Delete operation not permitted"), "{why}");
    let ids = vec![ANONYMOUS_ACCESSOR.to_owned()];
    let why = refused(machine.apply(RecordOp::AclTokenDelete(TokenDelete { ids })));
    assert_eq!(why, "Delete operation not permitted on the anonymous token");
}

/// The digest is in the rows of every server: it may never change.
#[test]
fn hashes_are_what_they_were() {
    let mut token = a_token(1, 2);
    token.description = "d".to_owned();
    let policy = a_policy(1, "p");
    let role = AclRole {
        name: "r".to_owned(),
        ..AclRole::default()
    };
    let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(
        [
            hash::of_token(&token),
            hash::of_policy(&policy),
            hash::of_role(&role)
        ]
        .map(hex),
        [
            "e24859f3826a9148555446f6f9e0482d",
            "d4379e5252032f30b4bb59f008b56b08",
            "4305e2852539df312ac03e84da7613a5"
        ]
    );
}

// ------------------------------------------------------------------------------ the model

#[derive(Clone, Debug)]
enum Step {
    SetPolicy {
        id: u8,
        name: u8,
        create: bool,
    },
    DeletePolicy {
        id: u8,
    },
    SetToken {
        accessor: u8,
        secret: u8,
        policy: Option<u8>,
        create: bool,
    },
    DeleteToken {
        accessor: u8,
    },
    SetRole {
        id: u8,
        name: u8,
        policy: Option<u8>,
        create: bool,
    },
    DeleteRole {
        id: u8,
    },
}

/// Plain lists: (id, name) of policies; (accessor, secret, policy) of tokens; (id, name, policy).
#[derive(Default, Debug)]
struct Model {
    policies: Vec<(u8, u8)>,
    tokens: Vec<(u8, u8, Option<u8>)>,
    roles: Vec<(u8, u8, Option<u8>)>,
}

impl Model {
    /// Whether the command is done (true), finds nothing (false), or is refused.
    fn apply(&mut self, step: &Step) -> Result<bool, ()> {
        let linked = |model: &Self, policy: Option<u8>| {
            policy.is_none_or(|policy| model.policies.iter().any(|(id, _)| *id == policy))
        };
        match *step {
            Step::SetPolicy { id, name, create } => {
                let held = self.policies.iter().position(|(own, _)| *own == id);
                let taken = self
                    .policies
                    .iter()
                    .any(|(own, other)| *other == name && *own != id);
                if held.is_some() == create || taken {
                    return Err(());
                }
                self.policies.retain(|(own, _)| *own != id);
                self.policies.push((id, name));
                Ok(true)
            }
            Step::DeletePolicy { id } => {
                let before = self.policies.len();
                self.policies.retain(|(own, _)| *own != id);
                Ok(self.policies.len() < before)
            }
            Step::SetToken {
                accessor,
                secret,
                policy,
                create,
            } => {
                let held = self
                    .tokens
                    .iter()
                    .find(|(own, ..)| *own == accessor)
                    .copied();
                let used = |id: u8| self.tokens.iter().any(|(a, s, _)| *a == id || *s == id);
                let fits = match held {
                    None => create && accessor != secret && !used(accessor) && !used(secret),
                    Some((_, own, _)) => !create && own == secret,
                };
                if !fits || !linked(self, policy) {
                    return Err(());
                }
                self.tokens.retain(|(own, ..)| *own != accessor);
                self.tokens.push((accessor, secret, policy));
                Ok(true)
            }
            Step::DeleteToken { accessor } => {
                let before = self.tokens.len();
                self.tokens.retain(|(own, ..)| *own != accessor);
                Ok(self.tokens.len() < before)
            }
            Step::SetRole {
                id,
                name,
                policy,
                create,
            } => {
                let held = self.roles.iter().any(|(own, ..)| *own == id);
                let taken = self
                    .roles
                    .iter()
                    .any(|(own, other, _)| *other == name && *own != id);
                if held == create || taken || !linked(self, policy) {
                    return Err(());
                }
                self.roles.retain(|(own, ..)| *own != id);
                self.roles.push((id, name, policy));
                Ok(true)
            }
            Step::DeleteRole { id } => {
                let before = self.roles.len();
                self.roles.retain(|(own, ..)| *own != id);
                Ok(self.roles.len() < before)
            }
        }
    }
}

fn links(policy: Option<u8>) -> Vec<PolicyLink> {
    let link = |policy| PolicyLink {
        id: uuid(policy),
        name: String::new(),
    };
    policy.into_iter().map(link).collect()
}

fn op(step: &Step) -> RecordOp {
    match *step {
        Step::SetPolicy { id, name, create } => {
            set_policy(a_policy(id, &format!("n{name}")), create)
        }
        Step::DeletePolicy { id } => RecordOp::AclPolicyDelete(PolicyDelete {
            ids: vec![uuid(id)],
        }),
        Step::SetToken {
            accessor,
            secret,
            policy,
            create,
        } => {
            let policies = links(policy);
            set_token(
                AclToken {
                    policies,
                    ..a_token(accessor, secret)
                },
                create,
            )
        }
        Step::DeleteToken { accessor } => RecordOp::AclTokenDelete(TokenDelete {
            ids: vec![uuid(accessor)],
        }),
        Step::SetRole {
            id,
            name,
            policy,
            create,
        } => {
            let role = AclRole {
                id: uuid(id),
                name: format!("n{name}"),
                policies: links(policy),
                ..AclRole::default()
            };
            RecordOp::AclRoleSet(RoleSet {
                roles: vec![role],
                create,
            })
        }
        Step::DeleteRole { id } => RecordOp::AclRoleDelete(RoleDelete {
            ids: vec![uuid(id)],
        }),
    }
}

fn step() -> impl Strategy<Value = Step> {
    let few = 0u8..4;
    let create = any::<bool>;
    let policy = prop::option::of(0u8..4);
    prop_oneof![
        (few.clone(), few.clone(), create()).prop_map(|(id, name, create)| Step::SetPolicy {
            id,
            name,
            create
        }),
        few.clone().prop_map(|id| Step::DeletePolicy { id }),
        (0u8..6, 0u8..6, policy.clone(), create()).prop_map(
            |(accessor, secret, policy, create)| {
                Step::SetToken {
                    accessor,
                    secret,
                    policy,
                    create,
                }
            }
        ),
        (0u8..6).prop_map(|accessor| Step::DeleteToken { accessor }),
        (few.clone(), few.clone(), policy, create()).prop_map(|(id, name, policy, create)| {
            Step::SetRole {
                id,
                name,
                policy,
                create,
            }
        }),
        few.prop_map(|id| Step::DeleteRole { id }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn commands_do_what_the_model_does(steps in prop::collection::vec(step(), 0..60)) {
        let (mut machine, mut model) = (Machine::new(), Model::default());
        for step in &steps {
            let expected = model.apply(step);
            let done = machine.apply(op(step));
            prop_assert_eq!(done.clone().map_err(|_| ()), expected, "{:?}: {:?}", step, done);
            let tables = machine.tables();
            prop_assert_eq!(tables.acl_policies.len(), model.policies.len());
            prop_assert_eq!(tables.acl_tokens.len(), model.tokens.len());
            prop_assert_eq!(tables.acl_roles.len(), model.roles.len());
            for (id, name) in &model.policies {
                prop_assert_eq!(&policy(tables, &uuid(*id)).unwrap().name, &format!("n{name}"));
                prop_assert_eq!(&policy_by_name(tables, &format!("N{name}")).unwrap().id, &uuid(*id));
            }
            for (accessor, secret, policy) in &model.tokens {
                let held = token_by_secret(tables, &uuid(*secret)).unwrap();
                prop_assert_eq!(&held.accessor_id, &uuid(*accessor));
                prop_assert_eq!(&held.policies, &links(*policy));
            }
            for (id, name, policy) in &model.roles {
                let held = role_by_name(tables, &format!("n{name}")).unwrap();
                prop_assert_eq!((&held.id, &held.policies), (&uuid(*id), &links(*policy)));
            }
            tables.check();
        }
    }
}
