//! Claims whose forward is under way: of requests with the same key, one at a time is forwarded, and the others wait
//! for what becomes of it.
//!
//! The right to forward is a value, [`Turn`]. Whoever holds it either ends it with a success, which all who wait then
//! get, or drops it (refused, broken, cancelled, panicked), and then the next who waits holds it. So it can't be lost:
//! even one that was handed to a twin who has just left goes on from there, because dropping is handing on.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::buffer::{ClaimKey, Claimed};

use super::idempotency::ByClaim;

/// Most keys under way at once. Each has at least one request that is being forwarded, so this is far above what the
/// limits of connections let through in practice.
const MAX_KEYS: usize = 65_536;

/// The table. Its lock is only ever held for a lookup, never across an await.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    waiting: Table,
}

/// For each key under way, those who wait, in order of arrival.
type Table = Arc<Mutex<ByClaim<VecDeque<oneshot::Sender<Outcome>>>>>;

/// What one who asked to forward is told.
#[derive(Debug)]
pub(super) enum Entered {
    /// Nobody else is at it: forward.
    First(Turn),
    /// Someone is: wait for this.
    Twin(oneshot::Receiver<Outcome>),
    /// Too many are under way.
    Full,
}

/// What one who waited is told.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The first one succeeded; this is its claim.
    Succeeded(Arc<Claimed>),
    /// The first one did not succeed, and it is your turn.
    YourTurn(Turn),
}

/// The right to forward for a key.
#[derive(Debug)]
pub(super) struct Turn {
    key: ClaimKey,
    /// `None` once the turn has ended.
    waiting: Option<Table>,
}

impl InFlight {
    pub fn enter(&self, key: ClaimKey) -> Entered {
        let mut table = self.waiting.lock();
        let full = table.len() >= MAX_KEYS;
        match table.entry(key) {
            Entry::Occupied(mut twins) => {
                let (sender, receiver) = oneshot::channel();
                twins.get_mut().push_back(sender);
                Entered::Twin(receiver)
            }
            Entry::Vacant(_) if full => Entered::Full,
            Entry::Vacant(place) => {
                place.insert(VecDeque::new());
                Entered::First(Turn { key, waiting: Some(self.waiting.clone()) })
            }
        }
    }
}

