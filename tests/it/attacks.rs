//! The attack catalogue over raw sockets: each case is refused (or is data), and the app sees exactly one well-formed
//! request or none.

use crate::support::gateway::Then;
use crate::support::*;

/// What must come of the first request on the connection.
#[derive(Clone, Copy, Debug)]
enum Must {
    /// This status, and the connection closed, though its sender would go on.
    Refuse(u16),
    /// The same, once the sender has nothing more to send.
    RefuseAtEnd(u16),
    /// This status; the connection may stay.
    Answer(u16),
    Accept,
}

use Must::{Accept, Answer as Answers, Refuse, RefuseAtEnd};

const BAD: Must = Refuse(400);

struct Case {
    what: &'static str,
    bytes: Vec<u8>,
    must: Must,
}

fn case(what: &'static str, bytes: impl Into<Vec<u8>>, must: Must) -> Case {
    Case { what, bytes: bytes.into(), must }
}

/// `POST /in` with these header lines and, after them, this body.
fn post(what: &'static str, lines: &str, body: &str, must: Must) -> Case {
    case(what, format!("POST /in HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n{body}"), must)
}

fn lengths() -> Vec<Case> {
    vec![
        post(
            "a length beside chunked",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
            BAD,
        ),
        post(
            "chunked beside a length",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "0\r\n\r\n",
            BAD,
        ),
        post("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n", "hello!", BAD),
        post("two equal lengths", "Content-Length: 5\r\nContent-Length: 5\r\n", "hello", BAD),
        post("a list of equal lengths", "Content-Length: 5, 5\r\n", "hello", BAD),
        post("a list of lengths", "Content-Length: 5, 6\r\n", "hello!", BAD),
        post("a length with a sign", "Content-Length: +5\r\n", "hello", BAD),
        post("a negative length", "Content-Length: -1\r\n", "", BAD),
        post("a hexadecimal length", "Content-Length: 0x5\r\n", "hello", BAD),
        post("an empty length", "Content-Length:\r\n", "", BAD),
        post("a length with a space inside", "Content-Length: 1 0\r\n", "hellohello", BAD),
        post("a huge length", "Content-Length: 99999999999999999999999\r\n", "hello", BAD),
        post("a length of words", "Content-Length: five\r\n", "hello", BAD),
    ]
}

fn codings() -> Vec<Case> {
    let one = "5\r\nhello\r\n0\r\n\r\n";
    vec![
        post("chunked", "Transfer-Encoding: chunked\r\n", one, Accept),
        post("chunked in another case", "Transfer-Encoding: Chunked\r\n", one, Accept),
        post("an unknown coding", "Transfer-Encoding: xchunked\r\n", one, Refuse(501)),
        post("chunked, then identity", "Transfer-Encoding: chunked, identity\r\n", one, BAD),
        post("identity, then chunked", "Transfer-Encoding: identity, chunked\r\n", one, BAD),
        post("gzip, then chunked", "Transfer-Encoding: gzip, chunked\r\n", one, BAD),
        post("chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", one, BAD),
        post("chunked twice in a list", "Transfer-Encoding: chunked, chunked\r\n", one, BAD),
        post(
            "chunked and another header",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
            one,
            BAD,
        ),
        post("a vertical tab", "Transfer-Encoding: \x0bchunked\r\n", one, BAD),
        post("a comma too many", "Transfer-Encoding: ,chunked\r\n", one, BAD),
        post("quotes", "Transfer-Encoding: \"chunked\"\r\n", one, BAD),
        post("a space before the colon", "Transfer-Encoding : chunked\r\n", one, BAD),
        case(
            "chunked in HTTP/1.0",
            format!("POST /in HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{one}"),
            BAD,
        ),
    ]
}

