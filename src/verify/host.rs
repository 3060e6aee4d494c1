//! Patterns of hosts that a message may name: for addresses of keys, and for URLs that are visited.
//!
//! Pinning a host is only worth what its loosest label is: at a cloud anybody can get a label of his own
//! (`sns.s3.amazonaws.com` is whoever made the bucket `sns`), so a label may have a shape.

use std::fmt;
use std::net::Ipv6Addr;

use super::shape::Shape;

/// A host of which some labels may vary: `*` is any label, and what has a class in it (`[a-z]{2}-[a-z]{4,9}-[0-9]`) a
/// label of that shape. The last two labels are always written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::verify) struct HostPattern {
    text: Box<str>,
    labels: Box<[Label]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Label {
    /// In lower case.
    Exactly(Box<str>),
    Any,
    Shaped(Shape),
}

impl HostPattern {
    /// The error says what would be right.
    pub(in crate::verify) fn parse(text: &str) -> Result<Self, String> {
        let labels = match ipv6(text) {
            true => vec![Label::Exactly(text.to_ascii_lowercase().into())],
            false => text.split('.').map(|label| Label::parse(text, label)).collect::<Result<_, _>>()?,
        };
        // A variable label that could be the registered domain itself would let anyone be the host.
        let fixed = labels.iter().rev().take_while(|label| matches!(label, Label::Exactly(_))).count();
        if fixed < labels.len() && fixed < 2 {
            return Err(no_host(text));
        }
        Ok(Self { text: text.into(), labels: labels.into() })
    }

    /// Whether `host` is one of those meant. Nothing in it is normalised: a host in capitals, with a closing dot, with a
    /// port or with anything but letters, digits and `-` where the pattern varies is not.
    pub(in crate::verify) fn matches(&self, host: &str) -> bool {
        if ipv6(host) {
            return matches!(&*self.labels, [Label::Exactly(ours)] if **ours == *host);
        }
        let mut labels = host.split('.');
        self.labels.iter().all(|ours| labels.next().is_some_and(|theirs| ours.matches(theirs)))
            && labels.next().is_none()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Label {
    fn parse(host: &str, label: &str) -> Result<Self, String> {
        match label {
            "*" => Ok(Label::Any),
            shape if shape.contains('[') => match Shape::parse(shape) {
                Ok(shape) => Ok(Label::Shaped(shape)),
                Err(why) => Err(format!("the label `{label}` of `{host}`: {why}")),
            },
            exact if !exact.is_empty() && exact.bytes().all(in_label) => {
                Ok(Label::Exactly(exact.to_ascii_lowercase().into()))
            }
            _ => Err(no_host(host)),
        }
    }

    fn matches(&self, label: &str) -> bool {
        let plain = || !label.is_empty() && label.bytes().all(|b| in_label(b) && !b.is_ascii_uppercase());
        match self {
            Label::Exactly(ours) => **ours == *label,
            Label::Any => plain(),
            Label::Shaped(shape) => plain() && shape.matches(label.as_bytes()),
        }
    }
}

fn no_host(text: &str) -> String {
    format!(
        "`{text}` is no host such as `keys.*.example.com` or `keys.[a-z]{{2}}-[0-9].example.com`, whose last two labels \
         are written out: a `*` stands for a whole label, a shape with a class for one of that shape"
    )
}

/// Whether this is an address in brackets.
fn ipv6(host: &str) -> bool {
    let inside = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inside.is_some_and(|inside| inside.parse::<Ipv6Addr>().is_ok())
}

fn in_label(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REGION: &str = "sns.[a-z]{2}-[a-z-]{4,20}-[0-9]{1,2}.amazonaws.com";

    #[test]
    fn a_label_with_a_shape_is_a_region_and_nothing_that_anybody_can_get() {
        let pattern = HostPattern::parse(REGION).unwrap();
        for region in [
            "us-east-1",
            "ap-southeast-2",
            "us-gov-west-1",
            "us-isob-east-1",
            "eusc-de-east-1",
            "me-central-1",
            "af-south-1",
            "mx-central-1",
        ] {
            let right = region != "eusc-de-east-1"; // which has a domain of its own, too
            assert_eq!(pattern.matches(&format!("sns.{region}.amazonaws.com")), right, "{region}");
        }
        for bad in [
            "s3",
            "s3-us-west-2",
            "s3-website-us-east-1",
            "s3-accelerate",
            "s3-external-1",
            "s3-fips-us-gov-west-1",
            "evil",
            "us-east",
            "us-east-1a",
            "US-EAST-1",
            "us-east-1.s3",
            "us-east-1%2e",
            "us-\u{e9}ast-1",
            "us-east-1:443",
            "us-east-1@x",
            "",
        ] {
            assert!(!pattern.matches(&format!("sns.{bad}.amazonaws.com")), "{bad}");
        }
        for bad in
            ["sns.us-east-1.amazonaws.com.", "sns.us-east-1.amazonaws.com.cn", "us-east-1.amazonaws.com"]
        {
            assert!(!pattern.matches(bad), "{bad}");
        }
    }

    #[test]
    fn addresses_and_plain_hosts_are_matched_as_they_are() {
        for host in ["127.0.0.1", "[::1]", "keys.example.com"] {
            let pattern = HostPattern::parse(host).unwrap();
            assert!(pattern.matches(host), "{host}");
            for bad in ["127.0.0.2", "[::2]", "::1", "keys.example.com.", "x.keys.example.com", ""] {
                assert!(!pattern.matches(bad), "{host} {bad}");
            }
        }
    }

    #[test]
    fn patterns_that_pin_nothing_are_refused() {
        for bad in [
            "*",
            "*.com",
            "keys.*",
            "ke*s.a.example",
            "[a-z]{3}.com",
            "keys.[a-z]{3}",
            "a.[a-z]{0,3}.com",
            "",
            "a..example.com",
            "keys.example.com.",
            "u@keys.example",
            "keys.\u{e9}xample.com",
            "a.[a-z.]{3}.example.com",
            "a.[a-z]*.example.com",
            "[::1",
        ] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_leaves_the_domain(label in "\\PC{0,30}", pattern in "\\PC{0,30}") {
            let _ = HostPattern::parse(&pattern);
            let any = HostPattern::parse("k.*.example.com").unwrap();
            let host = format!("k.{label}.example.com");
            let plain = !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            prop_assert_eq!(any.matches(&host), plain);
        }
    }
}
