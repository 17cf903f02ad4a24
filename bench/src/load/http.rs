//! How does HTTP/1.1 look to the load generator? One connection for each request in flight.
//!
//! Pipelining would be cheaper and is not what Consul's clients do.

use std::net::SocketAddr;

use bytes::BytesMut;

use super::session::{Event, Session, Sessions, Verdict};
use super::{Consistency, Op};
use crate::http::{Response, ResponseReader};

/// How one product is spoken to over HTTP/1.1.
pub trait Dialect {
    /// Appends a whole request that writes `value` under `key`.
    fn put(&self, host: SocketAddr, key: &[u8], value: &[u8], out: &mut BytesMut);
    /// Appends a whole request that reads `key`.
    fn get(&self, host: SocketAddr, key: &[u8], consistency: Consistency, out: &mut BytesMut);
    /// Judges the answer to a request of kind `op`.
    fn judge(&self, op: Op, response: &Response) -> Verdict;
}

/// HTTP/1.1 in a product's dialect.
#[derive(Clone, Copy, Debug, Default)]
pub struct Http<D>(pub D);

impl<D: Dialect + Copy> Sessions for Http<D> {
    type Session = HttpSession<D>;

    fn session(&self, host: SocketAddr) -> HttpSession<D> {
        HttpSession {
            dialect: self.0,
            host,
            reader: ResponseReader::default(),
            slot: None,
            closing: false,
        }
    }

    fn connections(&self, in_flight: usize) -> usize {
        in_flight
    }
}

/// One keep-alive connection.
pub struct HttpSession<D> {
    dialect: D,
    host: SocketAddr,
    reader: ResponseReader,
    slot: Option<u32>,
    closing: bool,
}

impl<D: Dialect> Session for HttpSession<D> {
    fn greet(&mut self, _: &mut BytesMut) -> bool {
        true
    }

    fn put(&mut self, slot: u32, key: &[u8], value: &[u8], out: &mut BytesMut) {
        self.slot = Some(slot);
        self.dialect.put(self.host, key, value, out);
    }

    fn get(&mut self, slot: u32, key: &[u8], consistency: Consistency, out: &mut BytesMut) {
        self.slot = Some(slot);
        self.dialect.get(self.host, key, consistency, out);
    }

    fn space(&mut self) -> &mut [u8] {
        self.reader.space()
    }

    fn received(&mut self, n: usize) {
        self.reader.received(n);
    }

    fn next(&mut self, op: Op, _: &mut BytesMut) -> Result<Option<Event>, String> {
        if self.closing {
            return Ok(Some(Event::Close));
        }
        let Some(response) = self.reader.next_response().map_err(|e| e.to_string())? else {
            return Ok(None);
        };
        let slot = self.slot.take().ok_or("an answer to no request")?;
        let verdict = self.dialect.judge(op, &response);
        self.closing = response.close;
        self.reader.recycle(response.body);
        Ok(Some(Event::Answer { slot, verdict }))
    }
}
