//! What tokens are drawn, and in what manners are their policies written?

use std::fmt::Write;

/// SplitMix64: enough to draw from, and replayable.
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds are to have nothing in common.
        let mut draw = Self(seed.wrapping_mul(0xD134_2543_DE82_EF95));
        draw.next();
        draw
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// A short name of few letters, some of them awkward.
    fn name(&mut self) -> String {
        const LETTERS: &[char] = &['a', 'b', 'a', 'b', '/', '-'];
        const AWKWARD: &[char] = &['"', '\\', 'é', '$', '{', '}', '#', ' '];
        let length = self.below(5);
        let letter = |draw: &mut Self| match draw.chance(6) {
            true => draw.of(AWKWARD),
            false => draw.of(LETTERS),
        };
        (0..length).map(|_| letter(self)).collect()
    }

    /// A name that rules of the token are likely to speak of.
    pub fn name_in(&mut self, token: &Token) -> String {
        let said: Vec<&Said> = token.policies.iter().flat_map(|p| &p.said).collect();
        if said.is_empty() || self.chance(40) {
            return self.name();
        }
        let mut name = self.of(&said).name.clone();
        match self.below(3) {
            0 => {}
            1 => name.push_str(&self.name()),
            _ => {
                name.pop();
            }
        }
        name
    }
}

const WHOLE: &[&str] = &["acl", "keyring", "mesh", "operator", "peering"];
const NAMED: &[&str] = &[
    "agent", "event", "identity", "key", "key", "key", "node", "query", "service", "service",
    "session",
];

/// A rule as it was meant.
#[derive(Clone, Debug)]
pub struct Said {
    pub word: &'static str,
    pub prefix: bool,
    pub name: String,
    pub level: &'static str,
    pub intentions: Option<&'static str>,
}

/// A policy as it was meant, and as it is written.
#[derive(Debug)]
pub struct Policy {
    pub said: Vec<Said>,
    pub text: String,
}

/// A token.
#[derive(Debug)]
pub struct Token {
    pub policies: Vec<Policy>,
    pub services: Vec<String>,
    pub nodes: Vec<String>,
    pub default_allow: bool,
}

impl Token {
    pub fn drawn(draw: &mut Draw) -> Self {
        let policies = (0..1 + draw.below(4))
            .map(|_| Policy::drawn(draw))
            .collect();
        let identity = |draw: &mut Draw| match draw.chance(15) {
            true => vec![draw.of(&["a", "b", "ab", "a-b"]).to_owned()],
            false => Vec::new(),
        };
        Self {
            policies,
            services: identity(draw),
            nodes: identity(draw),
            default_allow: draw.chance(40),
        }
    }
}

impl Policy {
    fn drawn(draw: &mut Draw) -> Self {
        let mut said: Vec<Said> = Vec::new();
        for _ in 0..draw.below(9) {
            let rule = Said::drawn(draw);
            // Given twice in one text it is refused, as it could mean either.
            let twice = |other: &Said| WHOLE.contains(&rule.word) && other.word == rule.word;
            if !said.iter().any(twice) {
                said.push(rule);
            }
        }
        // HCL reads on to the end of what looks like an interpolation.
        let interpolates = said.iter().any(|rule| rule.name.contains("${"));
        let text = match interpolates || draw.chance(40) {
            true => as_json(&said),
            false => as_hcl(&said, draw),
        };
        Self { said, text }
    }
}

impl Said {
    fn drawn(draw: &mut Draw) -> Self {
        const LEVELS: &[&str] = &["deny", "read", "write"];
        let whole = draw.chance(20);
        let word = draw.of(if whole { WHOLE } else { NAMED });
        let level = match word {
            "key" if draw.chance(20) => "list",
            _ => draw.of(LEVELS),
        };
        let has_intentions = word == "service" && draw.chance(30);
        Self {
            word,
            prefix: !whole && draw.chance(50),
            name: if whole { String::new() } else { draw.name() },
            level,
            intentions: has_intentions.then(|| draw.of(LEVELS)),
        }
    }

    fn key(&self) -> String {
        let suffix = if self.prefix { "_prefix" } else { "" };
        format!("{}{suffix}", self.word)
    }
}

/// A text in quotes, of which both languages escape the same.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn as_hcl(said: &[Said], draw: &mut Draw) -> String {
    let mut text = String::new();
    for rule in said {
        if draw.chance(10) {
            text.push_str(draw.of(&["# key \"a\" {\n", "// }\n", "/* \" */ "]));
        }
        let (key, level) = (rule.key(), rule.level);
        let done = match WHOLE.contains(&rule.word) {
            true => write!(text, "{key} = \"{level}\""),
            false => {
                let between = draw.of(&["\n", "\n\n  ", " \n# said\n"]);
                let intentions = rule.intentions.map(|level| {
                    let first = draw.chance(50);
                    (first, format!("intentions = \"{level}\""))
                });
                let policy = format!("policy = \"{level}\"");
                let body = match intentions {
                    None => policy,
                    Some((true, intentions)) => format!("{intentions}{between}{policy}"),
                    Some((false, intentions)) => format!("{policy}{between}{intentions}"),
                };
                write!(text, "{key} {} {{ {body} }}", quoted(&rule.name))
            }
        };
        done.expect("memory");
        text.push('\n');
    }
    text
}

/// One member for each rule: repeated ones count each.
fn as_json(said: &[Said]) -> String {
    let members = said.iter().map(|rule| {
        let (key, level) = (rule.key(), rule.level);
        if WHOLE.contains(&rule.word) {
            return format!("\"{key}\": \"{level}\"");
        }
        let intentions = match rule.intentions {
            Some(level) => format!(", \"intentions\": \"{level}\""),
            None => String::new(),
        };
        let name = quoted(&rule.name);
        format!("\"{key}\": {{{name}: {{\"policy\": \"{level}\"{intentions}}}}}")
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
}
