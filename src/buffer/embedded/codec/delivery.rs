//! What is known of a delivery, and what stands in the queues for it.

use fjall::Slice;

use super::super::super::{Attempt, AttemptOutcome, DeadReason, DeliveryState, EventId, LaneKey};
use super::super::wire::{Malformed, Reader, Result, VERSION, put_bytes, put_number};
use crate::clock::Timestamp;
use crate::seal::{Keyring, Kind, NotSealed, key_of};

/// Longest error text of an attempt that is kept, in bytes.
pub(super) const MAX_ERROR: usize = 300;

/// What is known of a delivery once there is something to say; without one it is pending and untried.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Record {
    pub(in super::super) state: DeliveryState,
    pub(in super::super) attempts: u32,
    pub(in super::super) since: Timestamp,
    /// When the event was accepted.
    pub(in super::super) accepted: Timestamp,
    pub(in super::super) history: Vec<Attempt>,
    /// Of an ordered destination.
    pub(in super::super) lane: Option<LaneKey>,
    /// It is dead, and its lane waits for an operator.
    pub(in super::super) parks: bool,
}

impl Record {
    pub(in super::super) fn untried(accepted: Timestamp, lane: Option<LaneKey>) -> Self {
        let (state, history) = (DeliveryState::Pending, Vec::new());
        Self { state, attempts: 0, since: accepted, accepted, history, lane, parks: false }
    }

    /// When it was settled, if it is.
    pub(in super::super) const fn settled_at(&self) -> Option<Timestamp> {
        match self.state {
            DeliveryState::Delivered { at } | DeliveryState::Dead { at, .. } => Some(at),
            DeliveryState::Pending | DeliveryState::Retrying { .. } => None,
        }
    }
    pub(in super::super) const fn is_dead(&self) -> bool {
        matches!(self.state, DeliveryState::Dead { .. })
    }

    /// As it is stored: sealed, if records are, where an attempt has an error's text, which may repeat what an app said.
    pub(in super::super) fn seal(&self, event: EventId, destination: u32, keys: &Keyring) -> Vec<u8> {
        let plain = self.encode();
        if !self.history.iter().any(|attempt| matches!(attempt.outcome, AttemptOutcome::Failed { .. })) {
            return plain;
        }
        keys.seal(Kind::Delivery, &name(event, destination), &plain).unwrap_or_else(|NotSealed| {
            // Rather an attempt without its text than the text in the clear.
            let mut bare = self.clone();
            for attempt in &mut bare.history {
                if let AttemptOutcome::Failed { error } = &mut attempt.outcome {
                    error.clear();
                }
            }
            bare.encode()
        })
    }

    /// Reads a record, sealed or not.
    pub(in super::super) fn open(
        event: EventId,
        destination: u32,
        record: &[u8],
        keys: &Keyring,
    ) -> Result<Self> {
        Self::decode(&keys.open(Kind::Delivery, &name(event, destination), record)?)
    }

    /// A record as it is to be under the key that seals now; `None` if it is so.
    pub(in super::super) fn resealed(
        event: EventId,
        destination: u32,
        record: &[u8],
        keys: &Keyring,
    ) -> Result<Option<Vec<u8>>> {
        if key_of(record) == keys.sealing() {
            return Ok(None);
        }
        let new = Self::open(event, destination, record, keys)?.seal(event, destination, keys);
        Ok((new != record).then_some(new))
    }

    /// Its plain form.
    pub(in super::super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.push(VERSION);
        match &self.state {
            DeliveryState::Pending => out.push(0),
            DeliveryState::Retrying { next_at } => {
                out.push(1);
                put_number(&mut out, next_at.0);
            }
            DeliveryState::Delivered { at } => {
                out.push(2);
                put_number(&mut out, at.0);
            }
            DeliveryState::Dead { at, reason } => {
                out.push(3);
                put_number(&mut out, at.0);
                out.push(match reason {
                    DeadReason::AttemptsExhausted => 1,
                    DeadReason::TooOld => 2,
                    DeadReason::GivenUp => 3,
                    DeadReason::ByOperator => 4,
                });
            }
        }
        put_number(&mut out, u64::from(self.attempts));
        put_number(&mut out, self.since.0);
        put_number(&mut out, self.accepted.0);
        put_number(&mut out, self.history.len() as u64);
        for attempt in &self.history {
            put_number(&mut out, attempt.at.0);
            put_number(&mut out, attempt.took_ms);
            match &attempt.outcome {
                AttemptOutcome::Answered { status } => {
                    out.push(0);
                    put_number(&mut out, u64::from(*status));
                }
                AttemptOutcome::Failed { error } => {
                    out.push(1);
                    put_bytes(&mut out, shortened(error).as_bytes());
                }
            }
        }
        if let Some(lane) = self.lane {
            out.push(u8::from(self.parks));
            out.extend_from_slice(&lane.0);
        }
        out
    }

