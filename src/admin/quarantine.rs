//! Listing and showing what is in quarantine, verifying it again, admitting and purging it.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;

use crate::buffer::EventId;
use crate::quarantine::{Item, Quarantine, Summary};
use crate::receive::{Admission, Force};

use super::App;
use super::events::{attachment, shown, turn};
use super::filter::{DEFAULT_LIMIT, MAX_LIMIT, When};
use super::items::{Choice, ChosenItems, ItemConditions, ItemQuery, id};
use super::problem::Problem;
use super::views::{
    AdmitResult, Admitted, ItemDetail, ItemPage, ItemSummary, ItemsPurged, RecheckResult, Rechecked,
};

/// Items that one request verifies or admits at most; the answer says where to go on.
const AT_ONCE: usize = 200;

pub async fn list(
    State(app): State<App>,
    query: Result<Query<ItemQuery>, QueryRejection>,
) -> Result<Json<ItemPage>, Problem> {
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::bad_request(format!("`limit` is from 1 to {MAX_LIMIT}")));
    }
    let after = query.after.as_deref().map(id).transpose()?;
    let conditions = ItemConditions {
        route: query.route,
        reason: query.reason,
        since: query.since.map(When::Text),
        until: query.until.map(When::Text),
    };
    let listed = app.control.quarantine().list(&conditions.filter()?, after, limit);
    Ok(Json(ItemPage {
        on: app.control.quarantine().settings().is_some(),
        items: listed
            .items
            .iter()
            .map(|item| ItemSummary::new(item, &app.control.redact(&item.route)))
            .collect(),
        next: listed.next.map(|id| id.to_string()),
    }))
}

pub async fn show(State(app): State<App>, Path(text): Path<String>) -> Result<Json<ItemDetail>, Problem> {
    let _turn = turn(&app).await?;
    let item = find(&app, id(&text)?).await?;
    Ok(Json(ItemDetail::new(&item, &app.control.redact(&item.route))))
}

/// The body's bytes as received; never anything that a browser would run.
pub async fn body(State(app): State<App>, Path(text): Path<String>) -> Result<Response, Problem> {
    let _turn = turn(&app).await?;
    let item = find(&app, id(&text)?).await?;
    let redact = app.control.redact(&item.route);
    Ok(attachment(item.id, shown(&redact, item.body)))
}

async fn find(app: &App, id: EventId) -> Result<Item, Problem> {
    read(app.control.quarantine(), id).await?.ok_or_else(|| {
        Problem::not_found(
            "no such item in quarantine: it never was, its time has ended, or it was admitted or purged",
        )
    })
}

/// Reads where it holds nobody up.
async fn read(quarantine: &Arc<Quarantine>, id: EventId) -> Result<Option<Item>, Problem> {
    let quarantine = quarantine.clone();
    match tokio::task::spawn_blocking(move || quarantine.get(id)).await {
        Ok(Ok(item)) => Ok(item),
        Ok(Err(error)) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the item {id} can't be read: {error}; `purge` deletes it"),
        )),
        Err(_) => Err(Problem::internal()),
    }
}

type Body = Result<Bytes, BytesRejection>;

fn chosen(body: Body) -> Result<(Choice, Force), Problem> {
    let body = body.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    let chosen: ChosenItems = serde_json::from_slice(&body)
        .map_err(|e| Problem::bad_request(format!("the body is not what is expected: {e}")))?;
    chosen.check()
}

/// The items of a choice, oldest first where there are several, and where to go on.
fn picked(quarantine: &Quarantine, choice: &Choice) -> (Vec<EventId>, Option<EventId>) {
    match choice {
        Choice::Ids(ids) => (ids.clone(), None),
        Choice::Matching(filter, after) => {
            let listed = quarantine.list(filter, *after, AT_ONCE);
            (listed.items.iter().rev().map(|item: &Summary| item.id).collect(), listed.next)
        }
    }
}

pub async fn recheck(State(app): State<App>, body: Body) -> Result<Json<Rechecked>, Problem> {
    let (choice, _) = chosen(body)?;
    let control = app.control.clone();
    let (ids, next) = picked(control.quarantine(), &choice);
    let mut results = Vec::with_capacity(ids.len());
    for id in ids {
        let _turn = turn(&app).await?;
        let result = match read(control.quarantine(), id).await? {
            Some(item) => RecheckResult::new(&item, control.recheck(&item).await),
            None => RecheckResult::unknown(id),
        };
        results.push(result);
    }
    let verifies = results.iter().filter(|result| result.verifies).count() as u64;
    Ok(Json(Rechecked { verifies, results, next: next.map(|id| id.to_string()) }))
}

/// Runs on a task of its own: a caller that goes away, or is timed out, does not stop it half-way.
pub async fn admit(State(app): State<App>, body: Body) -> Result<Json<Admitted>, Problem> {
    let (choice, force) = chosen(body)?;
    let running = tokio::spawn(async move { admit_all(&app, &choice, force).await });
    running.await.map_err(|_| Problem::internal())?.map(Json)
}

async fn admit_all(app: &App, choice: &Choice, force: Force) -> Result<Admitted, Problem> {
    let control = &*app.control;
    let (ids, next) = picked(control.quarantine(), choice);
    let mut results = Vec::with_capacity(ids.len());
    for id in ids {
        // One at a time: oldest first is the order in which they came.
        let _turn = turn(app).await?;
        let Some(item) = read(control.quarantine(), id).await? else {
            results.push(AdmitResult::unknown(id));
            continue;
        };
        let admission = control.admit(&item, force).await;
        if matches!(admission, Admission::Admitted(_) | Admission::Duplicate(_)) {
            control.quarantine().remove(id);
        }
        // Who let what in should be found in the log later.
        if let Admission::Admitted(event) = &admission {
            tracing::info!(item = %id, %event, route = item.route, forced = force == Force::Yes, "admin: admitted from quarantine");
        }
        results.push(AdmitResult::new(&item, admission));
    }
    let admitted = results.iter().filter(|result| result.outcome == "admitted").count() as u64;
    Ok(Admitted { admitted, results, next: next.map(|id| id.to_string()) })
}

pub async fn purge(State(app): State<App>, body: Body) -> Result<Json<ItemsPurged>, Problem> {
    let (choice, _) = chosen(body)?;
    let quarantine = app.control.quarantine().clone();
    let running = tokio::task::spawn_blocking(move || purge_all(&quarantine, &choice));
    running.await.map(Json).map_err(|_| Problem::internal())
}

fn purge_all(quarantine: &Quarantine, choice: &Choice) -> ItemsPurged {
    let mut done = ItemsPurged { purged: 0, untouched: Vec::new() };
    match choice {
        Choice::Ids(ids) => {
            for id in ids {
                match quarantine.remove(*id) {
                    true => done.purged += 1,
                    false => done.untouched.push(id.to_string()),
                }
            }
        }
        Choice::Matching(filter, after) => {
            let mut after = *after;
            loop {
                let listed = quarantine.list(filter, after, AT_ONCE);
                done.purged += listed.items.iter().filter(|item| quarantine.remove(item.id)).count() as u64;
                after = listed.next;
                if after.is_none() {
                    break;
                }
            }
        }
    }
    tracing::info!(count = done.purged, "admin: purged from quarantine");
    done
}
