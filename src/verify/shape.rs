//! Bounded shapes of values, such as `[a-f0-9]{20,32}`: characters and classes, each a bounded number of times. No
//! `*`, `+` or alternatives: what is echoed or signed for a stranger has a length and an alphabet that one can see.

/// A parsed shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::verify) struct Shape(Box<[Item]>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    class: Class,
    least: usize,
    most: usize,
}

/// Which bytes belong to it, bit by bit: those of ASCII, then the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Class([u128; 2]);

/// Values that are looked at are never longer.
const MAX_LENGTH: usize = 1024;
const MAX_ITEMS: usize = 32;

impl Class {
    fn with(mut self, byte: u8) -> Self {
        self.0[usize::from(byte >> 7)] |= 1 << (byte & 127);
        self
    }
    pub(super) fn has(self, byte: u8) -> bool {
        self.0[usize::from(byte >> 7)] & (1 << (byte & 127)) != 0
    }
    /// These bytes.
    pub(super) fn of(bytes: impl IntoIterator<Item = u8>) -> Self {
        bytes.into_iter().fold(Self::default(), Self::with)
    }
    /// Every byte.
    pub(super) const fn all() -> Self {
        Self([u128::MAX; 2])
    }
    fn and(self, other: Self) -> Self {
        Self([self.0[0] | other.0[0], self.0[1] | other.0[1]])
    }
}

impl Shape {
    /// The error says what would be right.
    pub(in crate::verify) fn parse(text: &str) -> Result<Self, String> {
        if !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err("a shape is written in printable ASCII".to_owned());
        }
        let mut items = Vec::new();
        let mut rest = text.as_bytes();
        while let [first, tail @ ..] = rest {
            let (class, after) = match first {
                b'[' => class(tail)?,
                b'\\' => match tail {
                    [escaped, after @ ..] if !escaped.is_ascii_alphanumeric() => {
                        (Class::default().with(*escaped), after)
                    }
                    _ => {
                        return Err(
                            "`\\` stands before a character that would mean something else".to_owned()
                        );
                    }
                },
                b'*' | b'+' => {
                    return Err("`*` and `+` have no bound: say how many with `{m,n}`".to_owned());
                }
                b'.' | b'(' | b')' | b'|' | b'^' | b'$' | b'{' | b'}' | b']' | b'?' => {
                    let sign = char::from(*first);
                    return Err(format!(
                        "`{sign}` means nothing here: a shape is made of characters and classes such as `[a-z0-9]{{1,64}}`; write `\\{sign}` for the character"
                    ));
                }
                literal => (Class::default().with(*literal), tail),
            };
            let (least, most, after) = count(after)?;
            items.push(Item { class, least, most });
            rest = after;
        }
        let longest = items.iter().fold(0usize, |sum, item| sum.saturating_add(item.most));
        if items.is_empty() || items.len() > MAX_ITEMS || longest > MAX_LENGTH {
            return Err(format!("a shape has 1 to {MAX_ITEMS} parts and at most {MAX_LENGTH} characters"));
        }
        Ok(Self(items.into()))
    }

    /// Exactly `text`.
    pub(super) fn literal(text: &[u8]) -> Self {
        let item = |byte: &u8| Item { class: Class::default().with(*byte), least: 1, most: 1 };
        Self(text.iter().map(item).collect())
    }

    /// This many bytes of a class.
    pub(super) fn run(class: Class, least: usize, most: usize) -> Self {
        Self([Item { class, least, most }].into())
    }

    /// One after the other.
    pub(super) fn joined<'s>(shapes: impl IntoIterator<Item = &'s Shape>) -> Self {
        Self(shapes.into_iter().flat_map(|shape| shape.0.iter().cloned()).collect())
    }

    /// The length of the longest text that has it.
    pub(super) fn longest(&self) -> usize {
        self.0.iter().fold(0, |sum, item| sum.saturating_add(item.most))
    }

    /// Whether all texts that have it are of one length.
    pub(super) fn is_of_fixed_length(&self) -> bool {
        self.0.iter().all(|item| item.least == item.most)
    }

    /// The bytes that can stand in a text that has it.
    pub(super) fn class(&self) -> Class {
        self.0.iter().fold(Class::default(), |all, item| all.and(item.class))
    }

    /// Whether `byte` can stand in a text that has it.
    pub(super) fn may_hold(&self, byte: u8) -> bool {
        self.class().has(byte)
    }

    /// Whether all of `text` has the shape. Linear in its length.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        if text.len() > self.longest() {
            return false;
        }
        // Which prefixes of `text` the items so far can be.
        let mut reached = vec![false; text.len() + 1];
        reached[0] = true;
        for item in &self.0 {
            let mut next = vec![false; text.len() + 1];
            // The run of the class that ends before `end` begins at `run`. Within it, `end` is reached from any place
            // that is `least` to `most` before it; `last` is the latest such place that is near enough at its left.
            let mut run = 0;
            let mut last = None;
            for end in 0..=text.len() {
                if end > 0 && !item.class.has(text[end - 1]) {
                    run = end;
                }
                if let Some(start) = end.checked_sub(item.least)
                    && reached[start]
                {
                    last = Some(start);
                }
                next[end] = last.is_some_and(|start| start >= run && end - start <= item.most);
            }
            reached = next;
        }
        reached[text.len()]
    }
}

