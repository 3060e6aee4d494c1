//! How signatures stand in the value that holds them: lists, `key=value` items, groups, prefixes.

use super::encoding::{Encoding, MAX_SIGNATURE};
use super::locate::Location;
use super::refusal::Refusal;
use crate::reason::Reason;

/// Signatures that are looked at in one place; more is no honest sender, only work.
pub(super) const MAX_SIGNATURES: usize = 16;

/// How signatures stand in the value that holds them.
#[derive(Clone, Debug)]
pub(super) struct SignatureForm {
    pub(super) groups: Option<Box<str>>,
    pub(super) list: Option<Box<str>>,
    pub(super) assign: Box<str>,
    /// Empty: every item is a signature.
    pub(super) items: Vec<Box<str>>,
    /// Keys of items that are signatures of another kind: only their form is checked.
    pub(super) ignored: Vec<Box<str>>,
    pub(super) skip: usize,
    pub(super) prefix: Box<str>,
    pub(super) encoding: Encoding,
}

/// Where a signed time is.
#[derive(Clone, Debug)]
pub(super) enum TimeFrom {
    At(Location),
    /// The item of this key beside the signatures.
    Item(Box<str>),
    /// The item at this position beside the signatures.
    Position(usize),
}

impl SignatureForm {
    pub(super) fn groups<'v>(&self, value: &'v [u8]) -> impl Iterator<Item = &'v [u8]> {
        split(value, self.groups.as_deref())
    }

    fn items<'v>(&self, group: &'v [u8]) -> impl Iterator<Item = &'v [u8]> {
        split(group, self.list.as_deref())
    }

    /// The texts of the signatures in `group`, still encoded.
    pub(super) fn signatures<'v>(&self, group: &'v [u8]) -> impl Iterator<Item = &'v [u8]> {
        self.items(group)
            .skip(self.skip)
            .filter_map(|item| {
                if self.items.is_empty() {
                    return Some(item);
                }
                let (key, value) = split_once(item, self.assign.as_bytes())?;
                self.items.iter().any(|name| name.as_bytes() == key).then_some(value)
            })
            .filter_map(|value| value.strip_prefix(self.prefix.as_bytes()))
            .take(MAX_SIGNATURES)
    }

    /// Whether a signature of another kind is malformed: the value has not arrived as it was sent.
    pub(super) fn is_cut(&self, group: &[u8]) -> bool {
        let mut buffer = [0; MAX_SIGNATURE];
        !self.ignored.is_empty()
            && self.items(group).filter_map(|item| split_once(item, self.assign.as_bytes())).any(
                |(key, value)| {
                    self.ignored.iter().any(|name| name.as_bytes() == key)
                        && self.encoding.decode(value, &mut buffer).is_none()
                },
            )
    }

    /// The time beside the signatures of `group`; it must not stand twice.
    pub(super) fn time<'v>(&self, from: &TimeFrom, group: &'v [u8]) -> Result<&'v [u8], Refusal> {
        let missing = |what: String| Refusal::new(Reason::SignatureMissing, format!("{what} is missing"));
        match from {
            TimeFrom::Position(at) => {
                self.items(group).nth(*at).ok_or_else(|| missing(format!("the time at position {at}")))
            }
            TimeFrom::Item(name) => {
                let mut times = self
                    .items(group)
                    .filter_map(|item| split_once(item, self.assign.as_bytes()))
                    .filter(|(key, _)| *key == name.as_bytes())
                    .map(|(_, value)| value);
                let first =
                    times.next().ok_or_else(|| missing(format!("the time `{name}{}`", self.assign)))?;
                match times.next() {
                    None => Ok(first),
                    Some(_) => Err(Refusal::ambiguous(format!("the time `{name}`"))),
                }
            }
            // A time elsewhere is found by the caller.
            TimeFrom::At(location) => Err(missing(location.to_string())),
        }
    }

    /// What a signature looks like, for messages.
    pub(super) fn expected(&self) -> String {
        let item = self.items.first().map(|name| format!("{name}{}", self.assign)).unwrap_or_default();
        format!("signature that begins with `{item}{}`", self.prefix)
    }
}

