//! An app in memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::message::Headers;
use crate::receive::app::{App, AppAnswer, AppBody, AppPending};
use crate::upstream::{Outgoing, UpstreamError};

/// An app that does what its script says, one line a request, and the last line for ever.
#[derive(Debug, Default)]
pub struct FakeApp {
    script: Mutex<VecDeque<Script>>,
    /// Requests that reached it.
    pub requests: AtomicUsize,
    /// What each request said, beside its body.
    pub heads: Mutex<Vec<Outgoing>>,
    /// Whole 2xx answers that it gave.
    pub successes: Arc<AtomicUsize>,
    /// Milliseconds that it was given more for its answers.
    pub extended: Arc<AtomicUsize>,
    /// What came as a streamed body, and whether it was ended.
    pub received: Arc<Mutex<(Vec<u8>, bool)>>,
}

#[derive(Clone, Debug)]
pub struct Script {
    /// How often it lets others go first, before its head and before each piece.
    pub pauses: usize,
    /// How long it takes for its head.
    pub delay: Duration,
    pub answer: Says,
}

#[derive(Clone, Debug)]
pub enum Says {
    Nothing,
    Timeout,
    Panic,
    Answer {
        status: u16,
        headers: Vec<(&'static str, &'static str)>,
        body: Vec<&'static str>,
        breaks: bool,
        early: bool,
    },
    /// 101, and then everything back.
    Echo,
}

