//! Listeners, threads and connections: from a bound socket to a served connection, and the orderly end of all.
//!
//! Each thread has a runtime of its own, and on it a pingora service for each listener (over a duplicate of the same
//! listening socket). A connection, its timers and its upstream connections stay on the thread that accepted it.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::listeners::ListenerConfig;
use pingora::protocols::Stream;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::server::{Fds, ShutdownWatch};
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::ServeError;
use super::answer::refusal_bytes;
use super::app::{App, Place, refused};
use super::conn::{Conn, FRESH_GRACE};
use super::wire::{Transport, Wire};
use super::{http1, http2};
use crate::message::Scheme;
use crate::reason::Reason;

/// Bound listening sockets that do not accept yet.
#[derive(Debug)]
pub struct Sockets(Vec<(SocketAddr, TcpListener)>);

impl Sockets {
    /// Where they listen, in the order given; with the port that the system chose where 0 was asked for.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.0.iter().map(|(address, _)| *address)
    }
}

/// Binds all addresses. Fails at the first that can't be bound and names it.
pub fn bind(addresses: impl IntoIterator<Item = SocketAddr>) -> Result<Sockets, ServeError> {
    let one = |address: SocketAddr| {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok((listener.local_addr()?, listener))
    };
    addresses
        .into_iter()
        .map(|address| {
            one(address).map_err(|error: std::io::Error| {
                let hint = match error.kind() {
                    std::io::ErrorKind::AddrInUse => " (another process, or another listener, has it)",
                    std::io::ErrorKind::PermissionDenied => " (ports below 1024 need CAP_NET_BIND_SERVICE)",
                    std::io::ErrorKind::AddrNotAvailable => " (no interface of this machine has it)",
                    _ => "",
                };
                ServeError { address: address.to_string(), problem: format!("can't listen: {error}{hint}") }
            })
        })
        .collect::<Result<_, _>>()
        .map(Sockets)
}

/// Tells connections to end.
#[derive(Clone, Debug)]
pub(super) struct Stop(watch::Receiver<bool>);

impl Stop {
    #[cfg(test)]
    pub fn on(shutdown: watch::Receiver<bool>) -> Self {
        Self(shutdown)
    }
    /// Returns once the shutdown began.
    pub async fn wait(&self) {
        // An error means that whoever could tell us has gone, which also is the end.
        let _ = self.0.clone().wait_for(|stop| *stop).await;
    }
    /// Whether it began. Cheap: one atomic load.
    pub fn stopping(&self) -> bool {
        match self.0.has_changed() {
            Ok(false) => false,
            Ok(true) => *self.0.borrow(),
            Err(_) => true,
        }
    }
}

/// Open connections: of the whole edge for the limit, of a thread for its end.
#[derive(Debug, Default)]
struct Count {
    open: AtomicUsize,
    none: Notify,
}

