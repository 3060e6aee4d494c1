//! Realistic bodies, each with an id of its own.

use serde_json::json;

use super::unique_id;

/// A GitHub push. Compact JSON, as GitHub sends it.
pub fn push() -> String {
    json!({
        "ref": "refs/heads/main", "before": "6113728f27ae82c7b1a177c8d03f9e96e0adf246", "after": unique_id(),
        "repository": {"id": 186853002, "full_name": "octo-org/billing", "private": true},
        "pusher": {"name": "mona", "email": "mona@example.com"},
        "commits": [{"id": unique_id(), "message": "Round half to even – naïve", "modified": ["src/money.rs"]}],
        "forced": false
    })
    .to_string()
}

pub fn issue_opened() -> String {
    json!({
        "action": "opened",
        "issue": {"id": 1, "number": 42, "title": "Sum is 0.30000000000000004", "body": "a\r\nb 😕", "node": unique_id()},
        "sender": {"login": "mona", "id": 21031067, "type": "User"}
    })
    .to_string()
}

/// A Stripe event; pretty-printed, as Stripe sends it, so that any re-serialising shows.
pub fn invoice_paid() -> String {
    let id = unique_id();
    format!(
        "{:#}",
        json!({
            "id": format!("evt_{id}"), "object": "event", "api_version": "2025-09-30.clover", "created": super::now(),
            "data": {"object": {"id": format!("in_{id}"), "object": "invoice", "amount_paid": 2000, "currency": "eur",
                "lines": {"data": [{"amount": 2000, "description": "1 × Pro plan"}]}, "status": "paid"}},
            "livemode": false, "pending_webhooks": 1, "type": "invoice.paid"
        })
    )
}

pub fn contact_created() -> String {
    json!({"type": "contact.created", "data": {"id": unique_id(), "first_name": "Zoë", "email": "zoe@example.com"}})
        .to_string()
}
