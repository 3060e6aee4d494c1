//! A request that carries many events: the elements of a JSON array, each as it is written, and what each is known by.
//!
//! Which requests are taken apart is the route's to say (`split`); storing the parts as one write is `buffer`'s.

use std::borrow::Cow;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::extract::{self, Extract};
use super::form;
use super::json::{Elements, Pointer};
use super::locate::{Location, View};
use crate::message::Request;
use crate::providers::Batch;

/// Where the array is and what its elements are known by, compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    array: Array,
    key: Box<[Pointer]>,
    event_type: Option<Pointer>,
    /// Whether the element's hash is part of its key.
    bound: bool,
    /// Elements of one request.
    max: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Array {
    Body(Pointer),
    /// JSON in a form field: the elements are parts of its decoded value.
    Form(Box<str>, Pointer),
}

/// One event of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// As it is written in the array.
    pub body: Bytes,
    /// Never empty: an element without the values that should name it is known by its hash.
    pub key: String,
    pub event_type: Option<String>,
}

/// Why a request can't be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSplit {
    #[error("there is no array of events where the pack says, or the JSON is not well-formed")]
    NoArray,
    #[error("the array has more than {0} events")]
    TooMany(usize),
}

impl Split {
    /// Elements of one request, where nothing is said.
    pub const MAX: usize = 10_000;

    /// The error says what would be right. Keys are joined with the element's hash; see [`bound_by`](Self::bound_by).
    pub fn compile(batch: &Batch, max: usize) -> Result<Self, String> {
        let array = match batch.place.as_deref().map(Location::parse).transpose()? {
            None => Array::Body(Pointer::root()),
            Some(Location::Body(pointer)) => Array::Body(pointer),
            Some(Location::Form(field)) => Array::Form(field, Pointer::root()),
            Some(Location::FormJson(field, pointer)) => Array::Form(field, pointer),
            Some(other) => {
                return Err(format!(
                    "`{other}`: an array is at `body`, `body:/json/pointer` or `form:FIELD`"
                ));
            }
        };
        let key = batch.key.iter().map(|text| Pointer::parse(text)).collect::<Result<Box<[_]>, _>>()?;
        let event_type = batch.event_type.as_deref().map(Pointer::parse).transpose()?;
        Ok(Self { array, key, event_type, bound: true, max })
    }

    /// Keys go without the element's hash where the rule signs the place of the array: then nobody but the sender can
    /// make an element with the id of another.
    pub fn bound_by(self, covers: impl Fn(&Extract) -> bool) -> Self {
        let place = match &self.array {
            Array::Body(pointer) => Location::Body(pointer.clone()),
            Array::Form(field, _) => Location::Form(field.clone()),
        };
        let bound = !covers(&Extract::at(place));
        Self { bound, ..self }
    }

    /// Whether the elements are JSON of another content type than the request's.
    pub const fn changes_content_type(&self) -> bool {
        matches!(self.array, Array::Form(..))
    }

    /// The events of a request, in order. The bytes are shared with the request's body, or with the one decoded field.
    pub fn elements(&self, request: &Request) -> Result<Vec<Element>, NotSplit> {
        let (document, pointer) = match &self.array {
            Array::Body(pointer) => (request.body.clone(), pointer),
            Array::Form(field, pointer) => match form::field(View::of(request), field) {
                Ok(Some(Cow::Borrowed(value))) => (request.body.slice_ref(value), pointer),
                Ok(Some(Cow::Owned(value))) => (Bytes::from(value), pointer),
                Ok(None) | Err(_) => return Err(NotSplit::NoArray),
            },
        };
        match pointer.elements_up_to(&document, self.max) {
            Some(Elements::All(elements)) => {
                Ok(elements.into_iter().map(|raw| self.element(document.slice_ref(raw))).collect())
            }
            Some(Elements::TooMany) => Err(NotSplit::TooMany(self.max)),
            None => Err(NotSplit::NoArray),
        }
    }

