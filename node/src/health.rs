//! `towline health`: whether a node serves, for a container's health check.

use std::time::Duration;

use crate::cli::HealthArgs;
use crate::cluster::REPLAY_PAUSED;
use crate::refusal::{Outcome, Refusal};
use crate::sql_client::{Greeting, SqlClient, knock};

/// Succeeds when the node answers a query and a full disk does not hold its replay up, or asks for a password (it does so only while it serves).
pub(crate) fn run(args: &HealthArgs) -> Outcome {
    let timeout = Duration::from_millis(args.timeout_ms.max(1));
    let unhealthy = |why: String| Refusal::failed(format!("{} does not serve SQL: {why}.", args.sql));
    match knock(args.sql, timeout).map_err(|error| unhealthy(error.to_string()))? {
        Greeting::WantsPassword => Ok(()),
        Greeting::Refused { message, .. } => Err(unhealthy(message)),
        Greeting::Ready => {
            let status = SqlClient::connect(args.sql, timeout)
                .and_then(|mut client| client.value("select status from pg_stat_wal_receiver"))
                .map_err(|error| unhealthy(error.to_string()))?;
            if status.as_deref() == Some(REPLAY_PAUSED) {
                return Err(Refusal::failed(format!(
                    "{} does not replay: {REPLAY_PAUSED}.",
                    args.sql
                )));
            }
            Ok(())
        }
    }
}
