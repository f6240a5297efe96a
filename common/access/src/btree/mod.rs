//! The B-tree: PostgreSQL 15's nbtree version 4 on disk, Lehman and Yao's protocol in memory.
//!
//! - Pages, tuples and records are PostgreSQL's, so `bt_page_items` reads our files and `bt_index_parent_check` accepts them: the
//!   row's place is the last key, separators are truncated, a split is two records with a flag between them. There are no
//!   posting lists (`allequalimage` is false).
//! - A reader latches one page at a time, a writer the pages of one record; nothing waits for a transaction while it holds one.
//! - Invariants, which [`check`] verifies: items of a page ascend strictly (place included) and lie between the low key its
//!   parent gives it and its high key; siblings link both ways; every leaf item has its heap row and every row its item.
//! - Not built: page deletion (an empty page stays in the tree and takes new keys of its range), deduplication.
//!
//! The pieces: `page` and `tuple` are the format, `key` the order, `search` descents, `scan` reads, `insert`, `split` and
//! `root` writes, `delete` removal, `build` bulk loads, `redo` recovery.

mod build;
mod check;
mod context;
mod delete;
mod insert;
mod key;
mod page;
mod redo;
mod root;
mod scan;
mod search;
mod split;
mod split_pages;
mod split_point;
mod tuple;

#[cfg(test)]
mod consistency_tests;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod tests;

pub use build::{Build, BuildStep, Spool};
pub use check::{Checked, check};
pub use context::{IndexContext, Pressure};
pub(crate) use delete::bulk_delete;
pub use delete::{BulkDelete, BulkStep};
pub(crate) use insert::insert;
pub use insert::{InsertOutcome, RowProbe, RowState};
pub(crate) use key::{EncodedKey, Values, encode_row};
pub use key::{KeyColumn, KeyDescriptor};
pub(crate) use page::mask_for_comparison;
pub(crate) use redo::redo;
pub use scan::{Bound, Direction, IndexScan, ScanBounds};
pub use search::DescentHints;
pub(crate) use search::circle;
