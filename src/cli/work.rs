//! Work on many events as a job of the gateway's: begun, watched, and told what came of it.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use super::address::AdminArgs;
use super::client::{Client, ClientError, PATIENCE};
use super::failure::Failure;
use super::output::{Format, OutputArgs, harmless, note, print, print_json};
use crate::admin::filter::Chosen;
use crate::admin::jobs::{JobView, NewJob};

/// How the work is done
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "How")]
pub struct Pace {
    /// Events a second, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,

    /// Only count
    #[arg(long)]
    dry_run: bool,

    /// Do not wait for the end: `tidegate jobs` tells how far it is
    #[arg(long)]
    background: bool,
}

/// How often a job is looked at: often at first, because most are short.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LOOK: Duration = Duration::from_millis(500);

/// A job on what was chosen.
pub fn of(task: &str, chosen: Chosen) -> NewJob {
    let Chosen { ids, filter, all } = chosen;
    NewJob { task: task.into(), ids, filter, all, ..NewJob::default() }
}

impl Pace {
    pub fn is_given(&self) -> bool {
        self.rate.is_some() || self.dry_run || self.background
    }
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Begins a job and waits for its end.
    pub fn work(&self, admin: &AdminArgs, new: NewJob, output: &OutputArgs) -> Result<ExitCode, Failure> {
        let client = Client::new(admin, PATIENCE)?;
        let asked = new.filter.clone();
        let new = NewJob { rate: self.rate, dry_run: self.dry_run.then_some(true), ..new };
        let mut job: JobView = client.post("/jobs", Some(&new))?;
        if self.background {
            match output {
                OutputArgs { output: Format::Json, .. } => print_json(&job)?,
                OutputArgs { quiet: true, .. } => print(&format!("{}\n", job.id))?,
                _ => print(&format!("job {}\n", job.id))?,
            }
            return Ok(ExitCode::SUCCESS);
        }
        let mut bar = Bar::new(output);
        let mut wait = FIRST_LOOK;
        while job.state == "running" {
            bar.show(&job);
            std::thread::sleep(wait);
            wait = (wait * 2).min(LOOK);
            job = match client.get(&format!("/jobs/{}", job.id)) {
                Ok(job) => job,
                Err(error) if error.is_no_answer() => {
                    bar.clear();
                    return goes_on(&job, &error, output);
                }
                Err(error) => return Err(error.into()),
            };
        }
        bar.clear();
        match output {
            OutputArgs { output: Format::Json, .. } => print_json(&job)?,
            OutputArgs { quiet: true, .. } => {}
            _ => print(&format!("{}\n", told(&job)))?,
        }
        if let Some(filter) = asked.filter(|_| job.matched + job.answers == 0 && !output.quiet) {
            super::select::doubt(&filter, &client);
        }
        match job.state.as_str() {
            "done" => Ok(ExitCode::SUCCESS),
            "failed" => {
                let why = job.problem.as_deref().unwrap_or("the gateway's log says why");
                Err(Failure::No(format!("job {} has failed: {}", job.id, harmless(why))))
            }
            state => {
                note(&format!("tidegate: job {} is {}", job.id, harmless(state)));
                Ok(ExitCode::from(1))
            }
        }
    }
}

/// What `proxy` and `spill` routes keep to answer repeats with.
const KEPT: &str = "answer of an app, kept for repeats,";
const KEPT_MANY: &str = "answers of apps, kept for repeats,";

/// There is nobody to ask any more: the job is kept, and worked on by the gateway that is started next.
fn goes_on(job: &JobView, error: &ClientError, output: &OutputArgs) -> Result<ExitCode, Failure> {
    if output.output == Format::Json {
        print_json(job)?;
    }
    let id = &job.id;
    Err(Failure::GoesOn(format!(
        "{error}\njob {id} is not lost: it goes on when the gateway is back; `tidegate jobs show {id}` tells how far it is"
    )))
}

/// What came of a job, in a sentence.
pub fn told(job: &JobView) -> String {
    let count =
        |n: u64, one: &str, many: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {many}") };
    if job.dry_run {
        let verb = match job.task.as_str() {
            "replay" => "replayed",
            "give_up" => "given up",
            _ => "deleted",
        };
        let mut text = format!("{} would be {verb}, if not under way", count(job.matched, "event", "events"));
        if job.answers > 0 {
            text += &format!("; {} would go", count(job.answers, KEPT, KEPT_MANY));
        }
        return text;
    }
    let mut text = match job.task.as_str() {
        "replay" => count(job.changed, "delivery is pending again", "deliveries are pending again"),
        "give_up" => count(job.changed, "delivery is given up", "deliveries are given up"),
        _ => count(job.changed, "event is deleted", "events are deleted"),
    };
    if job.answers > 0 {
        text += &format!("; {} gone", count(job.answers, &format!("{KEPT} is"), &format!("{KEPT_MANY} are")));
    }
    if job.task == "erase" && job.state == "done" {
        text += ", and no file of the buffer holds them any more";
    }
    if job.untouched > 0 {
        let why = match job.task.as_str() {
            "replay" => "nothing to replay, or under way",
            "give_up" => "in flight: their answers settle them",
            _ => "a delivery is under way: `tidegate events give-up` ends it",
        };
        text += &format!("; {} left alone ({why})", count(job.untouched, "event was", "events were"));
    }
    text
}

/// A line on a terminal's standard error that shows how far it is.
struct Bar {
    on: bool,
    shown: bool,
}

impl Bar {
    fn new(output: &OutputArgs) -> Self {
        Self { on: !output.quiet && std::io::stderr().is_terminal(), shown: false }
    }
    fn show(&mut self, job: &JobView) {
        if !self.on {
            return;
        }
        const WIDTH: usize = 30;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // from 0 to 30
        let filled = ((job.progress.clamp(0.0, 1.0) * 30.0) as usize).min(WIDTH);
        let line = format!(
            "\r[{}{}] {:3.0} %  {} of {} looked at  (^C: it goes on; tidegate jobs cancel {})\x1b[K",
            "#".repeat(filled),
            ".".repeat(WIDTH - filled),
            job.progress * 100.0,
            job.matched,
            job.examined,
            job.id,
        );
        // Only a sign of life.
        let _ = std::io::stderr().write_all(line.as_bytes());
        self.shown = true;
    }
    fn clear(&self) {
        if self.shown {
            let _ = std::io::stderr().write_all(b"\r\x1b[K");
        }
    }
}
