//! A refused request, and how it stands in its file: one line of JSON with everything but the body, then the body's
//! bytes. The line says how long the body is and what its SHA-256 is, so that half a file is never taken for a whole.

use std::io::{self, BufRead, BufReader, Read};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::buffer::EventId;
use crate::clock::Timestamp;
use crate::endpoints::{ENDPOINT, Endpoint, HIDDEN};
use crate::message::with_segment;
use crate::message::{Head, Headers, Method, PathParams, Request, Scheme, Version};
use crate::reason::Reason;
use crate::seal::{Keyring, Kind, NotOpened, SEALED};
use crate::verify::Refusal;

/// The longest first line that is read, in bytes: the edge's limits keep real ones far below it.
const MAX_LINE: u64 = 4 * 1024 * 1024;
/// What a file takes on disk at least, in bytes.
const BLOCK: u64 = 4096;

/// A request that was refused, with the reason.
#[derive(Clone, Debug)]
pub struct Item {
    pub id: EventId,
    /// The route that refused it.
    pub route: String,
    pub reason: Reason,
    /// What exactly was wrong; for operators.
    pub detail: String,
    pub received_at: Timestamp,
    pub expires_at: Timestamp,
    pub method: Method,
    /// Path and query as sent, but for what only a client's URL has.
    pub target: String,
    /// The id of the client's URL that was used.
    pub endpoint: Option<String>,
    pub authority: String,
    /// What a trusted hop said the sender asked for: schemes may sign it.
    pub asked_authority: Option<String>,
    pub scheme: Scheme,
    pub headers: Headers,
    /// The client's address.
    pub source: IpAddr,
    pub body: Bytes,
}

impl Item {
    pub(super) fn new(
        route: &str,
        request: &Request,
        endpoint: Option<&Endpoint>,
        refusal: &Refusal,
        keep: Duration,
    ) -> Self {
        let head = &request.head;
        Self {
            id: EventId::new(head.received_at),
            route: route.to_owned(),
            reason: refusal.reason,
            detail: refusal.detail.clone(),
            received_at: head.received_at,
            expires_at: head.received_at.saturating_add(keep),
            method: head.method.clone(),
            target: match (endpoint, request.params.get(ENDPOINT)) {
                (Some(_), Some(token)) => with_segment(&head.target, token, HIDDEN),
                _ => head.target.clone(),
            },
            endpoint: endpoint.map(|endpoint| endpoint.id.to_string()),
            authority: head.authority.clone(),
            asked_authority: head.asked_authority.clone(),
            scheme: head.scheme,
            headers: head.headers.clone(),
            source: head.client,
            body: request.body.clone(),
        }
    }

    /// The request as it was; what only its connection knew (version, ports) is made up.
    pub fn request(&self, params: PathParams) -> Request {
        let head = Head {
            method: self.method.clone(),
            target: self.target.clone(),
            authority: self.authority.clone(),
            asked_authority: self.asked_authority.clone(),
            scheme: self.scheme,
            version: Version::Http11,
            headers: self.headers.clone(),
            peer: (self.source, 0).into(),
            client: self.source,
            local: ([0, 0, 0, 0], 0).into(),
            received_at: self.received_at,
        };
        Request { head, params, body: self.body.clone() }
    }

    /// Path without the query.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    /// About what it holds in memory, in bytes.
    pub(super) fn weight(request: &Request) -> u64 {
        let head = &request.head;
        let headers: usize = head.headers.iter().map(|(n, v)| n.len() + v.len() + 16).sum();
        (request.body.len() + head.target.len() + headers + 512) as u64
    }

    /// Its file, sealed if that is asked for.
    pub(super) fn encode(&self, keys: &Keyring) -> io::Result<Vec<u8>> {
        let line = Line {
            id: self.id,
            route: self.route.clone(),
            reason: self.reason.code().to_owned(),
            detail: self.detail.clone(),
            received_at: self.received_at,
            expires_at: self.expires_at,
            method: self.method.as_str().to_owned(),
            target: self.target.clone(),
            endpoint: self.endpoint.clone(),
            authority: self.authority.clone(),
            asked_authority: self.asked_authority.clone(),
            https: self.scheme == Scheme::Https,
            headers: self.headers.iter().map(|(n, v)| (n.to_owned(), STANDARD.encode(v))).collect(),
            source: self.source,
            body_bytes: self.body.len() as u64,
            body_sha256: hex::encode(Sha256::digest(&self.body)),
        };
        let mut file = Vec::with_capacity(1024 + self.body.len());
        keys.begin(&mut file);
        serde_json::to_writer(&mut file, &line).map_err(io::Error::other)?;
        file.push(b'\n');
        file.extend_from_slice(&self.body);
        keys.finish(Kind::Refused, &self.id.0, &mut file).map_err(io::Error::other)?;
        Ok(file)
    }

