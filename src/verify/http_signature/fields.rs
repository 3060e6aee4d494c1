//! The structured fields (RFC 8941) of `Signature-Input`, `Signature` and `Content-Digest`, as far as these use them.
//! Strict: what is not well-formed is no field. What was signed is kept as it is written.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// One signature's description: `("@method" "date");created=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input<'t> {
    pub(super) label: &'t str,
    /// The whole value, which is signed too.
    pub(super) raw: &'t str,
    pub(super) components: Vec<Component<'t>>,
    pub(super) created: Option<u64>,
    pub(super) expires: Option<u64>,
    pub(super) key_id: Option<String>,
    pub(super) algorithm: Option<String>,
    pub(super) tag: Option<String>,
}

/// A covered component: `"@query-param";name="id"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Component<'t> {
    pub(super) raw: &'t str,
    pub(super) name: String,
    pub(super) params: Vec<(&'t str, Bare<'t>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bare<'t> {
    Text(String),
    Integer(u64),
    Bytes(Vec<u8>),
    Token(&'t str),
    True,
    False,
}

/// Signatures and components that are looked at; more is no honest sender.
const MAX_MEMBERS: usize = 8;
const MAX_COMPONENTS: usize = 64;

/// The members of a `Signature-Input`; `None` if it is not well-formed or names a label twice.
pub(super) fn inputs(text: &str) -> Option<Vec<Input<'_>>> {
    members(text, |cursor, label| {
        let from = cursor.at;
        let components = cursor.inner_list()?;
        let params = cursor.params()?;
        let raw = &cursor.text[from..cursor.at];
        let mut input = Input {
            label,
            raw,
            components,
            created: None,
            expires: None,
            key_id: None,
            algorithm: None,
            tag: None,
        };
        for (name, value) in params {
            match (name, value) {
                ("created", Bare::Integer(time)) => input.created = Some(time),
                ("expires", Bare::Integer(time)) => input.expires = Some(time),
                ("keyid", Bare::Text(text)) => input.key_id = Some(text),
                ("alg", Bare::Text(text)) => input.algorithm = Some(text),
                ("tag", Bare::Text(text)) => input.tag = Some(text),
                // Of the wrong kind: whoever reads it otherwise must not be told that it is right.
                ("created" | "expires" | "keyid" | "alg" | "tag", _) => return None,
                _ => {}
            }
        }
        Some(input)
    })
}

/// The members of a dictionary of byte sequences.
pub(super) fn byte_sequences(text: &str) -> Option<Vec<(&str, Vec<u8>)>> {
    members(text, |cursor, label| {
        let value = cursor.bare()?;
        cursor.params()?;
        match value {
            Bare::Bytes(bytes) => Some((label, bytes)),
            _ => None,
        }
    })
}

fn members<'t, T>(
    text: &'t str,
    mut value: impl FnMut(&mut Cursor<'t>, &'t str) -> Option<T>,
) -> Option<Vec<T>> {
    let mut cursor = Cursor { text, at: 0 };
    let (mut labels, mut members) = (Vec::new(), Vec::new());
    cursor.blanks();
    loop {
        let label = cursor.key()?;
        if !cursor.take('=') || labels.contains(&label) || members.len() == MAX_MEMBERS {
            return None;
        }
        labels.push(label);
        members.push(value(&mut cursor, label)?);
        cursor.blanks();
        if cursor.rest().is_empty() {
            return Some(members);
        }
        if !cursor.take(',') {
            return None;
        }
        cursor.blanks();
    }
}

