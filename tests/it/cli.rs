//! The command line, as people and scripts use it, and the commands that the README shows.

use std::path::Path;

use crate::support::gateway::{TIDEGATE, run};
use crate::support::*;

fn text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_shows_every_problem_at_once_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = "listeners:
  - adress: 127.0.0.1:8443
routes:
  - path: /a
    provider: gihtub
    secret: env:TIDEGATE_TEST_NOT_SET
    forward_to: http://127.0.0.1:3000
  - path: /b
    verify: none
    max_body: 12 parsecs
    forward_to: http://127.0.0.1:3000
";
    std::fs::write(folder.path().join("bad.yaml"), config).expect("written");
    let output = run(folder.path(), &["check", "--config", "bad.yaml"]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    for (line, what) in [(2, "address"), (5, "github"), (6, "TIDEGATE_TEST_NOT_SET"), (10, "max_body")] {
        assert!(said.contains(&format!("bad.yaml:{line}:")), "line {line}: {said}");
        assert!(said.contains(what), "what would be right, or the key: {what}: {said}");
    }
}

/// A secret that anybody could guess proves nothing, and neither does one whose signed parts can be cut elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_refuses_blank_secrets_and_points_at_short_ones_and_at_open_borders() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let config = "listeners:
  - address: 127.0.0.1:8443
admin: { listen: 127.0.0.1:9443 }
buffer: { path: buffer, min_free: 1MiB }
routes:
  - path: /in
    provider: github
    secret: file:secret
    forward_to: http://127.0.0.1:3000
";
    let own = "  - path: /own
    verify:
      algorithm: hmac-sha256
      secret: file:long
      signed: '{header:X-Time}{body}'
      signature: { from: header:X-Sig, encoding: hex }
    forward_to: http://127.0.0.1:3000
