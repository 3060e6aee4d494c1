//! The bounds of quarantine, and what is left after a restart.

use std::time::Instant;

use super::*;
use crate::clock::ManualClock;
use crate::message::Request;
use crate::reason::Reason;
use crate::verify::testing::request;

struct Bench {
    folder: tempfile::TempDir,
    clock: ManualClock,
    quarantine: Quarantine,
}

const NOW: Timestamp = Timestamp(1_764_000_000_000);

fn settings() -> QuarantineSettings {
    QuarantineSettings {
        max_events: 10,
        max_size: 1 << 20,
        keep: Duration::from_secs(60),
        rate: 1000,
        rate_per: Duration::from_secs(1),
    }
}

impl Bench {
    fn with(settings: Option<QuarantineSettings>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(NOW);
        let quarantine = Self::opened(folder.path(), &clock, settings);
        Self { folder, clock, quarantine }
    }

    fn opened(folder: &Path, clock: &ManualClock, settings: Option<QuarantineSettings>) -> Quarantine {
        let quarantine =
            Quarantine::new(folder, Default::default(), Arc::default(), Clock::Manual(clock.clone()));
        quarantine.apply(settings);
        quarantine.open();
        quarantine
    }

    fn offer(&self, route: &Route, body: &[u8]) {
        self.offer_for(route, body, Reason::SignatureInvalid);
    }

    fn offer_for(&self, route: &Route, body: &[u8], reason: Reason) {
        let request = self.request(body);
        self.quarantine.offer(route, &request, None, &Refusal::new(reason, "test"));
    }

    fn request(&self, body: &[u8]) -> Request {
        let mut request = request("/in?token=x", &[("X-A", "1")], body);
        request.head.received_at = self.clock.now();
        request
    }

    /// Waits until what was offered is on disk, or is not kept.
    fn settled(&self) {
        let until = Instant::now() + Duration::from_secs(30);
        while self.quarantine.shared.waiting.load(Ordering::Relaxed) > 0 {
            assert!(Instant::now() < until, "the writer does not write");
            std::thread::yield_now();
        }
    }

    fn bodies(&self) -> Vec<Vec<u8>> {
        let listed = self.quarantine.list(&Filter::default(), None, 1000);
        assert!(listed.next.is_none());
        listed.items.iter().map(|item| self.quarantine.get(item.id).unwrap().unwrap().body.to_vec()).collect()
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("quarantine")).map_or(0, Iterator::count)
    }
}

/// A route of the name; what else it says is of no importance here.
fn route(name: &str) -> Route {
    let compiled =
        crate::verify::compile(&crate::verify::VerifySpec::None, &crate::verify::testing::World::default());
    Route {
        name: name.into(),
        tenants: None,
        clients: crate::config::Clients::Any,
        host: None,
        path: "/in".into(),
        methods: Vec::new(),
        allow: None,
        rate_limit: None,
        verify: compiled.unwrap().verifier,
        enforce: Default::default(),
        quarantine: KeepRefused::AsConfigured,
        expect_every: None,
        public_url: None,
        greeting_methods: Vec::new(),
        handshakes: crate::verify::Handshakes::default(),
        idempotency: None,
        event_type: None,
        keep: None,
        redact: Default::default(),
        unwanted: Default::default(),
        split: None,
        max_body: 1 << 20,
        refusals: crate::providers::Refusals::Explained,
        mode: crate::config::Mode::Buffer {
            answer: crate::config::Acknowledgement { status: 202, content_type: None, body: String::new() },
            destinations: Vec::new(),
        },
    }
}

#[test]
fn nothing_is_kept_unless_asked_for() {
    let bench = Bench::with(None);
    bench.offer(&route("a"), b"x");
    bench.settled();
    assert_eq!((bench.quarantine.holds(), bench.files()), ((0, 0), 0));
    assert!(!bench.folder.path().join("quarantine").exists());
}

#[test]
fn only_what_proves_nobody_is_kept_and_not_of_routes_that_say_never() {
    let bench = Bench::with(Some(settings()));
    bench.offer_for(&route("a"), b"x", Reason::KeyUnavailable);
    bench.offer(&Route { quarantine: KeepRefused::Never, ..route("a") }, b"y");
    bench.offer(&route("a"), b"z");
    bench.settled();
    assert_eq!(bench.bodies(), [b"z"]);
}