struct Cursor<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Cursor<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn take(&mut self, wanted: char) -> bool {
        let there = self.rest().starts_with(wanted);
        if there {
            self.at += wanted.len_utf8();
        }
        there
    }

    /// The longest run of such (ASCII) bytes.
    fn run(&mut self, of: impl Fn(u8) -> bool) -> &'t str {
        let rest = self.rest();
        let length = rest.bytes().position(|b| !(b.is_ascii() && of(b))).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn blanks(&mut self) {
        self.run(|b| b == b' ' || b == b'\t');
    }

    fn key(&mut self) -> Option<&'t str> {
        let first = *self.rest().as_bytes().first()?;
        if !(first.is_ascii_lowercase() || first == b'*') {
            return None;
        }
        Some(self.run(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b)))
    }

    fn inner_list(&mut self) -> Option<Vec<Component<'t>>> {
        if !self.take('(') {
            return None;
        }
        let mut components: Vec<Component<'t>> = Vec::new();
        loop {
            self.run(|b| b == b' ');
            if self.take(')') {
                return Some(components);
            }
            let from = self.at;
            let Bare::Text(name) = self.bare()? else { return None };
            let params = self.params()?;
            let raw = &self.text[from..self.at];
            let ends = self.rest().starts_with([' ', ')']);
            if !ends || components.len() == MAX_COMPONENTS || components.iter().any(|one| one.raw == raw) {
                return None;
            }
            components.push(Component { raw, name, params });
        }
    }

    fn params(&mut self) -> Option<Vec<(&'t str, Bare<'t>)>> {
        let mut params: Vec<(&'t str, Bare<'t>)> = Vec::new();
        while self.take(';') {
            self.run(|b| b == b' ');
            let name = self.key()?;
            let value = if self.take('=') { self.bare()? } else { Bare::True };
            if params.iter().any(|(known, _)| *known == name) {
                return None;
            }
            params.push((name, value));
        }
        Some(params)
    }

    fn bare(&mut self) -> Option<Bare<'t>> {
        match self.rest().as_bytes().first()? {
            b'"' => self.string().map(Bare::Text),
            b':' => {
                self.at += 1;
                let text = self.run(|b| b != b':');
                let bytes = STANDARD.decode(text).ok()?;
                self.take(':').then_some(Bare::Bytes(bytes))
            }
            b'?' => {
                self.at += 1;
                if self.take('1') { Some(Bare::True) } else { self.take('0').then_some(Bare::False) }
            }
            b'0'..=b'9' => {
                let digits = self.run(|b| b.is_ascii_digit());
                if digits.len() > 15 || self.rest().starts_with('.') {
                    None
                } else {
                    digits.parse().ok().map(Bare::Integer)
                }
            }
            first if first.is_ascii_alphabetic() || *first == b'*' => Some(Bare::Token(
                self.run(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b)),
            )),
            _ => None,
        }
    }

    fn string(&mut self) -> Option<String> {
        self.at += 1;
        let mut text = String::new();
        loop {
            text.push_str(self.run(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\'));
            if self.take('"') {
                return Some(text);
            }
            if !self.take('\\') {
                return None;
            }
            let escaped = self.rest().chars().next().filter(|c| matches!(c, '"' | '\\'))?;
            self.at += 1;
            text.push(escaped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn inputs_are_read_and_kept_as_written() {
        let text = r#"a=("@method" "@query-param";name="x\"y" "date");created=5;keyid="k";alg="ed25519", b=();nonce="n""#;
        let found = inputs(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].components[1].params, [("name", Bare::Text("x\"y".to_owned()))]);
        assert_eq!(found[0].raw, text[2..].split(", b=").next().unwrap());
        assert_eq!((found[0].created, found[0].key_id.as_deref()), (Some(5), Some("k")));
        assert_eq!((found[1].label, found[1].raw), ("b", r#"();nonce="n""#));
    }

    #[test]
    fn what_is_not_well_formed_or_twice_is_no_field() {
        for bad in [
            "",
            "a",
            "a=",
            r#"a=("x""#,
            r#"a=("x""y")"#,
            r#"a=("x" "x")"#,
            r#"a=(x)"#,
            r#"a=("x");created="5""#,
            r#"a=("x");created=5;created=6"#,
            r#"a=("x"), a=("y")"#,
            r#"a=("x") b=("y")"#,
            r#"a=("x"),"#,
            r#"A=("x")"#,
            r#"a=("é")"#,
            r#"a=("x\n")"#,
        ] {
            assert_eq!(inputs(bad), None, "{bad}");
        }
        assert_eq!(byte_sequences("a=:aGk=:, b=:AA==:").unwrap()[0], ("a", b"hi".to_vec()));
        for bad in ["a=aGk=", "a=:aGk:", "a=:aGk=", "a=:aGk=:, a=:aGk=:", "a=1"] {
            assert_eq!(byte_sequences(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z0-9=();:,?*\"\\\\ é]{0,60}", any in "\\PC{0,40}") {
            for text in [text, any] {
                let _ = (inputs(&text), byte_sequences(&text));
            }
        }
    }
}
