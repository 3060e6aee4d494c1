//! `tidegate send`: a signed test event, sent as its provider would.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

use super::captured::split_url;
use super::check::Output;
use super::sign::{KeyArgs, Sender, SignedEvent, read_body};
use crate::clock::Clock;
use crate::message::Scheme;

/// From connecting to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An answer's body beyond this is cut off: it is only shown.
const MAX_ANSWER: usize = 64 * 1024;

/// Send a signed test event
///
/// Exit code 0: every answer was 2xx; 1: one was not, or there was none.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
Examples:
  tidegate send github --to https://localhost:8443/hooks/github --secret env:GITHUB_WEBHOOK_SECRET --insecure
  tidegate send stripe charge.refunded --to https://localhost:8443/hooks/stripe --secret file:secrets/stripe --ca cert.pem
  tidegate send slack --to http://127.0.0.1:3000/slack --secret env:SLACK_SECRET    straight to the app")]
pub struct Send {
    /// The provider: a built-in name, or the path of a pack file
    #[arg(value_name = "PROVIDER")]
    provider: String,
    /// Which of the pack's test events [default: its usual one]
    #[arg(value_name = "EVENT")]
    event: Option<String>,
    /// Where to send it
    #[arg(long, value_name = "URL")]
    to: String,
    #[command(flatten)]
    keys: KeyArgs,
    /// Another body: a file, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// How many to send, one after the other, each with its own id
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Trust these certificates (PEM) instead of the public ones
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Accept any certificate, such as a self-signed one
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Output,
}

/// What came back.
struct Answer {
    status: http::StatusCode,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Send {
    pub fn run(self) -> ExitCode {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        };
        match runtime.block_on(self.send_all()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(message) => {
                eprintln!("tidegate: {message}");
                ExitCode::from(2)
            }
        }
    }

    /// Sends all events; whether each was answered with 2xx. Errors are about the arguments.
    async fn send_all(&self) -> Result<bool, String> {
        let sender = Sender::new(&self.provider, &self.keys)?;
        let body = self.body.as_deref().map(read_body).transpose()?;
        let tls = self.tls()?;
        let mut good = true;
        for number in 1..=self.count {
            let event = sender.event(self.event.as_deref(), body.clone(), &self.to, Clock::System.now())?;
            let answer = match tokio::time::timeout(TIMEOUT, send(event, &tls)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => {
                    eprintln!("tidegate: {}{error}", self.which(number));
                    good = false;
                    continue;
                }
                Err(_) => {
                    eprintln!("tidegate: {}no answer within {} s", self.which(number), TIMEOUT.as_secs());
                    good = false;
                    continue;
                }
            };
            good &= answer.status.is_success();
            match self.output {
                Output::Text => answer.print(),
                Output::Json => println!("{}", answer.json()),
            }
        }
        Ok(good)
    }

    /// Which of several events a message is about.
    fn which(&self, number: u32) -> String {
        if self.count == 1 { String::new() } else { format!("event {number}: ") }
    }

    fn tls(&self) -> Result<TlsConnector, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let config = if self.insecure {
            let verifier = Arc::new(AnyCertificate(algorithms(&provider)));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            match &self.ca {
                Some(path) => {
                    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
                    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
                        roots
                            .add(certificate.map_err(|error| wrong(&error))?)
                            .map_err(|error| wrong(&error))?;
                    }
                    if roots.is_empty() {
                        return Err(wrong(&"no certificate in PEM"));
                    }
                }
                None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

async fn send(event: SignedEvent, tls: &TlsConnector) -> Result<Answer, String> {
    let (scheme, authority, target) = split_url(&event.url)?;
    let host_and_port: http::uri::Authority =
        authority.parse().map_err(|_| format!("`{authority}` is not a host"))?;
    let host = host_and_port.host();
    let port = host_and_port.port_u16().unwrap_or(scheme.default_port());
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let connected = TcpStream::connect((bare, port)).await;
    let stream = connected.map_err(|error| format!("{host}:{port}: {error}"))?;
    let mut request = http::Request::post(target).header("host", authority);
    for (name, value) in &event.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(event.body))).map_err(|error| error.to_string())?;
    match scheme {
        Scheme::Http => exchange(stream, request).await,
        Scheme::Https => {
            let name = ServerName::try_from(bare.to_owned()).map_err(|error| error.to_string())?;
            let stream = tls.connect(name, stream).await.map_err(|error| tls_failed(host, &error))?;
            exchange(stream, request).await
        }
    }
}

