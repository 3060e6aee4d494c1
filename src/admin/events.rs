//! Listing, showing, replaying, giving up and purging what is in the buffer.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::SemaphorePermit;

use crate::buffer::{
    Buffer, BufferError, Delivery, Event, EventFilter, EventId, Head, Hidden, HiddenOfRoute, Search,
    Selection,
};

use super::App;
use super::control::Control;
use super::filter::{Choice, Chosen, ListQuery, Listing};
use super::problem::Problem;
use super::redact::Redact;
use super::views::{EventDetail, EventPage, EventSummary, GivenUp, Purged, Replayed};

type Queried = Result<Query<ListQuery>, QueryRejection>;

pub async fn list(State(app): State<App>, query: Queried) -> Result<Json<EventPage>, Problem> {
    page(&app, queried(query)?.listing()?).await
}

pub async fn list_dead(State(app): State<App>, query: Queried) -> Result<Json<EventPage>, Problem> {
    page(&app, queried(query)?.dead()?).await
}

fn queried(query: Queried) -> Result<ListQuery, Problem> {
    query.map(|Query(query)| query).map_err(|e| Problem::bad_request(e.body_text()))
}

/// A page holds no bodies, and is looked for in a bounded time: it may be short and still have a next one.
async fn page(app: &App, listing: Listing) -> Result<Json<EventPage>, Problem> {
    let Listing { filter, after, limit } = listing;
    let search = Search { hidden: hidden(&app.control), ..Search::new(filter, limit).after(after) };
    let page = app.control.buffer().search(search).await?;
    let summary = |(event, deliveries): &(Head, Vec<Delivery>)| {
        EventSummary::new(event, deliveries, &app.control.redact(&event.route))
    };
    Ok(Json(EventPage {
        events: page.events.iter().map(summary).collect(),
        next: page.next.map(|id| id.to_string()),
    }))
}

/// What can't be read can't be searched.
pub(super) fn hidden(control: &Arc<dyn Control>) -> Hidden {
    let control = control.clone();
    Arc::new(move |route| hides(&control.redact(route)))
}

/// The same for what outlives requests, and must not hold the gateway.
pub(super) fn hidden_by<C: Control>(control: &Arc<C>) -> Hidden {
    let control = Arc::downgrade(control);
    Arc::new(move |route| match control.upgrade() {
        Some(control) => hides(&control.redact(route)),
        None => Box::new(|_| true),
    })
}

fn hides(redact: &Redact) -> HiddenOfRoute {
    let redact = redact.clone();
    Box::new(move |asked| redact.hides_asked(asked))
}

pub async fn show(State(app): State<App>, Path(id): Path<String>) -> Result<Json<EventDetail>, Problem> {
    let _turn = turn(&app).await?;
    let (event, deliveries) = find(&app, &id).await?;
    let redact = app.control.redact(&event.route);
    Ok(Json(EventDetail::new(&event, &deliveries, &redact)))
}

/// The body's bytes as received, but for what the config hides; never anything that a browser would run.
pub async fn body(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let _turn = turn(&app).await?;
    let (event, _) = find(&app, &id).await?;
    let redact = app.control.redact(&event.route);
    Ok(attachment(event.id, shown(&redact, event.body)))
}

/// A body as it is shown; not copied where nothing is hidden.
pub(super) fn shown(redact: &Redact, body: Bytes) -> Bytes {
    let changed = match redact.body(&body) {
        Cow::Borrowed(same) if std::ptr::eq(same.as_ptr(), body.as_ptr()) => None,
        changed => Some(changed.into_owned()),
    };
    changed.map_or(body, Bytes::from)
}

/// Bytes from outside, as something to be saved.
pub(super) fn attachment(id: EventId, body: Bytes) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let name = format!("attachment; filename=\"{id}.body\"");
    // An event id is hexadecimal digits and dashes.
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    response
}

