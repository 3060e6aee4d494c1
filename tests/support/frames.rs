//! HTTP/2 by hand: frames as an attacker would send them (RFC 9113 section 4).

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::sender::{Duplex, connect_tls};
use super::{Gateway, PATIENCE};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data = 0,
    Headers = 1,
    Priority = 2,
    RstStream = 3,
    Settings = 4,
    Ping = 6,
    GoAway = 7,
    WindowUpdate = 8,
    Continuation = 9,
}

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let head = [&length[1..], &[kind as u8, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// A setting, as a payload of `SETTINGS`.
pub fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// A header block: `:method POST`, `:scheme https`, this path, `:authority localhost`, and these fields, all literal.
pub fn block(path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let mut block = vec![0x83, 0x87, 0x04];
    block.extend(text(path));
    block.push(0x01);
    block.extend(text("localhost"));
    for (name, value) in fields {
        block.push(0x00);
        block.extend(text(name));
        block.extend(text(value));
    }
    block
}

/// A connection after its preface, with these settings of ours.
pub struct Raw {
    stream: Box<dyn Duplex>,
}

impl Raw {
    pub async fn connect(gateway: &Gateway, settings: &[u8]) -> Self {
        let stream =
            connect_tls(gateway.tls(), "localhost", &["h2"]).await.expect("the listener speaks HTTP/2");
        let mut raw = Self { stream };
        raw.write(&[PREFACE, &frame(Kind::Settings, 0, 0, settings)].concat()).await.expect("written");
        raw
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        timeout(PATIENCE, written).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes again and again what `make` makes, until the gateway hangs up, no longer takes anything, or it was done
    /// `times` times. Says how often it was.
    pub async fn flood(&mut self, times: usize, mut make: impl FnMut(usize) -> Vec<u8>) -> usize {
        for time in 0..times {
            let bytes = make(time);
            match timeout(Duration::from_secs(1), self.stream.write_all(&bytes)).await {
                Ok(Ok(())) => {}
                // Not taken: what we don't read holds up what we write.
                Ok(Err(_)) | Err(_) => return time,
            }
        }
        let _ = timeout(Duration::from_secs(1), self.stream.flush()).await;
        times
    }

    /// Reads until the gateway closes (`true`) or is silent for `patience`.
    pub async fn closes_within(&mut self, patience: Duration) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match timeout(patience, self.stream.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => return true,
                Ok(Ok(_)) => {}
                Err(_) => return false,
            }
        }
    }
}
