//! `tidegate routes`.

use std::process::ExitCode;
use std::sync::Arc;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::check::{ConfigPath, Output, print};
use crate::config::{self, Config, Route};
use crate::message::Method;
use crate::route::{Match, Verdict};

/// List routes, or explain which one a request would take
#[derive(clap::Args, Debug)]
pub struct Routes {
    #[command(flatten)]
    config: ConfigPath,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// A request, such as "POST https://hooks.example.com/hooks/github": which route takes it, and why not the others
    #[arg(long, value_name = "REQUEST")]
    explain: Option<String>,
}

impl Routes {
    /// Exit code 0: done; 1: the config is bad, or no route takes the request; 2: the request makes no sense.
    pub fn run(self) -> ExitCode {
        let loaded = match config::load_offline(&self.config.path()) {
            Ok(loaded) => loaded,
            Err(problems) => {
                eprintln!("{problems}");
                return ExitCode::FAILURE;
            }
        };
        let Some(explain) = &self.explain else {
            print(&match self.output {
                Output::Text => table(&loaded.config),
                Output::Json => {
                    let routes: Vec<Value> = loaded.config.routes.iter().map(described).collect();
                    format!("{:#}\n", Value::Array(routes))
                }
            });
            return ExitCode::SUCCESS;
        };
        match Asked::parse(explain) {
            Ok(asked) => {
                let (text, taken) = explained(&loaded.config, &asked, self.output);
                print(&text);
                if taken { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            Err(message) => {
                eprintln!("{message}");
                ExitCode::from(2)
            }
        }
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
        let method: Method = method.parse().map_err(|_| format!("`{method}` is not a method: {HELP}"))?;
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
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["NAME", "HOST", "PATH", "METHODS", "MODE", "TO"]);
    for route in &config.routes {
        table.add_row([
            route.name.to_string(),
            route.host.clone().unwrap_or_else(|| "any".into()),
            route.path.clone(),
            methods(route),
            route.mode.word().to_owned(),
            targets(route).join(" "),
        ]);
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
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
        Match::MethodNotAllowed(_) | Match::NotFound => None,
    };
    if output == Output::Json {
        let (params, allow) = match &found {
            Match::Route { params, .. } => (Some(params), None),
            Match::MethodNotAllowed(methods) => {
                (None, Some(methods.iter().map(Method::as_str).collect::<Vec<_>>()))
            }
            Match::NotFound => (None, None),
        };
        let value = json!({
            "method": asked.method.as_str(),
            "host": asked.host,
            "path": asked.path,
            "route": taken.map(|r| &*r.name),
            "status": match &found { Match::Route { .. } => None, Match::MethodNotAllowed(_) => Some(405), Match::NotFound => Some(404) },
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
        (Match::MethodNotAllowed(methods), _) => {
            let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
            format!("is answered 405 (Allow: {})\n", methods.join(", "))
        }
        _ => "is answered 404: no route has this host and path\n".to_owned(),
    };
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    for (route, why) in &whys {
        table.add_row([route.name.to_string(), route.path.clone(), why.clone()]);
    }
    for line in table.lines() {
        text += line.trim_end();
        text.push('\n');
    }
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
        assert_eq!(Asked::parse("https://[::1]").unwrap().host, "[::1]");
        assert_eq!(Asked::parse("https://a?x").unwrap().path, "/");
        for wrong in ["POST /x", "P OST https://a/", "https:///x", ""] {
            assert!(Asked::parse(wrong).is_err(), "{wrong}");
        }
    }
}
