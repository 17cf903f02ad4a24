//! Who may be connected to the server port at the same time?
//!
//! Peers, clients and strangers have places of their own, so that no number of the one keeps out
//! the others. Who comes is a *stranger* until it has said who it is; when their places are taken
//! the one that has been silent longest goes, so that a server that introduces itself at once gets
//! in through any number of idle connections. *Clients* beyond their places are told so. Of each
//! *peer* the oldest connection goes when there are too many: it is one that its server has
//! forgotten.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use wire::ServerId;

/// Connections that have not said who they are, and probes that have proposed nothing.
pub const STRANGERS_MAX: usize = 1024;
/// Introduced native clients.
pub const CLIENTS_MAX: usize = 4096;
/// Connections of one other server: twice the greatest number of its executors.
pub const PEER_CONNECTIONS_MAX: usize = 2 * super::config::EXECUTORS_MAX as usize;

/// Whether something goes on that is said once when it begins.
#[derive(Debug, Default)]
struct Episode(Cell<bool>);

impl Episode {
    /// It happens; whether it has only now begun.
    fn begins(&self) -> bool {
        !self.0.replace(true)
    }

    /// It is over once a quarter of the places is free again.
    fn look(&self, taken: usize, max: usize) {
        if taken <= max / 4 * 3 {
            self.0.set(false);
        }
    }
}

type ByArrival<C> = BTreeMap<u64, C>;

/// The places of one server port; `C` is what closes a connection.
#[derive(Debug)]
pub struct Places<C> {
    next: Cell<u64>,
    strangers: RefCell<ByArrival<C>>,
    clients: Cell<usize>,
    peers: RefCell<BTreeMap<ServerId, ByArrival<C>>>,
    crowd: Episode,
    full: Episode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Stranger,
    Client,
    Peer(ServerId),
    Trusted,
}

/// A connection's place; dropping it makes room.
#[derive(Debug)]
pub struct Place<C> {
    places: Rc<Places<C>>,
    arrival: u64,
    kind: Kind,
}

/// A connection that has to go, and whether that is the first of many.
#[derive(Debug, PartialEq, Eq)]
pub struct Evicted<C> {
    /// The connection.
    pub connection: C,
    /// The first one of this episode: worth a line in the log.
    pub first: bool,
}

/// All places of clients are taken; whether this is the first of many.
#[derive(Debug, PartialEq, Eq)]
pub struct Full {
    /// The first one of this episode: worth a line in the log.
    pub first: bool,
}

impl<C> Places<C> {
    /// All of them free.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            next: Cell::new(0),
            strangers: RefCell::default(),
            clients: Cell::new(0),
            peers: RefCell::default(),
            crowd: Episode::default(),
            full: Episode::default(),
        })
    }

    /// A stranger comes, and takes the place of the one that has waited longest if there is no other.
    pub fn arrive(self: &Rc<Self>, connection: C) -> (Place<C>, Option<Evicted<C>>) {
        let arrival = self.next.get();
        self.next.set(arrival + 1);
        let mut strangers = self.strangers.borrow_mut();
        let evicted = match strangers.len() >= STRANGERS_MAX {
            true => strangers.pop_first().map(|(_, connection)| Evicted {
                connection,
                first: self.crowd.begins(),
            }),
            false => None,
        };
        strangers.insert(arrival, connection);
        let place = Place {
            places: Rc::clone(self),
            arrival,
            kind: Kind::Stranger,
        };
        (place, evicted)
    }
}

impl<C> Place<C> {
    /// The stranger is a client.
    ///
    /// # Errors
    /// When there are too many; then it is still a stranger.
    pub fn client(&mut self) -> Result<(), Full> {
        let places = Rc::clone(&self.places);
        if places.clients.get() >= CLIENTS_MAX {
            let first = places.full.begins();
            return Err(Full { first });
        }
        self.leave();
        places.clients.set(places.clients.get() + 1);
        self.kind = Kind::Client;
        Ok(())
    }

    /// The stranger is a server of this cluster.
    pub fn peer(&mut self, server: ServerId) -> Option<C> {
        let connection = self.leave()?;
        let mut peers = self.places.peers.borrow_mut();
        let of_server = peers.entry(server).or_default();
        let evicted = match of_server.len() >= PEER_CONNECTIONS_MAX {
            true => of_server.pop_first().map(|(_, connection)| connection),
            false => None,
        };
        of_server.insert(self.arrival, connection);
        self.kind = Kind::Peer(server);
        evicted
    }

