//! `order` and `batch`: what is taken and what is refused.

use super::*;

fn with(destination: &str) -> String {
    routes(&OPEN.replace("http://127.0.0.1:3000", &format!("{{ url: http://a, {destination} }}")))
}

#[test]
fn an_order_and_a_batch_that_can_not_work_are_refused_at_their_place() {
    for (written, message, help) in [
        (
            "order: { by: \"path:account\" }",
            "the route's path has no parameter `{account}`",
            "a segment `{account}`",
        ),
        ("order: { by: customer }", "`customer` says no place", "body:/json/pointer"),
        (
            "order: { by: \"query:a\", on_failure: blok }",
            "`blok` is not possible here",
            "did you mean `block`?",
        ),
        ("order: {}", "`by` is missing", ""),
        ("batch: { statuses: results }", "begins with `/`", "/results"),
        ("batch: { max_bytes: 0B }", "no event fits", "1MiB"),
        ("batch: { max_events: 0 }", "0 is out of range", "1"),
        ("batch: { format: json }", "`json` is not possible here", "json-array"),
    ] {
        let problem = only(&with(written));
        assert!(problem.message.contains(message), "{written}: {}", problem.message);
        assert!(problem.help.as_deref().unwrap_or_default().contains(help), "{written}: {:?}", problem.help);
    }
    for key in ["order: { by: \"query:a\" }", "batch: {}"] {
        let problem = only(&with(key).replace("verify: none", "verify: none\n    mode: proxy"));
        assert!(problem.message.contains("while its sender waits"), "{}", problem.message);
        let problem = only(&with(key).replace("verify: none", "verify: none\n    mode: spill"));
        assert!(problem.message.contains("is overtaken"), "{}", problem.message);
    }
}
