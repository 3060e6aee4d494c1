//! Claims, with the answer that a repeated request gets.

use bytes::Bytes;

use super::super::super::{ClaimKey, Claimed, EventId, FirstAnswer, Whose};
use super::super::wire::{Malformed, Reader, Result, VERSION, put_bytes, put_number, put_optional};
use crate::seal::{Keyring, Kind, NotSealed, key_of};

/// A claim as it stands on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct StoredClaim {
    pub(in super::super) claimed: Claimed,
    /// Only where the answer has a text, and that is an app's.
    pub(in super::super) whose: Option<Whose>,
}

impl StoredClaim {
    /// The same without what the answer says: repeats are recognised still.
    pub(in super::super) fn bare(self) -> Self {
        let answer = self.claimed.answer.bare();
        Self { claimed: Claimed { answer, ..self.claimed }, whose: None }
    }
}

/// A claim as it is stored: sealed, if records are, where its answer says anything beyond the status.
pub(in super::super) fn seal_claim(key: ClaimKey, claim: &StoredClaim, keys: &Keyring) -> Vec<u8> {
    let plain = encode_claim(claim);
    if !claim.claimed.answer.has_text() {
        return plain;
    }
    // Rather an answer without its text than the text in the clear.
    keys.seal(Kind::Claim, &key.0, &plain).unwrap_or_else(|NotSealed| encode_claim(&claim.clone().bare()))
}

/// Reads a claim, sealed or not.
pub(in super::super) fn open_claim(key: ClaimKey, record: &[u8], keys: &Keyring) -> Result<StoredClaim> {
    decode_claim(&keys.open(Kind::Claim, &key.0, record)?)
}

/// A record as it is to be under the key that seals now; `None` if it is so.
pub(in super::super) fn resealed_claim(
    key: ClaimKey,
    record: &[u8],
    keys: &Keyring,
) -> Result<Option<Vec<u8>>> {
    if key_of(record) == keys.sealing() {
        return Ok(None);
    }
    let new = seal_claim(key, &open_claim(key, record, keys)?, keys);
    Ok((new != record).then_some(new))
}

pub(in super::super) fn encode_claim(StoredClaim { claimed, whose }: &StoredClaim) -> Vec<u8> {
    let answer = &claimed.answer;
    let mut out = Vec::with_capacity(64 + answer.body.len());
    out.push(VERSION);
    out.extend_from_slice(&claimed.event_id.0);
    put_number(&mut out, claimed.expires_at.0);
    put_number(&mut out, u64::from(answer.status));
    put_optional(&mut out, answer.content_type.as_deref());
    put_bytes(&mut out, &answer.body);
    // Absent in claims of earlier versions, and where there is nothing to be found.
    if let Some(whose) = whose {
        out.extend_from_slice(&whose.to_bytes());
    }
    out
}

pub(in super::super) fn decode_claim(record: &[u8]) -> Result<StoredClaim> {
    let mut r = Reader::versioned(record)?;
    let event_id = EventId(r.array()?);
    let expires_at = r.time()?;
    let status = u16::try_from(r.number()?).map_err(|_| Malformed("status out of range"))?;
    let content_type = r.optional()?.map(str::to_owned);
    let body = Bytes::copy_from_slice(r.bytes()?);
    let whose = if r.is_at_end() { None } else { Some(Whose::from_bytes(r.array()?)) };
    r.end()?;
    let answer = FirstAnswer { status, content_type, body };
    Ok(StoredClaim { claimed: Claimed { event_id, expires_at, answer }, whose })
}
