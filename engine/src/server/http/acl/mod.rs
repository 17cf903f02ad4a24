//! Who asks, what may they do, and what do Consul's ACL endpoints answer?
//!
//! ```text
//! token ── guard ──► Who ──┬── needs ────► may this request be answered at all?
//!                          ├── bodies ───► may what its body asks for be done?
//!                          └── sieve ────► what of the answer may be seen?
//! endpoints, wanted   /v1/acl/…: the requests and their bodies
//! judge               may the agent tell the catalog what was registered with it?
//! keeper              what a leader does beside: built-in policies, ended tokens
//! ```
//!
//! One table ([`needs`]) says what every endpoint needs; an endpoint that is not there is the
//! operator's alone. So a new endpoint is never open by having been forgotten.
//!
//! With ACLs off there is no guard, and all that a request pays is to see that.

mod bodies;
mod endpoints;
mod expiry;
mod guard;
mod judge;
pub(in crate::server) mod keeper;
mod needs;
mod ready;
mod sieve;
#[cfg(test)]
mod tests;
mod transactions;
#[cfg(feature = "fuzzing")]
pub(super) mod wanted;
#[cfg(not(feature = "fuzzing"))]
mod wanted;

pub(super) use bodies::{check as check_body, check_path};
#[cfg(feature = "fuzzing")]
pub(super) use bodies::{config_entry, names as names_of_body};
pub(super) use endpoints::answer;
pub(super) use guard::{Guard, Rights, Who, brought};
pub(in crate::server) use judge::{Bearer, Judge};
#[cfg(feature = "fuzzing")]
pub(super) use needs::Body;
pub(super) use needs::{Need, of as need_of, of_fixed as need_of_fixed};
pub(super) use sieve::{Sieve, Sifted};
pub(super) use transactions::{check_key, check_ops};
