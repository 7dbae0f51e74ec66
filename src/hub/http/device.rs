//! What devices ask. Every request is signed by the device's own key; the claim in the document
//! and the key must belong together.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Json,
    extract::{ConnectInfo, State},
    http::StatusCode,
};
use data_encoding::HEXLOWER;
use serde::de::DeserializeOwned;

use super::{JsonBody, Problem, REPORT_BODY, SMALL_BODY};
use crate::{
    api::{
        hub::{
            DeviceId, EnrolRequest, EnrolResponse, Report, ReportReceipt, SourcesRequest,
            SourcesResponse, StatementRequest,
        },
        signed::Signed,
    },
    hub::{
        channel::PeerId,
        claim_code, keys, report, settle,
        state::Hub,
        store::{Device, EnrolOutcome},
    },
    logic::now::{UnixSeconds, UtcMonth},
};

/// How far a device's clock may be off. A copied request is useless after that.
const CLOCK_SKEW_SECONDS: u64 = 600;

pub async fn enrol(
    State(hub): State<Arc<Hub>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    JsonBody(signed): JsonBody<Signed, SMALL_BODY>,
) -> Result<Json<EnrolResponse>, Problem> {
    let request: EnrolRequest = signed.open_self_signed()?;
    let now = hub.clock.unix();
    check_skew(request.created_at, now)?;
    let peer_id = peer_id(&request.peer_id).ok_or_else(|| {
        Problem::bad_request("peer_id must be 20 bytes as 40 lower-case hexadecimal digits")
    })?;
    let device = Device {
        id: device_id(&signed)?,
        public_key: signed.key,
        peer_id: request.peer_id,
        enrolled_at: now,
    };
    let id = device.id.clone();
    let code = claim_code::hash(&request.claim_code);
    let outcome =
        hub.blocking(move |hub| hub.store.enrol(&device, &code).map_err(Problem::from)).await?;
    match outcome {
        EnrolOutcome::Enrolled => tracing::info!(device = id, "enrolled"),
        EnrolOutcome::Again => {}
        EnrolOutcome::UnknownOrUsedCode => {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "unknown_claim_code",
                "this claim code is unknown or was used; ask the operator for a new one",
            ));
        }
        EnrolOutcome::PeerIdTaken => {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "peer_id_taken",
                "another device has this peer id; each device must choose its own",
            ));
        }
    }
    hub.presence.lock().saw(peer_id, address(from));
    Ok(Json(EnrolResponse { device: id, server_time: now }))
}

/// A report that could not be delivered for days is still good: its number, not its age, keeps it
/// from counting twice.
pub async fn report(
    State(hub): State<Arc<Hub>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    JsonBody(signed): JsonBody<Signed, REPORT_BODY>,
) -> Result<Json<ReportReceipt>, Problem> {
    let report: Report = open(&hub, &signed, from).await?;
    let now = hub.clock.unix();
    if report.created_at.0 > now.0 + CLOCK_SKEW_SECONDS {
        return Err(skewed(now));
    }
    let receipt = hub
        .blocking(move |hub| {
            let policy = hub.policy();
            report::accept(&hub.store, &policy, &report, &signed.payload, now)
                .map_err(Problem::from)
        })
        .await?;
    Ok(Json(receipt))
}

pub async fn statement(
    State(hub): State<Arc<Hub>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    JsonBody(signed): JsonBody<Signed, SMALL_BODY>,
) -> Result<Json<Signed>, Problem> {
    let request: StatementRequest = open(&hub, &signed, from).await?;
    let now = hub.clock.unix();
    check_skew(request.created_at, now)?;
    let month: UtcMonth =
        request.month.parse().map_err(|e| Problem::bad_request(format!("month: {e}")))?;
    let statement = hub
        .blocking(move |hub| {
            let currency = &hub.policy().currency;
            settle::statement(&hub.store, &hub.statement_key, currency, &request.device, month, now)
                .map_err(Problem::from)
        })
        .await?;
    Ok(Json(statement))
}

pub async fn sources(
    State(hub): State<Arc<Hub>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    JsonBody(signed): JsonBody<Signed, SMALL_BODY>,
) -> Result<Json<SourcesResponse>, Problem> {
    let (request, asker): (SourcesRequest, PeerId) = open_with_peer_id(&hub, &signed, from).await?;
    check_skew(request.created_at, hub.clock.unix())?;
    let presence = hub.presence.lock();
    let peers = hub.swarms.lock().devices(
        request.infohash,
        hub.clock.monotonic(),
        |peer_id: &PeerId, from: IpAddr| *peer_id != asker && presence.is_device(peer_id, from),
    );
    Ok(Json(SourcesResponse { peers }))
}

/// Documents that say which device they are from.
trait FromDevice: DeserializeOwned {
    fn device(&self) -> &DeviceId;
}

impl FromDevice for Report {
    fn device(&self) -> &DeviceId {
        &self.device
    }
}

impl FromDevice for StatementRequest {
    fn device(&self) -> &DeviceId {
        &self.device
    }
}

impl FromDevice for SourcesRequest {
    fn device(&self) -> &DeviceId {
        &self.device
    }
}

async fn open<T: FromDevice>(
    hub: &Arc<Hub>,
    signed: &Signed,
    from: SocketAddr,
) -> Result<T, Problem> {
    Ok(open_with_peer_id(hub, signed, from).await?.0)
}

/// Checks signature, enrolment and claim, and remembers where the device is.
async fn open_with_peer_id<T: FromDevice>(
    hub: &Arc<Hub>,
    signed: &Signed,
    from: SocketAddr,
) -> Result<(T, PeerId), Problem> {
    let id = device_id(signed)?;
    let device = hub
        .blocking({
            let id = id.clone();
            move |hub| hub.store.device(&id).map_err(Problem::from)
        })
        .await?;
    let device = device.ok_or_else(|| {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "not_enrolled",
            "this device is not enrolled here; enrol it with a claim code",
        )
    })?;
    let document: T = signed.open(std::slice::from_ref(&device.public_key))?;
    if document.device() != &id {
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "wrong_device",
            "the request names another device than the one that signed it",
        ));
    }
    let peer_id = peer_id(&device.peer_id)
        .ok_or_else(|| Problem::internal(&"a device in the database has no proper peer id"))?;
    hub.presence.lock().saw(peer_id, address(from));
    Ok((document, peer_id))
}

fn device_id(signed: &Signed) -> Result<DeviceId, Problem> {
    let key = HEXLOWER.decode(signed.key.as_bytes()).map_err(|_| {
        Problem::bad_request("the key must be an Ed25519 public key as lower-case hexadecimal")
    })?;
    Ok(HEXLOWER.encode(&keys::sha256(&key)[..16]))
}

fn peer_id(hex: &str) -> Option<PeerId> {
    HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

fn check_skew(created_at: UnixSeconds, now: UnixSeconds) -> Result<(), Problem> {
    match created_at.0.abs_diff(now.0) > CLOCK_SKEW_SECONDS {
        true => Err(skewed(now)),
        false => Ok(()),
    }
}

fn skewed(now: UnixSeconds) -> Problem {
    let message = format!(
        "the device's clock is more than {CLOCK_SKEW_SECONDS} seconds off; it is {} here (Unix time)",
        now.0
    );
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "clock_skew", message).expecting(now.0)
}

/// A dual-stack socket shows IPv4 peers as mapped IPv6 addresses.
pub fn address(from: SocketAddr) -> IpAddr {
    from.ip().to_canonical()
}
