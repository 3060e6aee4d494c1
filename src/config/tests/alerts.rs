//! Alerts: what may be written, and what is said about the rest.

use super::*;

fn with(section: &str) -> String {
    format!("{}{section}", routes(OPEN))
}

fn alerts(section: &str) -> AlertSettings {
    load_text(&with(section)).unwrap_or_else(|problems| panic!("{problems:#?}")).config.alerts
}

#[test]
fn the_rules_hold_without_a_config() {
    let bare = alerts("");
    assert_eq!((bare.name.as_str(), bare.to.len(), bare.pause), ("machine", 0, Duration::from_secs(300)));
    let surge = Surge { at_least: 20, percent: 10, within: Duration::from_secs(300) };
    assert_eq!((bare.rules.disk, bare.rules.verification_failures), (Some(80), Some(surge)));
    assert_eq!(bare.repeat, Some(Duration::from_secs(4 * 3600)));
}

#[test]
fn a_rule_is_turned_off_or_changed_in_part() {
    let own = alerts(
        "alerts: { disk: off, repeat: off, backlog_age: 1h, dead_letters: { more: 5 }, duplicates: off }\n",
    );
    assert_eq!((own.rules.disk, own.repeat, own.rules.duplicates), (None, None, None));
    assert_eq!(own.rules.backlog_age, Some(Duration::from_secs(3600)));
    assert_eq!(own.rules.dead_letters, Some(Growth { more: 5, within: Duration::from_secs(3600) }));
}

#[test]
fn each_way_of_telling_is_read_with_its_defaults() {
    let to = alerts(
        "alerts:\n  to:\n\
         \x20   - webhook: { url: \"https://a.example.com/x\", secret: env:S }\n\
         \x20   - slack: file:the-url\n\
         \x20   - { name: post, email: { host: mail, from: a@example.com, to: [\"B <b@example.com>\"], security: tls } }\n\
         \x20   - command: [page, --now]\n",
    )
    .to;
    assert_eq!(
        to.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(),
        ["webhook", "slack", "post", "command"]
    );
    let TellBy::Email(mail) = &to[2].how else { panic!("{to:?}") };
    assert_eq!((mail.port, mail.security, &mail.credentials), (465, MailSecurity::Tls, &None));
    assert!(!format!("{to:?}").contains("hooks.example.com"), "the URL of Slack is a secret");
}

#[test]
fn what_can_not_work_is_refused_where_it_stands() {
    let mail =
        |more: &str| format!("{{ email: {{ host: m, from: a@b.example, to: [c@d.example], {more} }} }}");
    for (section, key, word) in [
        ("every: 0s".to_owned(), "alerts.every", "zero"),
        ("backlog_age: 0s".into(), "alerts.backlog_age", "zero"),
        ("backlog_age: soon".into(), "alerts.backlog_age", ""),
        ("disk: 101".into(), "alerts.disk", ""),
        ("disk: never".into(), "alerts.disk", ""),
        ("dead_letters: { more: 0 }".into(), "alerts.dead_letters.more", ""),
        ("dead_letters: { within: 8d }".into(), "alerts.dead_letters.within", "too long"),
        ("duplicates: { within: 1s }".into(), "alerts.duplicates.within", "less than"),
        ("backlog_growht: { more: 1 }".into(), "alerts.backlog_growht", "unknown key"),
        ("to: [{}]".into(), "alerts.to[0]", "exactly one way"),
        ("to: [{ slack: file:the-url, command: [a] }]".into(), "alerts.to[0]", "exactly one way"),
        ("to: [{ slack: env:S }]".into(), "alerts.to[0].slack", "not a whole URL"),
        ("to: [{ command: [a] }, { command: [b] }]".into(), "alerts.to[1]", "named `command`"),
        ("to: [{ command: [] }]".into(), "alerts.to[0].command", "empty"),
        ("to: [{ webhook: { url: a.example.com } }]".into(), "alerts.to[0].webhook.url", "not a whole URL"),
        (
            "to: [{ webhook: { url: \"https://a\", secret: plain } }]".into(),
            "alerts.to[0].webhook.secret",
            "reference",
        ),
        (format!("to: [{}]", mail("username: x")), "alerts.to[0].email", "`password` is missing"),
        (
            format!("to: [{}]", mail("username: x, password: env:P, security: none")),
            "alerts.to[0].email.security",
            "plain text",
        ),
        (
            "to: [{ email: { host: m, from: nobody, to: [c@d.example] } }]".into(),
            "alerts.to[0].email.from",
            "mail address",
        ),
    ] {
        let problem = only(&with(&format!("alerts: {{ {section} }}\n")));
        assert_eq!(problem.key, key, "{problem}");
        assert!(problem.to_string().contains(word) && problem.line > 0, "{problem}");
    }
}

#[test]
fn a_route_says_how_often_it_expects_events() {
    let text = routes(&OPEN.replace("verify: none", "verify: none\n    expect_every: 1h"));
    assert_eq!(load_text(&text).unwrap().config.routes[0].expect_every, Some(Duration::from_secs(3600)));
}

#[test]
fn a_command_that_can_not_be_started_is_warned_of_with_its_place() {
    let text = routes(OPEN)
        + "alerts:\n  to:\n    - command: [/opt/missing, --now]\n    - { name: b, command: [/bin/sh] }\n";
    let loaded = load_text(&text).unwrap();
    let found: Vec<_> = loaded.warnings.iter().filter(|w| w.message.contains("can't be started")).collect();
    assert_eq!(found.len(), 1, "{:?}", loaded.warnings);
    assert_eq!((found[0].key.as_str(), found[0].line, found[0].column), ("alerts.to[0].command[0]", 8, 17));
    assert!(found[0].message.contains("/opt/missing does not exist"), "{}", found[0].message);
}
