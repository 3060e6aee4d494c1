//! The real binary as a child process, in a folder of its own.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::config::{GatewayBuilder, Ports};
use super::sender::{Answer, Connection, Http2, Request, Via};
use super::{PATIENCE, certs, eventually};

/// The program under test.
pub const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");

/// A gateway that ended when it should have started.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub output: String,
}

/// What a sender does once it has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing: the connection is the gateway's to close.
    Stay,
    /// Says that nothing more will come.
    End,
}

pub struct Gateway {
    pub builder: GatewayBuilder,
    pub ports: Ports,
    folder: TempDir,
    child: Child,
    started: u32,
}

impl Gateway {
    pub(super) async fn start(builder: GatewayBuilder) -> Result<Self, Ended> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ports = Ports::free();
        write_files(folder.path(), &builder, ports);
        let child = spawn(folder.path(), &builder, 1);
        let mut gateway = Self { builder, ports, folder, child, started: 1 };
        gateway.ready().await?;
        Ok(gateway)
    }

    /// Waits until `/readyz` says 200, or the process ends.
    async fn ready(&mut self) -> Result<(), Ended> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child's state") {
                return Err(Ended { code: status.code(), output: self.log() });
            }
            if self.is_ready().await {
                return Ok(());
            }
            assert!(Instant::now() < deadline, "not ready within {PATIENCE:?}:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn is_ready(&self) -> bool {
        self.admin("GET", "/readyz").await.is_ok_and(|answer| answer.status == 200)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the gateway runs")
    }

    /// Everything that it printed since it was last started.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path(&format!("log.{}", self.started))).unwrap_or_default()
    }
    /// Its log lines as JSON; others are left out.
    pub fn log_lines(&self) -> Vec<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.pid()).expect("a process id");
        // SAFETY: `kill` reads two integers; the process is our child and not yet waited for.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "the signal was sent");
    }

    /// The power cut, as far as a process can tell.
    pub async fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        let status = self.child.wait().await.expect("the child's end");
        assert_eq!(status.signal(), Some(libc::SIGKILL), "it ended before it was killed:\n{}", self.log());
    }

    /// SIGTERM, then its end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.end().await
    }

    /// Sends SIGTERM and does not wait.
    pub fn ask_to_end(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Sends SIGKILL and does not wait.
    pub fn ask_to_end_now(&self) {
        self.signal(libc::SIGKILL);
    }

    pub async fn end(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(PATIENCE * 2, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("it does not end:\n{}", self.log())).expect("the child's end")
    }

    /// Starts it again: same folder, same ports, the builder's settings as they are now.
    pub async fn restart(&mut self) {
        if let Err(ended) = self.try_restart().await {
            panic!("the gateway did not come back ({:?}):\n{}", ended.code, ended.output);
        }
    }

    pub async fn try_restart(&mut self) -> Result<(), Ended> {
        self.started += 1;
        write_files(self.folder.path(), &self.builder, self.ports);
        self.child = spawn(self.folder.path(), &self.builder, self.started);
        self.ready().await
    }

    /// Starts a second process on the same folder and waits for its end.
    pub async fn second_process(&self, ports: Ports) -> Output {
        let config = self.path("second.yaml");
        fs::write(&config, self.builder.config(ports)).expect("write the config");
        run(self.folder(), &["run", "--config", "second.yaml"]).await
    }

    /// Writes the builder's config again (a test has changed it) without telling the gateway.
    pub fn rewrite_config(&self) {
        write_files(self.folder.path(), &self.builder, self.ports);
    }
    pub fn write_config(&self, text: &str) {
        fs::write(self.path("tidegate.yaml"), text).expect("write the config");
    }

    /// SIGHUP; returns when the gateway has counted the reload as accepted or refused.
    pub async fn reload(&self) {
        let reloads = async || self.metric("tidegate_config_reloads_total", &[]).await;
        let before = reloads().await;
        self.signal(libc::SIGHUP);
        eventually("the gateway has tried to reload", async || reloads().await > before).await;
    }

    // Sending.

    pub fn plain(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.plain).into()
    }
    pub fn tls(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.tls).into()
    }
    pub async fn connect(&self) -> Connection {
        Connection::plain(self.plain()).await.expect("the plain listener accepts")
    }
    pub async fn connect_tls(&self) -> Connection {
        Connection::tls(self.tls()).await.expect("the TLS listener accepts")
    }
    pub async fn connect_http2(&self) -> Http2 {
        Http2::connect(self.tls()).await.expect("the TLS listener speaks HTTP/2")
    }

    /// Sends over TLS, on a connection of its own, as providers do.
    pub async fn send(&self, request: &Request) -> Answer {
        self.try_send(Via::Tls, request).await.unwrap_or_else(|problem| panic!("{problem}:\n{}", self.log()))
    }
    pub async fn send_via(&self, via: Via, request: &Request) -> Answer {
        self.try_send(via, request)
            .await
            .unwrap_or_else(|problem| panic!("{via:?}: {problem}:\n{}", self.log()))
    }
    pub async fn try_send(&self, via: Via, request: &Request) -> io::Result<Answer> {
        match via {
            Via::Plain => Connection::plain(self.plain()).await?.send(request).await,
            Via::Tls => Connection::tls(self.tls()).await?.send(request).await,
            Via::Http2 => Http2::connect(self.tls()).await?.send(request).await,
        }
    }

    /// Sends bytes on the plain listener; every answer until the gateway closes (or answers nothing more to a
    /// sender that has ended).
    pub async fn raw(&self, bytes: &[u8]) -> Vec<Answer> {
        self.raw_and(bytes, Then::End).await.unwrap_or_default()
    }

    /// The same for a sender that may stay: `Err` if the gateway does not close.
    pub async fn raw_and(&self, bytes: &[u8], then: Then) -> io::Result<Vec<Answer>> {
        let mut connection = self.connect().await;
        // The gateway may close while we still write.
        let _ = connection.write(bytes).await;
        if then == Then::End {
            let _ = connection.end().await;
        }
        let mut answers = Vec::new();
        loop {
            match connection.answer().await {
                Ok(Some(answer)) => answers.push(answer),
                Err(problem) if problem.kind() == io::ErrorKind::TimedOut => return Err(problem),
                // A reset is an end, too: what was sent was not read to its end.
                Ok(None) | Err(_) => return Ok(answers),
            }
        }
    }

    // Looking in.

    pub async fn admin(&self, method: &str, target: &str) -> io::Result<Answer> {
        let address = (Ipv4Addr::LOCALHOST, self.ports.admin).into();
        let request = Request::new(method, target, "").header("Connection", "close");
        Connection::plain(address).await?.send(&request).await
    }

    /// The sum of all samples of `name` whose labels include `labels`; 0 if there are none.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let answer = self.admin("GET", "/metrics").await;
        let answer = answer.unwrap_or_else(|problem| panic!("no metrics: {problem}:\n{}", self.log()));
        let family = ["_total", "_count", "_sum", "_bucket"].iter().find_map(|end| name.strip_suffix(end));
        // A counter is declared with its ending, a histogram without.
        let declared = [name, family.unwrap_or(name)].map(|name| format!("# TYPE {name} "));
        let is_there = declared.iter().any(|line| answer.text().contains(line));
        assert!(is_there, "there is no metric `{name}`");
        let wanted: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        answer
            .text()
            .lines()
            .filter(|line| {
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && wanted.iter().all(|label| line.contains(label))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Waits until the sum of these samples is `wanted`: a request is counted once it is answered, and its sender may be
    /// here first.
    pub async fn counts(&self, name: &str, labels: &[(&str, &str)], wanted: f64) {
        let what = format!("{name} {labels:?} is {wanted}");
        eventually(&what, async || self.metric(name, labels).await == wanted).await;
    }

    /// Runs a command of the CLI in the gateway's folder, with its config.
    pub async fn cli(&self, arguments: &[&str]) -> Output {
        run(self.folder(), &[arguments, &["--config", "tidegate.yaml"]].concat()).await
    }

    /// The same for `--output json`: what it printed, which must have worked.
    pub async fn cli_json(&self, arguments: &[&str]) -> Value {
        let output = self.cli(&[arguments, &["--output", "json"]].concat()).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|problem| panic!("{arguments:?}: {problem}: {output:?}"))
    }

    /// Deliveries that are pending or retrying.
    pub async fn backlog(&self) -> f64 {
        self.metric("tidegate_backlog", &[]).await
    }
    pub async fn drained(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.backlog().await != 0.0 {
            if Instant::now() > deadline {
                let mut left = String::new();
                for state in ["pending", "retrying"] {
                    let events = self.admin("GET", &format!("/events?state={state}&limit=3")).await;
                    left += &events.map_or_else(|problem| problem.to_string(), |answer| answer.text());
                }
                panic!("{} deliveries are still there, such as {left}", self.backlog().await);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(30).collect();
            eprintln!("-- the gateway's last words --");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Runs the program to its end.
pub async fn run(folder: &Path, arguments: &[&str]) -> Output {
    let running = Command::new(TIDEGATE)
        .args(arguments)
        .current_dir(folder)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(PATIENCE, running).await.expect("the command ends").expect("the program runs")
}

fn write_files(folder: &Path, builder: &GatewayBuilder, ports: Ports) {
    let make = |name: &str| fs::create_dir_all(folder.join(name)).expect("make a folder");
    make("secrets");
    make("tls");
    certs::authority().server.write(&folder.join("tls"), "server");
    fs::write(folder.join("tls/ca.pem"), &certs::authority().ca).expect("write the CA");
    for (file, secret) in builder.routes.iter().flat_map(|route| &route.secrets) {
        fs::write(folder.join("secrets").join(file), secret).expect("write a secret");
    }
    for (path, content) in &builder.files {
        fs::write(folder.join(path), content).expect("write a file");
    }
    fs::write(folder.join("tidegate.yaml"), builder.config(ports)).expect("write the config");
}

fn spawn(folder: &Path, builder: &GatewayBuilder, start: u32) -> Child {
    let log = File::create(folder.join(format!("log.{start}"))).expect("make the log");
    let mut command = Command::new(TIDEGATE);
    if let Some(fault) = &builder.fault {
        command.envs(fault.environment(&folder.join("buffer")));
    }
    command
        .args(["run", "--config", "tidegate.yaml"])
        .current_dir(folder)
        .envs(builder.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("the log's second handle"))
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("the gateway starts")
}

/// What a command printed, on both ways out.
pub fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a command that must work, and gives what it printed.
pub async fn done(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = gateway.cli(arguments).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    printed(&output)
}
