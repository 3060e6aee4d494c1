//! Packs in words: for `tidegate providers` and for the page that lists them all.

use crate::verify::VerifySpec;
use crate::verify::spec::{Rule, Texts};

use super::{Category, Pack, Repeats, Success};

impl Category {
    pub const ALL: [Category; 14] = [
        Category::Standard,
        Category::Payments,
        Category::Commerce,
        Category::Developer,
        Category::Monitoring,
        Category::Communication,
        Category::Marketing,
        Category::Productivity,
        Category::Identity,
        Category::Content,
        Category::Data,
        Category::Crypto,
        Category::People,
        Category::Other,
    ];

    /// As packs write it.
    pub const fn word(self) -> &'static str {
        match self {
            Category::Standard => "standard",
            Category::Payments => "payments",
            Category::Commerce => "commerce",
            Category::Developer => "developer",
            Category::Monitoring => "monitoring",
            Category::Communication => "communication",
            Category::Marketing => "marketing",
            Category::Productivity => "productivity",
            Category::Identity => "identity",
            Category::Content => "content",
            Category::Data => "data",
            Category::Crypto => "crypto",
            Category::People => "people",
            Category::Other => "other",
        }
    }
}

impl Pack {
    /// How it proves itself, a phrase a way, each once.
    pub fn proofs(&self) -> Vec<String> {
        let mut phrases: Vec<String> = Vec::new();
        for phrase in self.verify.iter().map(proof) {
            if !phrases.contains(&phrase) {
                phrases.push(phrase);
            }
        }
        phrases
    }

    /// By what its repeats are known.
    pub fn repeats(&self) -> String {
        match &self.idempotency {
            Repeats::ByKey(key) | Repeats::ByEvent(key) => key.to_string(),
            Repeats::ByBody => "body-hash".to_owned(),
            Repeats::Unknowable => "off".to_owned(),
        }
    }

    /// The answers that it takes for success.
    pub fn successes(&self) -> String {
        match &self.success {
            Success::Any2xx => "2xx".to_owned(),
            Success::Of(statuses) => statuses.iter().map(u16::to_string).collect::<Vec<_>>().join(", "),
        }
    }
}

fn proof(rule: &Rule) -> String {
    if let Some(rules) = rule.all.as_ref() {
        return several(rules, " and ");
    }
    if let Some(rules) = rule.any.as_ref() {
        return several(rules, " or ");
    }
    if let Some(jwt) = &rule.jwt {
        let at =
            jwt.from.clone().or_else(|| jwt.header.clone()).unwrap_or_else(|| "Authorization".to_owned());
        return format!("JWT ({}) in {at}", jwt.algorithms.0.join(", "));
    }
    if let Some(key) = &rule.api_key {
        let at = key.header.as_deref().or(key.query.as_deref()).unwrap_or("a header");
        return format!("key in {at}");
    }
    match rule {
        Rule { http_signature: Some(_), .. } => return "HTTP message signature (RFC 9421)".to_owned(),
        Rule { basic: Some(_), .. } => return "user and password".to_owned(),
        Rule { bearer: Some(_), .. } => return "bearer token".to_owned(),
        _ => {}
    }
    let scheme = rule.scheme.as_deref().unwrap_or(&rule.inline);
    let algorithm = scheme.algorithm.as_deref().unwrap_or("signature");
    let Texts(places) = scheme.signature.as_ref().map(|signature| signature.from.clone()).unwrap_or_default();
    let at = if places.is_empty() { String::new() } else { format!(" in {}", places.join(" or ")) };
    match (algorithm, scheme.signed.as_deref()) {
        ("token", _) => format!("token{at}"),
        (algorithm, signed) => {
            format!("{algorithm} of {}{at}", signed.unwrap_or("{body}").replace('\n', "\\n"))
        }
    }
}

fn several(rules: &[VerifySpec], between: &str) -> String {
    let phrase = |spec: &VerifySpec| match spec {
        VerifySpec::None => "nothing".to_owned(),
        VerifySpec::Rule(rule) => proof(rule),
    };
    rules.iter().map(phrase).collect::<Vec<_>>().join(between)
}

/// The page that lists all built-in packs, in Markdown; `conf/PROVIDERS.md` is this.
pub fn page() -> Result<String, String> {
    let packs = super::names().into_iter().map(super::find).collect::<Result<Vec<_>, _>>()?;
    let mut page = format!(
        "# Providers\n\n\
         The {} built-in packs, by category. This page is made from them (`tidegate providers page > conf/PROVIDERS.md`);\n\
         `tidegate providers show NAME` says more: what to copy from where, parameters, retries, notes. Any other sender is a\n\
         file of the same form: `provider: ./packs/acme.yaml`.\n\n\
         Idempotency key: where the id of an event stands; `+ body-hash` where no signature covers the id, so that it counts\n\
         only together with the body; `unsigned` where it is all of the event. H: the greetings that are answered directly, and what they must\n\
         prove: `signed` as events are, or a parameter. B: requests carry many events, `split: true` takes them apart.\n\
         R: address ranges are known for `allow: [provider]`: `list` is kept fresh, `snapshot` comes with the release.\n",
        packs.len()
    );
    for category in Category::ALL {
        let within: Vec<_> = packs.iter().filter(|pack| pack.category == category).collect();
        if within.is_empty() {
            continue;
        }
        page += &format!(
            "\n## {}\n\n| provider | name | proves itself by | idempotency key | H | B | R |\n|---|---|---|---|---|---|---|\n",
            category.word()
        );
        for pack in within {
            let yes = |is: bool| if is { "yes" } else { "" };
            let unsigned = if matches!(pack.idempotency, Repeats::ByEvent(_)) { " (unsigned)" } else { "" };
            let key = pack.repeats() + unsigned;
            let ranges = match pack.ranges.as_deref() {
                None => "",
                Some(ranges) if ranges.list.is_some() => "list",
                Some(_) => "snapshot",
            };
            page += &format!(
                "| [{}]({}) | `{}` | {} | {} | {} | {} | {ranges} |\n",
                cell(&pack.title),
                pack.guide().docs,
                pack.name,
                cell(&pack.proofs().join("; ")),
                cell(&key),
                cell(&pack.greetings_in_short()),
                yes(pack.batch.is_some()),
            );
        }
    }
    Ok(page)
}

/// A text that may stand in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_providers_is_made_from_the_packs() {
        let shipped = include_str!("../../conf/PROVIDERS.md");
        assert!(
            shipped == page().unwrap(),
            "conf/PROVIDERS.md is stale: run `cargo run --locked -- providers page > conf/PROVIDERS.md`"
        );
        assert!(include_str!("../../README.md").contains("conf/PROVIDERS.md"));
    }

    #[test]
    fn proofs_are_said_in_words() {
        let of = |name: &str| crate::providers::find(name).unwrap().proofs();
        assert_eq!(of("github"), ["hmac-sha256 of {body} in header:X-Hub-Signature-256"]);
        assert_eq!(of("gitlab")[0], "token in header:X-Gitlab-Token");
        for name in crate::providers::names() {
            let proofs = of(name);
            assert!(
                !proofs.is_empty() && proofs.iter().all(|p| !p.contains("signature of")),
                "{name}: {proofs:?}"
            );
        }
    }

    #[test]
    fn words_of_categories_are_those_of_the_packs() {
        for category in Category::ALL {
            let read: Category = serde_json::from_value(category.word().into()).unwrap();
            assert_eq!(read, category);
        }
    }
}
