//! Which of all this is needed for a seed to fail?
//!
//! A failing seed is made smaller as long as it fails: fewer operations first, then one fault after
//! the other is left out. Draws are split by purpose, but a world without a fault still takes
//! another course; what is left out and no longer fails is put back. What remains is a command line.

use super::{Fault, Plan, Wish};

/// Runs at most this many smaller worlds.
pub const ATTEMPTS_MAX: usize = 100;

/// The smallest world found that fails as well, by what `fails` says, and why it does.
pub fn shrink(
    wish: &Wish,
    why: String,
    mut fails: impl FnMut(&Wish) -> Option<String>,
) -> (Wish, String) {
    let (mut least, mut why) = (wish.clone(), why);
    let mut attempts = 0;
    let mut try_it = |smaller: Wish, least: &mut Wish, why: &mut String| {
        attempts += 1;
        let failed = (attempts <= ATTEMPTS_MAX)
            .then(|| fails(&smaller))
            .flatten();
        if let Some(reason) = failed {
            (*least, *why) = (smaller, reason);
            return true;
        }
        false
    };
    let mut operations = least.operations;
    while operations > 1 {
        operations = operations.div_ceil(2);
        let smaller = Wish {
            operations,
            ..least.clone()
        };
        if !try_it(smaller, &mut least, &mut why) {
            break;
        }
    }
    for fault in Plan::draw(&least).faults {
        let smaller = without(&least, fault);
        try_it(smaller, &mut least, &mut why);
    }
    (least, why)
}

fn without(wish: &Wish, fault: Fault) -> Wish {
    let mut without = wish.without.clone();
    without.push(fault);
    Wish {
        without,
        ..wish.clone()
    }
}

/// The command that runs this world alone.
pub fn command(wish: &Wish) -> String {
    use clap::ValueEnum;
    let mut command = format!(
        "curia-bench simulate --seed {} --operations {}",
        wish.seed, wish.operations
    );
    if let Some(servers) = wish.servers {
        command.push_str(&format!(" --servers {servers}"));
    }
    let names = wish.without.iter().filter_map(Fault::to_possible_value);
    let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
    if !names.is_empty() {
        command.push_str(&format!(" --without {}", names.join(",")));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_needed_is_left_out() {
        let wish = Wish {
            seed: (1..)
                .find(|seed| {
                    let wish = Wish::of(*seed, 1000);
                    let faults = Plan::draw(&wish).faults;
                    faults.len() > 5 && faults.contains(&Fault::Crash)
                })
                .expect("such worlds exist"),
            ..Wish::of(1, 1000)
        };
        let needs = |wish: &Wish| {
            let crashes = Plan::draw(wish).has(Fault::Crash);
            (crashes && wish.operations >= 100).then(|| "crashed".to_owned())
        };
        let (least, why) = shrink(&wish, "at first".to_owned(), needs);
        assert_eq!(Plan::draw(&least).faults, [Fault::Crash]);
        assert_eq!((least.operations, why.as_str()), (125, "crashed"));
        assert!(command(&least).contains("--without "));
    }
}
