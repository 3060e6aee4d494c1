//! `tidegate providers`: what the built-in packs know.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::check::Output;
use super::failure::{Failure, exit};
use super::output::{Rows, Side, Tone, print};
use crate::config::load_pack;
use crate::providers::{self, Fact, Pack, ParamKind, Repeats, page};

/// List the providers that are known, or show all that is known of one
///
/// Exit code 0: done; 2: there is no such provider.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
Examples:
  tidegate providers list
  tidegate providers show stripe
  tidegate providers show ./packs/acme.yaml -o json")]
pub struct Providers {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List the built-in packs
    #[command(visible_alias = "ls")]
    List {
        /// How to print
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
        output: Output,
    },
    /// Show all that a pack says
    Show {
        /// A built-in name such as `stripe`, or the path of a pack file
        name: String,
        /// How to print
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
        output: Output,
    },
    /// Print the page that lists all built-in packs, in Markdown
    Page,
}

impl Providers {
    pub fn run(self) -> ExitCode {
        exit(self.print().map(|()| ExitCode::SUCCESS))
    }

    fn print(&self) -> Result<(), Failure> {
        print(&match &self.command {
            Command::Page => page().map_err(Failure::Usage)?,
            Command::List { output } => {
                let packs = providers::names().into_iter().map(providers::find);
                let packs = packs.collect::<Result<Vec<_>, _>>().map_err(Failure::Usage)?;
                match output {
                    Output::Text => table(&packs),
                    Output::Json => {
                        format!("{:#}\n", Value::Array(packs.iter().map(|pack| summary(pack)).collect()))
                    }
                }
            }
            Command::Show { name, output } => {
                let is_path = name.contains('/') || name.ends_with(".yaml") || name.ends_with(".yml");
                let pack = if is_path {
                    load_pack(Path::new(name)).map_err(|problems| problems.to_string())
                } else {
                    providers::find(name)
                };
                let pack = pack.map_err(Failure::Usage)?;
                match output {
                    Output::Text => whole(&pack),
                    Output::Json => format!("{:#}\n", detail(&pack)),
                }
            }
        })
    }
}

/// `handshake, batch, ranges`, as far as the pack has them.
fn flags(pack: &Pack) -> String {
    let all = [
        ("handshake", !pack.handshakes.is_empty()),
        ("batch", pack.batch.is_some()),
        ("ranges", pack.ranges.is_some()),
    ];
    all.iter().filter(|(_, is)| *is).map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
}

fn table(packs: &[Arc<Pack>]) -> String {
    let mut rows = Rows::new(&[
        ("name", Side::Left),
        ("title", Side::Left),
        ("category", Side::Left),
        ("proves itself by", Side::Left),
        ("has", Side::Left),
    ]);
    for pack in packs {
        let proofs = pack.proofs();
        let more = if proofs.len() > 1 { format!(" (+{})", proofs.len() - 1) } else { String::new() };
        let first = proofs.first().map(String::as_str).unwrap_or_default();
        let cells = [&pack.name, &pack.title, pack.category.word(), &format!("{first}{more}"), &flags(pack)];
        rows.row(cells.into_iter().map(|cell| (cell.to_owned(), Tone::Plain)).collect());
    }
    rows.text()
}

fn whole(pack: &Pack) -> String {
    let mut text = format!("{} ({}), {}\n", pack.title, pack.name, pack.category.word());
    let mut say = |name: &str, value: &str| {
        let mut lines = value.trim_end().lines();
        text += &format!("{name:<13} {}\n", lines.next().unwrap_or("-"));
        for line in lines {
            text += &format!("{:<13} {line}\n", "");
        }
    };
    let guide = pack.guide();
    say("docs", &guide.docs);
    say("checked", &pack.checked);
    say("setup", &guide.setup);
    for proof in pack.proofs() {
        say("proof", &proof);
    }
    for (name, param) in &pack.params {
        let needed = if param.required { "needed" } else { "may be given" };
        let kind = match param.kind {
            ParamKind::Text => "",
            ParamKind::Secret | ParamKind::Credential => ", a secret",
            ParamKind::Roots => ", root certificates",
        };
        say("parameter", &format!("{name} ({needed}{kind}): {}", param.about));
    }
    say("key", &pack.repeats());
    match &pack.idempotency {
        Repeats::ByKey(_) if !pack.idempotency.is_signed() => {
            say("", "(the signature does not cover the id: it counts together with the body)");
        }
        Repeats::ByEvent(_) => say("", "(all of the event: the signature does not cover it)"),
        _ => {}
    }
    say("event type", &pack.event_type.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string));
    if !pack.content_types.is_empty() {
        say("content types", &pack.content_types.join(", "));
    }
    for greeting in pack.greetings() {
        say("handshake", &greeting);
    }
    if let Some(batch) = &pack.batch {
        let place = batch.place.as_deref().unwrap_or("body");
        let by = if batch.key.is_empty() { "its hash".to_owned() } else { batch.key.join(" + ") };
        say("batch", &format!("{place}, each known by {by}; `split: true` takes it apart"));
    }
    say("deadline", &fact(&pack.deadline, |deadline| format!("{} s", deadline.as_secs_f64())));
    say("success", &pack.successes());
    if let Some(answer) = &pack.answer {
        say("answer", &format!("the sender wants to read: {}", answer.body));
    }
    say("retries", &fact(&pack.retries, Clone::clone));
    if let Some(ranges) = &pack.ranges {
        let list = match &ranges.list {
            Some(list) => format!("kept fresh from {}", list.url),
            None => "no list is published for machines".to_owned(),
        };
        say("ranges", &format!("{list}; {} as of {}:", ranges.snapshot.len(), ranges.snapshot_date));
        let all: Vec<String> = ranges.snapshot.iter().map(ToString::to_string).collect();
        for part in all.chunks(4) {
            say("", &part.join(", "));
        }
    }
    if let Some(notes) = &guide.notes {
        say("notes", notes);
    }
    text
}

