//! The words of order: which lane of a destination an event belongs to, and what is seen of lanes that stand still.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{DestinationName, Event, EventId};
use crate::clock::Timestamp;

/// The fixed-size form of an order key: events of one destination with the same one go one after the other. Two keys
/// that meet in it by chance (one in 2^64) share a lane, which costs time and no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneKey(pub [u8; 8]);

impl LaneKey {
    pub fn new(key: &[u8]) -> Self {
        let mut short = [0; 8];
        short.copy_from_slice(&Sha256::digest(key)[..8]);
        Self(short)
    }
}

/// As it is shown.
impl FromStr for LaneKey {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number =
            Some(text).filter(|text| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit()));
        let number = number.and_then(|text| u64::from_str_radix(text, 16).ok());
        number.map(|number| Self(number.to_be_bytes())).ok_or("a lane's name has 16 hexadecimal digits")
    }
}

impl fmt::Display for LaneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// How a destination's events find their lanes.
pub trait LaneBy: fmt::Debug + Send + Sync {
    /// `None`: the event has no key and goes without order.
    fn lane(&self, event: &Event) -> Option<LaneKey>;
}

/// Lanes of a destination that stand still, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStats {
    /// Their first event has failed and is tried again.
    pub blocked: u64,
    /// Their first event is a dead letter that waits for an operator.
    pub parked: u64,
    /// Since when the one that has stood still the longest does.
    pub oldest: Option<Timestamp>,
}

/// Why a lane stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standstill {
    Blocked,
    Parked,
}

impl Standstill {
    pub const fn word(self) -> &'static str {
        match self {
            Standstill::Blocked => "blocked",
            Standstill::Parked => "parked",
        }
    }
}

/// A lane that stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StuckLane {
    pub destination: DestinationName,
    pub lane: LaneKey,
    pub why: Standstill,
    /// Since the first failed attempt of its first event (since it was tried last afresh), or since it died.
    pub since: Timestamp,
    /// Its first event.
    pub head: EventId,
    /// Deliveries behind it.
    pub waiting: u64,
}

/// Asks for lanes that stand still, by destination and then the longest first.
#[derive(Clone, Debug, Default)]
pub struct LaneSearch {
    /// `None`: of all destinations.
    pub destination: Option<DestinationName>,
    /// Only this one, of each destination that is asked for.
    pub lane: Option<LaneKey>,
    pub limit: usize,
}
