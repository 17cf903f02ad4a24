//! Does the shipped authorizer decide a million random policies as the documentation does?
//!
//! (Reliability promise 22.) Tokens are drawn with policies, written out as HCL and as JSON in many
//! manners, and identities; the shipped reader and authorizer decide on them, and so does the
//! reference (`policies/reference`), which was written apart, from what Consul documents, for
//! clearness and not for speed. Names are few and short, so that rules collide.
//!
//! `POLICIES=1000000 cargo test -p engine --test policies` tries a million; a failure prints its
//! seed, and `SEED=n cargo test -p engine --test policies` tries that one token again.

#[path = "policies/drawn.rs"]
mod drawn;
#[path = "policies/reference.rs"]
mod reference;

use drawn::{Draw, Token};
use engine::acl::{Access, Authorizer, Fallback, Resource, Rules, node_identity, service_identity};
use reference::{Level, Reference};

/// Policies that are tried when nobody says how many.
const POLICIES: u64 = 5_000;
/// Questions about each token.
const QUESTIONS: usize = 24;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

#[test]
fn the_authorizer_decides_as_the_reference_does() {
    if let Some(seed) = number("SEED") {
        try_token(seed);
        return;
    }
    let wanted = number("POLICIES").unwrap_or(POLICIES);
    let (mut tried, mut seed, mut granted, mut asked) = (0, 0, 0, 0);
    while tried < wanted {
        let counts = try_token(seed);
        tried += counts.policies;
        granted += counts.granted;
        asked += counts.asked;
        seed += 1;
    }
    println!("{tried} policies of {seed} tokens, {asked} questions, {granted} granted");
    // Both ways, or the test tests little.
    assert!(
        granted * 10 > asked && granted * 10 < asked * 9,
        "{granted} of {asked} granted"
    );
}

struct Counts {
    policies: u64,
    asked: u64,
    granted: u64,
}

/// Draws a token, and questions about it, and compares the answers.
fn try_token(seed: u64) -> Counts {
    let mut draw = Draw::new(seed);
    let token = Token::drawn(&mut draw);
    let reference = Reference::new(&token);
    let shipped = shipped(&token, seed);
    let mut counts = Counts {
        policies: token.policies.len() as u64,
        asked: 0,
        granted: 0,
    };
    let mut agree = |what: String, shipped: bool, expected: bool| {
        assert_eq!(shipped, expected, "SEED={seed}: {what}; of {token:#?}");
        counts.asked += 1;
        counts.granted += u64::from(shipped);
    };
    for _ in 0..QUESTIONS {
        let resource = Resource::ALL[draw.below(Resource::ALL.len() as u64) as usize];
        let name = draw.name_in(&token);
        let word = resource.word();
        for (wanted, level) in [
            (Access::Read, Level::Read),
            (Access::List, Level::List),
            (Access::Write, Level::Write),
        ] {
            let decided = shipped.allows(resource, name.as_bytes(), wanted);
            let expected = reference.allows(word, &name, level);
            agree(format!("{word} {name:?} {wanted:?}"), decided, expected);
        }
        let prefix = name.as_bytes();
        let under = |what: &str| format!("{what} of keys under {name:?}");
        agree(
            under("write all"),
            shipped.may_write_prefix(prefix),
            reference.all("key", &name, Level::Write),
        );
        agree(
            under("read all"),
            shipped.may_read_prefix(prefix),
            reference.all("key", &name, Level::Read),
        );
        agree(
            under("read any"),
            shipped.may_read_some(prefix),
            reference.any("key", &name, Level::Read),
        );
        if resource.is_named() {
            agree(
                format!("read every {word}"),
                shipped.may_read_all(resource),
                reference.all(word, "", Level::Read),
            );
            agree(
                format!("write any {word}"),
                shipped.may_write_any(resource),
                reference.any(word, "", Level::Write),
            );
        }
    }
    counts
}

/// The token as a server would have it: texts parsed, identities expanded, all compiled.
fn shipped(token: &Token, seed: u64) -> Authorizer {
    let mut rules: Vec<Rules> = Vec::new();
    for policy in &token.policies {
        let read = Rules::parse(&policy.text);
        rules.push(read.unwrap_or_else(|why| panic!("SEED={seed}: {why}\n{}", policy.text)));
    }
    rules.extend(token.services.iter().map(|name| service_identity(name)));
    rules.extend(token.nodes.iter().map(|name| node_identity(name)));
    let fallback = match token.default_allow {
        true => Fallback::Allow,
        false => Fallback::Deny,
    };
    Authorizer::new(&rules, fallback)
}
