//! How many HTTP connections has one client address?
//!
//! Only the executor that accepts them counts. A connection carries a ticket to whichever executor
//! serves it and drops it at its end; as many tickets are about as the address has connections, so
//! nothing has to be sent back.

use std::{cell::RefCell, net::IpAddr, sync::Arc};

use ahash::AHashMap;

/// Addresses that are remembered before those without a connection are looked for.
const FORGET_FROM: usize = 64;

/// One connection of an address.
pub type ClientTicket = Arc<()>;

/// Connections by client address.
#[derive(Debug, Default)]
pub struct Clients {
    tickets: RefCell<AHashMap<IpAddr, ClientTicket>>,
}

impl Clients {
    /// Counts one more connection of `address`; `None` when it has `connections_max` already.
    pub fn admit(&self, address: IpAddr, connections_max: usize) -> Option<ClientTicket> {
        let mut tickets = self.tickets.borrow_mut();
        if tickets.len() >= FORGET_FROM && tickets.len() == tickets.capacity() {
            // As the table would grow: the cost is that of growing it.
            tickets.retain(|_, ticket| Arc::strong_count(ticket) > 1);
        }
        let ticket = tickets.entry(address).or_default();
        (Arc::strong_count(ticket) <= connections_max).then(|| Arc::clone(ticket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_max_conns_per_client_is_reached_per_address_and_given_back() {
        let clients = Clients::default();
        let (a, b) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let first = clients.admit(a, 2).expect("the first");
        let _second = clients.admit(a, 2).expect("the second");
        assert!(clients.admit(a, 2).is_none());
        let _other = clients.admit(b, 2).expect("another address");
        drop(first);
        let _again = clients.admit(a, 2).expect("one has ended");
        assert!(clients.admit(a, 0).is_none());
    }

    #[test]
    fn addresses_without_connections_are_forgotten() {
        let clients = Clients::default();
        let kept = clients.admit([10, 0, 0, 1].into(), 1).unwrap();
        for at in 0..100_000_u32 {
            let _gone = clients.admit(IpAddr::from(at.to_be_bytes()), 1);
        }
        let remembered = clients.tickets.borrow().len();
        assert!(remembered <= 2 * FORGET_FROM, "{remembered}");
        assert!(clients.admit([10, 0, 0, 1].into(), 1).is_none());
        drop(kept);
    }
}
