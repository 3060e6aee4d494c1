//! HTTP/1.1 to the app: our own small client, because bytes are sacred (promise 4) and a general client lower-cases
//! names; and because it is cheaper by a tenth of a request's CPU.
//!
//! `write` puts a request on the wire, `head` and `chunked` read an answer's bytes (pure), `read` brings them
//! together with the socket, `stream` is the sending half of a streamed request.

pub(crate) mod chunked;
mod head;
pub(super) mod parsers;
mod read;
mod stream;
mod write;

use bytes::BytesMut;

use super::connect::Stream;

pub(super) use head::Asked;
pub(super) use read::{Body, Failure, Reader};
pub(super) use stream::Writer;
pub(super) use write::{Length, encode};

/// An open HTTP/1 connection with its buffers, which live as long as it does.
#[derive(Debug)]
pub(super) struct Conn {
    stream: Stream,
    /// Received and not yet taken.
    input: BytesMut,
    /// The head (and a small body) of the request under way.
    output: Vec<u8>,
}

impl Conn {
    pub fn new(stream: Stream) -> Self {
        Self { stream, input: BytesMut::new(), output: Vec::new() }
    }

    /// The buffer to encode a request into; empty.
    pub fn output(&mut self) -> &mut Vec<u8> {
        self.output.clear();
        &mut self.output
    }

    /// Whether it can carry another request: open, and nothing has arrived unasked.
    pub fn is_quiet(&mut self) -> bool {
        self.input.is_empty() && self.stream.is_quiet()
    }
}
