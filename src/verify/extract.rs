//! Values taken out of a request: `header:NAME`, `query:NAME`, `path:NAME`, `form:FIELD`, `body:/json/pointer`,
//! `body-hash`, several joined, first that is there.

use crate::message::Request;

/// A compiled extraction.
#[derive(Clone, Debug, PartialEq)]
pub struct Extract {}

impl Extract {
    /// Parses one source such as `header:X-GitHub-Delivery`. The error says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let _ = text;
        todo!("extract")
    }
    /// All of these, joined unambiguously; absent if any is absent.
    pub fn joined(parts: Vec<Extract>) -> Self {
        let _ = parts;
        todo!("extract")
    }
    /// The value, as text; `None` if it is not there (or is ambiguous: twice where it may be once).
    pub fn from(&self, request: &Request) -> Option<String> {
        let _ = request;
        todo!("extract")
    }
    /// The value as an idempotency key: like `from`, but falls back to the body's hash, so there always is one.
    pub fn key(&self, request: &Request) -> String {
        let _ = request;
        todo!("extract")
    }
}
