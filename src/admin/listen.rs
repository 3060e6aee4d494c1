//! The admin API's socket: opening it, serving connections with deadlines, closing it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::control::Control;
use super::guard::Place;

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// From a connection's (or a request's) start to the end of the header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// However long a connection is busy or idle: a peer that reads nothing does not hold it for ever.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(900);
/// For requests under way at shutdown.
const DRAIN: Duration = Duration::from_secs(5);
const MAX_HEADERS: usize = 64;
/// Bytes of a request's header.
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// An open socket. A socket file is removed on drop, if it is still this one's.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

impl Socket {
    pub async fn tcp(address: SocketAddr) -> Result<Self, String> {
        let failed = |e: io::Error| format!("the admin API can't listen on {address}: {}", why(&e));
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self::Tcp(listener, address))
    }

    /// Makes the socket file with mode 0600. One that nobody answers on any more is replaced; anything else at this
    /// path is left alone.
    pub async fn unix(path: &Path) -> Result<Self, String> {
        let failed = |e: &dyn std::fmt::Display| format!("the admin API can't use {}: {e}", path.display());
        match std::fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(&e)),
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(failed(&"there is a file that is no socket; remove it or choose another path"));
            }
            Ok(_) => {
                if UnixStream::connect(path).await.is_ok() {
                    return Err(failed(&"another process answers on this socket"));
                }
            }
        }
        let listener = bind_private(path).map_err(|e| failed(&why(&e)))?;
        let file = SocketFile::of(path.to_owned()).map_err(|e| failed(&e))?;
        Ok(Self::Unix(listener, file))
    }

    pub fn place(&self) -> Place {
        match self {
            Socket::Tcp(_, address) => Place::Tcp(*address),
            Socket::Unix(..) => Place::Unix,
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Socket::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Socket::Unix(listener, _) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

impl std::fmt::Display for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Socket::Tcp(_, address) => write!(f, "http://{address}"),
            Socket::Unix(_, file) => write!(f, "unix:{}", file.path.display()),
        }
    }
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process has it (is a gateway running already?)".into(),
        _ => error.to_string(),
    }
}

/// A new socket file would be open to others for a moment, until its mode is set; so it is made in a folder of its
/// own that only we may enter, and moved into place when it is closed to others.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let folder = parent.join(format!(".tg{:x}", fastrand::u32(..)));
    std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let inside = folder.join("s");
    let bound = UnixListener::bind(&inside).and_then(|listener| {
        std::fs::set_permissions(&inside, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&inside, path)?;
        Ok(listener)
    });
    if bound.is_err() {
        let _ = std::fs::remove_file(&inside);
    }
    let _ = std::fs::remove_dir(&folder);
    bound
}

/// The file of a unix socket, known again by its inode.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn of(path: PathBuf) -> io::Result<Self> {
        let meta = std::fs::symlink_metadata(&path)?;
        Ok(Self { path, inode: (meta.dev(), meta.ino()) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let now = std::fs::symlink_metadata(&self.path).map(|meta| (meta.dev(), meta.ino()));
        if now.is_ok_and(|inode| inode == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Serves `socket` until `shutdown` becomes true (or its sender is gone) and requests under way are done.
pub async fn run(socket: Socket, control: Arc<dyn Control>, mut shutdown: watch::Receiver<bool>) {
    tracing::info!("admin API on {socket}");
    let router = super::router(control, socket.place());
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = next(&socket, &slots) => accepted,
            _ = shutdown.wait_for(|down| *down) => break,
            Some(_) = connections.join_next() => continue,
        };
        let Some((stream, slot)) = accepted else { continue };
        let (router, shutdown) = (router.clone(), shutdown.clone());
        connections.spawn(async move {
            let _slot = slot;
            connection(stream, router, shutdown).await;
        });
    }
    drop(socket);
    let drained = async { while connections.join_next().await.is_some() {} };
    // What is still under way then is dropped with the set; replays and purges are on tasks of their own.
    let _ = tokio::time::timeout(DRAIN, drained).await;
}

async fn next(
    socket: &Socket,
    slots: &Arc<Semaphore>,
) -> Option<(Box<dyn Stream>, tokio::sync::OwnedSemaphorePermit)> {
    // The semaphore is never closed.
    let slot = slots.clone().acquire_owned().await.ok()?;
    match socket.accept().await {
        Ok(stream) => Some((stream, slot)),
        Err(error) => {
            // No file descriptors left, most likely: trying again at once would only spin.
            tracing::warn!(%error, "the admin API can't accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn connection(stream: Box<dyn Stream>, router: Router, mut shutdown: watch::Receiver<bool>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let whole = async {
        tokio::select! {
            done = connection.as_mut() => return done,
            _ = shutdown.wait_for(|down| *down) => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    // A peer that breaks off or is too slow is its own affair; nothing is lost by it.
    if let Ok(Err(error)) = bounded(whole).await {
        tracing::debug!(%error, "an admin connection broke");
    }
}

async fn bounded<F: Future>(work: F) -> Result<F::Output, tokio::time::error::Elapsed> {
    tokio::time::timeout(MAX_CONNECTION_AGE, work).await
}
