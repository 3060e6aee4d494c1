//! Fields of `multipart/form-data` bodies (RFC 7578), found one by one without a copy.
//!
//! Who checks a signature here and the app behind must read the same fields, so only the one form that all readers
//! agree on is read: lines end with CRLF, nothing stands before the first boundary or behind the last, no header is
//! folded, no name is escaped. Whatever else comes, and a field that is there twice, is [`Ambiguous`], which is as good
//! as missing. A part with a file name is a file and no field, whatever it is called.

use memchr::memmem;

use super::locate::Ambiguous;

/// Parts of one body, and bytes of one part's headers. Senders of forms have far fewer.
const MAX_PARTS: usize = 1000;
const MAX_HEADERS: usize = 8 << 10;

/// A name and its value.
type Pair<'b> = (&'b [u8], &'b [u8]);

/// The boundary that a `Content-Type` names; `Ok(None)` if it is of another type.
pub(super) fn boundary(content_type: &[u8]) -> Result<Option<&[u8]>, Ambiguous> {
    let (kind, params) = split(content_type, b';');
    if !kind.trim_ascii().eq_ignore_ascii_case(b"multipart/form-data") {
        return Ok(None);
    }
    let mut found = None;
    let mut params = Params(params);
    while let Some((name, value)) = params.next()? {
        if name.eq_ignore_ascii_case(b"boundary") && found.replace(value).is_some() {
            return Err(Ambiguous);
        }
    }
    let boundary = found.ok_or(Ambiguous)?;
    let named = (1..=70).contains(&boundary.len()) && !boundary.ends_with(b" ");
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(b);
    if named && boundary.iter().all(allowed) { Ok(Some(boundary)) } else { Err(Ambiguous) }
}

/// The value of the only field of that name.
pub(super) fn only<'b>(body: &'b [u8], boundary: &[u8], name: &str) -> Result<Option<&'b [u8]>, Ambiguous> {
    let mut found = None;
    each(body, boundary, |field, value| {
        let ours = field == name.as_bytes();
        if ours && found.replace(value.ok_or(Ambiguous)?).is_some() { Err(Ambiguous) } else { Ok(()) }
    })?;
    Ok(found)
}

/// All fields, in order.
pub(super) fn fields<'b>(body: &'b [u8], boundary: &[u8]) -> Result<Vec<Pair<'b>>, Ambiguous> {
    let mut all = Vec::new();
    each(body, boundary, |field, value| {
        all.push((field, value.ok_or(Ambiguous)?));
        Ok(())
    })?;
    Ok(all)
}

/// Calls `field` with each field's name and its value, if that can be read. All of the body is looked at.
fn each<'b>(
    body: &'b [u8],
    boundary: &[u8],
    mut field: impl FnMut(&'b [u8], Option<&'b [u8]>) -> Result<(), Ambiguous>,
) -> Result<(), Ambiguous> {
    let delimiter = [b"\r\n--", boundary].concat();
    let finder = memmem::Finder::new(&delimiter);
    // The first delimiter has no line before it, though some senders write an empty one.
    let first = body.strip_prefix(&delimiter[2..]).or_else(|| body.strip_prefix(&delimiter[..]));
    let mut rest = first.ok_or(Ambiguous)?;
    for _ in 0..=MAX_PARTS {
        if let Some(after) = rest.strip_prefix(b"--") {
            return if matches!(after, b"" | b"\r\n") { Ok(()) } else { Err(Ambiguous) };
        }
        // Anything else on the delimiter's line: another boundary that begins like ours, or padding.
        let part = rest.strip_prefix(b"\r\n").ok_or(Ambiguous)?;
        let end = finder.find(part).ok_or(Ambiguous)?;
        rest = &part[end + delimiter.len()..];
        match headers(&part[..end])? {
            Part::File => {}
            Part::Field(name, value) => field(name, value)?,
        }
    }
    Err(Ambiguous)
}

/// What a part is.
enum Part<'b> {
    File,
    /// A name, and the value unless it is encoded.
    Field(&'b [u8], Option<&'b [u8]>),
}

