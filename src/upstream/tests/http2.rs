use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming as Received;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::config::{Destination, UpstreamHttp};
use crate::upstream::h2::WAITS;
use crate::upstream::testing::*;
use crate::upstream::{Upstream, UpstreamError};

fn http2(app: &App) -> Destination {
    Destination { http: UpstreamHttp::Http2, ..destination(&app.url()) }
}

async fn echo(request: Request<Received>) -> Result<Response<Full<Bytes>>, Infallible> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    if query == "hang" {
        std::future::pending::<()>().await;
    }
    let seen = format!(
        "{} {} {:?} {:?}",
        request.method(),
        request.uri(),
        request.headers().get("x-case").map(|v| v.as_bytes().escape_ascii().to_string()),
        request.headers().get("content-length"),
    );
    let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert("x-seen", seen.parse().unwrap());
    Ok(response)
}

async fn app() -> App {
    App::with(|socket, _| async move {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(socket), service_fn(echo)).await;
    })
    .await
}

#[tokio::test]
async fn bodies_of_every_size_arrive_whole_over_one_connection() {
    let app = app().await;
    let upstream = Upstream::new(&http2(&app)).unwrap();
    for size in SIZES {
        let sent = pattern(size);
        let mut incoming = upstream.send(&post("/hook?a=%20"), sent.clone()).await.unwrap();
        assert_eq!(body(&mut incoming).await.unwrap(), sent, "{size}");
        let seen = String::from_utf8_lossy(incoming.headers.first("x-seen").unwrap()).into_owned();
        assert!(seen.starts_with("POST http://hooks.example/hook?a=%20"), "{seen}");
        assert!(seen.contains(r"\\xffKept") && seen.ends_with(&format!("Some(\"{size}\")")), "{seen}");

        let (mut writer, answering) = upstream.start(&post("/"), None).await.unwrap();
        let upload = async {
            for start in (0..size).step_by(30_000) {
                writer.write(sent.slice(start..size.min(start + 30_000))).await.unwrap();
            }
            writer.finish().await.unwrap();
        };
        let download = async { body(&mut answering.head().await.unwrap()).await.unwrap() };
        let ((), echoed) = tokio::join!(upload, download);
        assert_eq!(echoed, sent, "streamed {size}");
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn requests_at_once_share_one_connection() {
    let app = app().await;
    let upstream = Upstream::new(&http2(&app)).unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let upstream = upstream.clone();
            tokio::spawn(async move { upstream.send(&post("/"), pattern(100)).await.unwrap().status })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 200);
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn an_app_that_hangs_is_given_up_and_the_connection_kept() {
    let app = app().await;
    let upstream =
        Upstream::new(&Destination { timeout: Duration::from_millis(500), ..http2(&app) }).unwrap();
    let error = upstream.send(&post("/?hang"), Bytes::new()).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Timeout("answer")), "{error}");
    assert_eq!(upstream.send(&post("/"), Bytes::new()).await.unwrap().status, 200);
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn a_streamed_request_that_is_broken_off_does_not_look_complete_to_the_app() {
    let (seen, mut bodies) = mpsc::unbounded_channel();
    let app = App::with(move |socket, _| {
        let seen = seen.clone();
        async move {
            let service = service_fn(move |request: Request<Received>| {
                let seen = seen.clone();
                async move {
                    seen.send(request.into_body().collect().await.is_ok()).unwrap();
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(socket), service).await;
        }
    })
    .await;
    let upstream = Upstream::new(&http2(&app)).unwrap();
    let (mut writer, answering) = upstream.start(&post("/"), None).await.unwrap();
    let head = tokio::spawn(answering.head());
    writer.write("half".into()).await.unwrap();
    drop(writer);
    assert!(!bodies.recv().await.unwrap());
    assert!(head.await.unwrap().is_err());
}

/// A server that speaks just enough of HTTP/2's frames to refuse, on its first connections.
async fn refusing(first_answer: &'static [u8], refused: Arc<AtomicUsize>, connections: usize) -> App {
    const PREFACE: usize = 24;
    App::with(move |mut socket, n| {
        let refused = refused.clone();
        async move {
            if n >= connections {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(socket), service_fn(echo)).await;
                return;
            }
            socket.read_exact(&mut [0; PREFACE]).await.unwrap();
            // Our empty SETTINGS.
            socket.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            loop {
                let mut frame = [0; 9];
                if socket.read_exact(&mut frame).await.is_err() {
                    return;
                }
                let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize;
                socket.read_exact(&mut vec![0; length]).await.unwrap();
                const HEADERS: u8 = 1;
                if frame[3] == HEADERS {
                    refused.fetch_add(1, Ordering::SeqCst);
                    let _ = socket.write_all(first_answer).await;
                }
            }
        }
    })
    .await
}

// RST_STREAM(REFUSED_STREAM) on stream 1; GOAWAY(NO_ERROR) with last stream 0.
const REFUSED: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7];
const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[tokio::test]
async fn a_request_that_the_app_says_it_did_not_process_is_sent_again_a_few_times() {
    for answer in [REFUSED, GOAWAY] {
        for times in [1, WAITS.len()] {
            let refused = Arc::new(AtomicUsize::new(0));
            let app = refusing(answer, refused.clone(), times).await;
            let upstream = Upstream::new(&http2(&app)).unwrap();
            let mut incoming = upstream.send(&post("/"), pattern(100)).await.unwrap();
            assert_eq!(body(&mut incoming).await.unwrap(), pattern(100));
            assert_eq!((refused.load(Ordering::SeqCst), app.connections()), (times, times + 1));
        }
    }
}

#[tokio::test]
async fn an_app_that_processes_nothing_is_charged_for_nothing_and_another_is_asked() {
    for answer in [REFUSED, GOAWAY] {
        let refused = Arc::new(AtomicUsize::new(0));
        let app = refusing(answer, refused.clone(), usize::MAX).await;
        let upstream = Upstream::new(&http2(&app)).unwrap();
        for _ in 0..2 {
            let error = upstream.send(&post("/"), pattern(100)).await.unwrap_err();
            assert_eq!(error.class(), "unprocessed", "{error}");
        }
        assert_eq!(refused.load(Ordering::SeqCst), 2 * (1 + WAITS.len()));
        assert_eq!(upstream.servers()[0].state, "up");

        let other = self::app().await;
        let mut both = http2(&app);
        both.upstreams.push(other.url().parse().unwrap());
        let both = Upstream::new(&both).unwrap();
        for _ in 0..2 {
            assert_eq!(both.send(&post("/"), pattern(100)).await.unwrap().status, 200);
        }
    }
}

#[tokio::test]
async fn one_stream_is_opened_until_the_app_has_said_how_many_it_allows() {
    const PREFACE: usize = 24;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    let (told, mut opened) = mpsc::unbounded_channel();
    let app = App::with(move |mut socket, _| {
        let told = told.clone();
        async move {
            socket.read_exact(&mut [0; PREFACE]).await.unwrap();
            let mut streams = 0;
            loop {
                let mut frame = [0; 9];
                socket.read_exact(&mut frame).await.unwrap();
                let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize;
                socket.read_exact(&mut vec![0; length]).await.unwrap();
                match (frame[3], frame[4]) {
                    (HEADERS, _) => {
                        streams += 1;
                        // Only now: SETTINGS with MAX_CONCURRENT_STREAMS 2.
                        if streams == 1 {
                            socket.write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2]).await.unwrap();
                        }
                    }
                    // Its ACK: the client has read it.
                    (SETTINGS, 1) => break,
                    _ => {}
                }
            }
            told.send(streams).unwrap();
            std::future::pending::<()>().await;
        }
    })
    .await;
    let upstream = Upstream::new(&http2(&app)).unwrap();
    let requests: Vec<_> = (0..16)
        .map(|_| {
            let upstream = upstream.clone();
            tokio::spawn(async move { upstream.send(&post("/"), Bytes::new()).await.map(drop) })
        })
        .collect();
    assert_eq!(opened.recv().await, Some(1));
    requests.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_request_that_may_have_been_processed_is_not_sent_again() {
    // RST_STREAM(INTERNAL_ERROR) on stream 1.
    const INTERNAL: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 2];
    let refused = Arc::new(AtomicUsize::new(0));
    let app = refusing(INTERNAL, refused.clone(), 1).await;
    let upstream = Upstream::new(&http2(&app)).unwrap();
    let error = upstream.send(&post("/"), pattern(100)).await.unwrap_err();
    assert_eq!(error.class(), "broken");
    assert_eq!((refused.load(Ordering::SeqCst), app.connections()), (1, 1));
}

#[tokio::test]
async fn a_fresh_connection_that_breaks_is_not_tried_again_and_a_pooled_one_is() {
    // Closes when the second stream's HEADERS come (its first byte is length, the fourth the type).
    let app = App::with(|socket, n| async move {
        if n == 1 {
            return;
        }
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let served = server.serve_connection(TokioIo::new(socket), service_fn(echo));
        if n == 0 {
            let _ = tokio::time::timeout(Duration::from_millis(200), served).await;
        } else {
            let _ = served.await;
        }
    })
    .await;
    let upstream = Upstream::new(&http2(&app)).unwrap();
    assert_eq!(upstream.send(&post("/"), pattern(9)).await.unwrap().status, 200);
    // Under way when the pooled connection is closed; its repeat meets a fresh one that is closed at once.
    let error = upstream.send(&post("/?hang"), pattern(9)).await.unwrap_err();
    assert_eq!((error.class(), app.connections()), ("broken", 2), "{error:?}");
    let error = upstream.send(&post("/"), pattern(9)).await;
    assert_eq!((error.unwrap().status, app.connections()), (200, 3));
}
