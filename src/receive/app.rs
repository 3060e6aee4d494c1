//! What forwarding needs of `upstream`, as a narrow seam: so that the modes are tested against an app in memory.

use std::time::Duration;

use bytes::Bytes;

use crate::message::Headers;
use crate::upstream::{Answering, BodyWriter, Incoming, Outgoing, Upstream, UpstreamError};

pub(super) trait App: Send + Sync {
    type Answer: AppAnswer;
    type Body: AppBody;
    type Pending: AppPending<Answer = Self::Answer>;

    fn send(
        &self,
        head: &Outgoing,
        body: Bytes,
    ) -> impl Future<Output = Result<Self::Answer, UpstreamError>> + Send;

    fn start(
        &self,
        head: &Outgoing,
        length: Option<u64>,
    ) -> impl Future<Output = Result<(Self::Body, Self::Pending), UpstreamError>> + Send;
}

/// See [`Incoming`].
pub(super) trait AppAnswer: Send {
    fn status(&self) -> u16;
    fn headers(&self) -> &Headers;
    fn extend(&mut self, by: Duration);
    fn chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>, UpstreamError>> + Send;
}

/// See [`BodyWriter`].
pub(super) trait AppBody: Send {
    fn write(&mut self, chunk: Bytes) -> impl Future<Output = Result<(), UpstreamError>> + Send;
    fn finish(&mut self) -> impl Future<Output = Result<(), UpstreamError>> + Send;
}

/// See [`Answering`].
pub(super) trait AppPending: Send {
    type Answer;
    fn head(self) -> impl Future<Output = Result<Self::Answer, UpstreamError>> + Send;
}

impl App for Upstream {
    type Answer = Incoming;
    type Body = BodyWriter;
    type Pending = Answering;

    async fn send(&self, head: &Outgoing, body: Bytes) -> Result<Incoming, UpstreamError> {
        Upstream::send(self, head, body).await
    }
    async fn start(
        &self,
        head: &Outgoing,
        length: Option<u64>,
    ) -> Result<(BodyWriter, Answering), UpstreamError> {
        Upstream::start(self, head, length).await
    }
}

impl AppAnswer for Incoming {
    fn status(&self) -> u16 {
        self.status
    }
    fn headers(&self) -> &Headers {
        &self.headers
    }
    fn extend(&mut self, by: Duration) {
        Incoming::extend(self, by);
    }
    async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        Incoming::chunk(self).await
    }
}

impl AppBody for BodyWriter {
    async fn write(&mut self, chunk: Bytes) -> Result<(), UpstreamError> {
        BodyWriter::write(self, chunk).await
    }
    async fn finish(&mut self) -> Result<(), UpstreamError> {
        BodyWriter::finish(self).await
    }
}

impl AppPending for Answering {
    type Answer = Incoming;
    async fn head(self) -> Result<Incoming, UpstreamError> {
        Answering::head(self).await
    }
}