fn chunks() -> Vec<Case> {
    let chunked = |what, body: &str, must| post(what, "Transfer-Encoding: chunked\r\n", body, must);
    vec![
        chunked("a size that overflows", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n", BAD),
        chunked("a huge size", "ffffffff\r\nhello\r\n0\r\n\r\n", RefuseAtEnd(400)),
        chunked("a negative size", "-5\r\nhello\r\n0\r\n\r\n", BAD),
        chunked("a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n", BAD),
        chunked("a space before the size", " 5\r\nhello\r\n0\r\n\r\n", BAD),
        chunked("no size", "\r\nhello\r\n0\r\n\r\n", BAD),
        chunked("no line end after the data", "5\r\nhello0\r\n\r\n", BAD),
        chunked("more data than said", "5\r\nhello!\r\n0\r\n\r\n", BAD),
        chunked("a bare line feed after the size", "5\nhello\r\n0\r\n\r\n", BAD),
        chunked("a bare line feed after the data", "5\r\nhello\n0\r\n\r\n", BAD),
        chunked("a bare carriage return", "5\rhello\r\n0\r\n\r\n", BAD),
        chunked("no end", "5\r\nhello\r\n", RefuseAtEnd(400)),
    ]
}

fn headers() -> Vec<Case> {
    vec![
        post("a space before the colon", "X-A : b\r\n", "", BAD),
        post("an empty name", ": b\r\n", "", BAD),
        post("a control byte in a name", "X-\x01A: b\r\n", "", BAD),
        post("a control byte in a value", "X-A: b\x01\r\n", "", BAD),
        post("a NUL in a value", "X-A: b\0c\r\n", "", BAD),
        post("a bare carriage return in a value", "X-A: b\rX-B: c\r\n", "", BAD),
        post("a bare line feed", "X-A: b\nX-B: c\r\n", "", BAD),
        post("a folded line", "X-A: b\r\n c\r\n", "", BAD),
        post("a folded first line", " X-A: b\r\n", "", BAD),
        post("no colon", "X-A\r\n", "", BAD),
        post("a name that is not ASCII", "X-\u{e4}: b\r\n", "", BAD),
        case(
            "lines without carriage returns",
            "POST /in HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n",
            BAD,
        ),
    ]
}

fn request_lines() -> Vec<Case> {
    let line = |what, line: &str, must| {
        case(what, format!("{line}\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"), must)
    };
    let version = Refuse(505);
    vec![
        line("two spaces", "POST  /in HTTP/1.1", BAD),
        line("tabs", "POST\t/in\tHTTP/1.1", BAD),
        line("a space at the end", "POST /in HTTP/1.1 ", BAD),
        line("no version", "POST /in", BAD),
        line("HTTP/1.2", "POST /in HTTP/1.2", version),
        line("HTTP/2.0 in text", "POST /in HTTP/2.0", version),
        line("HTTP/3.0", "POST /in HTTP/3.0", version),
        line("lower-case http", "POST /in http/1.1", BAD),
        line("a lower-case method", "post /in HTTP/1.1", BAD),
        line("an unknown method", "BREW /in HTTP/1.1", Answers(405)),
        line("TRACE", "TRACE /in HTTP/1.1", Answers(405)),
        line("CONNECT", "CONNECT localhost:443 HTTP/1.1", Answers(405)),
        line("a fragment", "POST /in#x HTTP/1.1", BAD),
        line("no slash", "POST in HTTP/1.1", BAD),
        line("an asterisk outside of OPTIONS", "POST * HTTP/1.1", BAD),
        line("an authority outside of CONNECT", "POST localhost:80 HTTP/1.1", BAD),
        line("an absolute target with another host", "POST http://other.example/in HTTP/1.1", BAD),
        line("an absolute target with our host", "POST http://localhost/in HTTP/1.1", Accept),
        line("a control byte in the path", "POST /in\x01 HTTP/1.1", BAD),
        line("a path that is not ASCII", "POST /in\u{e4} HTTP/1.1", BAD),
        line("a NUL in the path", "POST /in\0 HTTP/1.1", BAD),
    ]
}

fn hosts() -> Vec<Case> {
    let host = |what, lines: &str, must| {
        case(what, format!("POST /in HTTP/1.1\r\n{lines}Content-Length: 0\r\n\r\n"), must)
    };
    vec![
        host("no host", "", BAD),
        host("two hosts", "Host: localhost\r\nHost: localhost\r\n", BAD),
        host("two different hosts", "Host: localhost\r\nHost: other\r\n", BAD),
        host("an empty host", "Host:\r\n", BAD),
        host("a user in the host", "Host: user@localhost\r\n", BAD),
        host("a path in the host", "Host: localhost/in\r\n", BAD),
        host("a space in the host", "Host: local host\r\n", BAD),
        host("a bad port", "Host: localhost:port\r\n", BAD),
        host("a port that is too large", "Host: localhost:99999\r\n", BAD),
        host("an upper-case host with a final dot", "Host: LOCALHOST.:8080\r\n", Accept),
        host("an IPv6 host", "Host: [::1]:8080\r\n", Accept),
    ]
}

fn paths() -> Vec<Case> {
    let path = |what, target: &str, must| {
        case(what, format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"), must)
    };
    let elsewhere = Answers(404);
    vec![
        path("a step up", "/x/../in", BAD),
        path("an encoded step up", "/x/%2e%2e/in", BAD),
        path("a half-encoded step up", "/x/.%2E/in", BAD),
        path("an encoded NUL", "/in%00", BAD),
        path("two slashes", "//in", elsewhere),
        path("a path parameter", "/in;x", elsewhere),
        path("an encoded slash", "/x%2Fin", elsewhere),
        path("an overlong encoding", "/x/%c0%ae%c0%ae/in", BAD),
        path("a slash at the end", "/in/", elsewhere),
        path("another case", "/IN", elsewhere),
        path("a backslash", "/x\\..\\in", BAD),
    ]
}

fn connection_tricks() -> Vec<Case> {
    let two = |first: &str| {
        let second = "POST /in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nsmuggled";
        format!("{first}{second}")
    };
    vec![
        post("an unknown expectation", "Expect: the-unexpected\r\nContent-Length: 0\r\n", "", Answers(417)),
        post("a body that is too short", "Content-Length: 10\r\n", "hello", RefuseAtEnd(400)),
        case(
            "a second request behind a smuggled length",
            two(
                "POST /in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            BAD,
        ),
        case(
            "a second request behind a malformed one",
            two("POST /in HTTP/1.1\r\nHost: localhost\r\nX-A : b\r\nContent-Length: 0\r\n\r\n"),
            BAD,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_malformed_is_refused_and_never_reaches_the_app() {
    let app = App::start().await;
    // The app's real answer: what it sees is what was accepted.
    let route =
        unverified("/in").mode("proxy").set("idempotency", "off").set("methods", json!(["POST"])).to(&app);
    let gateway = gateway().route(route).start().await;
    let cases =
        [lengths(), codings(), chunks(), headers(), request_lines(), hosts(), paths(), connection_tricks()];
    let mut wrong = Vec::new();
    let mut refusals: std::collections::BTreeMap<String, u32> = Default::default();
    for Case { what, bytes, must } in cases.into_iter().flatten() {
        app.forget();
        // Who is refused is hung up on: the answers end although this side does not.
        let then = if matches!(must, Refuse(_)) { Then::Stay } else { Then::End };
        let answers = gateway.raw_and(&bytes, then).await;
        let statuses: Vec<_> = answers.iter().flatten().map(|answer| answer.status).collect();
        for answer in answers.iter().flatten().filter(|answer| answer.status != 200) {
            *refusals.entry(answer.reason().to_owned()).or_default() += 1;
        }
        let seen = app.received();
        let fine = match must {
            Refuse(expected) | RefuseAtEnd(expected) => {
                statuses == [expected] && seen.is_empty() && answers.is_ok()
            }
            Must::Answer(expected) => statuses.first() == Some(&expected) && seen.is_empty(),
            Accept => statuses == [200] && seen.len() == 1,
        };
        let reasoned =
            answers.iter().flatten().all(|answer| answer.status == 200 || !answer.reason().is_empty());
        if !fine || !reasoned {
            let lines: Vec<_> = seen.iter().map(|received| received.request_line.clone()).collect();
            wrong.push(format!(
                "{what} ({must:?}): answered {statuses:?}, app saw {lines:?}, reasons given: {reasoned}, closed: {}",
                answers.is_ok()
            ));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(gateway.send(&Request::post("/in", "x")).await.status, 200, "and the gateway lives");
    // Each refusal is counted and logged once.
    assert!(refusals.len() > 5, "{refusals:?}");
    for (reason, count) in &refusals {
        gateway.counts("tidegate_requests_total", &[("outcome", reason)], f64::from(*count)).await;
        eventually(&format!("{reason} stands in the log as often"), async || {
            let lines = gateway.log_lines();
            lines.iter().filter(|line| line["reason"] == reason.as_str()).count() == *count as usize
        })
        .await;
    }
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_never_become_headers() {
    let app = App::start().await;
    let gateway = gateway().route(unverified("/in").mode("proxy").to(&app)).start().await;
    let with = |trailers: &str| {
        format!(
            "POST /in HTTP/1.1\r\nHost: localhost\r\nTrailer: X-A\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0\r\n{trailers}\r\n"
        )
    };
    // Those that would mean something are refused, and none passes for a header.
    for (trailers, status) in [
        ("X-A: b\r\n", 400),
        ("X-Hub-Signature-256: sha256=00\r\n", 400),
        ("Content-Length: 9\r\n", 400),
        ("Host: evil\r\n", 400),
        ("", 200),
    ] {
        let answers = gateway.raw(with(trailers).as_bytes()).await;
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [status], "{trailers:?}");
    }
    assert_eq!(app.count(), 1);
    assert_eq!(app.received()[0].body, b"hello");
    // HTTP/2 has trailers, too; they do not reach the app either.
    let answer = gateway.connect_http2().await.send_with_trailers("/in", "hello2", ("x-a", "b")).await;
    let received = app.receives(2).await.remove(1);
    assert_eq!(answer.expect("answered").status, 200);
    assert_eq!((received.body.as_slice(), received.header("x-a")), (&b"hello2"[..], None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_proves_the_sender_can_not_be_made_hop_by_hop() {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).start().await;
    let event = signed::github(push()).header("Connection", "X-Hub-Signature-256");
    let answer = gateway.send_via(Via::Plain, &event).await;
    if answer.is_success() {
        let received = app.receives(1).await.remove(0);
        assert_eq!(received.header("x-hub-signature-256"), Some(event.value("X-Hub-Signature-256")));
    } else {
        assert!([400, 401].contains(&answer.status), "{answer:?}");
    }
    // Nor can ours be stripped.
    let event = signed::github(push()).header("Connection", "tidegate-event-id, tidegate-verified");
    app.forget();
    if gateway.send_via(Via::Plain, &event).await.is_success() {
        let received = app.receives(1).await.remove(0);
        assert_ne!(received.event_id(), "");
        assert_eq!(received.header("tidegate-verified"), Some("github"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_on_another_route_is_ignored() {
    let app = App::start().await;
    let gateway = gateway().route(unverified("/in").mode("proxy").to(&app)).start().await;
    for upgrade in ["websocket", "h2c"] {
        app.forget();
        let request = Request::post("/in", upgrade)
            .header("Connection", "Upgrade, HTTP2-Settings")
            .header("Upgrade", upgrade)
            .header("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA");
        let answer = gateway.send_via(Via::Plain, &request).await;
        assert_eq!(answer.status, 200, "{upgrade}");
        assert_eq!(app.receives(1).await[0].header("upgrade"), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_turn() {
    let app = App::start().await;
    let gateway = gateway().route(unverified("/in").mode("proxy").to(&app)).start().await;
    let bytes: Vec<u8> = (0..5).flat_map(|n| Request::post("/in", format!("body {n}")).bytes()).collect();
    let mut connection = gateway.connect().await;
    connection.write(&bytes).await.expect("written");
    for _ in 0..5 {
        let answer = connection.answer().await.expect("an answer").expect("not closed");
        assert_eq!(answer.status, 200);
    }
    let bodies: Vec<_> =
        app.received().iter().map(|r| String::from_utf8_lossy(&r.body).into_owned()).collect();
    assert_eq!(bodies, ["body 0", "body 1", "body 2", "body 3", "body 4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_http_on_the_tls_port_is_turned_away() {
    let app = App::start().await;
    let gateway = gateway().route(unverified("/in").to(&app)).start().await;
    let mut connection = sender::Connection::plain(gateway.tls()).await.expect("connected");
    let _ = connection.write(&Request::post("/in", "x").bytes()).await;
    if let Ok(Some(answer)) = connection.answer().await {
        assert_eq!(answer.status, 400);
    }
    assert!(gateway.send(&Request::post("/in", "x")).await.is_success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nested_json_and_ambiguous_keys_do_no_harm() {
    let app = App::start().await;
    let route = unverified("/in").set("idempotency", json!({"key": "body:/id"})).to(&app);
    let gateway = gateway().route(route).start().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for body in [
        deep.as_str(),
        r#"{"id":1,"id":2}"#,
        r#"{"id":1e99999}"#,
        r#"{"id":"\ud800"}"#,
        "{",
        "",
        "\u{feff}{}",
    ] {
        let answer = gateway.send(&Request::post("/in", body)).await;
        assert_eq!(answer.status, 202, "{}: falls back to the body's hash", &body[..body.len().min(20)]);
        // A request with nothing in it is like every other, and no repeat of any.
        assert_eq!(gateway.send(&Request::post("/in", body)).await.is_duplicate(), !body.is_empty());
    }
    // An ambiguous key is none: the two do not meet.
    assert!(!gateway.send(&Request::post("/in", r#"{"id":1,"id":3}"#)).await.is_duplicate());
}
