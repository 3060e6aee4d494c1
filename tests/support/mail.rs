//! A mail server: it takes every mail and remembers it.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::eventually;

/// What one client said, line by line.
pub type Session = Vec<String>;

pub struct MailServer {
    pub address: SocketAddr,
    sessions: Arc<Mutex<Vec<Session>>>,
    serving: JoinHandle<()>,
}

impl MailServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let address = listener.local_addr().expect("an address");
        let sessions = Arc::new(Mutex::new(Vec::new()));
        let kept = sessions.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // One at a time is enough. A client that breaks off has said what it has said.
                let session = serve(stream).await;
                kept.lock().push(session);
            }
        });
        Self { address, sessions, serving }
    }

    /// Waits until at least `count` clients have come and gone; what they all said.
    pub async fn receives(&self, count: usize) -> Vec<Session> {
        eventually("mails have come", async || self.sessions.lock().len() >= count).await;
        self.sessions.lock().clone()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(stream: TcpStream) -> Session {
    let (mut said, mut within_mail) = (Session::new(), false);
    let mut stream = BufReader::new(stream);
    let mut answer = "220 mail.test\r\n";
    loop {
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return said;
        }
        let mut line = String::new();
        if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
            return said;
        }
        let line = line.trim_end().to_owned();
        let word = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        answer = match (within_mail, word.as_str()) {
            (true, ".") => {
                within_mail = false;
                "250 kept\r\n"
            }
            (true, _) => "",
            (false, "EHLO") => "250-mail.test\r\n250 AUTH PLAIN\r\n",
            (false, "AUTH") => "235 known\r\n",
            (false, "DATA") => {
                within_mail = true;
                "354 go on\r\n"
            }
            (false, "QUIT") => {
                said.push(line);
                let _ = stream.write_all(b"221 bye\r\n").await;
                return said;
            }
            (false, _) => "250 ok\r\n",
        };
        said.push(line);
    }
}
