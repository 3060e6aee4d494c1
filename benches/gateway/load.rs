//! The load generator: keep-alive TLS connections, each sending unique signed GitHub events without a pause. It must
//! be cheap, because it shares the machine with what it measures: the body is one block with a unique end, so that
//! signing it costs the last block of the hash only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::app::request_length;

pub const SECRET: &str = "a-secret-of-thirty-two-characters";
pub const TARGET: &str = "/hooks/github";
/// The header with the order key.
pub const KEY: &str = "X-Key";

/// What was sent and answered during one measurement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    pub requests: u64,
    pub elapsed: Duration,
    /// The 99th percentile of the answer times.
    pub p99: Duration,
}

impl Sent {
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }
}

/// Requests that differ in their last bytes only.
struct Requests {
    begin: Hmac<Sha256>,
    body: Vec<u8>,
    keys: u64,
}

impl Requests {
    fn new(bytes: usize, keys: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let mut body = br#"{"ref":"refs/heads/main","note":""#.to_vec();
        while body.len() + 20 < bytes {
            body.push(random.alphanumeric() as u8);
        }
        let mut begin = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("HMAC takes any key");
        begin.update(&body);
        Self { begin, body, keys }
    }

    /// Writes request number `number` over what `out` held.
    fn write(&self, number: u64, out: &mut Vec<u8>) {
        use std::io::Write;
        let tail = format!("{number:016x}\"}}");
        let mut mac = self.begin.clone();
        mac.update(tail.as_bytes());
        let signature = hex::encode(mac.finalize().into_bytes());
        out.clear();
        // Writing to a Vec can't fail.
        let _ = write!(
            out,
            "POST {TARGET} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: GitHub-Hookshot/044aadd\r\nAccept: */*\r\n\
             Content-Type: application/json\r\nX-GitHub-Event: push\r\n\
             X-GitHub-Delivery: 72d3162e-cc78-11e3-{number:016x}\r\nX-Hub-Signature-256: sha256={signature}\r\n\
             Content-Length: {}\r\n",
            self.body.len() + tail.len()
        );
        if let Some(key) = number.checked_rem(self.keys) {
            let _ = write!(out, "{KEY}: {key}\r\n");
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out.extend_from_slice(tail.as_bytes());
    }
}

/// A generator for one contestant and one size of bodies.
pub struct Load {
    pub address: SocketAddr,
    pub connections: usize,
    pub body: usize,
    /// Order keys that the requests take turns with; 0 for none.
    pub keys: u64,
    pub ca: String,
}

/// Numbers are never used twice in one process: no request is a repeat.
static NUMBER: AtomicU64 = AtomicU64::new(1);

impl Load {
    /// Sends until `length` has passed or `count` requests are answered.
    pub fn run(&self, length: Duration, count: u64) -> Sent {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(self.send(length, count, None))
    }

    /// Sends for `length` at a steady rate, whatever the answers' pace: the time of an answer that is late because the
    /// one before it was, counts from when its request was due.
    pub fn run_paced(&self, length: Duration, per_second: f64) -> Sent {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let gap = Duration::from_secs_f64(self.connections as f64 / per_second);
        runtime.block_on(self.send(length, u64::MAX, Some(gap)))
    }

    /// One good request, the same again, and a forged one: their statuses.
    pub fn probe(&self) -> [u16; 3] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let requests = Requests::new(self.body, self.keys);
            let (mut good, mut forged) = (Vec::new(), Vec::new());
            requests.write(NUMBER.fetch_add(1, Ordering::Relaxed), &mut good);
            requests.write(NUMBER.fetch_add(1, Ordering::Relaxed), &mut forged);
            let last = forged.len() - 3;
            forged[last] = if forged[last] == b'0' { b'1' } else { b'0' };
            let mut statuses = [0; 3];
            for (status, bytes) in statuses.iter_mut().zip([&good, &good, &forged]) {
                let mut stream = self.connect(&self.connector()).await;
                stream.write_all(bytes).await.expect("written");
                let mut answer = Vec::new();
                while answer.len() < 12 {
                    let read = stream.read_buf(&mut answer).await.expect("an answer");
                    assert!(read > 0, "closed without an answer");
                }
                *status =
                    std::str::from_utf8(&answer[9..12]).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
            }
            statuses
        })
    }

    async fn connect(&self, tls: &TlsConnector) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.expect("the contestant accepts");
        stream.set_nodelay(true).expect("nodelay");
        let name = ServerName::try_from("localhost").expect("a name");
        tls.connect(name, stream).await.expect("TLS")
    }

    fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).expect("PEM")).expect("a root");
        let mut provider = ring::default_provider();
        // One cipher for everyone, whatever they would prefer.
        provider.cipher_suites = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    /// `gap` is between the requests of one connection.
    async fn send(&self, length: Duration, count: u64, gap: Option<Duration>) -> Sent {
        let tls = self.connector();
        let mut streams = Vec::new();
        for _ in 0..self.connections {
            streams.push(self.connect(&tls).await);
        }
        let requests = Arc::new(Requests::new(self.body, self.keys));
        let (stop, left) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(count)));
        let begin = Instant::now();
        let connections = self.connections as u32;
        let tasks: Vec<_> = (0u32..)
            .zip(streams)
            .map(|(number, stream)| {
                // Their turns are spread evenly.
                let pace = gap.map(|gap| Pace { due: begin + gap * number / connections, gap });
                tokio::spawn(connection(stream, requests.clone(), stop.clone(), left.clone(), pace))
            })
            .collect();
        let deadline = begin + length;
        while Instant::now() < deadline && left.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(5).min(length)).await;
        }
        stop.store(true, Ordering::Relaxed);
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.expect("the sender ran"));
        }
        let elapsed = begin.elapsed();
        times.sort_unstable();
        let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
        Sent { requests: times.len() as u64, elapsed, p99: Duration::from_micros(p99.into()) }
    }
}

/// When a connection's next request is due.
struct Pace {
    due: Instant,
    gap: Duration,
}

impl Pace {
    /// Waits for the turn; the instant from which the answer's time counts.
    async fn turn(&mut self) -> Instant {
        let due = self.due;
        self.due += self.gap;
        if Instant::now() >= due {
            return due;
        }
        tokio::time::sleep_until(due.into()).await;
        // That the timer is late is not the contestant's fault.
        Instant::now()
    }
}

/// Returns the answer times in microseconds.
async fn connection(
    mut stream: TlsStream<TcpStream>,
    requests: Arc<Requests>,
    stop: Arc<AtomicBool>,
    left: Arc<AtomicU64>,
    mut pace: Option<Pace>,
) -> Vec<u32> {
    let (mut out, mut buffer, mut times) = (Vec::new(), Vec::with_capacity(4096), Vec::new());
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    while !stop.load(Ordering::Relaxed) && take() {
        requests.write(NUMBER.fetch_add(1, Ordering::Relaxed), &mut out);
        let begin = match &mut pace {
            Some(pace) => pace.turn().await,
            None => Instant::now(),
        };
        stream.write_all(&out).await.expect("written");
        stream.flush().await.expect("flushed");
        let length = loop {
            if let Some(length) = request_length(&buffer) {
                break length;
            }
            let read = stream.read_buf(&mut buffer).await.expect("an answer");
            assert!(read > 0, "closed without an answer: {}", String::from_utf8_lossy(&buffer));
        };
        assert!(
            buffer.starts_with(b"HTTP/1.1 20"),
            "refused: {}",
            String::from_utf8_lossy(&buffer[..length])
        );
        buffer.drain(..length);
        times.push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    times
}
