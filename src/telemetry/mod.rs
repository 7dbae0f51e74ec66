//! Logging for all three programs: lines on stderr, filtered by `LARDER_LOG` (tracing's syntax).

use tracing_subscriber::EnvFilter;

/// Call once, first thing. Our own messages at `info`, the libraries' at `warn`; librqbit warns of
/// what we ask of it (no uploading), so only its errors.
pub fn init() {
    let filter = EnvFilter::try_from_env("LARDER_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,larder=info,librqbit=error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .compact()
        .init();
}
