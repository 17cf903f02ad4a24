//! What may come in on a server port that is not a well-behaved peer?

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use wire::{Frame, FrameDecoder, FrameKind, Hello, RequestId, Role, ShardId, limits};

/// A raw connection to a server port.
pub struct Raw {
    pub stream: TcpStream,
    decoder: FrameDecoder,
}

impl Raw {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server port accepts");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a timeout can be set");
        stream.set_nodelay(true).expect("no delay can be set");
        Self {
            stream,
            decoder: FrameDecoder::new(limits::FRAME_BYTES_MAX),
        }
    }

    /// Connected and introduced in a role.
    pub fn introduced(address: SocketAddr, role: Role) -> Self {
        let mut raw = Self::connect(address);
        let hello = Hello {
            protocol: limits::PROTOCOL_VERSION,
            role,
            ..Hello::default()
        };
        raw.send(&frame(FrameKind::Hello, 0, hello.encode()));
        assert_eq!(
            raw.next().expect("an answer").expect("a frame").kind,
            FrameKind::Hello
        );
        raw
    }

    pub fn send(&mut self, frame: &Frame) {
        let mut out = BytesMut::new();
        frame.encode(&mut out);
        self.stream
            .write_all(&out)
            .expect("the connection takes a frame");
    }

    /// The next frame; `None` when the server closed.
    pub fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(io::Error::other)? {
                return Ok(Some(frame));
            }
            let read = match self.stream.read(self.decoder.space()) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
                other => other?,
            };
            if read == 0 {
                return Ok(None);
            }
            self.decoder.received(read);
        }
    }

    /// Reads until the server closes the connection.
    pub fn expect_close(&mut self) {
        while self
            .next()
            .expect("the server closes, and does not fall silent")
            .is_some()
        {}
    }
}

/// A frame for shard 0.
pub fn frame(kind: FrameKind, request: u64, payload: Bytes) -> Frame {
    Frame {
        kind,
        shard: ShardId(0),
        request: RequestId(request),
        flags: 0,
        payload,
        blob: Bytes::new(),
    }
}
