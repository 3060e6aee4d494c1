//! The demonstration app: a small HTTP server that can be switched off and on and remembers what reached it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

/// A request as the app got it.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub target: String,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Arrival {
    /// A header's value as text, if it came exactly once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?;
        if values.next().is_some() { None } else { value.to_str().ok() }
    }
}

#[derive(Default)]
struct Log {
    arrivals: Mutex<Vec<Arrival>>,
    news: Notify,
}

/// The app. Off at first.
pub struct App {
    address: SocketAddr,
    log: Arc<Log>,
    serving: Option<JoinHandle<()>>,
}

impl App {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, log: Arc::default(), serving: None }
    }

    /// Starts listening; a switched-off app refuses connections.
    pub async fn switch_on(&mut self) -> std::io::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.serving = Some(tokio::spawn(serve(listener, self.log.clone())));
        Ok(())
    }

    /// Closes the listener and every connection.
    pub async fn switch_off(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            // An aborted task reports its cancellation; that is what was asked for.
            let _ = serving.await;
        }
    }

    pub fn arrivals(&self) -> Vec<Arrival> {
        self.log.arrivals.lock().clone()
    }

    /// Waits until `enough` holds for what has arrived, at most `within`. Returns whether it does.
    pub async fn wait_until(&self, within: Duration, enough: impl Fn(&[Arrival]) -> bool) -> bool {
        let waiting = async {
            loop {
                let news = self.log.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if enough(&self.log.arrivals.lock()) {
                    return;
                }
                news.await;
            }
        };
        tokio::time::timeout(within, waiting).await.is_ok()
    }
}

async fn serve(listener: TcpListener, log: Arc<Log>) {
    // Dropped together with this task, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => continue,
        };
        let log = log.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| record(request, log.clone()));
            // A connection that breaks off is the gateway's business, not the app's.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn record(request: Request<Incoming>, log: Arc<Log>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    log.arrivals.lock().push(Arrival { target: head.uri.to_string(), headers: head.headers, body });
    log.news.notify_waiters();
    Ok(Response::new(Full::new(Bytes::from_static(b"thanks\n"))))
}