impl Turn {
    /// Ends the turn: all who wait get the claim. It must be made (or remembered) already, since whoever comes after
    /// this is first again.
    pub fn succeed(mut self, claimed: &Arc<Claimed>) {
        let Some(table) = self.waiting.take() else { return };
        let twins = table.lock().remove(&self.key);
        for twin in twins.into_iter().flatten() {
            // One that has left needs no answer.
            let _ = twin.send(Outcome::Succeeded(claimed.clone()));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(table) = self.waiting.take() else { return };
        // A loop, not a chain of drops: any number of twins may have left.
        loop {
            let next = {
                let mut waiting = table.lock();
                let next = waiting.get_mut(&self.key).and_then(VecDeque::pop_front);
                if next.is_none() {
                    waiting.remove(&self.key);
                }
                next
            };
            let Some(twin) = next else { return };
            let turn = Turn { key: self.key, waiting: Some(table.clone()) };
            match twin.send(Outcome::YourTurn(turn)) {
                Ok(()) => return,
                Err(Outcome::YourTurn(mut refused)) => refused.waiting = None,
                Err(Outcome::Succeeded(_)) => {}
            }
        }
    }
}

#[cfg(test)]
impl InFlight {
    pub fn len(&self) -> usize {
        self.waiting.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::buffer::{EventId, FirstAnswer};
    use crate::clock::Timestamp;

    fn key() -> ClaimKey {
        ClaimKey::new("r", b"k")
    }
    fn claimed() -> Arc<Claimed> {
        let answer = FirstAnswer { status: 200, content_type: None, body: Default::default() };
        Arc::new(Claimed { event_id: EventId::new(Timestamp(1)), answer, expires_at: Timestamp(2) })
    }
    fn first(entered: Entered) -> Turn {
        match entered {
            Entered::First(turn) => turn,
            other => panic!("not the first: {other:?}"),
        }
    }
    fn twin(entered: Entered) -> oneshot::Receiver<Outcome> {
        match entered {
            Entered::Twin(receiver) => receiver,
            other => panic!("not a twin: {other:?}"),
        }
    }

    #[test]
    fn twins_get_the_success_and_the_key_is_free_again() {
        let table = InFlight::default();
        let turn = first(table.enter(key()));
        let mut twins = [twin(table.enter(key())), twin(table.enter(key()))];
        let other = first(table.enter(ClaimKey::new("r", b"other")));
        turn.succeed(&claimed());
        for twin in &mut twins {
            assert!(matches!(twin.try_recv(), Ok(Outcome::Succeeded(_))));
        }
        drop(other);
        assert_eq!(table.len(), 0);
        first(table.enter(key()));
    }

    #[test]
    fn after_a_failure_the_next_in_order_is_first() {
        let table = InFlight::default();
        let turn = first(table.enter(key()));
        let (mut second, mut third) = (twin(table.enter(key())), twin(table.enter(key())));
        drop(turn);
        let Ok(Outcome::YourTurn(turn)) = second.try_recv() else { panic!("the second waits still") };
        assert!(third.try_recv().is_err());
        drop(turn);
        assert!(matches!(third.try_recv(), Ok(Outcome::YourTurn(_))));
    }

    #[test]
    fn a_turn_handed_to_twins_who_have_left_goes_on() {
        let table = InFlight::default();
        let turn = first(table.enter(key()));
        let gone: Vec<_> = (0..100_000).map(|_| twin(table.enter(key()))).collect();
        let mut last = twin(table.enter(key()));
        drop(gone);
        drop(turn);
        assert!(matches!(last.try_recv(), Ok(Outcome::YourTurn(_))));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_turn_that_waits_unseen_goes_on_when_its_twin_leaves() {
        let table = InFlight::default();
        let turn = first(table.enter(key()));
        let second = twin(table.enter(key()));
        let mut third = twin(table.enter(key()));
        drop(turn);
        drop(second);
        assert!(matches!(third.try_recv(), Ok(Outcome::YourTurn(_))));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Arrive,
        Succeed,
        Fail,
        Leave(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Arrive),
            1 => Just(Step::Succeed),
            2 => Just(Step::Fail),
            2 => any::<u8>().prop_map(Step::Leave),
        ];
        prop::collection::vec(step, 1..80)
    }

    proptest! {
        /// Whatever comes in which order: at most one holds the turn, and as long as someone waits someone holds it.
        #[test]
        fn never_two_turns_and_never_none_while_someone_waits(steps in steps()) {
            let table = InFlight::default();
            let mut holder: Option<Turn> = None;
            let mut waiting: Vec<oneshot::Receiver<Outcome>> = Vec::new();
            for step in steps {
                match step {
                    Step::Arrive => match table.enter(key()) {
                        Entered::First(turn) => {
                            prop_assert!(holder.is_none());
                            holder = Some(turn);
                        }
                        Entered::Twin(receiver) => waiting.push(receiver),
                        Entered::Full => prop_assert!(false, "one key can't fill the table"),
                    },
                    Step::Succeed => if let Some(turn) = holder.take() { turn.succeed(&claimed()) },
                    Step::Fail => drop(holder.take()),
                    Step::Leave(n) => if !waiting.is_empty() {
                        let n = usize::from(n) % waiting.len();
                        drop(waiting.remove(n));
                    },
                }
                let mut still = Vec::new();
                for mut receiver in waiting.drain(..) {
                    match receiver.try_recv() {
                        Ok(Outcome::YourTurn(turn)) => {
                            prop_assert!(holder.is_none());
                            holder = Some(turn);
                        }
                        Ok(Outcome::Succeeded(_)) => {}
                        Err(oneshot::error::TryRecvError::Empty) => still.push(receiver),
                        Err(oneshot::error::TryRecvError::Closed) => prop_assert!(false, "forgotten"),
                    }
                }
                waiting = still;
                prop_assert!(waiting.is_empty() || holder.is_some());
            }
            drop(waiting);
            drop(holder);
            prop_assert_eq!(table.len(), 0);
        }
    }
}
