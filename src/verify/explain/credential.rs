//! What people get wrong about fixed credentials.

use super::super::credentials::Credentials;
use super::super::locate::View;
use super::{Asked, Likely};
use crate::secret::Secret;

pub(super) fn likely(credentials: &Credentials, asked: &Asked<'_>) -> Vec<Likely> {
    let mut found = Vec::new();
    let view = View::of(asked.request);
    let Ok(Some(value)) = credentials.at.find(view) else {
        if let Some(name) = credentials.at.header()
            && let Some(alike) = super::tries::header_alike(name, asked.request)
        {
            found.push(Likely::new(
                "header_name",
                format!("the request has no `{name}`, but `{alike}`: is that what holds the credential?"),
            ));
        }
        return found;
    };
    // The value as it is, and what is behind a scheme's name.
    let sent = match value.iter().position(|byte| *byte == b' ') {
        Some(at) => value[at + 1..].trim_ascii(),
        None => &value,
    };
    let forms: [(&[u8], &str); 3] = [
        (sent, "behind the word before it"),
        (sent.trim_ascii(), "without the white space around it"),
        (unquoted(sent), "without the quotes around it"),
    ];
    for (form, how) in forms {
        if form != &*value && credentials.plain().any(|secret| secret.is(form)) {
            found.push(Likely::new("credential_form", format!("the credential is right {how}")));
            break;
        }
    }
    if credentials.plain().any(|secret| Secret::new(secret.expose().trim_ascii().to_vec()).is(sent))
        && found.is_empty()
    {
        found.push(Likely::new(
            "secret_trimmed",
            "the credential is right for the configured one without the white space around it",
        ));
    }
    for other in asked.foreign {
        if other.secret.is(sent) {
            let text = format!(
                "it is the credential of the route `{}`: was it sent to the wrong path?",
                other.route
            );
            found.push(Likely::new("other_route", text));
            break;
        }
    }
    if found.is_empty() {
        found.push(Likely::new(
            "unknown",
            "it is none of the configured credentials: most likely an old one, or one of another environment",
        ));
    }
    found
}

pub(in crate::verify) fn unquoted(text: &[u8]) -> &[u8] {
    match text {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        other => other,
    }
}
