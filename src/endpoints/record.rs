//! An endpoint as the buffer keeps it: under the SHA-256 of what stands in its URL, as JSON.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Endpoint;
use crate::buffer::StoredEndpoint;
use crate::clock::Timestamp;
use crate::secret::Secret;

pub(super) type Hash = [u8; 32];

#[derive(Serialize, Deserialize)]
struct Written {
    route: String,
    client: String,
    /// As it is: what a signature is checked with can't be kept as a hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    created_at: Timestamp,
}

pub(super) fn hash(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}

pub(super) fn written(endpoint: &Endpoint) -> StoredEndpoint {
    let written = Written {
        route: endpoint.route.to_string(),
        client: endpoint.client.to_string(),
        // Ours are hex digits.
        secret: endpoint.secret.as_ref().map(|secret| String::from_utf8_lossy(secret.expose()).into_owned()),
        created_at: endpoint.created_at,
    };
    // A struct of texts and a number is always JSON.
    let value = serde_json::to_vec(&written).unwrap_or_default();
    StoredEndpoint { key: endpoint.hash, until: endpoint.until, value }
}

pub(super) fn read(stored: StoredEndpoint) -> Result<Endpoint, String> {
    let StoredEndpoint { key, until, value } = stored;
    let id = hex::encode(&key[..8]);
    // The error's own text could hold a part of the secret.
    let written: Written =
        serde_json::from_slice(&value).map_err(|_| format!("endpoint {id} can't be read"))?;
    Ok(Endpoint {
        route: written.route.into(),
        client: written.client.into(),
        id: id.into(),
        secret: written.secret.map(|secret| Secret::new(secret.into_bytes())),
        created_at: written.created_at,
        until,
        hash: key,
    })
}
