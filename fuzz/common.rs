//! Requests and rules for the targets that verify.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use tidegate::clock::Timestamp;
use tidegate::message::{Head, Headers, Method, PathParams, Request, Scheme, Version};
use tidegate::providers::Pack;
use tidegate::secret::Secret;
use tidegate::verify::{KeySource, Resolver};

pub const NOW: Timestamp = Timestamp::from_secs(1_764_000_000);

pub fn request(query: &str, headers: Headers, body: &[u8]) -> Request {
    let query: String = query.chars().filter(char::is_ascii_graphic).collect();
    let head = Head {
        method: Method::POST,
        target: format!("/in?{query}"),
        authority: "hooks.example.com".into(),
        asked_authority: None,
        scheme: Scheme::Https,
        version: Version::Http11,
        headers,
        peer: ([192, 0, 2, 1], 1).into(),
        client: IpAddr::from([192, 0, 2, 1]),
        local: ([192, 0, 2, 2], 443).into(),
        received_at: NOW,
    };
    Request { head, params: PathParams::default(), body: Bytes::copy_from_slice(body) }
}

#[allow(dead_code)] // not every target has rules
/// Every reference means the same long random text; nothing is fetched.
pub struct Fixed;

impl Resolver for Fixed {
    fn secret(&self, _reference: &str) -> Result<Secret, String> {
        Ok(Secret::new(b"0e5f4a1b6c7d8e9f0a1b2c3d4e5f6071".to_vec()))
    }
    fn text(&self, reference: &str) -> Result<String, String> {
        Ok(reference.to_owned())
    }
    fn jwks(&self, _url: &str) -> Result<Arc<dyn KeySource>, String> {
        Err("no keys here".into())
    }
    fn pack(&self, name: &str) -> Result<Arc<Pack>, String> {
        tidegate::providers::find(name)
    }
}
