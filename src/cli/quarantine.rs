//! `tidegate quarantine`: look at requests that were refused, verify them again, admit or purge them.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::Subcommand;

use super::address::AdminArgs;
use super::admit::{Admit, ReVerify};
use super::client::{Client, PATIENCE};
use super::events::{encoded, finished};
use super::failure::{Failure, exit};
use super::output::{
    Format, OutputArgs, Rows, Side, Times, Tone, harmless, note, print, print_json, print_list, size,
};
use super::select::moment;
use super::show;
use crate::admin::filter::{MAX_IDS, MAX_LIMIT, When};
use crate::admin::items::{ChosenItems, ItemConditions};
use crate::admin::views::{ItemDetail, ItemPage, ItemSummary, ItemsPurged};
use crate::clock::Timestamp;

/// List, show, re-verify, admit and purge refused requests
///
/// With `quarantine:` in the config, requests that verification refuses (401) are kept for a while. Once the mistake is
/// mended (a wrong secret, say), `re-verify` tells which of them would be accepted now, and `admit` puts those into the
/// buffer, each once.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate quarantine list --route billing --since 2h
  tidegate quarantine show 01a20c5d-fb8d-77da-9699-2808b038bd6a
  tidegate quarantine re-verify --route billing           after a reload with the right secret
  tidegate quarantine admit --route billing               those that are verified now
  tidegate quarantine purge --until 3d --yes")]
pub struct Quarantine {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List refused requests, newest first
    #[command(visible_alias = "ls")]
    List(List),
    /// Show one: headers, body, and what exactly was wrong
    Show(Show),
    /// Would they be verified now? With the secrets of the running config, at the time of their reception
    #[command(visible_alias = "reverify")]
    ReVerify(ReVerify),
    /// Put those into the buffer that are verified now
    Admit(Admit),
    /// Delete them for good
    Purge(Purge),
}

impl Quarantine {
    pub fn run(self) -> ExitCode {
        let admin = &self.admin;
        exit(match self.action {
            Action::List(list) => list.run(admin),
            Action::Show(show) => show.run(admin),
            Action::ReVerify(recheck) => recheck.run(admin),
            Action::Admit(admit) => admit.run(admin),
            Action::Purge(purge) => purge.run(admin),
        })
    }
}

/// Conditions that items must meet, all of them
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which ones")]
struct Filters {
    /// Refused by this route
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Refused for this reason, such as `signature_invalid`
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Received at this time or later: how long ago (`2h`, `3d`) or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Received before this time: how long ago (`2h`, `3d`) or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
}

impl Filters {
    fn conditions(&self) -> Result<ItemConditions, Failure> {
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since >= until
        {
            return Err(Failure::Usage("--since must be before --until: nothing lies between them".into()));
        }
        Ok(ItemConditions {
            route: self.route.clone(),
            reason: self.reason.clone(),
            since: self.since.map(|t| When::Millis(t.as_millis())),
            until: self.until.map(|t| When::Millis(t.as_millis())),
        })
    }
}

#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct Targets {
    /// Ids of items
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filters: Filters,
    /// Every one, without any filter
    #[arg(long)]
    all: bool,
}

impl Targets {
    pub(super) fn chosen(&self) -> Result<ChosenItems, Failure> {
        let conditions = self.filters.conditions()?;
        match (self.ids.is_empty(), conditions == ItemConditions::default(), self.all) {
            (false, true, false) if self.ids.len() > MAX_IDS => {
                Err(Failure::Usage(format!("at most {MAX_IDS} ids at once; use a filter for more")))
            }
            (false, true, false) => Ok(ChosenItems { ids: Some(self.ids.clone()), ..ChosenItems::default() }),
            (true, false, false) => Ok(ChosenItems { filter: Some(conditions), ..ChosenItems::default() }),
            (true, true, true) => Ok(ChosenItems { all: Some(true), ..ChosenItems::default() }),
            (true, true, false) => {
                Err(Failure::Usage("which ones? Give ids, or filters such as --route, or --all".into()))
            }
            _ => Err(Failure::Usage("give either ids, or filters, or --all".into())),
        }
    }
}

