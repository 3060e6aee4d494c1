//! Schemes that sign the URL: it is the one that the sender was given, with order and encoding of its query kept, on
//! plain and encrypted listeners, with `public_url`, and behind hops that we trust.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha1::Sha1;

use crate::support::*;

const SECRET: &str = "12345";
/// What decoding and encoding again, sorting or dropping would change.
const QUERY: &str = "?b=2&a=%41%2f%7e+x&b=1&empty=&bare&u=http%3A%2F%2Fx%3Fy";
const FORM: &str = "To=%2B18005551212&Caller=%2B14158675310&Digits=1+2&Caller=%2B14158675310";

fn sha1_mac(message: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(SECRET.as_bytes()).expect("HMAC takes any key");
    mac.update(message.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

fn sha256_mac(message: &str) -> String {
    STANDARD.encode(signed::hmac_sha256(SECRET.as_bytes(), message.as_bytes()))
}

/// A scheme that signs the URL, and its sender.
struct Scheme {
    name: &'static str,
    rule: Value,
    body: &'static str,
    sign: fn(url: &str, body: &str) -> Vec<(&'static str, String)>,
}

fn schemes() -> Vec<Scheme> {
    let base64 = |header: &str| json!({"from": format!("header:{header}"), "encoding": "base64"});
    vec![
        // URL and form fields by name, a repeated pair once; the port may or may not be written.
        Scheme {
            name: "twilio",
            rule: json!({"any": (["{url}{form|sorted-unique}", "{url|other-port}{form|sorted-unique}"].map(|signed| json!({
                "algorithm": "hmac-sha1", "signed": signed, "signature": base64("X-Twilio-Signature"),
                "secret": "file:secrets/key"
            })))}),
            body: FORM,
            sign: |url, _| {
                let fields = "Caller+14158675310Digits1 2To+18005551212";
                vec![("X-Twilio-Signature", sha1_mac(&format!("{url}{fields}")))]
            },
        },
        Scheme {
            name: "square",
            rule: json!({"algorithm": "hmac-sha256", "signed": "{url}{body}", "secret": "file:secrets/key",
                         "signature": base64("x-square-hmacsha256-signature")}),
            body: r#"{"event_id":"1"}"#,
            sign: |url, body| vec![("x-square-hmacsha256-signature", sha256_mac(&format!("{url}{body}")))],
        },
        // Every form field by name.
        Scheme {
            name: "mandrill",
            rule: json!({"algorithm": "hmac-sha1", "signed": "{url}{form|sorted}", "secret": "file:secrets/key",
                         "signature": base64("X-Mandrill-Signature")}),
            body: "mandrill_events=%5B%7B%22a%22%3A%22b+c%22%7D%5D",
            sign: |url, _| {
                vec![("X-Mandrill-Signature", sha1_mac(&format!("{url}mandrill_events[{{\"a\":\"b c\"}}]")))]
            },
        },
        Scheme {
            name: "trello",
            rule: json!({"algorithm": "hmac-sha1", "signed": "{body}{url}", "secret": "file:secrets/key",
                         "signature": base64("X-Trello-Webhook")}),
            body: r#"{"action":{"id":"1"}}"#,
            sign: |url, body| vec![("X-Trello-Webhook", sha1_mac(&format!("{body}{url}")))],
        },
        // Method, URL with some escapes undone, body, time.
        Scheme {
            name: "hubspot",
            rule: json!({"algorithm": "hmac-sha256", "signed": "{method}{url|unescape::/?@!$'()*,;}{body}{timestamp}",
                         "signature": base64("X-HubSpot-Signature-v3"), "secret": "file:secrets/key",
                         "timestamp": {"from": "header:X-HubSpot-Request-Timestamp", "format": "unix-ms"}}),
            body: r#"[{"eventId":1}]"#,
            sign: |url, body| {
                let url = url.replace("%3A", ":").replace("%2F", "/").replace("%2f", "/").replace("%3F", "?");
                let time = (now() * 1000).to_string();
                vec![
                    ("X-HubSpot-Signature-v3", sha256_mac(&format!("POST{url}{body}{time}"))),
                    ("X-HubSpot-Request-Timestamp", time),
                ]
            },
        },
    ]
}

impl Scheme {
    fn route(&self, app: &App) -> Route {
        let path = format!("/hooks/{}", self.name);
        // Each request of these tests is the same event; that is another test's subject.
        let route = json!({"name": self.name, "path": path, "verify": self.rule, "idempotency": "off"});
        Route::new(route).secret("key", SECRET).to(app)
    }

    /// A request whose sender was given a URL that begins with `base`.
    fn request(&self, base: &str) -> Request {
        let target = format!("/hooks/{}{QUERY}", self.name);
        let mut request = Request::post(&target, self.body);
        for (name, value) in (self.sign)(&format!("{base}{target}"), self.body) {
            request = request.header(name, &value);
        }
        request
    }
}

async fn is_taken(gateway: &Gateway, via: Via, what: &str, request: &Request, taken: bool) {
    let answer = gateway.send_via(via, request).await;
    let expected = if taken { (202, "") } else { (401, "signature_invalid") };
    assert_eq!((answer.status, answer.reason()), expected, "{what} {via:?}: {request:?}");
}

async fn gateway_for(app: &App, trusted: bool, public_url: Option<&str>) -> Gateway {
    let mut builder = gateway();
    if trusted {
        builder = builder.listener("trusted_hops", json!(["127.0.0.0/8"]));
    }
    for scheme in schemes() {
        let mut route = scheme.route(app);
        if let Some(url) = public_url {
            route = route.set("public_url", url);
        }
        builder = builder.route(route);
    }
    builder.start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_url_is_what_the_request_says_on_every_listener() {
    let app = App::start().await;
    let gateway = gateway_for(&app, false, None).await;
    for scheme in schemes() {
        for (via, base) in [
            (Via::Plain, "http://localhost".to_owned()),
            (Via::Tls, "https://localhost".to_owned()),
            (Via::Http2, format!("https://localhost:{}", gateway.ports.tls)),
        ] {
            let good = scheme.request(&base);
            is_taken(&gateway, via, scheme.name, &good, true).await;
            for (what, target) in [
                ("decoded", good.target.replace("%41", "A")),
                ("sorted", good.target.replace("b=2&a=%41%2f%7e+x&b=1", "a=%41%2f%7e+x&b=2&b=1")),
                ("dropped", good.target.replace("&empty=", "")),
                ("another path", good.target.replace("?b=2", "?b=3")),
            ] {
                is_taken(&gateway, via, what, &good.clone().to(&target), false).await;
            }
            let other = match base.strip_prefix("https:") {
                Some(rest) => format!("http:{rest}"),
                None => base.replace("http:", "https:"),
            };
            is_taken(&gateway, via, scheme.name, &scheme.request(&other), false).await;
        }
        // With a port as the sender wrote it; a sender that leaves out the usual one is understood where it may do so.
        let ported = scheme.request("http://localhost:8080").header("Host", "localhost:8080");
        is_taken(&gateway, Via::Plain, scheme.name, &ported, true).await;
        let usual = scheme.request("https://localhost:443");
        is_taken(&gateway, Via::Tls, scheme.name, &usual, scheme.name == "twilio").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_app_gets_is_still_what_was_signed() {
    let app = App::start().await;
    let gateway = gateway_for(&app, false, None).await;
    for scheme in schemes() {
        app.forget();
        let request = scheme.request("https://localhost");
        is_taken(&gateway, Via::Tls, scheme.name, &request, true).await;
        let received = app.receives(1).await.remove(0);
        assert_eq!(received.request_line, format!("POST {} HTTP/1.1", request.target), "{}", scheme.name);
        assert_eq!(received.body, request.body, "{}", scheme.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_public_url_is_the_senders_word_for_us() {
    let app = App::start().await;
    // What a request says about itself, or a hop that we trust says, does not count then.
    let gateway = gateway_for(&app, true, Some("https://hooks.example.com/edge")).await;
    for scheme in schemes() {
        for via in [Via::Plain, Via::Tls, Via::Http2] {
            let good = scheme.request("https://hooks.example.com/edge");
            is_taken(&gateway, via, scheme.name, &good, true).await;
            let hop = good.header("X-Forwarded-Proto", "http").header("X-Forwarded-Host", "inner.example");
            is_taken(&gateway, via, scheme.name, &hop, true).await;
            is_taken(&gateway, via, scheme.name, &scheme.request("https://hooks.example.com"), false).await;
            is_taken(&gateway, via, scheme.name, &scheme.request("https://localhost"), false).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_hop_says_how_the_sender_asked_and_nobody_else() {
    let app = App::start().await;
    let told: [&[(&str, &str)]; 3] = [
        &[("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "hooks.example.com")],
        &[("Forwarded", "for=192.0.2.7;proto=https;host=hooks.example.com")],
        &[
            ("X-Forwarded-For", "198.51.100.1, 192.0.2.7, 127.0.0.9"),
            ("X-Forwarded-Proto", "ftp, https, http"),
            ("X-Forwarded-Host", "evil.example, hooks.example.com, inner.example"),
        ],
    ];
    for trusted in [true, false] {
        let gateway = gateway_for(&app, trusted, None).await;
        for scheme in schemes() {
            for (via, headers) in [(Via::Plain, told[0]), (Via::Tls, told[1]), (Via::Http2, told[2])] {
                let add = |request: Request| {
                    headers.iter().fold(request, |request, (name, value)| request.header(name, value))
                };
                let outside = add(scheme.request("https://hooks.example.com"));
                is_taken(&gateway, via, scheme.name, &outside, trusted).await;
                let inside = match via {
                    Via::Plain => "http://localhost".to_owned(),
                    Via::Tls => "https://localhost".to_owned(),
                    Via::Http2 => format!("https://localhost:{}", gateway.ports.tls),
                };
                is_taken(&gateway, via, scheme.name, &add(scheme.request(&inside)), !trusted).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_is_chosen_by_the_host_that_we_were_asked_for() {
    let app = App::start().await;
    let gateway = gateway()
        .listener("trusted_hops", json!(["127.0.0.0/8"]))
        .route(unverified("/x").set("host", "hooks.example.com").to(&app))
        .start()
        .await;
    let request = Request::post("/x", "1");
    let forwarded = request.clone().header("X-Forwarded-Host", "hooks.example.com");
    assert_eq!(gateway.send(&forwarded).await.status, 404);
    assert_eq!(gateway.send(&request.header("Host", "hooks.example.com")).await.status, 202);
}
