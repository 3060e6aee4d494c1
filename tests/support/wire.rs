//! HTTP/1.1 by hand, for both sides of the wire: what stands on the socket is what the test sees.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of a message's head, without the empty line's second half.
const HEAD_LIMIT: usize = 1 << 20;

/// Reads from a stream and keeps what came too early.
pub struct Reader<S> {
    pub stream: S,
    buffer: Vec<u8>,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    async fn more(&mut self) -> Result<usize> {
        self.stream.read_buf(&mut self.buffer).await
    }

    /// A head up to and with its empty line; `None` if the other side closed before its first byte.
    pub async fn head(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                return Ok(Some(self.buffer.drain(..end + 4).collect()));
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(Error::new(ErrorKind::InvalidData, "the head does not end"));
            }
            if self.more().await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(Error::new(ErrorKind::UnexpectedEof, "closed within a head")),
                };
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < length {
            if self.more().await? == 0 {
                return Err(Error::new(ErrorKind::UnexpectedEof, "closed within a body"));
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn line(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line = self.buffer.drain(..end + 2).take(end).collect();
                return Ok(line);
            }
            if self.more().await? == 0 {
                return Err(Error::new(ErrorKind::UnexpectedEof, "closed within a chunk"));
            }
        }
    }

    pub async fn body(&mut self, framing: Framing) -> Result<Vec<u8>> {
        match framing {
            Framing::None => Ok(Vec::new()),
            Framing::Length(length) => self.exactly(length).await,
            Framing::UntilClose => {
                self.stream.read_to_end(&mut self.buffer).await?;
                Ok(std::mem::take(&mut self.buffer))
            }
            Framing::Chunked => {
                let mut body = Vec::new();
                loop {
                    let line = self.line().await?;
                    let size = std::str::from_utf8(&line)
                        .ok()
                        .and_then(|text| usize::from_str_radix(text.split(';').next()?.trim(), 16).ok())
                        .ok_or_else(|| Error::new(ErrorKind::InvalidData, "bad chunk size"))?;
                    if size == 0 {
                        while !self.line().await?.is_empty() {}
                        return Ok(body);
                    }
                    body.extend(self.exactly(size).await?);
                    self.line().await?;
                }
            }
        }
    }

    /// What came after the last message that was read, and the stream.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.buffer)
    }
}

/// The first line and the fields of a head, exactly as on the wire.
pub fn parse_head(head: &[u8]) -> (String, Vec<(String, String)>) {
    // Latin-1, so that every byte survives.
    let text: String = head.iter().map(|byte| *byte as char).collect();
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let fields = lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
        })
        .collect();
    (first, fields)
}

pub fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// How the body of a message with these fields ends; `otherwise` if they say nothing.
pub fn framing(fields: &[(String, String)], otherwise: Framing) -> Framing {
    match field(fields, "transfer-encoding") {
        Some(coding) if coding.eq_ignore_ascii_case("chunked") => Framing::Chunked,
        _ => match field(fields, "content-length").and_then(|length| length.parse().ok()) {
            Some(length) => Framing::Length(length),
            None => otherwise,
        },
    }
}
