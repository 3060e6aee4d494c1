//! The configs that we ship.

use super::*;
use serde_json::Value;

fn shipped(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name)
}

fn load_shipped(name: &str) -> Loaded {
    let mut machine = Machine::default();
    machine.env.insert("BUFFER_KEY".into(), Some(crate::seal::testing::text(1)));
    machine.files.insert("buffer.old".into(), Ok(crate::seal::testing::text(2).into_bytes()));
    load_from(&shipped(name), &Unfetched, &machine).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn each_example_loads() {
    assert_eq!(load_shipped("minimal.yaml").config.routes.len(), 1);
    assert!(load_shipped("minimal.yaml").warnings.is_empty());
    assert_eq!(load_shipped("typical.yaml").config.routes.len(), 4);
    assert!(load_shipped("reference.yaml").config.routes.len() > 8);
}

#[test]
fn each_example_names_the_schema_for_editors() {
    for name in ["minimal.yaml", "typical.yaml", "reference.yaml"] {
        let text = fs::read_to_string(shipped(name)).unwrap();
        assert!(text.starts_with("# yaml-language-server: $schema=schema.json\n"), "{name}");
    }
}

#[test]
fn the_shipped_schema_is_the_generated_one() {
    let text = fs::read_to_string(shipped("schema.json")).unwrap_or_default();
    let stale = text != format!("{:#}\n", schema());
    assert!(!stale, "conf/schema.json is stale: run `cargo run -- schema > conf/schema.json`");
}

#[test]
fn the_reference_shows_every_key_and_the_defaults() {
    let text = fs::read_to_string(shipped("reference.yaml")).unwrap();
    let schema = schema();
    let mut maps = vec![&schema["properties"]];
    for name in [
        "Admin",
        "AlertEmail",
        "AlertTarget",
        "AlertWebhook",
        "Alerts",
        "Answer",
        "ApiKeySpec",
        "BasicSpec",
        "BasicUser",
        "BearerSpec",
        "BodyDigestSpec",
        "ClaimDigestSpec",
        "JwtSpec",
        "KeySpec",
        "Labelled",
        "Rule",
        "SchemeSpec",
        "SignatureSpec",
        "TimestampSpec",
        "Buffer",
        "Certificate",
        "Destination",
        "Encryption",
        "Keep",
        "Redact",
        "DestinationTls",
        "Growth",
        "HandshakeSpec",
        "ProofSpec",
        "ReplySpec",
        "TestSpec",
        "VisitSpec",
        "HeaderChanges",
        "Idempotency",
        "Limits",
        "Listener",
        "Log",
        "Quarantine",
        "RateLimit",
        "Retry",
        "Route",
        "PathRewrite",
        "Sign",
        "Shutdown",
        "Spill",
        "Surge",
        "Tls",
    ] {
        maps.push(&schema["definitions"][name]["properties"]);
    }
    for map in maps {
        for (key, property) in map.as_object().unwrap() {
            let shown = text.contains(&format!(" {key}: ")) || text.contains(&format!("{key}:"));
            assert!(shown, "reference.yaml does not show `{key}`");
            assert!(property.get("description").is_some(), "`{key}` has no description");
        }
    }
    let config = load_shipped("reference.yaml").config;
    let bare = load_text(&routes(OPEN)).unwrap().config;
    assert_eq!(config.limits, bare.limits);
    let buffer = BufferSettings {
        encryption: bare.buffer.encryption.clone(),
        keep_of_routes: Vec::new(),
        ..config.buffer.clone()
    };
    assert_eq!(buffer, bare.buffer);
    assert_eq!(config.shutdown, bare.shutdown);
    assert_eq!(config.alerts.rules, bare.alerts.rules);
    let times = |a: &AlertSettings| (a.every, a.group, a.pause, a.repeat);
    assert_eq!(times(&config.alerts), times(&bare.alerts));
    assert_eq!((config.log.level, config.log.access), (bare.log.level, bare.log.access));
    assert_eq!(config.admin.listen, bare.admin.listen);
    let billing = config.routes.iter().find(|r| &*r.name == "billing").unwrap();
    assert_eq!(billing.mode.destinations()[0].retry, Retry::default());
}

#[test]
fn the_schema_has_no_words_of_our_own_and_no_null() {
    fn walk(schema: &Value, seen: &mut usize) {
        match schema {
            Value::Object(map) => {
                *seen += 1;
                assert!(!map.keys().any(|k| k.starts_with("x-")), "{map:?}");
                assert_ne!(map.get("type"), Some(&Value::from("null")));
                map.values().for_each(|v| walk(v, seen));
            }
            Value::Array(items) => items.iter().for_each(|v| walk(v, seen)),
            _ => {}
        }
    }
    let mut seen = 0;
    walk(&schema(), &mut seen);
    assert!(seen > 100);
}
