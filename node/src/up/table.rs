//! The table of nodes that `up` and `status` print, and how it is filled.

use std::net::SocketAddr;
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use towline_base::Lsn;
use towline_proto::transport::Secret;

use super::plan::Plan;
use crate::config::secret_in;
use crate::identify::identify;
use crate::sql_client::{Greeting, SqlClient, knock};

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) node: String,
    /// "primary", "standby", or what keeps it from serving.
    pub(crate) role: String,
    /// Where it serves SQL.
    pub(crate) sql: SocketAddr,
    /// Where it serves replication, when known.
    pub(crate) grpc: Option<SocketAddr>,
    /// Its position: durable on a primary, replayed on a standby.
    pub(crate) lsn: Option<String>,
    /// Bytes behind the primary.
    pub(crate) lag_bytes: Option<u64>,
}

impl Row {
    /// Whether the node answers SQL.
    pub(crate) fn serves(&self) -> bool {
        self.lsn.is_some()
    }
}

/// A node to ask.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Its name.
    pub(crate) name: String,
    /// Where it serves SQL.
    pub(crate) sql: SocketAddr,
    /// Where it serves replication, when known.
    pub(crate) grpc: Option<SocketAddr>,
    /// What it wants to be shown there.
    pub(crate) secret: Secret,
}

/// Asks all nodes of a plan, side by side.
pub(crate) fn ask(plan: &Plan) -> Vec<Row> {
    let pairs: Vec<(&str, &str)> = plan
        .settings
        .iter()
        .map(|set| (set.name.as_str(), set.value.as_str()))
        .collect();
    let asked = plan.nodes.iter().map(|node| Asked {
        name: node.name.clone(),
        sql: node.sql,
        grpc: Some(node.grpc),
        secret: secret_in(&plan.node_dir(node), &pairs),
    });
    ask_all(asked.collect())
}

/// Asks nodes by name and addresses, side by side, and works out how far the standbys are behind.
pub(crate) fn ask_all(nodes: Vec<Asked>) -> Vec<Row> {
    let mut rows: Vec<Row> = std::thread::scope(|scope| {
        let asking: Vec<_> = nodes
            .into_iter()
            .map(|asked| scope.spawn(move || ask_one(asked)))
            .collect();
        asking
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    });
    let position = |row: &Row| row.lsn.as_deref().and_then(|lsn| lsn.parse::<Lsn>().ok());
    let primary = rows.iter().filter(|row| row.role == "primary").find_map(position);
    for row in &mut rows {
        if let (Some(primary), Some(own), "standby") = (primary, position(row), row.role.as_str()) {
            row.lag_bytes = Some(primary.0.saturating_sub(own.0));
        }
    }
    rows
}

fn ask_one(asked: Asked) -> Row {
    let (role, lsn) = match answer_of(&asked) {
        Ok((role, lsn)) => (role, Some(lsn.to_string())),
        Err(why) => (why, None),
    };
    Row {
        node: asked.name,
        role,
        sql: asked.sql,
        grpc: asked.grpc,
        lsn,
        lag_bytes: None,
    }
}

/// Role and position of a node that serves SQL, or what keeps it from that. A node that wants a password serves; the rest it
/// tells over gRPC.
fn answer_of(asked: &Asked) -> Result<(String, Lsn), String> {
    let said = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "down".to_owned(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => error.to_string(),
    };
    match knock(asked.sql, PATIENCE).map_err(said)? {
        Greeting::Ready => ask_sql(asked.sql).map_err(said),
        Greeting::Refused { message, .. } => Err(message),
        Greeting::WantsPassword => {
            let grpc = asked.grpc.ok_or(
                "serves, and wants a password: name the data directory of towline up instead of --sql",
            )?;
            let node = identify(grpc, asked.secret.clone(), PATIENCE)
                .map_err(|why| format!("serves SQL with passwords; its gRPC address says nothing: {why}"))?;
            // A standby tells what it has replayed in the place of the quorum.
            let lsn = if node.role == "standby" {
                node.quorum
            } else {
                node.flush
            };
            Ok((node.role, Lsn(lsn)))
        }
    }
}

fn ask_sql(sql: SocketAddr) -> std::io::Result<(String, Lsn)> {
    let mut client = SqlClient::connect(sql, PATIENCE)?;
    let standby = client.value("select pg_is_in_recovery()")?.as_deref() == Some("t");
    let lsn = client.value(if standby {
        "select pg_last_wal_replay_lsn()"
    } else {
        "select pg_current_wal_flush_lsn()"
    })?;
    let lsn = lsn
        .and_then(|lsn| lsn.parse().ok())
        .ok_or_else(|| std::io::Error::other("no position yet"))?;
    Ok((if standby { "standby" } else { "primary" }.to_owned(), lsn))
}

/// What decides whether the table is worth showing again: who serves as what, not where the log stands.
pub(crate) fn shape(rows: &[Row]) -> String {
    rows.iter()
        .map(|row| format!("{}={} ", row.node, row.role))
        .collect()
}

/// The table as text.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(["node", "role", "SQL", "gRPC", "LSN", "lag"]);
    for row in rows {
        table.add_row([
            row.node.clone(),
            row.role.clone(),
            row.sql.to_string(),
            row.grpc.map_or_else(|| "-".to_owned(), |grpc| grpc.to_string()),
            row.lsn.clone().unwrap_or_else(|| "-".to_owned()),
            row.lag_bytes
                .map_or_else(|| "-".to_owned(), |bytes| format!("{bytes} B")),
        ]);
    }
    table.to_string()
}

/// Ready-made `psql` lines.
pub(crate) fn hints(plan: &Plan) -> String {
    let mut text = String::from("\nConnect with:\n");
    for (index, node) in plan.nodes.iter().enumerate() {
        let role = if index == 0 {
            "primary, reads and writes"
        } else {
            "standby, reads"
        };
        text.push_str(&format!(
            "  psql -h {} -p {} -U postgres postgres    # {} ({role})\n",
            node.sql.ip(),
            node.sql.port(),
            node.name
        ));
    }
    text.push_str("Ctrl-C stops the cluster; the data stays.");
    text
}