";
    std::fs::write(path("one.yaml"), config).expect("written");
    std::fs::write(path("long"), "k7Qm2ZrT9xVb4LpW8sYd1NfH6jGc3AeU").expect("written");
    let check = async |file: &str| {
        let output = run(folder.path(), &["check", "--config", file]).await;
        (output.status.code(), text(&output))
    };
    for blank in ["", "\n", "\r\n", "   \n", "\t \n\n"] {
        std::fs::write(path("secret"), blank).expect("written");
        let (code, said) = check("one.yaml").await;
        assert_eq!(code, Some(1), "{blank:?}: {said}");
        assert!(said.contains("error: one.yaml:8:13: routes[0].secret: "), "{blank:?}: {said}");
        assert!(said.contains("is empty") || said.contains("nothing but white space"), "{blank:?}: {said}");
        let run = run(folder.path(), &["run", "--config", "one.yaml"]).await;
        assert!(!run.status.success() && text(&run).contains("one.yaml:8:13"), "{blank:?}: {run:?}");
    }
    std::fs::write(path("secret"), "1234567\n").expect("written");
    let (code, said) = check("one.yaml").await;
    let warning =
        "warning: one.yaml:8:13: routes[0].secret: the secret has only 7 byte(s): it can be guessed";
    assert!(code == Some(0) && said.contains(warning) && !said.contains("1234567"), "{code:?} {said}");
    std::fs::write(path("secret"), "12345678\n").expect("written");
    let (code, said) = check("one.yaml").await;
    assert!(code == Some(0) && !said.contains("byte(s)"), "{code:?} {said}");

    std::fs::write(path("two.yaml"), format!("{config}{own}")).expect("written");
    let (code, said) = check("two.yaml").await;
    let warning = "warning: two.yaml:14:15: routes[1].verify.signed: where `{header:x-time}` ends and `{body}` \
                   begins is not fixed";
    assert!(code == Some(0) && said.contains(warning), "{code:?} {said}");
    let shaped =
        own.replace("      signature", "      matches: { header:X-Time: '[0-9]{10}' }\n      signature");
    std::fs::write(path("two.yaml"), format!("{config}{shaped}")).expect("written");
    let (code, said) = check("two.yaml").await;
    assert!(code == Some(0) && !said.contains("not fixed"), "{code:?} {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_captured_request_is_verified_offline() {
    let app = App::start().await;
    let gateway = gateway().route(stripe().to(&app)).start().await;
    let event = signed::stripe_at(1_764_000_000, r#"{"id":"evt_1","type":"invoice.paid"}"#);
    let line = |request: &Request| {
        use base64::Engine;
        json!({
            "method": "POST", "url": "https://hooks.example.com/hooks/stripe", "headers": request.headers,
            "body_base64": base64::engine::general_purpose::STANDARD.encode(&request.body), "source": "192.0.2.1"
        })
        .to_string()
    };
    let lines =
        [line(&event), line(&event.clone().body("{}")), line(&event.without("Stripe-Signature"))].join("\n");
    std::fs::write(gateway.path("captured.jsonl"), lines).expect("written");
    let arguments = ["verify", "--route", "stripe", "--requests", "captured.jsonl", "--now", "1764000010"];
    let output = gateway.cli(&arguments).await;
    let answers: Vec<serde_json::Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(answers.len(), 3, "{}", text(&output));
    assert_eq!(answers[0]["accepted"], true);
    assert!(answers[0]["event_key"].as_str().is_some_and(|key| key.contains("evt_1")), "{}", answers[0]);
    assert_eq!(
        (&answers[1]["accepted"], &answers[1]["reason"]),
        (&json!(false), &json!("signature_invalid"))
    );
    assert_eq!(
        (&answers[2]["accepted"], &answers[2]["reason"]),
        (&json!(false), &json!("signature_missing"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_listed_and_shown() {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).start().await;
    let answer = gateway.send(&signed::github(push())).await;
    app.receives(1).await;
    gateway.drained().await;
    let listed = gateway.cli_json(&["events", "list"]).await.to_string();
    assert!(listed.contains(answer.event_id()), "{listed}");
    let shown = gateway.cli_json(&["events", "show", answer.event_id()]).await.to_string();
    assert!(shown.contains("delivered") && shown.contains("X-GitHub-Delivery"), "{shown}");
    let replayed = gateway.cli(&["events", "replay", answer.event_id()]).await;
    assert!(replayed.status.success(), "{}", text(&replayed));
    let received = app.receives(2).await;
    assert_eq!(received[1].event_id(), answer.event_id());
    let status = gateway.cli(&["status"]).await;
    assert!(status.status.success() && text(&status).contains("github"), "{}", text(&status));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_can_be_looked_at_without_its_secrets_but_not_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = "listeners:
  - address: 127.0.0.1:8443
    tls: { cert: gone.pem, key: gone.key }
routes:
  - path: /a
    provider: stripe
    secret: file:gone
    forward_to: http://127.0.0.1:3000
";
    std::fs::write(folder.path().join("tidegate.yaml"), config).expect("written");
    let ask = async |line: &str| {
        let output = run(folder.path(), &line.split(' ').collect::<Vec<_>>()).await;
        (output.status.code(), text(&output))
    };
    let (code, said) = ask("check").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(":3:") && said.contains(":7:") && said.contains("2 problems"), "{said}");
    for (line, code) in [
        ("check --offline", 0),
        ("routes", 0),
        ("routes --explain https://h/a", 0),
        ("routes --explain https://h/b", 1),
        ("routes --explain /a", 2),
        ("verify --route a --requests -", 78),
        ("run", 78),
    ] {
        let (was, said) = ask(line).await;
        assert_eq!(was, Some(code), "{line}: {said}");
    }
    std::fs::write(folder.path().join("tidegate.yaml"), "routes: [").expect("written");
    assert_eq!(ask("routes").await.0, Some(78));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_shows_a_reload_that_was_refused() {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).start().await;
    let path = gateway.path("tidegate.yaml");
    let config = std::fs::read_to_string(&path).expect("the config");
    std::fs::write(&path, "routes: [").expect("written");
    assert_eq!(gateway.admin("POST", "/reload").await.expect("answered").status, 422);
    std::fs::write(&path, config).expect("written");
    let said = text(&gateway.cli(&["status"]).await);
    assert!(said.contains("REFUSED") && said.contains("not valid YAML"), "{said}");
    let status = gateway.cli_json(&["status"]).await;
    assert!(status["last_reload"]["problem"].is_string(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_machines_read_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let schema = run(folder.path(), &["schema"]).await;
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).expect("a JSON schema");
    assert!(schema.to_string().contains("listeners"));
    let completions = run(folder.path(), &["completions", "bash"]).await;
    assert!(completions.status.success() && text(&completions).contains("tidegate"));
    assert_eq!(run(folder.path(), &["no-such-command"]).await.status.code(), Some(2), "wrong usage");
    let missing = run(folder.path(), &["run", "--config", "missing.yaml"]).await;
    assert_eq!(missing.status.code(), Some(78), "the config is bad: {}", text(&missing));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_signed_is_verified_and_what_is_sent_arrives() {
    let app = App::start().await;
    let slack = config::provider("slack", "/hooks/slack", signed::SLACK_SECRET).to(&app);
    let mut builder = gateway().route(github().to(&app)).route(stripe().to(&app)).route(slack);
    builder = builder.route(standard_webhooks().to(&app));
    for (provider, secret) in
        [("svix", signed::STANDARD_SECRET), ("shopify", "a-secret"), ("gitlab", "a-token")]
    {
        let path = format!("/hooks/{provider}");
        builder = builder.route(config::provider(provider, &path, secret).to(&app));
    }
    let gateway = builder.start().await;
    let mut expected = 0;
    for (provider, route) in [
        ("github", "github"),
        ("stripe", "stripe"),
        ("standard-webhooks", "standard"),
        ("slack", "slack"),
        ("svix", "svix"),
        ("shopify", "shopify"),
        ("gitlab", "gitlab"),
    ] {
        let secret = format!("file:secrets/{route}.secret");
        let to = format!("https://localhost:{}/hooks/{route}", gateway.ports.tls);
        // Signed, verified offline.
        let arguments =
            ["sign", "--provider", provider, "--secret", &secret, "--url", &to, "--output", "json"];
        let signed = run(gateway.folder(), &arguments).await;
        assert!(signed.status.success(), "{provider}: {}", text(&signed));
        std::fs::write(gateway.path("signed.jsonl"), &signed.stdout).expect("written");
        let verified = gateway.cli(&["verify", "--route", route, "--requests", "signed.jsonl"]).await;
        let said: serde_json::Value = serde_json::from_slice(&verified.stdout).expect("JSON");
        assert_eq!(said["accepted"], true, "{provider}: {said}");
        // Sent twice, accepted twice: each has an id of its own.
        let arguments =
            ["send", provider, "--to", &to, "--secret", &secret, "--ca", "tls/ca.pem", "--count", "2"];
        let sent = run(gateway.folder(), &arguments).await;
        assert!(sent.status.success(), "{provider}: {}", text(&sent));
        assert!(text(&sent).contains("202") && text(&sent).contains("tidegate-event-id"), "{}", text(&sent));
        expected += 2;
        app.receives(expected).await;
        // With another secret it is refused, and says so.
        let arguments =
            ["send", provider, "--to", &to, "--secret", "d3Jvbmc=", "--insecure", "--output", "json"];
        let refused = run(gateway.folder(), &arguments).await;
        assert_eq!(refused.status.code(), Some(1), "{provider}: {}", text(&refused));
        assert!(text(&refused).contains("401"), "{provider}: {}", text(&refused));
    }
    gateway.drained().await;
    assert_eq!(app.count(), expected);
}

/// The README's larger example, as somebody would try it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readmes_config_is_right() {
    let readme =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("the README");
    let blocks: Vec<&str> =
        readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 2, "{blocks:?}");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("tls")).expect("a folder");
    let pair = &certs::authority().server;
    std::fs::write(folder.path().join("tls/fullchain.pem"), &pair.cert).expect("written");
    std::fs::write(folder.path().join("tls/key.pem"), &pair.key).expect("written");
    for name in ["GITHUB_WEBHOOK_SECRET", "STRIPE_SECRET", "STRIPE_SECRET_OLD"] {
        std::fs::write(folder.path().join(name), "whsec_c2VjcmV0").expect("written");
    }
    for block in blocks {
        let listeners = "listeners: [{ address: 127.0.0.1:8443 }]\n";
        let whole =
            if block.contains("listeners:") { block.to_owned() } else { format!("{listeners}{block}") };
        // The variables are not set here; files stand in for them.
        std::fs::write(folder.path().join("tidegate.yaml"), whole.replace("env:", "file:")).expect("written");
        let output = run(folder.path(), &["check"]).await;
        assert!(output.status.success(), "{}\n{block}", text(&output));
    }
}

/// Fenced blocks of the README that begin with `console`, without their `$ ` and output.
fn readme_commands() -> Vec<String> {
    let readme =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("the README");
    let mut commands = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            command if inside => commands.extend(command.strip_prefix("$ ").map(str::to_owned)),
            _ => {}
        }
    }
    commands
}

