//! What the tests of this module share: an exchange, a buffer and an app in memory.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Task, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

use super::app::{App, AppAnswer, AppBody, AppPending};
use super::exchange::{Exchange, SenderGone};
use super::idempotency::Identity;
use super::{Context, Intake};
use crate::buffer::*;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::message::{Answer, Head, Headers, Method, Scheme, Version};
use crate::reason::Reason;
use crate::telemetry::Metrics;
use crate::upstream::{Outgoing, UpstreamError};

/// Runs what never has to wait.
pub fn now_or_never<F: Future>(work: F) -> F::Output {
    match pin!(work).poll(&mut Task::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

pub(super) fn identity(key: &str) -> Identity {
    Identity {
        key: ClaimKey::new("r", key.as_bytes()),
        readable: key.into(),
        window: Duration::from_secs(3600),
    }
}

pub fn head(method: Method, target: &str) -> Head {
    Head {
        method,
        target: target.into(),
        authority: "hooks.example.com".into(),
        scheme: Scheme::Https,
        version: Version::Http11,
        headers: Headers::default(),
        peer: ([192, 0, 2, 1], 1).into(),
        client: [192, 0, 2, 1].into(),
        local: ([127, 0, 0, 1], 2).into(),
        received_at: Timestamp::from_secs(1_800_000_000),
    }
}

pub fn event() -> Event {
    let head = head(Method::POST, "/");
    Event {
        id: EventId::new(head.received_at),
        route: "r".into(),
        received_at: head.received_at,
        method: head.method,
        target: head.target,
        authority: head.authority,
        scheme: head.scheme,
        headers: head.headers,
        body: Bytes::from_static(b"{}"),
        source: head.client,
        verified: "test".into(),
        idempotency_key: None,
        event_type: None,
    }
}

pub fn outgoing() -> Outgoing {
    Outgoing { method: Method::POST, target: "/".into(), headers: Headers::default() }
}

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
    async fn start(&mut self, status: u16, headers: &Headers) -> Result<(), SenderGone> {
        assert!(self.answer.is_none() && self.started.is_none(), "answered twice");
        self.reached()?;
        self.started = Some((status, headers.clone()));
        Ok(())
    }
    async fn write(&mut self, chunk: Bytes) -> Result<(), SenderGone> {
        assert!(self.started.is_some() && !self.finished && !self.aborted);
        self.reached()?;
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

/// Events and claims in memory.
#[derive(Debug, Default)]
pub struct FakeBuffer {
    state: Mutex<State>,
    pub lookups: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    stored: Vec<Event>,
    claims: HashMap<ClaimKey, Claimed>,
    trouble: Trouble,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trouble {
    #[default]
    None,
    Full,
    Failed,
}

impl FakeBuffer {
    pub fn full(&self) {
        self.state.lock().trouble = Trouble::Full;
    }
    pub fn fail(&self) {
        self.state.lock().trouble = Trouble::Failed;
    }
    pub fn stored(&self) -> Vec<EventId> {
        self.state.lock().stored.iter().map(|event| event.id).collect()
    }
    pub fn claims(&self) -> usize {
        self.state.lock().claims.len()
    }
}

#[async_trait]
impl Buffer for FakeBuffer {
    async fn append(
        &self,
        event: Event,
        _: &[DestinationName],
        claim: Option<NewClaim>,
    ) -> Result<Appended, AppendError> {
        let mut state = self.state.lock();
        match state.trouble {
            Trouble::None => {}
            Trouble::Full => return Err(AppendError::Full("test".into())),
            Trouble::Failed => return Err(AppendError::Unavailable("test".into())),
        }
        if let Some(claim) = claim {
            if let Some(first) = state.claims.get(&claim.key) {
                return Ok(Appended::Duplicate(first.clone()));
            }
            let expires_at = event.received_at.saturating_add(claim.window);
            state.claims.insert(claim.key, Claimed { event_id: event.id, answer: claim.answer, expires_at });
        }
        state.stored.push(event);
        Ok(Appended::Stored)
    }
    async fn claimed(&self, key: ClaimKey) -> Result<Option<Claimed>, BufferError> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let state = self.state.lock();
        match state.trouble {
            Trouble::Failed => Err(BufferError::Failed("test".into())),
            _ => Ok(state.claims.get(&key).cloned()),
        }
    }
    fn claim(&self, claim: NewClaim, event_id: EventId) -> Result<(), BufferError> {
        let claimed = Claimed { event_id, answer: claim.answer, expires_at: Timestamp(u64::MAX) };
        self.state.lock().claims.insert(claim.key, claimed);
        Ok(())
    }
    async fn lease(&self, _: &DestinationName, _: usize, _: Timestamp) -> Result<Vec<Leased>, BufferError> {
        Ok(Vec::new())
    }
    async fn next_due(&self, _: &DestinationName) -> Result<Option<Timestamp>, BufferError> {
        Ok(None)
    }
    fn arrivals(&self, _: &DestinationName) -> Arc<Notify> {
        Arc::default()
    }
    fn settle(&self, _: Settlement) -> Result<(), BufferError> {
        Ok(())
    }
    async fn get(&self, _: EventId) -> Result<Option<(Event, Vec<Delivery>)>, BufferError> {
        Ok(None)
    }
    async fn list(&self, _: EventFilter, _: Option<EventId>, _: usize) -> Result<Page, BufferError> {
        Ok(Page { events: Vec::new(), next: None })
    }
    async fn replay(&self, _: Selection) -> Result<u64, BufferError> {
        Ok(0)
    }
    async fn purge(&self, _: Selection) -> Result<u64, BufferError> {
        Ok(0)
    }
    async fn stats(&self) -> Result<Stats, BufferError> {
        Ok(Stats::default())
    }
    fn admission(&self) -> Admission {
        match self.state.lock().trouble {
            Trouble::None => Admission::Open,
            Trouble::Full => Admission::Full("test".into()),
            Trouble::Failed => Admission::Failed("test".into()),
        }
    }
    async fn close(&self) -> Result<(), BufferError> {
        Ok(())
    }
}

/// An app that does what its script says, one line a request, and the last line for ever.
#[derive(Debug, Default)]
pub struct FakeApp {
    script: Mutex<VecDeque<Script>>,
    /// Requests that reached it.
    pub requests: AtomicUsize,
    /// Whole 2xx answers that it gave.
    pub successes: Arc<AtomicUsize>,
    /// What came as a streamed body, and whether it was ended.
    pub received: Arc<Mutex<(Vec<u8>, bool)>>,
}

#[derive(Clone, Debug)]
pub struct Script {
    /// How often it lets others go first, before its head and before each piece.
    pub pauses: usize,
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
        Self { pauses: 0, answer }
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
        Self { pauses: 0, answer }
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

    async fn send(&self, _: &Outgoing, _: Bytes) -> Result<FakeAnswer, UpstreamError> {
        let script = self.next();
        pause(script.pauses).await;
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

/// What a request runs in.
pub struct Scene<A> {
    pub upstreams: HashMap<DestinationName, Arc<A>>,
    pub app: Arc<A>,
    pub buffer: FakeBuffer,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub intake: Intake,
}

impl<A> Scene<A> {
    pub fn new(app: A) -> Self {
        let app = Arc::new(app);
        let metrics = Arc::new(Metrics::default());
        Self {
            upstreams: HashMap::from([(DestinationName::new("r", "d"), app.clone())]),
            app,
            buffer: FakeBuffer::default(),
            intake: Intake::new(metrics.clone()),
            metrics,
            clock: Clock::Manual(ManualClock::at(Timestamp::from_secs(1_800_000_000))),
        }
    }

    pub(super) fn context(&self) -> Context<'_, A> {
        Context {
            upstreams: &self.upstreams,
            buffer: &self.buffer,
            metrics: &self.metrics,
            clock: &self.clock,
            intake: &self.intake,
        }
    }
}