    /// Reads a whole item.
    pub(super) fn read(path: &Path, keys: &Keyring) -> io::Result<Self> {
        match sealed(path)? {
            None => Self::read_from(BufReader::new(std::fs::File::open(path)?)),
            Some(record) => Self::read_from(&*opened(path, &record, keys)?),
        }
    }

    fn read_from(mut file: impl BufRead) -> io::Result<Self> {
        let line = Line::read(&mut file)?;
        let mut body = Vec::new();
        file.take(line.body_bytes.saturating_add(1)).read_to_end(&mut body)?;
        if body.len() as u64 != line.body_bytes || hex::encode(Sha256::digest(&body)) != line.body_sha256 {
            return Err(torn("its body is not what it was"));
        }
        let bad = |what: &'static str| move || torn(what);
        Ok(Self {
            reason: line.reason()?,
            method: line.method.parse().map_err(|_| torn("its method is none"))?,
            scheme: if line.https { Scheme::Https } else { Scheme::Http },
            headers: line
                .headers
                .iter()
                .map(|(name, value)| Some((name.as_str(), STANDARD.decode(value).ok()?)))
                .collect::<Option<Vec<_>>>()
                .ok_or_else(bad("its headers can't be read"))?
                .iter()
                .map(|(name, value)| (*name, value.as_slice()))
                .collect(),
            id: line.id,
            route: line.route,
            detail: line.detail,
            received_at: line.received_at,
            expires_at: line.expires_at,
            target: line.target,
            endpoint: line.endpoint,
            authority: line.authority,
            asked_authority: line.asked_authority,
            source: line.source,
            body: body.into(),
        })
    }
}

/// What is known of an item without its headers and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub id: EventId,
    pub route: String,
    pub reason: Reason,
    pub received_at: Timestamp,
    pub expires_at: Timestamp,
    pub source: IpAddr,
    pub method: String,
    /// Path without the query.
    pub path: String,
    pub body_bytes: u64,
    /// On disk, in bytes.
    pub(super) size: u64,
}

impl Summary {
    /// Of a file of `length` bytes.
    pub(super) fn of(item: &Item, length: u64) -> Self {
        Self {
            id: item.id,
            route: item.route.clone(),
            reason: item.reason,
            received_at: item.received_at,
            expires_at: item.expires_at,
            source: item.source,
            method: item.method.to_string(),
            path: item.path().to_owned(),
            body_bytes: item.body.len() as u64,
            size: blocks(length),
        }
    }

    /// Reads the first line alone where it is not sealed.
    pub(super) fn read(path: &Path, keys: &Keyring) -> io::Result<Self> {
        if let Some(record) = sealed(path)? {
            let item = Item::read_from(&*opened(path, &record, keys)?)?;
            return Ok(Self::of(&item, record.len() as u64));
        }
        let file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        let mut file = BufReader::new(file);
        let line = Line::read(&mut file)?;
        let held = file.buffer().len() as u64;
        let at = io::Seek::stream_position(file.get_mut())?.saturating_sub(held);
        if length != at + line.body_bytes {
            return Err(torn("it is cut short"));
        }
        Ok(Self {
            reason: line.reason()?,
            path: line.target.split('?').next().unwrap_or_default().to_owned(),
            id: line.id,
            route: line.route,
            received_at: line.received_at,
            expires_at: line.expires_at,
            source: line.source,
            method: line.method,
            body_bytes: line.body_bytes,
            size: blocks(length),
        })
    }
}

/// What stands in a file that is sealed. Plain ones begin with a brace.
pub(super) fn sealed(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = std::fs::File::open(path)?;
    let mut first = [0];
    if file.read(&mut first)? == 0 || first[0] != SEALED {
        return Ok(None);
    }
    let mut record = first.to_vec();
    file.read_to_end(&mut record)?;
    Ok(Some(record))
}

