//! The one HTTP client, used for inline forwarding and by delivery workers: pools, TLS, balancing, timeouts.
//!
//! Bytes go out as they came in (promise 4): on HTTP/1.1 the request head is written with the names' case and order as
//! received. Here is no retrying by policy (that is `deliver`'s), only
//!
//! - the passing over of an upstream that can't be reached (nothing was sent to it),
//! - a few repeats of a request of which an HTTP/2 app says that it did not process it, and
//! - one repeat, on a fresh connection, of a request whose *pooled* connection turned out closed or reset before any
//!   byte of an answer. An app that fails in just that way while it
//!   works on the request sees it twice: deliveries are at least once anyway, and inline forwarding sends the same
//!   event id again. [`Upstream::start`] repeats only requests without a body whose method is idempotent. After a byte
//!   of an answer nothing is ever sent twice.
//!
//! `affinity` is the key by which a request chooses its server. `sign` proves to the app who sends; `origin`, `balance` and `connect` lead to an open connection, `pool` keeps idle ones, `h1` and `h2` speak on them,
//! `limit` says how long it may take. What the app is sent is `forward`'s.

mod affinity;
mod ask;
mod balance;
pub mod batch;
mod checks;
mod connect;
mod error;
mod forward;
mod h1;
mod h2;
mod limit;
mod origin;
mod pool;
mod retry_after;
mod sign;
mod streamed;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod went_to;

/// The parsers of an app's bytes, for fuzzing.
pub mod parsers {
    pub use super::h1::parsers::{Answer, answer};
}

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::buffer::DestinationName;
use crate::config::{Destination, HealthCheck, HostHeader, UpstreamHttp};
use crate::message::{Headers, Method, Scheme};

use balance::{Balance, Turn};
use checks::Checks;
use connect::{Server, Stream};
use limit::{Limit, far};
use origin::Origin;
use pool::Key;

pub use affinity::Affinity;
pub use ask::Ask;
pub use error::{SetupError, UpstreamError};
pub use forward::{EventHeaders, Forward};
pub use retry_after::retry_after;
pub use streamed::{Answering, BodyWriter};
pub use went_to::WentTo;

/// A destination's client. Cheap to clone; pools are per thread.
///
/// All its methods must be called within a tokio runtime with I/O and time.
#[derive(Clone, Debug)]
pub struct Upstream {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Tells this client's pooled connections from those of others.
    id: u64,
    name: DestinationName,
    endpoints: Vec<Endpoint>,
    balance: Balance,
    signer: sign::Signer,
    http: UpstreamHttp,
    connect_timeout: Duration,
    timeout: Duration,
    check: Option<HealthCheck>,
    checks: OnceLock<Checks>,
}

/// One upstream server of a destination.
#[derive(Debug)]
struct Endpoint {
    /// Its URL, as it may be shown.
    name: String,
    server: Server,
    /// Replaces the value of `Host`, if the upstream's own is asked for.
    host: Option<String>,
    /// One HTTP/2 connection is opened at a time: those who wait share it.
    connecting: Semaphore,
}

/// The head of a request to the app, hop-by-hop headers already dropped. `headers` holds `Host`.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub method: Method,
    pub target: String,
    pub headers: Headers,
    /// The key by which its server is chosen, on destinations that ask for one.
    pub affinity: Option<Affinity>,
    /// Who wants to know which server it goes to.
    pub went_to: Option<WentTo>,
}

/// Where a connection came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Pool,
    Connect,
}

/// Why one upstream gave no answer.
enum Miss {
    /// Nothing was sent, or nothing was done with it: the next upstream may be tried.
    Untouched(UpstreamError),
    Final(UpstreamError),
}