    /// The stranger is one of very few for a reason of their own, and may stay as it likes.
    pub fn trusted(&mut self) {
        self.leave();
        self.kind = Kind::Trusted;
    }

    fn leave(&mut self) -> Option<C> {
        let places = &self.places;
        match std::mem::replace(&mut self.kind, Kind::Trusted) {
            Kind::Stranger => {
                let mut strangers = places.strangers.borrow_mut();
                let connection = strangers.remove(&self.arrival);
                places.crowd.look(strangers.len(), STRANGERS_MAX);
                connection
            }
            Kind::Client => {
                places.clients.set(places.clients.get() - 1);
                places.full.look(places.clients.get(), CLIENTS_MAX);
                None
            }
            Kind::Peer(server) => {
                let mut peers = places.peers.borrow_mut();
                let of_server = peers.get_mut(&server)?;
                let connection = of_server.remove(&self.arrival);
                if of_server.is_empty() {
                    peers.remove(&server);
                }
                connection
            }
            Kind::Trusted => None,
        }
    }
}

impl<C> Drop for Place<C> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Idle connections took the places of all, and a server that was started again could neither
    /// be reached nor reach the others until they had gone.
    #[test]
    fn a_peer_gets_in_through_any_number_of_strangers_and_clients() {
        let places = Places::new();
        let mut held = Vec::new();
        for at in 0..CLIENTS_MAX {
            let (mut place, evicted) = places.arrive(at);
            assert_eq!((place.client(), evicted), (Ok(()), None));
            held.push(place);
        }
        let crowd: Vec<_> = (0..STRANGERS_MAX).map(|at| places.arrive(at)).collect();
        assert!(crowd.iter().all(|(_, evicted)| evicted.is_none()));
        let (mut place, evicted) = places.arrive(9999);
        let oldest = Some(Evicted {
            connection: 0,
            first: true,
        });
        assert_eq!(evicted, oldest, "who waited longest goes");
        assert_eq!(place.peer(ServerId(7)), None);
        // The place that the peer had as a stranger is free again.
        assert_eq!(places.arrive(1).1, None);
    }

    #[test]
    fn the_oldest_connection_of_a_peer_goes_and_no_other_server_s() {
        let places = Places::new();
        let enter = |server, at| {
            let (mut place, _) = places.arrive(at);
            let evicted = place.peer(ServerId(server));
            (place, evicted)
        };
        let (_other, _) = enter(8, 0);
        let first: Vec<_> = (1..=PEER_CONNECTIONS_MAX).map(|at| enter(7, at)).collect();
        assert!(first.iter().all(|(_, evicted)| evicted.is_none()));
        let (last, evicted) = enter(7, 1000);
        assert_eq!(evicted, Some(1));
        drop((first, last));
        assert_eq!(places.peers.borrow().len(), 1, "nothing is left of it");
    }

    #[test]
    fn too_many_clients_are_said_once_until_a_quarter_has_gone() {
        let places = Places::new();
        let client = || {
            let (mut place, _) = places.arrive(());
            place.client().map(|()| place)
        };
        let mut held: Vec<_> = (0..CLIENTS_MAX).map(|_| client().unwrap()).collect();
        assert_eq!(client().unwrap_err(), Full { first: true });
        assert_eq!(client().unwrap_err(), Full { first: false });
        held.pop();
        held.push(client().unwrap());
        assert_eq!(client().unwrap_err(), Full { first: false });
        held.truncate(CLIENTS_MAX / 4 * 3);
        held.extend((0..CLIENTS_MAX / 4).map(|_| client().unwrap()));
        assert_eq!(client().unwrap_err(), Full { first: true });
        assert!(places.strangers.borrow().is_empty());
    }

    #[test]
    fn who_is_trusted_is_no_stranger_that_could_be_sent_away() {
        let places = Places::new();
        let (mut place, _) = places.arrive(0);
        place.trusted();
        let crowd: Vec<_> = (1..=STRANGERS_MAX + 5)
            .map(|at| places.arrive(at))
            .collect();
        assert_eq!(crowd.last().unwrap().1.as_ref().unwrap().connection, 5);
    }
}
