//! Finding events by every condition, both ways through them, and in a bounded time a page.

use super::*;

/// Three events: delivered, dead after a 503, and pending.
async fn three() -> (Bench, [EventId; 3]) {
    let bench = Bench::new();
    let mut ids = Vec::new();
    for n in 0..3u8 {
        let mut event = bench.event(&format!("{{\"data\":{{\"email\":\"{n}@example.com\"}}}}"));
        event.source = [10, 0, 0, n].into();
        event.idempotency_key = Some(format!("evt_{n}"));
        event.headers = Headers::from_iter([("X-Shop", format!("Shop-{n}").as_bytes())]);
        ids.push(event.id);
        bench.buffer.append(event, &[app()], None).await.unwrap();
        bench.clock.advance(Duration::from_secs(1));
    }
    let leased = bench.lease(2).await;
    bench.settle(&leased[0], Next::Delivered);
    let gone = Settlement {
        attempt: Some(attempt(bench.now(), 503)),
        ..settlement(&leased[1], bench.now(), Next::Dead(DeadReason::TooOld))
    };
    bench.buffer.settle(gone).unwrap();
    bench.settled().await;
    (bench, [ids[0], ids[1], ids[2]])
}

async fn found(bench: &Bench, search: Search) -> Vec<EventId> {
    bench.buffer.search(search).await.unwrap().events.iter().map(|(event, _)| event.id).collect()
}

#[tokio::test]
async fn each_condition_finds_what_meets_it() {
    let (bench, [delivered, dead, pending]) = three().await;
    let one = |change: fn(&mut EventFilter)| {
        let mut filter = EventFilter::default();
        change(&mut filter);
        found(&bench, Search::new(filter, 10))
    };
    let value = |text: &str| Some(ValueIs { pointer: "/data/email".into(), equals: text.into() });
    assert_eq!(one(|f| f.reason = Some(DeadReason::TooOld)).await, [dead]);
    assert_eq!(one(|f| f.reason = Some(DeadReason::GivenUp)).await, []);
    assert_eq!(one(|f| f.status = "5xx".parse().ok()).await, [dead]);
    assert_eq!(one(|f| f.status = "200".parse().ok()).await, [delivered]);
    assert_eq!(one(|f| f.state = Some("pending".into())).await, [pending]);
    assert_eq!(one(|f| f.source = "10.0.0.2".parse().ok()).await, [pending]);
    assert_eq!(one(|f| f.source = "10.0.0.0/31".parse().ok()).await, [dead, delivered]);
    assert_eq!(one(|f| f.idempotency_key = Some("evt_1".into())).await, [dead]);
    assert_eq!(one(|f| f.header = Some("shop: SHOP-2".into())).await, [pending]);
    assert_eq!(one(|f| f.header = Some("x-shop".into())).await, [pending, dead, delivered]);
    let by_value = EventFilter { body: value("0@example.com"), ..EventFilter::default() };
    assert_eq!(found(&bench, Search::new(by_value, 10)).await, [delivered]);
    let nobody = EventFilter { body: value("@example.com"), ..EventFilter::default() };
    assert_eq!(found(&bench, Search::new(nobody, 10)).await, []);
}

#[tokio::test]
async fn the_value_of_a_hidden_header_can_not_be_searched() {
    let (bench, _) = three().await;
    let search = |text: &str| {
        let filter = EventFilter { header: Some(text.into()), ..EventFilter::default() };
        let hidden: Hidden = Arc::new(|route| {
            assert_eq!(route, "hooks");
            Box::new(|asked| asked == Asked::Header("X-Shop"))
        });
        Search { hidden, ..Search::new(filter, 10) }
    };
    assert_eq!(found(&bench, search("shop-2")).await, []);
    assert_eq!(found(&bench, search("x-shop:")).await.len(), 3, "its name is no secret");
}

#[tokio::test]
async fn oldest_first_goes_up_to_where_it_was_told() {
    let (bench, [first, second, third]) = three().await;
    let search = Search::new(EventFilter::default(), 10).oldest_first();
    assert_eq!(found(&bench, search.clone()).await, [first, second, third]);
    assert_eq!(found(&bench, search.clone().after(Some(first))).await, [second, third]);
    let upto = Search { upto: Some(second), ..search.clone() };
    assert_eq!(found(&bench, upto).await, [first, second]);
    let dead = EventFilter { state: Some("dead".into()), ..EventFilter::default() };
    assert_eq!(found(&bench, Search::new(dead.clone(), 10).oldest_first()).await, [second]);
    assert_eq!(found(&bench, Search::new(dead, 10).oldest_first().after(Some(second))).await, []);
}

#[tokio::test]
async fn a_page_whose_time_is_up_says_where_to_go_on_and_never_stands_still() {
    let (bench, [first, second, third]) = three().await;
    let nothing = EventFilter { event_type: Some("none".into()), ..EventFilter::default() };
    let mut search = Search { budget: Duration::ZERO, ..Search::new(nothing, 10) };
    let mut passed = Vec::new();
    loop {
        let page = bench.buffer.search(search.clone()).await.unwrap();
        assert!(page.events.is_empty() && page.examined == 1);
        match page.next {
            Some(next) => passed.push(next),
            None => break,
        }
        search.after = page.next;
    }
    assert_eq!(passed, [third, second]);
    assert!(first < second);
}
