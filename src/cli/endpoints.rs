//! `tidegate endpoints`: give clients URLs of their own, and take them back.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use super::address::AdminArgs;
use super::client::{Client, PATIENCE};
use super::failure::{Failure, exit};
use super::output::{
    Format, OutputArgs, Rows, Side, Times, Tone, harmless, note, print, print_json, print_list,
};
use super::select::duration;
use crate::admin::endpoints::{EndpointView, IssuedView, Listed, Revoked, Whose};

/// Give clients of a route URLs of their own, list, rotate and revoke them
///
/// For routes with `clients: endpoints`: each client gets a URL that can't be guessed and, where the route's rule says
/// `client:secret`, a secret to sign with. Both are shown once. A new URL works at once, a revoked one is a plain 404.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate endpoints create --route partners --client acme
  tidegate endpoints list --route partners
  tidegate endpoints rotate --route partners --client acme --keep 7d      both work for a week
  tidegate endpoints revoke --route partners --client acme --yes")]
pub struct Endpoints {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Make a client's URL, and show it with its secret, once
    Create(Create),
    /// List the URLs that work, without what is secret of them
    #[command(visible_alias = "ls")]
    List(List),
    /// Make another URL and secret for a client; the old one works on for a while
    Rotate(Rotate),
    /// End all URLs of a client, at once
    Revoke(Revoke),
}

#[derive(clap::Args, Debug)]
struct Names {
    /// The route
    #[arg(long, value_name = "NAME")]
    route: String,
    /// The client: letters, digits, `.`, `_` and `-`. It is in logs, metrics, and the header `tidegate-client`
    #[arg(long, value_name = "NAME")]
    client: String,
}

#[derive(clap::Args, Debug)]
#[group(skip)] // the variant that holds it has the same name
struct Create {
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args, Debug)]
#[group(skip)]
struct List {
    /// Of this route
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Of this client
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args, Debug)]
#[group(skip)]
struct Rotate {
    #[command(flatten)]
    names: Names,
    /// How long the old URL and secret work on, at most 90d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    keep: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(clap::Args, Debug)]
#[group(skip)]
struct Revoke {
    #[command(flatten)]
    names: Names,
    /// Yes, the client can't send any more from now on
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl Endpoints {
    pub fn run(self) -> ExitCode {
        let admin = &self.admin;
        exit(match self.action {
            Action::Create(create) => create.run(admin),
            Action::List(list) => list.run(admin),
            Action::Rotate(rotate) => rotate.run(admin),
            Action::Revoke(revoke) => revoke.run(admin),
        })
    }
}

impl Names {
    fn whose(self, keep_seconds: Option<u64>) -> Whose {
        Whose { route: self.route, client: self.client, keep_seconds }
    }
}

impl Create {
    fn run(self, admin: &AdminArgs) -> Result<ExitCode, Failure> {
        let issued = Client::new(admin, PATIENCE)?.post("/endpoints", Some(&self.names.whose(None)))?;
        show(&issued, &self.output)
    }
}

impl Rotate {
    fn run(self, admin: &AdminArgs) -> Result<ExitCode, Failure> {
        let whose = self.names.whose(Some(self.keep.as_secs()));
        let issued = Client::new(admin, PATIENCE)?.post("/endpoints/rotate", Some(&whose))?;
        show(&issued, &self.output)
    }
}

impl List {
    fn run(self, admin: &AdminArgs) -> Result<ExitCode, Failure> {
        let mut listed: Listed = Client::new(admin, PATIENCE)?.get("/endpoints")?;
        let wanted = |asked: &Option<String>, is: &str| asked.as_deref().is_none_or(|asked| asked == is);
        listed.endpoints.retain(|one| wanted(&self.route, &one.route) && wanted(&self.client, &one.client));
        let names = listed.endpoints.iter().map(|one| &*one.client);
        print_list(&self.output, &listed, names, "no client has a URL", |times| {
            table(&listed.endpoints, times)
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Revoke {
    fn run(self, admin: &AdminArgs) -> Result<ExitCode, Failure> {
        if !self.yes {
            let name = harmless(&self.names.client);
            return Err(Failure::Usage(format!(
                "{name} could not send any more from now on: add --yes if so"
            )));
        }
        let whose = self.names.whose(None);
        let revoked: Revoked = Client::new(admin, PATIENCE)?.post("/endpoints/revoke", Some(&whose))?;
        match self.output.output {
            Format::Json => print_json(&revoked)?,
            Format::Table if self.output.quiet => {}
            Format::Table => print(&format!("{} revoked\n", revoked.revoked))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show(issued: &IssuedView, output: &OutputArgs) -> Result<ExitCode, Failure> {
    match output.output {
        Format::Json => print_json(issued)?,
        Format::Table => {
            print(&text(issued, Times::of(output)))?;
            if !output.quiet {
                note("shown this once: hand it over safely; a lost one is rotated");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn text(issued: &IssuedView, times: Times) -> String {
    let mut text = match &issued.url {
        Some(url) => format!("url     {}\n", harmless(url)),
        // The host is where senders reach the gateway, which the config does not say.
        None => format!("path    {}\n", harmless(&issued.path)),
    };
    if let Some(secret) = &issued.secret {
        text += &format!("secret  {}\n", harmless(secret));
    }
    if let Some(until) = &issued.old_until {
        text += &format!("the old url works until {}\n", times.show(until));
    }
    text
}

fn table(endpoints: &[EndpointView], times: Times) -> String {
    let mut rows = Rows::new(&[
        ("route", Side::Left),
        ("client", Side::Left),
        ("id", Side::Left),
        ("created", Side::Left),
        ("works until", Side::Left),
    ]);
    for one in endpoints {
        let until = one.until.as_deref();
        rows.row(vec![
            (one.route.clone(), Tone::Plain),
            (one.client.clone(), Tone::Plain),
            (one.id.clone(), Tone::Plain),
            (times.show(&one.created_at), Tone::Plain),
            (until.map_or("-".into(), |t| times.show(t)), until.map_or(Tone::Plain, |_| Tone::Waiting)),
        ]);
    }
    rows.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_url_is_shown_with_all_that_the_client_needs() {
        let endpoint = EndpointView {
            route: "partners".into(),
            client: "acme".into(),
            id: "0011".into(),
            created_at: "2025-11-24T16:00:00.000Z".into(),
            until: None,
            has_secret: true,
        };
        let issued = IssuedView {
            endpoint,
            path: "/in/abc".into(),
            url: Some("https://h/in/abc".into()),
            secret: Some("s3".into()),
            old_until: Some("2025-11-25T16:00:00.000Z".into()),
        };
        let shown = text(&issued, Times::Utc);
        assert_eq!(
            shown,
            "url     https://h/in/abc\nsecret  s3\nthe old url works until 2025-11-25T16:00:00.000Z\n"
        );
        let bare = IssuedView { url: None, secret: None, old_until: None, ..issued };
        assert_eq!(text(&bare, Times::Utc), "path    /in/abc\n");
    }
}
