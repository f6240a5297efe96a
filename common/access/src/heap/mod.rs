//! The heap: rows as chains of versions on pages in PostgreSQL 15's layout.
//!
//! - [`mod@tuple`] is the format, [`form`] makes tuples, [`visibility`] says who sees them.
//! - [`scan`] reads a relation page by page, [`fetch`] follows one index entry to the version a snapshot sees.
//! - `insert`, `modify` (update, delete, lock) and `prune` are the logged changes; `place` finds room.
//! - `redo` applies their records.
//!
//! Rules that hold everywhere here: no latch outlives a call, except inside a [`fetch::FetchedRow`]; a change takes its WAL credit before it
//! latches; what may fail is asked before a page is touched.

pub mod fetch;
pub mod form;
pub(crate) mod insert;
pub(crate) mod modify;
pub(crate) mod place;
pub(crate) mod probe;
pub(crate) mod prune;
pub(crate) mod redo;
pub mod scan;
pub mod tuple;
pub mod visibility;
pub(crate) mod vm;

pub use fetch::FetchedRow;
pub use form::{MAX_TUPLE, TOAST_ABOVE, form_toasted, form_tuple};
pub use scan::HeapScan;
pub use tuple::TupleRef;
pub use visibility::Visibility;
