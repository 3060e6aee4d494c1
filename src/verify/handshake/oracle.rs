//! Which texts a handshake would sign for whoever asks, with which secrets: for [`Signable`], whose rules then refuse
//! them as events. Where the secret is a tenant's it is not known yet; then the [`Oracle`] is told to the resolver, which
//! adds each secret that it may be.

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
use crate::verify::spec::{ConditionSpec, HandshakeSpec, KeySpec, ProofSpec, Rule};
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
    let Some((oracle, proof)) = Oracle::of(spec, given) else { return };
    let secrets = secrets(proof, given);
    for secret in secrets.iter().filter(|secret| !given.resolver.is_of_sender(secret)) {
        oracle.note(secret, into);
    }
    given.resolver.signs_for_strangers(oracle, secrets);
}

/// What one greeting signs for whoever asks, whatever the secret.
#[derive(Debug)]
pub struct Oracle {
    spec: HandshakeSpec,
    signed: Template,
    algorithm: Algorithm,
    key: Option<KeySpec>,
}

impl Oracle {
    /// And the proof that it makes; `None` if it makes none for strangers.
    fn of<'s>(spec: &'s HandshakeSpec, given: &Given<'_>) -> Option<(Self, &'s ProofSpec)> {
        if spec.signed != Some(false) {
            return None;
        }
        let proof = spec.answer.as_ref()?.proof.as_ref()?;
        let signed = Template::parse(&proof.signed, &|name| given.text(name)).ok()?;
        let algorithm = Algorithm::parse(&proof.algorithm)?;
        Some((Self { spec: spec.clone(), signed, algorithm, key: proof.key.clone() }, proof))
    }

    /// Adds what it signs with `secret`.
    pub fn note(&self, secret: &Secret, into: &Signable) {
        let mut ignored = Vec::new();
        let derived = derive(secret, self.key.as_ref(), &[], &mut Problems::new(&mut ignored));
        let Some(secret) = derived else { return };
        let shape = self.signed.shape(&|location| shape_of(&self.spec, location), secret.expose());
        let Some(shape) = shape else { return };
        match self.algorithm {
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
