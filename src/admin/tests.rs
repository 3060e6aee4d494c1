//! The API over real sockets, asked with raw requests and with the command line's own client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use serde_json::{Value, json};

use super::testing::{Fake, NOW, Served, dead, event, pending};
use crate::buffer::{Delivery, Event};
use crate::config::AdminAddress;

/// An answer, taken apart.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    fn has(&self, header: &str) -> bool {
        self.head.lines().any(|line| line.eq_ignore_ascii_case(header))
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

fn ask(served: &Served, line: &str, headers: &str, body: &str) -> Answer {
    let host = if headers.to_lowercase().contains("host:") { "" } else { "Host: localhost\r\n" };
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let request = format!("{line} HTTP/1.1\r\n{host}{headers}{length}Connection: close\r\n\r\n{body}");
    exchange(TcpStream::connect(served.address()).unwrap(), &request)
}

fn get(served: &Served, path: &str) -> Answer {
    ask(served, &format!("GET {path}"), "", "")
}

fn post(served: &Served, path: &str, body: &Value) -> Answer {
    ask(served, &format!("POST {path}"), "Content-Type: application/json\r\n", &body.to_string())
}

/// Ten events, one a second; every third is dead.
fn ten() -> Vec<(Event, Vec<Delivery>)> {
    let one = |n: u64| match n % 3 {
        0 => dead(event(n, "invoice.failed", b"{\"n\":1}")),
        _ => pending(event(n, "invoice.paid", b"\xff\x00")),
    };
    (0..10).map(one).collect()
}

fn ids(answer: &Answer) -> Vec<String> {
    let events = answer.json()["events"].as_array().unwrap().clone();
    events.iter().map(|e| e["id"].as_str().unwrap().to_owned()).collect()
}

fn is_problem(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.has("content-type: application/problem+json"), "{}", answer.head);
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert!(problem["title"].is_string() && problem["detail"].as_str().unwrap().len() > 10);
}

#[test]
fn probes_say_whether_and_why_not() {
    let fake = Fake::new(vec![]);
    let served = Served::on_loopback(fake.clone());
    assert_eq!(get(&served, "/healthz").status, 200);
    assert_eq!(get(&served, "/livez").status, 200);
    assert_eq!(get(&served, "/readyz").json(), json!({"ready": true, "reasons": []}));
    *fake.not_ready.lock() = vec!["the buffer is full".into()];
    let ready = get(&served, "/readyz");
    assert_eq!((ready.status, ready.json()["reasons"][0].as_str()), (503, Some("the buffer is full")));
    assert_eq!(get(&served, "/healthz").status, 200);
}

