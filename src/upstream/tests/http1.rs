use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::message::Method;
use crate::upstream::testing::*;
use crate::upstream::{Upstream, UpstreamError, pool};

use Act::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const FLOOD: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";

fn upstream(app: &App) -> Upstream {
    Upstream::new(&destination(&app.url())).unwrap()
}

/// Status and body, or the class of the error.
async fn outcome(upstream: &Upstream, body: Bytes) -> Result<(u16, Vec<u8>), UpstreamError> {
    let mut incoming = upstream.send(&post("/hook"), body).await?;
    let body = super::super::testing::body(&mut incoming).await?;
    Ok((incoming.status, body))
}

#[tokio::test]
async fn a_bad_app_is_named_for_what_it_did() {
    struct Case {
        what: &'static str,
        app: &'static [&'static [Act]],
        gives: Result<(u16, &'static [u8]), &'static str>,
    }
    let cases = [
        Case { what: "closes at once", app: &[&[]], gives: Err("broken") },
        Case { what: "resets at once", app: &[&[Reset]], gives: Err("broken") },
        Case { what: "resets after the request", app: &[&[Read, Reset]], gives: Err("broken") },
        Case { what: "resets mid-request", app: &[&[ReadHead, Reset]], gives: Err("broken") },
        Case {
            what: "closes within the head",
            app: &[&[Read, Send(b"HTTP/1.1 200 OK\r\nContent-")]],
            gives: Err("broken"),
        },
        Case {
            what: "closes within the body",
            app: &[&[Read, Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")]],
            gives: Err("broken"),
        },
        Case {
            what: "closes within a chunked body",
            app: &[&[Read, Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")]],
            gives: Err("broken"),
        },
        Case {
            what: "breaks the chunked coding",
            app: &[&[Read, Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX")]],
            gives: Err("protocol"),
        },
        Case {
            what: "sends a length beside chunked",
            app: &[&[
                Read,
                Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok"),
            ]],
            gives: Err("protocol"),
        },
        Case {
            what: "sends an invalid header",
            app: &[&[Read, Send(b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n")]],
            gives: Err("protocol"),
        },
        Case { what: "is no HTTP server", app: &[&[Read, Send(b"SSH-2.0-x\r\n")]], gives: Err("protocol") },
        Case { what: "floods with 1xx", app: &[&[Read, Flood(FLOOD)]], gives: Err("protocol") },
        Case {
            what: "floods with a head",
            app: &[&[Read, Send(b"HTTP/1.1 200 OK\r\n"), Flood(b"A: b\r\n")]],
            gives: Err("protocol"),
        },
        Case {
            what: "switches unasked",
            app: &[&[Read, Send(b"HTTP/1.1 101 Switching\r\n\r\n")]],
            gives: Err("protocol"),
        },
        Case {
            what: "sends 100 first",
            app: &[&[ReadHead, Send(b"HTTP/1.1 100 Continue\r\n\r\n"), Send(OK), ReadAll]],
            gives: Ok((200, b"ok")),
        },
        Case { what: "trickles, but in time", app: &[&[Read, Trickle(OK)]], gives: Ok((200, b"ok")) },
        Case {
            what: "ends the body by closing",
            app: &[&[Read, Send(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")]],
            gives: Ok((200, b"until the end")),
        },
        Case {
            what: "sends trailers",
            app: &[&[
                Read,
                Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n"),
            ]],
            gives: Ok((200, b"ok")),
        },
        Case {
            what: "sends more than its length",
            app: &[&[Read, Send(OK), Send(OK)]],
            gives: Ok((200, b"ok")),
        },
        Case {
            what: "answers 204",
            app: &[&[Read, Send(b"HTTP/1.1 204 No\r\n\r\n")]],
            gives: Ok((204, b"")),
        },
    ];
    for Case { what, app, gives } in cases {
        let app = App::start(app).await;
        let got = outcome(&upstream(&app), pattern(1000)).await;
        match (&got, gives) {
            (Ok((status, body)), Ok(wanted)) => {
                assert_eq!((*status, &body[..]), wanted, "an app that {what}")
            }
            (Err(error), Err(class)) => assert_eq!(error.class(), class, "an app that {what}: {error}"),
            _ => panic!("an app that {what}: {got:?}"),
        }
        assert_eq!(app.connections(), 1, "an app that {what} got the request twice");
    }
}

#[tokio::test]
async fn an_app_that_takes_too_long_is_given_up_in_each_phase() {
    let cases: [(&'static [&'static [Act]], &str); 5] = [
        (&[&[Hang]], "answer"),
        (&[&[Read, Send(b"HTTP/1.1 100 Continue\r\n\r\n"), Hang]], "answer"),
        (&[&[Read, Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), Hang]], "body"),
        (&[&[Read, Send(b"HTTP/1.1 200 OK\r\n\r\n"), Flood(b"never ending")]], "body"),
        (&[&[Read, Send(b"HTTP/1.1 200 OK\r\n\r\n"), Trickle(&[b'.'; 100_000])]], "body"),
    ];
    let mut running = tokio::task::JoinSet::new();
    for (script, phase) in cases {
        running.spawn(async move {
            let app = App::start(script).await;
            let mut settings = destination(&app.url());
            settings.timeout = Duration::from_millis(500);
            let upstream = Upstream::new(&settings).unwrap();
            let error = outcome(&upstream, pattern(10)).await.unwrap_err();
            assert!(matches!(error, UpstreamError::Timeout(p) if p == phase), "{script:?}: {error}");
        });
    }
    running.join_all().await;
}

#[tokio::test]
async fn a_server_whose_answers_break_off_is_passed_over() {
    const HALF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
    const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nwhole";
    let (breaks, well) =
        (App::start(&[&[Read, Send(HALF)]]).await, App::start(&[&[Read, Send(WHOLE)]]).await);
    let mut settings = destination(&breaks.url());
    settings.upstreams.push(well.url().parse().unwrap());
    let upstream = Upstream::new(&settings).unwrap();
    let mut broken = 0;
    for _ in 0..20 {
        broken += usize::from(outcome(&upstream, pattern(9)).await.is_err());
    }
    assert_eq!(broken, 5);
    assert_eq!(upstream.servers()[0].state, "skipped");
}

#[tokio::test]
async fn refused_and_unknown_are_told_apart() {
    let refused = Upstream::new(&destination(&format!("http://{}", nobody().await))).unwrap();
    let error = outcome(&refused, Bytes::new()).await.unwrap_err();
    assert_eq!((error.class(), error.is_ours()), ("connect", false));
    let unknown = Upstream::new(&destination("http://no-such-host.invalid")).unwrap();
    let error = outcome(&unknown, Bytes::new()).await.unwrap_err();
    assert_eq!((error.class(), error.is_ours()), ("dns", true));
}

#[tokio::test]
async fn an_early_refusal_is_read_while_a_large_body_is_still_being_sent() {
    const TOO_LARGE: &[u8] = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig";
    let app = App::start(&[&[ReadHead, Send(TOO_LARGE), Hang]]).await;
    let upstream = upstream(&app);
    assert_eq!(outcome(&upstream, pattern(10 << 20)).await.unwrap(), (413, b"big".to_vec()));
    assert_eq!(pool::idle(upstream.key(0)), 0, "half a request is on that connection");
}

#[tokio::test]
async fn an_early_success_does_not_cut_the_body_that_the_app_goes_on_reading() {
    let (received, mut bodies) = mpsc::unbounded_channel();
    let app = App::with(move |mut socket, _| {
        let received = received.clone();
        async move {
            socket.write_all(OK).await.unwrap();
            let (_, body) = read_request(&mut socket).await.unwrap();
            received.send(body).unwrap();
            std::future::pending::<()>().await;
        }
    })
    .await;
    let upstream = upstream(&app);
    let sent = pattern(3 << 20);
    assert_eq!(outcome(&upstream, sent.clone()).await.unwrap().0, 200);
    assert_eq!(bodies.recv().await.unwrap(), sent);
    assert_eq!(pool::idle(upstream.key(0)), 1);
}

#[tokio::test]
async fn the_app_gets_the_bytes_as_they_are_whatever_the_size() {
    let (received, mut requests) = mpsc::unbounded_channel();
    let app = App::with(move |mut socket, _| {
        let received = received.clone();
        async move {
            while let Some((head, body)) = read_request(&mut socket).await {
                let length = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                socket.write_all(length.as_bytes()).await.unwrap();
                socket.write_all(&body).await.unwrap();
                received.send((head, body)).unwrap();
            }
        }
    })
    .await;
    let upstream = upstream(&app);
    for size in SIZES {
        let sent = pattern(size);
        let (_, echoed) = outcome(&upstream, sent.clone()).await.unwrap();
        assert_eq!(echoed, sent, "{size}");
        let (head, body) = requests.recv().await.unwrap();
        assert_eq!(body, sent, "{size}");
        let wanted = format!(
            r"POST /hook HTTP/1.1\r\nHost: hooks.example\r\nX-Case: \xffKept\r\nContent-Length: {size}\r\n\r\n"
        );
        assert_eq!(head, wanted);
    }
    assert_eq!(app.connections(), 1, "one connection carried them all");
}

#[tokio::test]
async fn a_finished_connection_is_used_again_and_an_unfinished_one_is_closed() {
    const LONG: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbegin";
    let app = App::start(&[&[Read, Send(OK), Read, Send(LONG), ReadAll], &[Read, Send(OK), Hang]]).await;
    let upstream = upstream(&app);
    outcome(&upstream, pattern(9)).await.unwrap();
    assert_eq!(pool::idle(upstream.key(0)), 1);
    let mut half_read = upstream.send(&post("/"), pattern(9)).await.unwrap();
    assert!(half_read.chunk().await.unwrap().is_some());
    drop(half_read);
    assert_eq!(pool::idle(upstream.key(0)), 0);
    outcome(&upstream, pattern(9)).await.unwrap();
    assert_eq!(app.connections(), 2);
}

#[tokio::test]
async fn connection_close_is_obeyed() {
    const CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let app = App::start(&[&[Read, Send(CLOSE), Hang]]).await;
    let upstream = upstream(&app);
    outcome(&upstream, pattern(9)).await.unwrap();
    assert_eq!(pool::idle(upstream.key(0)), 0);
}

#[tokio::test]
async fn a_pooled_connection_that_turns_out_closed_is_replaced_once_and_only_if_nothing_was_answered() {
    // Closes as soon as the second request comes, without a byte of an answer.
    let app = App::start(&[&[Read, Send(OK), ReadHead], &[Read, Send(OK), Hang]]).await;
    let client = upstream(&app);
    for _ in 0..2 {
        assert_eq!(outcome(&client, pattern(100)).await.unwrap().0, 200);
    }
    assert_eq!(app.connections(), 2);

    // A fresh connection that does the same is not replaced.
    let app = App::start(&[&[Read, Send(OK), ReadHead], &[Read]]).await;
    let client = upstream(&app);
    outcome(&client, pattern(100)).await.unwrap();
    assert_eq!(outcome(&client, pattern(100)).await.unwrap_err().class(), "broken");
    assert_eq!(app.connections(), 2);

    // After one byte of an answer nothing is sent again.
    let app = App::start(&[&[Read, Send(OK), Read, Send(b"H")]]).await;
    let client = upstream(&app);
    outcome(&client, pattern(100)).await.unwrap();
    assert_eq!(outcome(&client, pattern(100)).await.unwrap_err().class(), "broken");
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn an_idle_connection_that_the_app_closed_or_wrote_on_is_not_used() {
    let (closed, mut closes) = mpsc::unbounded_channel();
    let app = App::with(move |mut socket, n| {
        let closed = closed.clone();
        async move {
            read_request(&mut socket).await;
            socket.write_all(OK).await.unwrap();
            if n == 1 {
                socket.write_all(b"HTTP/1.1 408 Timeout\r\n\r\n").await.unwrap();
            }
            if n < 2 {
                drop(socket);
                closed.send(()).unwrap();
            } else {
                read_request(&mut socket).await;
            }
        }
    })
    .await;
    let client = upstream(&app);
    for connections in 1..=3 {
        assert_eq!(outcome(&client, pattern(100)).await.unwrap(), (200, b"ok".to_vec()));
        assert_eq!(app.connections(), connections);
        if connections < 3 {
            closes.recv().await.unwrap();
        }
    }
}

#[tokio::test]
async fn head_answers_have_no_body_whatever_they_say() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    let app = App::start(&[&[Read, Send(HEAD), Read, Send(OK), Hang]]).await;
    let upstream = upstream(&app);
    let mut head = post("/");
    head.method = Method::HEAD;
    let mut incoming = upstream.send(&head, Bytes::new()).await.unwrap();
    assert_eq!(incoming.chunk().await.unwrap(), None);
    assert_eq!(outcome(&upstream, pattern(1)).await.unwrap().0, 200);
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn an_upstream_that_cant_be_reached_is_passed_over_within_the_attempt() {
    let app = App::start(&[&[Read, Send(OK)]]).await;
    let mut settings = destination(&app.url());
    settings.upstreams =
        vec![format!("http://{}", nobody().await).parse().unwrap(), app.url().parse().unwrap()];
    let upstream = Upstream::new(&settings).unwrap();
    for _ in 0..4 {
        assert_eq!(outcome(&upstream, pattern(1)).await.unwrap().0, 200);
    }
}

#[tokio::test]
async fn upstreams_of_one_destination_must_shape_the_target_alike() {
    let mut settings = destination("http://a/hook");
    settings.upstreams.push("http://b/other".parse().unwrap());
    assert!(Upstream::new(&settings).unwrap_err().0.contains("same path"));
}

#[tokio::test]
async fn a_broken_body_never_looks_complete_to_one_who_asks_again() {
    let app = App::start(&[&[Read, Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")]]).await;
    let mut incoming = upstream(&app).send(&post("/"), Bytes::new()).await.unwrap();
    while incoming.chunk().await.is_ok() {}
    assert!(incoming.chunk().await.is_err());
}

#[test]
fn a_connection_is_never_used_on_another_runtime() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        for _ in 0..2 {
            use std::io::{Read as _, Write as _};
            let (mut socket, _) = listener.accept().unwrap();
            let _ = socket.read(&mut [0; 4096]);
            socket.write_all(OK).unwrap();
            std::mem::forget(socket);
        }
    });
    let upstream = Upstream::new(&destination(&url)).unwrap();
    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sent = runtime.block_on(outcome(&upstream, pattern(10)));
        assert_eq!(sent.unwrap().0, 200);
    }
    served.join().unwrap();
}

#[tokio::test]
async fn reading_is_safe_to_cancel() {
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = std::sync::Mutex::new(Some(wait));
    let app = App::with(move |mut socket, _| {
        let wait = wait.lock().unwrap().take();
        async move {
            read_request(&mut socket).await;
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await.unwrap();
            let _ = wait.unwrap().await;
            socket.write_all(b"cd").await.unwrap();
            let _ = socket.read(&mut [0; 1]).await;
        }
    })
    .await;
    let mut incoming = upstream(&app).send(&post("/"), Bytes::new()).await.unwrap();
    assert_eq!(incoming.chunk().await.unwrap().unwrap(), "ab");
    tokio::select! {
        biased;
        chunk = incoming.chunk() => panic!("{chunk:?}"),
        () = std::future::ready(()) => {}
    }
    go.send(()).unwrap();
    assert_eq!(incoming.chunk().await.unwrap().unwrap(), "cd");
    assert_eq!(incoming.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn idle_connections_are_closed_after_a_while_though_nobody_asks() {
    let app = App::start(&[&[Read, Send(OK), ReadAll]]).await;
    let upstream = upstream(&app);
    outcome(&upstream, pattern(1)).await.unwrap();
    assert_eq!(pool::idle(upstream.key(0)), 1);
    tokio::time::pause();
    tokio::time::sleep(pool::IDLE_TIMEOUT / 2).await;
    assert_eq!(pool::idle(upstream.key(0)), 1);
    tokio::time::sleep(pool::IDLE_TIMEOUT).await;
    assert_eq!(pool::idle(upstream.key(0)), 0);
}
