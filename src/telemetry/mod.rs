//! Logging for all three programs: lines on stderr, filtered by `LARDER_LOG`, such as `debug` or
//! `warn,larder=debug`.

use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// Our own messages at `info`, the libraries' at `warn`; librqbit warns of what we ask of it (no
/// uploading), so only its errors.
const DEFAULT: &str = "warn,larder=info,librqbit=error";

/// Call once, first thing. A filter that cannot be read is said, and the default holds.
pub fn init() {
    let wanted = std::env::var("LARDER_LOG").unwrap_or_else(|_| DEFAULT.to_owned());
    let filter = wanted.parse::<Targets>().unwrap_or_else(|error| {
        eprintln!("LARDER_LOG is not understood, using {DEFAULT}: {error}");
        DEFAULT.parse().expect("a constant")
    });
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).compact();
    tracing_subscriber::registry().with(lines).with(filter).init();
}
