//! Append, claim, lease, settle: what each promises by itself.

use super::*;

#[tokio::test]
async fn an_event_comes_back_as_it_was_received() {
    let bench = Bench::new();
    for size in [0, 1, 1000, 1024, 64 * 1024, 3 << 20] {
        let mut event = bench.event("");
        event.body = (0..size).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
        let sent = event.clone();
        bench.buffer.append(event, &[app()], None).await.unwrap();
        let leased = bench.lease_one().await;
        assert_eq!(*leased.event, sent);
        assert_eq!(bench.buffer.get(sent.id).await.unwrap().unwrap().0, sent);
        bench.settle(&leased, Next::Delivered);
    }
    let bench = bench.reopen();
    let page = bench.buffer.search(Search::new(EventFilter::default(), 10)).await.unwrap();
    assert_eq!(page.events.len(), 6);
    assert!(page.events.iter().all(|(e, _)| e.target == event(START, "").target));
}

#[tokio::test]
async fn notes_are_kept_until_they_are_removed() {
    let bench = Bench::new();
    for (key, value) in [("pause/b", "1"), ("pause/a", "2"), ("pausf", "3"), ("job/1", "4"), ("pause/b", "5")]
    {
        bench.buffer.note(key, Some(value.into())).await.unwrap();
    }
    let bench = bench.reopen();
    let notes = async |prefix: &str| -> Vec<(String, Vec<u8>)> { bench.buffer.notes(prefix).await.unwrap() };
    let kept = [("pause/a".to_owned(), b"2".to_vec()), ("pause/b".to_owned(), b"5".to_vec())];
    assert_eq!(notes("pause/").await, kept);
    bench.buffer.note("pause/a", None).await.unwrap();
    bench.buffer.note("pause/never", None).await.unwrap();
    assert_eq!(notes("pause/").await, kept[1..]);
    assert_eq!(notes("").await.len(), 3);
}

#[tokio::test]
async fn a_folder_that_is_made_is_for_nobody_else() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::with(|settings| settings.path = settings.path.join("new/data"));
    let mode = std::fs::metadata(&bench.settings.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

#[tokio::test]
async fn a_delivered_event_is_not_leased_again() {
    let bench = Bench::new();
    let id = bench.stored("a").await;
    let leased = bench.lease_one().await;
    assert_eq!((leased.event.id, leased.attempts, leased.since), (id, 0, START));
    assert!(bench.lease(9).await.is_empty(), "it is leased");
    bench.settle(&leased, Next::Delivered);
    bench.settled().await;
    assert!(bench.lease(9).await.is_empty());
    let delivery = bench.deliveries(id).await.remove(0);
    assert_eq!(delivery.state, DeliveryState::Delivered { at: START });
    assert_eq!((delivery.attempts, delivery.history), (1, vec![attempt(START, 200)]));
    let bench = bench.reopen();
    assert!(bench.lease(9).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_hundred_twins_one_is_stored_and_all_others_get_its_id() {
    let bench = Arc::new(Bench::new());
    let twins: Vec<_> = (0..200)
        .map(|_| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                let event = bench.event("twin");
                (event.id, bench.buffer.append(event, &[app()], Some(claim(1))).await.unwrap())
            })
        })
        .collect();
    let (mut first, mut repeats) = (Vec::new(), Vec::new());
    for twin in twins {
        match twin.await.unwrap() {
            (id, Appended::Stored) => first.push(id),
            (_, Appended::Duplicate(claimed)) => repeats.push(claimed.event_id),
        }
    }
    assert_eq!(first.len(), 1);
    assert_eq!(repeats, vec![first[0]; 199]);
    assert_eq!(bench.lease(9).await.len(), 1);
}

#[tokio::test]
async fn a_repeat_gets_the_first_answer_until_the_window_ends() {
    let bench = Bench::new();
    let first = bench.event("first");
    bench.buffer.append(first.clone(), &[app()], Some(claim(1))).await.unwrap();
    let bench = bench.reopen();
    let Appended::Duplicate(standing) =
        bench.buffer.append(bench.event("again"), &[app()], Some(claim(1))).await.unwrap()
    else {
        panic!("the claim does not stand")
    };
    assert_eq!((standing.event_id, standing.answer), (first.id, claim(1).answer));
    assert_eq!(bench.buffer.claimed(claim(1).key).await.unwrap().unwrap().event_id, first.id);
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(bench.buffer.claimed(claim(1).key).await.unwrap(), None);
    let later = bench.buffer.append(bench.event("later"), &[app()], Some(claim(1))).await.unwrap();
    assert_eq!(later, Appended::Stored);
    // The sweep of the first claim leaves the second.
    bench.buffer.sweep().await.unwrap();
    assert!(bench.buffer.claimed(claim(1).key).await.unwrap().is_some());
    bench.clock.advance(Duration::from_secs(61));
    bench.buffer.sweep().await.unwrap();
    let store = bench.buffer.shared.store().unwrap();
    assert_eq!(store.claim(claim(1).key).unwrap(), None, "expired claims are deleted");
    assert_eq!(store.scan(vec![b'X'], vec![b'Y']).count(), 0);
}

