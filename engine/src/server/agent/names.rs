//! Where does a check's host lie?
//!
//! The system's resolver blocks: it reads files, and may wait for a name server for many seconds.
//! It is asked on threads of its own, [`LANES`] of them, by the name: what a silent name server
//! holds up is the checks of its own names and few others, and never the executor. An asker that
//! has gone (its check's time was over) is not waited for; numbers need no resolver.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{SocketAddr, ToSocketAddrs},
    rc::Rc,
};

use super::aside::Aside;

/// Threads that look up names.
const LANES: usize = 4;

/// The way to the resolver.
pub(super) struct Names {
    lanes: [Rc<Aside>; LANES],
    hasher: RandomState,
}

impl Names {
    /// Threads start with the first name that each looks up.
    pub(super) fn new() -> Self {
        Self {
            lanes: std::array::from_fn(|_| Aside::new("curia-names")),
            hasher: RandomState::new(),
        }
    }

    /// Addresses of a `host:port`. The error is said as Go does.
    pub(super) async fn resolve(&self, address: &str) -> Result<Vec<SocketAddr>, String> {
        if let Ok(address) = address.parse::<SocketAddr>() {
            return Ok(vec![address]);
        }
        let name = address.to_owned();
        let lane = self.hasher.hash_one(&name) as usize % LANES;
        let look_up = move || name.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        let found: io::Result<Vec<SocketAddr>> = self.lanes[lane].run(look_up).await.flatten();
        found.map_err(|error| format!("dial tcp: lookup {address}: {error}"))
    }
}