#[test]
fn metrics_hold_the_buffer_and_the_process() {
    let fake = Fake::new(ten());
    let served = Served::on_loopback(fake.clone());
    let asked = ask(&served, "GET /metrics", "Accept: application/openmetrics-text\r\n", "");
    assert!(asked.has("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(asked.text().ends_with("# EOF\n"));
    let metrics = get(&served, "/metrics");
    assert!(metrics.has("content-type: text/plain; version=0.0.4; charset=utf-8"));
    let text = metrics.text();
    for line in [
        r#"tidegate_backlog{destination="billing/legacy"} 6"#,
        r#"tidegate_dead_letters{destination="billing/legacy"} 4"#,
        r#"tidegate_backlog_oldest_age_seconds{destination="billing/legacy"} 59.0"#,
        "tidegate_buffer_events 10",
        "tidegate_buffer_open 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    *fake.memory.failed.lock() = Some("sync failed");
    let text = get(&served, "/metrics").text();
    assert!(text.contains("tidegate_buffer_open 0") && !text.contains("tidegate_buffer_events "));
}

#[test]
fn status_shows_what_runs_and_no_secret() {
    let fake = Fake::new(ten()).with_token("very-secret");
    let metrics = super::control::Control::metrics(&*fake).clone();
    for outcome in ["retry", "delivered", "retry"] {
        metrics.delivery("billing/legacy", outcome, std::time::Duration::from_millis(5));
    }
    metrics.in_flight("billing/legacy", 3);
    metrics.concurrency_limit("billing/legacy", 8);
    metrics.request("billing", "accepted");
    metrics.request("billing", "duplicate");
    let served = Served::on_loopback(fake);
    let answer = ask(&served, "GET /status", "Authorization: Bearer very-secret\r\n", "");
    let status = answer.json();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["pid"], std::process::id());
    assert_eq!(status["config_hash"], "0123456789abcdef");
    assert_eq!(status["routes"][0]["mode"], "buffer");
    assert_eq!(status["buffer"]["admission"], "open");
    let expected = json!({
        "destination": "billing/legacy", "configured": true, "backlog": 6, "dead": 4,
        "oldest": "2025-11-24T16:00:01.000Z", "oldest_age_seconds": 59,
        "in_flight": 3, "concurrency_limit": 8, "rate": "50/s",
        "attempts": {"delivered": 1, "retried": 2, "dead": 0},
            "breaker": {
                "state": "open",
                "since": "2025-11-24T16:00:00.000Z",
                "next_probe": "2025-11-24T16:01:12.000Z",
                "why": "connect: connection refused",
            },
            "paused_since": null, "closed_until": null, "upstreams": [],
    });
    assert_eq!(status["destinations"], json!([expected]));
    let traffic =
        json!([{"route": "billing", "requests": 2, "arrived": 2, "duplicates": 1, "unverified": 0}]);
    assert_eq!(status["traffic"], traffic);
    assert!(!answer.text().contains("very-secret"));
}

#[test]
fn a_listing_is_paged_filtered_and_bounded() {
    let fake = Fake::new(ten());
    let served = Served::on_loopback(fake.clone());
    let first = get(&served, "/events?limit=4");
    let second = get(&served, &format!("/events?limit=100&after={}", first.json()["next"].as_str().unwrap()));
    assert_eq!(second.json()["next"], Value::Null);
    let all: Vec<String> = [ids(&first), ids(&second)].concat();
    let newest_first: Vec<String> =
        fake.memory.events.lock().iter().rev().map(|(e, _)| e.id.to_string()).collect();
    assert_eq!(all, newest_first);
    for (query, count) in [
        ("state=dead", 4),
        ("route=billing", 10),
        ("route=other", 0),
        ("type=invoice.paid", 6),
        ("destination=billing/legacy&state=pending", 6),
        ("since=2025-11-24T16:00:07Z", 3),
        ("until=2025-11-24T16:00:07Z", 7),
        (&format!("since={}", NOW.0 + 9000), 1),
    ] {
        assert_eq!(ids(&get(&served, &format!("/events?{query}"))).len(), count, "{query}");
    }
    assert_eq!(ids(&get(&served, "/dead")).len(), 4);
    for query in
        ["limit=501", "limit=x", "state=lost", "after=x", "since=yesterday", "stat=dead", "destination=x"]
    {
        is_problem(&get(&served, &format!("/events?{query}")), 400);
    }
    is_problem(&get(&served, "/dead?state=pending"), 400);
}

#[test]
fn a_long_page_is_put_together_of_short_ones() {
    let fake = Fake::new((0..100).map(|n| pending(event(n, "t", b""))).collect());
    let served = Served::on_loopback(fake);
    let page = get(&served, "/events?limit=75");
    assert_eq!(ids(&page).len(), 75);
    assert_eq!(page.json()["next"].as_str(), ids(&page).last().map(String::as_str));
}

#[test]
fn an_event_is_shown_with_its_attempts_and_without_credentials() {
    let stored = dead(event(0, "invoice.failed", "{\"ü\":1}".as_bytes()));
    let id = stored.0.id;
    let served = Served::on_loopback(Fake::new(vec![stored]));
    let answer = get(&served, &format!("/events/{id}"));
    let shown = answer.json();
    assert_eq!(shown["target"], "/hooks/stripe?token=(hidden)&x=1");
    assert_eq!(
        shown["headers"],
        json!([
            {"name": "Stripe-Signature", "value": "t=1,v1=abc"},
            {"name": "Authorization", "value": "(hidden)", "hidden": true},
            {"name": "X-Shop", "value": "(hidden)", "hidden": true},
            {"name": "X-Bytes", "value": "\u{fffd}", "value_base64": "/w=="},
        ])
    );
    assert_eq!(
        shown["body"],
        json!({"bytes": 8, "base64": "eyLDvCI6MX0=", "text": "{\"ü\":1}", "truncated": false})
    );
    let delivery = &shown["deliveries"][0];
    assert_eq!((&delivery["state"], &delivery["reason"]), (&json!("dead"), &json!("given_up")));
    assert_eq!(
        delivery["history"],
        json!([
            {"at": "2025-11-24T16:00:00.010Z", "took_ms": 7, "error": "connect: connection refused"},
            {"at": "2025-11-24T16:00:00.900Z", "took_ms": 7, "status": 410},
        ])
    );
    assert!(!answer.text().contains("very-secret"));
    assert!(!get(&served, "/events").text().contains("very-secret"));
}

#[test]
fn a_body_comes_out_as_it_came_in_and_never_as_a_page() {
    let body: Vec<u8> = (0..=255).cycle().take(300 * 1024).collect();
    let stored = pending(event(0, "t", &body));
    let id = stored.0.id;
    let served = Served::on_loopback(Fake::new(vec![stored]));
    let raw = get(&served, &format!("/events/{id}/body"));
    assert_eq!(raw.body, body);
    assert!(raw.has("content-type: application/octet-stream") && raw.has("x-content-type-options: nosniff"));
    assert!(raw.has(&format!("content-disposition: attachment; filename=\"{id}.body\"")));
    let shown = get(&served, &format!("/events/{id}")).json();
    assert_eq!((&shown["body"]["truncated"], &shown["body"]["bytes"]), (&json!(true), &json!(300 * 1024)));
    assert_eq!(shown["body"]["base64"].as_str().unwrap().len(), (256_usize * 1024).div_ceil(3) * 4);
}

#[test]
fn what_is_not_there_is_a_problem() {
    let served = Served::on_loopback(Fake::new(vec![]));
    is_problem(&get(&served, "/events/0190b0c4-0000-7000-8000-000000000001"), 404);
    is_problem(&get(&served, "/events/%3Cscript%3E"), 400);
    is_problem(&get(&served, "/nothing"), 404);
    is_problem(&get(&served, "/events/replay"), 405);
    is_problem(&ask(&served, "DELETE /events", "", ""), 405);
}

#[test]
fn replay_and_purge_take_ids_or_filters_and_never_nothing() {
    let fake = Fake::new(ten());
    let served = Served::on_loopback(fake.clone());
    let dead = ids(&get(&served, "/dead"));
    let unknown = "0190b0c4-0000-7000-8000-000000000001";
    let done = post(&served, "/events/replay", &json!({"ids": [dead[0], unknown]}));
    assert_eq!(done.json(), json!({"replayed": 1, "untouched": [unknown]}));
    let done = post(&served, "/events/replay", &json!({"filter": {"state": "dead", "since": NOW.0 + 5000}}));
    assert_eq!(done.json(), json!({"replayed": 1, "untouched": []}));
    assert_eq!(ids(&get(&served, "/dead")).len(), 2);
    for refused in [json!({}), json!({"filter": {}}), json!({"ids": []}), json!({"al": true}), json!([])] {
        is_problem(&post(&served, "/events/purge", &refused), 400);
        is_problem(&post(&served, "/events/replay", &refused), 400);
    }
    assert_eq!(fake.memory.events.lock().len(), 10);
    assert_eq!(
        post(&served, "/events/purge", &json!({"filter": {"type": "invoice.paid"}})).json()["purged"],
        6
    );
    assert_eq!(post(&served, "/events/purge", &json!({"all": true})).json()["purged"], 4);
    assert_eq!(fake.memory.events.lock().len(), 0);
}

#[test]
fn a_failed_buffer_is_said_not_hidden() {
    let fake = Fake::new(ten());
    let served = Served::on_loopback(fake.clone());
    *fake.memory.failed.lock() = Some("sync failed");
    is_problem(&get(&served, "/events"), 503);
    is_problem(&post(&served, "/events/purge", &json!({"all": true})), 503);
    is_problem(&get(&served, "/destinations"), 503);
    assert_eq!(get(&served, "/status").json()["buffer"], Value::Null);
}

#[test]
fn a_reload_says_what_it_did_or_why_not() {
    let fake = Fake::new(vec![]);
    let served = Served::on_loopback(fake.clone());
    let refused = ask(&served, "POST /reload", "", "");
    is_problem(&refused, 422);
    assert_eq!(refused.json()["detail"], "tidegate.yaml:3:5: routes[0].path: missing");
    *fake.next.lock() = Ok("fedcba");
    let done = ask(&served, "POST /reload", "", "").json();
    assert_eq!(done, json!({"hash": "fedcba", "warnings": ["verify: none on `open`"]}));
    is_problem(&get(&served, "/reload"), 405);
}

#[test]
fn the_manual_lists_every_path_and_each_is_there() {
    let manual = include_str!("../../conf/MANUAL.md");
    let section = manual.split("\n## Admin API").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut paths = 0;
    let served = Served::on_loopback(Fake::new(vec![]));
    for row in section.lines().filter_map(|line| line.strip_prefix("| `")) {
        for request in row.split(" | ").next().unwrap().split(", ") {
            let request = request.trim_matches('`').replace("ID", "0190b0c4-0000-7000-8000-000000000001");
            let request = if request.starts_with('/') { format!("GET {request}") } else { request };
            let answer = ask(&served, &request, "", "");
            assert!(!answer.text().contains("there is nothing at this path"), "{request}: {}", answer.text());
            assert_ne!(answer.status, 405, "{request}");
            paths += 1;
        }
    }
    assert_eq!(paths, 41);
}

#[test]
fn status_shows_the_latest_reload_and_how_old_the_keys_are() {
    let status = get(&Served::on_loopback(Fake::new(vec![])), "/status").json();
    let at = NOW.to_string();
    assert_eq!(status["last_reload"], json!({"at": at, "problem": "tidegate.yaml:3:5: missing"}));
    assert_eq!(
        status["key_sets"],
        json!([{
            "url": "https://id.example.com/jwks", "keys": 2, "fetched_at": at, "age_seconds": 60,
            "error": "the server answered 503",
        }])
    );
}

#[test]
fn only_the_bearer_of_the_token_gets_in() {
    let served = Served::on_loopback(Fake::new(ten()).with_token("s3cret"));
    for headers in [
        "",
        "Authorization: Bearer s3creT\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Bearer s3cret2\r\n",
        "Authorization: Basic s3cret\r\n",
        "Authorization: s3cret\r\n",
        "Authorization: Bearer s3cret\r\nAuthorization: Bearer x\r\n",
    ] {
        for line in ["GET /status", "GET /events", "GET /metrics", "POST /reload", "GET /nothing"] {
            let answer = ask(&served, line, headers, "");
            is_problem(&answer, 401);
            assert!(answer.has("www-authenticate: Bearer"));
        }
    }
    let bearer = "Authorization: bearer s3cret\r\n";
    assert_eq!(ask(&served, "GET /events", bearer, "").status, 200);
    // With a token, any name may stand before the gateway.
    let behind = format!("{bearer}Host: admin.example.com\r\n");
    assert_eq!(ask(&served, "GET /events", &behind, "").status, 200);
    for open in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(get(&served, open).status, 200, "{open}");
    }
}

#[test]
fn a_token_counts_from_the_reload_that_brought_it() {
    let fake = Fake::new(vec![]);
    let served = Served::on_loopback(fake.clone());
    assert_eq!(get(&served, "/status").status, 200);
    let _ = fake.clone().with_token("new");
    is_problem(&get(&served, "/status"), 401);
}

#[test]
fn a_web_page_can_neither_read_nor_change_anything() {
    let fake = Fake::new(ten());
    let served = Served::on_loopback(fake.clone());
    // DNS rebinding: the page's own name, pointed at loopback.
    for host in ["Host: evil.example\r\n", "Host: evil.example:9900\r\n", "Host: localhost.evil.example\r\n"]
    {
        is_problem(&ask(&served, "GET /events", host, ""), 403);
    }
    let twice = "Host: localhost\r\nHost: evil.example\r\n";
    assert!(ask(&served, "GET /events", twice, "").status >= 400);
    is_problem(&ask(&served, "GET http://evil.example/events", "", ""), 403);
    // Cross-site requests to the right name.
    let json = "Content-Type: application/json\r\n";
    let all = r#"{"all": true}"#;
    for headers in [
        format!("{json}Origin: http://evil.example\r\n"),
        format!("{json}Origin: null\r\n"),
        format!("{json}Sec-Fetch-Site: cross-site\r\n"),
    ] {
        is_problem(&ask(&served, "POST /events/purge", &headers, all), 403);
    }
    for kind in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        is_problem(&ask(&served, "POST /events/purge", kind, all), 415);
    }
    is_problem(&ask(&served, "POST /reload", "Origin: http://evil.example\r\n", ""), 403);
    assert_eq!(fake.memory.events.lock().len(), 10);
    let page = get(&served, "/status");
    assert!(page.has("content-security-policy: default-src 'none'; frame-ancestors 'none'"));
    assert!(page.has("cache-control: no-store"));
    assert!(!page.head.to_lowercase().contains("access-control-allow"));
}

