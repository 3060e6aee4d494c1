//! Issuing, finding and ending URLs over a buffer in memory.

use super::*;
use crate::buffer::StoredEndpoint;
use crate::clock::ManualClock;
use crate::receive::testing::FakeBuffer;

const HOUR: Duration = Duration::from_secs(3600);

fn stage() -> (Endpoints, Arc<FakeBuffer>, ManualClock) {
    let (buffer, clock) = (Arc::new(FakeBuffer::default()), ManualClock::at(Timestamp::from_secs(1000)));
    (Endpoints::new(buffer.clone(), Clock::Manual(clock.clone())), buffer, clock)
}

#[tokio::test]
async fn a_url_is_of_one_client_of_one_route() {
    let (endpoints, ..) = stage();
    let issued = endpoints.create("orders", "acme", Needs::Secret).await.unwrap();
    assert_eq!(issued.token.len(), 2 * TOKEN);
    assert_eq!(issued.endpoint.secret.as_ref().unwrap().expose().len(), 64);
    assert_eq!(*endpoints.find("orders", &issued.token).unwrap().client, *"acme");
    assert!(endpoints.find("invoices", &issued.token).is_none());
    assert!(endpoints.find("orders", "").is_none() && endpoints.find("orders", &issued.token[1..]).is_none());
    assert!(matches!(endpoints.create("orders", "acme", Needs::Secret).await, Err(EndpointError::Exists(_))));
    let other = endpoints.create("orders", "bolt", Needs::Nothing).await.unwrap();
    assert!(other.token != issued.token && other.endpoint.secret.is_none());
    for bad in ["", "a b", "a/b", "ü", &"a".repeat(MAX_NAME + 1)] {
        assert!(matches!(endpoints.create("orders", bad, Needs::Nothing).await, Err(EndpointError::BadName)));
    }
}

#[tokio::test]
async fn an_old_url_works_as_long_as_was_said() {
    let (endpoints, _, clock) = stage();
    let first = endpoints.create("orders", "acme", Needs::Secret).await.unwrap();
    let second = endpoints.rotate("orders", "acme", Needs::Secret, HOUR).await.unwrap();
    assert_eq!(second.old_until, Some(Timestamp::from_secs(1000 + 3600)));
    let (old, new) = (endpoints.find("orders", &first.token), endpoints.find("orders", &second.token));
    let secret = |endpoint: Option<Arc<Endpoint>>| endpoint.unwrap().secret.clone().unwrap();
    assert!(!secret(old).is(secret(new).expose()));
    clock.advance(HOUR);
    assert!(endpoints.find("orders", &first.token).is_none());
    assert!(endpoints.find("orders", &second.token).is_some());
    assert_eq!(endpoints.list().len(), 1);
    // At once, if nothing is kept.
    let third = endpoints.rotate("orders", "acme", Needs::Secret, Duration::ZERO).await.unwrap();
    assert!(endpoints.find("orders", &second.token).is_none());
    assert!(endpoints.find("orders", &third.token).is_some());
    let too_long = endpoints.rotate("orders", "acme", Needs::Secret, MAX_KEEP + HOUR).await;
    assert!(matches!(too_long, Err(EndpointError::KeptTooLong)));
    let unknown = endpoints.rotate("orders", "nobody", Needs::Secret, HOUR).await;
    assert!(matches!(unknown, Err(EndpointError::Unknown(_))));
}

#[tokio::test]
async fn revoking_ends_all_urls_of_a_client_and_of_nobody_else() {
    let (endpoints, ..) = stage();
    let first = endpoints.create("orders", "acme", Needs::Nothing).await.unwrap();
    let second = endpoints.rotate("orders", "acme", Needs::Nothing, HOUR).await.unwrap();
    let other = endpoints.create("orders", "bolt", Needs::Nothing).await.unwrap();
    assert_eq!(endpoints.revoke("orders", "acme").await.unwrap(), 2);
    for gone in [&first.token, &second.token] {
        assert!(endpoints.find("orders", gone).is_none());
    }
    assert!(endpoints.find("orders", &other.token).is_some());
    assert!(matches!(endpoints.revoke("orders", "acme").await, Err(EndpointError::Unknown(_))));
    assert!(endpoints.create("orders", "acme", Needs::Nothing).await.is_ok());
}

#[tokio::test]
async fn what_is_stored_is_read_again_and_holds_no_url() {
    let (endpoints, buffer, clock) = stage();
    let first = endpoints.create("orders", "acme", Needs::Secret).await.unwrap();
    let second = endpoints.rotate("orders", "acme", Needs::Secret, HOUR).await.unwrap();
    for StoredEndpoint { value, .. } in buffer.endpoints().await.unwrap() {
        let text = String::from_utf8(value).unwrap();
        assert!(!text.contains(&first.token) && !text.contains(&second.token), "{text}");
    }
    let again = Endpoints::new(buffer, Clock::Manual(clock));
    again.load().await.unwrap();
    for issued in [&first, &second] {
        assert!(again.find("orders", &issued.token).is_some());
    }
    let read = again.find("orders", &second.token).unwrap();
    assert!(read.secret.as_ref().unwrap().is(second.endpoint.secret.as_ref().unwrap().expose()));
    assert_eq!(
        (&read.id, read.created_at, read.until),
        (&second.endpoint.id, second.endpoint.created_at, None)
    );
}

#[tokio::test]
async fn what_did_not_get_to_disk_does_not_count_but_a_revocation_does() {
    let (endpoints, buffer, _) = stage();
    let issued = endpoints.create("orders", "acme", Needs::Nothing).await.unwrap();
    buffer.fail();
    assert!(endpoints.create("orders", "bolt", Needs::Nothing).await.is_err());
    assert!(endpoints.rotate("orders", "acme", Needs::Nothing, HOUR).await.is_err());
    assert_eq!(endpoints.list().len(), 1);
    assert!(endpoints.revoke("orders", "acme").await.is_err());
    assert!(endpoints.find("orders", &issued.token).is_none());
}
