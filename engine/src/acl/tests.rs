//! Does an authorizer decide as a plain reading of the rules does?
//!
//! The model keeps the rules as a list and looks through all of them for each question, by the
//! words of Consul's documentation; the names are few and short, so that they collide.

use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> Rules {
    Rules::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> String {
    match Rules::parse(text) {
        Ok(rules) => panic!("{text}: taken as {rules:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_resource_is_read_in_both_languages() {
    for resource in Resource::ALL.iter().filter(|r| **r != Resource::Intention) {
        let word = resource.word();
        if !resource.is_named() {
            let hcl = parsed(&format!("{word} = \"write\""));
            assert_eq!(hcl, parsed(&format!("{{\"{word}\": \"write\"}}")));
            assert_eq!(
                hcl,
                Rules::of(vec![Rule {
                    resource: *resource,
                    scope: Scope::Whole,
                    access: Access::Write
                }])
            );
            continue;
        }
        for suffix in ["", "_prefix"] {
            let word = format!("{word}{suffix}");
            let hcl = parsed(&format!("{word} \"a/b\" {{ policy = \"read\" }}"));
            for json in [
                format!("{{\"{word}\": {{\"a/b\": {{\"policy\": \"read\"}}}}}}"),
                format!("{{\"{word}\": [{{\"a/b\": [{{\"policy\": \"read\"}}]}}]}}"),
            ] {
                assert_eq!(hcl, parsed(&json));
            }
            let rule = hcl.iter().last().expect("one rule");
            assert_eq!((rule.resource, rule.access), (*resource, Access::Read));
            let scope = match suffix {
                "" => Scope::Exact("a/b".into()),
                _ => Scope::Prefix("a/b".into()),
            };
            assert_eq!(rule.scope, scope);
        }
    }
}

#[test]
fn texts_of_users_are_understood() {
    let rules = parsed(
        r#"
        # deployment
        key_prefix "" { policy = "read" }
        key "${app}/x" {
          policy = "deny" // not this one
        }
        service_prefix "web-" { policy = "write", intentions = "deny" } node "n" { policy = "read" }
        /* over
           lines */
        operator = "read"
        "#,
    );
    assert_eq!(rules.iter().count(), 6);
    assert!(
        rules
            .iter()
            .any(|rule| rule.scope == Scope::Exact("${app}/x".into()))
    );
    assert_eq!(parsed(""), Rules::default());
    assert_eq!(parsed("  \n# nothing\n"), Rules::default());
    assert_eq!(parsed("{}"), Rules::default());
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, why) in [
        (
            "key \"a\" { policy = \"wirte\" }",
            "key \"a\": policy: \"wirte\" is none of deny, read, list, write",
        ),
        (
            "node \"a\" { policy = \"list\" }",
            "node \"a\": policy: \"list\" is none of deny, read, write",
        ),
        (
            "acl = \"list\"",
            "acl: \"list\" is none of deny, read, write",
        ),
        ("acl = true", "acl: a truth value where a text is needed"),
        (
            "acl { policy = \"read\" }",
            "acl: a block where a text is needed",
        ),
        (
            "acl_prefix \"\" { policy = \"read\" }",
            "acl_prefix: \"acl_prefix\" has no meaning here",
        ),
        ("key = \"read\"", "key: a text where a block is needed"),
        ("key \"a\" { }", "key \"a\" has no policy"),
        (
            "service \"a\" { intentions = \"read\" }",
            "service \"a\" has no policy",
        ),
        (
            "key \"a\" { policy = \"read\"\n sentinel { code = \"\" } }",
            "key \"a\": Sentinel is not supported",
        ),
        (
            "key \"a\" { polcy = \"read\" }",
            "key \"a\": polcy: \"polcy\" has no meaning here, known are policy, intentions",
        ),
        (
            "key \"a\" { policy = \"read\"\n intentions = \"read\" }",
            "key \"a\": intentions: \"intentions\" has no meaning here",
        ),
        (
            "key_prfix \"a\" { policy = \"deny\" }",
            "key_prfix: \"key_prfix\" has no meaning here",
        ),
        (
            "intention \"a\" { policy = \"read\" }",
            "intention: \"intention\" has no meaning here",
        ),
        ("namespace \"a\" { }", "namespaces are not supported"),
        (
            "operator = \"read\" operator = \"write\"",
            "operator is given twice",
        ),
        (
            "{\"operator\": \"deny\", \"operator\": \"write\"}",
            "operator is given twice",
        ),
        (
            "{\"key\": {\"a\": {\"policy\": \"deny\", \"policy\": \"write\"}}}",
            "key \"a\": policy is given twice",
        ),
        ("{\"key\": 1}", "key: a number where a block is needed"),
        ("{\"key\": [1]}", "key: a number where a block is needed"),
        ("{\"key\"", "EOF while parsing an object at line 1 column 6"),
        (
            "key \"a\" {",
            "line 1, column 10: a name or \"}\" is needed",
        ),
    ] {
        let error = refused(text);
        let prefix = "Failed to parse ACL rules: ";
        assert!(error.starts_with(prefix), "{text}: {error}");
        assert!(error[prefix.len()..].contains(why), "{text}: {error}");
    }
}

#[test]
fn long_and_deep_texts_are_refused_at_their_bounds() {
    let comment = "#".repeat(RULES_BYTES_MAX);
    assert_eq!(parsed(&comment), Rules::default());
    assert!(refused(&format!("{comment}#")).contains("at most 262144"));
    for open in ["{\"key\":", "{\"key\":[[", "a {", "a = [[", "a = {"] {
        refused(&open.repeat(10_000));
    }
}

#[test]
fn builtin_policies_grant_what_they_say() {
    for (policy, granted, refused) in [
        (GLOBAL_MANAGEMENT, Access::Write, None),
        (GLOBAL_READ_ONLY, Access::Read, Some(Access::Write)),
    ] {
        let rules = parsed(policy.rules);
        let authorizer = Authorizer::new([&rules], Fallback::Deny);
        for resource in Resource::ALL.iter().filter(|r| **r != Resource::Identity) {
            assert!(
                authorizer.allows(*resource, b"any", granted),
                "{resource:?}"
            );
            if let Some(refused) = refused {
                assert!(
                    !authorizer.allows(*resource, b"any", refused),
                    "{resource:?}"
                );
            }
        }
        assert_eq!(builtin_policy(policy.id), Some(&policy));
    }
    assert_eq!(builtin_policy(ANONYMOUS_SECRET), None);
}

#[test]
fn identities_may_act_in_their_own_name_only() {
    let service = service_identity("web");
    let authorizer = Authorizer::new([&service], Fallback::Deny);
    for (resource, name, access, allowed) in [
        (Resource::Service, "web", Access::Write, true),
        (Resource::Service, "web-sidecar-proxy", Access::Write, true),
        (Resource::Service, "webb", Access::Write, false),
        (Resource::Service, "db", Access::Read, true),
        (Resource::Node, "n1", Access::Read, true),
        (Resource::Node, "n1", Access::Write, false),
        (Resource::Intention, "web", Access::Write, false),
        (Resource::Key, "web", Access::Read, false),
    ] {
        let decided = authorizer.allows(resource, name.as_bytes(), access);
        assert_eq!(decided, allowed, "{resource:?} {name} {access:?}");
    }
    let node = node_identity("n1");
    let authorizer = Authorizer::new([&node], Fallback::Deny);
    assert!(authorizer.allows(Resource::Node, b"n1", Access::Write));
    assert!(!authorizer.allows(Resource::Node, b"n2", Access::Read));
    assert!(authorizer.allows(Resource::Service, b"web", Access::Read));
    for (name, valid) in [
        ("a", true),
        ("a-b_c0", true),
        ("", false),
        ("-a", false),
        ("a_", false),
        ("A", false),
        ("a b", false),
    ] {
        assert_eq!(valid_identity_name(name), valid, "{name}");
    }
    assert!(valid_identity_name(&"a".repeat(256)));
    assert!(!valid_identity_name(&"a".repeat(257)));
}

#[test]
fn nothing_of_the_acl_is_allowed_by_default() {
    let authorizer = Authorizer::new([], Fallback::Allow);
    assert!(authorizer.allows(Resource::Key, b"a", Access::Write));
    assert!(authorizer.allows(Resource::Operator, b"", Access::Write));
    assert!(!authorizer.allows_acl(Access::Read));
    assert!(!authorizer.allows_acl(Access::Write));
}

#[test]
fn all_may_be_seen_if_no_rule_refuses_one_and_any_changed_if_a_rule_grants_one() {
    for (text, fallback, read_all, write_any) in [
        ("", Fallback::Deny, false, false),
        ("", Fallback::Allow, true, true),
        (
            "node \"a\" { policy = \"deny\" }",
            Fallback::Allow,
            false,
            true,
        ),
        (
            "node_prefix \"\" { policy = \"read\" }",
            Fallback::Deny,
            true,
            false,
        ),
        (
            "node_prefix \"\" { policy = \"read\" }",
            Fallback::Allow,
            true,
            false,
        ),
        (
            "node \"a\" { policy = \"write\" }",
            Fallback::Deny,
            false,
            true,
        ),
        (
            "node_prefix \"\" { policy = \"deny\" } node \"a\" { policy = \"write\" }",
            Fallback::Allow,
            false,
            true,
        ),
    ] {
        let rules = parsed(text);
        let authorizer = Authorizer::new([&rules], fallback);
        assert_eq!(authorizer.may_read_all(Resource::Node), read_all, "{text}");
        assert_eq!(
            authorizer.may_write_any(Resource::Node),
            write_any,
            "{text}"
        );
    }
}

#[test]
fn the_mesh_and_peerings_follow_the_operator() {
    let rules = parsed("operator = \"read\"\npeering = \"write\"");
    let authorizer = Authorizer::new([&rules], Fallback::Deny);
    assert!(authorizer.allows(Resource::Mesh, b"", Access::Read));
    assert!(!authorizer.allows(Resource::Mesh, b"", Access::Write));
    assert!(authorizer.allows(Resource::Peering, b"", Access::Write));
    assert!(!authorizer.allows(Resource::Keyring, b"", Access::Read));
}

// ------------------------------------------------------------------------------ the model

/// What the rules say of a name: those for it, else those for its longest prefix.
fn said<'a>(rules: &'a [Rule], resource: Resource, name: &str) -> Vec<&'a Rule> {
    let of: Vec<&Rule> = rules
        .iter()
        .filter(|rule| rule.resource == resource)
        .collect();
    let exact = |rule: &&&Rule| matches!(&rule.scope, Scope::Exact(own) if own == name);
    let found: Vec<&Rule> = of.iter().filter(exact).copied().collect();
    if !found.is_empty() {
        return found;
    }
    for length in (0..=name.len()).rev() {
        let same =
            |rule: &&&Rule| matches!(&rule.scope, Scope::Prefix(own) if *own == name[..length]);
        let found: Vec<&Rule> = of.iter().filter(same).copied().collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn model_allows(
    rules: &[Rule],
    fallback: Fallback,
    resource: Resource,
    name: &str,
    wanted: Access,
) -> bool {
    let said = said(rules, resource, name);
    let Some(most) = said.iter().map(|rule| rule.access).max() else {
        return fallback == Fallback::Allow;
    };
    let denied = said.iter().any(|rule| rule.access == Access::Deny);
    !denied && most >= wanted
}

/// Whether the rules for the prefix allow it, and no rule beneath grants less.
fn model_may_write_prefix(rules: &[Rule], fallback: Fallback, prefix: &str) -> bool {
    let of_keys = |rule: &&Rule| rule.resource == Resource::Key;
    let by_prefix = |rule: &&Rule| matches!(rule.scope, Scope::Prefix(_));
    let prefixes: Vec<Rule> = rules.iter().filter(by_prefix).cloned().collect();
    let merged_is_write = |scope: &Scope| {
        let same = rules
            .iter()
            .filter(of_keys)
            .filter(|rule| rule.scope == *scope);
        let all: Vec<Access> = same.map(|rule| rule.access).collect();
        !all.contains(&Access::Deny) && all.contains(&Access::Write)
    };
    let beneath = rules.iter().filter(of_keys).all(|rule| match &rule.scope {
        Scope::Exact(name) | Scope::Prefix(name) if name.starts_with(prefix) => {
            merged_is_write(&rule.scope)
        }
        _ => true,
    });
    beneath && model_allows(&prefixes, fallback, Resource::Key, prefix, Access::Write)
}

fn names() -> impl Strategy<Value = String> {
    "[ab/]{0,4}"
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let access = prop::sample::select(vec![
        Access::Deny,
        Access::Read,
        Access::List,
        Access::Write,
    ]);
    let resource = prop::sample::select(vec![Resource::Key, Resource::Node]);
    let rule = (resource, names(), any::<bool>(), access).prop_map(
        |(resource, name, is_prefix, access)| Rule {
            resource,
            scope: match is_prefix {
                true => Scope::Prefix(name),
                false => Scope::Exact(name),
            },
            access,
        },
    );
    prop::collection::vec(rule, 0..12)
}

/// The rules as a text: they must mean the same.
fn written(rules: &[Rule]) -> String {
    rules
        .iter()
        .map(|rule| {
            let word = rule.resource.word();
            let (suffix, name) = match &rule.scope {
                Scope::Exact(name) => ("", name),
                Scope::Prefix(name) => ("_prefix", name),
                Scope::Whole => unreachable!("not drawn"),
            };
            let access = match (rule.resource, rule.access) {
                (Resource::Node, Access::List) => "read",
                (_, access) => access.word(),
            };
            format!("{word}{suffix} \"{name}\" {{ policy = \"{access}\" }}\n")
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn decisions_are_those_of_the_model(
        rules in rules(),
        split in 0usize..12,
        allow in any::<bool>(),
        names in prop::collection::vec(names(), 1..20),
    ) {
        let fallback = if allow { Fallback::Allow } else { Fallback::Deny };
        let (first, second) = rules.split_at(split.min(rules.len()));
        let policies = [Rules::of(first.to_vec()), Rules::of(second.to_vec())];
        let authorizer = Authorizer::new(&policies, fallback);
        for name in &names {
            for resource in [Resource::Key, Resource::Node] {
                for wanted in [Access::Read, Access::List, Access::Write] {
                    let decided = authorizer.allows(resource, name.as_bytes(), wanted);
                    let expected = model_allows(&rules, fallback, resource, name, wanted);
                    prop_assert_eq!(decided, expected, "{:?} {} {:?}", resource, name, wanted);
                }
            }
            // Names that rules speak of, and such as none does, under the prefix.
            let spoken = rules.iter().filter_map(|rule| match &rule.scope {
                Scope::Exact(own) | Scope::Prefix(own) => Some(own.clone()),
                Scope::Whole => None,
            });
            let all = spoken.flat_map(|own| [format!("{own}~"), own]).chain([format!("{name}~")]);
            let under: Vec<String> = all.filter(|own| own.starts_with(name.as_str())).collect();
            let read = |own: &String| model_allows(&rules, fallback, Resource::Key, own, Access::Read);
            let (prefix, each, any) = (name.as_bytes(), under.iter().all(read), under.iter().any(read));
            prop_assert!(!authorizer.may_read_prefix(prefix) || each, "all under {}", name);
            prop_assert!(authorizer.may_read_some(prefix) || !any, "some under {}", name);
            let decided = authorizer.may_write_prefix(name.as_bytes());
            prop_assert_eq!(decided, model_may_write_prefix(&rules, fallback, name), "{}", name);
        }
    }

    #[test]
    fn a_text_means_what_its_rules_mean(rules in rules(), name in names()) {
        let text = written(&rules);
        let read = Rules::parse(&text).expect("rules as they are written");
        let authorizer = Authorizer::new([&read], Fallback::Deny);
        for wanted in [Access::Read, Access::List, Access::Write] {
            let expected = model_allows(&rules, Fallback::Deny, Resource::Key, &name, wanted);
            prop_assert_eq!(authorizer.allows(Resource::Key, name.as_bytes(), wanted), expected);
        }
    }

    #[test]
    fn no_text_is_too_strange_to_be_read_or_refused(text in "[a-z\"{}\\[\\]=:,\\\\$%#/\n ]{0,60}") {
        let _ = Rules::parse(&text);
        let _ = Rules::parse(&format!("{{{text}"));
    }
}
