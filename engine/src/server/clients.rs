//! How many HTTP connections has one client address?
//!
//! Only the executor that accepts them counts. A connection carries a ticket to whichever executor
//! serves it and drops it at its end; as many tickets are about as the address has connections, so
//! nothing has to be sent back.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    sync::Arc,
};

use ahash::AHashMap;
use socket2::Socket;

/// Addresses that are remembered before those without a connection are looked for, at least.
const FORGET_FROM: usize = 64;

/// One connection of an address.
pub type ClientTicket = Arc<()>;

/// The client has as many connections as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// Connections by client address.
#[derive(Debug)]
pub struct Clients {
    /// How many an address may have; `usize::MAX` for as many as there may be.
    connections_max: Cell<usize>,
    tickets: RefCell<AHashMap<IpAddr, ClientTicket>>,
    /// With so many addresses they are looked for next: twice as many as were left the last time,
    /// so that each connection pays for a constant number of them.
    forget_at: Cell<usize>,
}

impl Clients {
    /// At most `connections_max` of each address.
    pub fn new(connections_max: usize) -> Self {
        Self {
            connections_max: Cell::new(connections_max),
            tickets: RefCell::default(),
            forget_at: Cell::new(FORGET_FROM),
        }
    }

    /// Another bound, for connections from now on.
    pub fn set_max(&self, connections_max: usize) {
        self.connections_max.set(connections_max);
    }

    /// Counts a connection among those of its client, where that matters. Sockets of the file
    /// system have no client address, and permissions of their own.
    pub fn ticket(&self, socket: &Socket) -> Result<Option<ClientTicket>, TooMany> {
        if self.connections_max.get() == usize::MAX {
            return Ok(None);
        }
        let peer = socket.peer_addr().ok().and_then(|peer| peer.as_socket());
        match peer {
            Some(peer) => self.admit(peer.ip().to_canonical()).map(Some),
            None => Ok(None),
        }
    }

    fn admit(&self, address: IpAddr) -> Result<ClientTicket, TooMany> {
        let mut tickets = self.tickets.borrow_mut();
        if tickets.len() >= self.forget_at.get() {
            tickets.retain(|_, ticket| Arc::strong_count(ticket) > 1);
            self.forget_at.set(FORGET_FROM.max(2 * tickets.len()));
        }
        let ticket = tickets.entry(address).or_default();
        match Arc::strong_count(ticket) <= self.connections_max.get() {
            true => Ok(Arc::clone(ticket)),
            false => Err(TooMany),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_max_conns_per_client_is_reached_per_address_and_given_back() {
        let clients = Clients::new(2);
        let (a, b) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let first = clients.admit(a).expect("the first");
        let _second = clients.admit(a).expect("the second");
        assert!(clients.admit(a).is_err());
        let _other = clients.admit(b).expect("another address");
        drop(first);
        let _again = clients.admit(a).expect("one has ended");
        assert!(clients.admit(a).is_err());
        clients.set_max(3);
        let _third = clients.admit(a).expect("the new bound");
    }

    #[test]
    fn addresses_without_connections_are_forgotten() {
        let clients = Clients::new(1);
        let kept = clients.admit([10, 0, 0, 1].into()).unwrap();
        for at in 0..100_000_u32 {
            let _gone = clients.admit(IpAddr::from(at.to_be_bytes()));
        }
        let remembered = clients.tickets.borrow().len();
        assert!(remembered <= FORGET_FROM, "{remembered}");
        assert!(clients.admit([10, 0, 0, 1].into()).is_err());
        drop(kept);
    }
}
