//! Why a command did not do what it was asked, and which exit code says so.

use std::io;
use std::process::ExitCode;

use crate::config::Problems;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It said no, or there is nobody to ask.
    #[error("{0}")]
    No(String),
    /// What was begun goes on without this command: the text says where to look.
    #[error("{0}")]
    GoesOn(String),
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Config(String),
    /// The same with all that is wrong; each problem begins with its file.
    #[error("{0}")]
    BadConfig(Problems),
    #[error("output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// Says what is wrong on standard error and gives the exit code: 1 it said no, 2 wrong usage, 3 it goes on without
    /// this command, 78 the config is bad. A reader of the output that has seen enough (`| head`) is no failure.
    pub fn report(&self) -> ExitCode {
        if let Failure::Output(error) = self
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            return ExitCode::SUCCESS;
        }
        // With standard error gone too, the exit code is all that is left.
        let text = match self {
            Failure::BadConfig(problems) => format!("{problems}\n"),
            _ => format!("tidegate: {self}\n"),
        };
        let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
        match self {
            Failure::No(_) | Failure::Output(_) => ExitCode::from(1),
            Failure::Usage(_) => ExitCode::from(2),
            Failure::GoesOn(_) => ExitCode::from(3),
            Failure::Config(_) | Failure::BadConfig(_) => ExitCode::from(78),
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Failure::BadConfig(problems)
    }
}

/// The end of a command.
pub fn exit(outcome: Result<ExitCode, Failure>) -> ExitCode {
    outcome.unwrap_or_else(|failure| failure.report())
}