#[test]
fn the_oldest_go_first_by_number_and_by_size() {
    let bench = Bench::with(Some(settings()));
    let offer = |n: u8, size: usize| {
        bench.offer(&route("a"), &vec![n; size]);
        bench.clock.advance(Duration::from_millis(10));
        bench.settled();
    };
    (0..15).for_each(|n| offer(n, 10));
    let first: Vec<u8> = bench.bodies().iter().map(|body| body[0]).collect();
    assert_eq!(first, (5..15).rev().collect::<Vec<u8>>());
    (15..20).for_each(|n| offer(n, 300_000));
    let (items, bytes) = bench.quarantine.holds();
    assert!(bytes <= 1 << 20 && items == 3, "{items} items of {bytes} bytes");
    assert_eq!((bench.bodies()[0][0], bench.files()), (19, 3));
    // One that is larger than all of it takes nobody's place.
    offer(20, 2 << 20);
    assert_eq!(bench.quarantine.holds().0, 3);
}

#[test]
fn a_flood_is_kept_at_the_rate_and_routes_do_not_take_from_each_other() {
    let bench = Bench::with(Some(QuarantineSettings { rate: 3, max_events: 1000, ..settings() }));
    (0..10_000).for_each(|_| bench.offer(&route("a"), b"flood"));
    bench.offer(&route("b"), b"other");
    bench.settled();
    // Two of three: the last quarter is for other addresses.
    assert_eq!(bench.quarantine.holds().0, 2 + 1);
    bench.clock.advance(Duration::from_secs(1));
    (0..10_000).for_each(|_| bench.offer(&route("a"), b"flood"));
    bench.settled();
    assert_eq!(bench.quarantine.holds().0, 3 + 2);
}

#[test]
fn a_flood_from_one_address_neither_keeps_others_of_its_route_out_nor_pushes_them_out() {
    let bench = Bench::with(Some(QuarantineSettings { rate: 10, ..settings() }));
    let route = route("a");
    let offer = |client: [u8; 4], body: &[u8]| {
        let mut request = bench.request(body);
        request.head.client = client.into();
        bench.quarantine.offer(&route, &request, None, &Refusal::new(Reason::SignatureInvalid, "test"));
    };
    let (sender, stranger) = ([192, 0, 2, 1], [10, 6, 6, 6]);
    let flood = |millis: u64| {
        for _ in 0..millis {
            (0..5).for_each(|_| offer(stranger, b"flood"));
            bench.clock.advance(Duration::from_millis(1));
            bench.settled();
        }
    };
    offer(sender, b"before");
    bench.settled();
    flood(3000);
    // In the middle of it, a few more that are refused by mistake.
    for n in 0..3u8 {
        offer(sender, &[n]);
        bench.settled();
        flood(1000);
    }
    let of = |body: &[u8]| bench.bodies().iter().filter(|kept| kept.as_slice() == body).count();
    assert_eq!((of(b"before"), of(&[0]), of(&[1]), of(&[2]), of(b"flood")), (1, 1, 1, 1, 6));
    assert_eq!(bench.files(), 10);
    // After a restart it is known as well whose they are.
    let next = Bench::opened(bench.folder.path(), &bench.clock, Some(settings()));
    next.give_way(2 * 4096);
    let left = next.list(&Filter::default(), None, 100).items;
    assert_eq!(left.iter().filter(|item| item.source == std::net::IpAddr::from(sender)).count(), 4);
}

#[test]
fn a_long_flood_on_one_route_pushes_out_its_own_and_not_what_others_have() {
    // Ten places, a mebibyte.
    let bench = Bench::with(Some(settings()));
    let offer = |name: &str, body: &[u8]| {
        bench.offer(&route(name), body);
        bench.clock.advance(Duration::from_millis(10));
        bench.settled();
    };
    (0..3_u8).for_each(|n| offer("quiet", &[n]));
    (0..100).for_each(|_| offer("loud", b"flood"));
    let of = |name: &str| {
        let filter = Filter { route: Some(name.into()), ..Filter::default() };
        bench.quarantine.list(&filter, None, 1000).items.len()
    };
    assert_eq!((of("quiet"), of("loud")), (3, 7));
    (0..10).for_each(|_| offer("large", &vec![0; 200_000]));
    assert_eq!(of("quiet"), 3);
    assert!(of("large") >= 3 && bench.quarantine.holds().1 <= 1 << 20);
    // The buffer needs room: whoever has most gives it.
    bench.quarantine.give_way(300_000);
    assert_eq!(of("quiet"), 3);
    // A route that comes later gets its share of those who have more.
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(bench.files(), bench.quarantine.holds().0);
}

