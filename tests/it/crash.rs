//! kill -9 at random instants under load, again and again: everything acknowledged reaches the app, and nothing is
//! stored twice. `ROUNDS` says how often (20 unless set), `SEED` repeats a run's instants.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::support::sender::Connection;
use crate::support::*;

/// What the senders know: for each body's hash, the event ids with which it was acknowledged.
type Ledger = Arc<Mutex<HashMap<String, HashSet<String>>>>;

/// Sends new events one after another. One that got no answer is sent again until it gets one, as providers do.
async fn sender(address: std::net::SocketAddr, ledger: Ledger, stop: Arc<AtomicBool>) {
    let mut connection: Option<Connection> = None;
    while !stop.load(Ordering::Relaxed) {
        // GitHub's route is keyed by an id that the signature does not cover, Stripe's by one that it does.
        let event = if fastrand::bool() { signed::github(push()) } else { signed::stripe(invoice_paid()) };
        loop {
            let answer = match &mut connection {
                Some(open) => open.send(&event).await,
                None => match Connection::plain(address).await {
                    Ok(mut open) => {
                        let answer = open.send(&event).await;
                        connection = Some(open);
                        answer
                    }
                    Err(problem) => Err(problem),
                },
            };
            match answer {
                Ok(answer) if answer.status == 202 => {
                    assert!(!answer.event_id().is_empty(), "{answer:?}");
                    ledger
                        .lock()
                        .entry(sha256(&event.body))
                        .or_default()
                        .insert(answer.event_id().to_owned());
                    break;
                }
                Ok(answer) => {
                    assert_eq!(answer.status, 503, "{answer:?}");
                    connection = None;
                }
                // The gateway is dead, or has just come back: wait a moment, then insist.
                Err(_) => connection = None,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            if stop.load(Ordering::Relaxed) {
                return; // never acknowledged: the sender knows that it has to try again
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_through_kill_9_at_random_instants() {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let rounds = number("ROUNDS", 20);
    let seed = number("SEED", fastrand::u64(..));
    println!("crash: {rounds} rounds, SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);

    let app = App::start().await;
    let mut gateway =
        gateway().route(github().to(&app).impatient()).route(stripe().to(&app).impatient()).start().await;
    let ledger = Ledger::default();
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> =
        (0..8).map(|_| tokio::spawn(sender(gateway.plain(), ledger.clone(), stop.clone()))).collect();

    for round in 0..rounds {
        // Every third round the app is down, so that there is a backlog to lose.
        if round % 3 == 2 {
            app.refuse().await;
        }
        tokio::time::sleep(Duration::from_micros(random.u64(1_000..400_000))).await;
        gateway.kill().await;
        if round % 3 == 2 {
            app.accept().await;
        }
        gateway.restart().await;
    }
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.expect("no sender saw anything but 202, 503 or a broken connection");
    }
    gateway.drained().await;

    let acknowledged = ledger.lock().clone();
    let mut arrived: HashMap<String, (usize, HashSet<String>)> = HashMap::new();
    for received in app.received() {
        let (times, ids) = arrived.entry(sha256(&received.body)).or_default();
        *times += 1;
        ids.insert(received.event_id().to_owned());
    }
    let dead = gateway.metric("tidegate_dead_letters", &[]).await;
    let lost: Vec<_> = acknowledged.keys().filter(|hash| !arrived.contains_key(*hash)).collect();
    let twice = |ids: &HashSet<String>| ids.len() > 1;
    let stored_twice = arrived.values().filter(|(_, ids)| twice(ids)).count();
    let answered_twice = acknowledged.values().filter(|ids| twice(ids)).count();
    let repeats: usize = arrived.values().map(|(times, _)| times - 1).sum();
    println!(
        "acknowledged {}, delivered {}, delivered again {repeats}, duplicates in the buffer {stored_twice}, dead {dead}, \
         lost {}",
        acknowledged.len(),
        arrived.len(),
        lost.len()
    );
    assert!(!acknowledged.is_empty(), "nothing was acknowledged: this run shows nothing");
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert_eq!((stored_twice, answered_twice), (0, 0), "one event, one id");
    assert_eq!(dead, 0.0);
}
