//! Step: the whole body, bounded twice: by the route (413) and by the budget of all bodies (503).

use bytes::Bytes;

use crate::reason::Reason;

use super::budget::{Budget, Exhausted, Reservation};
use super::exchange::Exchange;
use super::refused::Refused;

/// The first piece of memory that a declared body of several pieces gets, in bytes: enough for most in one go.
const FIRST: usize = 64 * 1024;

/// Reads the body. A declared length that could not fit is refused before the first byte is read. What is reserved
/// follows what has arrived (twice as much at most), so that a sender can't hold the budget with a length alone. A body
/// that comes as one piece is not copied. The reservation must live as long as the body.
pub(super) async fn read<'b, E: Exchange>(
    exchange: &mut E,
    max: u64,
    budget: &'b Budget,
    limit: u64,
) -> Result<(Bytes, Reservation<'b>), Refused> {
    let declared = exchange.content_length().unwrap_or(0);
    if declared > max {
        return Err(too_large(max));
    }
    if !budget.has_room(declared, limit) {
        return Err(exhausted(limit));
    }
    let mut reservation = budget.reservation(limit);

    let Some(first) = exchange.read().await? else { return Ok((Bytes::new(), reservation)) };
    bounded(first.len(), max)?;
    reservation.grow_to(size(first.len())).map_err(|Exhausted| exhausted(limit))?;
    let Some(second) = exchange.read().await? else { return Ok((first, reservation)) };

    let most = if declared > 0 { declared } else { max };
    let mut whole = Vec::new();
    let mut next = Some(first);
    let mut after = Some(second);
    while let Some(chunk) = next {
        let length = whole.len().saturating_add(chunk.len());
        bounded(length, max)?;
        if length > whole.capacity() {
            let least = if declared > 0 { FIRST } else { 0 };
            let capacity = length.max(length.saturating_mul(2).max(least).min(fits(most)));
            // The budget counts what is allocated.
            reservation.grow_to(size(capacity)).map_err(|Exhausted| exhausted(limit))?;
            whole.reserve_exact(capacity - whole.len());
        }
        whole.extend_from_slice(&chunk);
        next = match after.take() {
            Some(chunk) => Some(chunk),
            None => exchange.read().await?,
        };
    }
    Ok((whole.into(), reservation))
}

fn bounded(length: usize, max: u64) -> Result<(), Refused> {
    if size(length) > max { Err(too_large(max)) } else { Ok(()) }
}

fn too_large(max: u64) -> Refused {
    Refused::because(Reason::BodyTooLarge, format!("more than {max} bytes"))
}

fn exhausted(limit: u64) -> Refused {
    Refused::because(Reason::BodyBudget, format!("bodies in memory would exceed {limit} bytes"))
}