fn tls_failed(host: &str, error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    let help = match inner {
        Some(TlsError::InvalidCertificate(_)) => " (trust it with --ca FILE, or take any with --insecure)",
        Some(TlsError::InvalidMessage(_)) => " (does it speak TLS? else write http://)",
        _ => "",
    };
    format!("TLS with {host}: {error}{help}")
}

async fn exchange<S>(stream: S, request: http::Request<Full<Bytes>>) -> Result<Answer, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let answering = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map(|body| body.to_bytes());
        let headers = head.headers.iter().map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        Ok(Answer { status: head.status, headers: headers.collect(), body: body.unwrap_or_default() })
    };
    // The connection must be driven while the answer is awaited; it may well end first.
    tokio::pin!(answering, connection);
    tokio::select! {
        answer = &mut answering => answer,
        _ = &mut connection => answering.await,
    }
}

impl Answer {
    fn print(&self) {
        println!("{}", self.status);
        for (name, value) in &self.headers {
            println!("{name}: {value}");
        }
        let body = String::from_utf8_lossy(&self.body);
        if body.is_empty() {
            println!();
        } else {
            println!("\n{body}");
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "status": self.status.as_u16(),
            "headers": self.headers,
            "body": String::from_utf8_lossy(&self.body),
        })
    }
}

/// Accepts any certificate, but not any signature made with it.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

fn algorithms(provider: &CryptoProvider) -> WebPkiSupportedAlgorithms {
    provider.signature_verification_algorithms
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        send: Send,
    }

    fn parse(arguments: &[&str]) -> Send {
        Cli::try_parse_from([&["send"], arguments].concat()).unwrap_or_else(|error| panic!("{error}")).send
    }

    /// Answers each connection with `answer` and gives what was sent.
    async fn answer_once<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(mut stream: S) -> String {
        let mut seen = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let read = stream.read(&mut piece).await.unwrap();
            seen.extend_from_slice(&piece[..read]);
            let text = String::from_utf8_lossy(&seen).into_owned();
            let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.len() >= length) {
                let answer = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\ntidegate-event-id: 1\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
                return text;
            }
        }
    }

    #[tokio::test]
    async fn an_event_arrives_signed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = format!("http://{}/in?a=1", listener.local_addr().unwrap());
        let app = tokio::spawn(async move {
            let mut seen = Vec::new();
            for _ in 0..2 {
                seen.push(answer_once(listener.accept().await.unwrap().0).await);
            }
            seen
        });
        let sent = parse(&["stripe", "charge.refunded", "--to", &to, "--secret", "whsec_x", "--count", "2"])
            .send_all()
            .await;
        assert_eq!(sent, Ok(true));
        let seen = app.await.unwrap();
        assert!(seen[0].starts_with("POST /in?a=1 HTTP/1.1\r\n"), "{}", seen[0]);
        assert!(
            seen[0].contains("stripe-signature: t=") && seen[0].contains("charge.refunded"),
            "{}",
            seen[0]
        );
        assert_ne!(seen[0], seen[1]);
    }

    #[tokio::test]
    async fn a_certificate_of_ones_own_needs_a_word() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&pair).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, certificate.pem()).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
        let config =
            tokio_rustls::rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)
                .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(stream) = acceptor.accept(stream).await {
                    answer_once(stream).await;
                }
            }
        });
        let plain = ["github", "--to", &to, "--secret", "x"];
        assert_eq!(parse(&plain).send_all().await, Ok(false));
        let event = SignedEvent { url: to.clone(), headers: Vec::new(), body: Vec::new() };
        let error = send(event, &parse(&plain).tls().unwrap()).await.err().unwrap();
        assert!(error.contains("--insecure"), "{error}");
        assert_eq!(parse(&[&plain[..], &["--insecure"]].concat()).send_all().await, Ok(true));
        assert_eq!(parse(&[&plain[..], &["--ca", ca.to_str().unwrap()]].concat()).send_all().await, Ok(true));
    }
}
