//! What becomes of clients' data when everything goes wrong that can?
//!
//! Real servers, real processes, real faults; clients that write down what they called and what
//! they were told; and two judges who know nothing but that. A run goes in rounds: torment under
//! load, then everything is healed, the servers must become one cluster of equal copies again,
//! everything is read, and the round's history is judged. Rounds keep histories small enough to be
//! judged completely, however long the run.
//!
//! | module | job |
//! |---|---|
//! | [`dice`] | choices that a seed repeats |
//! | [`faults`] | what can be done to servers, and its names |
//! | [`place`] | namespaces for network and mounts; who hears whom |
//! | [`recorder`] | a file that remembers which writes a power cut would lose |
//! | [`disk`] | small disks that can be filled, slowed, and lose power |
//! | [`servers`] | the processes |
//! | [`link`], [`http`], [`native`] | one call, and what its answer proves |
//! | [`client`] | what clients do, and their records |
//! | [`torment`] | one cycle of faults |
//! | [`aftermath`] | heal, compare, read, judge, keep what is needed |
//!
//! Invariants: never are all good copies of an entry destroyed (bit rot and power cuts keep to the
//! rules in [`torment`]); only processes started here are signalled; a fault that cannot be made on
//! a host is named, and never counted as made.

pub mod aftermath;
pub mod client;
pub mod dice;
pub mod disk;
pub mod faults;
pub mod http;
pub mod link;
pub mod native;
pub mod place;
pub mod recorder;
pub mod servers;
pub mod torment;
