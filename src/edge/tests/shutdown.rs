use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::edge::test_support::*;

const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn requests_in_flight_finish_and_idle_connections_end() {
    let mut edge = Edge::plain();
    let mut idle = edge.connect();
    idle.write_all(GET).unwrap();
    assert_eq!(read_response(&mut idle).status, 200);
    let mut busy = edge.connect();
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    block_on(edge.app.waiting.notified());

    edge.shutdown.send_replace(true);
    assert_eq!(read_all(&mut idle), "");
    edge.app.gate.notify_one();
    let said = read_all(&mut busy);
    assert!(said.contains("onnection: close") && said.ends_with("waited"), "{said}");
    drop((idle, busy));
    edge.stop().unwrap();
    assert!(std::net::TcpStream::connect(edge.address).is_err(), "nobody listens any more");
}

#[test]
fn the_grace_period_has_an_end() {
    let mut app = EchoApp::new(limits());
    app.grace = Duration::from_millis(200);
    let mut edge = Edge::start(app, None);
    let mut busy = edge.connect();
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    block_on(edge.app.waiting.notified());
    let began = Instant::now();
    edge.stop().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(read_all(&mut busy), "");
}

#[test]
fn under_load_every_request_that_was_taken_is_answered() {
    for round in 0..5 {
        let mut edge = if round % 2 == 0 { Edge::plain() } else { Edge::tls() };
        let (answered, unanswered) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let stopping = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    'connections: while !stopping.load(Ordering::SeqCst) {
                        let Ok(tcp) = std::net::TcpStream::connect(edge.address) else { return };
                        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                        let mut stream: Box<dyn Both> = if round % 2 == 0 {
                            Box::new(tcp)
                        } else {
                            let client = tokio_rustls::rustls::ClientConnection::new(
                                edge.client_config(&[]),
                                "localhost".try_into().unwrap(),
                            );
                            Box::new(tokio_rustls::rustls::StreamOwned::new(client.unwrap(), tcp))
                        };
                        for request in 0.. {
                            if stream.write_all(GET).and_then(|()| stream.flush()).is_err() {
                                continue 'connections;
                            }
                            match status_line(&mut *stream) {
                                Some(line) if line.starts_with("HTTP/1.1 200") => {
                                    answered.fetch_add(1, Ordering::SeqCst);
                                }
                                Some(line) => panic!("{line}"),
                                // Closed between our requests: it may have been sent too late to be taken.
                                None if request > 0 => continue 'connections,
                                None if stopping.load(Ordering::SeqCst) => continue 'connections,
                                None => {
                                    unanswered.fetch_add(1, Ordering::SeqCst);
                                }
                            }
                        }
                    }
                });
            }
            while answered.load(Ordering::SeqCst) < 100 {
                std::thread::yield_now();
            }
            stopping.store(true, Ordering::SeqCst);
            edge.shutdown.send_replace(true);
        });
        edge.stop().unwrap();
        assert_eq!(unanswered.load(Ordering::SeqCst), 0);
        assert!(answered.load(Ordering::SeqCst) <= edge.seen());
    }
}

trait Both: std::io::Read + Write {}
impl<T: std::io::Read + Write> Both for T {}

/// The first line of a response to `GET`, whose rest is read; `None` if the connection ended instead.
fn status_line(stream: &mut dyn Both) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\nok") {
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            Ok(_) | Err(_) => return None,
        }
    }
    String::from_utf8(bytes).unwrap().lines().next().map(str::to_owned)
}

#[test]
fn an_edge_can_start_and_stop_often_and_at_once() {
    for _ in 0..5 {
        Edge::plain().stop().unwrap();
    }
    let (_shutdown, stopped) = tokio::sync::watch::channel(true);
    let (ready, is_ready) = tokio::sync::watch::channel(false);
    let sockets = crate::edge::bind(["127.0.0.1:0".parse().unwrap()]).unwrap();
    let app = std::sync::Arc::new(EchoApp::new(limits()));
    crate::edge::listen::serve(sockets, app, 1, stopped, ready).unwrap();
    assert!(!*is_ready.borrow());
}
