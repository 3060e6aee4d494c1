//! The play: which events are sent in which order, what each must be answered, what the app must have got at the end.

use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};

use crate::clock::Clock;

use super::Scene;
use super::app::{App, Arrival};
use super::client::{Answered, Client};
use super::events::{Prepared, What};

/// How long deliveries may take once the app is up: a few retries.
const DELIVERED_WITHIN: Duration = Duration::from_secs(20);

/// What must come of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Delivered,
    /// The same event as the scene with this index.
    RepeatOf(usize),
    Refused(&'static str),
}

struct Act {
    title: &'static str,
    /// Whether the app was up when it was sent.
    app: &'static str,
    sent: Prepared,
    answered: Answered,
    expected: Expected,
}

/// Plays all acts. Returns the report and everything that was not as it should be.
pub async fn perform(scene: &Scene, client: &Client, app: &mut App) -> Result<(String, Vec<String>), String> {
    let new = |what: What| scene.sender(what.sender()).event(what, Clock::System.now());
    let mut acts: Vec<Act> = Vec::new();

    let push = new(What::Push);
    let invoice = new(What::Invoice);
    let up = [
        ("GitHub push", push.clone(), Expected::Delivered),
        ("the same GitHub push again", push, Expected::RepeatOf(0)),
        (
            "GitHub issues, one digit changed",
            new(What::Issue).tampered(),
            Expected::Refused("signature_invalid"),
        ),
        ("Stripe invoice.paid", invoice.clone(), Expected::Delivered),
        ("Standard Webhooks contact.created", new(What::Contact), Expected::Delivered),
    ];
    for (title, sent, expected) in up {
        acts.push(send(client, title, "on", sent, expected).await?);
    }
    settle(app, &acts).await;

    app.switch_off().await;
    let down = [
        ("GitHub issues", new(What::Issue), Expected::Delivered),
        ("Stripe invoice.paid", new(What::Invoice), Expected::Delivered),
        ("the first Stripe event again", invoice, Expected::RepeatOf(3)),
        ("Standard Webhooks contact.created", new(What::Contact), Expected::Delivered),
    ];
    for (title, sent, expected) in down {
        acts.push(send(client, title, "off", sent, expected).await?);
    }
    app.switch_on().await.map_err(|problem| format!("the app: {problem}"))?;
    settle(app, &acts).await;

    Ok(report(&acts, &app.arrivals()))
}

async fn send(
    client: &Client,
    title: &'static str,
    app: &'static str,
    sent: Prepared,
    expected: Expected,
) -> Result<Act, String> {
    let answered = client.send(&sent).await.map_err(|problem| format!("{title}: {problem}"))?;
    Ok(Act { title, app, sent, answered, expected })
}

/// Waits until everything acknowledged so far has reached the app; what is missing then is the report's to say.
async fn settle(app: &App, acts: &[Act]) {
    let ids: Vec<_> = acts.iter().filter_map(|act| act.answered.event_id.as_deref()).collect();
    app.wait_until(DELIVERED_WITHIN, |arrivals| {
        ids.iter().all(|id| arrivals.iter().any(|a| a.header("tidegate-event-id") == Some(id)))
    })
    .await;
}

fn report(acts: &[Act], arrivals: &[Arrival]) -> (String, Vec<String>) {
    let mut wrong = Vec::new();
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["", "sent", "app", "answer", "event", "the app got"]);
    for (number, act) in acts.iter().enumerate() {
        let mut complain = |what: String| wrong.push(format!("{}: {what}", act.title));
        if let Some(problem) = answer_problem(act, acts) {
            complain(problem);
        }
        let got = match (act.expected, act.answered.event_id.as_deref()) {
            (Expected::Delivered, Some(id)) => match arrival_problem(act, id, arrivals) {
                Ok(attempt) => format!("all of it, attempt {attempt}"),
                Err(problem) => {
                    complain(problem.clone());
                    problem
                }
            },
            (Expected::Delivered, None) => "nothing".into(),
            (Expected::RepeatOf(_), _) => "nothing more".into(),
            (Expected::Refused(_), _) => match arrivals.iter().any(|a| a.body == act.sent.body) {
                false => "nothing".into(),
                true => {
                    complain("reached the app though it was refused".into());
                    "THE FORGED BODY".to_owned()
                }
            },
        };
        table.add_row([
            format!("{}", number + 1),
            act.title.to_owned(),
            act.app.to_owned(),
            answer_text(&act.answered),
            act.answered.event_id.as_deref().map_or_else(|| "–".into(), short),
            got,
        ]);
    }
    (table.to_string(), wrong)
}

/// The end of an id, which differs from one to the next; a whole one does not fit on a terminal.
fn short(id: &str) -> String {
    id.rsplit_once('-').map_or_else(|| id.to_owned(), |(_, end)| format!("…{end}"))
}

fn answer_text(answered: &Answered) -> String {
    let status = answered.status.as_u16();
    match (&answered.reason, answered.duplicate) {
        (Some(reason), _) => format!("{status} {reason}"),
        (None, true) => format!("{status} duplicate"),
        (None, false) => status.to_string(),
    }
}

fn answer_problem(act: &Act, acts: &[Act]) -> Option<String> {
    let Answered { status, reason, event_id, duplicate } = &act.answered;
    let fits = match act.expected {
        Expected::Delivered => status.is_success() && !duplicate && event_id.is_some(),
        Expected::RepeatOf(first) => {
            let first = acts.get(first).map(|act| &act.answered);
            *duplicate && first.is_some_and(|first| first.event_id == *event_id && first.status == *status)
        }
        Expected::Refused(code) => *status == 401 && reason.as_deref() == Some(code) && event_id.is_none(),
    };
    (!fits).then(|| format!("was answered {}, expected {:?}", answer_text(&act.answered), act.expected))
}

/// The attempt that brought the event, or what was wrong with it.
fn arrival_problem(act: &Act, id: &str, arrivals: &[Arrival]) -> Result<String, String> {
    let got: Vec<_> = arrivals.iter().filter(|a| a.header("tidegate-event-id") == Some(id)).collect();
    let [arrival] = got.as_slice() else {
        return Err(format!("reached the app {} times", got.len()));
    };
    if arrival.body != act.sent.body {
        return Err("the app got another body".into());
    }
    if arrival.target != act.sent.path {
        return Err(format!("the app got the path {}", arrival.target));
    }
    match act.sent.headers.iter().find(|(name, value)| arrival.header(name) != Some(value)) {
        Some((name, _)) => Err(format!("the app got another {name} header")),
        None => Ok(arrival.header("tidegate-attempt").unwrap_or("?").to_owned()),
    }
}
