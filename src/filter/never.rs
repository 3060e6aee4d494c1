//! Tests of one value that contradict each other, as far as that is told without guessing: what is not there has no value,
//! between two bounds there may be no number, and of the values to be equal to none may pass the other tests. That two
//! regexes have nothing in common is not looked into.

use super::{Relation, Test, Word};

/// Why no value passes all of these tests, and what to do.
pub(super) fn why(tests: &[Test]) -> Option<(&'static str, &'static str)> {
    if tests.len() > 1 && tests.contains(&Test::Exists(false)) {
        return Some((
            "this never holds: what is not there passes no other test",
            "write `exists: false` alone, or `any` with two conditions",
        ));
    }
    if !leave_a_number(tests) {
        return Some((
            "this never holds: no number is within these bounds",
            "exchange the bounds, or write `any` with two conditions",
        ));
    }
    let words = tests.iter().filter_map(|test| match test {
        Test::OneOf(words) => Some(words),
        _ => None,
    });
    for words in words {
        if !words.iter().any(|word| tests.iter().all(|test| may_pass(word, test))) {
            return Some((
                "this never holds: no value that it must be equal to passes the other tests",
                "remove a test, or write `any` with two conditions",
            ));
        }
    }
    None
}

/// Whether some number is within all bounds.
fn leave_a_number(tests: &[Test]) -> bool {
    // Each bound, and whether the number itself is out.
    let (mut least, mut most) = ((f64::NEG_INFINITY, false), (f64::INFINITY, false));
    for test in tests {
        let Test::Compared(relation, than) = *test else { continue };
        match relation {
            Relation::More if than >= least.0 => least = (than, true),
            Relation::AtLeast if than > least.0 => least = (than, false),
            Relation::Less if than <= most.0 => most = (than, true),
            Relation::AtMost if than < most.0 => most = (than, false),
            _ => {}
        }
    }
    least.0 < most.0 || (least.0 == most.0 && !least.1 && !most.1)
}

/// Whether a value that is equal to `word` may pass.
fn may_pass(word: &Word, test: &Test) -> bool {
    match (word, test) {
        // Written as a number it may stand there in other ways: `1.0`, `1e0`.
        (Word::Number(..), Test::Prefix(_) | Test::Matches(_)) => true,
        (Word::Number(_, number), Test::OneOf(words)) => words.iter().any(|other| match other {
            Word::Number(_, other) => other == number,
            Word::Text(text) => super::number(text) == Some(*number),
        }),
        (Word::Number(text, _) | Word::Text(text), test) => test.holds(Some(text)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::Filter;

    fn refused(tests: Value) -> Option<String> {
        Filter::compile(&json!({"header:X": tests})).err().map(|problems| problems[0].message.clone())
    }

    #[test]
    fn tests_that_contradict_each_other_are_told() {
        for never in [
            json!({"gt": 5, "lt": 3}),
            json!({"gt": 5, "lte": 5}),
            json!({"gte": 5, "lt": 5}),
            json!({"gt": 5, "gte": 5, "lte": 5}),
            json!({"exists": false, "equals": "a"}),
            json!({"exists": false, "lt": 3}),
            json!({"equals": "a", "one_of": ["b", "c"]}),
            json!({"equals": "a", "prefix": "b"}),
            json!({"one_of": ["ab", "ac"], "regex": "^b"}),
            json!({"equals": 5, "gt": 10}),
            json!({"equals": "many", "gt": 10}),
        ] {
            let said = refused(never.clone());
            assert!(said.as_ref().is_some_and(|said| said.contains("never holds")), "{never}: {said:?}");
        }
        for fine in [
            json!({"gt": 3, "lt": 5}),
            json!({"gte": 5, "lte": 5}),
            json!({"gt": 1, "gte": 5, "lt": 9, "lte": 6}),
            json!({"exists": false}),
            json!({"exists": true, "prefix": "a"}),
            json!({"equals": "b", "one_of": ["b", "c"]}),
            json!({"one_of": ["ab", "c"], "prefix": "a"}),
            json!({"equals": 1, "prefix": "1.", "one_of": ["1.0"]}),
            json!({"equals": "1.0", "one_of": [1]}),
            json!({"prefix": "a", "regex": "b$"}),
        ] {
            assert_eq!(refused(fine.clone()), None, "{fine}");
        }
    }

    proptest! {
        #[test]
        fn what_some_value_passes_is_never_refused(
            value in 0u8..6,
            bounds in prop::collection::btree_map(prop::sample::select(vec!["gt", "gte", "lt", "lte", "equals"]), 0u8..6, 1..5),
        ) {
            let value = f64::from(value);
            let passes = bounds.iter().all(|(name, than)| {
                let than = f64::from(*than);
                match *name {
                    "gt" => value > than,
                    "gte" => value >= than,
                    "lt" => value < than,
                    "lte" => value <= than,
                    _ => value == than,
                }
            });
            if passes {
                prop_assert_eq!(refused(json!(bounds)), None);
            }
        }
    }
}
