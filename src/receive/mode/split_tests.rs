use super::*;
use crate::buffer::AnswersAsOf;
use crate::buffer::ClaimKey;
use crate::buffer::FirstAnswer;
use crate::config::{self, Mode};
use crate::message::PathParams;
use crate::receive::testing::{FakeApp, FakeBuffer, InMemory, Scene, head, identity, now_or_never};

/// A config's one route, which takes batches apart.
fn route(split: &str) -> Arc<Route> {
    route_to(split, "forward_to: \"http://127.0.0.1:9\"")
}

fn route_to(split: &str, more: &str) -> Arc<Route> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    let text = format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}]\nroutes:\n  - {{ name: r, path: /x, verify: none, \
         idempotency: {{}}, split: {split}, event_type: \"header:X-Kind\", {more} }}\n"
    );
    std::fs::write(&path, text).unwrap();
    config::load(&path, &config::Unfetched).unwrap().config.routes[0].clone()
}

const LIST: &str = "{ events: \"body:/events\", key: /id, event_type: /type, max_events: 4 }";

fn send(
    scene: &Scene<FakeApp>,
    route: &Route,
    headers: &[(&str, &str)],
    body: &str,
) -> (Result<Outcome, Refused>, InMemory) {
    let mut exchange = InMemory::post("/x");
    let mut head = head(crate::message::Method::POST, "/x");
    head.headers = headers.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
    let request =
        Request { head, params: PathParams::default(), body: Bytes::copy_from_slice(body.as_bytes()) };
    let identity = Some(identity(body));
    let verified = route.verify.verify(request, None, scene.clock.now()).unwrap();
    let Mode::Buffer { answer, destinations } = &route.mode else { panic!("no buffer") };
    let split = route.split.as_ref().unwrap();
    let context = scene.context();
    let mut tracked = Tracked::new(&mut exchange);
    let accepted = accept(&context, &mut tracked, route, split, (destinations, answer), identity, verified);
    let result = now_or_never(accepted);
    (result, exchange)
}

