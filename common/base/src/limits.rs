//! Limits of the system, with the relations between them checked at compile time.

/// Bytes in a data page.
pub const PAGE_SIZE: usize = 8192;
/// Longest identifier, in bytes; PostgreSQL's `NAMEDATALEN - 1`.
pub const MAX_NAME_BYTES: usize = 63;
/// Pages per file of a relation: 1 GB parts.
pub const BLOCKS_PER_FILE: u32 = 131_072;
/// Largest body of one WAL record; PostgreSQL's `XLogRecordMaxSize`.
pub const MAX_RECORD_BYTES: usize = 1020 * 1024 * 1024;
/// Largest record that this engine writes by itself: a handful of page images and their data.
pub const MAX_OWN_RECORD_BYTES: usize = 256 * 1024;
/// Block references in one record; PostgreSQL's `XLR_MAX_BLOCK_ID + 1`.
pub const MAX_RECORD_BLOCKS: usize = 33;
/// Smallest and largest WAL segment.
pub const MIN_SEGMENT_BYTES: u64 = 1024 * 1024;
/// Largest WAL segment.
pub const MAX_SEGMENT_BYTES: u64 = 1024 * 1024 * 1024;
/// Default WAL segment.
pub const DEFAULT_SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// Columns of a table; PostgreSQL's `MaxHeapAttributeNumber`.
pub const MAX_COLUMNS: usize = 1600;
/// Key columns of an index; PostgreSQL's `INDEX_MAX_KEYS`.
pub const MAX_INDEX_COLUMNS: usize = 32;
/// Parameters of a prepared statement: a 16-bit count on the wire.
pub const MAX_PARAMETERS: usize = 65_535;
/// Largest message that a SQL client may send; PostgreSQL's `PQ_LARGE_MESSAGE_LIMIT`.
pub const MAX_CLIENT_MESSAGE_BYTES: usize = (1 << 30) - 2;
/// Largest message before a client has logged in.
pub const MAX_STARTUP_MESSAGE_BYTES: usize = 10_000;
/// Largest message of the replication service.
pub const MAX_REPLICATION_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Most WAL bytes in one message of a stream.
pub const MAX_WAL_CHUNK_BYTES: usize = 256 * 1024;
/// Replication slots of one node.
pub const MAX_SLOTS: usize = 64;
/// Standbys named in `synchronous_standby_names`.
pub const MAX_SYNC_NAMES: usize = 64;
/// Transactions that may be live below the next xid before assignment stops (2^31 less a reserve).
pub const XID_STOP_LIMIT: u64 = (1 << 31) - 3_000_000;
/// How many may be live before that is warned of.
pub const XID_WARN_LIMIT: u64 = (1 << 31) - 40_000_000;

const _: () = assert!(PAGE_SIZE.is_power_of_two());
const _: () = assert!(BLOCKS_PER_FILE as u64 * PAGE_SIZE as u64 == 1 << 30);
const _: () = assert!(MAX_OWN_RECORD_BYTES < MAX_RECORD_BYTES);
const _: () = assert!((MAX_OWN_RECORD_BYTES as u64) < MIN_SEGMENT_BYTES);
const _: () = assert!(MIN_SEGMENT_BYTES.is_power_of_two() && MAX_SEGMENT_BYTES.is_power_of_two());
const _: () = assert!(MAX_WAL_CHUNK_BYTES * 2 < MAX_REPLICATION_MESSAGE_BYTES);
const _: () = assert!(XID_WARN_LIMIT < XID_STOP_LIMIT && XID_STOP_LIMIT < 1 << 31);
