//! What is wrong, who is told of it, and whether that works.

use axum::Json;
use axum::extract::State;

use super::App;
use super::problem::Problem;
use super::views::AlertsTested;
use crate::alerts::AlertsStatus;

pub async fn list(State(app): State<App>) -> Json<AlertsStatus> {
    Json(app.control.alerts())
}

/// A caller that goes away does not stop a test half-way.
pub async fn test(State(app): State<App>) -> Result<Json<AlertsTested>, Problem> {
    let test = tokio::spawn(async move { app.control.test_alerts().await });
    Ok(Json(AlertsTested { targets: test.await.map_err(|_| Problem::internal())? }))
}
