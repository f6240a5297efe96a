//! A small blocking SQL client over tokio-postgres' simple protocol: rows as text, errors with SQLSTATE.

use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// How long a server may take to let a client in. A disk that stalls holds up a node that writes to its log.
const LOGIN: Duration = Duration::from_secs(60);

/// One connection with a runtime of its own.
pub struct Sql {
    runtime: Runtime,
    client: tokio_postgres::Client,
}

/// Why a statement or a connection failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The five characters of the SQLSTATE, or nothing when the connection broke.
    pub sqlstate: Option<String>,
    /// The server's message, or the client's.
    pub message: String,
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(server) => Failure {
                sqlstate: Some(server.code().code().to_owned()),
                message: server.message().to_owned(),
            },
            None => Failure {
                sqlstate: None,
                message: error.to_string(),
            },
        }
    }
}

/// Rows as the server printed them; NULL is `None`.
pub type Rows = Vec<Vec<Option<String>>>;

impl Sql {
    /// Connects as superuser `postgres` to database `postgres` on a loopback port.
    pub fn connect(port: u16) -> Result<Sql, Failure> {
        Sql::connect_with(&format!(
            "host=127.0.0.1 port={port} user=postgres dbname=postgres"
        ))
    }

    /// Connects with a connection string.
    pub fn connect_with(config: &str) -> Result<Sql, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let connected = runtime
            .block_on(async { tokio::time::timeout(LOGIN, tokio_postgres::connect(config, NoTls)).await });
        let (client, connection) = match connected {
            Ok(result) => result?,
            Err(_) => {
                return Err(Failure {
                    sqlstate: None,
                    message: format!("no answer to the start-up within {LOGIN:?}"),
                });
            }
        };
        runtime.spawn(connection);
        Ok(Sql { runtime, client })
    }

    /// Runs one or more statements and returns the rows of all of them.
    pub fn query(&self, sql: &str) -> Result<Rows, Failure> {
        self.runtime
            .block_on(self.client.simple_query(sql))
            .map(rows)
            .map_err(Failure::from)
    }

    /// Like [`Sql::query`], but gives up after `limit`; the connection is then of no more use.
    pub fn query_within(&self, sql: &str, limit: Duration) -> Result<Rows, Failure> {
        let outcome = self
            .runtime
            .block_on(async { tokio::time::timeout(limit, self.client.simple_query(sql)).await });
        match outcome {
            Ok(messages) => messages.map(rows).map_err(Failure::from),
            Err(_) => Err(Failure {
                sqlstate: None,
                message: format!("no answer within {limit:?}"),
            }),
        }
    }

    /// The single value of a single row.
    pub fn value(&self, sql: &str) -> Result<String, Failure> {
        let rows = self.query(sql)?;
        match rows.as_slice() {
            [row] if row.len() == 1 => Ok(row[0].clone().unwrap_or_default()),
            _ => Err(Failure {
                sqlstate: None,
                message: format!("not one value: {rows:?}"),
            }),
        }
    }
}

/// The rows among the messages of an answer.
fn rows(messages: Vec<SimpleQueryMessage>) -> Rows {
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}
