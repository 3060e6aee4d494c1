use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::verify::testing::request;

fn filter(written: &Value) -> Filter {
    Filter::compile(written).unwrap_or_else(|problems| panic!("{written}: {problems:?}"))
}

fn event() -> Request {
    let body =
        br#"{"type":"invoice.paid","amount":100.50,"live":true,"none":null,"data":{"id":"in_1","n":7}}"#;
    request("/hooks?env=prod&empty=", &[("X-Event", "push"), ("X-Two", "a"), ("x-two", "b")], body)
}

fn wants(written: Value) -> bool {
    filter(&written).wants(&event(), Some("invoice.paid"))
}

#[test]
fn each_comparison_holds_where_it_should() {
    for (written, holds) in [
        (json!({"event_type": "invoice.paid"}), true),
        (json!({"event_type": "invoice"}), false),
        (json!({"event_type": ["a", "invoice.paid"]}), true),
        (json!({"event_type": {"prefix": "invoice."}}), true),
        (json!({"event_type": {"prefix": "customer."}}), false),
        (json!({"event_type": {"regex": "^invoice\\.(paid|sent)$"}}), true),
        (json!({"event_type": {"regex": "^paid"}}), false),
        (json!({"header:x-event": "push"}), true),
        (json!({"header:X-Event": "PUSH"}), false),
        (json!({"query:env": {"one_of": ["dev", "prod"]}}), true),
        (json!({"body:/data/id": {"equals": "in_1"}}), true),
        (json!({"body:/live": true}), true),
        (json!({"body:/live": "true"}), true),
        (json!({"body:/data/n": 7}), true),
        (json!({"body:/data/n": "7"}), true),
        (json!({"body:/amount": {"gt": 100}}), true),
        (json!({"body:/amount": {"gt": "100.5"}}), false),
        (json!({"body:/amount": {"gte": "100.5"}}), true),
        (json!({"body:/amount": {"gt": 100, "lt": 101}}), true),
        (json!({"body:/amount": {"gt": 101, "lt": 102}}), false),
        (json!({"body:/amount": {"lte": 100}}), false),
        (json!({"body:/type": {"gt": 0}}), false),
        (json!({"body:/type": {"exists": true}}), true),
        (json!({"body:/nothing": {"exists": true}}), false),
        (json!({"body:/nothing": {"exists": false}}), true),
        (json!({"body:/none": {"exists": false}}), true),
        (json!({"query:empty": {"exists": false}}), true),
        (json!({"header:x-two": {"exists": false}}), true),
        (json!({"not": {"header:x-event": "push"}}), false),
        (json!({"not": {"body:/nothing": "x"}}), true),
        (json!({"header:x-event": "push", "event_type": "no"}), false),
        (json!({"any": [{"header:x-event": "no"}, {"event_type": "invoice.paid"}]}), true),
        (json!({"any": [{"header:x-event": "no"}, {"event_type": "no"}]}), false),
        (json!({"all": [{"header:x-event": "push"}, {"not": {"event_type": "no"}}]}), true),
        (json!({"header:x-none | header:x-event": "push"}), true),
    ] {
        assert_eq!(wants(written.clone()), holds, "{written}");
    }
    let form = request("/", &[], b"kind=sms&n=10");
    assert!(filter(&json!({"form:kind": "sms", "form:n": {"gte": 10}})).wants(&form, None));
    assert!(!filter(&json!({"event_type": {"exists": true}})).wants(&form, None));
}

