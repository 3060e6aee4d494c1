//! The gateway of the demonstration: a child process of the same binary, as it would run anywhere.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::config::AdminAddress;

/// How long the gateway may take to be ready: an old buffer has to be opened.
const START_WITHIN: Duration = Duration::from_secs(20);
/// How long it may take to finish: its own grace period and a little more.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// A running gateway. Dropped, it is killed; ended properly by [`Gateway::stop`].
pub struct Gateway {
    child: Child,
    log: PathBuf,
}

impl Gateway {
    /// Starts it on `config`, its output in the file `log`, and waits until it is ready.
    pub async fn start(config: &Path, admin: &AdminAddress, log: PathBuf) -> Result<Self, String> {
        let shown = log.display();
        let output = File::create(&log).map_err(|problem| format!("{shown}: {problem}"))?;
        let errors = output.try_clone().map_err(|problem| format!("{shown}: {problem}"))?;
        let program = std::env::current_exe().map_err(|problem| format!("own program: {problem}"))?;
        let child = Command::new(program)
            .arg("run")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // Its own group: Ctrl-C is for the demonstration, which then ends the gateway in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|problem| format!("the gateway could not be started: {problem}"))?;
        let mut gateway = Self { child, log };
        gateway.wait_ready(admin).await?;
        Ok(gateway)
    }

    async fn wait_ready(&mut self, admin: &AdminAddress) -> Result<(), String> {
        let deadline = Instant::now() + START_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait().map_err(|problem| problem.to_string())? {
                return Err(format!("the gateway ended at once ({status}); it said:\n{}", self.last_words()));
            }
            if is_ready(admin).await {
                return Ok(());
            }
            if Instant::now() > deadline {
                let secs = START_WITHIN.as_secs();
                return Err(format!(
                    "the gateway was not ready in {secs} s; it said:\n{}",
                    self.last_words()
                ));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The end of its log, for an error message.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].iter().map(|line| format!("    {line}\n")).collect()
    }

    /// Waits until the gateway ends by itself, which it should not.
    pub async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => format!("the gateway ended ({status}); it said:\n{}", self.last_words()),
            Err(problem) => format!("the gateway is gone: {problem}"),
        }
    }

    /// Asks it to finish (SIGTERM) and waits for it. `Err` if it did not end with 0.
    pub async fn stop(mut self) -> Result<(), String> {
        if let Some(pid) = self.child.id() {
            // The shell's own `kill` exists wherever a shell does.
            let asked = Command::new("sh").arg("-c").arg(format!("kill -TERM {pid}")).status().await;
            if !asked.is_ok_and(|status| status.success()) {
                return Err("the gateway could not be asked to end; it is killed".into());
            }
        }
        match tokio::time::timeout(STOP_WITHIN, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("the gateway ended with {status}:\n{}", self.last_words())),
            Ok(Err(problem)) => Err(problem.to_string()),
            Err(_) => {
                Err(format!("the gateway did not end within {} s; it is killed", STOP_WITHIN.as_secs()))
            }
        }
    }
}

/// Whether `/readyz` says 200.
async fn is_ready(admin: &AdminAddress) -> bool {
    let asking = async {
        match admin {
            AdminAddress::Tcp(address) => ask(TcpStream::connect(address).await?).await,
            AdminAddress::Unix(path) => ask(UnixStream::connect(path).await?).await,
            AdminAddress::Off => Ok(false),
        }
    };
    matches!(tokio::time::timeout(Duration::from_secs(2), asking).await, Ok(Ok(true)))
}

async fn ask(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> std::io::Result<bool> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}
