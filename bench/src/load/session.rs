//! What does a protocol look like to the load generator?
//!
//! Sans-io, as the engine's own core: bytes in, events out. [`Sessions`] make a [`Session`]
//! for each connection; a slot is the load generator's name for one request in flight.

use std::net::SocketAddr;

use bytes::BytesMut;

use super::{Consistency, Op};

/// What an answer says about its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done as asked.
    Done,
    /// Not done, or not known to be; with a short reason that groups alike failures.
    Failed(String),
}

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The greeting is over: requests may be sent.
    Ready,
    /// An answer to this slot's request.
    Answer {
        /// As given to [`Session::put`] or [`Session::get`].
        slot: u32,
        /// What it says.
        verdict: Verdict,
    },
    /// The server will take no more requests on this connection.
    Close,
}

/// A protocol: what makes sessions.
pub trait Sessions {
    /// One connection's state.
    type Session: Session;

    /// State for a new connection to `host`.
    fn session(&self, host: SocketAddr) -> Self::Session;

    /// How many connections carry `in_flight` requests; slot `i` uses connection `i` mod that.
    fn connections(&self, in_flight: usize) -> usize;
}

/// One connection's state. Errors are final for the connection.
pub trait Session {
    /// Appends what is sent first; `true` if requests may follow at once, without [`Event::Ready`].
    fn greet(&mut self, out: &mut BytesMut) -> bool;
    /// Appends a whole request that writes `value` under `key`.
    fn put(&mut self, slot: u32, key: &[u8], value: &[u8], out: &mut BytesMut);
    /// Appends a whole request that reads `key`.
    fn get(&mut self, slot: u32, key: &[u8], consistency: Consistency, out: &mut BytesMut);
    /// Where to receive the next bytes; never empty.
    fn space(&mut self) -> &mut [u8];
    /// The first `n` bytes of [`Self::space`] were filled.
    fn received(&mut self, n: usize);
    /// The next event, `None` when more bytes are needed. Requests were all of kind `op`. May
    /// append what the protocol itself has to send.
    fn next(&mut self, op: Op, out: &mut BytesMut) -> Result<Option<Event>, String>;
}
