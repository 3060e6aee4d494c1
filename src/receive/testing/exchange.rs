//! An exchange in memory.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::head;
use crate::message::{Answer, Head, Headers, Method};
use crate::reason::Reason;
use crate::receive::exchange::{Exchange, NotStarted, SenderGone};

/// A request and what it was answered.
#[derive(Debug)]
pub struct InMemory {
    head: Head,
    declared: Option<u64>,
    pieces: VecDeque<Bytes>,
    end: End,
    /// What is sent once the connection is something else than HTTP, and whether silence follows it.
    after_switch: VecDeque<Bytes>,
    silence: bool,
    reads: usize,
    gone: bool,
    /// How long each write takes.
    slow: Duration,
    answer: Option<Answer>,
    pub started: Option<(u16, Headers)>,
    pub written: Vec<u8>,
    pub finished: bool,
    pub aborted: bool,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Complete,
    Breaks(Reason),
    Stalls,
    Panics,
}

impl InMemory {
    pub fn new(method: Method, target: &str) -> Self {
        Self {
            head: head(method, target),
            declared: None,
            pieces: VecDeque::new(),
            end: End::Complete,
            after_switch: VecDeque::new(),
            silence: false,
            reads: 0,
            gone: false,
            slow: Duration::ZERO,
            answer: None,
            started: None,
            written: Vec::new(),
            finished: false,
            aborted: false,
        }
    }
    pub fn post(target: &str) -> Self {
        Self::new(Method::POST, target)
    }
    pub fn headers(mut self, headers: &[(&str, &str)]) -> Self {
        self.head.headers = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        self
    }
    pub fn from(mut self, address: [u8; 4]) -> Self {
        self.head.client = address.into();
        self
    }
    pub fn declared(mut self, length: u64) -> Self {
        self.declared = Some(length);
        self
    }
    pub fn sends(mut self, pieces: impl IntoIterator<Item = Bytes>) -> Self {
        self.pieces = pieces.into_iter().collect();
        self
    }
    pub fn then_raw(mut self, pieces: impl IntoIterator<Item = Bytes>) -> Self {
        self.after_switch = pieces.into_iter().collect();
        self
    }
    pub fn then_silence(mut self) -> Self {
        self.silence = true;
        self
    }
    pub fn breaks(mut self, reason: Reason) -> Self {
        self.end = End::Breaks(reason);
        self
    }
    pub fn stalls(mut self) -> Self {
        self.end = End::Stalls;
        self
    }
    pub fn panics(mut self) -> Self {
        self.end = End::Panics;
        self
    }
    /// The sender left: nothing can be answered.
    pub fn gone(mut self) -> Self {
        self.gone = true;
        self
    }
    /// The sender takes so long for each piece of an answer.
    pub fn slow(mut self, each: Duration) -> Self {
        self.slow = each;
        self
    }
    pub fn reads(&self) -> usize {
        self.reads
    }
    pub fn answered(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }
    pub fn reason(&self) -> Option<&str> {
        let answer = self.answer.as_ref()?;
        answer.headers.iter().find(|(name, _)| *name == "tidegate-reason").map(|(_, value)| value.as_str())
    }
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.started.as_ref().and_then(|(_, headers)| headers.first(name))
    }

    fn reached(&self) -> Result<(), SenderGone> {
        if self.gone { Err(SenderGone) } else { Ok(()) }
    }
}

impl Exchange for InMemory {
    fn head(&self) -> &Head {
        &self.head
    }
    fn content_length(&self) -> Option<u64> {
        self.declared
    }
    async fn read(&mut self) -> Result<Option<Bytes>, Reason> {
        self.reads += 1;
        if matches!(self.started, Some((101, _))) {
            return match self.after_switch.pop_front() {
                None if self.silence => std::future::pending().await,
                piece => Ok(piece),
            };
        }
        match (self.pieces.pop_front(), self.end) {
            (Some(piece), _) => Ok(Some(piece)),
            (None, End::Complete) => Ok(None),
            (None, End::Breaks(reason)) => Err(reason),
            (None, End::Stalls) => std::future::pending().await,
            (None, End::Panics) => panic!("the exchange panics"),
        }
    }
    async fn answer(&mut self, answer: Answer) -> Result<(), SenderGone> {
        assert!(self.answer.is_none() && self.started.is_none(), "answered twice");
        self.reached()?;
        self.answer = Some(answer);
        Ok(())
    }
    async fn start(&mut self, status: u16, headers: &Headers) -> Result<(), NotStarted> {
        assert!(self.answer.is_none() && self.started.is_none(), "answered twice");
        // Stands for all that an edge can't say.
        if headers.contains("x-unsendable") {
            return Err(NotStarted::Unsendable);
        }
        self.reached()?;
        self.started = Some((status, headers.clone()));
        Ok(())
    }
    async fn write(&mut self, chunk: Bytes) -> Result<(), SenderGone> {
        assert!(self.started.is_some() && !self.finished && !self.aborted);
        self.reached()?;
        if self.slow > Duration::ZERO {
            tokio::time::sleep(self.slow).await;
        }
        self.written.extend_from_slice(&chunk);
        Ok(())
    }
    async fn finish(&mut self) -> Result<(), SenderGone> {
        assert!(self.started.is_some() && !self.finished && !self.aborted);
        self.finished = true;
        self.reached()
    }
    fn abort(&mut self) {
        self.aborted = true;
    }
}
