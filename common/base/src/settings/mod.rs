//! Settings: PostgreSQL's names, units, contexts and texts, in one static table.
//!
//! - [`table`]: every setting, and a typed key for each ([`keys`]).
//! - [`value`]: parsing with units, and the text of `SHOW`.
//! - [`Settings`]: the node's values, from default < `towline.toml` < `towline.auto.toml` <
//!   command line; reads cost one atomic load.
//! - [`SessionSettings`]: one session's `SET`, `SET LOCAL`, `RESET`, undone by a rollback.
//! - [`sync_names`]: the grammar of `synchronous_standby_names`.

mod checks;
mod def;
mod error;
mod file;
mod session;
mod store;
pub mod sync_names;
pub mod table;
pub mod value;

pub use checks::CHECKED_MANAGERS;
pub use def::{Context, Key, Kind, SettingDef, Typed, Unit, is_secluded};
pub use error::SettingError;
pub use file::{ConfigFiles, HbaRule};
pub use session::{Scope, SessionSettings};
pub use store::{Reload, SettingRow, Settings, Source};
pub use table::keys;
pub use value::Value;

#[cfg(test)]
mod tests;