/// All of them but `run`, in a folder in which a gateway with the README's route runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readmes_tidegate_commands_work() {
    let commands: Vec<_> =
        readme_commands().into_iter().filter(|command| command.starts_with("tidegate ")).collect();
    assert!(commands.len() >= 10, "{commands:?}");
    let app = App::start().await;
    let gateway = gateway().route(stripe().named("billing").to(&app)).route(github().to(&app)).start().await;
    let secret = "file:secrets/stripe.secret";
    let arguments = ["sign", "--provider", "stripe", "--secret", secret, "--output", "json"];
    let captured = run(gateway.folder(), &arguments).await;
    std::fs::write(gateway.path("captured.jsonl"), captured.stdout).expect("written");
    // What stands for the reader's own: ports and variables.
    let here = format!("localhost:{}", gateway.ports.tls);
    for command in commands {
        let command = command.split(" #").next().unwrap_or_default();
        let command = command
            .replace("localhost:8443", &here)
            .replace("env:GITHUB_WEBHOOK_SECRET", "file:secrets/github.secret");
        let words: Vec<_> = command.split_whitespace().skip(1).collect();
        if words[0] == "run" {
            continue;
        }
        let output = run(gateway.folder(), &words).await;
        assert!(output.status.success(), "{command}: {}", text(&output));
    }
}

