//! Which texts a handshake would sign for whoever asks, with which secrets: for [`Signable`], whose rules then refuse
//! them as events.

use super::build::Given;
use crate::providers::Pack;
use crate::secret::Secret;
use crate::verify::Resolver;
use crate::verify::build::Problems;
use crate::verify::build_scheme::{Algorithm, derive};
use crate::verify::locate::Location;
use crate::verify::mac::MacKey;
use crate::verify::shape::Shape;
use crate::verify::signable::{By, Signable};
use crate::verify::spec::{ConditionSpec, HandshakeSpec, ProofSpec, Rule};
use crate::verify::template::Template;

/// Adds what the handshakes of a pack sign with the secrets of `rule`, whether this route answers them or not: what was
/// signed elsewhere, or before, is as good.
pub(in crate::verify) fn note_pack(pack: &Pack, rule: &Rule, resolver: &dyn Resolver, into: &Signable) {
    let given = Given::of_pack(pack, &[rule], resolver);
    for spec in &pack.handshakes {
        note(spec, &given, into);
    }
}

/// Adds what one handshake signs for strangers: of a greeting that is signed itself only its sender has an answer. What is
/// wrong with it is said elsewhere.
pub(super) fn note(spec: &HandshakeSpec, given: &Given<'_>, into: &Signable) {
    if spec.signed != Some(false) {
        return;
    }
    let Some(proof) = spec.answer.as_ref().and_then(|answer| answer.proof.as_ref()) else { return };
    let Ok(signed) = Template::parse(&proof.signed, &|name| given.text(name)) else { return };
    let Some(algorithm) = Algorithm::parse(&proof.algorithm) else { return };
    for secret in secrets(proof, given) {
        let mut ignored = Vec::new();
        let derived = derive(&secret, proof.key.as_ref(), &[], &mut Problems::new(&mut ignored));
        let Some(secret) = derived else { continue };
        let Some(shape) = signed.shape(&|location| shape_of(spec, location), secret.expose()) else {
            continue;
        };
        match algorithm {
            Algorithm::Hmac(hash) => {
                if let Some(key) = MacKey::new(hash, secret.expose()) {
                    into.add(shape, By::Mac(Box::new(key)));
                }
            }
            Algorithm::Digest(hash) => into.add(shape, By::Digest(hash)),
            Algorithm::Token | Algorithm::Asymmetric(_) => {}
        }
    }
}

/// All that it may sign with, or may have signed with while it came first: not only the first.
fn secrets(proof: &ProofSpec, given: &Given<'_>) -> Vec<Secret> {
    match (&proof.param, &proof.secret) {
        (Some(name), _) => given.params.get(name.as_str()).cloned().unwrap_or_default(),
        (None, Some(reference)) => given.resolver.secret(reference).into_iter().collect(),
        (None, None) => given.secrets.clone(),
    }
}

/// The shape that a handshake's conditions ask of what stands at `location`.
pub(super) fn shape_of(spec: &HandshakeSpec, location: &Location) -> Option<Shape> {
    spec.when.iter().chain(&spec.must).find_map(|(place, test)| match test {
        ConditionSpec::Test(test) if Location::parse(place).as_ref() == Ok(location) => {
            Shape::parse(test.matches.as_ref()?).ok()
        }
        _ => None,
    })
}
