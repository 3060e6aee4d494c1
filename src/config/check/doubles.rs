//! Secrets and labels of a route that stand there twice.

use serde_json::Value;

use super::Checker;
use crate::config::place::Place;
use crate::config::raw;
use crate::secret::Secret;
use crate::verify::Resolver;
use crate::verify::spec::SecretSpec;

/// A secret as written.
struct Written {
    place: Place,
    spec: SecretSpec,
}

impl Checker<'_, '_> {
    /// Warns of a secret that stands twice in one list, and of a label that means two secrets of a route: then nobody can
    /// see which of them is still used.
    pub(super) fn warn_of_doubles(&mut self, raw: &raw::Route, place: &Place) {
        let mut lists = Vec::new();
        if let Some(secrets) = &raw.secrets {
            let place = place.key("secrets");
            let at = |(i, spec): (usize, &SecretSpec)| Written { place: place.index(i), spec: spec.clone() };
            lists.push(secrets.iter().enumerate().map(at).collect());
        }
        if let Some(verify) = &raw.verify {
            gather(&verify.0, &place.key("verify"), &mut lists);
        }
        for list in &lists {
            for (i, second) in list.iter().enumerate() {
                let Some(first) = list[..i].iter().find(|first| self.same(first, second)) else { continue };
                let message = format!("this is the same secret as {}", first.place);
                self.warning(
                    &second.place,
                    message,
                    "list each secret once; while one is replaced both differ",
                );
            }
        }
        let all: Vec<&Written> = lists.iter().flatten().collect();
        for (i, second) in all.iter().enumerate() {
            let Some(label) = &second.spec.label else { continue };
            let is_double =
                |first: &&&Written| first.spec.label.as_ref() == Some(label) && !self.same(first, second);
            let Some(first) = all[..i].iter().find(is_double) else { continue };
            let message = format!("the label `{label}` is that of {}, too", first.place);
            self.warning(
                &second.place.key("label"),
                message,
                "give each secret a label of its own: by it you see which one is still used",
            );
        }
    }

    /// By what is written, and by what stands behind it.
    fn same(&self, one: &Written, other: &Written) -> bool {
        if one.spec.secret == other.spec.secret {
            return true;
        }
        let (one, other) = (self.behind(one), self.behind(other));
        one.is_some() && one == other
    }

    /// Of a reference, if it is here. What stands in the config itself is what is written.
    fn behind(&self, written: &Written) -> Option<Secret> {
        let reference = &written.spec.secret;
        let is_reference = reference.starts_with("env:") || reference.starts_with("file:");
        if !is_reference || !self.references.outside.secrets_are_needed() {
            return None;
        }
        self.references.secret(reference).ok()
    }
}

/// The lists of secrets within a rule.
fn gather(rule: &Value, place: &Place, lists: &mut Vec<Vec<Written>>) {
    match rule {
        Value::Object(map) => {
            for (key, value) in map {
                let place = place.key(key);
                match value.as_array().filter(|_| key == "secrets") {
                    Some(items) => {
                        let spec = |item: &Value| serde_json::from_value(item.clone()).ok();
                        let at = |(i, item)| Some(Written { place: place.index(i), spec: spec(item)? });
                        lists.push(items.iter().enumerate().filter_map(at).collect());
                    }
                    None => gather(value, &place, lists),
                }
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| gather(item, &place.index(i), lists));
        }
        _ => {}
    }
}
