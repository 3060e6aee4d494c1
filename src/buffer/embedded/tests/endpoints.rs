//! Records of clients' URLs: durable, all or nothing, and gone after their end.

use super::*;
use crate::buffer::{EndpointChange, StoredEndpoint};

fn record(key: u8, until: Option<Timestamp>) -> StoredEndpoint {
    StoredEndpoint { key: [key; 32], until, value: vec![key, 0, 255] }
}

async fn keys(bench: &Bench) -> Vec<u8> {
    bench.buffer.endpoints().await.unwrap().iter().map(|endpoint| endpoint.key[0]).collect()
}

#[tokio::test]
async fn records_are_there_after_a_crash_and_as_they_were_put_last() {
    let bench = Bench::new();
    let put = |records: Vec<StoredEndpoint>| records.into_iter().map(EndpointChange::Put).collect();
    let later = Some(bench.now().saturating_add(Duration::from_secs(60)));
    bench
        .buffer
        .change_endpoints(put(vec![record(1, None), record(2, None), record(3, later)]))
        .await
        .unwrap();
    let changes = vec![EndpointChange::Put(record(1, later)), EndpointChange::Remove([2; 32])];
    bench.buffer.change_endpoints(changes).await.unwrap();
    let bench = bench.reopen();
    assert_eq!(bench.buffer.endpoints().await.unwrap(), [record(1, later), record(3, later)]);
}

#[tokio::test]
async fn records_that_have_ended_are_not_given_and_then_deleted() {
    let bench = Bench::new();
    let at = |secs: u64| Some(bench.now().saturating_add(Duration::from_secs(secs)));
    let records = [record(1, at(10)), record(2, at(20)), record(3, None)];
    bench.buffer.change_endpoints(records.map(EndpointChange::Put).to_vec()).await.unwrap();
    // One whose end is moved stays until the new one.
    bench.buffer.change_endpoints(vec![EndpointChange::Put(record(2, at(40)))]).await.unwrap();
    bench.clock.advance(Duration::from_secs(10));
    assert_eq!(keys(&bench).await, [2, 3]);
    bench.clock.advance(Duration::from_secs(15));
    bench.buffer.sweep().await.unwrap();
    assert_eq!(keys(&bench).await, [2, 3]);
    let store = bench.buffer.shared.store().unwrap();
    let stored = |prefix: u8| store.scan(vec![prefix], vec![prefix + 1]).count();
    assert_eq!((stored(b'E'), stored(b'G')), (2, 1));
    bench.clock.advance(Duration::from_secs(60));
    bench.buffer.sweep().await.unwrap();
    assert_eq!((stored(b'E'), stored(b'G')), (1, 0));
}