/// Bodies are in memory only while it is one's turn.
pub(super) async fn turn(app: &App) -> Result<SemaphorePermit<'_>, Problem> {
    app.heavy.acquire().await.map_err(|_| Problem::internal())
}

async fn find(app: &App, id: &str) -> Result<(Event, Vec<Delivery>), Problem> {
    let id: EventId = id.parse().map_err(|_| Problem::bad_request("this is no event id"))?;
    app.control.buffer().get(id).await?.ok_or_else(|| {
        Problem::not_found("no such event: it never was, its retention has ended, or it was purged")
    })
}

pub async fn replay(
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Replayed>, Problem> {
    let done = work(&app, Action::Replay, body).await?;
    Ok(Json(Replayed { replayed: done.count, untouched: done.untouched }))
}

pub async fn give_up(
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<GivenUp>, Problem> {
    let Done { count, under_way, untouched } = work(&app, Action::GiveUp, body).await?;
    Ok(Json(GivenUp { given_up: count, under_way, untouched }))
}

pub async fn purge(
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Purged>, Problem> {
    let done = work(&app, Action::Purge, body).await?;
    Ok(Json(Purged { purged: done.count, untouched: done.untouched }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Replay,
    GiveUp,
    Purge,
}

impl Action {
    const fn word(self) -> &'static str {
        match self {
            Action::Replay => "replay",
            Action::GiveUp => "give_up",
            Action::Purge => "purge",
        }
    }
    /// How many it did something to, and how many deliveries were under way.
    async fn on(self, buffer: &dyn Buffer, selection: Selection) -> Result<(u64, u64), BufferError> {
        match self {
            Action::Replay => buffer.replay(selection).await.map(|count| (count, 0)),
            Action::GiveUp => buffer.give_up(selection).await.map(|done| (done.count, done.under_way)),
            Action::Purge => buffer.purge(selection).await.map(|count| (count, 0)),
        }
    }
}

#[derive(Default)]
struct Done {
    count: u64,
    under_way: u64,
    untouched: Vec<String>,
}

/// Runs on a task of its own: a caller that goes away, or is timed out, does not stop it half-way.
async fn work(app: &App, action: Action, body: Result<Bytes, BytesRejection>) -> Result<Done, Problem> {
    let body = body.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    let chosen: Chosen = serde_json::from_slice(&body)
        .map_err(|e| Problem::bad_request(format!("the body is not what is expected: {e}")))?;
    let choice = chosen.check()?;
    let control = app.control.clone();
    let running = tokio::spawn(async move {
        let done = run(&**control.buffer(), action, &choice).await;
        // Who did what to stored events should be found in the log later.
        match &done {
            Ok(done) => {
                tracing::info!(action = action.word(), count = done.count, "admin: {}", told(&choice))
            }
            Err(error) => {
                tracing::warn!(action = action.word(), %error, "admin: failed: {}", told(&choice));
            }
        }
        done
    });
    match running.await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Problem::internal()),
    }
}

async fn run(buffer: &dyn Buffer, action: Action, choice: &Choice) -> Result<Done, BufferError> {
    let mut done = Done::default();
    match choice {
        Choice::Matching(filter) => {
            (done.count, done.under_way) = action.on(buffer, Selection::Matching(filter.clone())).await?;
        }
        Choice::Ids(ids, only) => {
            for id in ids {
                let (count, under_way) = action.on(buffer, Selection::One(*id, only.clone())).await?;
                if count == 0 {
                    done.untouched.push(id.to_string());
                }
                done.count += count;
                done.under_way += under_way;
            }
        }
    }
    Ok(done)
}

fn told(choice: &Choice) -> String {
    match choice {
        Choice::Ids(ids, _) if ids.len() == 1 => format!("event {}", ids[0]),
        Choice::Ids(ids, _) => format!("{} events by id", ids.len()),
        Choice::Matching(filter) if *filter == EventFilter::default() => "all events".into(),
        Choice::Matching(filter) => {
            format!("events matching {}", serde_json::to_string(filter).unwrap_or_default())
        }
    }
}
