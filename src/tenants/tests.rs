//! Tenants over a real folder; nothing waits, because a cache is never asked to be old.

use std::fs;
use std::path::Path;

use super::*;
use crate::clock::Timestamp;
use crate::message::Request;
use crate::reason::Reason;
use crate::verify::testing::request;

const NOW: Timestamp = Timestamp::from_secs(1_764_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn tenants_for(folder: &Path, rule: &str, files: &[&str], refresh: Duration) -> Arc<Tenants> {
    let references = files.iter().map(|file| Reference::parse(file).unwrap().unwrap()).collect();
    let spec = serde_saphyr::from_str(rule).unwrap();
    let mut shared = Shared::default();
    shared.packs.insert("github".into(), crate::providers::find("github").unwrap());
    shared.secrets.insert("env:ALL".into(), Secret::new(b"shared".to_vec()));
    Arc::new(Tenants::new(
        spec,
        shared,
        references,
        Needs::Secret,
        folder.to_owned(),
        decoy().unwrap(),
        refresh,
    ))
}

fn tenants(folder: &Path) -> Arc<Tenants> {
    let file = "file:{account}";
    tenants_for(folder, "{ provider: github, secret: 'file:{account}' }", &[file], HOUR)
}

fn params(account: &str) -> PathParams {
    PathParams(vec![("account".into(), account.into())])
}

/// What GitHub would send with this secret.
fn signed(secret: &str) -> Request {
    let rule = format!("{{ provider: github, secret: '{secret}' }}");
    let compiled =
        compile(&serde_saphyr::from_str(&rule).unwrap(), &crate::verify::testing::World::default());
    let bare = request("/", &[("X-GitHub-Delivery", "1")], b"{}");
    compiled.unwrap().verifier.sign(&bare, None, NOW, None).unwrap()
}

fn accepts(tenant: &Tenant, secret: &str) -> bool {
    match tenant {
        Tenant::Known(rules) => rules.verifier.verify(signed(secret), None, NOW).is_ok(),
        Tenant::Unknown | Tenant::Broken(_) => false,
    }
}

#[tokio::test]
async fn each_tenant_is_held_against_its_own_secret_only() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("acme"), "one\n").unwrap();
    fs::write(folder.path().join("bolt"), "two\r\n").unwrap();
    let tenants = tenants(folder.path());
    let acme = tenants.find(&params("acme"), None).await;
    assert!(accepts(&acme, "one") && !accepts(&acme, "two"));
    let bolt = tenants.find(&params("bolt"), None).await;
    assert!(accepts(&bolt, "two") && !accepts(&bolt, "one"));
}

#[tokio::test]
async fn names_that_are_no_plain_names_are_nobodys_and_never_looked_up() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("in");
    fs::create_dir_all(inner.join("folder")).unwrap();
    fs::write(folder.path().join("outside"), "one").unwrap();
    fs::write(inner.join(".hidden"), "one").unwrap();
    let tenants = tenants(&inner);
    for name in ["../outside", "..", "%2e%2e%2foutside", ".hidden", "", "folder", "a\0b", "nobody"] {
        assert!(matches!(tenants.find(&params(name), None).await, Tenant::Unknown), "{name}");
    }
    tenants.unknown.run_pending_tasks();
    // Only the two that could be files were looked for.
    assert_eq!(tenants.unknown.entry_count(), 2);
}

#[tokio::test]
async fn what_was_read_counts_until_its_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("acme");
    let kept = tenants(folder.path());
    assert!(matches!(kept.find(&params("acme"), None).await, Tenant::Unknown));
    fs::write(&file, "one").unwrap();
    // Who is unknown costs no look at the disk.
    assert!(matches!(kept.find(&params("acme"), None).await, Tenant::Unknown));
    let rule = "{ provider: github, secret: 'file:{account}' }";
    let fresh = tenants_for(folder.path(), rule, &["file:{account}"], Duration::ZERO);
    assert!(accepts(&fresh.find(&params("acme"), None).await, "one"));
    fs::write(&file, "two").unwrap();
    assert!(accepts(&fresh.find(&params("acme"), None).await, "two"));
    fs::remove_file(&file).unwrap();
    assert!(matches!(fresh.find(&params("acme"), None).await, Tenant::Unknown));
}

#[tokio::test]
async fn of_several_files_one_is_enough_and_the_others_have_no_key() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("new")).unwrap();
    fs::write(folder.path().join("new/acme"), "one").unwrap();
    let files = ["file:new/{account}", "file:old/{account}"];
    let rule =
        "{ provider: github, secrets: [{ secret: 'file:new/{account}', label: new }, 'file:old/{account}'] }";
    let tenants = tenants_for(folder.path(), rule, &files, HOUR);
    let acme = tenants.find(&params("acme"), None).await;
    assert!(accepts(&acme, "one") && !accepts(&acme, "guess"));
    assert!(matches!(tenants.find(&params("bolt"), None).await, Tenant::Unknown));
}

#[tokio::test]
async fn a_public_key_can_be_a_tenants_too() {
    let folder = tempfile::tempdir().unwrap();
    let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    fs::write(folder.path().join("acme"), key).unwrap();
    let rule = "{ algorithm: ed25519, signature: { from: header:X, encoding: hex }, public_keys: ['file:{account}'] }";
    let tenants = tenants_for(folder.path(), rule, &["file:{account}"], HOUR);
    let Tenant::Known(acme) = tenants.find(&params("acme"), None).await else { panic!("unknown") };
    // RFC 8032, section 7.1, test 1: the empty message.
    let signature = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b\
                     d25bf5f0595bbe24655141438e7a100b";
    assert!(acme.verifier.verify(request("/", &[("X", signature)], b""), None, NOW).is_ok());
    let refused = acme.verifier.verify(request("/", &[("X", signature)], b"x"), None, NOW).unwrap_err().1;
    assert_eq!(refused.reason, Reason::SignatureInvalid);
    fs::write(folder.path().join("bolt"), "no key").unwrap();
    assert!(matches!(tenants.find(&params("bolt"), None).await, Tenant::Broken(_)));
}

#[tokio::test]
async fn a_client_is_held_against_the_secret_of_its_url() {
    let folder = tempfile::tempdir().unwrap();
    let tenants = tenants_for(folder.path(), "{ provider: github, secret: client:secret }", &[], HOUR);
    let (one, two) = (Secret::new(b"one".to_vec()), Secret::new(b"two".to_vec()));
    let first = tenants.find(&PathParams::default(), Some(Client { id: "1", secret: Some(&one) })).await;
    let second = tenants.find(&PathParams::default(), Some(Client { id: "2", secret: Some(&two) })).await;
    assert!(accepts(&first, "one") && !accepts(&first, "two"));
    assert!(accepts(&second, "two") && !accepts(&second, "one"));
    // One that was made before the route asked for secrets has none: nothing is right for it.
    let without = tenants.find(&PathParams::default(), Some(Client { id: "3", secret: None })).await;
    assert!(!accepts(&without, "one") && !accepts(&without, "guess"));
}
