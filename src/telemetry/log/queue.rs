//! The queue between whoever logs and the thread that writes: bounded in lines and bytes, never waits.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use crate::clock::Clock;
use crate::config::LogFormat;

/// Lines that wait at most.
const MAX_LINES: usize = 4096;
/// Bytes that wait at most, all lines together.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Where lines are put; clones share one queue.
#[derive(Clone, Debug)]
pub struct Queue {
    sender: SyncSender<Item>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes that wait or are being written.
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

#[derive(Debug)]
enum Item {
    Line(Vec<u8>),
    /// Everything before this is written: tell so.
    Mark(SyncSender<()>),
}

impl Queue {
    /// Starts the thread that writes to `sink`. It ends with the last clone.
    pub fn start(sink: impl Write + Send + 'static, format: LogFormat) -> io::Result<Self> {
        let (sender, items) = sync_channel(MAX_LINES);
        let state = Arc::new(State::default());
        let of_thread = state.clone();
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_all(&items, sink, &of_thread, format))?;
        Ok(Self { sender, state })
    }

    pub fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }

    fn put(&self, line: &[u8]) {
        let len = line.len();
        if self.state.bytes.fetch_add(len, Ordering::AcqRel) + len > MAX_BYTES
            || self.sender.try_send(Item::Line(line.to_vec())).is_err()
        {
            self.state.bytes.fetch_sub(len, Ordering::AcqRel);
            self.state.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was put so far is written, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let (written, wait) = sync_channel(1);
        let mut mark = Item::Mark(written);
        while let Err(TrySendError::Full(back)) = self.sender.try_send(mark) {
            if Instant::now() >= until {
                return;
            }
            mark = back;
            std::thread::sleep(Duration::from_millis(1));
        }
        // Whether it was written or the patience is over: there is nothing else to do.
        let _: Result<(), RecvTimeoutError> =
            wait.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

fn write_all(items: &Receiver<Item>, mut sink: impl Write, state: &State, format: LogFormat) {
    let mut told = 0;
    while let Ok(item) = items.recv() {
        match item {
            Item::Line(line) => {
                // Standard error is gone: nobody is left to tell, and the counter shows it.
                if sink.write_all(&line).is_err() {
                    state.dropped.fetch_add(1, Ordering::Relaxed);
                }
                state.bytes.fetch_sub(line.len(), Ordering::AcqRel);
            }
            Item::Mark(written) => {
                let _ = sink.flush();
                let _ = written.try_send(());
            }
        }
        let dropped = state.dropped.load(Ordering::Relaxed);
        if dropped > told && sink.write_all(note(dropped - told, format).as_bytes()).is_ok() {
            told = dropped;
        }
    }
}

fn note(lines: u64, format: LogFormat) -> String {
    let now = Clock::System.now();
    let message = format!("{lines} log lines were dropped: the reader of standard error did not keep up");
    match format {
        LogFormat::Text => format!("{now}  WARN {}: {message}\n", module_path!()),
        LogFormat::Json => format!(
            "{{\"timestamp\":\"{now}\",\"level\":\"WARN\",\"message\":\"{message}\",\"target\":\"{}\",\"lines\":{lines}}}\n",
            module_path!()
        ),
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Lines<'a>;
    fn make_writer(&'a self) -> Lines<'a> {
        Lines(self)
    }
}

/// Takes whole lines: the formatter writes each event at once.
pub struct Lines<'a>(&'a Queue);

impl Write for Lines<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line);
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A pipe whose reader reads only while the test lets it.
    #[derive(Clone, Default)]
    struct Pipe {
        read: Arc<Mutex<()>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Pipe {
        fn text(&self) -> String {
            String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
        }
    }
    impl Write for Pipe {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let _reading = self.read.lock().unwrap();
            self.written.lock().unwrap().extend_from_slice(buf);
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_was_put_is_written_in_order_when_flush_returns() {
        let pipe = Pipe::default();
        let queue = Queue::start(pipe.clone(), LogFormat::Json).unwrap();
        (0..100).for_each(|n| queue.put(format!("{n}\n").as_bytes()));
        queue.flush(Duration::from_secs(20));
        assert_eq!(pipe.text(), (0..100).map(|n| format!("{n}\n")).collect::<String>());
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_not_time_and_is_told() {
        let pipe = Pipe::default();
        let queue = Queue::start(pipe.clone(), LogFormat::Json).unwrap();
        let stalled = pipe.read.lock().unwrap();
        (0..MAX_LINES * 2).for_each(|_| queue.put(b"line\n"));
        let dropped = queue.dropped();
        assert!(dropped >= MAX_LINES as u64 - 1, "{dropped}");
        drop(stalled);
        queue.flush(Duration::from_secs(20));
        queue.flush(Duration::from_secs(20));
        let text = pipe.text();
        let note = text.lines().find(|l| *l != "line").unwrap();
        let note: serde_json::Value = serde_json::from_str(note).unwrap();
        assert_eq!(note["lines"], dropped);
        assert_eq!(text.lines().filter(|l| *l == "line").count() as u64 + dropped, MAX_LINES as u64 * 2);
    }

    #[test]
    fn waiting_bytes_are_bounded_too() {
        let pipe = Pipe::default();
        let queue = Queue::start(pipe.clone(), LogFormat::Text).unwrap();
        let _stalled = pipe.read.lock().unwrap();
        let long = vec![b'x'; MAX_BYTES / 4];
        (0..6).for_each(|_| queue.put(&long));
        assert_eq!(queue.dropped(), 2);
    }
}