#[test]
fn the_readme_shows_the_two_commands_and_what_is_behind_them() {
    let commands = readme_commands();
    for command in ["make run", "make test", "make run ARGS=--once"] {
        assert!(commands.iter().any(|c| c.split(" #").next().map(str::trim) == Some(command)), "{command}");
    }
    assert!(commands.iter().any(|command| command.starts_with("cargo run --locked -- demo")));
    assert!(commands.iter().any(|command| command.starts_with("cargo test --locked")));
}

/// The demonstration, as a newcomer would see it; on ports of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demonstration_goes_as_it_should() {
    let folder = tempfile::tempdir().expect("a folder");
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/quickstart.yaml");
    let config = std::fs::read_to_string(quickstart).expect("the quickstart config");
    let ports = config::Ports::free();
    let config = config
        .replace("127.0.0.1:8443", &format!("127.0.0.1:{}", ports.tls))
        .replace("127.0.0.1:9900", &format!("127.0.0.1:{}", ports.admin))
        .replace("127.0.0.1:3000", &format!("127.0.0.1:{}", ports.plain));
    std::fs::create_dir(folder.path().join("conf")).expect("a folder");
    std::fs::write(folder.path().join("conf/quickstart.yaml"), config).expect("written");
    for again in ["first", "second"] {
        let output = run(folder.path(), &["demo", "--config", "conf/quickstart.yaml", "--once"]).await;
        let said = text(&output);
        assert!(output.status.success(), "{again} run: {said}");
        assert!(said.contains("signature_invalid") && said.contains("duplicate"), "{again} run: {said}");
    }
    // A busy port is said plainly.
    let _busy = std::net::TcpListener::bind(("127.0.0.1", ports.tls)).expect("free again");
    let output = run(folder.path(), &["demo", "--config", "conf/quickstart.yaml", "--once"]).await;
    assert!(!output.status.success());
    assert!(text(&output).contains(&format!("127.0.0.1:{} is in use", ports.tls)), "{}", text(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destinations_and_top_show_what_goes_where_and_what_holds_it() {
    let (quick, stuck) = (App::start().await, App::start().await);
    stuck.behaves(Behaviour::Hang);
    let adaptive = json!({"adaptive": true, "min": 3, "max": 8});
    let slow = stripe().to(&stuck).delivery("concurrency", adaptive).delivery("rate", "100/s");
    let gateway = gateway().route(github().to(&quick)).route(slow).start().await;
    for _ in 0..5 {
        gateway.send(&signed::github(push())).await;
        gateway.send(&signed::stripe(invoice_paid())).await;
    }
    quick.receives(5).await;
    let listed = async || gateway.cli_json(&["destinations", "list"]).await["destinations"].clone();
    eventually("three are under way", async || listed().await[1]["in_flight"] == 3).await;
    let all = listed().await;
    let (github, stripe) = (&all[0], &all[1]);
    assert_eq!((&github["destination"], &github["attempts"]["delivered"]), (&json!("github/app"), &json!(5)));
    assert_eq!((&github["concurrency_limit"], &github["rate"]), (&json!(16), &json!(null)));
    assert_eq!((&stripe["concurrency_limit"], &stripe["rate"]), (&json!(3), &json!("100/s")));
    assert_eq!(gateway.metric("tidegate_concurrency_limit", &[("destination", "stripe/app")]).await, 3.0);

    let one = gateway.cli(&["destinations", "show", "stripe"]).await;
    assert!(
        one.status.success() && text(&one).contains("3 of 3") && text(&one).contains("100/s"),
        "{}",
        text(&one)
    );
    let none = gateway.cli(&["destinations", "show", "strip/app"]).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none).contains("did you mean `stripe/app`?"), "{}", text(&none));

    assert!(gateway.cli(&["pause", "--route", "github"]).await.status.success());
    // Standard output is no terminal: one frame.
    let frame = gateway.cli(&["top", "--interval", "200ms"]).await;
    let shown = text(&frame);
    assert!(
        frame.status.success() && shown.contains("ROUTE") && shown.contains("paused by an operator"),
        "{shown}"
    );
    let frame = gateway.cli_json(&["top", "--once", "--interval", "200ms"]).await;
    assert_eq!(frame["destinations"][0]["destination"], "stripe/app", "the longest backlog comes first");
    assert_eq!(frame["destinations"][1]["concurrency_limit"], 0, "held");
    assert_eq!(frame["routes"].as_array().map(Vec::len), Some(2));
    assert!(frame["routes"].to_string().contains("\"requests\":5"), "{frame}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_events_are_followed_as_they_come() {
    use tokio::io::{AsyncBufReadExt, BufReader};

    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).route(stripe().to(&app)).start().await;
    let send = async || {
        let request = signed::github(push());
        gateway.send(&request).await.event_id().to_owned()
    };
    let (_, latest) = (send().await, send().await);
    let mut following = tokio::process::Command::new(TIDEGATE)
        .args(["events", "tail", "--route", "github", "-n", "1", "-o", "json", "--config", "tidegate.yaml"])
        .current_dir(gateway.folder())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(following.stdout.take().expect("piped")).lines();
    let mut next = async || {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("in time");
        let line = line.expect("readable").expect("it goes on");
        serde_json::from_str::<serde_json::Value>(&line).expect("an event a line")["id"].clone()
    };
    assert_eq!(next().await, latest.as_str());
    gateway.send(&signed::stripe(invoice_paid())).await;
    for _ in 0..3 {
        let sent = send().await;
        assert_eq!(next().await, sent.as_str(), "each once, and no other route's");
    }
}

