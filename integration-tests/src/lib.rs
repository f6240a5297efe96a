//! What the black-box tests stand on: programs found or missing, real Towline processes, a real
//! PostgreSQL 15 beside them, a small blocking SQL client, and waiting for a condition with a deadline.
#![allow(clippy::unwrap_used)]

pub mod client;
pub mod node;
pub mod peer;
pub mod ports;
pub mod process;
pub mod raw;
pub mod tools;
pub mod wait;