impl Count {
    fn leave(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.none.notify_waiters();
        }
    }
    async fn empty(&self) {
        loop {
            let mut notified = std::pin::pin!(self.none.notified());
            notified.as_mut().enable();
            if self.open.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// A connection that counts as open while this lives.
pub(super) struct Open {
    all: Arc<Count>,
    thread: Arc<Count>,
    closed: Box<dyn Fn() + Send + Sync>,
}

impl Drop for Open {
    fn drop(&mut self) {
        (self.closed)();
        self.all.leave();
        self.thread.leave();
    }
}

/// Serves the sockets until `shutdown` and for at most `grace` after it. See [`super::serve`].
pub(super) fn serve<A: App>(
    sockets: Sockets,
    app: Arc<A>,
    threads: usize,
    shutdown: watch::Receiver<bool>,
    ready: watch::Sender<bool>,
) -> Result<(), ServeError> {
    let mut shutdown = shutdown;
    if *shutdown.borrow_and_update() {
        return Ok(());
    }
    let all = Arc::new(Count::default());
    let (started, starting) = mpsc::channel();
    let mut workers = Vec::new();
    let threads = threads.max(1);
    for index in 0..threads {
        let sockets = duplicate(&sockets)?;
        let worker = Worker { app: app.clone(), all: all.clone(), shutdown: shutdown.clone() };
        let started = started.clone();
        let thread = std::thread::Builder::new()
            .name(format!("edge-{index}"))
            .spawn(move || worker.run(sockets, &started))
            .map_err(|error| ServeError { address: "edge".into(), problem: format!("no thread: {error}") })?;
        workers.push(thread);
    }
    drop((sockets, started));
    // Each worker says once whether it runs; one that panics drops its sender instead.
    let failed = starting.iter().take(threads).find_map(Result::err);
    if failed.is_none() {
        ready.send_replace(true);
    }
    let mut result = failed.map_or(Ok(()), Err);
    for worker in workers {
        let problem = || ServeError { address: "edge".into(), problem: "a worker thread panicked".into() };
        result = result.and(worker.join().unwrap_or_else(|_| Err(problem())));
    }
    ready.send_replace(false);
    result
}

fn duplicate(sockets: &Sockets) -> Result<Vec<(SocketAddr, TcpListener)>, ServeError> {
    let copy = |(address, listener): &(SocketAddr, TcpListener)| {
        listener.try_clone().map(|listener| (*address, listener)).map_err(|error| ServeError {
            address: address.to_string(),
            problem: format!("can't share the listening socket: {error}"),
        })
    };
    sockets.0.iter().map(copy).collect()
}

struct Worker<A> {
    app: Arc<A>,
    all: Arc<Count>,
    shutdown: ShutdownWatch,
}

impl<A: App> Worker<A> {
    fn run(
        self,
        sockets: Vec<(SocketAddr, TcpListener)>,
        started: &mpsc::Sender<Result<(), ServeError>>,
    ) -> Result<(), ServeError> {
        let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let problem = ServeError { address: "edge".into(), problem: format!("no runtime: {error}") };
                // The receiver waits for this message.
                let _ = started.send(Err(problem));
                return Ok(());
            }
        };
        let result = runtime.block_on(self.serve(sockets, started));
        runtime.shutdown_background();
        result
    }

    async fn serve(
        self,
        sockets: Vec<(SocketAddr, TcpListener)>,
        started: &mpsc::Sender<Result<(), ServeError>>,
    ) -> Result<(), ServeError> {
        let thread = Arc::new(Count::default());
        let mut services = JoinSet::new();
        for (listener, (address, socket)) in sockets.into_iter().enumerate() {
            let name = address.to_string();
            // pingora takes the socket by its number, and closes it when the service ends.
            let mut fds = Fds::new();
            fds.add(name.clone(), socket.into_raw_fd());
            let edge = Edge {
                listener,
                app: self.app.clone(),
                all: self.all.clone(),
                thread: thread.clone(),
                stop: Stop(self.shutdown.clone()),
            };
            let mut service = Service::new(name.clone(), edge);
            // Connections bring their own buffers, and own them only while they need them.
            service.add_listener(ListenerConfig::tcp(name).l4_buffer(L4BufferSettings::unbuffered()));
            let shutdown = self.shutdown.clone();
            services.spawn(async move {
                service.start_service(Some(Arc::new(Mutex::new(fds))), shutdown, 1).await;
                address
            });
        }
        // The sockets listen already: whoever connects now waits in their backlog for the first accept.
        let _ = started.send(Ok(()));
        let mut result = Ok(());
        while let Some(ended) = services.join_next().await {
            if let Err(error) = ended {
                let problem = format!("the listener failed: {error}");
                result = Err(ServeError { address: "edge".into(), problem });
            }
        }
        let grace = self.app.grace();
        if timeout(grace, thread.empty()).await.is_err() {
            let left = thread.open.load(Ordering::Relaxed);
            tracing::warn!(connections = left, ?grace, "connections cut at the end of the grace period");
        }
        result
    }
}

