//! Issuing, listing, rotating and revoking clients' URLs. What is secret of one is in the answer that makes it, and in no
//! other.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::endpoints::{ENDPOINT, Endpoint, EndpointError, Issued};

use super::App;
use super::control::{EndpointRoute, NoEndpoints};
use super::problem::Problem;

/// How long an old URL works on where nothing is said, in seconds.
pub const KEEP_SECONDS: u64 = 24 * 3600;

/// Whose URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whose {
    pub route: String,
    pub client: String,
    /// For `rotate`: how long the old URL works on. Default: a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_seconds: Option<u64>,
}

/// All URLs that work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub endpoints: Vec<EndpointView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointView {
    pub route: String,
    pub client: String,
    /// Names the URL without telling it.
    pub id: String,
    pub created_at: String,
    /// When it ends; `null` for the one that is not replaced.
    pub until: Option<String>,
    /// Whether it has a secret that its client signs with.
    pub has_secret: bool,
}

/// A new URL: what is secret of it can't be asked for again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedView {
    #[serde(flatten)]
    pub endpoint: EndpointView,
    /// The path; other parameters of the route stand in it as they are in the config.
    pub path: String,
    /// `null` where the config says neither `public_url` nor `host`.
    pub url: Option<String>,
    /// What the client signs with, if the route's rule asks for it.
    pub secret: Option<String>,
    /// Until when the URL from before works.
    pub old_until: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// URLs that have ended.
    pub revoked: usize,
}

type Body = Result<Bytes, BytesRejection>;

pub(super) async fn list(State(app): State<App>) -> Json<Listed> {
    Json(Listed { endpoints: app.control.endpoints().list().iter().map(|e| view(e)).collect() })
}

pub(super) async fn create(State(app): State<App>, body: Body) -> Result<Json<IssuedView>, Problem> {
    let (whose, route) = asked(&app, body)?;
    if whose.keep_seconds.is_some() {
        return Err(Problem::bad_request("`keep_seconds` belongs to `rotate`: there is no old URL"));
    }
    change(app, async move |app| {
        let issued = app.control.endpoints().create(&whose.route, &whose.client, route.needs).await?;
        tracing::info!(route = whose.route, client = whose.client, id = %issued.endpoint.id, "a client got its URL");
        Ok(issued_view(&issued, &route))
    })
    .await
}

pub(super) async fn rotate(State(app): State<App>, body: Body) -> Result<Json<IssuedView>, Problem> {
    let (whose, route) = asked(&app, body)?;
    let keep = Duration::from_secs(whose.keep_seconds.unwrap_or(KEEP_SECONDS));
    change(app, async move |app| {
        let endpoints = app.control.endpoints();
        let issued = endpoints.rotate(&whose.route, &whose.client, route.needs, keep).await?;
        tracing::info!(route = whose.route, client = whose.client, id = %issued.endpoint.id, "a client got another URL");
        Ok(issued_view(&issued, &route))
    })
    .await
}

/// Also of routes that are not in the config any more.
pub(super) async fn revoke(State(app): State<App>, body: Body) -> Result<Json<Revoked>, Problem> {
    let whose = whose(body)?;
    change(app, async move |app| {
        let revoked = app.control.endpoints().revoke(&whose.route, &whose.client).await?;
        tracing::info!(route = whose.route, client = whose.client, revoked, "a client's URLs were revoked");
        Ok(Revoked { revoked })
    })
    .await
}

/// Runs on a task of its own: a caller that goes away does not stop it half-way.
async fn change<T, F>(app: App, work: impl FnOnce(App) -> F + Send + 'static) -> Result<Json<T>, Problem>
where
    T: Send + 'static,
    F: Future<Output = Result<T, EndpointError>> + Send + 'static,
{
    match tokio::spawn(async move { work(app).await }).await {
        Ok(done) => done.map(Json).map_err(Problem::from),
        Err(_) => Err(Problem::internal()),
    }
}

fn whose(body: Body) -> Result<Whose, Problem> {
    let body = body.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    serde_json::from_slice(&body)
        .map_err(|e| Problem::bad_request(format!("the body is not what is expected: {e}")))
}

fn asked(app: &App, body: Body) -> Result<(Whose, EndpointRoute), Problem> {
    let whose = whose(body)?;
    match app.control.endpoint_route(&whose.route) {
        Ok(route) => Ok((whose, route)),
        Err(NoEndpoints::NoRoute { near }) => {
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            Err(Problem::not_found(format!("there is no route `{}`{near}", whose.route)))
        }
        Err(NoEndpoints::NotAsked) => Err(Problem::new(
            StatusCode::CONFLICT,
            format!("the route `{}` gives no URLs: its config lacks `clients: endpoints`", whose.route),
        )),
    }
}

impl From<EndpointError> for Problem {
    fn from(error: EndpointError) -> Self {
        let status = match error {
            EndpointError::Exists(_) | EndpointError::TooMany => StatusCode::CONFLICT,
            EndpointError::Unknown(_) => StatusCode::NOT_FOUND,
            EndpointError::BadName | EndpointError::KeptTooLong => StatusCode::BAD_REQUEST,
            EndpointError::NoRandomness(_) => StatusCode::INTERNAL_SERVER_ERROR,
            EndpointError::Buffer(error) => return error.into(),
        };
        Problem::new(status, error.to_string())
    }
}

fn view(endpoint: &Endpoint) -> EndpointView {
    EndpointView {
        route: endpoint.route.to_string(),
        client: endpoint.client.to_string(),
        id: endpoint.id.to_string(),
        created_at: endpoint.created_at.to_string(),
        until: endpoint.until.map(|until| until.to_string()),
        has_secret: endpoint.secret.is_some(),
    }
}

fn issued_view(issued: &Issued, route: &EndpointRoute) -> IssuedView {
    let path = route.path.replace(&format!("{{{ENDPOINT}}}"), &issued.token);
    let secret = issued.endpoint.secret.as_ref();
    IssuedView {
        endpoint: view(&issued.endpoint),
        url: route.origin.as_ref().map(|origin| format!("{origin}{path}")),
        path,
        secret: secret.map(|secret| String::from_utf8_lossy(secret.expose()).into_owned()),
        old_until: issued.old_until.map(|until| until.to_string()),
    }
}
