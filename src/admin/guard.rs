//! Who may ask what. Without a token the API trusts whoever can reach a loopback address or open the socket file; so
//! what a web page in somebody's browser can send is refused: a foreign `Host` (DNS rebinding), and changes that name
//! an `Origin` or are not JSON (cross-site requests). With a token, only its bearer gets past.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::secret::Secret;

use super::problem::Problem;
use super::{App, REQUEST_TIMEOUT};

/// Where the API is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Tcp(SocketAddr),
    /// A socket file that only its owner may open.
    Unix,
}

/// Answers that hold nothing but the gateway's health, for probes that can't hold a token.
const OPEN_PATHS: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// Stands before every handler.
pub async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let answered = async {
        admit(&app, &request)?;
        match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
            Ok(response) => Ok(response),
            Err(_) => Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "this took too long to wait for; a replay, purge or reload goes on in the background",
            )),
        }
    };
    let mut response = answered.await.unwrap_or_else(|problem: Problem| {
        let unauthorized = problem.status == StatusCode::UNAUTHORIZED.as_u16();
        let mut response = problem.into_response();
        if unauthorized {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    });
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    response
}

fn admit(app: &App, request: &Request) -> Result<(), Problem> {
    let open = OPEN_PATHS.contains(&request.uri().path());
    match app.control.token() {
        Some(token) if !open => bearer(request.headers(), &token)?,
        Some(_) => {}
        None => match app.place {
            Place::Unix => {}
            Place::Tcp(bound) if bound.ip().is_loopback() || open => known_host(request, bound)?,
            // The token was taken away by a reload; the socket stayed.
            Place::Tcp(_) => return Err(Problem::forbidden("no token is configured: admin is closed here")),
        },
    }
    match *request.method() {
        Method::GET | Method::HEAD => Ok(()),
        _ => no_browser(request.headers()),
    }
}

fn bearer(headers: &HeaderMap, token: &Secret) -> Result<(), Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let given = match (values.next(), values.next()) {
        (Some(value), None) => value.as_bytes(),
        _ => b"",
    };
    let given = match given.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"bearer ") => rest.trim_ascii(),
        _ => b"",
    };
    if !given.is_empty() && token.is(given) {
        return Ok(());
    }
    tracing::warn!("admin request without the right token");
    Err(Problem::new(StatusCode::UNAUTHORIZED, "send the admin token as `Authorization: Bearer …`"))
}

/// The name that the caller used must be one that no foreign DNS entry can stand behind.
fn known_host(request: &Request, bound: SocketAddr) -> Result<(), Problem> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (request.uri().authority(), hosts.next(), hosts.next()) {
        (Some(authority), _, None) => authority.as_str(),
        (None, Some(host), None) => host.to_str().unwrap_or_default(),
        // No browser speaks it, some probes do.
        (None, None, None) if request.version() == Version::HTTP_10 => return Ok(()),
        _ => "",
    };
    if is_known(host, bound.ip()) {
        return Ok(());
    }
    Err(Problem::forbidden(
        "this name is not known here: use the address, `localhost`, or configure an admin token",
    ))
}

fn is_known(host: &str, bound: IpAddr) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => {
            if port.parse::<u16>().is_err() {
                return false;
            }
            name
        }
        _ => host,
    };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let name = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == bound)
}

/// Changes come from tools, never from a web page.
fn no_browser(headers: &HeaderMap) -> Result<(), Problem> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if headers.contains_key(header::ORIGIN) || site.is_some_and(|site| site != b"none") {
        return Err(Problem::forbidden("changes are not taken from web pages"));
    }
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    // Neither is a type that a form can send, so a browser asks first, and is refused.
    if has_body && !is(headers, "application/json") && !is(headers, "application/x-tar") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send the body as `content-type: application/json` (an import as `application/x-tar`)",
        ));
    }
    Ok(())
}

fn is(headers: &HeaderMap, wanted: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_no_foreign_dns_can_own_are_known() {
        let bound: IpAddr = [127, 0, 0, 1].into();
        for host in ["127.0.0.1:9900", "localhost", "LOCALHOST:80", "[::1]:9900", "[::1]", "127.0.0.9"] {
            assert!(is_known(host, bound), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example:9900",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "localhost:x",
            "127.0.0.1:",
            "::1",
        ] {
            assert!(!is_known(host, bound), "{host}");
        }
        assert!(is_known("10.0.0.1:9900", [10, 0, 0, 1].into()));
    }

    #[test]
    fn a_form_is_not_json() {
        let with = |value| HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]);
        let is_json = |headers: &HeaderMap| is(headers, "application/json");
        assert!(is_json(&with("application/json; charset=utf-8")) && is_json(&with("Application/JSON")));
        for value in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
            assert!(!is_json(&with(value)), "{value}");
        }
    }
}
