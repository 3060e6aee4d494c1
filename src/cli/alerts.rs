//! `tidegate alerts`: what is wrong, who is told of it, and whether that works.

use std::process::ExitCode;

use clap::Subcommand;

use super::address::AdminArgs;
use super::client::{Client, PATIENCE};
use super::failure::{Failure, exit};
use super::output::{Format, OutputArgs, Rows, Side, Times, Tone, harmless, note, print, print_json};
use crate::admin::views::AlertsTested;
use crate::alerts::{AlertsStatus, Severity};

/// List what is wrong now, or send everybody a test notice
///
/// The rules and who is told stand in the section `alerts` of the config.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate alerts list                exit code 1 if anything is wrong
  tidegate alerts test                exit code 1 if somebody could not be told")]
pub struct Alerts {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// What is wrong now, and how the latest notices got there; exit code 1 if anything is wrong
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// Send everybody a test notice and say what became of it; exit code 1 if somebody could not be told
    Test(OutputArgs),
}

impl Alerts {
    pub fn run(self) -> ExitCode {
        exit(match &self.action {
            Action::List(output) => list(&self.admin, output),
            Action::Test(output) => test(&self.admin, output),
        })
    }
}

fn list(admin: &AdminArgs, output: &OutputArgs) -> Result<ExitCode, Failure> {
    let status: AlertsStatus = Client::new(admin, PATIENCE)?.get("/alerts")?;
    match output.output {
        Format::Json => print_json(&status)?,
        Format::Table => print(&listed(&status, output))?,
    }
    Ok(if status.firing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn listed(status: &AlertsStatus, output: &OutputArgs) -> String {
    let times = Times::of(output);
    let mut text = String::new();
    if status.firing.is_empty() {
        text += "nothing is wrong\n";
    } else {
        let mut rows = Rows::new(&[
            ("alert", Side::Left),
            ("subject", Side::Left),
            ("since", Side::Right),
            ("what", Side::Left),
        ]);
        for alert in &status.firing {
            let tone = match alert.severity {
                Severity::Critical => Tone::Bad,
                Severity::Warning => Tone::Waiting,
            };
            rows.row(vec![
                (alert.rule.word().to_owned(), tone),
                (alert.subject.clone(), Tone::Plain),
                (times.show(&alert.since), Tone::Plain),
                (alert.text.clone(), Tone::Plain),
            ]);
        }
        text += &rows.text();
    }
    if output.quiet {
        return text;
    }
    if status.targets.is_empty() {
        return text + "nobody is told: `alerts.to` is empty\n";
    }
    for target in &status.targets {
        let last = match (&target.last, &target.error) {
            (None, _) => "nothing told yet".to_owned(),
            (Some(at), None) => format!("told {}", times.show(at)),
            (Some(at), Some(error)) => format!("NOT told {}: {}", times.show(at), harmless(error)),
        };
        text += &format!("{} ({}): {last}\n", harmless(&target.target), harmless(&target.by));
    }
    text
}

fn test(admin: &AdminArgs, output: &OutputArgs) -> Result<ExitCode, Failure> {
    let tested: AlertsTested = Client::new(admin, PATIENCE)?.post("/alerts/test", None::<&()>)?;
    if output.output == Format::Json {
        print_json(&tested)?;
    } else if tested.targets.is_empty() {
        note("nobody is told: `alerts.to` is empty");
    } else {
        for target in &tested.targets {
            let became =
                target.error.as_deref().map_or("told".into(), |e| format!("NOT told: {}", harmless(e)));
            print(&format!("{} ({}): {became}\n", harmless(&target.target), harmless(&target.by)))?;
        }
    }
    let told = !tested.targets.is_empty() && tested.targets.iter().all(|target| target.error.is_none());
    Ok(if told { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::{Alert, Rule, TargetStatus};

    #[test]
    fn what_is_wrong_is_listed_with_who_was_told() {
        let at = "2025-11-24T16:00:00.000Z".to_owned();
        let args = OutputArgs { output: Format::Table, utc: true, quiet: false, verbose: false };
        let mut status = AlertsStatus { gateway: "edge".into(), firing: vec![], targets: vec![] };
        assert_eq!(listed(&status, &args), "nothing is wrong\nnobody is told: `alerts.to` is empty\n");
        status.firing.push(Alert {
            rule: Rule::DeadLetters,
            severity: Severity::Critical,
            subject: "billing/legacy".into(),
            text: "1 new within 1h: 4 in all".into(),
            since: at.clone(),
            until: None,
        });
        let target = |last: Option<&String>, error: Option<&str>| TargetStatus {
            target: "ops".into(),
            by: "slack".into(),
            last: last.cloned(),
            error: error.map(Into::into),
        };
        status.targets =
            vec![target(None, None), target(Some(&at), None), target(Some(&at), Some("refused"))];
        let text = listed(&status, &args);
        assert!(text.contains("dead_letters") && text.contains("billing/legacy"), "{text}");
        let end = format!(
            "ops (slack): nothing told yet\nops (slack): told {at}\nops (slack): NOT told {at}: refused\n"
        );
        assert!(text.ends_with(&end), "{text}");
    }
}