#[test]
fn each_element_is_an_event_that_says_where_it_came_from() {
    let scene = Scene::new(FakeApp::default());
    let body = r#"{"events":[{"id":"a","type":"open"}, {"id":"b" , "type":"click"},{"id":"c"}]}"#;
    let (result, exchange) = send(&scene, &route(LIST), &[("X-Kind", "batch"), ("X-A", "1")], body);
    let Ok(Outcome::Accepted(id)) = result else { panic!("{result:?}") };
    let answer = exchange.answered().unwrap();
    assert_eq!(answer.status, 202);
    assert!(answer.headers.contains(&("tidegate-event-id".into(), id.to_string())));
    let events = scene.buffer.events();
    let of: Vec<_> = events
        .iter()
        .map(|e| (&e.body[..], e.idempotency_key.as_deref().unwrap(), e.event_type.as_deref().unwrap()))
        .collect();
    assert_eq!(
        of,
        [
            (&br#"{"id":"a","type":"open"}"#[..], "a", "open"),
            (br#"{"id":"b" , "type":"click"}"#, "b", "click"),
            (br#"{"id":"c"}"#, "c", "batch"),
        ]
    );
    for (number, event) in (1..).zip(&events) {
        assert_eq!(event.origin.batch, Some(BatchPart { id, number, count: 3 }));
        assert_eq!(event.headers.first("x-a"), Some(&b"1"[..]));
    }
    assert!(events.is_sorted_by_key(|event| event.id));
    assert_eq!(scene.buffer.claims(), 4);
}

#[test]
fn what_came_before_is_left_out_and_a_whole_repeat_gets_the_first_answer() {
    let scene = Scene::new(FakeApp::default());
    let route = route(LIST);
    let first = r#"{"events":[{"id":"a"},{"id":"b"},{"id":"a"}]}"#;
    let Ok(Outcome::Accepted(id)) = send(&scene, &route, &[], first).0 else { panic!("not accepted") };
    assert_eq!(scene.buffer.stored().len(), 2);
    let (again, exchange) = send(&scene, &route, &[], first);
    assert_eq!(again, Ok(Outcome::Duplicate(id)));
    assert!(exchange.answered().unwrap().headers.contains(&("tidegate-duplicate".into(), "true".into())));
    let (later, exchange) = send(&scene, &route, &[], r#"{"events":[{"id":"b"},{"id":"c"}]}"#);
    assert!(matches!(later, Ok(Outcome::Accepted(_))));
    assert_eq!(exchange.answered().unwrap().status, 202);
    let keys: Vec<_> = scene.buffer.events().into_iter().filter_map(|e| e.idempotency_key).collect();
    assert_eq!(keys, ["a", "b", "c"]);
}

#[test]
fn each_event_goes_where_its_own_element_is_wanted() {
    let to = |name: &str, when: &str| format!("{{ name: {name}, url: \"http://a\", when: {{ {when} }} }}");
    let list = |more: &str| {
        let all = [
            to("opened", "event_type: open"),
            to("big", "\"body:/n\": { gt: 5 }"),
            to("marked", "\"header:X-Mark\": \"1\", \"body:/n\": { exists: true }"),
        ];
        route_to(LIST, &format!("{more}forward_to: [{}]", all.join(", ")))
    };
    let body = r#"{"n":9,"events":[{"id":"a","type":"open","n":1},{"id":"b","type":"x","n":6},{"id":"c","type":"x"}]}"#;
    let went = |route: &Route, mark: &str| {
        let scene = Scene::new(FakeApp::default());
        let (result, exchange) = send(&scene, route, &[("X-Mark", mark)], body);
        assert_eq!(exchange.answered().unwrap().status, 202);
        (result.unwrap(), scene.buffer.went_to(), scene.buffer.claims())
    };
    let keep = list("");
    let (outcome, sent, claims) = went(&keep, "0");
    assert!(matches!(outcome, Outcome::Accepted(_)));
    assert_eq!(sent, [vec!["r/opened"], vec!["r/big"], vec![]], "what the whole has says nothing of each");
    assert_eq!(claims, 4);
    assert_eq!(went(&keep, "1").1, [vec!["r/opened", "r/marked"], vec!["r/big", "r/marked"], vec![]]);
    let (_, sent, claims) = went(&list("unwanted: drop, "), "0");
    assert_eq!((sent, claims), (vec![vec!["r/opened".to_owned()], vec!["r/big".to_owned()]], 3));
    let nobody = |more: &str| {
        let none = to("none", "event_type: other");
        went(&route_to(LIST, &format!("{more}forward_to: [{none}]")), "0")
    };
    let (outcome, sent, claims) = nobody("");
    assert!(matches!(outcome, Outcome::Unwanted(_)));
    assert_eq!((sent.len(), claims), (3, 4));
    let (outcome, sent, claims) = nobody("unwanted: drop, ");
    assert!(matches!(outcome, Outcome::Unwanted(_)));
    assert_eq!((sent.len(), claims), (0, 0));
}

#[test]
fn an_elements_key_never_meets_a_requests() {
    let element = ClaimKey::new("r/", b"a");
    assert_ne!(element, ClaimKey::new("r", b"a"));
    assert_ne!(element, ClaimKey::new("r", b"/a"));
}

#[test]
fn a_batch_of_nothing_is_acknowledged_and_nothing_is_stored() {
    let scene = Scene::new(FakeApp::default());
    let (result, exchange) = send(&scene, &route(LIST), &[], r#"{"events":[]}"#);
    assert_eq!(result, Ok(Outcome::Handshake));
    assert_eq!(exchange.answered().unwrap().status, 202);
    assert_eq!((scene.buffer.stored().len(), scene.buffer.claims()), (0, 0));
}

#[test]
fn what_is_no_batch_or_too_much_is_refused_without_a_trace() {
    let scene = Scene::new(FakeApp::default());
    let route = route(LIST);
    let reason = |headers: &[(&str, &str)], body: &str| {
        let (result, exchange) = send(&scene, &route, headers, body);
        assert!(exchange.answered().is_none());
        result.unwrap_err().reason
    };
    assert_eq!(reason(&[], "[]"), Reason::NotABatch);
    assert_eq!(reason(&[], r#"{"events":[1,2"#), Reason::NotABatch);
    assert_eq!(reason(&[], r#"{"events":[1,2,3,4,5]}"#), Reason::BatchTooLarge);
    let long = "x".repeat(MAX_BYTES / 4);
    assert_eq!(reason(&[("X-Long", &long)], r#"{"events":[1,2,3,4]}"#), Reason::BatchTooLarge);
    assert_eq!((scene.buffer.stored().len(), scene.buffer.claims()), (0, 0));
}

#[test]
fn what_the_buffer_refuses_is_not_remembered() {
    for (broken, reason) in [
        (FakeBuffer::full as fn(&FakeBuffer), Reason::BufferFull),
        (FakeBuffer::fail, Reason::BufferUnavailable),
    ] {
        let scene = Scene::new(FakeApp::default());
        broken(&scene.buffer);
        let body = r#"{"events":[1]}"#;
        let (result, exchange) = send(&scene, &route(LIST), &[], body);
        assert_eq!(result.map_err(|refused| refused.reason), Err(reason));
        assert!(exchange.answered().is_none());
        assert!(
            scene
                .intake
                .recent
                .get(identity(body).key, scene.clock.now(), AnswersAsOf::for_tests(0))
                .is_none()
        );
    }
}

#[test]
fn json_out_of_a_form_says_that_it_is_json() {
    let scene = Scene::new(FakeApp::default());
    let form = "{ events: \"form:mandrill_events\", key: /_id, event_type: /event }";
    let sent = [("content-type", "application/x-www-form-urlencoded"), ("X-A", "1"), ("Content-Type", "x/y")];
    let body = "mandrill_events=%5B%7B%22_id%22%3A%221%22%2C%22event%22%3A%22send%22%7D%5D";
    assert!(send(&scene, &route(form), &sent, body).0.is_ok());
    let event = scene.buffer.events().remove(0);
    assert_eq!(&event.body[..], br#"{"_id":"1","event":"send"}"#);
    let headers: Vec<_> = event.headers.iter().map(|(n, v)| (n, std::str::from_utf8(v).unwrap())).collect();
    assert_eq!(headers, [("content-type", "application/json"), ("X-A", "1")]);
    let bare = headers_of_form(&[]);
    assert_eq!(bare.first("content-type"), Some(&b"application/json"[..]));
}

fn headers_of_form(sent: &[(&str, &[u8])]) -> Headers {
    let form = route("{ events: \"form:x\", key: /id }");
    headers(&sent.iter().copied().collect(), form.split.as_ref().unwrap())
}

#[test]
fn elements_have_the_requests_answer_for_whoever_asks() {
    let scene = Scene::new(FakeApp::default());
    assert!(send(&scene, &route(LIST), &[], r#"{"events":[{"id":"a"}]}"#).0.is_ok());
    let claimed = now_or_never(crate::buffer::Buffer::claimed(&scene.buffer, ClaimKey::new("r/", b"a")));
    let answer = FirstAnswer { status: 202, content_type: None, body: Bytes::new() };
    assert_eq!(claimed.unwrap().unwrap().answer, answer);
}
