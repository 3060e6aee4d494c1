//! A notice as JSON on a program's standard input.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::TellError;
use crate::alerts::{Kind, Notice};

/// Started without a shell, in the gateway's own working directory. Its output is not looked at; beyond the patience of
/// a try it is killed, with all that it has started and that has not left its process group.
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
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let group = Group::of(&child);
        if let Some(mut input) = child.stdin.take() {
            // A program that does not read it may still do its work.
            let _ = input.write_all(notice.json().to_string().as_bytes()).await;
        }
        let status = child.wait().await.map_err(failed)?;
        group.ended();
        if status.success() { Ok(()) } else { Err(TellError(format!("{}: {status}", self.name))) }
    }
}

/// The process group of a program that is still at work: dropped, it is killed.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }
    /// The program itself is done; what it leaves behind is left alone.
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The number is still its own: as long as nobody has waited for its first process, no other group gets it.
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::alerts::tell::tests::{notice, settings, shell};

    fn lives(pid: &str) -> bool {
        // The state stands behind the name; what is dead may wait for its parent to hear of it.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    async fn becomes(what: impl Fn() -> bool) -> bool {
        let until = Instant::now() + Duration::from_secs(20);
        while !what() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        what()
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_ends_with_all_that_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pids");
        let script = format!("sleep 300 & echo $$ $! > {0}.new; mv {0}.new {0}; wait", file.display());
        let settings = settings(shell(&script));
        let crate::config::TellBy::Command(line) = &settings.to[0].how else { panic!("a command") };
        let (program, notice) = (Program::new(line).unwrap(), notice(&settings));
        tokio::select! {
            _ = program.run(&notice) => panic!("it does not end by itself"),
            started = becomes(|| file.exists()) => assert!(started),
        }
        let pids = std::fs::read_to_string(&file).unwrap();
        assert_eq!(pids.split_whitespace().count(), 2);
        assert!(becomes(|| !pids.split_whitespace().any(lives)).await, "{pids}");
    }

    #[tokio::test]
    async fn what_a_command_leaves_behind_when_it_is_done_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let settings = settings(shell(&format!("sleep 300 & echo $! > {}", file.display())));
        let crate::config::TellBy::Command(line) = &settings.to[0].how else { panic!("a command") };
        Program::new(line).unwrap().run(&notice(&settings)).await.unwrap();
        let pid = std::fs::read_to_string(&file).unwrap();
        assert!(lives(pid.trim()));
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }
}
