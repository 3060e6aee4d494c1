//! How an appender waits for its group, and how a group wakes its appenders: one cross-thread wake a thread, not one a
//! request.
//!
//! Waking a task of another thread's runtime costs a write to that runtime's event descriptor. So the committer only
//! lays the results down, lists the wakers by thread, and pokes one small *pump* task on each thread at the end of the
//! group; the pump passes the wakes on where they cost nothing. A pump is started by the first append that waits on a
//! thread and ends with its runtime; without a runtime, or without a living pump, the wake goes straight to the task.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};
use tokio::sync::Notify;

/// A pair of ends: one is given the outcome, the other waits for it.
pub(super) fn pair<T>() -> (Promise<T>, Outcome<T>) {
    let slot = Arc::new(Mutex::new(Slot { state: State::Open, waker: None, pump: None }));
    (Promise(Some(Arc::clone(&slot))), Outcome(slot))
}

struct Slot<T> {
    state: State<T>,
    waker: Option<Waker>,
    pump: Option<Arc<Pump>>,
}

enum State<T> {
    Open,
    Kept(T),
    /// The promise was dropped, or the outcome taken.
    Over,
}

/// Kept once by the committer. Dropped unkept (the committer failed), the waiter gets `None`.
pub(super) struct Promise<T>(Option<Arc<Mutex<Slot<T>>>>);

/// Resolves once the promise is kept.
pub(super) struct Outcome<T>(Arc<Mutex<Slot<T>>>);

impl<T> Promise<T> {
    /// Lays the outcome down. The waiter is woken by [`Wakes::send`] at the end of the group.
    pub(super) fn keep(mut self, outcome: T, wakes: &mut Wakes) {
        let Some(slot) = self.0.take() else { return };
        let (waker, pump) = {
            let mut slot = slot.lock();
            slot.state = State::Kept(outcome);
            (slot.waker.take(), slot.pump.take())
        };
        if let Some(waker) = waker {
            wakes.add(waker, pump);
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let Some(slot) = self.0.take() else { return };
        let waker = {
            let mut slot = slot.lock();
            slot.state = State::Over;
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Outcome<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = self.0.lock();
        match std::mem::replace(&mut slot.state, State::Over) {
            State::Kept(outcome) => Poll::Ready(Some(outcome)),
            State::Over => Poll::Ready(None),
            State::Open => {
                slot.state = State::Open;
                if !slot.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                    slot.waker = Some(cx.waker().clone());
                }
                if slot.pump.is_none() {
                    slot.pump = Pump::of_this_thread();
                }
                Poll::Pending
            }
        }
    }
}

/// The wakes of one group.
#[derive(Default)]
pub(super) struct Wakes {
    pumps: Vec<Arc<Pump>>,
}

impl Wakes {
    fn add(&mut self, waker: Waker, pump: Option<Arc<Pump>>) {
        match pump {
            Some(pump) => match pump.push(waker) {
                Ok(()) => {
                    if !self.pumps.iter().any(|p| Arc::ptr_eq(p, &pump)) {
                        self.pumps.push(pump);
                    }
                }
                Err(waker) => waker.wake(),
            },
            None => waker.wake(),
        }
    }

    /// Pokes each thread once.
    pub(super) fn send(&mut self) {
        self.pumps.drain(..).for_each(|pump| pump.poke.notify_one());
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.send();
    }
}

/// Passes the wakes of one thread's tasks on.
struct Pump {
    /// `None` once the pump's task has ended.
    wakers: Mutex<Option<Vec<Waker>>>,
    poke: Notify,
}

thread_local! {
    /// The pumps of this thread by runtime: more than one only where runtimes are nested or follow each other (tests).
    static PUMPS: RefCell<Vec<(Id, Arc<Pump>)>> = const { RefCell::new(Vec::new()) };
}

impl Pump {
    fn of_this_thread() -> Option<Arc<Pump>> {
        let runtime = Handle::try_current().ok()?;
        let id = runtime.id();
        PUMPS.with_borrow_mut(|pumps| {
            pumps.retain(|(_, pump)| pump.wakers.lock().is_some());
            if let Some((_, pump)) = pumps.iter().find(|(of, _)| *of == id) {
                return Some(Arc::clone(pump));
            }
            let pump = Arc::new(Pump { wakers: Mutex::new(Some(Vec::new())), poke: Notify::new() });
            pumps.push((id, Arc::clone(&pump)));
            runtime.spawn(Running(Arc::clone(&pump)).run());
            Some(pump)
        })
    }

    /// Gives the waker back if nobody would pass it on.
    fn push(&self, waker: Waker) -> Result<(), Waker> {
        match &mut *self.wakers.lock() {
            Some(wakers) => {
                wakers.push(waker);
                Ok(())
            }
            None => Err(waker),
        }
    }
}

/// The pump's task. Dropped with its runtime, it wakes what it still holds and takes no more.
struct Running(Arc<Pump>);

impl Running {
    async fn run(self) {
        loop {
            self.0.poke.notified().await;
            let wakers = self.0.wakers.lock().as_mut().map(std::mem::take).unwrap_or_default();
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let wakers = self.0.wakers.lock().take().unwrap_or_default();
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep_from_another_thread(promises: Vec<Promise<u32>>) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            let mut wakes = Wakes::default();
            promises.into_iter().zip(0..).for_each(|(promise, n)| promise.keep(n, &mut wakes));
            wakes.send();
        })
    }

    fn wait_for_many(runtime: &tokio::runtime::Runtime) {
        runtime.block_on(async {
            let (promises, outcomes): (Vec<_>, Vec<_>) = (0..100).map(|_| pair()).unzip();
            let tasks: Vec<_> = outcomes.into_iter().map(tokio::spawn).collect();
            tokio::task::yield_now().await;
            let keeper = keep_from_another_thread(promises);
            for (task, n) in tasks.into_iter().zip(0..) {
                assert_eq!(task.await.unwrap(), Some(n));
            }
            keeper.join().unwrap();
        });
    }

    #[test]
    fn all_waiters_of_a_thread_get_their_outcome() {
        wait_for_many(&tokio::runtime::Builder::new_current_thread().build().unwrap());
        wait_for_many(&tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap());
    }

    #[test]
    fn a_runtime_that_is_not_driven_does_not_hold_up_another_on_the_same_thread() {
        let idle = tokio::runtime::Builder::new_current_thread().build().unwrap();
        wait_for_many(&idle);
        wait_for_many(&tokio::runtime::Builder::new_current_thread().build().unwrap());
        drop(idle);
        wait_for_many(&tokio::runtime::Builder::new_current_thread().build().unwrap());
    }

    #[tokio::test]
    async fn a_promise_dropped_unkept_ends_the_wait() {
        let (promise, outcome) = pair::<()>();
        let task = tokio::spawn(outcome);
        tokio::task::yield_now().await;
        drop(promise);
        assert_eq!(task.await.unwrap(), None);
    }

    #[test]
    fn many_waiters_of_one_thread_cost_one_poke() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (promises, outcomes): (Vec<_>, Vec<_>) = (0..10).map(|_| pair::<u32>()).unzip();
            let tasks: Vec<_> = outcomes.into_iter().map(tokio::spawn).collect();
            tokio::task::yield_now().await;
            let mut wakes = Wakes::default();
            promises.into_iter().for_each(|p| p.keep(1, &mut wakes));
            assert_eq!(wakes.pumps.len(), 1);
            wakes.send();
            for task in tasks {
                assert_eq!(task.await.unwrap(), Some(1));
            }
        });
    }
}
