//! Keys in certificates: the chain to a trusted root, the period of validity, names and extensions, by `webpki`.

use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Timestamp;
use crate::verify::public_key::certificate_spki;

/// Certificates of a chain that are looked at.
const MAX_CHAIN: usize = 8;

/// Where a chain must lead.
#[derive(Clone, Debug, PartialEq)]
pub enum Roots {
    /// To the public roots.
    Public,
    /// To one of these, and no other.
    Pinned(Arc<[TrustAnchor<'static>]>),
    /// Nowhere: the connection to the pinned host is what vouches for the certificate.
    Host,
}

/// What a certificate must be.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateRule {
    pub roots: Roots,
    /// DNS names of which it must be for one; empty: for any.
    pub names: Vec<String>,
}

/// What the certificates beside a token (`x5c`) must be.
#[derive(Debug)]
pub(in crate::verify) struct X5c {
    pub(in crate::verify) roots: Roots,
    /// Extensions (by their object identifiers) that the token's own certificate must have.
    pub(in crate::verify) leaf: Vec<String>,
    /// Extensions that its issuer must have.
    pub(in crate::verify) issuer: Vec<String>,
}

/// The key of a certificate and when it is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) spki: Vec<u8>,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

impl Roots {
    /// Reads roots in PEM.
    pub fn pinned(pem: &str) -> Result<Self, String> {
        let mut anchors = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| format!("not a certificate in PEM: {error}"))?;
            let anchor = webpki::anchor_from_trusted_cert(&certificate)
                .map_err(|error| format!("can't be used as a root certificate: {error}"))?;
            anchors.push(anchor.to_owned());
        }
        if anchors.is_empty() {
            Err("holds no certificate in PEM".to_owned())
        } else {
            Ok(Self::Pinned(anchors.into()))
        }
    }
}

impl CertificateRule {
    /// The key of the first certificate of a PEM text, whose chain is checked at `now`.
    pub(super) fn read(&self, pem: &str, now: Timestamp) -> Result<Leaf, String> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .take(MAX_CHAIN + 1)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("not certificates in PEM: {error}"))?;
        let leaf = checked(&chain, &self.roots, now)?;
        if !self.names.is_empty() {
            let Some(first) = chain.first() else { return Err("there is no certificate".to_owned()) };
            let certificate = EndEntityCert::try_from(first).map_err(unreadable)?;
            let is_for = |name: &String| {
                ServerName::try_from(name.as_str())
                    .is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
            };
            if !self.names.iter().any(is_for) {
                return Err(format!("the certificate is not for {}", self.names.join(" or ")));
            }
        }
        Ok(leaf)
    }
}

/// The public key (SPKI) of a token's own certificate, if its chain holds at `now`.
pub(in crate::verify) fn x5c_key(rule: &X5c, chain: &[Vec<u8>], now: Timestamp) -> Result<Vec<u8>, String> {
    let chain: Vec<CertificateDer<'_>> =
        chain.iter().take(MAX_CHAIN + 1).map(|der| CertificateDer::from(der.as_slice())).collect();
    for (at, wanted) in [(0, &rule.leaf), (1, &rule.issuer)] {
        if wanted.is_empty() {
            continue;
        }
        let der = chain.get(at).ok_or("the chain is too short")?;
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| "a certificate can't be read")?;
        let has =
            |oid: &String| parsed.extensions().iter().any(|extension| extension.oid.to_id_string() == *oid);
        if let Some(lacks) = wanted.iter().find(|oid| !has(oid)) {
            return Err(format!("certificate {at} of the chain lacks the extension {lacks}"));
        }
    }
    // The issuer whose extensions were looked at must be the one that signed, not just one that is there too.
    if !rule.issuer.is_empty() {
        let issued = chain.get(..2).ok_or("the chain is too short")?;
        let issuer = webpki::anchor_from_trusted_cert(&issued[1]).map_err(unreadable)?;
        verify_path(&issued[0], &[], &[issuer], now)?;
    }
    checked(&chain, &rule.roots, now).map(|leaf| leaf.spki)
}

fn checked(chain: &[CertificateDer<'_>], roots: &Roots, now: Timestamp) -> Result<Leaf, String> {
    let Some((first, rest)) = chain.split_first() else { return Err("there is no certificate".to_owned()) };
    if rest.len() >= MAX_CHAIN {
        return Err(format!("the chain has more than {MAX_CHAIN} certificates"));
    }
    let (_, parsed) = X509Certificate::from_der(first).map_err(|_| "the certificate can't be read")?;
    let second =
        |time: x509_parser::time::ASN1Time| Timestamp::from_secs(time.timestamp().try_into().unwrap_or(0));
    let validity = parsed.validity();
    let (from, to) = (second(validity.not_before), second(validity.not_after));
    if now < from {
        return Err(format!("the certificate is not valid before {from}"));
    }
    if now > to {
        return Err(format!("the certificate expired at {to}"));
    }
    match roots {
        Roots::Host => {}
        Roots::Public => verify_path(first, rest, webpki_roots::TLS_SERVER_ROOTS, now)?,
        Roots::Pinned(anchors) => verify_path(first, rest, anchors, now)?,
    }
    let spki = certificate_spki(first).ok_or("the certificate's key can't be read")?.to_vec();
    Ok(Leaf { spki, from, to })
}

fn verify_path(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &[TrustAnchor<'_>],
    now: Timestamp,
) -> Result<(), String> {
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.as_secs()));
    EndEntityCert::try_from(leaf)
        .map_err(unreadable)?
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            anchors,
            intermediates,
            time,
            KeyUsage::server_auth(),
            None,
            None,
        )
        .map(|_| ())
        .map_err(|error| format!("the certificate's chain leads to no trusted root: {error}"))
}

fn unreadable(error: webpki::Error) -> String {
    format!("a certificate can't be read: {error}")
}