    fn element(&self, body: Bytes) -> Element {
        let values: Option<Vec<Cow<'_, str>>> = self
            .key
            .iter()
            .map(|pointer| pointer.text(&body).filter(|text| !extract::is_blank(text)))
            .collect();
        let mut key = String::new();
        for value in values.iter().flatten() {
            extract::join(&mut key, value);
        }
        if self.bound || key.is_empty() {
            extract::join(&mut key, &format!("sha256:{}", hex::encode(Sha256::digest(&body))));
        }
        let event_type =
            self.event_type.as_ref().and_then(|pointer| pointer.text(&body)).map(Cow::into_owned);
        Element { key, event_type, body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::testing::request;
    use proptest::prelude::*;

    fn split(place: Option<&str>, key: &[&str], max: usize) -> Split {
        let batch = Batch {
            place: place.map(str::to_owned),
            key: key.iter().map(|text| (*text).to_owned()).collect(),
            event_type: Some("/type".to_owned()),
        };
        Split::compile(&batch, max).unwrap().bound_by(|_| true)
    }
    fn bodies(split: &Split, body: &str) -> Result<Vec<String>, NotSplit> {
        let elements = split.elements(&request("/", &[], body.as_bytes()))?;
        Ok(elements.iter().map(|e| String::from_utf8_lossy(&e.body).into_owned()).collect())
    }

    #[test]
    fn elements_stand_as_they_were_written() {
        let body = "\n[ {\"id\" : 1.0,\"x\":\"\\u00fc\"} ,\t7, \"a,b\" ,{}]\n";
        let expected = ["{\"id\" : 1.0,\"x\":\"\\u00fc\"}", "7", "\"a,b\"", "{}"];
        assert_eq!(bodies(&split(None, &["/id"], 9), body).unwrap(), expected);
        let within = split(Some("body:/a/events"), &["/id"], 9);
        assert_eq!(
            bodies(&within, r#"{"a":{"events":[ [1] ,{"b":[2]}]},"z":[0]}"#).unwrap(),
            ["[1]", "{\"b\":[2]}"]
        );
        assert_eq!(bodies(&split(None, &["/id"], 9), " [ ] ").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_form_fields_json_is_decoded_once() {
        let form = split(Some("form:mandrill_events"), &["/_id"], 9);
        let body = "x=1&mandrill_events=%5B%7B%22_id%22%3A%22a+b%22%2C%22type%22%3A%22send%22%7D%2C2%5D";
        let elements = form.elements(&request("/", &[], body.as_bytes())).unwrap();
        assert_eq!(&elements[0].body[..], br#"{"_id":"a b","type":"send"}"#);
        assert_eq!((elements[0].key.as_str(), elements[0].event_type.as_deref()), ("a b", Some("send")));
        assert!(form.changes_content_type() && !split(None, &["/id"], 9).changes_content_type());
        let inner = split(Some("form:data#/events"), &["/id"], 9);
        assert_eq!(bodies(&inner, "data=%7B%22events%22%3A%5B1%2C2%5D%7D").unwrap(), ["1", "2"]);
        assert_eq!(bodies(&inner, "data=%7B%7D&data=%7B%7D"), Err(NotSplit::NoArray));
    }

    #[test]
    fn what_is_no_array_or_too_long_is_told_apart() {
        let within = split(Some("body:/events"), &["/id"], 2);
        for body in ["", "{}", "[]", r#"{"events":{}}"#, r#"{"events":[1],"events":[2]}"#, r#"{"events":[1"#]
        {
            assert_eq!(bodies(&within, body), Err(NotSplit::NoArray), "{body}");
        }
        assert_eq!(bodies(&within, r#"{"events":[1,2]}"#).unwrap().len(), 2);
        assert_eq!(bodies(&within, r#"{"events":[1,2,3]}"#), Err(NotSplit::TooMany(2)));
        assert_eq!(bodies(&within, r#"{"events":[1,2,3}"#), Err(NotSplit::NoArray));
    }

    #[test]
    fn keys_are_joined_and_fall_back_to_the_hash() {
        let keys = |split: &Split, body: &str| -> Vec<String> {
            split.elements(&request("/", &[], body.as_bytes())).unwrap().into_iter().map(|e| e.key).collect()
        };
        let two = split(None, &["/id", "/at"], 9);
        let found = keys(
            &two,
            r#"[{"id":"a|b","at":1},{"id":"a","at":"b|1"},{"id":"a"},{"id":"","at":1},5,{"id":" ","at":1}]"#,
        );
        assert_eq!(found[..2], ["a\\|b|1", "a|b\\|1"]);
        assert!(found[2..].iter().all(|key| key.starts_with("sha256:")), "{found:?}");
        assert_ne!(found[2], found[3]);
        let loose = Split { bound: true, ..two };
        let found = keys(&loose, r#"[{"id":"a","at":1},{"id":"a","at":1,"x":0}]"#);
        assert!(found[0].starts_with("a|1|sha256:") && found[0] != found[1], "{found:?}");
    }

    #[test]
    fn a_place_without_an_array_is_explained() {
        let of = |place: &str, key: &[&str]| {
            let key = key.iter().map(|text| (*text).to_owned()).collect();
            Split::compile(&Batch { place: Some(place.into()), key, event_type: None }, 9).unwrap_err()
        };
        assert!(of("header:x", &["/id"]).contains("`body:/json/pointer`"));
        assert!(of("body:/x", &["id"]).contains("JSON pointer"));
    }

    proptest! {
        #[test]
        fn parts_are_slices_of_the_body_and_nothing_panics(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            for split in [split(None, &["/id"], 5), split(Some("form:a"), &["/id"], 5)] {
                if let Ok(elements) = split.elements(&request("/", &[], &body)) {
                    prop_assert!(elements.iter().all(|e| !e.key.is_empty()));
                }
            }
        }

        #[test]
        fn what_is_joined_again_is_the_same_array(values in proptest::collection::vec("[a-z\\\\\"{}, ]{0,8}", 0..8)) {
            let array = serde_json::to_string(&values).unwrap();
            let parts = bodies(&split(None, &["/id"], 100), &array).unwrap();
            prop_assert_eq!(format!("[{}]", parts.join(",")), array);
        }
    }
}
