//! `tidegate healthcheck`.

use std::process::ExitCode;
use std::time::Duration;

use super::address::AdminArgs;
use super::client::Client;
use super::failure::{Failure, exit};
use super::output::{Format, harmless, print, print_json};
use crate::admin::views::Readiness;

/// Exit 0 if the running gateway is ready, 1 if not
///
/// For container health checks: needs no shell and no other tool in the image, and no token.
#[derive(clap::Args, Debug)]
pub struct Healthcheck {
    #[command(flatten)]
    admin: AdminArgs,
    /// Seconds to wait for the answer
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,
    /// How the answer is printed; as JSON also where it is not ready
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Print nothing
    #[arg(short, long, conflicts_with = "output")]
    quiet: bool,
}

impl Healthcheck {
    pub fn run(self) -> ExitCode {
        exit(self.check())
    }

    fn check(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin, Duration::from_secs(self.timeout))?;
        let (_, body) = client.probe("/readyz")?;
        let readiness: Readiness = serde_json::from_slice(&body)
            .map_err(|_| Failure::No("this is not the admin API of a gateway".into()))?;
        if self.output == Format::Json {
            print_json(&readiness)?;
        }
        if readiness.ready {
            if self.output == Format::Table && !self.quiet {
                print("ready\n")?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        Err(Failure::No(format!("not ready: {}", harmless(&readiness.reasons.join("; ")))))
    }
}
