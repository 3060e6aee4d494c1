use super::*;
use crate::config::AlertTarget;

pub(super) fn settings(how: TellBy) -> AlertSettings {
    let config = "listeners: [{ address: \"127.0.0.1:0\" }]\nroutes: [{ path: /x, verify: none, forward_to: \"http://a\" }]\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.yaml");
    std::fs::write(&path, config).unwrap();
    let mut settings =
        crate::config::load_offline(&path, crate::config::Needed::Secrets).unwrap().config.alerts;
    settings.to = vec![AlertTarget { name: "ops".into(), how }];
    settings
}

pub(super) fn shell(script: &str) -> TellBy {
    TellBy::Command(["sh", "-c", script].map(Into::into).to_vec())
}

pub(super) fn notice(settings: &AlertSettings) -> Arc<Notice> {
    Arc::new(Notice::test(settings, Timestamp(1)))
}

#[tokio::test]
async fn a_command_gets_the_notice_and_its_failure_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notice");
    let good = settings(shell(&format!("echo \"$TIDEGATE_ALERT\" > {0}; cat >> {0}", file.display())));
    let tested = Targets::build(&good).unwrap().test(notice(&good)).await;
    assert_eq!(tested, [Tested { target: "ops".into(), by: "command".into(), error: None }]);
    let text = std::fs::read_to_string(&file).unwrap();
    let (word, json) = text.split_once('\n').unwrap();
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!((word, json["type"].as_str()), ("test", Some("tidegate.alerts.test")));

    for (line, says) in
        [("exit 3", "exit status: 3"), ("exec /nowhere/at/all 2>/dev/null", "exit status: 127")]
    {
        let bad = settings(shell(line));
        let tested = Targets::build(&bad).unwrap().test(notice(&bad)).await;
        assert!(tested[0].error.as_ref().unwrap().contains(says), "{tested:?}");
    }
    let gone = settings(TellBy::Command(vec!["/nowhere/at/all".into()]));
    let tested = Targets::build(&gone).unwrap().test(notice(&gone)).await;
    assert!(tested[0].error.as_ref().unwrap().starts_with("/nowhere/at/all: "), "{tested:?}");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_hangs_holds_up_nobody_and_what_is_too_much_is_dropped() {
    // Connections to it are taken by the system, and never answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap()).parse().unwrap();
    let settings = settings(TellBy::Webhook { url, secret: None, ca: None });
    let targets = Targets::build(&settings).unwrap();
    let metrics = Arc::new(Metrics::default());
    for _ in 0..20 {
        targets.offer(notice(&settings), &metrics, &Clock::System);
    }
    let count = |outcome: &str| {
        let text = metrics.expose(crate::telemetry::Scrape {
            stats: None,
            admission: crate::buffer::Admission::Open,
            ready: true,
            routes: Vec::new(),
            breakers: Vec::new(),
            paused: Vec::new(),
            servers: Vec::new(),
            secrets: Vec::new(),
            config_hash: String::new(),
            now: Timestamp(0),
        });
        let line = format!("tidegate_alert_notices_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|l| l.strip_prefix(&line)?.parse::<u64>().ok()).unwrap_or(0)
    };
    assert_eq!(count("dropped"), 12, "the task has not run yet: a queue of 8 is full");
    tokio::time::timeout(Duration::from_secs(1800), async {
        while count("failed") < 8 {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    })
    .await
    .unwrap();
    assert!(targets.status()[0].error.is_some());
}

#[test]
fn what_can_not_be_made_is_said_with_its_name() {
    let mail = crate::config::Mail {
        host: "mail".into(),
        port: 25,
        security: crate::config::MailSecurity::StartTls,
        credentials: None,
        from: "a@example.com".into(),
        to: vec!["b@example.com".into()],
        ca: Some("/nowhere.pem".into()),
    };
    let problems = Targets::build(&settings(TellBy::Email(mail))).unwrap_err();
    assert!(problems[0].starts_with("alerts.to ops: /nowhere.pem: "), "{problems:?}");
}
