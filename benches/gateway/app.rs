//! The app behind all contestants: it reads requests and answers `200` as cheaply as can be. One thread.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok";

/// A running app.
#[derive(Clone)]
pub struct App {
    pub address: SocketAddr,
    /// Requests answered so far.
    pub count: Arc<AtomicU64>,
    /// While true, requests are read and not answered.
    pub hangs: Arc<AtomicBool>,
}

impl App {
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("an address");
        let app = Self { address, count: Arc::default(), hangs: Arc::default() };
        let served = app.clone();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    tokio::spawn(connection(stream, served.clone()));
                }
            });
        });
        app
    }
}

async fn connection(mut stream: TcpStream, app: App) {
    let _ = stream.set_nodelay(true);
    let mut buffer: Vec<u8> = Vec::with_capacity(64 * 1024);
    loop {
        while let Some(length) = request_length(&buffer) {
            buffer.drain(..length);
            while app.hangs.load(Ordering::Relaxed) {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            app.count.fetch_add(1, Ordering::Relaxed);
            if stream.write_all(ANSWER).await.is_err() {
                return;
            }
        }
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Bytes of the first message in `buffer`, once it is whole. All contestants tell the body's length.
pub fn request_length(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let start = buffer.iter().position(|byte| *byte == b'\n')? + 1;
    let (_, fields) = match httparse::parse_headers(&buffer[start..head], &mut fields).ok()? {
        httparse::Status::Complete(parsed) => parsed,
        httparse::Status::Partial => return None,
    };
    let length = fields
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("content-length"))
        .and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse::<usize>().ok())
        .unwrap_or(0);
    (buffer.len() >= head + length).then_some(head + length)
}
