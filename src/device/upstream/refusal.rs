//! Why a repository was refused, in one sentence for an owner: what is wrong, and what to do. Decides
//! nothing.

use tough::{
    error::Error,
    schema::{self, RoleType},
};

use super::{UpstreamError, exchange::readable};

const STAYS: &str = "the cached list stays in force";

pub fn refused(error: Error) -> UpstreamError {
    UpstreamError::List(match error {
        Error::VerifyMetadata { role, source, .. } => unsigned(role, &source),
        Error::ParseMetadata { role, source, .. } => format!(
            "its {role} metadata cannot be read ({}); {STAYS}. Check that hub.url is right and that no \
             login page answers in its place",
            readable(&source.to_string())
        ),
        Error::ParseTrustedMetadata { .. } | Error::VerifyTrustedMetadata { .. } => {
            "the operator's root file is damaged; copy root.json from the hub again and name it in \
             hub.root_file"
                .into()
        }
        Error::OlderMetadata { role, current_version, new_version, .. } => format!(
            "its {role} metadata has version {new_version}, but version {current_version} was here \
             before; {STAYS}. If this goes on, somebody shows this device an old list: tell the operator"
        ),
        Error::Transport { source, .. } => innermost(&source),
        other => format!("{}; {STAYS}", readable(&other.to_string())),
    })
}

fn unsigned(role: RoleType, why: &schema::Error) -> String {
    let why = match why {
        schema::Error::SignatureThreshold { threshold, valid, .. } => {
            format!("{valid} of the operator's keys have signed it, {threshold} must")
        }
        other => readable(&other.to_string()),
    };
    format!(
        "its {role} metadata is not signed as it must be ({why}); {STAYS}. If this goes on, ask the \
         operator for a new root.json"
    )
}

/// What was wrong with a file, without the names of those who handed it on.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    match inner.downcast_ref::<UpstreamError>() {
        Some(UpstreamError::List(problem)) => format!("{problem}; {STAYS}"),
        _ => format!("{}; {STAYS}", readable(&inner.to_string())),
    }
}