/// Reads the headers of a part.
fn headers(part: &[u8]) -> Result<Part<'_>, Ambiguous> {
    let mut rest = part;
    let mut disposition = None;
    let mut plain = true;
    while !rest.starts_with(b"\r\n") {
        let end = memmem::find(&rest[..rest.len().min(MAX_HEADERS)], b"\r\n").ok_or(Ambiguous)?;
        let line = &rest[..end];
        rest = &rest[end + 2..];
        if part.len() - rest.len() > MAX_HEADERS || line.contains(&b'\n') || line.contains(&b'\r') {
            return Err(Ambiguous);
        }
        let (name, value) = split(line, b':');
        // A name before white space, or none, is a folded line or one that readers take differently.
        if name.len() == line.len() || !is_token(name) {
            return Err(Ambiguous);
        }
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case(b"content-disposition") {
            if disposition.replace(value).is_some() {
                return Err(Ambiguous);
            }
        } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
            plain &= [&b"7bit"[..], b"8bit", b"binary"].iter().any(|word| value.eq_ignore_ascii_case(word));
        } else if name.eq_ignore_ascii_case(b"content-type") {
            plain &= !value.get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case(b"multipart/"));
        }
    }
    let value = &rest[2..];
    let (kind, params) = split(disposition.ok_or(Ambiguous)?, b';');
    if !kind.trim_ascii().eq_ignore_ascii_case(b"form-data") {
        return Err(Ambiguous);
    }
    let mut name = None;
    let mut params = Params(params);
    loop {
        // From here on the part is a file, however its name is escaped.
        if params.begins_with(b"filename") {
            return Ok(Part::File);
        }
        match params.next()? {
            Some((key, text)) if key.eq_ignore_ascii_case(b"name") => {
                if name.replace(text).is_some() {
                    return Err(Ambiguous);
                }
            }
            // `name*` and whatever else may rename it.
            Some(_) => return Err(Ambiguous),
            None => break,
        }
    }
    Ok(Part::Field(name.ok_or(Ambiguous)?, plain.then_some(value)))
}

/// Parameters as in `; name="value"; name=value`, without the first `;`. Escapes are not read: readers disagree on them.
struct Params<'b>(&'b [u8]);

impl<'b> Params<'b> {
    fn next(&mut self) -> Result<Option<Pair<'b>>, Ambiguous> {
        let text = self.0.trim_ascii_start();
        if text.is_empty() {
            return Ok(None);
        }
        let (name, after) = split(text, b'=');
        if name.len() == text.len() || !is_token(name) {
            return Err(Ambiguous);
        }
        let (value, rest) = match after.strip_prefix(b"\"") {
            Some(quoted) => {
                let end = quoted.iter().position(|b| *b == b'"').ok_or(Ambiguous)?;
                (&quoted[..end], quoted[end + 1..].trim_ascii_start())
            }
            None => {
                let end = after.iter().position(|b| *b == b';').unwrap_or(after.len());
                (after[..end].trim_ascii_end(), &after[end..])
            }
        };
        let readable = !value.contains(&b'\\') && (after.starts_with(b"\"") || is_token(value));
        self.0 = match rest {
            [] => rest,
            [b';', rest @ ..] => rest,
            _ => return Err(Ambiguous),
        };
        if readable { Ok(Some((name, value))) } else { Err(Ambiguous) }
    }

    /// Whether the next name is this one, plain or extended (`filename*`).
    fn begins_with(&self, name: &[u8]) -> bool {
        let (next, _) = split(self.0.trim_ascii_start(), b'=');
        next.strip_suffix(b"*").unwrap_or(next).eq_ignore_ascii_case(name)
    }
}

