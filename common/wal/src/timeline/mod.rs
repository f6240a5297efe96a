//! Timelines: history files, forks, and a standby's received log.

mod fork;
mod history;
mod received;

pub use fork::{fork_timeline, rewrite_tail_durable};
pub use history::{HistoryEntry, HistoryError, TimelineHistory, history_name};
pub use received::{ReceiveError, ReceivedWal, ReceiverConfig};
