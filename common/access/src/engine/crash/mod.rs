//! Crashes at every write and sync boundary of whole transactions, and of recovery itself.
//!
//! After each: every acknowledged commit is there, no part of another transaction is, each index is in order, linked, and agrees with its
//! table, the visibility map says nothing that is not so, every page read has its checksum; and what was shown stays.
#![allow(clippy::unwrap_used)]

mod cuts;
mod driver;
mod files;
mod node;
mod released;
mod rules;
mod scripts;
mod sweep;
mod without_quorum;
