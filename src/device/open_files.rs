//! As many file descriptors as the limits on connections need. Raises this process's soft limit where
//! the system lets it, and otherwise says how many connections there can be.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::device::Serve;

/// For everything but peers: content and database files, the page, trackers, and a fill's own peers.
const OTHER_FILES: u64 = 256;
/// Even a system that allows next to nothing serves somebody.
const CONNECTIONS_MIN: u64 = 8;

/// Makes room for `serve.connections_max`, or lowers it.
pub fn make_room(serve: &mut Serve) {
    let limits = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files is not known");
            return;
        }
    };
    let (soft, hard) = limits;
    let wanted = serve.connections_max;
    let (files, mut fit) = plan(wanted, soft, hard);
    if files > soft
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, files, hard)
    {
        tracing::warn!(%error, "the limit on open files cannot be raised from {soft} to {files}");
        (_, fit) = plan(wanted, soft, soft);
    }
    if fit < wanted {
        tracing::warn!(
            "the system allows this process {hard} open files: serve.connections_max is {fit} instead \
             of {wanted}; raise the limit (LimitNOFILE= of its systemd unit, or ulimit -n) for more"
        );
        serve.connections_max = fit;
    }
}

/// The limit on open files to set, and how many connections fit under it.
fn plan(wanted: u32, soft: u64, hard: u64) -> (u64, u32) {
    let files = (u64::from(wanted) + OTHER_FILES).min(hard).max(soft);
    let fit = files.saturating_sub(OTHER_FILES).max(CONNECTIONS_MIN);
    (files, wanted.min(u32::try_from(fit).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raises_the_soft_limit_as_far_as_needed_and_never_lowers_it() {
        assert_eq!(plan(500, 1024, 4096), (1024, 500));
        assert_eq!(plan(2_000, 1024, 4096), (2_256, 2_000));
        assert_eq!(plan(500, 65_536, 65_536), (65_536, 500));
    }

    #[test]
    fn lowers_the_connections_where_the_system_allows_no_more() {
        assert_eq!(plan(10_000, 1024, 4096), (4096, 3_840));
        assert_eq!(plan(500, 64, 64), (64, 8));
    }
}
