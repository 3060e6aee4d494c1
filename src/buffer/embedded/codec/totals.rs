//! What is counted: over the whole store with every commit, and of each destination.

use super::super::wire::{Reader, Result, VERSION, put_number};

/// Written with every commit: which one it is, and what is counted over the whole store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct CommitRecord {
    /// One more than that of the commit before.
    pub(in super::super) commit: u64,
    /// The last commit that was known to be synced when this one was written.
    pub(in super::super) synced: u64,
    /// The last commit (this one included) that touched `events`.
    pub(in super::super) events_commit: u64,
    /// The same before this commit.
    pub(in super::super) events_commit_before: u64,
    pub(in super::super) next_seq: u64,
    /// Events in the store.
    pub(in super::super) events: u64,
    /// Bytes of the events in the delivered retention index.
    pub(in super::super) delivered_bytes: u64,
    /// Nothing stands in the time-ordered indexes below these (in milliseconds).
    pub(in super::super) claims_from: u64,
    pub(in super::super) delivered_from: u64,
    pub(in super::super) dead_from: u64,
}

impl CommitRecord {
    pub(in super::super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(56);
        out.push(VERSION);
        self.numbers().into_iter().for_each(|n| put_number(&mut out, n));
        out
    }
    pub(in super::super) fn decode(record: &[u8]) -> Result<Self> {
        let mut r = Reader::versioned(record)?;
        let read = Self {
            commit: r.number()?,
            synced: r.number()?,
            events_commit: r.number()?,
            events_commit_before: r.number()?,
            next_seq: r.number()?,
            events: r.number()?,
            delivered_bytes: r.number()?,
            claims_from: r.number()?,
            delivered_from: r.number()?,
            dead_from: r.number()?,
        };
        r.end()?;
        Ok(read)
    }
    const fn numbers(&self) -> [u64; 10] {
        [
            self.commit,
            self.synced,
            self.events_commit,
            self.events_commit_before,
            self.next_seq,
            self.events,
            self.delivered_bytes,
            self.claims_from,
            self.delivered_from,
            self.dead_from,
        ]
    }
}

/// What is counted per destination, and where scans of its queues may start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Counters {
    pub(in super::super) backlog: u64,
    pub(in super::super) dead: u64,
    /// No live entry of the fresh queue is below this seq.
    pub(in super::super) fresh_from: u64,
    /// No live entry of the retry queue is due before this.
    pub(in super::super) retry_from: u64,
    /// Lanes that stand still.
    pub(in super::super) blocked: u64,
    pub(in super::super) parked: u64,
}

impl Counters {
    pub(in super::super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        out.push(VERSION);
        [self.backlog, self.dead, self.fresh_from, self.retry_from]
            .into_iter()
            .for_each(|n| put_number(&mut out, n));
        if self.blocked + self.parked > 0 {
            put_number(&mut out, self.blocked);
            put_number(&mut out, self.parked);
        }
        out
    }
    pub(in super::super) fn decode(record: &[u8]) -> Result<Self> {
        let mut r = Reader::versioned(record)?;
        let mut read = Self {
            backlog: r.number()?,
            dead: r.number()?,
            fresh_from: r.number()?,
            retry_from: r.number()?,
            ..Self::default()
        };
        if !r.is_at_end() {
            (read.blocked, read.parked) = (r.number()?, r.number()?);
        }
        r.end()?;
        Ok(read)
    }
}
