//! `endpoints.json`, which a running program keeps in its data folder: where it can be reached.
//! It appears when the program is ready and goes when it stops, so scripts can wait for it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub const ENDPOINTS_FILE: &str = "endpoints.json";

/// Unix socket in the device's data folder: writes one `api::admin::Status` as JSON to whoever
/// connects, and never reads. For the daemon's own user, and for scripts.
pub const STATUS_SOCKET: &str = "status.sock";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceEndpoints {
    pub pid: u32,
    /// Where BitTorrent peers connect.
    pub peer: SocketAddr,
    pub admin_url: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubEndpoints {
    pub pid: u32,
    pub hub_url: String,
}
