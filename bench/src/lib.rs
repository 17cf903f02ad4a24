//! How fast is curia, what does a commit cost, and is what it promised still there?
//!
//! The library behind `curia-bench`. Real server processes on loopback addresses, data on a real
//! disk, closed-loop load from one cheap thread, and every figure from its source: latency from
//! the client's clock into HdrHistograms, CPU from the kernel's process clocks, flushes from the
//! disk's own counter, bytes from the log writer. `ls` tells the flow:
//!
//! | module | job |
//! |---|---|
//! | [`quorum`] | the arithmetic of the deployment table |
//! | [`volume`], [`process`], [`machine`] | what the kernel knows: disk, processes, host |
//! | [`guard`] | no child process and no scratch directory outlives us |
//! | [`http`] | a lean HTTP/1.1 client: one parser, one-shot requests |
//! | [`cluster`] | server processes of one product, started, killed, restarted |
//! | [`load`] | keys, values, the ledger of what was acknowledged, and the load generators |
//! | [`floor`] | the physical limit, with no engine code |
//! | [`counters`], [`subject`] | costs over one slice of load, and what is measured in turns |
//! | [`judge`] | what clients saw, and whether it is possible |
//! | [`storage`] | the engine's proofs of storage, on every core |
//! | [`nemesis`] | real servers tormented, and their clients' records |
//! | [`sim`] | whole clusters in one thread and virtual time, under faults of every kind |
//! | [`report`] | tables, histograms and files under `perf-reports/` |
//! | [`run`] | one file per sub-command |
//!
//! Invariant: a figure is printed only if it was measured; what could not be is printed as `–`.

pub mod cluster;
pub mod counters;
pub mod error;
pub mod floor;
pub mod guard;
pub mod http;
pub mod judge;
pub mod load;
pub mod machine;
pub mod nemesis;
pub mod process;
pub mod quorum;
pub mod report;
pub mod run;
pub mod sim;
pub mod storage;
pub mod subject;
pub mod volume;

pub use error::{Context, Error, Result};