fn split<'v>(value: &'v [u8], separator: Option<&str>) -> impl Iterator<Item = &'v [u8]> {
    let separator = separator.map(str::as_bytes);
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let value = rest?;
        match separator.and_then(|separator| split_once(value, separator)) {
            Some((first, after)) => {
                rest = Some(after);
                Some(first.trim_ascii())
            }
            None => {
                rest = None;
                Some(if separator.is_some() { value.trim_ascii() } else { value })
            }
        }
    })
    .filter(move |item| separator.is_none() || !item.is_empty())
}

fn split_once<'v>(value: &'v [u8], separator: &[u8]) -> Option<(&'v [u8], &'v [u8])> {
    if let [byte] = separator {
        let at = value.iter().position(|b| b == byte)?;
        return Some((&value[..at], &value[at + 1..]));
    }
    let at = value.windows(separator.len().max(1)).position(|window| window == separator)?;
    Some((&value[..at], &value[at + separator.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form(list: Option<&str>, items: &[&str], prefix: &str) -> SignatureForm {
        SignatureForm {
            groups: None,
            list: list.map(Into::into),
            assign: "=".into(),
            items: items.iter().map(|i| (*i).into()).collect(),
            ignored: Vec::new(),
            skip: 0,
            prefix: prefix.into(),
            encoding: Encoding::Hex,
        }
    }

    fn signatures<'v>(form: &SignatureForm, value: &'v str) -> Vec<&'v str> {
        form.signatures(value.as_bytes()).map(|s| std::str::from_utf8(s).unwrap()).collect()
    }

    #[test]
    fn only_the_items_asked_for_are_signatures() {
        let stripe = form(Some(","), &["v1"], "");
        assert_eq!(signatures(&stripe, "t=1,v1=aa, v1=bb ,v0=cc,v1,=v1,v1="), ["aa", "bb", ""]);
        assert_eq!(signatures(&form(None, &[], "sha256="), "sha256=aa,bb"), ["aa,bb"]);
        assert!(signatures(&form(None, &[], "sha256="), "sha1=aa").is_empty());
        let standard = SignatureForm { assign: ",".into(), ..form(Some(" "), &["v1"], "") };
        assert_eq!(signatures(&standard, "v1,a=  v1a,b v1,c="), ["a=", "c="]);
    }

    #[test]
    fn positions_count_from_the_left() {
        let recurly = SignatureForm { skip: 1, ..form(Some(","), &[], "") };
        assert_eq!(signatures(&recurly, "17,aa,bb"), ["aa", "bb"]);
        assert_eq!(recurly.time(&TimeFrom::Position(0), b"17,aa").unwrap(), b"17");
    }

    #[test]
    fn a_time_that_stands_twice_is_ambiguous() {
        let stripe = form(Some(","), &["v1"], "");
        let time = |text: &str| stripe.time(&TimeFrom::Item("t".into()), text.as_bytes()).map(<[u8]>::to_vec);
        assert_eq!(time("t=1,v1=aa"), Ok(b"1".to_vec()));
        assert_eq!(time("t=1,t=1").unwrap_err().reason, Reason::AmbiguousRequest);
        assert_eq!(time("v1=aa").unwrap_err().reason, Reason::SignatureMissing);
    }

    #[test]
    fn no_more_signatures_than_the_limit_are_tried() {
        let many = vec!["v1=aa"; 1000].join(",");
        assert_eq!(signatures(&form(Some(","), &["v1"], ""), &many).len(), MAX_SIGNATURES);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parsing_panic(
            value in proptest::collection::vec(any::<u8>(), 0..80),
            list in prop_oneof![Just(None), Just(Some(",")), Just(Some(" ")), Just(Some(", "))],
            items in prop_oneof![Just(vec![]), Just(vec!["v1"])],
        ) {
            let form = form(list, &items, "s=");
            prop_assert!(form.signatures(&value).count() <= MAX_SIGNATURES);
            let _ = form.time(&TimeFrom::Item("t".into()), &value);
        }

        #[test]
        fn every_signature_of_a_list_is_found(hexes in proptest::collection::vec("[0-9a-f]{0,8}", 1..MAX_SIGNATURES)) {
            let header = hexes.iter().map(|h| format!("v1={h}")).collect::<Vec<_>>().join(",");
            prop_assert_eq!(signatures(&form(Some(","), &["v1"], ""), &header), hexes);
        }
    }
}
