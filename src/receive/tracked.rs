//! An exchange that knows how far its answer is: so that whatever goes wrong, the sender gets one whole answer or one
//! that visibly broke off.

use std::time::Instant;

use bytes::Bytes;

use crate::message::{Answer, Head, Headers};
use crate::reason::Reason;

use super::exchange::{Exchange, NotStarted, SenderGone};
use super::refused::Refused;

pub(super) struct Tracked<'e, E> {
    inner: &'e mut E,
    progress: Progress,
    /// The status that was sent, and when its answer began.
    begun: Option<(u16, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Unanswered,
    /// `start` was called; `finish` was not.
    Streaming,
    /// Whole.
    Over,
    /// The sender can tell that something is missing.
    BrokenOff,
}

impl<'e, E: Exchange> Tracked<'e, E> {
    pub fn new(inner: &'e mut E) -> Self {
        Self { inner, progress: Progress::Unanswered, begun: None }
    }

    /// Refuses if nothing was answered yet, breaks off an answer that is under way.
    pub async fn refuse(&mut self, refused: &Refused) {
        match self.progress {
            Progress::Unanswered => {
                // A sender that has gone needs no answer.
                let _ = self.answer(refused.answer()).await;
            }
            Progress::Streaming => self.abort(),
            Progress::Over | Progress::BrokenOff => {}
        }
    }

    pub fn status(&self) -> Option<u16> {
        self.begun.map(|(status, _)| status)
    }
    /// Whether the answer was begun and not brought to its end.
    pub fn broke_off(&self) -> bool {
        self.progress == Progress::BrokenOff
    }
    pub fn answered_at(&self) -> Option<Instant> {
        self.begun.map(|(_, at)| at)
    }

    fn begin(&mut self, status: u16, progress: Progress) {
        self.progress = progress;
        self.begun = Some((status, Instant::now()));
    }
}

impl<E: Exchange> Exchange for Tracked<'_, E> {
    fn head(&self) -> &Head {
        self.inner.head()
    }
    fn content_length(&self) -> Option<u64> {
        self.inner.content_length()
    }
    async fn read(&mut self) -> Result<Option<Bytes>, Reason> {
        self.inner.read().await
    }
    async fn answer(&mut self, answer: Answer) -> Result<(), SenderGone> {
        self.begin(answer.status, Progress::Over);
        self.inner.answer(answer).await
    }
    async fn start(&mut self, status: u16, headers: &Headers) -> Result<(), NotStarted> {
        self.begin(status, Progress::Streaming);
        let started = self.inner.start(status, headers).await;
        if started == Err(NotStarted::Unsendable) {
            (self.progress, self.begun) = (Progress::Unanswered, None);
        }
        started
    }
    async fn write(&mut self, chunk: Bytes) -> Result<(), SenderGone> {
        self.inner.write(chunk).await
    }
    async fn finish(&mut self) -> Result<(), SenderGone> {
        self.progress = Progress::Over;
        self.inner.finish().await
    }
    fn abort(&mut self) {
        self.progress = Progress::BrokenOff;
        self.inner.abort();
    }
}
