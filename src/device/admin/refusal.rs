//! Every way in which the page's server says no: a code for programs, one sentence for people.

use std::{fmt, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{api::hub::ApiError, logic::login_guard::TooManyTries};

use super::{EGRESS_BYTES_PER_SECOND_MIN, PASSWORD_CHARS_MIN, PAUSE_SECONDS_MAX};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "this page does not answer to the name {0:?}: use the device's own address, or add the name to admin.hosts in its configuration"
    )]
    WrongHost(String),
    #[error("this page is for the home network only; the request came from outside it")]
    NotFromHere,
    #[error("the request came from another site and was not carried out")]
    CrossOrigin,
    #[error("send JSON, with Content-Type: application/json")]
    NotJson,
    #[error("the request is not in the expected form: {0}")]
    Malformed(String),
    #[error("the request is too large")]
    TooLarge,
    #[error("the request took too long to arrive: send it again")]
    TooSlow,
    #[error("log in first")]
    NotLoggedIn,
    #[error("there is no password yet: set one with the one-time code")]
    NoPasswordYet,
    #[error("a password is already set and the one-time code is used up: log in with the password")]
    PasswordAlreadySet,
    #[error("a password needs at least {PASSWORD_CHARS_MIN} characters")]
    PasswordTooShort,
    #[error("the password is wrong")]
    WrongPassword,
    #[error("the one-time code is wrong: it is in the device's log, printed at its first start")]
    WrongSetupCode,
    #[error(transparent)]
    TooManyTries(TooManyTries),
    #[error(
        "a limit under {EGRESS_BYTES_PER_SECOND_MIN} bytes per second serves nobody: pause instead"
    )]
    LimitTooLow,
    #[error("a pause is 1 to {PAUSE_SECONDS_MAX} seconds long: for more, pause until resumed")]
    PauseOutOfRange,
    /// The device's own sentence.
    #[error("{0}")]
    Device(String),
    #[error("too many pages are watching this device: close one of them")]
    TooManyWatchers,
    #[error("the device could not read or write its password file: {0}")]
    Storage(String),
    #[error("there is nothing here")]
    NotFound,
}

impl Refusal {
    fn code_and_status(&self) -> (&'static str, StatusCode) {
        use Refusal as R;
        match self {
            R::WrongHost(_) => ("wrong_host", StatusCode::MISDIRECTED_REQUEST),
            R::NotFromHere => ("not_from_here", StatusCode::FORBIDDEN),
            R::CrossOrigin => ("cross_origin", StatusCode::FORBIDDEN),
            R::NotJson => ("not_json", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            R::Malformed(_) => ("malformed", StatusCode::BAD_REQUEST),
            R::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE),
            R::TooSlow => ("too_slow", StatusCode::REQUEST_TIMEOUT),
            R::NotLoggedIn => ("not_logged_in", StatusCode::UNAUTHORIZED),
            R::NoPasswordYet => ("no_password_yet", StatusCode::CONFLICT),
            R::PasswordAlreadySet => ("password_already_set", StatusCode::CONFLICT),
            R::PasswordTooShort => ("password_too_short", StatusCode::UNPROCESSABLE_ENTITY),
            R::WrongPassword => ("wrong_password", StatusCode::FORBIDDEN),
            R::WrongSetupCode => ("wrong_setup_code", StatusCode::FORBIDDEN),
            R::TooManyTries(_) => ("too_many_tries", StatusCode::TOO_MANY_REQUESTS),
            R::LimitTooLow => ("limit_too_low", StatusCode::UNPROCESSABLE_ENTITY),
            R::PauseOutOfRange => ("pause_out_of_range", StatusCode::UNPROCESSABLE_ENTITY),
            R::Device(_) => ("device", StatusCode::UNPROCESSABLE_ENTITY),
            R::TooManyWatchers => ("too_many_watchers", StatusCode::SERVICE_UNAVAILABLE),
            R::Storage(_) => ("storage", StatusCode::INTERNAL_SERVER_ERROR),
            R::NotFound => ("not_found", StatusCode::NOT_FOUND),
        }
    }

    /// For a person who typed an address, not for a program.
    pub fn into_text(self) -> Response {
        (self.code_and_status().1, format!("{}\n", Sentence(&self))).into_response()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (code, status) = self.code_and_status();
        let error = ApiError { code: code.into(), message: self.to_string(), expected: None };
        let mut response = (status, Json(error)).into_response();
        if let Refusal::TooManyTries(TooManyTries { wait }) = self {
            response.headers_mut().insert(header::RETRY_AFTER, whole_seconds(wait));
        }
        response
    }
}

/// Rounded up: whoever waits that long is let in.
fn whole_seconds(wait: Duration) -> HeaderValue {
    HeaderValue::from(wait.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
}

struct Sentence<'a>(&'a Refusal);

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let mut chars = text.chars();
        let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
        write!(f, "{first}{}.", chars.as_str())
    }
}
