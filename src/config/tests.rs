//! Whole configs: what is said about bad ones, and what good ones become.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use super::*;
use crate::message::Method;
use crate::route::Match;

mod alerts;
mod destinations;
mod examples;
mod good;
mod helps;
mod kept;
mod order;
mod packs;
mod places;
mod routes;
mod secrets;
mod slips;
mod whole;

/// A machine that has every secret and certificate, but for those that a test takes away.
#[derive(Default)]
struct Machine {
    env: HashMap<String, Option<String>>,
    files: HashMap<String, Result<Vec<u8>, String>>,
}

/// Fits every scheme: text, and base64 of 32 bytes behind the usual prefix.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

impl Outside for Machine {
    fn host_name(&self) -> String {
        "machine".into()
    }
    fn env(&self, name: &str) -> Option<OsString> {
        let value = self.env.get(name).cloned().unwrap_or_else(|| Some(SECRET.to_owned()));
        value.map(OsString::from)
    }
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(file) = self.files.get(&name) {
            return file.clone();
        }
        if name.ends_with("-url") {
            return Ok(b"https://hooks.example.com/services/T0/B0/x\n".to_vec());
        }
        match name.rsplit_once('.') {
            Some((_, "pem" | "key")) => {
                let made = rcgen::generate_simple_self_signed(vec!["app.internal".into()]).unwrap();
                let pem = made.cert.pem() + &made.signing_key.serialize_pem();
                Ok(pem.into_bytes())
            }
            _ => Ok(format!("{SECRET}\n").into_bytes()),
        }
    }
    fn folder(&self, path: &Path) -> Result<(), String> {
        match path.ends_with("nowhere") {
            true => Err("No such file or directory".into()),
            false => Ok(()),
        }
    }
    fn program(&self, name: &str) -> Result<(), String> {
        match name.ends_with("missing") {
            true => Err(format!("{name} does not exist")),
            false => Ok(()),
        }
    }
    fn certificates(&self, _: &Tls) -> Result<(), String> {
        Ok(())
    }
    fn pem(&self, path: &Path) -> Result<Option<Vec<u8>>, String> {
        self.read(path).map(Some)
    }
}

fn load_text_on(machine: &Machine, text: &str) -> Result<Loaded, Vec<Problem>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    fs::write(&path, text).unwrap();
    load_from(&path, &Unfetched, machine).map_err(|problems| problems.0)
}

fn load_text(text: &str) -> Result<Loaded, Vec<Problem>> {
    load_text_on(&Machine::default(), text)
}

/// A config with these routes.
fn routes(routes: &str) -> String {
    format!("listeners: [{{ address: \"127.0.0.1:0\" }}]\nroutes:\n{routes}")
}

/// `key: message` of each problem.
fn problems(text: &str) -> Vec<String> {
    let problems = load_text(text).map(|_| ()).unwrap_err();
    are_helpful(&problems);
    problems.iter().map(|p| format!("{}: {}", p.key, p.message)).collect()
}

fn only(text: &str) -> Problem {
    let mut problems = load_text(text).map(|_| ()).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    are_helpful(&problems);
    problems.remove(0)
}

/// Whatever is wrong, it is said what to do about it.
fn are_helpful(problems: &[Problem]) {
    for problem in problems {
        assert!(problem.help.as_ref().is_some_and(|help| !help.is_empty()), "without help: {problem:#?}");
        assert!(problem.line > 0 && problem.column > 0, "without a place: {problem:#?}");
    }
}

/// The one thing that is wrong with an open route that has these keys on top.
fn wrong_in_route(keys: &str) -> Problem {
    only(&routes(&format!("  - path: /x\n    verify: none\n    forward_to: http://127.0.0.1:3000\n{keys}\n")))
}

fn warnings(text: &str) -> Vec<String> {
    let loaded = load_text(text).unwrap_or_else(|problems| panic!("{problems:#?}"));
    loaded.warnings.iter().map(|w| format!("{}: {}", w.key, w.message)).collect()
}

const OPEN: &str = "  - path: /x\n    verify: none\n    forward_to: http://127.0.0.1:3000\n";
