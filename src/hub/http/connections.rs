//! Connections: as many as we can afford, cut when a request's head does not come, and asked to
//! end when the hub stops. Knows nothing of what is said on them.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper::{Request, body::Incoming, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Each needs a file descriptor, and one more while it reads content; a few tens of KiB of memory.
const MAX_CONNECTIONS: usize = 4096;
/// Also how long a connection may idle between two requests.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Out of file descriptors, say: accepting again at once would only burn time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Returns when `stopping` has been cancelled and every connection has ended.
pub async fn serve(listener: TcpListener, router: Router, stopping: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = async {
                let permit = permits.clone().acquire_owned().await.expect("is never closed");
                listener.accept().await.map(|accepted| (accepted, permit))
            } => accepted,
        };
        match accepted {
            Ok(((stream, from), permit)) => {
                let (service, stopping) = (service.clone(), stopping.clone());
                connections.spawn(async move {
                    converse(stream, from, service, stopping).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn converse(
    stream: TcpStream,
    from: SocketAddr,
    service: TowerToHyperService<Router>,
    stopping: CancellationToken,
) {
    // Answers are small or streamed in large chunks: nothing to wait for.
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(from));
        service.call(request)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .serve_connection(TokioIo::new(stream), service)
    );
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::trace!(%from, "a connection ended early: {error}");
    }
}
