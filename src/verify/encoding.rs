//! How bytes are written as text: hex and base64, decoded strictly into a fixed buffer before anything is compared.

use base64::Engine;
use base64::alphabet::URL_SAFE as URL_SAFE_ALPHABET;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Base64url with or without padding, but never with stray bits.
const URL_SAFE_EITHER: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE_ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The longest decoded signature: RSA with 8192 bits.
pub(super) const MAX_SIGNATURE: usize = 1024;

/// How a signature or digest is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Lower or upper case.
    Hex,
    /// Standard alphabet, canonical padding.
    Base64,
    /// URL-safe alphabet, padding optional.
    Base64Url,
}

impl Encoding {
    pub(super) const NAMES: &[&str] = &["hex", "base64", "base64url"];

    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "hex" => Some(Encoding::Hex),
            "base64" => Some(Encoding::Base64),
            "base64url" => Some(Encoding::Base64Url),
            _ => None,
        }
    }

    /// Decodes `text` into `buffer`; `None` if it is not canonical or too long.
    pub(super) fn decode<'b>(self, text: &[u8], buffer: &'b mut [u8; MAX_SIGNATURE]) -> Option<&'b [u8]> {
        let written = match self {
            Encoding::Hex => {
                let length = text.len() / 2;
                hex::decode_to_slice(text, buffer.get_mut(..length)?).ok()?;
                length
            }
            Encoding::Base64 => STANDARD.decode_slice(text, buffer).ok()?,
            Encoding::Base64Url => URL_SAFE_EITHER.decode_slice(text, buffer).ok()?,
        };
        Some(&buffer[..written])
    }

    pub(super) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Encoding::Hex => hex::encode(bytes),
            Encoding::Base64 => STANDARD.encode(bytes),
            Encoding::Base64Url => URL_SAFE_NO_PAD.encode(bytes),
        }
    }
}

/// Decodes a secret that is kept as base64, in either alphabet, with or without padding: how secrets are shown to
/// people is less strict than how signatures come over the wire.
pub(super) fn decode_base64_secret(text: &[u8]) -> Option<Vec<u8>> {
    const STANDARD_EITHER: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    STANDARD_EITHER.decode(text).or_else(|_| URL_SAFE_EITHER.decode(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(encoding: Encoding, text: &str) -> Option<Vec<u8>> {
        let mut buffer = [0; MAX_SIGNATURE];
        encoding.decode(text.as_bytes(), &mut buffer).map(<[u8]>::to_vec)
    }

    #[test]
    fn only_canonical_text_is_decoded() {
        assert_eq!(decoded(Encoding::Hex, "0aFF"), Some(vec![10, 255]));
        for bad in ["0", "0g", " 0a", "0a\n", "0x0a", "é"] {
            assert_eq!(decoded(Encoding::Hex, bad), None, "{bad:?}");
        }
        assert_eq!(decoded(Encoding::Base64, "/+8="), Some(vec![255, 239]));
        // No padding, stray bits, too much padding, the other alphabet, white space.
        for bad in ["/+8", "/+9=", "/+8==", "_-8=", "/+8=\n", " /+8=", "/+8=\u{feff}", "/"] {
            assert_eq!(decoded(Encoding::Base64, bad), None, "{bad:?}");
        }
        assert_eq!(decoded(Encoding::Base64Url, "_-8"), Some(vec![255, 239]));
        assert_eq!(decoded(Encoding::Base64Url, "_-8="), Some(vec![255, 239]));
        for bad in ["/+8", "_-9", "_-8=="] {
            assert_eq!(decoded(Encoding::Base64Url, bad), None, "{bad:?}");
        }
    }

    #[test]
    fn nothing_longer_than_the_buffer_is_decoded() {
        assert_eq!(decoded(Encoding::Hex, &"00".repeat(MAX_SIGNATURE + 1)), None);
        assert_eq!(decoded(Encoding::Base64, &"AAAA".repeat(MAX_SIGNATURE)), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64Url] {
                prop_assert_eq!(decoded(encoding, &encoding.encode(&bytes)), Some(bytes.clone()));
            }
        }

        #[test]
        fn no_text_makes_decoding_panic(text in ".{0,64}") {
            for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64Url] {
                let _ = decoded(encoding, &text);
            }
        }
    }
}