#[test]
fn everything_that_is_wrong_is_said_at_its_place() {
    let key = |text: &str| At::Key(text.to_owned());
    let problems = Filter::compile(&json!({
        "event_typ": "a",
        "body:type": "a",
        "header:a": {"eqals": "a"},
        "header:b": {"regex": "(?=a)"},
        "header:c": {"gt": "many"},
        "header:d": {"exists": "yes"},
        "header:e": [],
        "header:f": "",
        "any": [{"header:a": null}, "x"],
        "all": [],
        "not": {},
    }))
    .unwrap_err();
    let found: Vec<(Vec<At>, &str)> =
        problems.iter().map(|problem| (problem.at.clone(), problem.message.as_str())).collect();
    for (at, message) in [
        (vec![key("event_typ")], "`event_typ` is no place"),
        (vec![key("body:type")], "a JSON pointer begins with `/`"),
        (vec![key("header:a"), key("eqals")], "`eqals` is no comparison"),
        (vec![key("header:b"), key("regex")], "this is not a regex"),
        (vec![key("header:c"), key("gt")], "this is not a number"),
        (vec![key("header:d"), key("exists")], "it exists or does not"),
        (vec![key("header:e")], "this is not a list of texts"),
        (vec![key("header:f")], "nothing is equal to an empty text"),
        (vec![key("any"), At::Index(0), key("header:a")], "this is no text"),
        (vec![key("any"), At::Index(1)], "a condition is a mapping"),
        (vec![key("all")], "the list is empty"),
        (vec![key("not")], "the condition is empty"),
    ] {
        assert!(
            found.iter().any(|(place, said)| *place == at && said.starts_with(message)),
            "{at:?} {message}: {found:?}"
        );
    }
    assert_eq!(problems.len(), 12, "{problems:?}");
    assert_eq!(problems.iter().filter(|problem| problem.help.contains("did you mean")).count(), 2);
}

#[test]
fn a_filter_is_bounded() {
    let deep = (0..40).fold(json!({"event_type": "a"}), |inner, _| json!({"not": inner}));
    assert!(Filter::compile(&deep).unwrap_err()[0].message.contains("deep"));
    let many: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    assert!(Filter::compile(&json!({"event_type": many})).unwrap_err()[0].message.contains("more than"));
    let huge = json!({"event_type": {"regex": "(a{1000}){1000}"}});
    assert!(Filter::compile(&huge).unwrap_err()[0].message.contains("not a regex"));
}

/// Any condition, and what it should come to.
fn condition() -> impl Strategy<Value = (Value, bool)> {
    let leaf = (0u8..3, 0u8..3).prop_map(|(have, want)| {
        let places = ["header:X-Event", "body:/type", "body:/data/id"];
        let values = ["push", "invoice.paid", "in_1"];
        (json!({(places[have as usize]): values[want as usize]}), have == want)
    });
    leaf.prop_recursive(4, 24, 4, |inner| {
        let list = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            inner.prop_map(|(written, holds)| (json!({"not": written}), !holds)),
            list.clone().prop_map(|list| {
                let (written, holds): (Vec<Value>, Vec<bool>) = list.into_iter().unzip();
                (json!({"all": written}), holds.into_iter().all(|one| one))
            }),
            list.prop_map(|list| {
                let (written, holds): (Vec<Value>, Vec<bool>) = list.into_iter().unzip();
                (json!({"any": written}), holds.into_iter().any(|one| one))
            }),
        ]
    })
}

/// Any JSON.
fn json() -> impl Strategy<Value = Value> {
    let words = "(all|any|not|event_type|header:a|body:/a|equals|one_of|regex|exists|gt|[a-z(*]{0,3})";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        words.prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(words, inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn and_or_and_not_mean_what_they_say((written, holds) in condition()) {
        prop_assert_eq!(wants(written), holds);
    }

    #[test]
    fn nothing_that_is_written_is_a_panic(written in json(), body in prop::collection::vec(any::<u8>(), 0..60)) {
        match Filter::compile(&written) {
            Ok(filter) => drop(filter.wants(&request("/?a=%", &[("a", "b")], &body), Some("a"))),
            Err(problems) => prop_assert!(!problems.is_empty()),
        }
    }

    #[test]
    fn numbers_compare_as_numbers(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000) {
        let holds = |operator: &str| {
            let body = format!("{{\"n\":{a}.0}}");
            filter(&json!({"body:/n": {(operator): b}})).wants(&request("/", &[], body.as_bytes()), None)
        };
        prop_assert_eq!(holds("gt"), a > b);
        prop_assert_eq!(holds("gte"), a >= b);
        prop_assert_eq!(holds("lt"), a < b);
        prop_assert_eq!(holds("lte"), a <= b);
        prop_assert_eq!(holds("equals"), a == b);
    }
}
