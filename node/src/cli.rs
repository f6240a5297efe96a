//! The command line: every subcommand, option and default of `towline`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A replicated SQL database that speaks PostgreSQL's protocol.
#[derive(Debug, Parser)]
#[command(name = "towline", version, about, propagate_version = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a cluster on this machine: one primary and its standbys; Ctrl-C stops it
    Up(UpArgs),
    /// Run a primary
    Primary(NodeArgs),
    /// Run a standby that follows a primary
    Standby(StandbyArgs),
    /// Make the data directory of a primary
    Init(InitArgs),
    /// Show the nodes of a cluster
    Status(StatusArgs),
    /// Print the records of the write-ahead log
    Waldump(WaldumpArgs),
    /// Print the pages of a relation file
    Pagedump(PagedumpArgs),
    /// Print the control file of a data directory
    Controldata(ControldataArgs),
    /// Read every page of a stopped node and name the damaged ones
    Checksums(ChecksumsArgs),
    /// Exit with 0 when a node serves SQL (for health checks)
    Health(HealthArgs),
}

/// A setting given as `name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// The setting.
    pub(crate) name: String,
    /// Its text.
    pub(crate) value: String,
}

impl std::str::FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("expected name=value")?;
        if name.trim().is_empty() {
            return Err("expected name=value".to_owned());
        }
        Ok(Self {
            name: name.trim().to_owned(),
            value: value.to_owned(),
        })
    }
}

/// `towline up`
#[derive(Clone, Debug, Args)]
pub(crate) struct UpArgs {
    /// Where the nodes keep their data, each in a folder of its own
    #[arg(long, default_value = "./towline-data")]
    pub(crate) data_dir: PathBuf,
    /// How many nodes; 1 implies --sync ''
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) nodes: u16,
    /// SQL port of the first node; the others follow, and gRPC ports lie 2000 above
    #[arg(long, default_value_t = 5432, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) sql_port: u16,
    /// synchronous_standby_names; '' makes the standbys asynchronous
    #[arg(long)]
    pub(crate) sync: Option<String>,
    /// Remove the data of an earlier cluster first
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Give every node a setting
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) settings: Vec<Assignment>,
}

/// What every running node takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeArgs {
    /// The data directory
    #[arg(long)]
    pub(crate) data_dir: PathBuf,
    /// Where to serve SQL
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:5432")]
    pub(crate) sql_listen: SocketAddr,
    /// Where to serve replication
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7432")]
    pub(crate) grpc_listen: SocketAddr,
    /// Set a setting, above the configuration files
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) settings: Vec<Assignment>,
    /// End when this process, the parent, ends
    #[arg(long, hide = true)]
    pub(crate) parent: Option<u32>,
}

/// `towline standby`
#[derive(Clone, Debug, Args)]
pub(crate) struct StandbyArgs {
    /// What every node takes
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// The gRPC address of the node to follow
    #[arg(long, value_name = "http://HOST:PORT")]
    pub(crate) upstream: String,
    /// The name of this node, unique in the cluster
    #[arg(long)]
    pub(crate) name: String,
}

/// `towline init`
#[derive(Clone, Debug, Args)]
pub(crate) struct InitArgs {
    /// The data directory to make; it must not exist or be empty
    #[arg(long)]
    pub(crate) data_dir: PathBuf,
    /// The name of the node
    #[arg(long, default_value = "primary")]
    pub(crate) name: String,
    /// File with the password of the superuser postgres; logins then need passwords
    #[arg(long)]
    pub(crate) password_file: Option<PathBuf>,
    /// Size of a WAL segment: a power of two from 1MB to 1GB
    #[arg(long, default_value = "16MB")]
    pub(crate) wal_segment_size: String,
    /// The first xid to be given out: tests begin near a border
    #[arg(long, hide = true, default_value_t = 3)]
    pub(crate) first_xid: u64,
}

/// `towline status`
#[derive(Clone, Debug, Args)]
pub(crate) struct StatusArgs {
    /// The data directory of `towline up`, which knows the nodes
    #[arg(long, default_value = "./towline-data")]
    pub(crate) data_dir: PathBuf,
    /// SQL addresses to ask instead
    #[arg(long = "sql", value_name = "IP:PORT")]
    pub(crate) addresses: Vec<SocketAddr>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `towline waldump`
#[derive(Clone, Debug, Args)]
pub(crate) struct WaldumpArgs {
    /// A data directory, a directory of segments, or one segment
    pub(crate) path: PathBuf,
    /// Count records by resource manager instead of printing them
    #[arg(long)]
    pub(crate) stats: bool,
    /// Say of each page image what it leaves out and how it is compressed
    #[arg(long, short = 'b')]
    pub(crate) bkp_details: bool,
    /// Begin with the record at this position or the next one
    #[arg(long)]
    pub(crate) start: Option<String>,
    /// Stop at this position
    #[arg(long)]
    pub(crate) end: Option<String>,
    /// Follow this timeline (default: the latest)
    #[arg(long)]
    pub(crate) timeline: Option<u32>,
}

/// `towline pagedump`
#[derive(Clone, Debug, Args)]
pub(crate) struct PagedumpArgs {
    /// A relation file
    pub(crate) file: PathBuf,
    /// Only this block of the file
    #[arg(long)]
    pub(crate) block: Option<u32>,
}

/// `towline controldata`
#[derive(Clone, Debug, Args)]
pub(crate) struct ControldataArgs {
    /// The data directory
    pub(crate) data_dir: PathBuf,
}

/// `towline checksums`
#[derive(Clone, Debug, Args)]
pub(crate) struct ChecksumsArgs {
    /// The data directory
    pub(crate) data_dir: PathBuf,
}

/// `towline health`
#[derive(Clone, Debug, Args)]
pub(crate) struct HealthArgs {
    /// The SQL address of the node
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:5432")]
    pub(crate) sql: SocketAddr,
    /// How long it may take, in milliseconds
    #[arg(long, default_value_t = 3000)]
    pub(crate) timeout_ms: u64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn an_assignment_needs_a_name() {
        assert_eq!("a=b=c".parse::<Assignment>().unwrap().value, "b=c");
        assert!("a".parse::<Assignment>().is_err());
        assert!("=b".parse::<Assignment>().is_err());
    }
}