    pub(in super::super) fn decode(record: &[u8]) -> Result<Self> {
        let mut r = Reader::versioned(record)?;
        let state = match r.byte()? {
            0 => DeliveryState::Pending,
            1 => DeliveryState::Retrying { next_at: r.time()? },
            2 => DeliveryState::Delivered { at: r.time()? },
            3 => DeliveryState::Dead {
                at: r.time()?,
                reason: match r.byte()? {
                    1 => DeadReason::AttemptsExhausted,
                    2 => DeadReason::TooOld,
                    3 => DeadReason::GivenUp,
                    4 => DeadReason::ByOperator,
                    _ => return Err(Malformed("unknown reason")),
                },
            },
            _ => return Err(Malformed("unknown delivery state")),
        };
        let attempts = u32::try_from(r.number()?).map_err(|_| Malformed("attempts out of range"))?;
        let since = r.time()?;
        let accepted = r.time()?;
        let history = (0..r.count()?)
            .map(|_| {
                let (at, took_ms) = (r.time()?, r.number()?);
                let outcome = match r.byte()? {
                    0 => AttemptOutcome::Answered {
                        status: u16::try_from(r.number()?).map_err(|_| Malformed("status out of range"))?,
                    },
                    1 => AttemptOutcome::Failed { error: r.text()?.to_owned() },
                    _ => return Err(Malformed("unknown outcome")),
                };
                Ok(Attempt { at, took_ms, outcome })
            })
            .collect::<Result<Vec<_>>>()?;
        // Behind it stands a lane, where there is one.
        let (parks, lane) = match r.is_at_end() {
            true => (false, None),
            false => (r.byte()? == 1, Some(LaneKey(r.array()?))),
        };
        r.end()?;
        Ok(Self { state, attempts, since, accepted, history, lane, parks })
    }
}

/// To which a sealed record is bound.
fn name(event: EventId, destination: u32) -> [u8; 20] {
    let mut name = [0; 20];
    name[..16].copy_from_slice(&event.0);
    name[16..].copy_from_slice(&destination.to_be_bytes());
    name
}

fn shortened(text: &str) -> &str {
    let end = (0..=MAX_ERROR.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

/// What stands in the queues under a delivery's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct QueueEntry {
    pub(in super::super) event: EventId,
    pub(in super::super) accepted: Timestamp,
    pub(in super::super) told: Told,
    /// Of an ordered destination; it stands behind the rest.
    pub(in super::super) lane: Option<LaneKey>,
}

/// Whether a delivery record exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Told {
    Nothing,
    Record,
}

impl QueueEntry {
    pub(in super::super) fn encode(&self) -> Slice {
        let mut out = [0; 33];
        out[..16].copy_from_slice(&self.event.0);
        out[16..24].copy_from_slice(&self.accepted.0.to_be_bytes());
        out[24] = match self.told {
            Told::Nothing => 0,
            Told::Record => 1,
        };
        match self.lane {
            None => Slice::from(&out[..25]),
            Some(lane) => {
                out[25..].copy_from_slice(&lane.0);
                Slice::from(&out[..])
            }
        }
    }
    pub(in super::super) fn decode(value: &[u8]) -> Result<Self> {
        const WRONG: Malformed = Malformed("queue entry has a wrong length");
        let (value, lane) = value.split_first_chunk::<25>().ok_or(WRONG)?;
        let lane = match lane {
            [] => None,
            lane => Some(LaneKey(lane.try_into().map_err(|_| WRONG)?)),
        };
        let mut accepted = [0; 8];
        accepted.copy_from_slice(&value[16..24]);
        let mut event = [0; 16];
        event.copy_from_slice(&value[..16]);
        let told = match value[24] {
            0 => Told::Nothing,
            1 => Told::Record,
            _ => return Err(Malformed("unknown tag")),
        };
        let accepted = Timestamp(u64::from_be_bytes(accepted));
        Ok(Self { event: EventId(event), accepted, told, lane })
    }
}
