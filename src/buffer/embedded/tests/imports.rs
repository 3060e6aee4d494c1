//! Events that come from another buffer.

use super::model::audit;
use super::*;

fn delivery(to: DestinationName, state: DeliveryState) -> Delivery {
    Delivery {
        destination: to,
        state,
        attempts: 2,
        since: START,
        parks: false,
        history: vec![attempt(START, 500)],
    }
}

#[tokio::test]
async fn what_waited_is_due_what_was_settled_stays_so_and_nothing_comes_twice() {
    let bench = Bench::new();
    let later = START.saturating_add(Duration::from_secs(9000));
    let waiting = bench.event("waiting");
    let states = vec![
        delivery(app(), DeliveryState::Retrying { next_at: later }),
        delivery(other(), DeliveryState::Delivered { at: START }),
    ];
    let import = async |event: &Event, deliveries: &[Delivery], key| {
        bench.buffer.import(event.clone(), deliveries.to_vec(), Some(claim(key))).await.unwrap()
    };
    assert_eq!(import(&waiting, &states, 1).await, Imported::Stored);
    assert_eq!(import(&waiting, &states, 1).await, Imported::Present);
    let dead = bench.event("dead");
    let state = DeliveryState::Dead { at: START, reason: DeadReason::TooOld };
    assert_eq!(import(&dead, &[delivery(app(), state.clone())], 2).await, Imported::Stored);
    let repeat = bench.event("repeat");
    assert_eq!(import(&repeat, &[], 2).await, Imported::Duplicate(dead.id));
    let none = bench.event("for nobody");
    assert_eq!(import(&none, &[], 3).await, Imported::Stored);
    audit(&bench.buffer);
    let leased = bench.lease(10).await;
    assert_eq!(leased.len(), 1);
    assert_eq!((&*leased[0].event, leased[0].attempts), (&waiting, 2));
    assert_eq!(bench.state(dead.id).await, state);
    let stats = bench.stats_of(&app()).await;
    assert_eq!((stats.backlog, stats.dead), (1, 1));

    bench.settle(&leased[0], Next::Delivered);
    // Before time goes on: a settlement has the time at which it is written.
    bench.settled().await;
    bench.clock.advance(Duration::from_secs(2 * 86_400));
    bench.settled().await;
    assert_eq!(bench.buffer.stats().await.unwrap().events, 0, "retention is that of any event");
    audit(&bench.buffer);
    let state = DeliveryState::Dead { at: bench.clock.now(), reason: DeadReason::TooOld };
    // Its own claim would stand still for a while in a longer window, and is no obstacle.
    assert_eq!(import(&dead, &[delivery(app(), state)], 2).await, Imported::Stored);
    let bench = bench.reopen();
    audit(&bench.buffer);
    assert_eq!(bench.stats_of(&app()).await.dead, 1);
}
