//! The hub's HTTP face: routes, limits and who may call what. Handlers translate between HTTP and
//! the parts; they decide nothing.

mod body;
mod connections;
mod device;
mod files;
mod operator;
mod problem;
mod tracker;
mod waiting;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{FromRequestParts, Path, Request, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION, request::Parts},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use serde::de::DeserializeOwned;

use super::state::Hub;
use crate::logic::units::{KIB, MIB};
use body::{JsonBody, hear_out};
pub use connections::serve;
use problem::Problem;

/// Everything but the moving of content is quick; whoever takes longer is stuck or hostile.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// Signed requests other than reports are a few hundred bytes.
const SMALL_BODY: usize = 16 * KIB as usize;
/// `MAX_REPORT_LINES` lines of about 170 bytes, with their quotes escaped inside `Signed`.
const REPORT_BODY: usize = 2 * MIB as usize;
/// A hundred thousand paths.
const UPLOAD_BODY: usize = 32 * MIB as usize;

pub fn router(hub: Arc<Hub>) -> Router {
    let operator = Router::new()
        .route("/claim-codes", post(operator::claim_codes))
        .route("/uploads", post(operator::open_upload))
        .route("/uploads/{id}", get(operator::upload_state))
        .route("/list", get(operator::list))
        .route("/list/revoke", post(operator::revoke))
        .route("/devices", get(operator::devices))
        .route("/books", get(operator::books))
        .route("/origin-usage", get(operator::origin_usage));
    // As slow as the uploader's line and our disk; they watch for silence themselves.
    let slow = Router::new()
        .route("/uploads/{id}", axum::routing::put(operator::upload))
        .route("/uploads/{id}/publish", post(operator::publish));
    let guard = middleware::from_fn_with_state(hub.clone(), require_operator);
    let device = Router::new()
        .route("/enrol", post(device::enrol))
        .route("/reports", post(device::report))
        .route("/statement", post(device::statement))
        .route("/sources", post(device::sources));
    let quick = Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/announce", get(tracker::announce))
        .route("/scrape", get(tracker::scrape))
        .route("/metainfo/{file}", get(files::metainfo))
        .route("/origin/{infohash}/{*path}", get(files::origin))
        .route("/tuf/metadata/{file}", get(files::tuf_metadata))
        .route("/tuf/targets/{file}", get(files::tuf_target))
        .nest("/api/v1", operator.route_layer(guard.clone()).merge(device))
        .layer(middleware::from_fn(limit_time));
    Router::new()
        .nest("/api/v1", slow.route_layer(guard))
        .merge(quick)
        .fallback(|| async { nothing_here() })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this address does not take that method",
            )
        })
        .with_state(hub)
}

async fn ready(State(hub): State<Arc<Hub>>) -> Result<&'static str, Problem> {
    hub.blocking(|hub| hub.store.check().map_err(Problem::from)).await?;
    Ok("ready\n")
}

async fn limit_time(request: Request, next: Next) -> Result<Response, Problem> {
    tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await.map_err(|_| {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the request took too long; try again")
    })
}

async fn require_operator(
    State(hub): State<Arc<Hub>>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let offered = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    match offered {
        Some(token) if hub.token.matches(token.trim()) => Ok(next.run(request).await),
        _ => {
            hear_out(&mut request.into_body().into_data_stream()).await;
            Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "bad_token",
                "send `Authorization: Bearer TOKEN` with the token from the hub's file operator-token",
            ))
        }
    }
}

/// A path's variables; what does not decode is an address with nothing at it.
struct UrlPath<T>(T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for UrlPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(UrlPath(value)),
            Err(_) => Err(nothing_here()),
        }
    }
}

fn nothing_here() -> Problem {
    Problem::not_found("there is nothing at this address")
}
