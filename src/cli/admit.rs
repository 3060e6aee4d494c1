//! `tidegate quarantine re-verify` and `admit`.

use std::process::ExitCode;

use super::address::AdminArgs;
use super::client::{Client, PATIENCE};
use super::failure::Failure;
use super::output::{Format, OutputArgs, Rows, Side, Tone, print, print_json};
use super::quarantine::Targets;
use crate::admin::views::{AdmitResult, Admitted, RecheckResult, Rechecked};

#[derive(clap::Args, Debug)]
#[group(skip)] // the variant that holds it has the same name
pub(super) struct ReVerify {
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    output: OutputArgs,
}

impl ReVerify {
    pub(super) fn run(self, admin: &AdminArgs) -> Result<ExitCode, Failure> {
        let client = Client::new(admin, PATIENCE)?;
        let mut chosen = self.targets.chosen()?;
        let mut all = Rechecked { verifies: 0, results: Vec::new(), next: None };
        loop {
            let some: Rechecked = client.post("/quarantine/re-verify", Some(&chosen))?;
            all.verifies += some.verifies;
            all.results.extend(some.results);
            match some.next {
                Some(next) => chosen.after = Some(next),
                None => break,
            }
        }
        match self.output {
            OutputArgs { output: Format::Json, .. } => print_json(&all)?,
            OutputArgs { quiet: true, .. } => {
                let verifies = all.results.iter().filter(|result| result.verifies);
                print(&verifies.fold(String::new(), |ids, result| ids + &result.id + "\n"))?;
            }
            _ => print(&rechecked(&all))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn rechecked(all: &Rechecked) -> String {
    let mut rows = Rows::new(&["id", "route", "was", "now"].map(|name| (name, Side::Left)));
    for result in &all.results {
        let RecheckResult { id, route, was, by, label, reason, detail, .. } = result;
        let now = match (by, reason) {
            (Some(by), _) => {
                let label = label.as_deref().map(|label| format!(" ({label})")).unwrap_or_default();
                (format!("verified by {by}{label}"), Tone::Good)
            }
            (None, reason) => (told(reason.as_deref(), detail.as_deref()), Tone::Bad),
        };
        let plain = |text: &String| (text.clone(), Tone::Plain);
        rows.row(vec![plain(id), plain(route), plain(was), now]);
    }
    let list = if all.results.is_empty() { String::new() } else { rows.text() };
    format!("{list}{} of {} would be verified now\n", all.verifies, all.results.len())
}

fn told(reason: Option<&str>, detail: Option<&str>) -> String {
    match (reason, detail) {
        (Some(reason), Some(detail)) => format!("{reason}: {detail}"),
        (reason, detail) => reason.or(detail).unwrap_or_default().to_owned(),
    }
}

#[derive(clap::Args, Debug)]
#[group(skip)] // the variant that holds it has the same name
pub(super) struct Admit {
    #[command(flatten)]
    targets: Targets,
    /// Also what is still not verified: you vouch for it. The event says so for ever, and the app is told
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl Admit {
    pub(super) fn run(self, admin: &AdminArgs) -> Result<ExitCode, Failure> {
        let client = Client::new(admin, PATIENCE)?;
        let mut chosen = self.targets.chosen()?;
        chosen.force = self.force.then_some(true);
        let mut all = Admitted { admitted: 0, results: Vec::new(), next: None };
        loop {
            let some: Admitted = client.post("/quarantine/admit", Some(&chosen))?;
            all.admitted += some.admitted;
            all.results.extend(some.results);
            match some.next {
                Some(next) => chosen.after = Some(next),
                None => break,
            }
        }
        match self.output {
            OutputArgs { output: Format::Json, .. } => print_json(&all)?,
            OutputArgs { quiet: true, .. } => {
                let events = all.results.iter().filter(|result| result.outcome == "admitted");
                let events = events.filter_map(|result| result.event.as_deref());
                print(&events.fold(String::new(), |ids, event| ids + event + "\n"))?;
            }
            _ => print(&admitted(&all))?,
        }
        let done = |result: &AdmitResult| matches!(result.outcome.as_str(), "admitted" | "duplicate");
        Ok(if all.results.iter().all(done) { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

fn admitted(all: &Admitted) -> String {
    let mut rows = Rows::new(&["id", "route", "outcome", ""].map(|name| (name, Side::Left)));
    for result in &all.results {
        let AdmitResult { id, route, outcome, event, reason, detail } = result;
        let (tone, more) = match (outcome.as_str(), event) {
            ("admitted", Some(event)) => (Tone::Good, format!("event {event}")),
            (_, Some(event)) => (Tone::Plain, format!("event {event} had it")),
            (_, None) => (Tone::Bad, told(reason.as_deref(), detail.as_deref())),
        };
        let plain = |text: &str| (text.to_owned(), Tone::Plain);
        rows.row(vec![plain(id), plain(route), (outcome.clone(), tone), plain(&more)]);
    }
    let list = if all.results.is_empty() { String::new() } else { rows.text() };
    format!("{list}{} of {} admitted\n", all.admitted, all.results.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_from_outside_is_harmless() {
        let result = AdmitResult {
            id: "1".into(),
            route: "a\x1b[2J".into(),
            outcome: "refused".into(),
            reason: Some("signature_invalid".into()),
            detail: Some("x\x07".into()),
            event: None,
        };
        let text = admitted(&Admitted { admitted: 0, results: vec![result], next: None });
        assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
        assert!(text.ends_with("0 of 1 admitted\n"));
    }
}
