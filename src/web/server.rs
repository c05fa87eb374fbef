//! Listening, with limits: so many connections, so large a header and body, so long for each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1::{self, Connection};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Fifty viewers hold one stream each; the rest is for their other requests and for a scraper. Further ones wait in the kernel's queue.
const CONNECTIONS: usize = 128;
/// For a whole header; also how long a connection may be kept without a request.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// hyper's buffer for a header, in bytes.
const HEADER_SIZE: usize = 16 * 1024;
const HEADER_COUNT: usize = 64;
/// A port that is taken is tried again: by then an older daemon has ended.
const RETRY: Duration = Duration::from_secs(5);

/// Serves until the runtime ends. An address that cannot be had is complained of once, and tried again.
pub(super) async fn serve(address: SocketAddr, routes: Router) {
    let listener = listen(address).await;
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Never closed: there is always a permit in the end.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, or a client that is gone already.
                log::debug!("page: accepting a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let connection = connection(stream, routes.clone());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                log::debug!("page: {error}");
            }
            drop(permit);
        });
    }
}

/// Answers the requests of one connection, within the limits.
pub(super) fn connection<S>(stream: S, routes: Router) -> Connection<TokioIo<S>, TowerToHyperService<Router>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
    builder.max_headers(HEADER_COUNT).max_buf_size(HEADER_SIZE);
    builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
}

async fn listen(address: SocketAddr) -> TcpListener {
    let mut complained = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let bound = listener.local_addr().unwrap_or(address);
                log::info!("page: http://{bound}/");
                return listener;
            }
            Err(error) if !complained => {
                log::error!(
                    "page: listening on {address}: {error}; tried again (is another program there? `ss -ltnp`)"
                );
                complained = true;
            }
            Err(error) => log::debug!("page: listening on {address}: {error}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}
