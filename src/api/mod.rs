//! What the programs say to each other: serde types only, versioned by `format` or by `/v1/`.

pub mod admin;
pub mod endpoints;
pub mod hub;
pub mod reflector;
pub mod signed;
