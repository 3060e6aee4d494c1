//! An answer of the app that is under way. What it says about the app is told to the breaker once, by whoever is first:
//! a head that says that the app can't, the end of the body, or its break. Not told, if the gateway itself stopped
//! listening: then nothing was learned.

use std::time::Duration;

use bytes::Bytes;

use crate::breaker::{self, Outcome, Permit};
use crate::message::Headers;
use crate::receive::app::AppAnswer;
use crate::upstream::UpstreamError;

pub(in crate::receive) struct UnderWay<Answer> {
    incoming: Answer,
    /// `None` once it was told.
    permit: Option<Permit>,
}

impl<Answer: AppAnswer> UnderWay<Answer> {
    /// `asked`: its `Retry-After`.
    pub fn new(incoming: Answer, asked: Option<Duration>, permit: Permit) -> Self {
        let mut new = Self { incoming, permit: Some(permit) };
        let status = new.status();
        match breaker::of_status(status, asked) {
            Outcome::Well => {}
            sick => new.tell(sick, &format!("status {status}")),
        }
        new
    }

    /// Nobody will read it to its end, for reasons that are not the app's: its head has to do.
    pub fn is_enough(&mut self) {
        self.tell(Outcome::Well, "");
    }

    fn tell(&mut self, outcome: Outcome, why: &str) {
        if let Some(permit) = self.permit.take() {
            permit.end(outcome, why);
        }
    }
}

impl<Answer: AppAnswer> AppAnswer for UnderWay<Answer> {
    fn status(&self) -> u16 {
        self.incoming.status()
    }
    fn headers(&self) -> &Headers {
        self.incoming.headers()
    }
    fn extend(&mut self, by: Duration) {
        self.incoming.extend(by);
    }
    async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let chunk = self.incoming.chunk().await;
        match &chunk {
            Ok(Some(_)) => {}
            Ok(None) => self.tell(Outcome::Well, ""),
            Err(error) => self.tell(breaker::of_error(error), &error.to_string()),
        }
        chunk
    }
}
