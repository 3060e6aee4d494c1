//! Counters, histograms and label handles that are cheap under many threads: adding is one relaxed atomic on a cell
//! that other threads rarely touch, finding a label's handle is one lock-free load and one hash.
//!
//! The library's own histogram takes a write lock for each observation and its families clone the label set for each
//! lookup; both are too dear on the request path, so it is only used for the text format.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// Cells that a counter is spread over. A power of two, about the number of edge threads that are usual.
const SHARDS: usize = 8;

static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: Cell<usize> = Cell::new(NEXT_SHARD.fetch_add(1, Ordering::Relaxed) % SHARDS);
}

/// This thread's cell. A thread that is being torn down takes the first one.
fn shard() -> usize {
    SHARD.try_with(Cell::get).unwrap_or(0)
}

/// On a cache line of its own, so that threads do not take it from each other.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Padded(AtomicU64);

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter([Padded; SHARDS]);

impl Counter {
    pub fn inc(&self) {
        self.0[shard()].0.fetch_add(1, Ordering::Relaxed);
    }
    pub fn add(&self, count: u64) {
        self.0[shard()].0.fetch_add(count, Ordering::Relaxed);
    }
    pub fn get(&self) -> u64 {
        self.0.iter().map(|cell| cell.0.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

/// What a histogram's numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Observed in nanoseconds, shown in seconds.
    Nanoseconds,
    /// Observed and shown as plain numbers.
    Number,
}

impl Scale {
    fn show(self, value: u64) -> f64 {
        // Exact up to 2^53: 104 days of summed nanoseconds; beyond that the last digits of a sum round.
        #[allow(clippy::cast_precision_loss)]
        let value = value as f64;
        match self {
            Scale::Nanoseconds => value / 1e9,
            Scale::Number => value,
        }
    }
}

/// A distribution over fixed buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    scale: Scale,
    /// Of each shard: a count a bucket, one beyond the last bound, and the sum.
    shards: Box<[Box<[AtomicU64]>]>,
}

/// What a histogram holds at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    pub sum: f64,
    pub count: u64,
    /// Upper bound (the last is infinite) and the observations that fell into this very bucket.
    pub buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// `bounds` ascend, in the unit that is observed.
    pub fn new(bounds: &'static [u64], scale: Scale) -> Self {
        let cells = || (0..bounds.len() + 2).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, scale, shards: (0..SHARDS).map(|_| cells()).collect() }
    }

    pub fn observe(&self, value: u64) {
        let cells = &self.shards[shard()];
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        cells[bucket].fetch_add(1, Ordering::Relaxed);
        cells[self.bounds.len() + 1].fetch_add(value, Ordering::Relaxed);
    }

    pub fn read(&self) -> Distribution {
        let column = |i: usize| {
            self.shards.iter().map(|cells| cells[i].load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
        };
        let bounds = self.bounds.iter().map(|b| self.scale.show(*b)).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.enumerate().map(|(i, bound)| (bound, column(i))).collect();
        Distribution {
            sum: self.scale.show(column(self.bounds.len() + 1)),
            count: buckets.iter().map(|(_, n)| n).sum(),
            buckets,
        }
    }
}

/// One `T` a label value, found without a lock and never more than `max` of them: what comes later shares the value
/// `other`. Labels come from config, so the limit is only a net under a config that is reloaded with new names for
/// ever.
#[derive(Debug)]
pub struct Labelled<T> {
    handles: ArcSwap<HashMap<Arc<str>, Arc<T>>>,
    grow: Mutex<()>,
    max: usize,
    make: fn() -> T,
}

/// The label value of everything beyond the limit.
pub const OTHER: &str = "other";

impl<T> Labelled<T> {
    pub fn new(max: usize, make: fn() -> T) -> Self {
        Self { handles: ArcSwap::default(), grow: Mutex::new(()), max, make }
    }

    /// Does `work` with the handle of `value`.
    pub fn with<R>(&self, value: &str, work: impl FnOnce(&T) -> R) -> R {
        if let Some(handle) = self.handles.load().get(value) {
            return work(handle);
        }
        work(&self.add(value))
    }

    #[cold]
    fn add(&self, value: &str) -> Arc<T> {
        let _growing = self.grow.lock();
        let handles = self.handles.load_full();
        let value = if handles.len() >= self.max && !handles.contains_key(value) { OTHER } else { value };
        if let Some(handle) = handles.get(value) {
            return handle.clone();
        }
        let handle = Arc::new((self.make)());
        let mut grown = HashMap::clone(&handles);
        grown.insert(value.into(), handle.clone());
        self.handles.store(Arc::new(grown));
        handle
    }

    /// All handles, sorted by label value.
    pub fn all(&self) -> Vec<(Arc<str>, Arc<T>)> {
        let mut all: Vec<_> = self.handles.load().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_counter_adds_up_over_threads() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..SHARDS + 3 {
                scope.spawn(|| (0..1000).for_each(|_| counter.inc()));
            }
        });
        assert_eq!(counter.get(), 1000 * (SHARDS as u64 + 3));
    }

    #[test]
    fn a_value_on_a_bound_belongs_to_that_bucket() {
        let histogram = Histogram::new(&[10, 20], Scale::Number);
        [10, 11, 20, 21, 0].into_iter().for_each(|v| histogram.observe(v));
        let read = histogram.read();
        assert_eq!(read.buckets, [(10.0, 2), (20.0, 2), (f64::INFINITY, 1)]);
        assert_eq!((read.count, read.sum), (5, 62.0));
    }

    #[test]
    fn labels_beyond_the_limit_share_one_value() {
        let labelled: Labelled<Counter> = Labelled::new(2, Counter::default);
        for value in ["a", "b", "c", "d", "a"] {
            labelled.with(value, Counter::inc);
        }
        let all: Vec<_> = labelled.all().into_iter().map(|(k, c)| (k.to_string(), c.get())).collect();
        assert_eq!(all, [("a".into(), 2), ("b".into(), 1), ("other".into(), 2)]);
    }

    proptest! {
        #[test]
        fn every_observation_is_in_exactly_one_bucket(values in prop::collection::vec(0u64..5_000, 0..200)) {
            const BOUNDS: &[u64] = &[1, 5, 100, 2500];
            let histogram = Histogram::new(BOUNDS, Scale::Number);
            values.iter().for_each(|v| histogram.observe(*v));
            let read = histogram.read();
            prop_assert_eq!(read.count, values.len() as u64);
            let mut below = 0;
            for (bound, n) in &read.buckets {
                below += n;
                prop_assert_eq!(below, values.iter().filter(|v| **v as f64 <= *bound).count() as u64);
            }
        }
    }
}
