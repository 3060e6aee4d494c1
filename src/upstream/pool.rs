//! Idle connections, per thread: no lock that another request's thread could hold, no wake across threads; on a
//! single-threaded runtime a connection, its socket and its timers stay on their thread.
//!
//! On a multi-threaded runtime a connection may be taken on one thread and come back on another; that is sound (it
//! belongs to the runtime, not to the thread) and only changes whose pool it is in. A connection is never used on
//! another runtime than the one it was made on. The pool of a thread is behind a mutex only so that the sweeper, a
//! task that may run on any thread of the runtime, can close what has been idle too long; it is never contended else.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};
use tokio::time::Instant;

use super::h1::Conn;
use super::h2;

/// An idle connection is closed after this.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections kept per thread and upstream server; a further one is closed.
pub(super) const MAX_IDLE: usize = 128;
/// How often idle connections are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Whose connections: one server of one destination's client. Not the address alone: TLS settings differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub upstream: u64,
    pub server: usize,
}

thread_local! {
    static POOL: RefCell<Option<(Id, Arc<Mutex<Pool>>)>> = const { RefCell::new(None) };
}

/// All connections here belong to one runtime; so does the sweeper.
#[derive(Default)]
struct Pool {
    h1: HashMap<Key, Vec<(Instant, Conn)>>,
    h2: HashMap<Key, (Instant, h2::Sender)>,
}

/// An idle HTTP/1 connection that was put back at most `max_idle` ago and has been quiet since; the latest first.
pub(super) fn take(key: Key, max_idle: Duration) -> Option<Conn> {
    with_pool(|pool| {
        let idle = pool.h1.get_mut(&key)?;
        loop {
            let (since, mut conn) = idle.pop()?;
            if since.elapsed() > max_idle {
                // The others are older still; those that are too old for anyone are left to the sweeper.
                if since.elapsed() <= IDLE_TIMEOUT {
                    idle.push((since, conn));
                    return None;
                }
            } else if conn.is_quiet() {
                return Some(conn);
            }
        }
    })
}

/// Keeps an HTTP/1 connection for the next request.
pub(super) fn put(key: Key, conn: Conn) {
    let surplus = with_pool(|pool| {
        let idle = pool.h1.entry(key).or_default();
        if idle.len() >= MAX_IDLE {
            return Some(conn);
        }
        idle.push((Instant::now(), conn));
        None
    });
    drop(surplus);
}

/// The shared HTTP/2 connection, if it is open.
pub(super) fn shared(key: Key) -> Option<h2::Sender> {
    with_pool(|pool| {
        let (used, sender) = pool.h2.get_mut(&key)?;
        if sender.is_closed() {
            pool.h2.remove(&key);
            return None;
        }
        *used = Instant::now();
        Some(sender.clone())
    })
}

/// Makes this HTTP/2 connection the shared one; streams of the one before may finish.
pub(super) fn share(key: Key, sender: h2::Sender) {
    with_pool(|pool| pool.h2.insert(key, (Instant::now(), sender)));
}

/// Takes no new requests to this HTTP/2 connection (it was told to go away). Of several who are told so, the later ones
/// leave the one alone that the first has opened since.
pub(super) fn unshare(key: Key, connection: u64) {
    with_pool(|pool| {
        if pool.h2.get(&key).is_some_and(|(_, sender)| sender.connection == connection) {
            pool.h2.remove(&key);
        }
    });
}

fn with_pool<T>(work: impl FnOnce(&mut Pool) -> T) -> T {
    let runtime = Handle::current().id();
    POOL.with_borrow_mut(|slot| {
        let pool = match slot {
            Some((of, pool)) if *of == runtime => pool,
            // The first use on this thread, or the thread now runs another runtime: the old connections are closed.
            _ => {
                let pool = Arc::<Mutex<Pool>>::default();
                tokio::spawn(sweep(Arc::downgrade(&pool)));
                &mut slot.insert((runtime, pool)).1
            }
        };
        let mut pool = pool.lock();
        work(&mut pool)
    })
}

/// Closes what has been idle too long; ends with its pool (that is, with the thread) or its runtime.
async fn sweep(pool: Weak<Mutex<Pool>>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut pool = pool.lock();
        for idle in pool.h1.values_mut() {
            idle.retain_mut(|(since, conn)| since.elapsed() <= IDLE_TIMEOUT && conn.is_quiet());
        }
        pool.h1.retain(|_, idle| !idle.is_empty());
        pool.h2.retain(|_, (used, sender)| used.elapsed() <= IDLE_TIMEOUT && !sender.is_closed());
    }
}

/// How many connections of `key` are idle on this thread.
#[cfg(test)]
pub(super) fn idle(key: Key) -> usize {
    with_pool(|pool| pool.h1.get(&key).map_or(0, Vec::len))
}
