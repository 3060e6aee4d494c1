use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::fetch::{Fetch, LIMITS};
use super::*;
use crate::upstream::testing::{App, read_request};
use crate::verify::RemoteKey;

mod named;

type Uri = http::Uri;

const ASKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

const QUICK: Timing = Timing {
    refresh: Duration::from_secs(3600),
    refresh_named: Duration::from_secs(3600),
    retry: Duration::from_millis(5),
    floor: Duration::from_millis(40),
    new_names: Rate { count: 32, per: Duration::from_secs(3600 * 32) },
};

fn remote(timing: Timing) -> RemoteKeys {
    let mut remote = RemoteKeys::new(Arc::default(), Clock::System);
    remote.context.timing = timing;
    remote
}

fn set(kids: &[&str]) -> String {
    let key = |kid: &&str| format!(r#"{{"kty":"EC","kid":"{kid}","crv":"P-256","x":"AA","y":"AA"}}"#);
    format!(r#"{{"keys":[{}]}}"#, kids.iter().map(key).collect::<Vec<_>>().join(","))
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Gives the n-th answer to the n-th fetch, and the last one to all further ones.
async fn server(answers: Vec<String>) -> (App, Arc<AtomicUsize>) {
    let fetches = Arc::new(AtomicUsize::new(0));
    let (counted, answers) = (fetches.clone(), Arc::new(answers));
    let app = App::with(move |mut socket, _| {
        let (counted, answers) = (counted.clone(), answers.clone());
        async move {
            while let Some((head, _)) = read_request(&mut socket).await {
                assert!(head.starts_with(r"GET /keys?v=1 HTTP/1.1\r\n"), "{head}");
                let n = counted.fetch_add(1, Ordering::SeqCst);
                if socket.write_all(answers[n.min(answers.len() - 1)].as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (app, fetches)
}

fn url(app: &App) -> Uri {
    format!("{}/keys?v=1", app.url()).parse().unwrap()
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let waited = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), waited).await.is_ok(), "never: {what}");
}

fn kids(source: &Arc<dyn KeySource>) -> Vec<String> {
    let Lookup::Known(document) = source.lookup("", ASKER) else { return Vec::new() };
    let kid = |key: &RemoteKey| match key {
        RemoteKey::Jwk(jwk) => jwk.common.key_id.clone(),
        _ => None,
    };
    document.keys().iter().filter_map(kid).collect()
}

fn is_known(source: &Arc<dyn KeySource>) -> bool {
    matches!(source.lookup("", ASKER), Lookup::Known(_))
}

#[tokio::test]
async fn a_set_is_fetched_when_first_asked_for_and_shared_by_all_who_ask() {
    let (app, fetches) = server(vec![ok(&set(&["a", "b"]))]).await;
    let remote = remote(QUICK);
    let (one, two) = (remote.source(Remote::jwks(url(&app))), remote.source(Remote::jwks(url(&app))));
    until("keys", || is_known(&one)).await;
    assert_eq!((kids(&one), kids(&two)), (vec!["a".into(), "b".into()], kids(&one)));
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    let status = remote.status();
    assert_eq!((status.len(), status[0].keys, &status[0].error), (1, 2, &None));
    assert!(status[0].age_s.is_some_and(|age| age < 20));
}

#[tokio::test]
async fn after_failures_it_is_tried_again_and_the_last_good_set_stays() {
    let redirect =
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_owned();
    let broken = "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_owned();
    let (app, fetches) = server(vec![
        redirect.clone(),
        ok(r#"{"keys":[{"kty":"oct","kid":"shared","k":"AAAA"}]}"#),
        broken.clone(),
        ok(&set(&["good"])),
        broken,
    ])
    .await;
    let remote = remote(QUICK);
    let source = remote.source(Remote::jwks(url(&app)));
    until("good keys", || is_known(&source)).await;
    assert_eq!((kids(&source), fetches.load(Ordering::SeqCst)), (vec!["good".into()], 4));
    until("the floor", || source.lacks("") == Lacking::Asked).await;
    until("a failed refresh", || remote.status()[0].error.is_some()).await;
    assert_eq!(kids(&source), ["good"]);
    let status = remote.status();
    assert_eq!(status[0].error.as_deref(), Some("the server answered 500"));
    assert!(status[0].fetched_at.is_some());
}

#[tokio::test]
async fn an_unknown_key_brings_a_refresh_but_never_more_than_one_a_floor() {
    let (app, fetches) = server(vec![ok(&set(&["a"])), ok(&set(&["a", "b"]))]).await;
    let remote = remote(QUICK);
    let source = remote.source(Remote::jwks(url(&app)));
    until("keys", || is_known(&source)).await;
    let began = Instant::now();
    while began.elapsed() < QUICK.floor * 4 {
        source.lacks("");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let most = 2 + (began.elapsed().as_millis() / QUICK.floor.as_millis()) as usize;
    let fetches = fetches.load(Ordering::SeqCst);
    assert!((2..=most).contains(&fetches), "{fetches} of at most {most}");
    assert_eq!(kids(&source), ["a", "b"]);
}

#[tokio::test]
async fn an_endless_set_is_broken_off() {
    let large = ok(&format!("{}{}", " ".repeat(LIMITS.bytes), set(&["a"])));
    let (app, _) = server(vec![large]).await;
    let remote = remote(QUICK);
    let source = remote.source(Remote::jwks(url(&app)));
    until("an error", || remote.status()[0].error.is_some()).await;
    assert!(remote.status()[0].error.as_ref().unwrap().contains("larger"));
    assert!(!is_known(&source));
}

#[tokio::test]
async fn plain_http_is_taken_from_loopback_only() {
    let fetch = |url: &str| {
        let url: Uri = url.parse().unwrap();
        Fetch::new(&Remote::jwks(url.clone()), &url, "", Clock::System)
    };
    for good in ["https://keys.example/jwks", "http://127.0.0.1:1/x", "http://[::1]/x"] {
        assert!(fetch(good).is_ok(), "{good}");
    }
    for bad in [
        "http://keys.example/jwks",
        "http://localhost/x",
        "http://127.0.0.1.evil.example/x",
        "http://10.0.0.1/x",
        "ftp://127.0.0.1/x",
        "/x",
    ] {
        assert!(fetch(bad).is_err(), "{bad}");
    }
    let remote = remote(QUICK);
    let source = remote.source(Remote::jwks("http://keys.example/jwks".parse().unwrap()));
    assert!(!is_known(&source));
    assert!(remote.status()[0].error.as_ref().unwrap().contains("https"));
}

#[tokio::test]
async fn a_set_that_nobody_uses_any_more_is_no_longer_fetched() {
    let quick = Timing { refresh: Duration::from_millis(5), ..QUICK };
    let (app, fetches) = server(vec![ok(&set(&["a"]))]).await;
    let remote = remote(quick);
    let source = remote.source(Remote::jwks(url(&app)));
    until("three fetches", || fetches.load(Ordering::SeqCst) >= 3).await;
    drop(source);
    assert!(remote.status().is_empty());
    tokio::time::sleep(Duration::from_millis(30)).await;
    let fetched = fetches.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(fetches.load(Ordering::SeqCst), fetched);
}

#[test]
fn refreshes_are_spread_and_failures_back_off() {
    let after = |n| Timing::DEFAULT.after(n, Timing::DEFAULT.refresh).as_secs();
    assert!((0..100).all(|_| (540..=660).contains(&after(0))));
    assert_eq!([after(1), after(2), after(5), after(30)], [2, 4, 32, 600]);
}
