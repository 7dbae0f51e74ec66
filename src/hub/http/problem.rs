//! Errors as they leave the hub: an HTTP status and an `ApiError`. What is our own fault is logged
//! here, once, and told to the caller without detail.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use crate::{
    api::{hub::ApiError, signed::SignedError},
    hub::{report::ReportError, state::HubError, store::StoreError, upload::UploadError},
};

#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    error: ApiError,
}

impl Problem {
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Problem {
        let error = ApiError { code: code.to_owned(), message: message.into(), expected: None };
        Problem { status, error }
    }

    pub fn bad_request(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub fn not_found(message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub fn internal(error: &dyn std::fmt::Display) -> Problem {
        tracing::error!("a request failed: {error}");
        let message = "the hub has a problem of its own; its log says more. Try again later";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    pub fn expecting(mut self, expected: u64) -> Problem {
        self.error.expected = Some(expected);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(self.error)).into_response()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        Problem::internal(&error)
    }
}

impl From<tokio::task::JoinError> for Problem {
    fn from(error: tokio::task::JoinError) -> Problem {
        Problem::internal(&error)
    }
}

impl From<SignedError> for Problem {
    fn from(error: SignedError) -> Problem {
        let (status, code) = match error {
            SignedError::BadSignature => (StatusCode::UNAUTHORIZED, "bad_signature"),
            SignedError::UntrustedKey => (StatusCode::UNAUTHORIZED, "not_enrolled"),
            SignedError::Malformed(_) => (StatusCode::BAD_REQUEST, "bad_request"),
        };
        Problem::new(status, code, error.to_string())
    }
}

impl From<ReportError> for Problem {
    fn from(error: ReportError) -> Problem {
        let problem = |status, code| Problem::new(status, code, error.to_string());
        match &error {
            ReportError::Gap { expected, .. } => {
                problem(StatusCode::CONFLICT, "report_gap").expecting(*expected)
            }
            ReportError::Conflict { expected, .. } => {
                problem(StatusCode::CONFLICT, "report_conflict").expecting(*expected)
            }
            ReportError::BrokenChain { number } => {
                problem(StatusCode::CONFLICT, "report_conflict").expecting(*number)
            }
            ReportError::Store(error) => Problem::internal(error),
            ReportError::UnknownContent(_) => {
                problem(StatusCode::UNPROCESSABLE_ENTITY, "unknown_content")
            }
            ReportError::UnknownFormat(_)
            | ReportError::TooManyLines(_)
            | ReportError::ImplausibleHour(_)
            | ReportError::ImplausibleBytes(_) => {
                problem(StatusCode::UNPROCESSABLE_ENTITY, "bad_report")
            }
        }
    }
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Problem {
        let problem = |status, code| Problem::new(status, code, error.to_string());
        match &error {
            UploadError::Name { .. } | UploadError::Shape(_) | UploadError::Metainfo(_) => {
                problem(StatusCode::UNPROCESSABLE_ENTITY, "bad_upload")
            }
            UploadError::Unknown(_) => problem(StatusCode::NOT_FOUND, "unknown_upload"),
            UploadError::Busy => problem(StatusCode::CONFLICT, "upload_busy"),
            UploadError::WrongOffset(state) => {
                problem(StatusCode::CONFLICT, "upload_offset").expecting(state.received_bytes)
            }
            UploadError::Incomplete(state) => {
                problem(StatusCode::CONFLICT, "upload_incomplete").expecting(state.received_bytes)
            }
            UploadError::Interrupted(state) => {
                problem(StatusCode::REQUEST_TIMEOUT, "upload_interrupted")
                    .expecting(state.received_bytes)
            }
            UploadError::TooManyBytes(_) => {
                problem(StatusCode::PAYLOAD_TOO_LARGE, "upload_too_long")
            }
            UploadError::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => Problem::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "disk_full",
                "the hub's disk is full; make room there and run the upload again",
            ),
            UploadError::Io(e) => Problem::internal(e),
        }
    }
}

impl From<HubError> for Problem {
    fn from(error: HubError) -> Problem {
        match error {
            HubError::Upload(e) => e.into(),
            HubError::Request(message) => {
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_request", message)
            }
            HubError::DoesNotFit(_) => {
                Problem::new(StatusCode::CONFLICT, "does_not_fit", error.to_string())
            }
            HubError::UnknownContent(_) => {
                Problem::new(StatusCode::NOT_FOUND, "unknown_content", error.to_string())
            }
            other => Problem::internal(&other),
        }
    }
}
