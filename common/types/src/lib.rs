//! `towline-types`: SQL data types, exactly as PostgreSQL 15 has them.
//!
//! What a value is in memory ([`Datum`]), how it stands on disk ([`row`], [`disk`]), how it is read from and printed
//! to clients ([`parse_text`], [`write_text`], [`parse_binary`], [`write_binary`]), and how types convert
//! ([`cast`]). Values know nothing of tables, pages or sessions; what a session sets is passed in as an [`IoStyle`].

pub mod array;
pub mod binary;
pub mod cast;
pub mod datetime;
pub mod datum;
pub mod disk;
pub mod error;
pub mod float;
pub mod input;
pub mod interval;
pub mod numeric;
pub mod output;
pub mod pglz;
pub mod row;
pub mod style;
mod toast;
pub mod type_id;
pub mod varlena;

pub use array::ArrayValue;
pub use binary::{parse_binary, write_binary, write_disk_binary};
pub use datum::Datum;
pub use error::TypeError;
pub use input::parse_text;
pub use interval::Interval;
pub use numeric::Numeric;
pub use output::{text_of, write_disk_text, write_text};
pub use row::{AttrDesc, RowDesc};
pub use style::IoStyle;
pub use toast::{OutOfLine, Shortening};
pub use type_id::{Align, Category, ColumnType, TypeId};
pub use varlena::{Payload, Stored, ToastPointer};