impl Upstream {
    /// Reads the certificate files; does no network I/O. All upstreams of a destination must have the same path and
    /// query, because one head is made for all of them.
    pub fn new(destination: &Destination) -> Result<Self, SetupError> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let origins: Vec<Origin> = destination
            .upstreams
            .iter()
            .map(|uri| Origin::new(uri).map_err(SetupError))
            .collect::<Result<_, _>>()?;
        let Some(first) = destination.upstreams.first() else {
            return Err(SetupError(format!("{}: no upstream", destination.name)));
        };
        if !destination.upstreams.iter().all(|uri| origin::same_target(uri, first)) {
            let name = &destination.name;
            return Err(SetupError(format!("{name}: all upstreams must have the same path and query")));
        }
        let encrypted = origins.iter().any(|origin| origin.scheme == Scheme::Https);
        let connector = encrypted.then(|| tls::connector(&destination.tls, destination.http)).transpose()?;
        // A `Host` that the operator sets wins over the upstream's own.
        let sets_host = destination.headers.set.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
        let own_host = destination.host == HostHeader::Upstream && !sets_host;
        let endpoints: Vec<Endpoint> = origins
            .into_iter()
            .map(|origin| {
                let host = own_host.then(|| origin.authority.clone());
                let name = format!("{}://{}", origin.scheme.as_str(), origin.authority);
                let server = Server::new(origin, &destination.tls, destination.http, connector.as_ref())?;
                Ok(Endpoint { name, server, host, connecting: Semaphore::new(1) })
            })
            .collect::<Result<_, SetupError>>()?;
        Ok(Self {
            inner: Arc::new(Inner {
                id: IDS.fetch_add(1, Ordering::Relaxed),
                name: destination.name.clone(),
                balance: Balance::new(endpoints.iter().map(|endpoint| &*endpoint.name), &destination.balance),
                check: destination.health.clone(),
                checks: OnceLock::new(),
                endpoints,
                signer: sign::Signer::new(destination)?,
                http: destination.http,
                connect_timeout: destination.connect_timeout,
                timeout: destination.timeout,
            }),
        })
    }

    /// Sends a request with its whole body and waits for the head of the answer. The destination's `timeout` runs from
    /// here to the end of the answer's body. The app's answer may come before it has the whole body: a success is
    /// given out while the rest is still sent, anything else ends the sending.
    ///
    /// It is signed as the destination says. A token that the app refuses (401) is fetched anew once, and the request sent
    /// again with it; that the app has not taken it is what its answer says. If there is no other token, that is the
    /// gateway's own trouble, and the app's answer no answer to the event.
    pub async fn send(&self, request: &Outgoing, body: Bytes) -> Result<Incoming, UpstreamError> {
        let Some(signed) = self.inner.signer.sign(request, &body).await? else {
            return self.send_as_is(request, body).await;
        };
        let answer = self.send_as_is(&signed.request, body.clone()).await?;
        if answer.status != 401 {
            return Ok(answer);
        }
        match self.inner.signer.renewed(&signed).await? {
            Some(again) => self.send_as_is(&again.request, body).await,
            None => Ok(answer),
        }
    }

    async fn send_as_is(&self, request: &Outgoing, body: Bytes) -> Result<Incoming, UpstreamError> {
        let mut limit = Limit::whole(self.inner.timeout);
        let mut failure = None;
        for server in self.inner.balance.order(request.affinity) {
            let mut turn = self.inner.balance.turn(server);
            match self.try_server(server, request, &body, &mut limit).await {
                Ok(incoming) => {
                    turn.begins(incoming.status < 500);
                    return Ok(Incoming { turn: Some(turn), ..incoming });
                }
                Err(Miss::Final(error)) => {
                    turn.fails(error.is_ours());
                    return Err(error);
                }
                Err(Miss::Untouched(error)) => failure = Some(worse(failure, error)),
            }
            if limit.deadline() <= tokio::time::Instant::now() {
                break;
            }
        }
        Err(failure.unwrap_or(UpstreamError::Timeout("connect")))
    }

    /// The same to a given server, whatever it did lately.
    async fn send_to(
        &self,
        server: usize,
        request: &Outgoing,
        body: &Bytes,
        limit: &mut Limit,
    ) -> Result<Incoming, UpstreamError> {
        let sent = self.try_server(server, request, body, limit).await;
        sent.map_err(|(Miss::Untouched(error) | Miss::Final(error))| error)
    }

    async fn try_server(
        &self,
        server: usize,
        request: &Outgoing,
        body: &Bytes,
        limit: &mut Limit,
    ) -> Result<Incoming, Miss> {
        self.goes_to(server, request);
        match self.inner.http {
            UpstreamHttp::Http1 => self.send_h1(server, request, body, limit).await,
            UpstreamHttp::Http2 => self.send_h2(server, request, body, limit).await,
        }
    }

    fn goes_to(&self, server: usize, request: &Outgoing) {
        if let Some(told) = &request.went_to {
            told.tell(&self.inner.endpoints[server].server.origin);
        }
    }

    /// How each server stands.
    pub fn servers(&self) -> Vec<ServerStatus> {
        let of = |(server, endpoint): (usize, &Endpoint)| ServerStatus {
            upstream: endpoint.name.clone(),
            state: self.inner.balance.word(server),
            in_flight: self.inner.balance.in_flight(server),
        };
        self.inner.endpoints.iter().enumerate().map(of).collect()
    }

    async fn send_h1(
        &self,
        server: usize,
        request: &Outgoing,
        body: &Bytes,
        limit: &mut Limit,
    ) -> Result<Incoming, Miss> {
        if let Some(conn) = pool::take(self.key(server), pool::IDLE_TIMEOUT) {
            match self.exchange_h1(conn, server, request, body, limit).await {
                Err(failure) if failure.unanswered => {}
                done => return done.map_err(|failure| Miss::Final(failure.error)),
            }
        }
        let stream = self.connect(server, limit).await.map_err(Miss::Untouched)?;
        let done = self.exchange_h1(h1::Conn::new(stream), server, request, body, limit).await;
        done.map_err(|failure| Miss::Final(failure.error))
    }

    async fn exchange_h1(
        &self,
        mut conn: h1::Conn,
        server: usize,
        request: &Outgoing,
        body: &Bytes,
        limit: &mut Limit,
    ) -> Result<Incoming, h1::Failure> {
        let length = h1::Length::Known(body.len() as u64);
        self.encode(&mut conn, server, request, length)
            .map_err(|error| h1::Failure { error, unanswered: false })?;
        let asked = if request.method == Method::HEAD { h1::Asked::Head } else { h1::Asked::Other };
        let (head, unread) = h1::Reader::whole(conn, body.clone(), asked).head(limit).await?;
        let body = h1::Body::new(&head, unread, self.key(server), std::mem::replace(limit, Limit::None));
        Ok(Incoming {
            status: head.status,
            headers: head.headers,
            body: Body::H1(Box::new(body)),
            turn: None,
        })
    }

    async fn send_h2(
        &self,
        server: usize,
        request: &Outgoing,
        body: &Bytes,
        limit: &mut Limit,
    ) -> Result<Incoming, Miss> {
        let mut repeats = 0;
        loop {
            let (mut sender, from) = self.sender(server, limit).await.map_err(Miss::Untouched)?;
            let request = self.h2_request(server, request, h2::RequestBody::whole(body.clone()));
            let exchange = h2::exchange(&mut sender, request.map_err(Miss::Final)?);
            let failure = match tokio::time::timeout_at(limit.deadline(), exchange).await {
                Ok(Ok(response)) => return Ok(Incoming::h2(response, std::mem::replace(limit, Limit::None))),
                Ok(Err(failure)) => failure,
                Err(_) => return Err(Miss::Final(UpstreamError::Timeout("answer"))),
            };
            let again = failure.again(from, repeats).map(|wait| tokio::time::Instant::now() + wait);
            match (again.filter(|at| *at < limit.deadline()), failure.error) {
                (Some(at), _) => {
                    pool::unshare(self.key(server), failure.connection);
                    tokio::time::sleep_until(at).await;
                    repeats += 1;
                }
                (None, error @ UpstreamError::Unprocessed(_)) => {
                    pool::unshare(self.key(server), failure.connection);
                    return Err(Miss::Untouched(error));
                }
                (None, error) => return Err(Miss::Final(error)),
            }
        }
    }

    fn h2_request(
        &self,
        server: usize,
        request: &Outgoing,
        body: h2::RequestBody,
    ) -> Result<http::Request<h2::RequestBody>, UpstreamError> {
        let endpoint = &self.inner.endpoints[server];
        h2::request(request, endpoint.host.as_deref(), &endpoint.server.origin, body)
    }

    /// The thread's HTTP/2 connection to a server, opened if need be.
    async fn sender(&self, server: usize, limit: &Limit) -> Result<(h2::Sender, From), UpstreamError> {
        let key = self.key(server);
        if let Some(sender) = pool::shared(key) {
            return Ok((sender, From::Pool));
        }
        let deadline = limit.deadline().min(far(self.inner.connect_timeout));
        let turn = tokio::time::timeout_at(deadline, self.inner.endpoints[server].connecting.acquire()).await;
        // The semaphore is never closed; if it were, one more connection would be all the harm.
        let _turn = turn.map_err(|_| UpstreamError::Timeout("connect"))?;
        if let Some(sender) = pool::shared(key) {
            return Ok((sender, From::Pool));
        }
        let sender = h2::handshake(self.connect(server, limit).await?).await?;
        pool::share(key, sender.clone());
        Ok((sender, From::Connect))
    }

    fn encode(
        &self,
        conn: &mut h1::Conn,
        server: usize,
        request: &Outgoing,
        length: h1::Length,
    ) -> Result<(), UpstreamError> {
        let endpoint = &self.inner.endpoints[server];
        let authority = &endpoint.server.origin.authority;
        h1::encode(conn.output(), request, endpoint.host.as_deref(), authority, length)
            .map_err(|problem| UpstreamError::Protocol(problem.into()))
    }

    /// A fresh connection; what became of it counts for the server's turn in the balance.
    async fn connect(&self, server: usize, limit: &Limit) -> Result<Stream, UpstreamError> {
        let deadline = limit.deadline().min(far(self.inner.connect_timeout));
        let connected = self.inner.endpoints[server].server.connect(deadline).await;
        match &connected {
            Ok(_) => self.inner.balance.reached(server),
            // Trouble of our own says nothing about the server.
            Err(UpstreamError::Local(_)) => {}
            Err(_) => self.inner.balance.unreachable(server),
        }
        connected
    }

    const fn key_of(id: u64, server: usize) -> Key {
        Key { upstream: id, server }
    }
    fn key(&self, server: usize) -> Key {
        Self::key_of(self.inner.id, server)
    }
}

