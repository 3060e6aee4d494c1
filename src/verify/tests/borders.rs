//! No built-in pack lets the border between two signed parts be moved.

use super::compiled;
use super::vectors::one_rule_a_pack;

/// Packs whose senders sign in a way that leaves a border open, and why that does no harm.
const OPEN: &[(&str, &str)] = &[
    (
        "twilio",
        "names and values of the form are signed without anything between them: no receiver can tell more",
    ),
    ("mandrill", "as Twilio"),
    ("plivo", "as Twilio; the nonce that follows is a header"),
    ("square", "the URL is the route's own, and a JSON body does not begin as a query does"),
    ("trello", "the same: a JSON body ends with a brace, and the URL begins with its scheme"),
    ("hubspot", "the URL is the route's own; the time at the end has one length"),
    ("hubspot-legacy", "the URL is the route's own, and a JSON body does not begin as a query does"),
    (
        "quicknode",
        "a nonce holds nothing with which JSON begins, and the ten digits before that are the time",
    ),
    ("paymob", "two numbers can be cut elsewhere, but the key of an event is the signature"),
];

#[test]
fn no_border_between_signed_parts_of_a_pack_can_be_moved() {
    let rules = one_rule_a_pack();
    let mut found = Vec::new();
    for (name, compiled) in &rules {
        let open = compiled.verifier.open_borders();
        match OPEN.iter().any(|(known, _)| known == name) {
            true => assert!(!open.is_empty(), "{name} is named here for nothing"),
            false => found.extend(open.into_iter().map(|open| format!("{name}: {:?}", open.between))),
        }
    }
    assert!(found.is_empty(), "give these places a shape (`matches`):\n{}", found.join("\n"));
    assert!(rules.len() > 100, "{}", rules.len());
}

#[test]
fn the_rule_with_an_open_border_is_named() {
    let scheme = |signed: &str| {
        format!(
            "{{ algorithm: hmac-sha256, secret: a-long-secret, signed: '{signed}', signature: {{ from: header:S, encoding: hex }} }}"
        )
    };
    let one = compiled(&scheme("{header:A}{body}"));
    assert_eq!(one.verifier.open_borders()[0].between, ("{header:a}".into(), "{body}".into()));
    let two = compiled(&format!("{{ any: [{}, {}] }}", scheme("{body}"), scheme("{header:A}.{body}")));
    let open = two.verifier.open_borders();
    assert_eq!((open.len(), open[0].at.join(".")), (1, "any.1".to_owned()));
}