/// A listener on a thread, as pingora's service calls it.
struct Edge<A> {
    listener: usize,
    app: Arc<A>,
    all: Arc<Count>,
    thread: Arc<Count>,
    stop: Stop,
}

#[async_trait]
impl<A: App> ServerApp for Edge<A> {
    async fn process_new(self: &Arc<Self>, tcp: Stream, _: &ShutdownWatch) -> Option<Stream> {
        self.connection(tcp).await;
        None
    }
}

impl<A: App> Edge<A> {
    async fn connection(&self, tcp: Stream) {
        let Some(place) = self.place(&tcp) else { return };
        if !self.app.admits(self.listener, place.peer.ip()) {
            self.app.metrics().connection_refused("address");
            return;
        }
        let limits = self.app.limits();
        let tls = self.app.tls(self.listener);
        let Some(open) = self.enter(limits.connections) else {
            return self.turn_away(tcp, &place, tls.is_none()).await;
        };
        let id = tcp.id();
        let wire = Wire::new(tcp);
        let Some(tls) = tls else {
            let conn = Box::new(Conn::new(Transport::Plain(wire), id, &limits, self.stop.clone()));
            return http1::serve(conn, place, Scheme::Http, &self.app, &self.stop).await;
        };
        let handshake = timeout(limits.handshake_timeout, TlsAcceptor::from(tls).accept(wire));
        let stopped = async {
            self.stop.wait().await;
            sleep(FRESH_GRACE).await;
        };
        let stream = tokio::select! {
            shaken = handshake => match shaken {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(source = %place.peer.ip(), listener = %place.local, %error, "TLS handshake failed");
                    return self.app.metrics().connection_refused("tls_handshake");
                }
                Err(_) => return self.app.metrics().connection_refused("handshake_timeout"),
            },
            () = stopped => return,
        };
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let conn = Box::new(Conn::new(Transport::Tls(Box::new(stream)), id, &limits, self.stop.clone()));
        if http2 {
            http2::serve(conn, place, &self.app, &self.stop, &open).await;
        } else {
            http1::serve(conn, place, Scheme::Https, &self.app, &self.stop).await;
        }
    }

    fn place(&self, tcp: &Stream) -> Option<Place> {
        let digest = tcp.get_socket_digest()?;
        let peer = *digest.peer_addr()?.as_inet()?;
        let local = *digest.local_addr()?.as_inet()?;
        Some(Place { listener: self.listener, peer, local })
    }

    fn enter(&self, limit: usize) -> Option<Arc<Open>> {
        if self.all.open.fetch_add(1, Ordering::AcqRel) >= limit {
            self.all.leave();
            return None;
        }
        self.thread.open.fetch_add(1, Ordering::AcqRel);
        self.app.metrics().connection_opened();
        let app = self.app.clone();
        let closed = Box::new(move || app.metrics().connection_closed());
        Some(Arc::new(Open { all: self.all.clone(), thread: self.thread.clone(), closed }))
    }

    /// Beyond the limit: a plain sender gets its 503 if the socket takes it at once, then the connection ends.
    async fn turn_away(&self, mut tcp: Stream, place: &Place, plain: bool) {
        self.app.metrics().connection_refused("limit");
        if !plain {
            return;
        }
        refused(&*self.app, place, Reason::TooManyConnections);
        let answer = refusal_bytes(Reason::TooManyConnections, b"");
        let polite = async {
            if tcp.write_all(&answer).await.is_ok() && tcp.flush().await.is_ok() {
                let _ = AsyncWriteExt::shutdown(&mut tcp).await;
                // What was sent to us must be read, or closing resets the connection before the answer is read.
                let mut sink = [0; 4096];
                while let Ok(1..) = tcp.read(&mut sink).await {}
            }
        };
        let _ = timeout(Duration::from_millis(100), polite).await;
    }
}
