//! A notice as JSON on a program's standard input.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::TellError;
use crate::alerts::{Kind, Notice};

/// Started without a shell, in the gateway's own working directory. Its output is not looked at; beyond the patience of
/// a try it is killed.
#[derive(Debug)]
pub struct Program {
    name: String,
    arguments: Vec<String>,
}

impl Program {
    pub fn new(line: &[String]) -> Result<Self, String> {
        match line.split_first() {
            Some((name, arguments)) => Ok(Self { name: name.clone(), arguments: arguments.to_vec() }),
            None => Err("no program is named".into()),
        }
    }

    pub async fn run(&self, notice: &Notice) -> Result<(), TellError> {
        let failed = |error: std::io::Error| TellError(format!("{}: {error}", self.name));
        let kind = match notice.kind {
            Kind::Firing => "firing",
            Kind::Resolved => "resolved",
            Kind::Test => "test",
        };
        let mut child = Command::new(&self.name)
            .args(&self.arguments)
            .env("TIDEGATE_ALERT", kind)
            .env("TIDEGATE_ALERT_TITLE", notice.title())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            // A program that does not read it may still do its work.
            let _ = input.write_all(notice.json().to_string().as_bytes()).await;
        }
        let status = child.wait().await.map_err(failed)?;
        if status.success() { Ok(()) } else { Err(TellError(format!("{}: {status}", self.name))) }
    }
}