#[test]
fn too_much_is_refused() {
    let served = Served::on_loopback(Fake::new(vec![]));
    let ids: Vec<String> = (0..2000).map(|_| "0190b0c4-0000-7000-8000-000000000001".into()).collect();
    let answer = post(&served, "/events/purge", &json!({ "ids": ids }));
    is_problem(&answer, 413);
    is_problem(&post(&served, "/events/purge", &json!({"ids": &ids[..1001]})), 400);
    let long = format!("X-Long: {}\r\n", "x".repeat(40 * 1024));
    assert_eq!(ask(&served, "GET /status", &long, "").status, 431);
}

#[test]
fn a_socket_file_is_its_owners_and_goes_with_the_api() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let served = Served::on_unix(Fake::new(ten()), &path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let answer = exchange(stream, "GET /dead HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n\r\n");
    assert_eq!(ids(&answer).len(), 4);
    // A second gateway does not take it away.
    let second = Served::on_unix(Fake::new(vec![]), &path).err().unwrap();
    assert!(second.contains("another process answers"), "{second}");
    drop(served);
    assert!(!path.exists());
}

#[test]
fn a_stale_socket_file_is_replaced_and_another_file_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let served = Served::on_unix(Fake::new(vec![]), &path).unwrap();
    // Somebody put another socket there: it is not ours to remove.
    std::fs::remove_file(&path).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    drop(served);
    assert!(path.exists());
    let file = folder.path().join("notes");
    std::fs::write(&file, "keep").unwrap();
    assert!(Served::on_unix(Fake::new(vec![]), &file).err().unwrap().contains("no socket"));
    assert_eq!(std::fs::read(&file).unwrap(), b"keep");
}

