//! How long, and how much, of what is settled is kept, for each route.

use super::*;
use crate::config::RouteKeep;

fn of_route(route: &str, keep: RouteKeep) -> (Arc<str>, RouteKeep) {
    (route.into(), keep)
}

async fn settled_on(bench: &Bench, route: &str, next: Next, body: &str) -> EventId {
    let to = DestinationName::new(route, "app");
    let event = Event { route: route.into(), ..bench.event(body) };
    let id = event.id;
    bench.buffer.append(event, std::slice::from_ref(&to), None).await.unwrap();
    let leased = bench.buffer.lease(&to, 1, bench.now()).await.unwrap().remove(0);
    bench.settle(&leased, next);
    bench.settled().await;
    id
}

async fn is_there(bench: &Bench, id: EventId) -> bool {
    bench.buffer.get(id).await.unwrap().is_some()
}

const DEAD: Next = Next::Dead(DeadReason::GivenUp);

#[tokio::test]
async fn each_route_keeps_for_its_own_time_also_after_a_restart() {
    let secs = |secs| Some(Duration::from_secs(secs));
    let bench = Bench::with(|s| {
        s.keep_delivered = Duration::from_secs(100);
        s.keep_dead = Duration::from_secs(200);
        s.keep_of_routes = vec![
            of_route("short", RouteKeep { delivered: secs(10), dead: secs(20), ..RouteKeep::default() }),
            of_route("long", RouteKeep { delivered: secs(1000), ..RouteKeep::default() }),
        ];
    });
    let mut ids = Vec::new();
    for route in ["short", "long", "hooks"] {
        ids.push(settled_on(&bench, route, Next::Delivered, "x").await);
        ids.push(settled_on(&bench, route, DEAD, "x").await);
    }
    let bench = bench.reopen();
    let mut stays = Vec::new();
    for after in [9, 11, 21, 101, 201, 1001] {
        bench.clock.advance(START.saturating_add(Duration::from_secs(after)).since(bench.now()));
        bench.buffer.sweep().await.unwrap();
        let mut there = String::new();
        for id in &ids {
            there.push(if is_there(&bench, *id).await { 'x' } else { '-' });
        }
        stays.push(there);
    }
    // Delivered and dead of `short`, `long`, and of the one that says nothing.
    assert_eq!(stays, ["xxxxxx", "-xxxxx", "--xxxx", "--xx-x", "--x---", "------"]);
}

#[tokio::test]
async fn beyond_its_number_or_bytes_the_oldest_delivered_go_and_no_dead_letter() {
    let bench = Bench::with(|s| {
        s.keep_of_routes = vec![
            of_route("few", RouteKeep { events: Some(3), ..RouteKeep::default() }),
            of_route("small", RouteKeep { bytes: Some(5_000), ..RouteKeep::default() }),
        ];
    });
    let dead = settled_on(&bench, "few", DEAD, "x").await;
    let (mut few, mut small, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..6 {
        bench.clock.advance(Duration::from_secs(1));
        few.push(settled_on(&bench, "few", Next::Delivered, "x").await);
        small.push(settled_on(&bench, "small", Next::Delivered, &"y".repeat(2_000)).await);
        others.push(settled_on(&bench, "hooks", Next::Delivered, "x").await);
    }
    bench.buffer.sweep().await.unwrap();
    for (at, (few, small)) in few.iter().zip(&small).enumerate() {
        assert_eq!(is_there(&bench, *few).await, at >= 3, "few {at}");
        assert_eq!(is_there(&bench, *small).await, at >= 4, "small {at}");
    }
    assert!(is_there(&bench, dead).await);
    for id in others {
        assert!(is_there(&bench, id).await, "what other routes keep is their own");
    }
}

#[tokio::test]
async fn what_is_replayed_is_kept_until_it_is_settled_again_and_a_route_without_rule_goes_by_the_general_one()
{
    let keep = RouteKeep { delivered: Some(Duration::from_secs(10)), ..RouteKeep::default() };
    let bench = Bench::with(|s| {
        s.keep_delivered = Duration::from_secs(100);
        s.keep_of_routes = vec![of_route("short", keep)];
    });
    let id = settled_on(&bench, "short", Next::Delivered, "x").await;
    assert_eq!(bench.buffer.replay(Selection::One(id, EventFilter::default())).await.unwrap(), 1);
    bench.clock.advance(Duration::from_secs(50));
    bench.buffer.sweep().await.unwrap();
    assert!(is_there(&bench, id).await, "it is under way");
    let to = DestinationName::new("short", "app");
    let leased = bench.buffer.lease(&to, 1, bench.now()).await.unwrap().remove(0);
    bench.settle(&leased, Next::Delivered);
    bench.settled().await;
    // The rule is taken off the config.
    let Bench { folder, clock, mut settings, buffer } = bench;
    drop(buffer);
    settings.keep_of_routes.clear();
    let buffer = open_at(&settings, &clock).unwrap();
    let bench = Bench { folder, clock, settings, buffer };
    bench.clock.advance(Duration::from_secs(99));
    bench.buffer.sweep().await.unwrap();
    assert!(is_there(&bench, id).await);
    bench.clock.advance(Duration::from_secs(2));
    bench.buffer.sweep().await.unwrap();
    assert!(!is_there(&bench, id).await);
}

#[tokio::test]
async fn a_new_keep_counts_at_once_for_what_is_there() {
    let mut bench = Bench::new();
    let (one, dead) = (
        settled_on(&bench, "hooks", Next::Delivered, "x").await,
        settled_on(&bench, "hooks", DEAD, "x").await,
    );
    bench.clock.advance(Duration::from_secs(100));
    bench.buffer.sweep().await.unwrap();
    assert!(is_there(&bench, one).await && is_there(&bench, dead).await);
    bench.settings.keep_delivered = Duration::from_secs(50);
    bench.settings.keep_of_routes =
        vec![of_route("own", RouteKeep { events: Some(1), ..RouteKeep::default() })];
    bench.buffer.adopt(&bench.settings).await.unwrap();
    bench.buffer.sweep().await.unwrap();
    assert!(!is_there(&bench, one).await && is_there(&bench, dead).await);
    // A route's own rule begins for what settles from then on.
    let first = settled_on(&bench, "own", Next::Delivered, "a").await;
    bench.clock.advance(Duration::from_secs(1));
    let own = [first, settled_on(&bench, "own", Next::Delivered, "b").await];
    bench.buffer.sweep().await.unwrap();
    assert!(!is_there(&bench, own[0]).await && is_there(&bench, own[1]).await);
    bench.settings.keep_dead = Duration::from_secs(99);
    bench.buffer.adopt(&bench.settings).await.unwrap();
    bench.buffer.sweep().await.unwrap();
    assert!(!is_there(&bench, dead).await);
    model::audit(&bench.buffer);
}

#[tokio::test]
async fn a_new_limit_counts_at_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.buffer.stats().await.unwrap().max_bytes, 1 << 30);
    bench.settings.max_size = 128 << 20;
    bench.settings.min_free = u64::MAX;
    bench.buffer.adopt(&bench.settings).await.unwrap();
    assert_eq!(bench.buffer.stats().await.unwrap().max_bytes, 128 << 20);
    let until = Instant::now() + Duration::from_secs(10);
    while !matches!(bench.buffer.admission(), Admission::Full(_)) {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