/// What stands before the first `at` and after it; all and nothing if there is none.
fn split(text: &[u8], at: u8) -> (&[u8], &[u8]) {
    match memchr::memchr(at, text) {
        Some(found) => (&text[..found], &text[found + 1..]),
        None => (text, b""),
    }
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| crate::message::is_token(*b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(parts: &[&str]) -> Vec<u8> {
        let mut body: String = parts.iter().map(|part| format!("--B\r\n{part}\r\n")).collect();
        body.push_str("--B--\r\n");
        body.into_bytes()
    }
    fn field(name: &str, value: &str) -> String {
        format!("Content-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}")
    }
    fn token(body: &[u8]) -> Result<Option<&str>, Ambiguous> {
        only(body, b"B", "token").map(|found| found.map(|value| std::str::from_utf8(value).unwrap()))
    }
    /// A body of this part and a plain one.
    fn with(part: &str) -> Vec<u8> {
        body(&[part, &field("other", "x")])
    }

    #[test]
    fn a_boundary_is_read_plain_and_quoted() {
        for (text, expected) in [
            ("multipart/form-data; boundary=xYzZY", Ok(Some("xYzZY"))),
            ("Multipart/Form-Data;charset=utf-8;BOUNDARY=\"a b=c\"", Ok(Some("a b=c"))),
            ("multipart/form-data; boundary=x ; charset=utf-8", Ok(Some("x"))),
            ("application/x-www-form-urlencoded", Ok(None)),
            ("multipart/mixed; boundary=x", Ok(None)),
            ("", Ok(None)),
            ("multipart/form-data", Err(Ambiguous)),
            ("multipart/form-data; boundary=", Err(Ambiguous)),
            ("multipart/form-data; boundary=\"\"", Err(Ambiguous)),
            ("multipart/form-data; boundary=\"x", Err(Ambiguous)),
            ("multipart/form-data; boundary=\"x\"y", Err(Ambiguous)),
            ("multipart/form-data; boundary=\"x\\\"y\"", Err(Ambiguous)),
            ("multipart/form-data; boundary=\"x \"", Err(Ambiguous)),
            ("multipart/form-data; boundary=a; boundary=a", Err(Ambiguous)),
            ("multipart/form-data; boundary=a b", Err(Ambiguous)),
            ("multipart/form-data; boundary=a, multipart/form-data; boundary=b", Err(Ambiguous)),
            ("multipart/form-data; boundary", Err(Ambiguous)),
            ("multipart/form-data; boundary = a", Err(Ambiguous)),
        ] {
            let expected = expected.map(|found: Option<&str>| found.map(str::as_bytes));
            assert_eq!(boundary(text.as_bytes()), expected, "{text}");
        }
        assert!(boundary(format!("multipart/form-data; boundary={}", "x".repeat(70)).as_bytes()).is_ok());
        assert!(boundary(format!("multipart/form-data; boundary={}", "x".repeat(71)).as_bytes()).is_err());
    }

    #[test]
    fn a_field_is_found_byte_for_byte() {
        let b = body(&[&field("a", ""), &field("token", "x\r\n--\r\n--C\r\n"), &field("Token", "y")]);
        assert_eq!(token(&b), Ok(Some("x\r\n--\r\n--C\r\n")));
        assert_eq!(only(&b, b"B", "a"), Ok(Some(&b""[..])));
        assert_eq!(only(&b, b"B", "b"), Ok(None));
        assert_eq!(token(b"--B--"), Ok(None));
        assert_eq!(fields(&b, b"B").unwrap().len(), 3);
        for part in [
            "content-disposition:form-data;NAME=token\r\n\r\nv",
            "Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=\"token\"\r\nContent-Length: 1\r\n\r\nv",
            "Content-Disposition: form-data; name=\"token\"\r\nContent-Transfer-Encoding: 8BIT\r\n\r\nv",
        ] {
            assert_eq!(token(&with(part)), Ok(Some("v")), "{part}");
        }
        let led = [b"\r\n", &with(&field("token", "v"))[..]].concat();
        assert_eq!(token(&led), Ok(Some("v")));
    }

    #[test]
    fn a_file_is_no_field() {
        for disposition in [
            r#"name="token"; filename="a.txt""#,
            r#"name="token"; filename="""#,
            r#"filename="a"; name="token""#,
            r#"name="token"; filename*=UTF-8''a.txt"#,
            r#"name="token"; FileName=a.txt"#,
            r#"name="attachment-1"; filename="a\"; name="token""#,
            r#"name="attachment-1"; filename="C:\a\"#,
            r#"name="attachment-1"; filename"#,
        ] {
            let b = with(&format!(
                "Content-Disposition: form-data; {disposition}\r\nContent-Type: text/plain\r\n\r\nv"
            ));
            assert_eq!(token(&b), Ok(None), "{disposition}");
            assert_eq!(only(&b, b"B", "other"), Ok(Some(&b"x"[..])), "{disposition}");
        }
        let inner = body(&[
            "Content-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\nv",
        ]);
        assert_eq!(token(&inner), Ok(None));
    }

    #[test]
    fn a_field_twice_is_ambiguous_and_another_one_twice_is_not() {
        let b = body(&[&field("token", "a"), &field("x", "1"), &field("x", "2"), &field("token", "a")]);
        assert_eq!(token(&b), Err(Ambiguous));
        assert_eq!(only(&b, b"B", "x"), Err(Ambiguous));
        assert_eq!(only(&b, b"B", "y"), Ok(None));
    }

    #[test]
    fn what_readers_take_differently_is_ambiguous() {
        for disposition in [
            r#"form-data; name="to\ken""#,
            r#"form-data; name="token\"; x="y""#,
            r#"form-data; name="token"; name="other""#,
            r#"form-data; name="x"; name*=UTF-8''token"#,
            r#"form-data; name="token" x"#,
            r#"form-data; name="token"#,
            r#"form-data; name = "token""#,
            r#"form-data; name='to ken'"#,
            r#"form-data; x="y"; name="token""#,
            r#"form-data"#,
            r#"attachment; name="token""#,
            r#"form-data, form-data; name="token""#,
        ] {
            let b = with(&format!("Content-Disposition: {disposition}\r\n\r\nv"));
            assert_eq!(token(&b), Err(Ambiguous), "{disposition}");
        }
        let head = "Content-Disposition: form-data; name=\"token\"\r\n";
        for part in [
            format!("{head}{head}\r\nv"),
            format!("{head}Content-Transfer-Encoding: base64\r\n\r\ndg=="),
            format!("{head}Content-Type: multipart/mixed; boundary=C\r\n\r\nv"),
            "Content-Disposition: form-data;\r\n name=\"token\"\r\n\r\nv".to_owned(),
            "Content-Disposition : form-data; name=\"token\"\r\n\r\nv".to_owned(),
            "Content-Disposition: form-data; name=\"token\"\n\r\n\r\nv".to_owned(),
            "Content-Disposition: form-data; name=\"token\"\n\nv".to_owned(),
            "Content-Type: text/plain\r\n\r\nv".to_owned(),
            "\r\nv".to_owned(),
            format!("{head}X: {}\r\n\r\nv", "x".repeat(MAX_HEADERS)),
            format!("{head}no colon\r\n\r\nv"),
            head.trim_end().to_owned(),
        ] {
            assert_eq!(token(&with(&part)), Err(Ambiguous), "{part}");
        }
    }

    #[test]
    fn what_stands_around_the_parts_is_ambiguous() {
        let good = String::from_utf8(with(&field("token", "v"))).unwrap();
        for bad in [
            String::new(),
            format!("preamble\r\n{good}"),
            format!("\r\n\r\n{good}"),
            format!("{good}--B\r\n{}\r\n--B--\r\n", field("token", "w")),
            format!("{good} "),
            good.trim_end_matches("--\r\n").to_owned(),
            good.replace("--B--", "--B-"),
            good.replace("--B--", "--Bx--"),
            good.replacen("--B\r\n", "--B \r\n", 1),
            good.replace("\r\n", "\n"),
            good.replacen("\r\nv", "\r\nv\r\n--Bc", 1),
            good.replace("--B", "--b"),
            good.replace("--B", "-B"),
        ] {
            assert_eq!(token(bad.as_bytes()), Err(Ambiguous), "{bad}");
        }
    }

    #[test]
    fn parts_are_counted() {
        let many = |n: usize| body(&vec![&field("x", "")[..]; n]);
        assert_eq!(token(&many(MAX_PARTS)), Ok(None));
        assert_eq!(token(&many(MAX_PARTS + 1)), Err(Ambiguous));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            kind in "multipart/form-data; ?(boundary|b)=?\"?[a-zA-Z =\\\\;\"]{0,8}",
            parts in proptest::collection::vec("(--B(--)?)?(\r\n)?(Content-Disposition: form-data; (file)?name=?\"?(token)?[\";\\\\]?)?[\r\n]{0,4}.{0,6}", 0..6),
            raw in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let _ = boundary(kind.as_bytes());
            let _ = (token_of(parts.concat().as_bytes()), token_of(&raw));
        }

        /// Whatever one flips in a good body, the value that is read is one that stands between two delimiters.
        #[test]
        fn what_is_written_is_read(name in "[a-z0-9_.-]{1,9}", value in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assume!(memmem::find(&value, b"\r\n--B").is_none());
            let mut b = format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").into_bytes();
            b.extend_from_slice(&value);
            b.extend_from_slice(b"\r\n--B--\r\n");
            prop_assert_eq!(only(&b, b"B", &name), Ok(Some(&value[..])));
            prop_assert_eq!(only(&b, b"B", "A"), Ok(None));
        }
    }

    fn token_of(body: &[u8]) -> Result<Option<&[u8]>, Ambiguous> {
        only(body, b"B", "token")
    }
}