#[test]
fn an_address_that_others_reach_needs_a_token() {
    let everywhere = || AdminAddress::Tcp(([0, 0, 0, 0], 0).into());
    let refused = Served::start(Fake::new(vec![]), everywhere()).err().unwrap();
    assert!(refused.contains("needs a token"), "{refused}");
    let fake = Fake::new(vec![]).with_token("x");
    let served = Served::start(fake.clone(), everywhere()).unwrap();
    // Were a reload to take it away, the API would close rather than open to all.
    *fake.token.lock() = None;
    is_problem(&get(&served, "/status"), 403);
}

#[test]
fn an_address_in_use_is_named() {
    let served = Served::on_loopback(Fake::new(vec![]));
    let address = served.address().parse().unwrap();
    let error = Served::start(Fake::new(vec![]), AdminAddress::Tcp(address)).err().unwrap();
    assert!(error.contains(&served.address()) && error.contains("another process"), "{error}");
}

#[test]
fn the_own_client_speaks_over_tcp_and_unix_sockets() {
    use super::views::{EventDetail, EventPage, Replayed, Status};
    use crate::cli::testing::Client;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let fake = Fake::new(ten()).with_token("s3cret");
    let unix = Served::on_unix(fake.clone(), &path).unwrap();
    let tcp = Served::on_loopback(fake.clone());
    for address in [format!("unix:{}", path.display()), tcp.address()] {
        let client = Client::at(address.parse().unwrap(), Some("s3cret"));
        let status: Status = client.get("/status").unwrap();
        assert_eq!(status.setup.routes.len(), 1);
        let page: EventPage = client.get("/dead").unwrap();
        let detail: EventDetail = client.get(&format!("/events/{}", page.events[0].id)).unwrap();
        assert_eq!(detail.summary.deliveries[0].history.len(), 2);
        let mut body = Vec::new();
        client.copy(&format!("/events/{}/body", page.events[0].id), &mut body).unwrap();
        assert_eq!(body, b"{\"n\":1}");
        let chosen = json!({"ids": [page.events[0].id]});
        let replayed: Replayed = client.post("/events/replay", Some(&chosen)).unwrap();
        assert_eq!(replayed.replayed, 1);
        let stranger = Client::at(address.parse().unwrap(), None);
        let refused = crate::cli::testing::told(stranger.get::<Status>("/status").unwrap_err());
        assert!(refused.contains("TIDEGATE_ADMIN_TOKEN"), "{refused}");
    }
    drop((unix, tcp));
    assert_eq!(Arc::strong_count(&fake), 1, "the API holds on to nothing after it ended");
}