fn fact<T>(fact: &Fact<T>, say: impl Fn(&T) -> String) -> String {
    match fact {
        Fact::Known(fact) => say(fact),
        Fact::Undocumented => "not known: no documentation of it was found".to_owned(),
        Fact::Unsaid => "not known".to_owned(),
    }
}

fn summary(pack: &Pack) -> Value {
    json!({
        "name": pack.name,
        "title": pack.title,
        "category": pack.category.word(),
        "docs": pack.guide().docs,
        "proofs": pack.proofs(),
        "handshake": !pack.handshakes.is_empty(),
        "batch": pack.batch.is_some(),
        "ranges": pack.ranges.is_some(),
    })
}

fn detail(pack: &Pack) -> Value {
    let params: serde_json::Map<String, Value> = pack
        .params
        .iter()
        .map(|(name, param)| {
            let secret = matches!(param.kind, ParamKind::Secret | ParamKind::Credential);
            (name.clone(), json!({"required": param.required, "secret": secret, "about": param.about}))
        })
        .collect();
    let batch = pack.batch.as_ref().map(|batch| {
        json!({
            "events": batch.place.as_deref().unwrap_or("body"), "key": batch.key, "event_type": batch.event_type,
        })
    });
    let ranges = pack.ranges.as_ref().map(|ranges| {
        json!({
            "list": ranges.list.as_ref().map(|list| list.url.to_string()),
            "snapshot": ranges.snapshot.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "snapshot_date": ranges.snapshot_date.to_string(),
        })
    });
    let guide = pack.guide();
    json!({
        "name": pack.name,
        "title": pack.title,
        "category": pack.category.word(),
        "docs": guide.docs,
        "checked": pack.checked,
        "setup": guide.setup,
        "proofs": pack.proofs(),
        "params": params,
        "idempotency": {"key": pack.repeats(), "covered": pack.idempotency.is_signed()},
        "event_type": pack.event_type.as_ref().map(ToString::to_string),
        "content_types": pack.content_types,
        "handshake": !pack.handshakes.is_empty(),
        "greetings": pack.greetings(),
        "batch": batch,
        "deadline_seconds": pack.deadline.known().map(Duration::as_secs_f64),
        "success": pack.successes(),
        "answer": pack.answer.as_ref().map(|answer| answer.body.as_str()),
        "retries": pack.retries.known(),
        "ranges": ranges,
        "notes": guide.notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_a_pack_says_is_shown() {
        let pack = providers::find("github").unwrap();
        let text = whole(&pack);
        for part in [
            "GitHub (github), developer",
            "proof         hmac-sha256 of {body} in header:X-Hub-Signature-256",
            "setup",
            "deadline      10 s",
            "https://api.github.com/meta",
            "192.30.252.0/22",
            "as of 2026-03-14",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let json = detail(&pack);
        assert_eq!(
            (&json["name"], &json["ranges"]["list"]),
            (&json!("github"), &json!("https://api.github.com/meta"))
        );
        assert_eq!(json["success"], "2xx");
        let stripe = whole(&providers::find("stripe").unwrap());
        assert!(stripe.contains("deadline      not known"), "what nobody told us is said: {stripe}");
        let sign = whole(&providers::find("dropbox-sign").unwrap());
        assert!(sign.contains("answer        the sender wants to read: Hello API Event Received"), "{sign}");
        let trello = whole(&providers::find("trello").unwrap());
        assert!(trello.contains("handshake     HEAD; not signed; proves nothing"), "{trello}");
    }

    #[test]
    fn each_pack_can_be_shown_and_stands_in_the_list() {
        let packs: Vec<_> =
            providers::names().into_iter().map(|name| providers::find(name).unwrap()).collect();
        let list = table(&packs);
        for pack in &packs {
            assert!(whole(pack).contains(&pack.guide().docs) && list.contains(&pack.name), "{}", pack.name);
            assert!(
                detail(pack)["proofs"].as_array().is_some_and(|proofs| !proofs.is_empty()),
                "{}",
                pack.name
            );
        }
    }
}