fn size(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
fn fits(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Waker};

    use proptest::prelude::*;

    use super::super::testing::{InMemory, now_or_never};
    use super::*;

    fn budget() -> Budget {
        Budget::new(Arc::default())
    }

    #[test]
    fn one_piece_is_not_copied() {
        let piece = Bytes::from(vec![7; 1000]);
        let mut exchange = InMemory::post("/").declared(1000).sends([piece.clone()]);
        let budget = budget();
        let (body, reserved) = now_or_never(read(&mut exchange, 1000, &budget, 5000)).unwrap();
        assert_eq!(body.as_ptr(), piece.as_ptr());
        assert_eq!(budget.used(), 1000);
        drop(reserved);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_declared_length_over_the_limit_is_refused_unread() {
        let mut exchange = InMemory::post("/").declared(1001).sends([Bytes::from_static(b"x")]);
        let refused = now_or_never(read(&mut exchange, 1000, &budget(), 5000)).unwrap_err();
        assert_eq!(refused.reason, Reason::BodyTooLarge);
        assert_eq!(exchange.reads(), 0);
    }

    #[test]
    fn an_undeclared_length_is_refused_where_it_goes_over() {
        let chunk = Bytes::from(vec![1; 400]);
        let mut exchange = InMemory::post("/").sends(vec![chunk; 10]);
        let budget = budget();
        let refused = now_or_never(read(&mut exchange, 1000, &budget, 5000)).unwrap_err();
        assert_eq!(refused.reason, Reason::BodyTooLarge);
        assert_eq!((exchange.reads(), budget.used()), (3, 0));
    }

    #[test]
    fn a_declared_length_beyond_the_budget_is_refused_unread() {
        let budget = budget();
        let mut others = budget.reservation(5000);
        others.grow_to(4500).unwrap();
        let mut exchange = InMemory::post("/").declared(1000).sends([Bytes::from_static(b"x")]);
        let refused = now_or_never(read(&mut exchange, 1000, &budget, 5000)).unwrap_err();
        assert_eq!(refused.reason, Reason::BodyBudget);
        assert_eq!((exchange.reads(), budget.used()), (0, 4500));
    }

    #[test]
    fn an_undeclared_length_beyond_the_budget_is_refused_and_given_back() {
        let budget = budget();
        let mut exchange = InMemory::post("/").sends(vec![Bytes::from(vec![1; 400]); 10]);
        let refused = now_or_never(read(&mut exchange, 10_000, &budget, 1500)).unwrap_err();
        assert_eq!((refused.reason, budget.used()), (Reason::BodyBudget, 0));
    }

    #[test]
    fn what_is_only_declared_holds_none_of_the_budget() {
        let budget = budget();
        let mut silent = InMemory::post("/").declared(5000).stalls();
        let mut trickling = InMemory::post("/")
            .declared(1_000_000)
            .sends([vec![1; 10], vec![2; 10]].map(Bytes::from))
            .stalls();
        let mut context = Context::from_waker(Waker::noop());
        let mut one = pin!(read(&mut silent, 5000, &budget, 5000));
        assert!(one.as_mut().poll(&mut context).is_pending());
        assert_eq!(budget.used(), 0);
        let mut two = pin!(read(&mut trickling, 2_000_000, &budget, 2_000_000));
        assert!(two.as_mut().poll(&mut context).is_pending());
        assert_eq!(budget.used(), size(FIRST));
    }

    #[test]
    fn what_is_reserved_is_at_most_twice_what_came() {
        let budget = budget();
        let chunks = (0..40).map(|_| Bytes::from(vec![1; 16 * 1024]));
        let mut exchange = InMemory::post("/").declared(10 << 20).sends(chunks).stalls();
        let mut reading = pin!(read(&mut exchange, 10 << 20, &budget, 256 << 20));
        assert!(reading.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let came = 40 * 16 * 1024;
        assert!((came..=2 * came).contains(&budget.used()), "{}", budget.used());
    }

    #[test]
    fn a_body_that_breaks_off_gives_its_reason() {
        let mut exchange =
            InMemory::post("/").sends([Bytes::from_static(b"x")]).breaks(Reason::BodyIncomplete);
        let refused = now_or_never(read(&mut exchange, 10, &budget(), 10)).unwrap_err();
        assert_eq!(refused.reason, Reason::BodyIncomplete);
    }

    proptest! {
        #[test]
        fn every_byte_arrives_in_order(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..12), declare: bool) {
            let whole = chunks.concat();
            let mut exchange = InMemory::post("/").sends(chunks.into_iter().map(Bytes::from));
            if declare {
                exchange = exchange.declared(whole.len() as u64);
            }
            let budget = budget();
            let (body, reserved) = now_or_never(read(&mut exchange, 4000, &budget, 100_000)).unwrap();
            prop_assert_eq!(&body[..], &whole[..]);
            prop_assert!(budget.used() >= whole.len() as u64);
            drop(reserved);
            prop_assert_eq!(budget.used(), 0);
        }
    }
}
