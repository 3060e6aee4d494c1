//! A small client of the admin API, over TCP or a unix socket. One request a connection: a command makes few.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::address::{Address, AdminArgs};
use super::failure::Failure;
use crate::secret::Secret;

/// A listing of 500 events with everything that is bounded at its bound stays below this.
const MAX_JSON: usize = 64 * 1024 * 1024;
/// Of an export: the longest event there can be, and what else a part holds.
const MAX_PART: usize = (1 << 30) + MAX_JSON;
/// A replay of many events takes its time; the API itself gives up waiting before this.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Client {
    address: Address,
    token: Option<Secret>,
    patience: Duration,
}

/// What a request carries.
enum Content {
    Json(Vec<u8>),
    Tar(Vec<u8>),
}

/// Why there is no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no gateway answers at {0}: is `tidegate run` up? ({1})")]
    Nobody(Address, String),
    #[error("{0} did not answer in time")]
    Slow(Address),
    #[error("{0} broke off: {1}")]
    Broken(Address, String),
    /// The API's own no.
    #[error("{detail}")]
    Refused { status: StatusCode, detail: String },
    #[error(transparent)]
    Output(#[from] std::io::Error),
}

impl ClientError {
    /// Whether the gateway may be gone, or on its way back.
    pub fn is_no_answer(&self) -> bool {
        matches!(self, Self::Nobody(..) | Self::Slow(_) | Self::Broken(..))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Output(error) => Failure::Output(error),
            ClientError::Refused { status: StatusCode::UNAUTHORIZED, .. } => Failure::No(
                "the gateway wants its admin token: give --token-file or set TIDEGATE_ADMIN_TOKEN".into(),
            ),
            other => Failure::No(other.to_string()),
        }
    }
}

impl Client {
    pub fn new(args: &AdminArgs, patience: Duration) -> Result<Self, Failure> {
        let (address, token) = args.resolve()?;
        Ok(Self { address, token, patience })
    }

    #[cfg(test)]
    pub fn at(address: Address, token: Option<&str>) -> Self {
        let token = token.map(|t| Secret::new(t.as_bytes().to_vec()));
        Self { address, token, patience: PATIENCE }
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        block_on(self.json(Method::GET, path, None))
    }

