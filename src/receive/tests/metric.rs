//! Each request is counted exactly once, whatever becomes of it.

use super::*;
use crate::buffer::Admission;
use crate::clock::Timestamp;
use crate::telemetry::Scrape;

impl Stage {
    /// The series of requests with what each says.
    fn outcomes(&self) -> Vec<(String, f64)> {
        self.series("tidegate_requests_total{")
    }

    fn series(&self, start: &str) -> Vec<(String, f64)> {
        let scrape = Scrape {
            breakers: Vec::new(),
            paused: Vec::new(),
            servers: Vec::new(),
            stats: None,
            admission: Admission::Open,
            ready: true,
            routes: Vec::new(),
            config_hash: String::new(),
            secrets: Vec::new(),
            now: Timestamp(0),
        };
        let text = self.scene.metrics.expose(scrape);
        let lines = text.lines().filter(|line| line.starts_with(start));
        lines
            .map(|line| {
                let (labels, value) = line.rsplit_once(' ').unwrap();
                (labels.to_owned(), value.parse().unwrap())
            })
            .collect()
    }

    fn counted(&self) -> (f64, f64) {
        let sum = |series: Vec<(String, f64)>| series.iter().map(|(_, value)| value).sum();
        (sum(self.outcomes()), sum(self.series("tidegate_request_duration_seconds_count")))
    }
}

fn proxied(id: &str) -> InMemory {
    post("/proxied", "{}").headers(&[("X-Id", id)])
}

#[tokio::test(start_paused = true)]
async fn every_request_is_one_metric_with_its_outcome() {
    let stage = Stage::with(FakeApp::new([
        Script::answers(200, &["ok"]),
        Script::answers(500, &["sorry"]),
        Script::says(Says::Nothing),
        Script::says(Says::Timeout),
        Script::says(Says::Panic),
        Script::answers(200, &["half"]).then_breaks(),
        Script::answers(200, &["ok"]).with(("X-Unsendable", "1")),
        Script::answers(200, &["gone"]),
        Script::answers(200, &["page"]),
        Script::answers(200, &["page"]).with(("X-Unsendable", "1")),
        Script::answers(200, &["half a page"]).then_breaks(),
    ]));
    let greeting = || post("/chat", "{}");
    for (request, route, outcome) in [
        (signed("{}"), "signed", "accepted"),
        (signed("{}"), "signed", "duplicate"),
        (signed("{}").gone(), "signed", "duplicate"),
        (post("/signed", "{}"), "signed", "signature_missing"),
        (greeting(), "chat", "signature_missing"),
        (post("/nowhere", "{}"), "", "no_route"),
        (InMemory::new(crate::message::Method::HEAD, "/inner"), "", "method_not_allowed"),
        (post("/inner", "{}"), "inner", "address_not_allowed"),
        (post("/signed", "{}").declared(1 << 40), "signed", "body_too_large"),
        (post("/signed", "{}").breaks(Reason::BodyIncomplete), "signed", "body_incomplete"),
        (post("/signed", "{}").breaks(Reason::RequestTimeout), "signed", "request_timeout"),
        (InMemory::post("/signed").panics(), "signed", "internal_error"),
        (proxied("1"), "proxied", "forwarded"),
        (proxied("1"), "proxied", "duplicate"),
        (proxied("2"), "proxied", "forwarded"),
        (proxied("3"), "proxied", "upstream_unavailable"),
        (proxied("4"), "proxied", "upstream_timeout"),
        (proxied("5"), "proxied", "internal_error"),
        (proxied("6"), "proxied", "upstream_unavailable"),
        (proxied("7"), "proxied", "upstream_unavailable"),
        (proxied("8").gone(), "proxied", "forwarded"),
        (post("/app/x", "form"), "passed", "passed"),
        (post("/app/x", "form"), "passed", "upstream_unavailable"),
        (post("/app/x", "form"), "passed", "upstream_unavailable"),
    ] {
        let before = stage.outcomes();
        let (requests, durations) = stage.counted();
        stage.send(request).await;
        assert_eq!(stage.counted(), (requests + 1.0, durations + 1.0), "{route} {outcome}");
        let changed: Vec<_> =
            stage.outcomes().into_iter().filter(|series| !before.contains(series)).collect();
        let labels = format!("tidegate_requests_total{{route=\"{route}\",outcome=\"{outcome}\"}}");
        assert_eq!(changed.len(), 1, "{labels}: {changed:?}");
        assert_eq!(changed[0].0, labels);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_work_is_dropped_half_way_is_counted_too() {
    let stage = Stage::new();
    let context = stage.scene.context();
    let mut exchange = InMemory::post("/signed").declared(10).stalls();
    let half_way = answered(&stage.config, &context, &mut exchange);
    assert!(tokio::time::timeout(std::time::Duration::from_secs(1), half_way).await.is_err());
    assert_eq!(stage.counted(), (1.0, 1.0));
    assert_eq!(stage.scene.intake.budget.used(), 0);
}
