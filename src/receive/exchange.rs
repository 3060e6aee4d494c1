//! The seam between `edge` and `receive`: one request being answered, whatever carries it.

use bytes::Bytes;

use crate::message::{Answer, Head, Headers};
use crate::reason::Reason;

/// One request under way and its answer. `edge` implements it over a pingora session; unit tests in memory.
///
/// Exactly one of [`answer`](Self::answer) or [`start`](Self::start) (then `write`… and `finish`) is called.
/// Deadlines and framing are the implementation's; the pipeline only says what happens.
#[allow(async_fn_in_trait)] // only ever used with concrete types inside this crate
pub trait Exchange: Send {
    /// What was asked; the checks of the edge have passed.
    fn head(&self) -> &Head;

    /// The declared `Content-Length`, if there is one.
    fn content_length(&self) -> Option<u64>;

    /// The next piece of the body, `None` at its end. The first call answers `Expect: 100-continue`.
    fn read(&mut self) -> impl Future<Output = Result<Option<Bytes>, Reason>> + Send;

    /// Sends a whole answer.
    fn answer(&mut self, answer: Answer) -> impl Future<Output = Result<(), SenderGone>> + Send;

    /// Starts a streamed answer (an app's). Hop-by-hop headers are already gone from `headers`. After
    /// [`NotStarted::Unsendable`] nothing was sent, and another answer still can be.
    fn start(
        &mut self,
        status: u16,
        headers: &Headers,
    ) -> impl Future<Output = Result<(), NotStarted>> + Send;

    /// Sends a piece of a streamed answer's body.
    fn write(&mut self, chunk: Bytes) -> impl Future<Output = Result<(), SenderGone>> + Send;

    /// Ends a streamed answer.
    fn finish(&mut self) -> impl Future<Output = Result<(), SenderGone>> + Send;

    /// Breaks a streamed answer off, so that the sender can't take it for complete.
    fn abort(&mut self);
}

/// The sender closed its side before the answer was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sender has gone")]
pub struct SenderGone;

/// Why a streamed answer was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotStarted {
    #[error(transparent)]
    Gone(#[from] SenderGone),
    /// The head can't be said in HTTP (its lengths differ, a value holds control bytes, …).
    #[error("the answer's head can't be passed on")]
    Unsendable,
}