#[test]
fn what_is_past_its_time_goes_also_by_a_shorter_time_of_a_reload() {
    let bench = Bench::with(Some(settings()));
    let sweep = || {
        bench.quarantine.shared.sweep(bench.clock.now());
        bench.quarantine.holds().0
    };
    bench.offer(&route("a"), b"1");
    bench.settled();
    bench.clock.advance(Duration::from_secs(59));
    assert_eq!(sweep(), 1);
    bench.offer(&route("a"), b"2");
    bench.settled();
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!((sweep(), bench.bodies()), (1, vec![b"2".to_vec()]));
    bench.quarantine.apply(Some(QuarantineSettings { keep: Duration::from_secs(1), ..settings() }));
    assert_eq!((sweep(), bench.files()), (0, 0));
}

#[test]
fn a_restart_keeps_what_is_whole() {
    let bench = Bench::with(Some(settings()));
    for body in [&b"first"[..], b"second", b"third"] {
        bench.offer(&route("a"), body);
        bench.clock.advance(Duration::from_millis(5));
    }
    bench.settled();
    let folder = bench.folder.path().join("quarantine");
    let held = bench.quarantine.holds();
    let torn = bench.quarantine.list(&Filter::default(), None, 1).items[0].id;
    let whole = std::fs::read(folder.join(torn.to_string())).unwrap();
    std::fs::write(folder.join(torn.to_string()), &whole[..whole.len() - 2]).unwrap();
    std::fs::write(folder.join("half.part"), b"{").unwrap();
    std::fs::write(folder.join("README"), b"mine").unwrap();
    let again = Bench::opened(bench.folder.path(), &bench.clock, Some(settings()));
    assert_eq!(again.holds().0, held.0 - 1);
    let reasons: Vec<_> = again.list(&Filter::default(), None, 10).items;
    assert!(reasons.iter().all(|item| item.reason == Reason::SignatureInvalid && item.path == "/in"));
    let left: Vec<_> = reasons.iter().map(|item| again.get(item.id).unwrap().unwrap().body).collect();
    assert_eq!(left, [&b"second"[..], b"first"]);
    assert!(folder.join("README").exists() && !folder.join("half.part").exists());
}

#[test]
fn it_gives_way_to_events_at_once_and_takes_nothing_for_a_while() {
    let bench = Bench::with(Some(settings()));
    (0..5).for_each(|_| bench.offer(&route("a"), b"x"));
    bench.settled();
    let bytes = bench.quarantine.bytes();
    bench.quarantine.give_way(bytes / 2);
    assert!(bench.quarantine.bytes() <= bytes / 2 && bench.quarantine.holds().0 == 2);
    bench.offer(&route("a"), b"y");
    bench.settled();
    assert_eq!(bench.quarantine.holds().0, 2);
    bench.quarantine.give_way(u64::MAX);
    assert_eq!((bench.quarantine.holds(), bench.files()), ((0, 0), 0));
    bench.clock.advance(GIVEN_WAY);
    bench.offer(&route("a"), b"z");
    bench.settled();
    assert_eq!(bench.quarantine.holds().0, 1);
}

#[test]
fn a_listing_goes_page_by_page_and_by_its_conditions() {
    let bench = Bench::with(Some(settings()));
    for (name, reason) in
        [("a", Reason::SignatureInvalid), ("b", Reason::SignatureMissing), ("a", Reason::SignatureMissing)]
    {
        bench.offer_for(&route(name), b"x", reason);
        bench.clock.advance(Duration::from_secs(1));
    }
    bench.settled();
    let list = |filter: Filter, after, limit| bench.quarantine.list(&filter, after, limit);
    let first = list(Filter::default(), None, 2);
    assert_eq!((first.items.len(), first.items[0].reason), (2, Reason::SignatureMissing));
    let last = list(Filter::default(), first.next, 2);
    assert_eq!((last.items.len(), last.next), (1, None));
    let of_a = Filter { route: Some("a".into()), ..Filter::default() };
    assert_eq!(list(of_a, None, 9).items.len(), 2);
    let missing = Filter { reason: Some(Reason::SignatureMissing), ..Filter::default() };
    assert_eq!(list(missing, None, 9).items.len(), 2);
    let late = Filter { since: Some(Timestamp(NOW.0 + 1000)), ..Filter::default() };
    assert_eq!(list(late, None, 9).items.len(), 2);
    let early = Filter { until: Some(Timestamp(NOW.0 + 1000)), ..Filter::default() };
    assert_eq!(list(early, None, 9).items.len(), 1);
}