/// A terminal of its own: the end that a program is given, and the one that a person would sit at.
fn terminal() -> (std::os::fd::OwnedFd, std::os::fd::OwnedFd) {
    use std::os::fd::FromRawFd;
    let (mut near, mut far) = (-1, -1);
    let size = libc::winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: they are places for two numbers and a size, and null asks for no name and no modes.
    let made =
        unsafe { libc::openpty(&mut near, &mut far, std::ptr::null_mut(), std::ptr::null_mut(), &size) };
    assert_eq!(made, 0, "a terminal");
    // SAFETY: they were opened just now, and are nobody else's.
    unsafe { (FromRawFd::from_raw_fd(near), FromRawFd::from_raw_fd(far)) }
}

/// Whether a terminal gives whole lines and shows what is typed.
fn is_cooked(terminal: &std::os::fd::OwnedFd) -> bool {
    use std::os::fd::AsRawFd;
    let mut modes = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: it is open, and the modes are read only if they were written.
    let modes = unsafe {
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), modes.as_mut_ptr()), 0);
        modes.assume_init()
    };
    let cooked = libc::ICANON | libc::ECHO | libc::ISIG;
    modes.c_lflag & cooked == cooked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_leaves_the_terminal_as_it_was_whatever_ends_it() {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).start().await;
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
        let (near, far) = terminal();
        assert!(is_cooked(&far));
        let given = || std::process::Stdio::from(far.try_clone().expect("a second handle"));
        let mut top = tokio::process::Command::new(TIDEGATE)
            .args(["top", "--interval", "200ms", "--config", "tidegate.yaml"])
            .current_dir(gateway.folder())
            .stdin(given())
            .stdout(given())
            .kill_on_drop(true)
            .spawn()
            .expect("it runs");
        let shown = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
        let reads = shown.clone();
        // Ends when nobody holds the other end any more.
        std::thread::spawn(move || {
            use std::io::Read;
            let (mut near, mut some) = (std::fs::File::from(near), [0; 4096]);
            while let Ok(n @ 1..) = near.read(&mut some) {
                reads.lock().extend_from_slice(&some[..n]);
            }
        });
        eventually("a frame is drawn", async || String::from_utf8_lossy(&shown.lock()).contains("ROUTE"))
            .await;
        assert!(!is_cooked(&far), "keys come one by one");
        let pid = i32::try_from(top.id().expect("it runs")).expect("a process id");
        // SAFETY: `kill` reads two integers; the process is our child and not yet waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        let ended = tokio::time::timeout(PATIENCE, top.wait()).await.expect("it ends").expect("its end");
        assert!(ended.success(), "signal {signal}: {ended}");
        assert!(is_cooked(&far), "signal {signal}");
        eventually("the screen is put back", async || shown.lock().ends_with(b"\x1b[?1049l")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_nobody_knows_is_doubted_where_nothing_is_found() {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).start().await;
    let said = async |arguments: &[&str]| {
        let output = gateway.cli(arguments).await;
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for command in [
        &["events", "list"][..],
        &["events", "list", "-o", "json"],
        &["dead", "list"],
        &["events", "replay", "--dry-run"],
        &["events", "purge", "--yes"],
        &["erase", "--key", "x", "--dry-run"],
        &["export", "--file", "none.tar"],
    ] {
        let (code, told) = said(&[command, &["--route", "gihub"]].concat()).await;
        assert_eq!(code, Some(0), "{command:?}: {told}");
        assert!(told.contains("no route `gihub`; did you mean `github`?"), "{command:?}: {told}");
        assert!(
            !said(&[command, &["--route", "github"]].concat()).await.1.contains("warning"),
            "{command:?}"
        );
    }
    let (_, told) = said(&["dead", "list", "--destination", "github/ap"]).await;
    assert!(told.contains("no destination `github/ap`; did you mean `github/app`?"), "{told}");
}