/// What stands in `[…]`, and what follows it.
fn class(text: &[u8]) -> Result<(Class, &[u8]), String> {
    let mut class = Class::default();
    let mut rest = text;
    loop {
        match rest {
            [] => return Err("`[` is not closed".to_owned()),
            [b']', after @ ..] if class != Class::default() => return Ok((class, after)),
            [b'^', ..] if class == Class::default() => {
                return Err("a class says what is allowed, not what is not".to_owned());
            }
            [from, b'-', to, after @ ..] if *to != b']' => {
                if from > to {
                    return Err("a range of a class goes from the lower to the higher character".to_owned());
                }
                class = (*from..=*to).fold(class, Class::with);
                rest = after;
            }
            [one, after @ ..] => {
                class = class.with(*one);
                rest = after;
            }
        }
    }
}

/// How often an item stands, and what follows.
fn count(text: &[u8]) -> Result<(usize, usize, &[u8]), String> {
    match text {
        [b'?', after @ ..] => Ok((0, 1, after)),
        [b'{', after @ ..] => {
            let wrong = || "how often is written `{n}` or `{m,n}`".to_owned();
            let end = after.iter().position(|b| *b == b'}').ok_or_else(wrong)?;
            let inside = std::str::from_utf8(&after[..end]).map_err(|_| wrong())?;
            let number = |text: &str| text.parse::<usize>().map_err(|_| wrong());
            let (least, most) = match inside.split_once(',') {
                Some((least, most)) => (number(least)?, number(most)?),
                None => (number(inside)?, number(inside)?),
            };
            if least > most || most == 0 {
                return Err(wrong());
            }
            Ok((least, most, &after[end + 1..]))
        }
        after => Ok((1, 1, after)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_of_a_value_has_the_shape() {
        for (shape, text, right) in [
            ("[a-f0-9]{20,32}", "20f0d2d1a7c6e4b5a4f3", true),
            ("[a-f0-9]{20,32}", "20f0d2d1a7c6e4b5a4f", false),
            ("[a-f0-9]{3,4}", "abcde", false),
            ("[a-f0-9]{3,4}", "abG", false),
            ("a?a?aa", "aaa", true),
            ("a?a?aa", "a", false),
            ("[a-c]{1,3}[b-d]{2}x", "abcdx", true),
            ("[a-c]{1,3}[b-d]{2}x", "aaaadx", false),
            ("[-_]x", "-x", true),
            ("[a-]x", "-x", true),
            ("\\{[0-9]{1,2}\\}", "{12}", true),
            ("webhook_id=[0-9]{1,20}", "webhook_id=42", true),
            ("webhook_id=[0-9]{1,20}", "webhook_id=42&x=1", false),
            ("a", "\u{e9}", false),
        ] {
            assert_eq!(Shape::parse(shape).unwrap().matches(text.as_bytes()), right, "{shape} {text}");
        }
    }

    #[test]
    fn what_has_no_bound_or_no_meaning_is_refused() {
        for (shape, expected) in [
            ("a*", "no bound"),
            ("[a-z]+", "no bound"),
            ("", "1 to 32 parts"),
            ("[a-z]{2000}", "at most 1024"),
            ("[z-a]", "lower to the higher"),
            ("[^a]", "what is allowed"),
            ("[a", "not closed"),
            ("a{2", "`{n}`"),
            ("a{3,2}", "`{n}`"),
            ("(a|b)", "means nothing"),
            ("\\d", "stands before"),
            ("é", "printable ASCII"),
        ] {
            let error = Shape::parse(shape).unwrap_err();
            assert!(error.contains(expected), "{shape}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(shape in "[\\[\\]a-c{},?\\\\0-9-]{0,20}", text in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(shape) = Shape::parse(&shape) {
                let _ = shape.matches(&text);
            }
        }

        /// Against the plain definition: some split of the text fits.
        #[test]
        fn it_matches_exactly_what_some_split_of_the_text_fits(
            items in proptest::collection::vec((0usize..3, 0usize..3, 0usize..3), 1..4), text in "[abc]{0,7}"
        ) {
            let classes = ["[ab]", "[b]", "[bc]"];
            let items: Vec<_> = items.into_iter().map(|(class, least, more)| (class, least, (least + more).max(1))).collect();
            let written: String = items.iter().map(|(class, least, most)| format!("{}{{{least},{most}}}", classes[*class])).collect();
            fn fits(items: &[(usize, usize, usize)], classes: &[&str; 3], text: &str) -> bool {
                let Some(((class, least, most), rest)) = items.split_first() else { return text.is_empty() };
                (*least..=*most).any(|n| n <= text.len()
                    && text[..n].chars().all(|c| classes[*class].contains(c))
                    && fits(rest, classes, &text[n..]))
            }
            prop_assert_eq!(Shape::parse(&written).unwrap().matches(text.as_bytes()), fits(&items, &classes, &text));
        }
    }
}
