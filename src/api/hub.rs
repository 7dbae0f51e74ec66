//! The hub's HTTP API under `/api/v1/`. A device's requests are `Signed` by its own key, so a stolen
//! copy buys nothing; an operator's carry `Authorization: Bearer TOKEN`.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `POST /enrol` | `Signed<EnrolRequest>` | `EnrolResponse` |
//! | `POST /reports` | `Signed<Report>` | `ReportReceipt`; 409 `report_gap` / `report_conflict` |
//! | `POST /statement` | `Signed<StatementRequest>` | `Signed<Statement>` |
//! | `POST /sources` | `Signed<SourcesRequest>` | `SourcesResponse` |
//! | `POST /claim-codes` (operator) | `ClaimCodesRequest` | `ClaimCodesResponse` |
//! | `POST /uploads` (operator) | `NewUpload` | `UploadState` |
//! | `GET /uploads/{id}` (operator) | | `UploadState` |
//! | `PUT /uploads/{id}?offset=N` (operator) | raw bytes | `UploadState` |
//! | `POST /uploads/{id}/publish` (operator) | `PublishRequest` | `Published` |
//! | `GET /list` (operator) | | the current hot list |
//! | `POST /list/revoke` (operator) | `RevokeRequest` | `Revoked` |
//! | `GET /devices` (operator) | | `Vec<DeviceRow>` |
//! | `GET /books?month=2026-11` (operator) | | `Books` |
//! | `GET /origin-usage` (operator) | | `OriginUsage` |
//!
//! Every error is `ApiError` as JSON with a fitting HTTP status.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::logic::{
    infohash::Infohash,
    now::{UnixSeconds, UtcHour},
    units::Micros,
    usage::UsageLine,
};

/// A device's name in the hub's books: the first 16 bytes of SHA-256 of its public key, in hex.
pub type DeviceId = String;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// For programs: `bad_signature`, `unknown_claim_code`, `report_gap`, …
    pub code: String,
    /// For people: what is wrong and what to do.
    pub message: String,
    /// With `report_gap`: the number that the hub waits for. With `clock_skew`: its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    pub claim_code: String,
    /// 20 bytes as hex: how the tracker recognises the device.
    pub peer_id: String,
    pub created_at: UnixSeconds,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolResponse {
    pub device: DeviceId,
    /// The hub's clock, for a device that booted in 1970.
    pub server_time: UnixSeconds,
}

/// What a device served since its previous report. Reports are numbered from 1 without gaps and
/// chained by hash, so that the hub can tell a repeated one from a changed one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub format: u32,
    pub device: DeviceId,
    pub number: u64,
    /// SHA-256 (hex) of the previous report's payload; 64 zeros for the first.
    pub previous_hash: String,
    pub created_at: UnixSeconds,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerHead>,
    pub lines: Vec<UsageLine>,
}

/// The last entry of the chain that a device keeps over its ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerHead {
    pub entries: u64,
    /// SHA-256, hex.
    pub hash: String,
    /// How often the device has found its ledger changed by something else.
    pub breaks: u64,
}

/// More than a fleet's largest cache serves in one interval; a longer ledger goes in several reports.
pub const MAX_REPORT_LINES: usize = 5_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportReceipt {
    pub number: u64,
    /// The hub had it already; nothing was counted again.
    pub repeated: bool,
    pub server_time: UnixSeconds,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementRequest {
    pub device: DeviceId,
    /// `2026-11`, in UTC.
    pub month: String,
    pub created_at: UnixSeconds,
}

/// What the operator owes a device for a month so far, signed with a key that the policy names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    pub format: u32,
    pub device: DeviceId,
    pub month: String,
    pub currency: String,
    pub issued_at: UnixSeconds,
    /// Reports up to this number are in.
    pub reported_through: u64,
    pub lines: Vec<StatementLine>,
    /// The sum of the lines' amounts.
    pub total: Micros,
}

/// One content on one hour at one price: `amount = payload_bytes × price_per_gb / 10^9`, rounded down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementLine {
    pub infohash: Infohash,
    pub hour: UtcHour,
    pub payload_bytes: u64,
    pub price_per_gb: Micros,
    pub amount: Micros,
}

/// Where else to fill a content from: enrolled devices only, never strangers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcesRequest {
    pub device: DeviceId,
    pub infohash: Infohash,
    pub created_at: UnixSeconds,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcesResponse {
    pub peers: Vec<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimCodesRequest {
    pub count: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimCodesResponse {
    pub claim_codes: Vec<String>,
}

/// Opens (or finds again) an upload. Files in the order in which their bytes will come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewUpload {
    /// The torrent's `name`.
    pub name: String,
    /// False: one file, named `name`. True: files below a directory `name`.
    pub directory: bool,
    pub files: Vec<UploadFile>,
    /// Anything that changes when the content does, such as a hash over modification times: an
    /// interrupted upload is never continued with the bytes of another version.
    #[serde(default)]
    pub fingerprint: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadFile {
    pub path: Vec<String>,
    pub length: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadState {
    pub id: String,
    pub received_bytes: u64,
    pub total_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishRequest {
    pub lease_seconds: u64,
    pub replicas: u32,
    pub price_class: String,
    pub score: f64,
    #[serde(default)]
    pub private: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub infohash: Infohash,
    /// The content was published before; its lease was renewed.
    pub already_known: bool,
    pub epoch: u64,
    pub metainfo_url: String,
    pub magnet: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeRequest {
    pub infohash: Infohash,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    pub infohash: Infohash,
    /// The first epoch without it.
    pub epoch: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRow {
    pub device: DeviceId,
    pub enrolled_at: UnixSeconds,
    pub last_report_at: Option<UnixSeconds>,
    pub reports: u64,
}

/// The hub's books for a month, by device and content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    pub month: String,
    pub currency: String,
    pub lines: Vec<BookLine>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookLine {
    pub device: DeviceId,
    pub infohash: Infohash,
    pub payload_bytes: u64,
    pub wire_bytes: u64,
    pub amount: Micros,
}

/// What the origin itself has sent since each content was published: what the devices did not carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginUsage {
    pub lines: Vec<OriginUsageLine>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginUsageLine {
    pub infohash: Infohash,
    pub egress_bytes: u64,
}
