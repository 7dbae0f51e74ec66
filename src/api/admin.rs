//! The owner's page talks to `larderd` under `/api/v1/` with these; `web-ui/src/api.ts` mirrors them.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `GET /session` | | `Session` (no login needed) |
//! | `POST /setup` | `SetupRequest` | `Session`, sets the cookie; only before a password exists |
//! | `POST /login` | `LoginRequest` | `Session`, sets the cookie |
//! | `POST /logout` | `{}` | `Session` |
//! | `GET /status` | | `Status` |
//! | `GET /events` | | server-sent events: `status` with a `Status` each second |
//! | `PUT /limit` | `LimitRequest` | `Status` |
//! | `PUT /pause` | `PauseRequest` | `Status` |
//! | `PUT /removal` | `RemovalRequest` | `Status` |

use serde::{Deserialize, Serialize};

use crate::logic::{
    governor::allowance::Reason, infohash::Infohash, now::UnixSeconds, units::Micros,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// False until the one-time code has been used to set a password.
    pub password_set: bool,
    pub logged_in: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetupRequest {
    /// Printed on the console and in the log at first run.
    pub setup_code: String,
    pub password: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    pub password: String,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitRequest {
    /// Bytes per second on the wire, headers included.
    pub egress_bytes_per_second_max: u64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "pause")]
pub enum PauseRequest {
    /// Serve again.
    Off,
    /// Serve again by itself after this many seconds.
    For {
        seconds: u32,
    },
    UntilResumed,
}

/// A content is taken off this device and not filled again, or may come back.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemovalRequest {
    pub infohash: Infohash,
    pub removed: bool,
}

/// Everything on the first screen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub state: State,
    /// When the state has a cause that someone can act on: one English sentence.
    pub problem: Option<String>,
    /// All of them, the most urgent first.
    #[serde(default)]
    pub problems: Vec<String>,
    pub pause: PauseView,
    /// On the wire to the internet.
    pub egress_bytes_per_second: u64,
    /// The owner's limit.
    pub egress_bytes_per_second_max: u64,
    /// What may leave right now; never more than the limit.
    pub egress_bytes_per_second_allowed: u64,
    /// The rule that says so.
    pub allowance_reason: Reason,
    /// What auto mode believes that the line carries, once it knows.
    pub line_bytes_per_second: Option<u64>,
    /// Wire bytes per second, oldest first, one value a second, 60 at most.
    pub egress_history: Vec<u64>,
    /// To peers in the household, which no limit concerns and nobody pays.
    #[serde(default)]
    pub lan_egress_bytes_per_second: u64,
    pub peers_connected: u32,
    pub earnings: Earnings,
    pub cache: CacheView,
    #[serde(default)]
    pub storage: StorageView,
    pub hub: HubView,
}

/// How the disk and what is on it are, since `larderd` started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageView {
    /// Pieces that were found damaged, and so were not served until they were filled again.
    pub pieces_damaged_total: u64,
    /// Contents whose file was gone.
    pub contents_lost_total: u64,
}

/// One word for the whole device; the page has a sentence and a colour for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Serving,
    /// Ready, but nobody is asking.
    Idle,
    Filling,
    /// Nothing is held and nothing is being filled.
    Empty,
    Paused,
    /// Nothing may leave, by one of the owner's own rules: see `allowance_reason`. It ends by itself.
    Resting,
    /// See `problem`, or `allowance_reason` when the line is throttled.
    Attention,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "pause")]
pub enum PauseView {
    Off,
    For { seconds_left: u32 },
    UntilResumed,
}

/// Settled is the operator's signed word; pending is our own estimate of the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earnings {
    pub currency: String,
    pub today_settled: Micros,
    pub today_pending: Micros,
    pub month_settled: Micros,
    pub month_pending: Micros,
    /// Payload bytes to WAN peers, by our own ledger.
    pub today_bytes: u64,
    pub month_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheView {
    pub quota_bytes: u64,
    pub used_bytes: u64,
    pub contents: Vec<ContentView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContentView {
    pub infohash: Infohash,
    /// From the operator's list: hostile text.
    pub name: String,
    pub size_bytes: u64,
    pub held_bytes: u64,
    /// As much of it as this device wants to hold; less than the size when a part is worth its room.
    #[serde(default)]
    pub wanted_bytes: u64,
    pub egress_bytes: u64,
    pub lease_end: UnixSeconds,
    pub state: ContentState,
    /// Bytes of the fill that came from the web seed and from other devices.
    pub filled_by_web_seed_bytes: u64,
    pub filled_by_peer_bytes: u64,
    /// Why a fill is not going on, in one sentence.
    pub problem: Option<String>,
    /// The same, when it is by the owner's own rules and ends by itself: it waits for its window.
    #[serde(default)]
    pub waits: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContentState {
    Waiting,
    Filling,
    Serving,
    /// The lease has ended or the plan gave it up; about to be evicted.
    Leaving,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubView {
    pub url: String,
    pub enrolled: bool,
    pub list_epoch: Option<u64>,
    pub last_contact: Option<UnixSeconds>,
    pub reports_pending: u64,
    pub reported_bytes: u64,
    /// The last thing that went wrong with the hub or its list, in one sentence.
    pub problem: Option<String>,
}
