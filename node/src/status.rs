//! `towline status`: the table of `up`, from outside.

use std::io::{self, Write as _};

use towline_proto::transport::Secret;

use crate::cli::StatusArgs;
use crate::config::secret_in;
use crate::data_dir::unreadable;
use crate::refusal::{Outcome, Refusal, printed};
use crate::up::{Asked, CLUSTER_FILE, ClusterFile, SECRET_FILE, ask_all, render};

/// Prints the nodes; fails when one of them does not serve.
pub(crate) fn run(args: &StatusArgs) -> Outcome {
    let nodes = if args.addresses.is_empty() {
        let path = args.data_dir.join(CLUSTER_FILE);
        let text = std::fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Refusal::new(format!(
                "There is no cluster in {}; name it with --data-dir, or the nodes with --sql IP:PORT.",
                args.data_dir.display()
            )),
            _ => unreadable(&path, &error),
        })?;
        let file: ClusterFile = serde_json::from_slice(&text).map_err(|error| {
            Refusal::new(format!(
                "{} is damaged ({error}); start towline up again.",
                path.display()
            ))
        })?;
        if file.nodes.is_empty() {
            return Err(Refusal::new(format!(
                "{} names no nodes; start towline up again.",
                path.display()
            )));
        }
        let given = file.cluster_secret_file.as_deref();
        let given: Vec<(&str, &str)> = given.map(|path| (SECRET_FILE, path)).into_iter().collect();
        file.nodes
            .into_iter()
            .map(|node| Asked {
                secret: secret_in(&args.data_dir.join(&node.name), &given),
                name: node.name,
                sql: node.sql,
                grpc: Some(node.grpc),
            })
            .collect()
    } else {
        args.addresses
            .iter()
            .map(|address| Asked {
                name: address.to_string(),
                sql: *address,
                grpc: None,
                secret: Secret::none(),
            })
            .collect()
    };
    let rows = ask_all(nodes);
    if args.json {
        let text = serde_json::to_string_pretty(&rows).map_err(|error| Refusal::failed(error.to_string()))?;
        printed(writeln!(io::stdout(), "{text}"))?;
    } else {
        printed(writeln!(io::stdout(), "{}", render(&rows)))?;
    }
    let silent: Vec<&str> = rows
        .iter()
        .filter(|row| !row.serves())
        .map(|row| row.node.as_str())
        .collect();
    if silent.is_empty() {
        Ok(())
    } else {
        Err(Refusal::failed(format!("Not serving: {}.", silent.join(", "))))
    }
}
