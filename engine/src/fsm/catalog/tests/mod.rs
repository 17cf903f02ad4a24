//! Registrations against a plain model, and Consul's rules one by one.

mod laws;
mod rules;

use wire::{Index, Uuid};

use super::{DeregisterRequest, RegisterRequest, deregister, register};
use crate::state::Store;

fn uuid(n: u8) -> String {
    Uuid([n; 16]).to_string()
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there are few")]
enum Step {
    Register(RegisterRequest),
    Deregister(DeregisterRequest),
}

/// A command as the state machine carries it out.
fn carry_out(store: &mut Store, index: u64, step: &Step) -> Result<(), String> {
    let mut txn = store.begin();
    let done = match step {
        Step::Register(request) => register(&mut txn, Index(index), request),
        Step::Deregister(request) => deregister(&mut txn, Index(index), request),
    };
    match done {
        Ok(()) => txn.commit(),
        Err(_) => drop(txn),
    }
    done
}
