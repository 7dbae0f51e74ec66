//! The API's table of requests and what each does. The shapes are in `api::admin`.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, Extension, FromRequest, Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;

use crate::api::admin::{
    LimitRequest, LoginRequest, PauseRequest, RemovalRequest, Session, SetupRequest, Status,
};

use super::{
    EGRESS_BYTES_PER_SECOND_MIN, PAUSE_SECONDS_MAX, Shared, events, guard,
    refusal::Refusal,
    sessions::{AGE_MAX, Token},
};

/// The largest request is a password.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// For a body of at most that size, over any Wi-Fi.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

type Answer<T> = Result<Json<T>, Refusal>;

pub fn api(shared: Shared) -> Router {
    let open = Router::new()
        .route("/v1/session", get(session))
        .route("/v1/setup", post(set_up))
        .route("/v1/login", post(log_in))
        .route("/v1/logout", post(log_out));
    let for_the_owner = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/events", get(events))
        .route("/v1/limit", put(set_limit))
        .route("/v1/pause", put(set_pause))
        .route("/v1/removal", put(remove))
        .route_layer(middleware::from_fn_with_state(shared.clone(), logged_in));
    open.merge(for_the_owner)
        .fallback(async || Refusal::NotFound)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(guard::from_our_own_page))
        .with_state(shared)
}

async fn session(State(shared): State<Shared>, headers: HeaderMap) -> Answer<Session> {
    let token = shared.token(&headers);
    shared.account.session(token.as_ref()).await.map(Json)
}

async fn set_up(
    State(shared): State<Shared>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Body(request): Body<SetupRequest>,
) -> Result<Response, Refusal> {
    let token = shared.account.set_up(request, from.ip()).await?;
    tracing::info!(from = %from.ip(), "the owner set the admin page's password");
    Ok(shared.entered(&token))
}

async fn log_in(
    State(shared): State<Shared>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Body(request): Body<LoginRequest>,
) -> Result<Response, Refusal> {
    match shared.account.log_in(request, from.ip()).await {
        Ok(token) => {
            tracing::info!(from = %from.ip(), "login to the admin page");
            Ok(shared.entered(&token))
        }
        Err(refusal) => {
            tracing::warn!(from = %from.ip(), reason = %refusal, "login refused");
            Err(refusal)
        }
    }
}

async fn log_out(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Body(Empty {}): Body<Empty>,
) -> Result<Response, Refusal> {
    if let Some(token) = shared.token(&headers) {
        shared.account.log_out(&token);
    }
    let session = shared.account.session(None).await?;
    Ok((shared.cookie("", 0), Json(session)).into_response())
}

async fn status(State(shared): State<Shared>) -> Json<Status> {
    Json(shared.backend.status().borrow().clone())
}

async fn events(
    State(shared): State<Shared>,
    Extension(token): Extension<Token>,
) -> Result<Response, Refusal> {
    let permit =
        shared.streams.clone().try_acquire_owned().map_err(|_| Refusal::TooManyWatchers)?;
    let stream = events::stream(shared.backend.status(), shared.account, token, permit);
    Ok(stream.into_response())
}

async fn set_limit(
    State(shared): State<Shared>,
    Body(limit): Body<LimitRequest>,
) -> Answer<Status> {
    let bytes_per_second = limit.egress_bytes_per_second_max;
    if bytes_per_second < EGRESS_BYTES_PER_SECOND_MIN {
        return Err(Refusal::LimitTooLow);
    }
    shared.backend.set_limit(bytes_per_second).await.map(Json).map_err(Refusal::Device)
}

async fn set_pause(
    State(shared): State<Shared>,
    Body(pause): Body<PauseRequest>,
) -> Answer<Status> {
    if let PauseRequest::For { seconds } = pause
        && !(1..=PAUSE_SECONDS_MAX).contains(&seconds)
    {
        return Err(Refusal::PauseOutOfRange);
    }
    shared.backend.set_pause(pause).await.map(Json).map_err(Refusal::Device)
}

async fn remove(
    State(shared): State<Shared>,
    Body(removal): Body<RemovalRequest>,
) -> Answer<Status> {
    shared.backend.remove(removal).await.map(Json).map_err(Refusal::Device)
}

/// Around everything that only the owner may see or do; leaves the token for the handler.
async fn logged_in(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let token = shared.token(request.headers()).ok_or(Refusal::NotLoggedIn)?;
    if !shared.account.is_logged_in(&token) {
        return Err(Refusal::NotLoggedIn);
    }
    request.extensions_mut().insert(token);
    Ok(next.run(request).await)
}

impl Shared {
    fn token(&self, headers: &HeaderMap) -> Option<Token> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
        let mut pairs = cookies.flat_map(|v| v.split(';')).filter_map(|p| p.trim().split_once('='));
        pairs.find(|(name, _)| *name == &*self.cookie).and_then(|(_, value)| Token::parse(value))
    }

    fn entered(&self, token: &Token) -> Response {
        let session = Session { password_set: true, logged_in: true };
        (self.cookie(&token.to_text(), AGE_MAX.as_secs()), Json(session)).into_response()
    }

    fn cookie(&self, value: &str, age_seconds: u64) -> [(HeaderName, String); 1] {
        let name = &self.cookie;
        let cookie =
            format!("{name}={value}; Path=/api/; Max-Age={age_seconds}; HttpOnly; SameSite=Strict");
        [(header::SET_COOKIE, cookie)]
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

/// A JSON body of bounded size and age.
struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let read = timeout(BODY_TIMEOUT, Bytes::from_request(request, state));
        let bytes =
            read.await.map_err(|_| Refusal::TooSlow)?.map_err(|rejection| {
                match rejection.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge,
                    _ => Refusal::Malformed(rejection.body_text()),
                }
            })?;
        serde_json::from_slice(&bytes).map(Body).map_err(|e| Refusal::Malformed(e.to_string()))
    }
}
