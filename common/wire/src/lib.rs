//! `towline-wire`: the PostgreSQL protocol front end.
//!
//! A connection's life: [`server`] accepts it, [`auth`] reads its startup packet and lets it in by the rules of [`hba`],
//! [`connection`] converses: it decodes ([`frontend`]), steps the session ([`session::WireSession`]), collects the answers
//! ([`reply`], [`backend`]) and writes once per Sync. The messages are coded by hand: a client's bytes are borrowed from the
//! input buffer up to the session, and rows are written by the session straight into the reply buffer.
//!
//! Nothing a client sends may panic, hang or grow memory without bound; nothing an answer depends on may be
//! unconfirmed when it leaves (C3).

pub mod auth;
pub mod backend;
pub mod connection;
mod contained;
pub mod frontend;
pub mod hba;
pub mod reply;
pub mod server;
pub mod session;
pub mod sql_session;
pub mod startup;

pub use hba::{Method, Rule};
pub use server::{Server, ServerConfig, Stop};
pub use session::{Backend, RoleLogin};
