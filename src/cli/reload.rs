//! `tidegate reload`.

use std::process::ExitCode;

use super::address::AdminArgs;
use super::client::{Client, PATIENCE};
use super::failure::{Failure, exit};
use super::output::{Format, OutputArgs, harmless, harmless_lines, note, print, print_json};
use crate::admin::views::{RouteSetup, Status};

/// Have the running gateway read its config again
///
/// The new config is checked whole; if anything is wrong with it, the running one stays, the reasons are printed and
/// the exit code is 1.
#[derive(clap::Args, Debug)]
pub struct Reload {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Reload {
    pub fn run(self) -> ExitCode {
        exit(self.reload())
    }

    fn reload(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin, PATIENCE)?;
        let before: Status = client.get("/status")?;
        // As it comes: a newer gateway may say more than this client knows.
        let reloaded: serde_json::Value = client.post("/reload", None::<&()>).map_err(|error| {
            Failure::No(format!(
                "the config was not reloaded, the running one stays:\n{}",
                Failure::from(error)
            ))
        })?;
        if self.output.output == Format::Json {
            print_json(&reloaded)?;
            return Ok(ExitCode::SUCCESS);
        }
        for warning in reloaded["warnings"].as_array().into_iter().flatten() {
            note(&format!("warning: {}", harmless_lines(warning.as_str().unwrap_or_default())));
        }
        if !self.output.quiet {
            let after: Status = client.get("/status")?;
            print(&changes(&before, &after))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What of the config, as far as the API shows it, is different.
fn changes(before: &Status, after: &Status) -> String {
    let (old, new) = (&before.setup, &after.setup);
    let short = |hash: &str| harmless(&hash.chars().take(12).collect::<String>());
    if old.config_hash == new.config_hash {
        let hash = short(&new.config_hash);
        return format!(
            "reloaded: the config files are unchanged ({hash}), secrets and certificates were read again\n"
        );
    }
    let mut text = format!("reloaded: config {} → {}\n", short(&old.config_hash), short(&new.config_hash));
    let find = |routes: &[RouteSetup], name: &str| routes.iter().find(|r| r.name == name).cloned();
    for route in &new.routes {
        match find(&old.routes, &route.name) {
            None => text += &format!("  + route {} ({})\n", harmless(&route.name), harmless(&route.path)),
            Some(was) if was != *route => text += &format!("  ~ route {}\n", harmless(&route.name)),
            Some(_) => {}
        }
    }
    for route in &old.routes {
        if find(&new.routes, &route.name).is_none() {
            text += &format!("  - route {}\n", harmless(&route.name));
        }
    }
    if old.listeners != new.listeners {
        text += "  ~ listeners\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::views::Setup;

    fn status(hash: &str, routes: &[(&str, &str)]) -> Status {
        let routes = routes.iter().map(|(name, path)| RouteSetup {
            name: (*name).into(),
            host: None,
            path: (*path).into(),
            methods: vec![],
            mode: "buffer".into(),
            verification: "on".into(),
            destinations: vec![],
        });
        Status {
            version: "1".into(),
            pid: 1,
            started_at: String::new(),
            uptime_seconds: 0,
            ready: true,
            reasons: vec![],
            setup: Setup { config_hash: hash.into(), routes: routes.collect(), ..Setup::default() },
            last_reload: None,
            key_sets: vec![],
            secrets: vec![],
            ranges: vec![],
            buffer: None,
            destinations: vec![],
            traffic: vec![],
            quarantine: None,
        }
    }

    #[test]
    fn a_reload_says_what_changed() {
        let before = status("aaaaaaaaaaaaaaaa", &[("a", "/a"), ("b", "/b"), ("c", "/c")]);
        let after = status("bbbbbbbbbbbbbbbb", &[("a", "/a"), ("b", "/other"), ("d", "/d")]);
        assert_eq!(
            changes(&before, &after),
            "reloaded: config aaaaaaaaaaaa → bbbbbbbbbbbb\n  ~ route b\n  + route d (/d)\n  - route c\n"
        );
        assert!(changes(&before, &before).contains("unchanged"));
    }
}
