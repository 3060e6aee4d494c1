//! The providers' own Python and Node packages sign, the gateway decides: what they sign is taken, and with one signed
//! byte changed it is refused. `.ci/setup sdk` installs them, pinned, under `target/`.

use std::path::{Path, PathBuf};
use std::process::Output;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::process::Command;

use crate::support::vectors::{Captured, Vector};
use crate::support::*;

/// With which `.ci/setup sdk` says that the package registries can't be reached.
const UNREACHABLE: i32 = 3;

#[derive(Deserialize)]
struct Signed {
    #[serde(flatten)]
    vector: Vector,
    /// The body with one signed byte changed.
    tampered_base64: String,
}

/// Installs the packages where they are missing; their folder, or why there is none.
async fn packages() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Beside the test program, whatever the target folder is.
    let target = std::env::current_exe().expect("this program");
    let target = target.ancestors().nth(3).expect("target/debug/deps/it");
    let folder = target.join("sdk");
    let output = Command::new("bash")
        .args([".ci/setup", "sdk"])
        .arg(&folder)
        .current_dir(root)
        .output()
        .await
        .expect("bash runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => Ok(folder),
        Some(UNREACHABLE) => Err(said),
        _ => panic!("the packages can't be installed: {said}"),
    }
}

fn lines(output: &Output) -> Vec<Signed> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("a signed request")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_providers_own_packages_sign_is_taken_and_nothing_else() {
    let folder = match packages().await {
        Ok(folder) => folder,
        Err(why) => return eprintln!("SKIPPED: no provider's package has signed anything: {why}"),
    };
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk");
    std::fs::copy(scripts.join("sign.mjs"), folder.join("sign.mjs")).expect("copied");
    let python = Command::new(folder.join("python/bin/python")).arg(scripts.join("sign.py")).output();
    let node = Command::new("node").arg(folder.join("sign.mjs")).output();
    let (python, node) = tokio::join!(python, node);
    let mut signed = lines(&python.expect("python runs"));
    signed.extend(lines(&node.expect("node runs")));
    let by_package = signed.iter().filter(|one| one.vector.name == "signs").count();
    assert!(signed.len() >= 15 && by_package >= 10, "{by_package} of {}", signed.len());

    let app = App::start().await;
    let mut builder = gateway();
    for (at, one) in signed.iter().enumerate() {
        builder = builder.route(one.vector.route(&format!("r{at}")).to(&app));
    }
    let gateway = builder.start().await;
    for (at, Signed { vector, tampered_base64 }) in signed.iter().enumerate() {
        let host = format!("r{at}.example");
        let answer = gateway.send(&vector.request.to_host(&host)).await;
        assert!(answer.is_success(), "{}: {} {}", vector.provider, answer.status, answer.reason());
        let tampered = Captured { body_base64: tampered_base64.clone(), ..vector.request.clone() };
        let answer = gateway.send(&tampered.to_host(&host)).await;
        assert_eq!((answer.status, answer.reason()), (401, "signature_invalid"), "{}", vector.provider);
        assert_ne!(STANDARD.decode(tampered_base64), STANDARD.decode(&vector.request.body_base64));
    }
    app.receives(signed.len()).await;
}
