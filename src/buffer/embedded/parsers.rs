//! The records of the store read from any bytes, for fuzzing: a damaged disk may hold anything.

use super::super::EventId;
use super::codec::{
    CommitRecord, Counters, QueueEntry, Record, decode_claim, decode_event, encode_claim, encode_event,
};
use crate::seal::Keyring;

/// Reads `bytes` as each kind of record. What can be read comes back the same once it is written and read again: a
/// record means one thing.
///
/// # Errors
///
/// The kind of record that does not.
pub fn read_again(bytes: &[u8]) -> Result<(), &'static str> {
    let id = EventId([7; 16]);
    if let Ok(read) = decode_event(id, bytes, &Keyring::none()) {
        let mut written = Vec::new();
        let keys = Keyring::none();
        if encode_event(&mut written, &read.event, read.destinations.iter().copied(), &keys).is_err() {
            return Err("event");
        }
        let again = decode_event(id, &written, &keys);
        if !again.is_ok_and(|again| again.event == read.event && again.destinations == read.destinations) {
            return Err("event");
        }
    }
    macro_rules! same {
        ($kind:literal, $decode:path, $encode:expr) => {
            if let Ok(read) = $decode(bytes) {
                let written = $encode(&read);
                if !$decode(&written).is_ok_and(|again| again == read) {
                    return Err($kind);
                }
            }
        };
    }
    same!("delivery", Record::decode, Record::encode);
    same!("queue entry", QueueEntry::decode, QueueEntry::encode);
    same!("claim", decode_claim, encode_claim);
    same!("commit", CommitRecord::decode, CommitRecord::encode);
    same!("counters", Counters::decode, Counters::encode);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::read_again;

    #[test]
    fn any_bytes_are_a_record_or_none() {
        for length in 0..200 {
            assert_eq!(read_again(&vec![1; length]), Ok(()));
            assert_eq!(read_again(&vec![0; length]), Ok(()));
        }
    }
}