#[tokio::test]
async fn a_claim_alone_stands_at_once_and_the_first_one_wins() {
    let bench = Bench::new();
    let (a, b) = (EventId::new(START), EventId::new(START));
    bench.buffer.claim(claim(1), a).unwrap();
    assert_eq!(bench.buffer.claimed(claim(1).key).await.unwrap().unwrap().event_id, a);
    bench.buffer.claim(claim(1), b).unwrap();
    bench.settled().await;
    assert_eq!(bench.buffer.claimed(claim(1).key).await.unwrap().unwrap().event_id, a);
    assert!(bench.buffer.shared.claims.lock().is_empty());
    let repeat = bench.buffer.append(bench.event("x"), &[app()], Some(claim(1))).await.unwrap();
    assert!(matches!(repeat, Appended::Duplicate(first) if first.event_id == a));
}

#[tokio::test]
async fn a_refused_append_leaves_no_claim_and_no_event() {
    let bench = Bench::new();
    bench.buffer.shared.gate.set_full(Some("test".into()));
    // Past the first check, as one is that was under way when the buffer filled up.
    let (done, outcome) = waiting::pair();
    let event = bench.event("refused");
    let lanes = vec![bench.buffer.shared.lane(&app())];
    let encoded = encode(&event, &lanes, &Keyring::none()).unwrap();
    let id = event.id;
    let append = Append {
        event: Arc::new(event),
        encoded,
        targets: vec![lane::Target { lane: Arc::clone(&lanes[0]), key: None }],
        claim: Some(claim(1)),
        queued: Instant::now(),
        done,
    };
    bench.buffer.shared.inbox.push(Op::Append(Box::new(append))).unwrap();
    let outcome = outcome.await.unwrap();
    assert!(matches!(outcome, Err(AppendError::Full(_))), "{outcome:?}");
    assert_eq!(bench.buffer.claimed(claim(1).key).await.unwrap(), None);
    assert_eq!(bench.buffer.get(id).await.unwrap(), None);
}

#[tokio::test]
async fn a_failed_buffer_takes_nothing_and_still_shows_what_it_holds() {
    let bench = Bench::new();
    let id = bench.stored("kept").await;
    bench.buffer.shared.fail("EIO");
    let refused = bench.buffer.append(bench.event("x"), &[app()], Some(claim(1))).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(why)) if why.contains("EIO")));
    assert_eq!(bench.buffer.admission(), Admission::Failed("EIO".into()));
    assert!(matches!(bench.buffer.lease(&app(), 1, START).await, Err(BufferError::Failed(_))));
    assert!(matches!(
        bench.buffer.replay(Selection::One(id, EventFilter::default())).await,
        Err(BufferError::Failed(_))
    ));
    assert!(bench.buffer.get(id).await.unwrap().is_some());
    let bench = bench.reopen();
    assert_eq!(bench.lease_one().await.event.id, id);
    assert_eq!(bench.buffer.claimed(claim(1).key).await.unwrap(), None);
}

#[tokio::test]
async fn a_panic_of_the_committer_poisons_and_hangs_nobody() {
    let bench = Bench::new();
    let id = bench.stored("kept").await;
    bench.buffer.shared.inbox.push(Op::Run(Box::new(|| panic!("on purpose")))).unwrap();
    while !bench.buffer.shared.gate.is_failed() {
        tokio::task::yield_now().await;
    }
    let refused = bench.buffer.append(bench.event("x"), &[app()], None).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(why)) if why.contains("on purpose")));
    let bench = bench.reopen();
    assert_eq!(bench.lease_one().await.event.id, id);
}

#[tokio::test]
async fn closing_finishes_what_is_queued_and_frees_the_folder() {
    let bench = Bench::new();
    bench.stored("a").await;
    let leased = bench.lease_one().await;
    bench.settle(&leased, Next::Delivered);
    bench.buffer.close().await.unwrap();
    assert_eq!(bench.buffer.admission(), Admission::Closed);
    assert!(matches!(bench.buffer.close().await, Err(BufferError::Closed)));
    assert!(matches!(bench.buffer.get(leased.event.id).await, Err(BufferError::Closed)));
    assert!(bench.buffer.append(bench.event("x"), &[app()], None).await.is_err());
    let again = open_at(&bench.settings, &bench.clock).unwrap();
    assert!(again.lease(&app(), 9, bench.now()).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_event_without_destinations_is_kept_like_a_delivered_one() {
    let bench = Bench::new();
    let event = bench.event("nobody's");
    let id = event.id;
    bench.buffer.append(event, &[], None).await.unwrap();
    assert_eq!(bench.deliveries(id).await, vec![]);
    bench.clock.advance(Duration::from_secs(3601));
    bench.buffer.sweep().await.unwrap();
    assert_eq!(bench.buffer.get(id).await.unwrap(), None);
    assert_eq!(bench.buffer.stats().await.unwrap().events, 0);
}