    /// `body` is sent as JSON; `None` sends an empty one.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, ClientError> {
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|e| ClientError::Broken(self.address.clone(), e.to_string()))?;
        block_on(self.json(Method::POST, path, body.map(Content::Json)))
    }

    /// Sends a part of a tar archive.
    pub fn post_tar<T: DeserializeOwned>(&self, path: &str, part: Vec<u8>) -> Result<T, ClientError> {
        block_on(self.json(Method::POST, path, Some(Content::Tar(part))))
    }

    /// Bytes, and where they go on: the value of the header `next`.
    pub fn part(&self, path: &str, next: &HeaderName) -> Result<(Bytes, Option<String>), ClientError> {
        block_on(async {
            let response = self.start(Method::GET, path, None).await?;
            let (status, after) = (response.status(), response.headers().get(next).cloned());
            let body = self.whole(response, MAX_PART).await?;
            if !status.is_success() {
                return Err(self.refusal(status, &body));
            }
            Ok((body, after.and_then(|value| value.to_str().ok().map(str::to_owned))))
        })
    }

    /// Copies the answer's body to `out` as it comes.
    pub fn copy(&self, path: &str, out: &mut dyn Write) -> Result<(), ClientError> {
        block_on(async {
            let response = self.start(Method::GET, path, None).await?;
            if !response.status().is_success() {
                let status = response.status();
                return Err(self.refusal(status, &self.whole(response, MAX_JSON).await?));
            }
            let mut body = response.into_body();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|e| self.broken(&e))?;
                if let Some(data) = frame.data_ref() {
                    out.write_all(data)?;
                }
            }
            out.flush()?;
            Ok(())
        })
    }

    /// Status and body, whatever the status is.
    pub fn probe(&self, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
        block_on(self.exchange(Method::GET, path, None))
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Content>,
    ) -> Result<T, ClientError> {
        let (status, body) = self.exchange(method, path, body).await?;
        if !status.is_success() {
            return Err(self.refusal(status, &body));
        }
        serde_json::from_slice(&body).map_err(|e| {
            let what = format!("this is not what a gateway of this version answers ({e})");
            ClientError::Broken(self.address.clone(), what)
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Content>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let whole = async {
            let response = self.start(method, path, body).await?;
            Ok((response.status(), self.whole(response, MAX_JSON).await?))
        };
        match tokio::time::timeout(self.patience, whole).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Slow(self.address.clone())),
        }
    }

    /// Connects, sends, and waits for the head of the answer.
    async fn start(
        &self,
        method: Method,
        path: &str,
        body: Option<Content>,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = self.request(method, path, body).map_err(|e| self.broken(&e))?;
        let answer = async {
            match &self.address {
                Address::Tcp(authority) => {
                    let stream = TcpStream::connect(authority).await.map_err(|e| self.nobody(&e))?;
                    self.send(stream, request).await
                }
                Address::Unix(path) => {
                    let stream = UnixStream::connect(path).await.map_err(|e| self.nobody(&e))?;
                    self.send(stream, request).await
                }
            }
        };
        match tokio::time::timeout(self.patience, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Slow(self.address.clone())),
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Content>,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let host = match &self.address {
            Address::Tcp(authority) => authority.as_str(),
            Address::Unix(_) => "localhost",
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        request = request.header(ACCEPT, "application/json");
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_bytes(&[b"Bearer ", token.expose()].concat())?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let body = match body {
            None => Vec::new(),
            Some(Content::Json(body)) => {
                request = request.header(CONTENT_TYPE, "application/json");
                body
            }
            Some(Content::Tar(body)) => {
                request = request.header(CONTENT_TYPE, "application/x-tar");
                body
            }
        };
        request.body(Full::from(body))
    }

    async fn send(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(&e))?;
        // Ends with the runtime of this command.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|e| self.broken(&e))
    }

    async fn whole(&self, response: Response<Incoming>, max: usize) -> Result<Bytes, ClientError> {
        let body = http_body_util::Limited::new(response.into_body(), max);
        match body.collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) => Err(ClientError::Broken(self.address.clone(), error.to_string())),
        }
    }

    fn nobody(&self, error: &std::io::Error) -> ClientError {
        ClientError::Nobody(self.address.clone(), error.to_string())
    }
    fn broken(&self, error: &dyn std::error::Error) -> ClientError {
        ClientError::Broken(self.address.clone(), error.to_string())
    }

    /// The detail of a problem body, or what can be said without one.
    fn refusal(&self, status: StatusCode, body: &[u8]) -> ClientError {
        #[derive(serde::Deserialize)]
        struct Problem {
            detail: String,
        }
        let detail = match serde_json::from_slice::<Problem>(body) {
            Ok(problem) => problem.detail,
            Err(_) => format!("{} answered {status}: is this a gateway's admin API?", self.address),
        };
        ClientError::Refused { status, detail }
    }
}

fn block_on<T>(work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn nobody_there_is_said_with_the_address() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Client::at(Address::Tcp(free.to_string()), None);
        let error = client.get::<serde_json::Value>("/status").unwrap_err().to_string();
        let expected = format!("no gateway answers at http://{free}: is `tidegate run` up?");
        assert!(error.starts_with(&expected), "{error}");
    }

    #[test]
    fn what_is_no_gateway_is_recognised() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            for answer in ["HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\noops", "SSH-2.0-x\r\n"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let client = Client::at(Address::Tcp(address.to_string()), None);
        let get = || client.get::<serde_json::Value>("/status").unwrap_err();
        assert!(matches!(get(), ClientError::Refused { status: StatusCode::NOT_FOUND, .. }));
        assert!(matches!(get(), ClientError::Broken(..)));
        server.join().unwrap();
    }
}