/// Opens it. An item of another file, and one that is not whole, is torn; one whose key is missing is not.
fn opened(path: &Path, record: &[u8], keys: &Keyring) -> io::Result<Bytes> {
    let name = path.file_stem().and_then(|name| name.to_str()?.parse::<EventId>().ok());
    let id = name.ok_or_else(|| torn("its name is no id"))?;
    keys.open(Kind::Refused, &id.0, record).map_err(|error| match error {
        NotOpened::Changed => torn("it does not open"),
        NotOpened::UnknownKey(_) => io::Error::new(io::ErrorKind::PermissionDenied, error),
    })
}

/// The first line of a file.
#[derive(Serialize, Deserialize)]
struct Line {
    id: EventId,
    route: String,
    reason: String,
    detail: String,
    received_at: Timestamp,
    expires_at: Timestamp,
    method: String,
    target: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    authority: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked_authority: Option<String>,
    https: bool,
    /// Values in base64: they may hold any byte.
    headers: Vec<(String, String)>,
    source: IpAddr,
    body_bytes: u64,
    body_sha256: String,
}

impl Line {
    fn read(file: &mut impl BufRead) -> io::Result<Self> {
        let mut line = Vec::new();
        file.take(MAX_LINE).read_until(b'\n', &mut line)?;
        match line.split_last() {
            Some((b'\n', json)) => serde_json::from_slice(json).map_err(|_| torn("its head can't be read")),
            _ => Err(torn("its head is cut short")),
        }
    }

    fn reason(&self) -> io::Result<Reason> {
        Reason::from_code(&self.reason).ok_or_else(|| torn("its reason is unknown"))
    }
}

fn torn(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

pub(super) fn blocks(length: u64) -> u64 {
    length.div_ceil(BLOCK).max(1) * BLOCK
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seal::testing::keyring;
    use crate::verify::testing::request;

    fn item(body: &[u8]) -> Item {
        let mut request = request("/in?x=1", &[("X-A", "1"), ("x-a", "2")], body);
        request.head.headers = [("X-A", &b"1"[..]), ("x-a", b"\xff\x00")].into_iter().collect();
        let refusal = Refusal::new(Reason::SignatureInvalid, "no \"key\"\n");
        Item::new("billing", &request, None, &refusal, Duration::from_secs(5))
    }

    proptest! {
        #[test]
        fn an_item_comes_back_as_it_was(body: Vec<u8>) {
            let folder = tempfile::tempdir().unwrap();
            let item = item(&body);
            let path = folder.path().join(item.id.to_string());
            for keys in [Keyring::none(), keyring(&[1])] {
                let file = item.encode(&keys).unwrap();
                std::fs::write(&path, &file).unwrap();
                let read = Item::read(&path, &keys).unwrap();
                prop_assert_eq!(&read.body[..], &body[..]);
                prop_assert_eq!(format!("{:?}", read.headers), format!("{:?}", item.headers));
                prop_assert_eq!((read.id, &read.route, &read.detail), (item.id, &item.route, &item.detail));
                let summary = Summary::read(&path, &keys).unwrap();
                prop_assert_eq!(&summary, &Summary::of(&item, file.len() as u64));
                // Whatever is missing at the end is noticed.
                for cut in [0, file.len() / 2, file.len() - 1] {
                    std::fs::write(&path, &file[..cut]).unwrap();
                    prop_assert!(Item::read(&path, &keys).is_err() && Summary::read(&path, &keys).is_err());
                }
            }
        }

        #[test]
        fn no_file_makes_it_panic(bytes: Vec<u8>) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("item");
            std::fs::write(&path, &bytes).unwrap();
            prop_assert!(Item::read(&path, &Keyring::none()).is_err() && Summary::read(&path, &Keyring::none()).is_err());
        }
    }

    #[test]
    fn a_changed_body_is_no_item() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("item");
        let mut file = item(b"{}").encode(&Keyring::none()).unwrap();
        *file.last_mut().unwrap() = b'x';
        std::fs::write(&path, &file).unwrap();
        assert!(Item::read(&path, &Keyring::none()).unwrap_err().to_string().contains("body"));
    }
}
