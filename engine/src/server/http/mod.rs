//! How does a server speak Consul's HTTP API?
//!
//! hyper's HTTP/1.1 on glommio's sockets, one service per executor, one task per connection.
//! The layer is generic over [`Gateway`](super::gateway::Gateway), which is all it knows of the
//! cluster; tests put a map in its place.
//!
//! ```text
//! listen    a port that nobody else can take   unix      a socket of the file system
//! serve     connection -> requests -> answers
//!   link      the socket under hyper; phases      sweep     cuts off who is late
//!   rules     who is let in at all
//!   path      which endpoint, which key           params    what the query string asks
//!   routes    all that is served
//!   admission is there room                       body      the request's body
//!   kv, txn, agent, sessions  the endpoints       call      what those about records share
//!   reply     headers and body                    rows      listings, a piece at a time
//!   watch     changes as they come                pages     listings, a page at a time
//!   events    what a watch says                 streams   what goes on until somebody leaves
//!   monitor   the log as it is written            metrics   figures, in Consul's shapes
//!   json      rows as Consul writes them          failure   statuses and texts
//! ```
//!
//! Invariants: a request is admitted before its body is read; nothing of a request outlives its
//! answer; a slow or broken client costs others nothing but its bounded memory.

mod acl;
mod admission;
mod agent;
mod agent_calls;
mod body;
mod call;
mod catalog;
mod config;
mod coordinates;
#[cfg(feature = "fuzzing")]
pub mod doors;
mod events;
mod failure;
pub mod go_text;
mod json;
mod kv;
mod limits;
mod link;
mod listen;
mod loose;
mod metrics;
mod mixed;
mod monitor;
mod pages;
mod params;
mod path;
mod queries;
mod reads;
mod reply;
mod routes;
mod rows;
mod rules;
mod serve;
mod sessions;
mod streams;
mod sweep;
mod txn;
mod unix;
mod usage;
mod watch;

pub(super) use acl::{Bearer, Judge, keeper};
pub use limits::{
    ANSWER_PIECE_BYTES, BODY_BYTES_IN_FLIGHT_MAX, BUFFER_BYTES_MAX, CONNECTIONS_MAX,
    HEADER_BYTES_MAX, HEADERS_MAX, HttpLimits, LINGER_BYTES_MAX, REQUESTS_MAX, TXN_BODY_BYTES_MAX,
    WATCHERS_MAX,
};
pub use listen::{ListenError, bind_after_predecessor, bind_exclusive};
pub use pages::PAGE_BYTES_MAX;
pub use routes::{ROUTES, Served};
pub use rules::{HttpRules, Network};
pub use serve::HttpService;
pub use unix::{UnixListenError, UnixSocketFile, listen_after_predecessor};
