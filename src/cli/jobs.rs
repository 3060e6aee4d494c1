//! `tidegate jobs`: work on many events that goes on in the gateway.

use std::process::ExitCode;

use clap::Subcommand;

use super::address::AdminArgs;
use super::client::{Client, PATIENCE};
use super::events::encoded;
use super::failure::{Failure, exit};
use super::output::{Format, OutputArgs, Rows, Side, Times, Tone, harmless, print, print_json, print_list};
use super::work::told;
use crate::admin::jobs::{JobList, JobView};

/// List, show, pause, resume and cancel work on many events
///
/// `replay`, `give-up`, `purge` and `erase` by a filter are jobs: they go on when the command that began them ends, and after a
/// restart of the gateway. Ended ones are listed for a while.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate dead replay --route billing --rate 20 --background
  tidegate jobs list
  tidegate jobs pause 01a20c5d-fb8d-77da-9699-2808b038bd6a")]
pub struct Jobs {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List jobs, newest first
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show one job
    Show(One),
    /// Stop for now; survives a restart
    Pause(One),
    /// Go on
    Resume(One),
    /// Stop for good; what was done stays done
    Cancel(One),
}

#[derive(clap::Args, Debug)]
struct One {
    /// Id of the job
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    output: OutputArgs,
}

impl Jobs {
    pub fn run(self) -> ExitCode {
        exit(self.ask())
    }

    fn ask(self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin, PATIENCE)?;
        match self.action {
            Action::List { output } => list(&client, &output),
            Action::Show(one) => {
                let job: JobView = client.get(&format!("/jobs/{}", encoded(&one.id)))?;
                show(&job, &one.output)
            }
            Action::Pause(one) => tell(&client, &one, "pause"),
            Action::Resume(one) => tell(&client, &one, "resume"),
            Action::Cancel(one) => tell(&client, &one, "cancel"),
        }
    }
}

fn tell(client: &Client, one: &One, command: &str) -> Result<ExitCode, Failure> {
    let path = format!("/jobs/{}/{command}", encoded(&one.id));
    let job: JobView = client.post(&path, None::<&()>)?;
    show(&job, &one.output)
}

fn show(job: &JobView, output: &OutputArgs) -> Result<ExitCode, Failure> {
    match output {
        OutputArgs { output: Format::Json, .. } => print_json(job)?,
        OutputArgs { quiet: true, .. } => print(&format!("{}\n", harmless(&job.state)))?,
        _ => print(&text(job, Times::of(output)))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(job: &JobView, times: Times) -> String {
    let filter = serde_json::to_string(&job.filter).unwrap_or_default();
    let mut text = format!("job      {}\n", harmless(&job.id));
    let mut line = |what: &str, value: &str| text += &format!("{what:8} {}\n", harmless(value));
    line("task", &task(job));
    line("filter", if filter == "{}" { "all events" } else { &filter });
    line("state", &format!("{} ({:.0} %)", job.state, job.progress * 100.0));
    if let Some(problem) = &job.problem {
        line("problem", problem);
    }
    if let Some(rate) = job.rate {
        line("rate", &format!("{rate} events a second"));
    }
    line("begun", &times.show(&job.created_at));
    if let Some(at) = &job.ended_at {
        line("ended", &times.show(at));
    }
    line("so far", &format!("{} events looked at, {} match; {}", job.examined, job.matched, told(job)));
    text
}

fn task(job: &JobView) -> String {
    let to = job.to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
    format!("{}{to}{}", job.task, if job.dry_run { " (dry run)" } else { "" })
}

fn list(client: &Client, output: &OutputArgs) -> Result<ExitCode, Failure> {
    let JobList { jobs } = client.get("/jobs")?;
    let list = JobList { jobs };
    let ids = list.jobs.iter().map(|job| &*job.id);
    print_list(output, &list, ids, "no jobs", |times| table(&list.jobs, times))?;
    Ok(ExitCode::SUCCESS)
}

fn table(jobs: &[JobView], times: Times) -> String {
    let mut rows = Rows::new(&[
        ("id", Side::Left),
        ("task", Side::Left),
        ("state", Side::Left),
        ("done", Side::Right),
        ("begun", Side::Right),
        ("matched", Side::Right),
        ("changed", Side::Right),
        ("left alone", Side::Right),
    ]);
    for job in jobs {
        let tone = match job.state.as_str() {
            "done" => Tone::Good,
            "paused" => Tone::Waiting,
            "failed" => Tone::Bad,
            _ => Tone::Plain,
        };
        let plain = |text: String| (text, Tone::Plain);
        rows.row(vec![
            plain(job.id.clone()),
            plain(task(job)),
            (job.state.clone(), tone),
            plain(format!("{:.0} %", job.progress * 100.0)),
            plain(times.show(&job.created_at)),
            plain(job.matched.to_string()),
            plain(job.changed.to_string()),
            plain(job.untouched.to_string()),
        ]);
    }
    rows.text()
}