#[derive(clap::Args, Debug)]
#[group(skip)] // the variant that holds it has the same name
struct List {
    #[command(flatten)]
    filters: Filters,
    /// How many at most
    #[arg(short = 'n', long, default_value = "50", value_name = "N")]
    limit: NonZeroUsize,
    /// Continue behind this item
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

impl List {
    fn run(self, admin: &AdminArgs) -> Result<ExitCode, Failure> {
        let conditions = self.filters.conditions()?;
        let client = Client::new(admin, PATIENCE)?;
        let mut page = ItemPage { on: true, items: Vec::new(), next: self.after };
        loop {
            let limit = (self.limit.get() - page.items.len()).min(MAX_LIMIT);
            if limit == 0 {
                break;
            }
            let next: ItemPage =
                client.get(&format!("/quarantine?{}", query(&conditions, limit, page.next.as_deref())))?;
            page.on = next.on;
            page.items.extend(next.items);
            page.next = next.next;
            if page.next.is_none() {
                break;
            }
        }
        let empty = match page.on {
            true => "nothing is in quarantine",
            false => "nothing is in quarantine: the running config has no section `quarantine`",
        };
        let ids = page.items.iter().map(|item| item.id.as_str());
        print_list(&self.output, &page, ids, empty, |times| table(&page.items, times))?;
        if let (Some(next), false, Format::Table) = (&page.next, self.output.quiet, self.output.output) {
            note(&format!("more: --after {next}"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn query(conditions: &ItemConditions, limit: usize, after: Option<&str>) -> String {
    let time = |when: &Option<When>| match when {
        Some(When::Millis(millis)) => Some(millis.to_string()),
        Some(When::Text(text)) => Some(text.clone()),
        None => None,
    };
    let pairs = [
        ("route", conditions.route.clone()),
        ("reason", conditions.reason.clone()),
        ("since", time(&conditions.since)),
        ("until", time(&conditions.until)),
        ("after", after.map(str::to_owned)),
        ("limit", Some(limit.to_string())),
    ];
    let given = pairs.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", encoded(&value?))));
    given.collect::<Vec<_>>().join("&")
}

fn table(items: &[ItemSummary], times: Times) -> String {
    let mut rows = Rows::new(&[
        ("id", Side::Left),
        ("received", Side::Right),
        ("route", Side::Left),
        ("reason", Side::Left),
        ("from", Side::Left),
        ("bytes", Side::Right),
        ("path", Side::Left),
    ]);
    for item in items {
        let cells = [
            item.id.clone(),
            times.show(&item.received_at),
            item.route.clone(),
            item.reason.clone(),
            item.source.clone(),
            size(item.body_bytes),
            format!("{} {}", item.method, item.path),
        ];
        rows.row(cells.map(|cell| (cell, Tone::Plain)).to_vec());
    }
    rows.text()
}

#[derive(clap::Args, Debug)]
#[group(skip)] // the variant that holds it has the same name
struct Show {
    /// Id of the item
    #[arg(value_name = "ID")]
    id: String,
    /// Print the body's bytes as received, and nothing else
    #[arg(long)]
    body_only: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl Show {
    fn run(self, admin: &AdminArgs) -> Result<ExitCode, Failure> {
        let client = Client::new(admin, PATIENCE)?;
        let path = format!("/quarantine/{}", encoded(&self.id));
        if self.body_only {
            client.copy(&format!("{path}/body"), &mut std::io::stdout().lock())?;
            return Ok(ExitCode::SUCCESS);
        }
        let item: ItemDetail = client.get(&path)?;
        match self.output.output {
            Format::Json => print_json(&item)?,
            Format::Table => print(&detail(&item, &self.output))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn detail(item: &ItemDetail, output: &OutputArgs) -> String {
    let (times, of) = (Times::of(output), &item.summary);
    let request = format!("{} {}://{}{}", of.method, item.scheme, item.host, item.target);
    let refused = match item.detail.as_str() {
        "" => of.reason.clone(),
        detail => format!("{}: {detail}", of.reason),
    };
    let (received, expires) = (times.show(&of.received_at), times.show(&of.expires_at));
    let rows = [
        ("id", of.id.as_str()),
        ("received", &received),
        ("expires", &expires),
        ("from", &of.source),
        ("request", &request),
        ("route", &of.route),
        ("refused", &refused),
    ];
    let facts = rows
        .into_iter()
        .fold(String::new(), |text, (name, value)| text + &format!("{name:<9} {}\n", harmless(value)));
    if output.quiet {
        return facts;
    }
    facts + &show::content(&item.headers, &item.body, output)
}

#[derive(clap::Args, Debug)]
#[group(skip)] // the variant that holds it has the same name
struct Purge {
    #[command(flatten)]
    targets: Targets,
    /// Yes, delete them: there is no way back
    #[arg(short, long, help_heading = "Which ones")]
    yes: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl Purge {
    fn run(self, admin: &AdminArgs) -> Result<ExitCode, Failure> {
        let chosen = self.targets.chosen()?;
        if !self.yes {
            return Err(Failure::Usage(
                "a purge deletes for good; look at what is there with `list` first, then add --yes".into(),
            ));
        }
        let done: ItemsPurged = Client::new(admin, PATIENCE)?.post("/quarantine/purge", Some(&chosen))?;
        let told = match done.purged {
            1 => "1 item is deleted".to_owned(),
            n => format!("{n} items are deleted"),
        };
        finished(&done, &told, &done.untouched, "not in quarantine:", &self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_said_in_one_way() {
        let targets = |ids: &[&str], route: Option<&str>, all: bool| Targets {
            ids: ids.iter().map(ToString::to_string).collect(),
            filters: Filters { route: route.map(str::to_owned), ..Filters::default() },
            all,
        };
        for (wrong, why) in [
            (targets(&[], None, false), "which ones"),
            (targets(&["x"], Some("r"), false), "either"),
            (targets(&["x"], None, true), "either"),
            (targets(&[], Some("r"), true), "either"),
        ] {
            assert!(wrong.chosen().unwrap_err().to_string().contains(why), "{wrong:?}");
        }
        assert_eq!(targets(&[], None, true).chosen().unwrap().all, Some(true));
        assert_eq!(targets(&["x"], None, false).chosen().unwrap().ids.unwrap(), ["x"]);
        let filter = targets(&[], Some("r"), false).chosen().unwrap().filter.unwrap();
        assert_eq!(filter.route.as_deref(), Some("r"));
    }
}
