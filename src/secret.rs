//! Secrets in memory, and the one way to compare what must not be guessed. Where secrets come from (`env:`, `file:`) is
//! `config`'s.

use std::sync::Arc;

use ring::rand::SecureRandom;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Whether two byte strings are the same, in a time that does not tell where they differ: for MACs, digests and whatever
/// else of ours a sender must not find out byte by byte. Their lengths may show; where those are secret too, as of tokens,
/// use [`Secret::is`].
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// A secret's bytes: zeroed on drop, never printed, and compared in one way only: [`Secret::is`], which `==` is, too.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
    /// Whether it is nothing but white space, which is a mistake.
    pub fn is_blank(&self) -> bool {
        self.expose().trim_ascii().is_empty()
    }
    /// Whether `given` is this secret. Compared by their digests, so that not even the length shows in the time it takes.
    #[must_use]
    pub fn is(&self, given: &[u8]) -> bool {
        same(&Sha256::digest(self.expose()), &Sha256::digest(given))
    }
}
/// For settings that hold secrets, which are compared when a config is loaded again.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.expose())
    }
}
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub struct NoRandomness;

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, NoRandomness> {
    let mut bytes = Zeroizing::new([0; N]);
    ring::rand::SystemRandom::new().fill(&mut *bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// A new secret of 256 random bits as 64 hex digits: text, hex and base64 alike, so that it fits every scheme.
pub fn random_text() -> Result<Secret, NoRandomness> {
    Ok(Secret::new(hex::encode(*random::<32>()?).into_bytes()))
}

/// Takes the line end off that editors put behind a secret in a file.
pub fn trim_line_end(bytes: &mut Vec<u8>) {
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_bytes_are_the_secret() {
        let secret = Secret::new(b"abc".to_vec());
        assert!(secret.is(b"abc"));
        for other in [&b"abd"[..], b"ab", b"abcd", b""] {
            assert!(!secret.is(other));
        }
        assert!(same(b"", b"") && !same(b"a", b"b") && !same(b"a", b""));
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    /// Nobody compares in a way of their own.
    #[test]
    fn secrets_are_compared_here_and_nowhere_else() {
        let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs")
                    && !path.ends_with("src/secret.rs")
                {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let own = [
                        "subtle",
                        "ct_eq",
                        "constant_time_eq",
                        "verify_slice",
                        "verify_slices_are_equal",
                        "verify_truncated_left",
                    ];
                    let compares = |line: &&str| {
                        own.iter().any(|word| {
                            line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == *word)
                        }) || [".expose() ==", ".expose() !=", "Map<Secret,", "Set<Secret>"]
                            .iter()
                            .any(|way| line.contains(way))
                            || ["== ", "!= "].iter().any(|way| line.contains(way))
                                && line.contains(".expose()")
                                && !line.contains(".expose().")
                    };
                    found.extend(
                        text.lines().filter(compares).map(|line| format!("{}: {line}", path.display())),
                    );
                }
            }
        }
        assert!(found.is_empty(), "use `secret::same` or `Secret::is`:\n{}", found.join("\n"));
    }
}
