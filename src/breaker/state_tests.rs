use super::*;
use proptest::prelude::*;

const SICK: Outcome = Outcome::Sick { asked: None };

fn settings() -> BreakerSettings {
    BreakerSettings::default()
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// One try from begin to end at one moment.
fn tries(state: &mut State, outcome: Outcome, now: Instant) -> Charge {
    let (ticket, _) = state.begin(Some(&settings()), now).unwrap();
    state.end(ticket, outcome, Some(&settings()), now).0
}

fn opened(now: Instant) -> State {
    let mut state = State::default();
    for _ in 0..5 {
        assert_eq!(state.phase(now), Phase::Closed);
        assert_eq!(tries(&mut state, SICK, now), Charge::Counts);
    }
    assert_eq!(state.phase(now), Phase::Open);
    state
}

#[test]
fn it_opens_on_failures_in_a_row_and_on_a_share_of_them() {
    let now = Instant::now();
    opened(now);
    // Never five in a row, but half of all.
    let mut state = State::default();
    for n in 0..20 {
        assert_eq!(state.phase(now), Phase::Closed, "{n}");
        tries(&mut state, if n % 2 == 0 { Outcome::Well } else { SICK }, now);
    }
    assert_eq!(state.phase(now), Phase::Open);
    // A third is not half, and what the app refuses of a single event is no failure of it.
    let mut state = State::default();
    for n in 0..300 {
        tries(&mut state, if n % 3 == 0 { SICK } else { Outcome::Well }, now);
    }
    assert_eq!(state.phase(now), Phase::Closed);
}

#[test]
fn one_probe_decides_and_is_not_charged() {
    let start = Instant::now();
    let mut state = opened(start);
    assert_eq!(state.begin(Some(&settings()), start + secs(29)).unwrap_err(), start + secs(30));
    let now = start + secs(30);
    assert_eq!(state.phase(now), Phase::HalfOpen);
    assert_eq!(state.room(Some(&settings()), 16, now).allowed, 1);
    let (probe, change) = state.begin(Some(&settings()), now).unwrap();
    assert_eq!(change, Some(Change::HalfOpened));
    assert!(state.begin(Some(&settings()), now).is_err(), "a second probe");
    let (charge, change) = state.end(probe, SICK, Some(&settings()), now + secs(5));
    assert_eq!(charge, Charge::Spared);
    assert_eq!(change, Some(Change::Reopened { until: now + secs(35) }));
    let now = now + secs(35);
    let (probe, _) = state.begin(Some(&settings()), now).unwrap();
    let (charge, change) = state.end(probe, Outcome::Well, Some(&settings()), now);
    assert_eq!((charge, change), (Charge::Counts, Some(Change::Closed { after: secs(65) })));
    assert_eq!(state.phase(now), Phase::SlowStart);
    assert_eq!(state.phase(now + secs(30)), Phase::Closed);
}

#[test]
fn hope_brings_the_probe_forward_and_nothing_else() {
    let start = Instant::now();
    let mut state = opened(start);
    assert!(state.probe_soon(start + secs(1)));
    let (probe, change) = state.begin(Some(&settings()), start + secs(1)).unwrap();
    assert_eq!(change, Some(Change::HalfOpened));
    assert!(!state.probe_soon(start + secs(1)), "one probe at a time");
    assert!(state.begin(Some(&settings()), start + secs(1)).is_err());
    state.end(probe, SICK, Some(&settings()), start + secs(2));
    assert_eq!(state.next_probe(), Some(start + secs(32)), "hope in vain costs its time");
    assert!(!State::default().probe_soon(start));
}

#[test]
fn a_probe_that_nobody_hears_of_leaves_its_place() {
    let mut state = opened(Instant::now());
    let mut now = Instant::now() + secs(30);
    for (outcome, pause) in [(Outcome::Unknown, AFTER_LOST_PROBE), (Outcome::Unused, Duration::ZERO)] {
        let (probe, _) = state.begin(Some(&settings()), now).unwrap();
        state.end(probe, outcome, Some(&settings()), now);
        now += pause;
        assert_eq!(state.room(Some(&settings()), 16, now).allowed, 1, "{outcome:?}");
    }
}

#[test]
fn what_was_under_way_when_it_opened_changes_nothing_and_is_not_charged() {
    let now = Instant::now();
    let mut state = State::default();
    let (first, _) = state.begin(Some(&settings()), now).unwrap();
    let (second, _) = state.begin(Some(&settings()), now).unwrap();
    (0..5).for_each(|_| {
        let _ = tries(&mut state, SICK, now);
    });
    let until = now + secs(30);
    assert_eq!(state.end(first, SICK, Some(&settings()), now + secs(1)), (Charge::Spared, None));
    // Not even a success: the app was well when that began.
    assert_eq!(state.end(second, Outcome::Well, Some(&settings()), now + secs(2)).1, None);
    assert_eq!((state.phase(now + secs(2)), state.next_probe()), (Phase::Open, Some(until)));
}

#[test]
fn an_app_that_asks_for_a_pause_gets_it_within_limits() {
    let now = Instant::now();
    let asks = |secs_: u64| Outcome::Sick { asked: Some(secs(secs_)) };
    for (asked, pause) in [(1, 1), (90, 90), (999_999, 3600)] {
        let mut state = State::default();
        assert_eq!(tries(&mut state, asks(asked), now), Charge::Counts);
        assert_eq!(state.next_probe(), Some(now + secs(pause)));
    }
    let mut state = State::default();
    tries(&mut state, asks(0), now);
    assert_eq!(state.phase(now), Phase::Closed);
}

#[test]
fn our_own_trouble_pauses_longer_and_longer_and_charges_nobody_even_when_off() {
    for settings in [None, Some(settings())] {
        let settings = settings.as_ref();
        let (mut state, mut now, mut pauses) = (State::default(), Instant::now(), Vec::new());
        for _ in 0..9 {
            let (ticket, _) = state.begin(settings, now).unwrap();
            let (charge, _) = state.end(ticket, Outcome::Ours, settings, now);
            assert_eq!(charge, Charge::Spared);
            let until = state.next_probe().unwrap();
            assert_eq!(state.room(settings, 8, now).allowed, 0);
            pauses.push((until - now).as_secs());
            now = until;
            assert_eq!(state.room(settings, 8, now).allowed, 1);
        }
        assert_eq!(pauses, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        let (ticket, _) = state.begin(settings, now).unwrap();
        state.end(ticket, Outcome::Well, settings, now);
        assert_eq!(state.room(settings, 8, now + secs(30)).allowed, 8);
    }
}

#[test]
fn turned_off_it_holds_nothing() {
    let now = Instant::now();
    let mut state = opened(now);
    assert_eq!(state.room(None, 16, now), Room { allowed: 16, grows_at: None, probes: false });
    assert!(state.begin(None, now).is_ok());
    assert_eq!(state.phase(now), Phase::Closed);
}

#[test]
fn the_room_grows_evenly_and_says_when() {
    let now = Instant::now();
    let mut state = opened(now);
    let now = now + secs(30);
    tries(&mut state, Outcome::Well, now);
    let mut at = now;
    let mut steps = Vec::new();
    loop {
        let room = state.room(Some(&settings()), 4, at);
        steps.push(room.allowed);
        match room.grows_at {
            Some(next) => at = next,
            None => break,
        }
    }
    assert_eq!((steps, at), (vec![1, 2, 3, 4], now + secs(30)));
    let strength = |after| state.strength(Some(&settings()), now + after);
    assert!(strength(secs(0)) > 0.0 && strength(secs(15)) == 0.5 && strength(secs(31)) == 1.0);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    End(usize, Outcome),
    Wait(u64),
    Switch(bool),
    /// A health check succeeded, or an operator resumed.
    Hope,
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Well),
        5 => Just(SICK),
        1 => (0u64..500).prop_map(|s| Outcome::Sick { asked: Some(secs(s)) }),
        1 => Just(Outcome::Ours),
        1 => Just(Outcome::Unknown),
        1 => Just(Outcome::Unused),
    ];
    prop_oneof![
        6 => Just(Step::Begin),
        6 => (any::<usize>(), outcome).prop_map(|(n, outcome)| Step::End(n, outcome)),
        3 => (0u64..40_000).prop_map(Step::Wait),
        1 => Just(Step::Hope),
        1 => prop::bool::weighted(0.8).prop_map(Step::Switch),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    /// Whatever happens: never two probes at once, nothing begins while it is open, no failure of a probe or of the
    /// gateway is charged, and it never stays shut.
    #[test]
    fn it_keeps_its_promises_in_any_history(steps in prop::collection::vec(step(), 0..300), most in 1usize..20) {
        let on = BreakerSettings { longest_pause: secs(300), ..settings() };
        let (mut state, mut now, mut is_on) = (State::default(), Instant::now(), true);
        let mut running: Vec<(Ticket, bool)> = Vec::new();
        for step in steps {
            let settings = is_on.then_some(&on);
            match step {
                Step::Begin => {
                    let room = state.room(settings, most, now);
                    let phase = state.phase(now);
                    prop_assert!(room.allowed <= most);
                    match state.begin(settings, now) {
                        Ok((ticket, change)) => {
                            prop_assert_ne!(phase, Phase::Open);
                            prop_assert!(room.allowed > 0);
                            let probe = change == Some(Change::HalfOpened);
                            prop_assert_eq!(probe, phase == Phase::HalfOpen);
                            // Tickets of earlier probes may still be out, but none of this epoch.
                            let epoch = ticket.epoch;
                            prop_assert!(!probe || running.iter().all(|(other, _)| other.epoch != epoch));
                            running.push((ticket, probe));
                        }
                        Err(at) => {
                            prop_assert!(phase == Phase::Open || phase == Phase::HalfOpen);
                            prop_assert!(at > now, "it would be asked in a loop");
                        }
                    }
                }
                Step::End(n, outcome) if !running.is_empty() => {
                    let (ticket, probe) = running.swap_remove(n % running.len());
                    let current = ticket.epoch == state.epoch;
                    let was = state.phase(now);
                    let (charge, _) = state.end(ticket, outcome, settings, now);
                    match outcome {
                        Outcome::Ours => prop_assert_ne!(charge, Charge::Counts),
                        Outcome::Sick { .. } if is_on && current && probe => {
                            prop_assert_ne!(charge, Charge::Counts);
                            prop_assert_eq!(state.phase(now), Phase::Open);
                        }
                        Outcome::Sick { .. } if matches!(was, Phase::Open | Phase::HalfOpen) && is_on => {
                            prop_assert_ne!(charge, Charge::Counts);
                        }
                        Outcome::Well if current => prop_assert_ne!(state.phase(now), Phase::Open),
                        _ => {}
                    }
                }
                Step::End(..) => {}
                Step::Wait(ms) => now += Duration::from_millis(ms),
                Step::Switch(on) => is_on = on,
                Step::Hope => {
                    let was = state.phase(now);
                    if state.probe_soon(now) {
                        prop_assert_eq!((was, state.phase(now)), (Phase::Open, Phase::HalfOpen));
                    } else {
                        prop_assert_eq!(state.phase(now), was);
                    }
                }
            }
            prop_assert!(state.next_probe().is_none_or(|at| at <= now + secs(300)), "open for too long");
        }
        // All that was under way ends; then a well app gets all its room back.
        let settings = Some(&on);
        for (ticket, _) in running {
            state.end(ticket, Outcome::Unknown, settings, now);
        }
        now += secs(300);
        for _ in 0..2 {
            if let Ok((ticket, _)) = state.begin(settings, now) {
                state.end(ticket, Outcome::Well, settings, now);
            }
        }
        now += on.slow_start;
        prop_assert_eq!(state.room(settings, most, now).allowed, most);
    }

    /// The slow start: the room never shrinks, never jumps ahead of time, and the growth is announced.
    #[test]
    fn a_slow_start_is_never_exceeded(most in 1usize..200, looks in prop::collection::vec(0u64..2_000, 1..60)) {
        let mut state = opened(Instant::now());
        let start = Instant::now() + secs(31);
        tries(&mut state, Outcome::Well, start);
        let (mut now, mut before, mut announced) = (start, 1, None);
        for pause in looks {
            now += Duration::from_millis(pause);
            let room = state.room(Some(&settings()), most, now);
            let share = (now - start).as_secs_f64() / 30.0;
            prop_assert!(room.allowed >= before);
            prop_assert!(room.allowed as f64 <= (share * most as f64).max(1.0) + 1e-6 || room.allowed == 1);
            if announced.is_some_and(|at| now < at) {
                prop_assert_eq!(room.allowed, before, "it grew before it said");
            }
            (before, announced) = (room.allowed, room.grows_at);
        }
    }
}
