//! `tidegate completions`.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::failure::exit;
use super::output::print;

/// Print shell completions
///
/// For example: tidegate completions bash > /etc/bash_completion.d/tidegate
#[derive(clap::Args, Debug)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> ExitCode {
        exit(print(&script(self.shell)).map(|()| ExitCode::SUCCESS))
    }
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    // Into memory first: the generator panics when its output is closed.
    clap_complete::generate(shell, &mut super::Cli::command(), "tidegate", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let script = script(shell);
            for command in ["events", "dead", "reload", "healthcheck", "completions"] {
                assert!(script.contains(command), "{shell}: {command}");
            }
        }
    }
}
