//! Listeners: addresses, certificates, who may connect.

use std::net::SocketAddr;

use super::{Checker, Placed, Whose};
use crate::config::model::{CertificateFiles, Listener, Tls, TlsVersion};
use crate::config::place::Place;
use crate::config::raw;
use crate::config::source::doubled;

impl Checker<'_, '_> {
    pub(super) fn listeners(&mut self, raw: &[Placed<raw::Listener>]) -> Vec<Listener> {
        let checked: Vec<(&Placed<raw::Listener>, Listener)> =
            raw.iter().filter_map(|listener| Some((listener, self.listener(listener)?))).collect();
        // Port 0 is "any free port", which two listeners may ask for.
        let fixed = checked.iter().filter(|(_, l)| l.address.port() != 0);
        for (address, first, second) in doubled(fixed.map(|(raw, l)| (l.address, *raw))) {
            let message = format!("{address} is taken by {} already", first.place);
            self.error(
                &second.place.key("address"),
                message,
                "give each listener an address or port of its own",
            );
        }
        checked.into_iter().map(|(_, listener)| listener).collect()
    }

    fn listener(&mut self, raw: &Placed<raw::Listener>) -> Option<Listener> {
        let Placed { place, value: raw } = raw;
        let address = raw.address.parse::<SocketAddr>();
        let tls = raw.tls.as_ref().map(|tls| self.tls(tls, &place.key("tls")));
        let allow = match &raw.allow {
            Some(texts) => self.allow(texts, &place.key("allow"), Whose::AllRoutes),
            None => Default::default(),
        };
        let trusted_hops = self.ranges(&raw.trusted_hops, &place.key("trusted_hops"));
        if let Some(index) = raw.trusted_hops.iter().position(|range| range.ends_with("/0")) {
            let message = "whoever connects is believed to be a proxy, and may claim any address";
            let help = "name the proxies alone: allowlists and limits go by the address that they tell";
            self.warning(&place.key("trusted_hops").index(index), message, help);
        }
        let Ok(address) = address else {
            let help = match raw.address.strip_prefix(':') {
                Some(port) => format!("write `0.0.0.0:{port}` for every address"),
                None => "write an IP address and a port, such as `0.0.0.0:8443` or `[::]:8443`".to_owned(),
            };
            self.error(
                &place.key("address"),
                format!("`{}` is not an address with a port", raw.address),
                help,
            );
            return None;
        };
        if raw.tls.is_none() && !address.ip().is_loopback() {
            let help = "give it `tls: { cert: …, key: … }`, or let only a proxy that ends TLS reach it";
            self.warning(&place.key("address"), "this listener speaks plain HTTP to other machines", help);
        }
        Some(Listener { address, tls: tls.flatten(), allow, trusted_hops })
    }

    fn tls(&mut self, raw: &raw::Tls, place: &Place) -> Option<Tls> {
        const HELP: &str = "write `cert` and `key`, or `certificates: [{ cert: …, key: … }, …]`";
        let written = match (&raw.cert, &raw.key, &raw.certificates) {
            (Some(cert), Some(key), None) => vec![raw::Certificate { cert: cert.clone(), key: key.clone() }],
            (None, None, Some(certificates)) => certificates.clone(),
            (None, None, None) => {
                self.error(place, "no certificate is given", HELP);
                return None;
            }
            (_, _, Some(_)) => {
                self.error(&place.key("certificates"), "`cert` and `key` stand beside `certificates`", HELP);
                return None;
            }
            (Some(_), None, None) => {
                self.error(
                    &place.key("key"),
                    "the key `key` is missing",
                    "add `key:` with the private key's file",
                );
                return None;
            }
            (None, Some(_), None) => {
                self.error(
                    &place.key("cert"),
                    "the key `cert` is missing",
                    "add `cert:` with the chain's file",
                );
                return None;
            }
        };
        let certificates = written.iter().map(|c| self.certificate(c)).collect();
        let min_version = match raw.min_version {
            raw::MinVersion::Tls12 => TlsVersion::Tls12,
            raw::MinVersion::Tls13 => TlsVersion::Tls13,
        };
        let tls = Tls { certificates, min_version, generate: raw.generate };
        if let Err(problem) = self.references.outside.certificates(&tls) {
            let help = "PEM files are wanted: the chain, leaf first, and its private key; paths start from the config's \
                        folder";
            self.error(place, problem, help);
        }
        Some(tls)
    }

    pub(super) fn certificate(&self, raw: &raw::Certificate) -> CertificateFiles {
        CertificateFiles { cert: self.references.path(&raw.cert), key: self.references.path(&raw.key) }
    }
}