impl Script {
    pub fn answers(status: u16, body: &[&'static str]) -> Self {
        let body = body.to_vec();
        let answer = Says::Answer { status, headers: Vec::new(), body, breaks: false, early: false };
        Self::says(answer)
    }
    pub fn with(mut self, header: (&'static str, &'static str)) -> Self {
        if let Says::Answer { headers, .. } = &mut self.answer {
            headers.push(header);
        }
        self
    }
    pub fn then_breaks(mut self) -> Self {
        if let Says::Answer { breaks, .. } = &mut self.answer {
            *breaks = true;
        }
        self
    }
    pub fn before_the_body(mut self) -> Self {
        if let Says::Answer { early, .. } = &mut self.answer {
            *early = true;
        }
        self
    }
    pub fn says(answer: Says) -> Self {
        Self { pauses: 0, delay: Duration::ZERO, answer }
    }
    pub fn takes(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
    pub fn after(mut self, pauses: usize) -> Self {
        self.pauses = pauses;
        self
    }
}

impl FakeApp {
    pub fn new(script: impl IntoIterator<Item = Script>) -> Self {
        Self { script: Mutex::new(script.into_iter().collect()), ..Self::default() }
    }
    fn next(&self) -> Script {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let mut script = self.script.lock();
        match script.len() {
            0 => Script::answers(200, &["ok"]),
            1 => script[0].clone(),
            _ => script.pop_front().unwrap(),
        }
    }
    fn answer(&self, script: Script) -> Result<FakeAnswer, UpstreamError> {
        let answer = |status, headers: Headers, pieces| FakeAnswer {
            status,
            headers,
            pieces,
            pauses: script.pauses,
            paused: 0,
            breaks: false,
            successes: self.successes.clone(),
            extended: self.extended.clone(),
        };
        match script.answer {
            Says::Nothing => Err(UpstreamError::Connect("refused".into())),
            Says::Timeout => Err(UpstreamError::Timeout("head")),
            Says::Panic => panic!("the app panics"),
            Says::Answer { status, headers, body, breaks, .. } => {
                let headers = headers.into_iter().map(|(name, value)| (name, value.as_bytes())).collect();
                let pieces = body.into_iter().map(Bytes::from).collect();
                Ok(FakeAnswer { breaks, ..answer(status, headers, Pieces::Given(pieces)) })
            }
            Says::Echo => unreachable!("only for streams"),
        }
    }
}

#[derive(Debug)]
pub struct FakeAnswer {
    status: u16,
    headers: Headers,
    pieces: Pieces,
    pauses: usize,
    paused: usize,
    breaks: bool,
    successes: Arc<AtomicUsize>,
    extended: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Pieces {
    Given(VecDeque<Bytes>),
    Echoed(mpsc::UnboundedReceiver<Bytes>),
}

impl App for FakeApp {
    type Answer = FakeAnswer;
    type Body = FakeBody;
    type Pending = FakePending;

    async fn send(&self, head: &Outgoing, _: Bytes) -> Result<FakeAnswer, UpstreamError> {
        self.heads.lock().push(head.clone());
        let script = self.next();
        pause(script.pauses).await;
        if script.delay > Duration::ZERO {
            tokio::time::sleep(script.delay).await;
        }
        self.answer(script)
    }

    async fn start(&self, _: &Outgoing, _: Option<u64>) -> Result<(FakeBody, FakePending), UpstreamError> {
        let script = self.next();
        let (ended, when_ended) = watch::channel(false);
        let (echo, echoed) = mpsc::unbounded_channel();
        let wait = match &script.answer {
            Says::Answer { early: false, .. } => Some(when_ended),
            _ => None,
        };
        let answer = match script.answer {
            Says::Echo => Ok(FakeAnswer {
                status: 101,
                headers: [("Upgrade", &b"websocket"[..]), ("Connection", b"Upgrade")].into_iter().collect(),
                pieces: Pieces::Echoed(echoed),
                pauses: 0,
                paused: 0,
                breaks: false,
                successes: self.successes.clone(),
                extended: self.extended.clone(),
            }),
            _ => self.answer(script),
        };
        let body = FakeBody { received: self.received.clone(), ended, echo: Some(echo) };
        Ok((body, FakePending { wait, answer }))
    }
}

impl AppAnswer for FakeAnswer {
    fn status(&self) -> u16 {
        self.status
    }
    fn headers(&self) -> &Headers {
        &self.headers
    }
    fn extend(&mut self, by: Duration) {
        self.extended.fetch_add(by.as_millis() as usize, Ordering::SeqCst);
    }
    async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        // Progress is kept in `self`, so that this is safe to cancel.
        while self.paused < self.pauses {
            self.paused += 1;
            tokio::task::yield_now().await;
        }
        let next = match &mut self.pieces {
            Pieces::Given(pieces) => pieces.pop_front(),
            Pieces::Echoed(pieces) => pieces.recv().await,
        };
        self.paused = 0;
        match next {
            None if self.breaks => Err(UpstreamError::Broken("test".into())),
            None => {
                if (200..300).contains(&self.status) {
                    self.successes.fetch_add(1, Ordering::SeqCst);
                }
                Ok(None)
            }
            piece => Ok(piece),
        }
    }
}

#[derive(Debug)]
pub struct FakeBody {
    received: Arc<Mutex<(Vec<u8>, bool)>>,
    ended: watch::Sender<bool>,
    echo: Option<mpsc::UnboundedSender<Bytes>>,
}

impl AppBody for FakeBody {
    async fn write(&mut self, chunk: Bytes) -> Result<(), UpstreamError> {
        self.received.lock().0.extend_from_slice(&chunk);
        if let Some(echo) = &self.echo {
            let _ = echo.send(chunk);
        }
        Ok(())
    }
    async fn finish(&mut self) -> Result<(), UpstreamError> {
        self.received.lock().1 = true;
        self.echo = None;
        self.ended.send_replace(true);
        Ok(())
    }
}

#[derive(Debug)]
pub struct FakePending {
    wait: Option<watch::Receiver<bool>>,
    answer: Result<FakeAnswer, UpstreamError>,
}

impl AppPending for FakePending {
    type Answer = FakeAnswer;
    async fn head(self) -> Result<FakeAnswer, UpstreamError> {
        if let Some(mut ended) = self.wait {
            let broken = |_| UpstreamError::Broken("the body ended early".into());
            ended.wait_for(|ended| *ended).await.map_err(broken)?;
        }
        self.answer
    }
}

async fn pause(times: usize) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}