/// Of two failures to reach an upstream, the one that says more: the app's before the gateway's own.
fn worse(earlier: Option<UpstreamError>, later: UpstreamError) -> UpstreamError {
    match earlier {
        Some(earlier) if later.is_ours() || !earlier.is_ours() => earlier,
        _ => later,
    }
}

/// The app's answer. Dropping it before the end closes the connection (on HTTP/2: resets the stream).
#[derive(Debug)]
pub struct Incoming {
    pub status: u16,
    /// As received (on HTTP/2 with lower-case names), those of the hop included.
    pub headers: Headers,
    body: Body,
    /// Ends with it, and tells how it ended.
    turn: Option<Turn>,
}

/// How one server of a destination stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// Scheme, host and port.
    pub upstream: String,
    /// `up`, `skipped` (real requests failed lately) or `down` (health checks fail).
    pub state: &'static str,
    pub in_flight: usize,
}

#[derive(Debug)]
enum Body {
    H1(Box<h1::Body>),
    H2(Box<h2::Body>),
}

impl Incoming {
    fn h2(response: http::Response<hyper::body::Incoming>, limit: Limit) -> Self {
        let (status, headers) = (response.status().as_u16(), h2::headers(&response));
        Self {
            status,
            headers,
            body: Body::H2(Box::new(h2::Body::new(response.into_body(), limit))),
            turn: None,
        }
    }

    /// Gives the app more time: so much of it has passed while the caller did not ask.
    pub fn extend(&mut self, by: Duration) {
        match &mut self.body {
            Body::H1(body) => body.extend(by),
            Body::H2(body) => body.extend(by),
        }
    }

    /// The next piece of the body, `None` at its end (then the connection goes back to its pool). After a 101: raw
    /// bytes. Safe to cancel. After an error the same error comes again: a body that broke never looks complete.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let chunk = match &mut self.body {
            Body::H1(body) => body.chunk().await,
            Body::H2(body) => body.chunk().await,
        };
        match (&chunk, &mut self.turn) {
            (Ok(None), Some(turn)) => turn.ends(),
            (Err(error), Some(turn)) => turn.breaks_off(error.is_ours()),
            _ => {}
        }
        chunk
    }
}
