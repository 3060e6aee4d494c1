//! Several servers of one app through the real binary: who gets what, and who is passed over.

use crate::support::*;

async fn is_up(gateway: &Gateway, app: &App) -> f64 {
    gateway.metric("tidegate_upstream_up", &[("upstream", app.url().trim_end_matches('/'))]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_servers_a_sick_one_is_passed_over_and_comes_back() {
    let (well, sick) = (App::start().await, App::start().await);
    sick.behaves(Behaviour::status(500));
    let route = github().to(&well).to(&sick).impatient().delivery("concurrency", 1);
    let gateway = gateway().route(route).start().await;
    for _ in 0..100 {
        assert_eq!(gateway.send(&signed::github(push())).await.status, 202);
    }
    gateway.drained().await;
    assert_eq!(well.count(), 100, "all arrived at the one that is well");
    assert!(sick.count() < 40, "{} went to the sick one", sick.count());
    assert_eq!(gateway.metric("tidegate_breaker", &[("destination", "github/app")]).await, 0.0);
    sick.forget();
    sick.behaves(Behaviour::status(200));
    eventually("it is used again", async || {
        gateway.send(&signed::github(push())).await;
        sick.count() > 3 && is_up(&gateway, &sick).await == 1.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_uses_the_first_server_that_its_health_checks_find_well() {
    let (first, second) = (App::start().await, App::start().await);
    let health = json!({"path": "/healthz", "every": "50ms", "timeout": "1s", "rise": 2, "fall": 2});
    let route = stripe().mode("proxy").to(&first).to(&second);
    let gateway = gateway().route(route.delivery("failover", true).delivery("health", health)).start().await;
    let events = |app: &App| app.received().iter().filter(|r| r.request_line.starts_with("POST")).count();
    for _ in 0..5 {
        assert_eq!(gateway.send(&signed::stripe(invoice_paid())).await.status, 200);
    }
    assert_eq!((events(&first), events(&second)), (5, 0));
    assert!(first.received().iter().any(|received| received.request_line.starts_with("GET /healthz ")));

    first.behaves(Behaviour::status(503));
    eventually("it is down", async || is_up(&gateway, &first).await == 0.0).await;
    let before = events(&first);
    for _ in 0..5 {
        assert_eq!(gateway.send(&signed::stripe(invoice_paid())).await.status, 200, "no sender feels it");
    }
    assert_eq!((events(&first), events(&second)), (before, 5));
    let status = gateway.cli_json(&["status"]).await;
    assert!(status.to_string().contains("\"state\":\"down\""), "{status}");

    first.behaves(Behaviour::status(200));
    eventually("it is up again", async || is_up(&gateway, &first).await == 1.0).await;
    assert_eq!(gateway.send(&signed::stripe(invoice_paid())).await.status, 200);
    assert_eq!(events(&first), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_with_the_fewest_requests_under_way_gets_the_next() {
    let (slow, quick) = (App::start().await, App::start().await);
    slow.behaves(Behaviour::Hang);
    let route =
        github().to(&slow).to(&quick).delivery("balance", "least-in-flight").delivery("concurrency", 4);
    let gateway = gateway().route(route).start().await;
    for _ in 0..30 {
        assert_eq!(gateway.send(&signed::github(push())).await.status, 202);
    }
    quick.receives(27).await;
    assert!(slow.count() <= 3, "{}", slow.count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_with_one_key_go_to_one_server_inline_and_from_the_buffer_and_come_back_to_it() {
    let apps = [App::start().await, App::start().await, App::start().await];
    let over_all = |route: Route| apps.iter().fold(route, |route, app| route.to(app));
    let hash = json!({"hash": "header:X-Shop"});
    let buffered =
        over_all(github().impatient()).delivery("balance", hash.clone()).delivery("breaker", "off");
    let inline = over_all(stripe().mode("proxy")).delivery("balance", hash);
    let gateway = gateway().route(buffered).route(inline).start().await;
    let shops: Vec<String> = (0..60).map(|n| format!("shop-{n}")).collect();
    let send_all = async || {
        for shop in &shops {
            let sent = gateway.send(&signed::github(push()).header("X-Shop", shop)).await;
            assert_eq!(sent.status, 202);
            let answered = gateway.send(&signed::stripe(invoice_paid()).header("X-Shop", shop)).await;
            assert_eq!(answered.status, 200);
        }
        gateway.drained().await;
    };
    // Who got which shops' events.
    let owners = || {
        let of = |app: &App| -> std::collections::BTreeSet<String> {
            app.received().iter().filter_map(|got| got.header("X-Shop").map(str::to_owned)).collect()
        };
        apps.iter().map(of).collect::<Vec<_>>()
    };
    send_all().await;
    let before = owners();
    let total: usize = before.iter().map(|shops| shops.len()).sum();
    assert_eq!(total, shops.len(), "each shop has one server, for both routes: {before:?}");
    assert!(before.iter().all(|shops| !shops.is_empty()), "each server has shops: {before:?}");

    apps[0].behaves(Behaviour::status(500));
    for shop in &before[0] {
        gateway.send(&signed::github(push()).header("X-Shop", shop)).await;
    }
    gateway.drained().await;
    apps.iter().for_each(App::forget);
    for shop in before[1].union(&before[2]) {
        assert_eq!(gateway.send(&signed::github(push()).header("X-Shop", shop)).await.status, 202);
    }
    gateway.drained().await;
    let during = owners();
    assert_eq!((&during[1], &during[2]), (&before[1], &before[2]), "the keys of the others have not moved");
}
