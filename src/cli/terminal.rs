//! A screen that is drawn again and again, and the keys that are pressed at it. Put back as it was at the end, whatever
//! ends it.

use std::io::{IsTerminal, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};

/// Another screen, without a cursor, where long lines are cut off; and back.
const OPEN: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const CLOSE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Home; each line is cleared to its end as it is drawn, and what is below at last, so that nothing flickers.
const HOME: &str = "\x1b[H";
const END_OF_LINE: &str = "\x1b[K\n";
const REST: &str = "\x1b[J";

const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Draw,
    Quit,
}

/// The terminal, while it is ours.
pub struct Screen {
    /// As it was; `None` if its keys are not read.
    before: Option<Termios>,
    keys: Receiver<u8>,
}

impl Screen {
    /// `None` if standard output is no terminal. Without a terminal as standard input no key is heard, and an interrupt
    /// ends the program.
    pub fn open() -> std::io::Result<Option<Self>> {
        if !std::io::stdout().is_terminal() {
            return Ok(None);
        }
        let (send, keys) = sync_channel(16);
        let stdin = std::io::stdin();
        let before = stdin.is_terminal().then(|| tcgetattr(&stdin)).transpose()?;
        let screen = Self { before, keys };
        if let Some(before) = &screen.before {
            // First: a signal that comes while the terminal is ours and nobody heeds it would leave it so.
            heed_signals(send.clone())?;
            let mut ours = before.clone();
            // Keys come one by one, unseen, and Ctrl-C as a key: the terminal is put back before the program ends.
            ours.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
            ours.special_codes[SpecialCodeIndex::VMIN] = 1;
            ours.special_codes[SpecialCodeIndex::VTIME] = 0;
            tcsetattr(&stdin, OptionalActions::Now, &ours)?;
            screen.write(OPEN)?;
            // Ends with the program: a read can't be broken off.
            std::thread::spawn(move || {
                for key in std::io::stdin().lock().bytes() {
                    if key.is_err() || key.is_ok_and(|key| send.send(key).is_err()) {
                        return;
                    }
                }
            });
        }
        Ok(Some(screen))
    }

    /// Draws lines; those that do not fit are left out.
    pub fn draw(&self, text: &str) -> std::io::Result<()> {
        let rows = tcgetwinsize(std::io::stdout()).map_or(24, |size| usize::from(size.ws_row));
        self.write(&framed(text, rows.max(2)))
    }

    /// Waits for a key, at most so long.
    pub fn wait(&self, span: Duration) -> Then {
        match self.keys.recv_timeout(span) {
            Ok(key) => after_key(key),
            Err(RecvTimeoutError::Timeout) => Then::Draw,
            // Nobody is at the keys.
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(span);
                Then::Draw
            }
        }
    }

    fn write(&self, text: &str) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // If the terminal is gone there is nothing to put back.
            let _ = self.write(CLOSE);
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// From now on whoever tells the program to end presses Ctrl-C: the terminal is put back as it was.
fn heed_signals(keys: SyncSender<u8>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let within = runtime.enter();
    let (mut term, mut hang_up, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?, signal(SignalKind::interrupt())?);
    drop(within);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = term.recv() => {}
                _ = hang_up.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        let _ = keys.send(CTRL_C);
    });
    Ok(())
}

const fn after_key(key: u8) -> Then {
    match key {
        b'q' | b'Q' | CTRL_C | CTRL_D => Then::Quit,
        _ => Then::Draw,
    }
}

fn framed(text: &str, rows: usize) -> String {
    // The last row stays free, so that nothing scrolls.
    let lines = text.lines().take(rows - 1);
    lines.fold(HOME.to_owned(), |frame, line| frame + line + END_OF_LINE) + REST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_never_scrolls_the_screen() {
        let frame = framed("a\nb\nc\nd\n", 3);
        assert_eq!(frame, "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }

    #[test]
    fn q_and_interrupts_quit() {
        assert_eq!([b'q', b'Q', 3, 4].map(after_key), [Then::Quit; 4]);
        assert_eq!([b'x', b'\n', 27].map(after_key), [Then::Draw; 3]);
    }
}
