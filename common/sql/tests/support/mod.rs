//! What the tests of this crate share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

pub mod client;
pub mod local;
pub mod script;
