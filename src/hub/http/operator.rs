//! What the operator asks; every request has shown the token before it comes here.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
};
use serde::Deserialize;

use super::{JsonBody, Problem, SMALL_BODY, UPLOAD_BODY, UrlPath, hear_out};
use crate::{
    api::hub::{
        Books, ClaimCodesRequest, ClaimCodesResponse, DeviceRow, NewUpload, OriginUsage,
        PublishRequest, Published, RevokeRequest, Revoked, UploadState,
    },
    hub::{claim_code, settle, state::Hub},
    logic::{hotlist::HotList, now::UtcMonth},
};

/// A production batch takes several calls.
const MAX_CLAIM_CODES: u32 = 1000;
const MAX_REASON_BYTES: usize = 1000;

pub async fn claim_codes(
    State(hub): State<Arc<Hub>>,
    JsonBody(request): JsonBody<ClaimCodesRequest, SMALL_BODY>,
) -> Result<Json<ClaimCodesResponse>, Problem> {
    if !(1..=MAX_CLAIM_CODES).contains(&request.count) {
        return Err(Problem::bad_request(format!("ask for 1 to {MAX_CLAIM_CODES} codes")));
    }
    let claim_codes: Vec<String> = (0..request.count).map(|_| claim_code::generate()).collect();
    let hashes: Vec<String> = claim_codes.iter().map(|code| claim_code::hash(code)).collect();
    hub.blocking(move |hub| {
        hub.store.add_claim_codes(&hashes, hub.clock.unix()).map_err(Problem::from)
    })
    .await?;
    Ok(Json(ClaimCodesResponse { claim_codes }))
}

pub async fn open_upload(
    State(hub): State<Arc<Hub>>,
    JsonBody(new): JsonBody<NewUpload, UPLOAD_BODY>,
) -> Result<Json<UploadState>, Problem> {
    let state = hub.blocking(move |hub| hub.uploads.open(&new).map_err(Problem::from)).await?;
    Ok(Json(state))
}

pub async fn upload_state(
    State(hub): State<Arc<Hub>>,
    UrlPath(id): UrlPath<String>,
) -> Result<Json<UploadState>, Problem> {
    let found = hub.blocking(move |hub| hub.uploads.state(&id).map_err(Problem::from)).await?;
    Ok(Json(found.1))
}

#[derive(Deserialize)]
pub struct Offset {
    offset: u64,
}

pub async fn upload(
    State(hub): State<Arc<Hub>>,
    UrlPath(id): UrlPath<String>,
    offset: Result<Query<Offset>, QueryRejection>,
    body: Body,
) -> Result<Json<UploadState>, Problem> {
    let Query(Offset { offset }) =
        offset.map_err(|_| Problem::bad_request("say where the bytes belong: ?offset=N"))?;
    let mut body = body.into_data_stream();
    let outcome = match hub.uploads.claim(&id) {
        Ok(claim) => hub.uploads.receive(&claim, offset, &mut body).await,
        Err(busy) => Err(busy),
    };
    if outcome.is_err() {
        hear_out(&mut body).await;
    }
    Ok(Json(outcome?))
}

pub async fn publish(
    State(hub): State<Arc<Hub>>,
    UrlPath(id): UrlPath<String>,
    JsonBody(request): JsonBody<PublishRequest, SMALL_BODY>,
) -> Result<Json<Published>, Problem> {
    // A task of its own: an impatient client must not leave a publication half done.
    let published = tokio::spawn(async move { hub.publish(id, request).await }).await??;
    Ok(Json(published))
}

pub async fn list(State(hub): State<Arc<Hub>>) -> Json<HotList> {
    Json((*hub.list()).clone())
}

pub async fn revoke(
    State(hub): State<Arc<Hub>>,
    JsonBody(request): JsonBody<RevokeRequest, SMALL_BODY>,
) -> Result<Json<Revoked>, Problem> {
    let reason = request.reason.trim().to_owned();
    if reason.is_empty() || reason.len() > MAX_REASON_BYTES {
        return Err(Problem::bad_request("give a reason of 1 to 1000 bytes, for the books"));
    }
    let revoked = tokio::spawn(async move { hub.revoke(request.infohash, reason).await }).await??;
    Ok(Json(revoked))
}

pub async fn devices(State(hub): State<Arc<Hub>>) -> Result<Json<Vec<DeviceRow>>, Problem> {
    let rows = hub.blocking(|hub| hub.store.device_rows().map_err(Problem::from)).await?;
    Ok(Json(rows))
}

#[derive(Deserialize)]
pub struct Month {
    month: String,
}

pub async fn books(
    State(hub): State<Arc<Hub>>,
    month: Result<Query<Month>, QueryRejection>,
) -> Result<Json<Books>, Problem> {
    let month: UtcMonth = month
        .ok()
        .and_then(|Query(query)| query.month.parse().ok())
        .ok_or_else(|| Problem::bad_request("name a month: ?month=2026-11"))?;
    let books = hub
        .blocking(move |hub| {
            settle::books(&hub.store, &hub.policy().currency, month).map_err(Problem::from)
        })
        .await?;
    Ok(Json(books))
}

pub async fn origin_usage(State(hub): State<Arc<Hub>>) -> Result<Json<OriginUsage>, Problem> {
    Ok(Json(hub.origin_usage().await?))
}
