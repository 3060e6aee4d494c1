//! `tidegate check`, and how every command finds its config.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::failure::{Failure, exit};
use super::output::print;
use super::replay::{Report, replay};
use crate::clock::Timestamp;
use crate::config::{self, Config, Needed, Problem};

/// Where the config is: shared by all commands that read one.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ConfigPath {
    /// A config file, or a folder of `*.yaml` files [default: ./tidegate.yaml, else conf/tidegate.yaml]
    #[arg(short, long, value_name = "PATH", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigPath {
    /// The path that was given, else the usual one.
    pub fn path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(usual_path)
    }
}

/// `tidegate.yaml` in the working directory, else `conf/tidegate.yaml` if that exists.
pub fn usual_path() -> PathBuf {
    let [first, second] = ["tidegate.yaml", "conf/tidegate.yaml"].map(PathBuf::from);
    if !first.exists() && second.exists() { second } else { first }
}

/// How a command prints what it found.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// For machines
    Json,
}

/// Check a config: every problem at once
///
/// Reads the config as `tidegate run` would, with the secrets and certificates that it refers to, and says everything
/// that is wrong: file, line, column, key, and what would be right. Opens no socket and no buffer. Exit code 0: it may
/// run, perhaps with warnings; 1: it may not.
///
/// With --replay it also runs captured requests (the lines of `verify --requests`) against it and shows what would change:
/// against another config (--against), or against the lines' own "outcome": {"accepted", "reason", "event_key",
/// "route", "mode"}. A line's "received_at" (Unix seconds or RFC 3339) is the time of its decision. Exit code 1 as
/// well if something that was accepted would be refused.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
Examples:
  tidegate check -c tidegate.yaml
  tidegate check -c tidegate.yaml --offline            in CI, where the secrets are not
  tidegate check -c new.yaml --replay captured.jsonl --against tidegate.yaml
  tidegate check -o json | jq -r '.problems[] | \"\\(.file):\\(.line): \\(.message)\"'")]
pub struct Check {
    #[command(flatten)]
    config: ConfigPath,
    /// Look at the config alone: the secrets and certificates that it refers to need not be here
    #[arg(long)]
    #[arg(conflicts_with = "replay")]
    offline: bool,
    /// Captured requests, one JSON object a line (`-` for standard input): what would the config do with them?
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// The config that they are compared with
    #[arg(long, value_name = "PATH", requires = "replay")]
    against: Option<PathBuf>,
    /// The time of the replayed decisions, in Unix seconds [default: each line's `received_at`, else now]
    #[arg(long, value_name = "UNIX_SECONDS", requires = "replay")]
    now: Option<u64>,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Output,
}

impl Check {
    pub fn run(self) -> ExitCode {
        exit(self.check())
    }

    fn check(&self) -> Result<ExitCode, Failure> {
        let path = self.config.path();
        let needed = if self.offline { Needed::Nothing } else { Needed::Everything };
        let config::Examined { config, problems, warnings } = config::examine(&path, needed);
        let replayed = match (&config, &self.replay) {
            (Some(config), Some(requests)) => Some(self.replay(requests, config)?),
            _ => None,
        };
        let text = match self.output {
            Output::Text => {
                let listed = listed(&problems, &warnings, Paint::of(&std::io::stdout()));
                let verdict = config.as_ref().map(|c| verdict(&path.display().to_string(), c));
                let replayed = replayed.as_ref().map(|report| format!("\n{}", report.text()));
                listed + &verdict.unwrap_or_default() + &replayed.unwrap_or_default()
            }
            Output::Json => {
                let hash = config.as_ref().map(|c| &c.hash);
                let mut report = json!({
                    "ok": config.is_some(), "hash": hash, "problems": problems, "warnings": warnings,
                });
                if let Some(replayed) = &replayed {
                    report["replay"] = serde_json::to_value(replayed).map_err(std::io::Error::other)?;
                }
                format!("{report:#}\n")
            }
        };
        print(&text)?;
        let breaks = replayed.is_some_and(|report| report.newly_refused > 0);
        Ok(if config.is_some() && !breaks { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn replay(&self, requests: &Path, config: &Config) -> Result<Report, Failure> {
        let old = match &self.against {
            Some(path) => Some(config::load_offline(path, Needed::Secrets)?.config),
            None => None,
        };
        replay(requests, self.now.map(Timestamp::from_secs), config, old.as_ref())
    }
}

/// Problems, then warnings, each with its snippet, and how many there are.
fn listed(problems: &[Problem], warnings: &[Problem], paint: Paint) -> String {
    let mut text = String::new();
    for (word, colour, list) in [("error", "31", problems), ("warning", "33", warnings)] {
        for problem in list {
            text += &format!("{} {problem}\n\n", paint.bold(&format!("{word}:"), colour));
        }
    }
    let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    if !problems.is_empty() {
        text += &format!("{}\n", count(problems.len(), "problem"));
    }
    if !warnings.is_empty() {
        text += &format!("{}\n", count(warnings.len(), "warning"));
    }
    text
}

fn verdict(path: &str, config: &Config) -> String {
    let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let (listeners, routes) =
        (count(config.listeners.len(), "listener"), count(config.routes.len(), "route"));
    let mut text = format!(
        "{path}: good, {listeners}, {routes} (sha256 {})\n",
        &config.hash[..12.min(config.hash.len())]
    );
    for of in &config.provider_ranges {
        let (count, day) = (count(of.ranges.snapshot.len(), "range"), of.ranges.snapshot_date);
        let later = match &of.ranges.list {
            Some(list) if !config.ranges.offline => format!("; kept fresh from {}", list.url),
            Some(_) => "; offline: not kept fresh".to_owned(),
            None => "; no list is published for machines: only a new version brings new ones".to_owned(),
        };
        text += &format!("allow: provider: {} of {}, snapshot of {day}{later}\n", count, of.provider);
    }
    text
}

/// Colour on a terminal, unless `NO_COLOR` is set.
#[derive(Clone, Copy, Debug)]
enum Paint {
    Colour,
    Plain,
}

impl Paint {
    fn of(stream: &impl IsTerminal) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        if wanted && stream.is_terminal() { Paint::Colour } else { Paint::Plain }
    }
    fn bold(self, text: &str, colour: &str) -> String {
        match self {
            Paint::Colour => format!("\x1b[1;{colour}m{text}\x1b[0m"),
            Paint::Plain => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(message: &str) -> Problem {
        Problem {
            file: "a.yaml".into(),
            line: 2,
            column: 3,
            key: "routes[0].path".into(),
            message: message.into(),
            help: Some("write `/x`".into()),
            snippet: "  |\n2 |   path: x\n  |         ^".into(),
        }
    }

    #[test]
    fn each_problem_is_printed_with_place_snippet_and_help() {
        let text = listed(&[problem("bad"), problem("worse")], &[problem("odd")], Paint::Plain);
        assert!(text.contains("error: a.yaml:2:3: routes[0].path: bad\n  |\n2 |   path: x"), "{text}");
        assert!(text.contains("help: write `/x`") && text.contains("warning: a.yaml:2:3"));
        assert!(text.ends_with("2 problems\n1 warning\n") && !text.contains('\x1b'));
    }

    #[test]
    fn a_given_path_is_taken_as_it_is() {
        assert_eq!(ConfigPath { config: Some("x.yaml".into()) }.path(), PathBuf::from("x.yaml"));
    }
}
