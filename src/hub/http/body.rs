//! Request bodies: JSON up to a limit, and the courtesy of hearing a caller out before refusing.
//! Closing on someone who is still sending resets the connection, and the refusal is lost on the
//! way; so some of the rest is read and thrown away first.

use std::time::Duration;

use axum::{
    body::BodyDataStream,
    extract::{FromRequest, Request},
    http::StatusCode,
};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use super::Problem;

/// What is on its way already when the refusal is clear; a sender that goes on does not listen.
const LINGER_BYTES: usize = 8 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// Call before refusing a request whose body was not read to its end.
pub async fn hear_out(body: &mut BodyDataStream) {
    let discard = async {
        let mut heard = 0;
        while heard < LINGER_BYTES
            && let Some(Ok(chunk)) = body.next().await
        {
            heard += chunk.len();
        }
    };
    // Too slow is as good as done.
    let _ = tokio::time::timeout(LINGER_TIME, discard).await;
}

/// A JSON body of at most `MAX` bytes.
pub struct JsonBody<T, const MAX: usize>(pub T);

impl<S: Send + Sync, T: DeserializeOwned, const MAX: usize> FromRequest<S> for JsonBody<T, MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let mut body = request.into_body().into_data_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|_| Problem::bad_request("the body was cut short"))?;
            if bytes.len() + chunk.len() > MAX {
                hear_out(&mut body).await;
                let message = format!("the body is larger than {MAX} bytes");
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                return Err(Problem::new(status, "body_too_large", message));
            }
            bytes.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&bytes)
            .map(JsonBody)
            .map_err(|e| Problem::bad_request(format!("the body is not what is expected: {e}")))
    }
}
