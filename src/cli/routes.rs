//! `tidegate routes`.

use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};

use super::check::{ConfigPath, Output};
use super::failure::{Failure, exit};
use super::output::{Rows, Side, Tone, print};
use crate::config::{self, Config, Needed, Route};
use crate::message::Method;
use crate::route::{Match, Verdict};

/// List routes, or explain which one a request would take
///
/// Looks at the config alone: the secrets and certificates that it refers to need not be here. Exit code 0: done, or a
/// route takes the request; 1: none does; 78: the config is bad.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
Examples:
  tidegate routes
  tidegate routes --explain \"POST https://hooks.example.com/hooks/github\"
  tidegate routes --explain https://hooks.example.com/hooks/github    POST is the default")]
pub struct Routes {
    #[command(flatten)]
    config: ConfigPath,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Output,
    /// A request, such as "POST https://hooks.example.com/hooks/github": which route takes it, and why not the others
    #[arg(long, value_name = "REQUEST")]
    explain: Option<String>,
}

impl Routes {
    pub fn run(self) -> ExitCode {
        exit(self.show())
    }

    fn show(&self) -> Result<ExitCode, Failure> {
        let loaded = config::load_offline(&self.config.path(), Needed::Nothing)?;
        let Some(explain) = &self.explain else {
            print(&match self.output {
                Output::Text => table(&loaded.config),
                Output::Json => {
                    let routes: Vec<Value> = loaded.config.routes.iter().map(described).collect();
                    format!("{:#}\n", Value::Array(routes))
                }
            })?;
            return Ok(ExitCode::SUCCESS);
        };
        let asked = Asked::parse(explain).map_err(Failure::Usage)?;
        let (text, taken) = explained(&loaded.config, &asked, self.output);
        print(&text)?;
        Ok(if taken { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A request as asked about.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    method: Method,
    host: String,
    path: String,
}

impl Asked {
    /// `METHOD URL`, or a URL alone for POST; the path as it is sent.
    fn parse(text: &str) -> Result<Self, String> {
        const HELP: &str = "write it as \"POST https://host/path\"";
        let (method, url) = text.trim().split_once(' ').unwrap_or(("POST", text.trim()));
        // Methods are written in upper case; nobody means another one by typing it small.
        let method: Method =
            method.to_ascii_uppercase().parse().map_err(|_| format!("`{method}` is not a method: {HELP}"))?;
        // Not by a URL parser: the path is matched as it is sent, whatever is in it.
        let rest = url
            .trim()
            .strip_prefix("https://")
            .or_else(|| url.trim().strip_prefix("http://"))
            .ok_or_else(|| format!("`{url}` is not a whole URL: {HELP}"))?;
        let (authority, target) = match rest.find(['/', '?', '#']) {
            Some(end) => rest.split_at(end),
            None => (rest, ""),
        };
        if authority.is_empty() {
            return Err(format!("`{url}` has no host: {HELP}"));
        }
        let path = target.split(['?', '#']).next().unwrap_or_default();
        let host = match authority.rfind(':') {
            Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
            _ => authority,
        };
        Ok(Self {
            method,
            host: host.trim_end_matches('.').to_ascii_lowercase(),
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
        })
    }
}

fn methods(route: &Route) -> String {
    match route.methods.as_slice() {
        [] => "any".to_owned(),
        methods => methods.iter().map(Method::as_str).collect::<Vec<_>>().join(" "),
    }
}

fn targets(route: &Route) -> Vec<String> {
    route.mode.destinations().iter().flat_map(|d| d.upstreams.iter().map(ToString::to_string)).collect()
}

fn table(config: &Config) -> String {
    let columns = ["name", "host", "path", "methods", "mode", "to"];
    let mut rows = Rows::new(&columns.map(|name| (name, Side::Left)));
    for route in &config.routes {
        let cells = [
            route.name.to_string(),
            route.host.clone().unwrap_or_else(|| "any".into()),
            route.path.clone(),
            methods(route),
            route.mode.word().to_owned(),
            targets(route).join(" "),
        ];
        rows.row(cells.map(|cell| (cell, Tone::Plain)).to_vec());
    }
    rows.text()
}

fn described(route: &Arc<Route>) -> Value {
    json!({
        "name": *route.name,
        "host": route.host,
        "path": route.path,
        "methods": route.methods.iter().map(Method::as_str).collect::<Vec<_>>(),
        "mode": route.mode.word(),
        "destinations": route.mode.destinations().iter().map(|d| json!({
            "name": d.name.to_string(),
            "upstreams": d.upstreams.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}

/// What to print, and whether a route takes the request.
fn explained(config: &Config, asked: &Asked, output: Output) -> (String, bool) {
    let found = config.table.find(&asked.host, &asked.path, &asked.method);
    let verdicts = config.table.explain(&asked.host, &asked.path, &asked.method);
    let whys: Vec<(&Arc<Route>, String)> = config
        .routes
        .iter()
        .zip(&verdicts)
        .map(|(route, verdict)| (route, why(config, route, verdict, asked)))
        .collect();
    let taken = match &found {
        Match::Route { index, .. } => config.routes.get(*index),
        Match::MethodNotAllowed { .. } | Match::NotFound => None,
    };
    if output == Output::Json {
        let (params, allow) = match &found {
            Match::Route { params, .. } => (Some(params), None),
            Match::MethodNotAllowed { allowed: methods, .. } => {
                (None, Some(methods.iter().map(Method::as_str).collect::<Vec<_>>()))
            }
            Match::NotFound => (None, None),
        };
        let value = json!({
            "method": asked.method.as_str(),
            "host": asked.host,
            "path": asked.path,
            "route": taken.map(|r| &*r.name),
            "status": match &found { Match::Route { .. } => None, Match::MethodNotAllowed { .. } => Some(405), Match::NotFound => Some(404) },
            "allow": allow,
            "parameters": params.map(|p| p.0.iter().map(|(n, v)| (n.to_string(), json!(v))).collect::<serde_json::Map<_, _>>()),
            "routes": whys.iter().map(|(route, why)| json!({ "name": *route.name, "verdict": why })).collect::<Vec<_>>(),
        });
        return (format!("{value:#}\n"), taken.is_some());
    }
    let mut text = format!("{} host {} path {}\n", asked.method, asked.host, asked.path);
    text += &match (&found, taken) {
        (Match::Route { params, .. }, Some(route)) => {
            let params: String = params.0.iter().map(|(name, value)| format!(", {name} = {value}")).collect();
            format!("takes the route `{}`{params}\n", route.name)
        }
        (Match::MethodNotAllowed { allowed: methods, .. }, _) => {
            let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
            format!("is answered 405 (Allow: {})\n", methods.join(", "))
        }
        _ => "is answered 404: no route has this host and path\n".to_owned(),
    };
    let mut rows = Rows::new(&["route", "path", "why"].map(|name| (name, Side::Left)));
    for (route, why) in &whys {
        let cells = [route.name.to_string(), route.path.clone(), why.clone()];
        rows.row(cells.map(|cell| (cell, Tone::Plain)).to_vec());
    }
    text += &format!("\n{}", rows.text());
    (text, taken.is_some())
}

fn why(config: &Config, route: &Route, verdict: &Verdict, asked: &Asked) -> String {
    match verdict {
        Verdict::Taken => "takes it".to_owned(),
        Verdict::Host => format!("is for host {}", route.host.as_deref().unwrap_or_default()),
        Verdict::Path => "has another path".to_owned(),
        Verdict::Method => format!("takes {}, not {}", methods(route), asked.method),
        Verdict::LessSpecific { than } => {
            let than = config.routes.get(*than).map(|r| r.name.to_string()).unwrap_or_default();
            format!("is less specific than `{than}`")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_would_be_sent() {
        let asked = Asked::parse("GET https://Hooks.Example.com:8443/a%2Fb//c?x=/d").unwrap();
        let wanted =
            Asked { method: Method::GET, host: "hooks.example.com".into(), path: "/a%2Fb//c".into() };
        assert_eq!(asked, wanted);
        assert_eq!(Asked::parse("post https://a/b").unwrap().method, Method::POST);
        assert_eq!(Asked::parse("https://[::1]").unwrap().host, "[::1]");
        assert_eq!(Asked::parse("https://a?x").unwrap().path, "/");
        for wrong in ["POST /x", "P OST https://a/", "https:///x", ""] {
            assert!(Asked::parse(wrong).is_err(), "{wrong}");
        }
    }
}
