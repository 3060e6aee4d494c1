use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;

use crate::clock::Clock;
use crate::config::{Destination, Retry};
use crate::deliver::Deliverer;
use crate::upstream::Upstream;
use crate::upstream::testing::{App, destination, read_request};

use super::fake::{Memory, seams};

/// The value of a header in a head as `read_request` gives it.
fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let (_, rest) = head.split_once(&format!("\\r\\n{name}: ")).unwrap_or_default();
    rest.split("\\r\\n").next().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_reach_a_flaky_app_with_their_bytes_and_their_attempts_counted() {
    let (memory, clock) = (Arc::new(Memory::default()), Clock::System);
    let seen: Arc<Mutex<HashMap<String, Vec<String>>>> = Arc::default();
    let app =
        {
            let seen = seen.clone();
            App::with(move |mut socket, _| {
                let seen = seen.clone();
                async move {
                    while let Some((head, body)) = read_request(&mut socket).await {
                        assert!(head.starts_with(
                            r"POST /hook?x=%20 HTTP/1.1\r\nHost: hooks.example\r\nX-SIG: \xff\r\n"
                        ));
                        assert_eq!(body, b"the body");
                        let attempts = {
                            let mut seen = seen.lock();
                            let of = seen.entry(header(&head, "tidegate-event-id").to_owned()).or_default();
                            of.push(header(&head, "tidegate-attempt").to_owned());
                            of.len()
                        };
                        let answer: &[u8] = match attempts {
                            1 => b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 4\r\n\r\nbusy",
                            // No answer at all.
                            2 => return,
                            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                        };
                        socket.write_all(answer).await.unwrap();
                    }
                }
            })
            .await
        };
    let destination = Arc::new(Destination {
        retry: Retry { first: Duration::from_millis(5), max: Duration::from_millis(20), ..Retry::default() },
        concurrency: 8,
        ..destination(&app.url())
    });
    memory.fill(100, clock.now(), b"the body");
    let deliverer = Deliverer::new(seams(memory.clone(), &clock));
    let upstream = Arc::new(Upstream::new(&destination).unwrap());
    deliverer.apply(vec![(destination, upstream)]);
    tokio::time::timeout(Duration::from_secs(60), memory.until_settled()).await.unwrap();
    deliverer.shutdown(Duration::from_secs(1)).await;

    let seen = seen.lock();
    assert_eq!(seen.len(), 100);
    for attempts in seen.values() {
        assert_eq!((&attempts[0][..], attempts.len() >= 3), ("1", true), "{attempts:?}");
    }
    assert!(app.connections() < 250, "connections are used again: {}", app.connections());
}
