//! Claims, with the answer that a repeated request gets.

use bytes::Bytes;

use super::super::super::{ClaimKey, Claimed, EventId, FirstAnswer};
use super::super::wire::{Malformed, Reader, Result, VERSION, put_bytes, put_number, put_optional};
use crate::seal::{Keyring, Kind, NotSealed, key_of};

/// A claim as it is stored: sealed, if records are, where its answer says anything beyond the status.
pub(in super::super) fn seal_claim(key: ClaimKey, claim: &Claimed, keys: &Keyring) -> Vec<u8> {
    let plain = encode_claim(claim);
    if !has_text(claim) {
        return plain;
    }
    keys.seal(Kind::Claim, &key.0, &plain).unwrap_or_else(|NotSealed| {
        // Rather an answer without its text than the text in the clear.
        let bare = FirstAnswer { status: claim.answer.status, content_type: None, body: Bytes::new() };
        encode_claim(&Claimed { answer: bare, ..claim.clone() })
    })
}

/// Reads a claim, sealed or not.
pub(in super::super) fn open_claim(key: ClaimKey, record: &[u8], keys: &Keyring) -> Result<Claimed> {
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

fn has_text(claim: &Claimed) -> bool {
    claim.answer.content_type.is_some() || !claim.answer.body.is_empty()
}

pub(in super::super) fn encode_claim(claim: &Claimed) -> Vec<u8> {
    let mut out = Vec::with_capacity(48 + claim.answer.body.len());
    out.push(VERSION);
    out.extend_from_slice(&claim.event_id.0);
    put_number(&mut out, claim.expires_at.0);
    put_number(&mut out, u64::from(claim.answer.status));
    put_optional(&mut out, claim.answer.content_type.as_deref());
    put_bytes(&mut out, &claim.answer.body);
    out
}

pub(in super::super) fn decode_claim(record: &[u8]) -> Result<Claimed> {
    let mut r = Reader::versioned(record)?;
    let event_id = EventId(r.array()?);
    let expires_at = r.time()?;
    let status = u16::try_from(r.number()?).map_err(|_| Malformed("status out of range"))?;
    let content_type = r.optional()?.map(str::to_owned);
    let body = Bytes::copy_from_slice(r.bytes()?);
    r.end()?;
    Ok(Claimed { event_id, expires_at, answer: FirstAnswer { status, content_type, body } })
}
