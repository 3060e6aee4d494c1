//! Of all records.

use proptest::prelude::*;

use super::super::super::{
    Attempt, AttemptOutcome, BatchPart, Claimed, DeadReason, DeliveryState, Event, EventId, FirstAnswer,
    LaneKey, Origin, Whose,
};
use super::super::wire::{Malformed, VERSION};
use super::delivery::MAX_ERROR;
use super::*;
use crate::clock::Timestamp;
use crate::message::{Method, Scheme, TraceContext};
use crate::reason::Reason;
use crate::seal::Keyring;
use crate::seal::plain_len;
use crate::seal::testing::keyring;
use std::net::IpAddr;

fn out_of_the_ordinary(at: u64) -> Origin {
    let reason = Reason::ALL[at as usize % Reason::ALL.len()];
    let id = EventId([at as u8; 16]);
    Origin {
        would_refuse: at.is_multiple_of(2).then_some(reason),
        quarantine: (!at.is_multiple_of(3)).then_some((id, Timestamp(at))),
        batch: (!at.is_multiple_of(5)).then_some(BatchPart { id, number: at as u32, count: u32::MAX }),
        client: at.is_multiple_of(7).then(|| "acme".into()),
        way: at.is_multiple_of(13).then(|| "bearer#2".into()),
        may_repeat: !at.is_multiple_of(7),
        trace: at
            .is_multiple_of(11)
            .then(|| TraceContext { trace: [7; 16], span: id.0[8..].try_into().unwrap() }),
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let headers = proptest::collection::vec(("[!-9;-~]{1,20}", any::<Vec<u8>>()), 0..12);
    let texts = (".*", ".*", "[a-z0-9/-]{0,12}", proptest::option::of(".*"), proptest::option::of(".*"));
    (any::<[u8; 16]>(), any::<u64>(), headers, any::<Vec<u8>>(), any::<IpAddr>(), texts, any::<bool>())
        .prop_map(|(id, at, headers, body, source, (target, authority, route, key, kind), tls)| Event {
            id: EventId(id),
            route: route.as_str().into(),
            received_at: Timestamp(at),
            method: Method::POST,
            target,
            authority,
            scheme: if tls { Scheme::Https } else { Scheme::Http },
            headers: headers.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect(),
            body: body.into(),
            source,
            verified: "github".into(),
            idempotency_key: key,
            event_type: kind,
            origin: if tls { Origin::default() } else { out_of_the_ordinary(at) },
        })
}

proptest! {
    #[test]
    fn every_byte_of_an_event_comes_back(event in any_event(), destinations: Vec<u32>) {
        let mut out = Vec::new();
        for keys in [Keyring::none(), keyring(&[1])] {
            encode_event(&mut out, &event, destinations.iter().copied(), &keys).unwrap();
            let back = decode_event(event.id, &out, &keys).unwrap();
            prop_assert_eq!(back.size as usize, plain_len(&out));
            prop_assert_eq!(back.event, event.clone());
            prop_assert_eq!(back.destinations, destinations.clone());
        }
    }

    #[test]
    fn a_cut_event_is_an_error(event in any_event(), cut: prop::sample::Index) {
        let mut out = Vec::new();
        for keys in [Keyring::none(), keyring(&[1])] {
            encode_event(&mut out, &event, [1].into_iter(), &keys).unwrap();
            let cut = cut.index(out.len());
            prop_assert!(decode_event(event.id, &out[..cut], &keys).is_err());
        }
    }

    #[test]
    fn a_flipped_bit_of_a_sealed_event_is_an_error(event in any_event(), bit: prop::sample::Index) {
        let mut out = Vec::new();
        encode_event(&mut out, &event, [1].into_iter(), &keyring(&[1])).unwrap();
        let bit = bit.index(out.len() * 8);
        out[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode_event(event.id, &out, &keyring(&[1])).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_never_a_panic(bytes: Vec<u8>) {
        let _ = decode_event(EventId([0; 16]), &bytes, &Keyring::none());
        let _ = Record::decode(&bytes);
        let _ = decode_claim(&bytes);
        let _ = CommitRecord::decode(&bytes);
        let _ = Counters::decode(&bytes);
        let _ = QueueEntry::decode(&bytes);
    }
}

#[test]
fn a_delivery_comes_back_and_its_error_is_cut_at_a_character() {
    let attempt = |outcome| Attempt { at: Timestamp(5), took_ms: 7, outcome };
    let mut record = Record {
        state: DeliveryState::Dead { at: Timestamp(9), reason: DeadReason::GivenUp },
        attempts: 3,
        since: Timestamp(1),
        accepted: Timestamp(0),
        history: vec![attempt(AttemptOutcome::Answered { status: 410 })],
        lane: None,
        parks: false,
    };
    assert_eq!(Record::decode(&record.encode()), Ok(record.clone()));
    (record.lane, record.parks) = (Some(LaneKey([7; 8])), true);
    assert_eq!(Record::decode(&record.encode()), Ok(record.clone()));
    record.history.push(attempt(AttemptOutcome::Failed { error: "ä".repeat(400) }));
    let back = Record::decode(&record.encode()).unwrap();
    assert_eq!(back.history[1].outcome, AttemptOutcome::Failed { error: "ä".repeat(MAX_ERROR / 2) });
}

#[test]
fn a_claim_comes_back() {
    let claimed = Claimed {
        event_id: EventId([3; 16]),
        answer: FirstAnswer { status: 202, content_type: Some("text/plain".into()), body: "ok".into() },
        expires_at: Timestamp(99),
    };
    for whose in [None, Some(Whose::new("in", "evt_1"))] {
        let claim = StoredClaim { claimed: claimed.clone(), whose };
        assert_eq!(decode_claim(&encode_claim(&claim)), Ok(claim));
    }
}

#[test]
fn a_newer_record_is_refused_not_misread() {
    let mut record = Counters::default().encode();
    record[0] = VERSION + 1;
    assert_eq!(Counters::decode(&record), Err(Malformed("unknown record version")));
}
