//! Pausing and resuming routes and destinations.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;

use super::App;
use super::problem::Problem;
use super::views::{PauseChanged, PauseOf, Setup};

pub async fn pause(
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<PauseChanged>, Problem> {
    let of = read(body)?;
    let name = known(&of, &app.control.setup())?;
    // On a task of its own: a caller that goes away does not leave it half done.
    let control = app.control.clone();
    let done = tokio::spawn(async move { control.pause(&name).await.map(|changed| (name, changed)) });
    finish(done.await)
}

/// What is no longer in the config can be resumed as well.
pub async fn resume(
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<PauseChanged>, Problem> {
    let of = read(body)?;
    let name = name_of(&of);
    if !app.control.paused().contains_key(&name) {
        known(&of, &app.control.setup())?;
    }
    let control = app.control.clone();
    let done = tokio::spawn(async move { control.resume(&name).await.map(|changed| (name, changed)) });
    finish(done.await)
}

type Done = Result<Result<(String, bool), crate::buffer::BufferError>, tokio::task::JoinError>;

fn finish(done: Done) -> Result<Json<PauseChanged>, Problem> {
    match done {
        Ok(done) => {
            let (name, changed) = done?;
            Ok(Json(PauseChanged { name, changed }))
        }
        Err(_) => Err(Problem::internal()),
    }
}

fn read(body: Result<Bytes, BytesRejection>) -> Result<PauseOf, Problem> {
    let body = body.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    serde_json::from_slice(&body)
        .map_err(|e| Problem::bad_request(format!("the body is not what is expected: {e}")))
}

fn name_of(of: &PauseOf) -> String {
    match &of.destination {
        None => of.route.clone(),
        Some(destination) => format!("{}/{destination}", of.route),
    }
}

/// The name to pause, if the config has it: a slip of the pen must not look like a pause.
fn known(of: &PauseOf, setup: &Setup) -> Result<String, Problem> {
    let name = name_of(of);
    let Some(route) = setup.routes.iter().find(|route| route.name == of.route) else {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            format!("`route`: there is no route `{}`", of.route),
        ));
    };
    match &of.destination {
        Some(destination) if !route.destinations.iter().any(|d| d.name == name) => {
            let message =
                format!("`destination`: the route `{}` has no destination `{destination}`", of.route);
            Err(Problem::new(StatusCode::NOT_FOUND, message))
        }
        _ => Ok(name),
    }
}
