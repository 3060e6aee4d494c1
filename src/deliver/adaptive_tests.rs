use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// An app in simulated time that works on `capacity` events at once, each for `takes`; more of them share it. There is
/// always more to do.
struct Simulation {
    limiter: Adaptive,
    bounds: Bounds,
    now: Instant,
    /// When each attempt ends, and when it began.
    in_flight: BinaryHeap<Reverse<(Instant, Instant)>>,
    capacity: usize,
    takes: Duration,
    /// Percent of the answers that are failures.
    failing: u8,
    dice: fastrand::Rng,
    /// Percent by which the time of one answer differs from that of another.
    noise: u32,
}

impl Simulation {
    fn new(bounds: Bounds, capacity: usize, takes: Duration) -> Self {
        Self {
            limiter: Adaptive::default(),
            bounds,
            now: Instant::now(),
            in_flight: BinaryHeap::new(),
            capacity,
            takes,
            failing: 0,
            dice: fastrand::Rng::with_seed(7),
            noise: 0,
        }
    }

    /// Goes on for `span`; gives the limits that it saw, weighted by time, as a mean, and how many answers there were.
    fn run(&mut self, span: Duration) -> (f64, usize) {
        let (end, began) = (self.now + span, self.now);
        let (mut weighted, mut answers) = (0.0, 0);
        while self.now < end {
            let limit = self.limiter.limit(self.bounds);
            assert!(limit >= self.bounds.min && limit <= self.bounds.max, "{limit} of {:?}", self.bounds);
            while self.in_flight.len() < limit {
                let load = ((self.in_flight.len() + 1) as f64 / self.capacity as f64).max(1.0);
                let noise = f64::from(self.dice.u32(100 - self.noise..=100 + self.noise)) / 100.0;
                let done = self.now + self.takes.mul_f64(load * noise);
                self.in_flight.push(Reverse((done, self.now)));
                self.limiter.begins(self.bounds, self.in_flight.len(), self.now);
            }
            let Some(Reverse((done, began))) = self.in_flight.pop() else { break };
            weighted += limit as f64 * (done - self.now).as_secs_f64();
            self.now = done;
            let fails = self.dice.u8(0..100) < self.failing;
            let outcome = if fails { Outcome::Sick { asked: None } } else { Outcome::Well };
            answers += usize::from(!fails);
            self.limiter.ends(self.bounds, began, outcome, self.now);
        }
        (weighted / (self.now - began).as_secs_f64(), answers)
    }
}

const WIDE: Bounds = Bounds { min: 1, max: 500 };

#[test]
fn it_comes_to_about_twice_what_the_app_works_on_at_once() {
    for (capacity, noise) in [(4, 0), (4, 80), (20, 0), (20, 80), (60, 30)] {
        let mut app = Simulation { noise, ..Simulation::new(WIDE, capacity, 20 * MS) };
        app.run(Duration::from_secs(60));
        let (mean, answers) = app.run(Duration::from_secs(120));
        let share = mean / capacity as f64;
        assert!((1.0..=3.0).contains(&share), "{capacity} at once, noise {noise}: {mean}");
        // What the app could have done at most.
        let most = capacity as f64 * 120.0 / 0.020;
        assert!(answers as f64 > most * 0.85, "{capacity} at once: {answers} of {most}");
    }
}

#[test]
fn it_backs_off_when_the_app_gets_weaker_and_recovers_with_it() {
    let mut app = Simulation::new(WIDE, 40, 50 * MS);
    app.run(Duration::from_secs(60));
    let (before, _) = app.run(Duration::from_secs(60));
    app.capacity = 5;
    app.run(Duration::from_secs(60));
    let (weak, _) = app.run(Duration::from_secs(240));
    assert!(before > 40.0 && weak < 20.0, "{before}, then {weak}");
    app.capacity = 40;
    app.run(Duration::from_secs(60));
    let (after, _) = app.run(Duration::from_secs(120));
    assert!((40.0..120.0).contains(&after), "{weak}, then {after}");
}

#[test]
fn an_app_that_has_become_slower_for_good_gets_its_places_back() {
    let mut app = Simulation::new(WIDE, 20, 20 * MS);
    app.run(Duration::from_secs(60));
    app.takes = 100 * MS;
    app.run(Duration::from_secs(600));
    let (mean, _) = app.run(Duration::from_secs(120));
    assert!(mean > 18.0, "{mean}: the time that an answer takes is no sign of load by itself");
}

#[test]
fn an_app_whose_latency_does_not_climb_gets_all_that_the_config_allows() {
    let mut app = Simulation::new(Bounds { min: 2, max: 64 }, 1_000, 10 * MS);
    app.run(Duration::from_secs(20));
    let (mean, _) = app.run(Duration::from_secs(60));
    assert!(mean > 60.0, "{mean}");
}

#[test]
fn failures_shrink_it_to_the_least_and_it_grows_back_after_them() {
    let mut app = Simulation::new(Bounds { min: 2, max: 64 }, 1_000, 10 * MS);
    app.run(Duration::from_secs(20));
    app.failing = 100;
    app.run(Duration::from_secs(10));
    assert_eq!(app.limiter.limit(app.bounds), 2);
    app.failing = 0;
    app.run(Duration::from_secs(20));
    let (mean, _) = app.run(Duration::from_secs(60));
    assert!(mean > 60.0, "{mean}");
    // One event of a hundred that the app can't take is no sign of load.
    app.failing = 1;
    let (mean, _) = app.run(Duration::from_secs(60));
    assert!(mean > 30.0, "{mean}");
}

#[test]
fn what_is_not_used_up_does_not_grow() {
    let (limiter, bounds, mut now) = (Adaptive::default(), WIDE, Instant::now());
    let mut one_at_a_time = |times: usize| {
        for _ in 0..times {
            limiter.begins(bounds, 1, now);
            now += 10 * MS;
            limiter.ends(bounds, now - 10 * MS, Outcome::Well, now);
        }
        limiter.limit(bounds)
    };
    one_at_a_time(100);
    assert_eq!(one_at_a_time(10_000), 2, "one in flight says nothing about more than the next");
}

#[test]
fn a_reload_with_other_bounds_holds_at_once() {
    let mut app = Simulation::new(Bounds { min: 1, max: 64 }, 1_000, 10 * MS);
    app.run(Duration::from_secs(20));
    assert_eq!(app.limiter.limit(Bounds { min: 1, max: 5 }), 5);
    assert_eq!(app.limiter.limit(Bounds { min: 80, max: 90 }), 80);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the app does, and whenever, the limit keeps its bounds (`run` looks at each) and the app gets work.
    #[test]
    fn the_bounds_are_kept_in_any_history(
        min in 1usize..20, more in 0usize..100,
        history in proptest::collection::vec((1usize..80, 1u32..200, 0u8..=100, 1u64..20), 1..12), seed in any::<u64>(),
    ) {
        let mut app = Simulation::new(Bounds { min, max: min + more }, 1, MS);
        app.dice = fastrand::Rng::with_seed(seed);
        app.noise = 50;
        for (capacity, takes, failing, seconds) in history {
            (app.capacity, app.takes, app.failing) = (capacity, MS * takes, failing);
            let (mean, _) = app.run(Duration::from_secs(seconds));
            let bounds = (min as f64 - 1e-6)..=((min + more) as f64 + 1e-6);
            prop_assert!(bounds.contains(&mean), "{} of {:?}", mean, bounds);
        }
    }
}
