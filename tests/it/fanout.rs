//! Several destinations of a route: who gets what, and in which form.

use serde_json::Value;

use crate::support::*;

/// A route with these destinations, each `(name, url of its app, more keys)`.
fn to(route: Route, destinations: &[(&str, &App, Value)]) -> Route {
    let list: Vec<Value> = destinations
        .iter()
        .map(|(name, app, more)| {
            let mut destination = json!({"name": name, "url": app.url()});
            let own = more.as_object().expect("keys").clone();
            destination.as_object_mut().expect("keys").extend(own);
            destination
        })
        .collect();
    route.set("forward_to", list)
}

fn event(kind: &str, amount: u32) -> Request {
    signed::stripe(json!({"id": unique_id(), "type": kind, "amount": amount}).to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_destination_gets_the_events_that_it_wants() {
    let (all, paid, large) = (App::start().await, App::start().await, App::start().await);
    let route = to(
        stripe(),
        &[
            ("all", &all, json!({})),
            ("paid", &paid, json!({"when": {"event_type": {"prefix": "invoice.p"}}})),
            (
                "large",
                &large,
                json!({"when": {"any": [{"body:/amount": {"gt": 100}}, {"query:all": "yes"}]}}),
            ),
        ],
    );
    let gateway = gateway().route(route).start().await;
    for event in
        [event("invoice.paid", 50), event("invoice.sent", 500), event("x", 1).to("/hooks/stripe?all=yes")]
    {
        assert_eq!(gateway.send(&event).await.status, 202);
    }
    gateway.drained().await;
    assert_eq!((all.count(), paid.count(), large.count()), (3, 1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_wants_is_acknowledged_and_counted_and_kept_or_not() {
    let app = App::start().await;
    let only = json!({"when": {"event_type": "invoice.paid"}});
    for (unwanted, kept) in [(None, 1.0), (Some("keep"), 1.0), (Some("drop"), 0.0)] {
        let mut route = to(stripe(), &[("app", &app, only.clone())]);
        if let Some(word) = unwanted {
            route = route.set("unwanted", word);
        }
        let gateway = gateway().route(route).start().await;
        let nobodys = event("customer.created", 1);
        let answer = gateway.send(&nobodys).await;
        assert_eq!(answer.status, 202);
        assert_eq!(gateway.send(&nobodys).await.is_duplicate(), kept > 0.0);
        assert!(gateway.metric("tidegate_requests_total", &[("outcome", "unwanted")]).await >= 1.0);
        assert_eq!(gateway.metric("tidegate_buffer_events", &[]).await, kept);
        assert_eq!((gateway.backlog().await, app.count()), (0.0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_is_added_gets_what_comes_and_not_what_was() {
    let (old, new) = (App::start().await, App::start().await);
    let mut gateway = gateway().route(to(stripe(), &[("old", &old, json!({}))])).start().await;
    assert_eq!(gateway.send(&event("a", 1)).await.status, 202);
    gateway.drained().await;
    gateway.builder.routes = vec![to(stripe(), &[("old", &old, json!({})), ("new", &new, json!({}))])];
    gateway.rewrite_config();
    gateway.reload().await;
    assert_eq!(gateway.send(&event("b", 1)).await.status, 202);
    gateway.drained().await;
    assert_eq!((old.count(), new.count()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_filter_is_refused_with_its_place() {
    let app = App::start().await;
    let route =
        to(stripe(), &[("app", &app, json!({"when": {"body:/n": {"gt": "many"}, "event_tpye": "a"}}))]);
    let output = match gateway().route(route).try_start().await {
        Ok(_) => panic!("it must not start"),
        Err(ended) => ended.output,
    };
    for text in [
        "this is not a number",
        "`event_tpye` is no place",
        "did you mean `event_type`?",
        "forward_to[0].when",
    ] {
        assert!(output.contains(text), "{text}: {output}");
    }
}
