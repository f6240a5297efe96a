//! A node's configuration: settings from files and command line, login rules, and what must not be served beyond this machine.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use towline_base::settings::{ConfigFiles, HbaRule, Settings, keys};
use towline_base::{OsVfs, Vfs};
use towline_proto::transport::Secret;
use towline_wire::{Method, Rule, ServerConfig};

use crate::cli::NodeArgs;
use crate::refusal::{Outcome, Refusal};

/// Longest cluster secret file.
const MAX_SECRET_FILE: u64 = 4096;

/// What a node runs with.
#[derive(Debug)]
pub(crate) struct NodeConfig {
    /// The data directory.
    pub(crate) data_dir: PathBuf,
    /// Where SQL is served.
    pub(crate) sql_listen: SocketAddr,
    /// Where replication is served.
    pub(crate) grpc_listen: SocketAddr,
    /// The node-wide settings.
    pub(crate) settings: Arc<Settings>,
    /// The secret that nodes show each other.
    pub(crate) secret: Secret,
}

impl NodeConfig {
    /// Reads everything and refuses what would open the node to strangers.
    pub(crate) fn load(args: &NodeArgs) -> Outcome<Self> {
        let vfs: Arc<dyn Vfs> = Arc::new(OsVfs);
        let pairs: Vec<(&str, &str)> = args
            .settings
            .iter()
            .map(|set| (set.name.as_str(), set.value.as_str()))
            .collect();
        let settings = Settings::load(vfs, ConfigFiles::in_dir(&args.data_dir), &pairs)
            .map_err(|error| Refusal::new(format!("The configuration is wrong: {error}.")))?;
        for (name, value) in [
            ("listen_addresses", args.sql_listen.ip().to_string()),
            ("port", args.sql_listen.port().to_string()),
        ] {
            settings
                .override_value(name, &value)
                .map_err(|error| Refusal::new(format!("{error}.")))?;
        }
        if settings.get(keys::ssl) {
            return Err(Refusal::new(
                "ssl = on is not supported yet, and serving without TLS instead would not be what was asked for; set ssl = off.",
            ));
        }
        check_memory(&settings)?;
        let secret = read_secret(&args.data_dir, &settings)?;
        if !is_loopback(args.grpc_listen.ip()) && !secret.is_set() {
            return Err(Refusal::new(format!(
                "The gRPC listener {} can be reached from other machines, and nodes would have no way to know each other; set \
                 cluster_secret_file, or listen on 127.0.0.1.",
                args.grpc_listen
            )));
        }
        let config = Self {
            data_dir: args.data_dir.clone(),
            sql_listen: args.sql_listen,
            grpc_listen: args.grpc_listen,
            settings,
            secret,
        };
        config.rules().map_err(Refusal::new)?;
        Ok(config)
    }

    /// Whether SQL clients of other machines can reach the node.
    pub(crate) fn is_open(&self) -> bool {
        !is_loopback(self.sql_listen.ip())
    }

    /// The login rules: those of the file, or the defaults. Beyond loopback no rule may trust the network.
    pub(crate) fn rules(&self) -> Result<Vec<Rule>, String> {
        let file = self.data_dir.join("towline.toml");
        rules(&self.settings.hba(), self.is_open(), &file).map_err(|why| {
            format!(
                "{why} (SQL listener {}, rules in {}).",
                self.sql_listen,
                file.display()
            )
        })
    }

    /// What the SQL server is configured with.
    pub(crate) fn server(&self) -> Result<ServerConfig, String> {
        let settings = &self.settings;
        let number = |value: i64| usize::try_from(value).unwrap_or(0);
        Ok(ServerConfig {
            rules: Arc::new(self.rules()?),
            max_connections: number(settings.get(keys::max_connections)),
            reserved: number(settings.get(keys::superuser_reserved_connections)),
            authentication_timeout: settings
                .duration(keys::authentication_timeout)
                .unwrap_or(Duration::from_secs(60)),
        })
    }
}

/// Buffers that the machine cannot hold: the kernel would end the node when it fills them.
pub(crate) fn check_memory(settings: &Settings) -> Outcome {
    let wanted = settings.bytes(keys::shared_buffers).unwrap_or(0);
    // A kernel that does not say is not asked again.
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match total_memory(&text) {
        Some(memory) if wanted > memory => Err(Refusal::new(format!(
            "shared_buffers = {} is more than the memory of this machine, {} MB; make it smaller.",
            settings.show("shared_buffers").unwrap_or_default(),
            memory >> 20
        ))),
        _ => Ok(()),
    }
}

/// The machine's memory in bytes, as `/proc/meminfo` has it.
fn total_memory(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn rules(configured: &[HbaRule], open: bool, file: &Path) -> Result<Vec<Rule>, String> {
    if configured.is_empty() {
        return if open {
            Ok(vec![Rule::parse("host", "all", "all", "all", "scram-sha-256")?])
        } else {
            Ok(Rule::loopback_trust())
        };
    }
    let mut rules = Vec::new();
    for (index, rule) in configured.iter().enumerate() {
        let number = index + 1;
        let parsed = Rule::parse(
            &rule.kind,
            &rule.database,
            &rule.user,
            &rule.address,
            &rule.method,
        )
        .map_err(|error| format!("[[hba]] rule {number} in {} is wrong: {error}", file.display()))?;
        if open && parsed.method == Method::Trust && parsed.trusts_network() {
            return Err(format!(
                "The SQL listener can be reached from other machines, and [[hba]] rule {number} lets clients in without a \
                 password; give it method = \"scram-sha-256\", or listen on 127.0.0.1"
            ));
        }
        rules.push(parsed);
    }
    Ok(rules)
}

fn read_secret(data_dir: &Path, settings: &Settings) -> Outcome<Secret> {
    let name = settings.get(keys::cluster_secret_file);
    if name.is_empty() {
        return Ok(Secret::none());
    }
    let path = data_dir.join(&*name);
    let bytes = OsVfs.read_file(&path, MAX_SECRET_FILE).map_err(|error| {
        Refusal::new(format!(
            "cluster_secret_file {} cannot be read: {error}.",
            path.display()
        ))
    })?;
    let text = String::from_utf8_lossy(&bytes);
    Secret::parse(text.trim()).map_err(|_| {
        Refusal::new(format!(
            "cluster_secret_file {} does not hold a usable secret: one line of printable characters.",
            path.display()
        ))
    })
}

/// The secret that a node of this directory shows and wants, by its files and these settings; none when it cannot be read: then
/// the node itself says what is wrong.
pub(crate) fn secret_in(data_dir: &Path, pairs: &[(&str, &str)]) -> Secret {
    Settings::load(Arc::new(OsVfs), ConfigFiles::in_dir(data_dir), pairs)
        .ok()
        .and_then(|settings| read_secret(data_dir, &settings).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rule(address: &str, method: &str) -> HbaRule {
        HbaRule {
            kind: "host".to_owned(),
            address: address.to_owned(),
            user: "all".to_owned(),
            database: "all".to_owned(),
            method: method.to_owned(),
        }
    }

    #[test]
    fn trust_is_for_loopback_listeners_only() {
        let file = Path::new("towline.toml");
        assert!(rules(&[rule("all", "trust")], false, file).is_ok());
        let refused = rules(
            &[rule("10.0.0.0/8", "scram-sha-256"), rule("127.0.0.1", "trust")],
            true,
            file,
        );
        assert!(refused.unwrap_err().contains("rule 2"));
        let open = rules(&[], true, file).unwrap();
        assert!(open.iter().all(|rule| rule.method == Method::Scram));
        assert!(
            rules(&[], false, file)
                .unwrap()
                .iter()
                .all(|rule| rule.method == Method::Trust)
        );
        assert!(
            rules(&[rule("nowhere", "trust")], false, file)
                .unwrap_err()
                .contains("rule 1")
        );
    }

    /// It started, and the kernel killed it.
    #[test]
    fn buffers_beyond_the_machines_memory_are_refused() {
        let refused = Settings::with(&[("shared_buffers", "8000GB")]).unwrap();
        let said = check_memory(&refused).unwrap_err().sentence;
        assert!(said.contains("shared_buffers = 8000GB"), "{said}");
        assert!(check_memory(&Settings::with(&[]).unwrap()).is_ok());
        let text = "MemFree:  1 kB\nMemTotal:       24683112 kB\n";
        assert_eq!(total_memory(text), Some(24_683_112 * 1024));
        for odd in ["", "MemTotal: many kB", "MemTotal: 18446744073709551615 kB"] {
            assert_eq!(total_memory(odd), None);
        }
    }

    #[test]
    fn a_grpc_listener_beyond_loopback_needs_a_secret() {
        let base = tempfile::tempdir().unwrap();
        let mut args = NodeArgs {
            data_dir: base.path().to_owned(),
            sql_listen: "127.0.0.1:5432".parse().unwrap(),
            grpc_listen: "0.0.0.0:7432".parse().unwrap(),
            settings: Vec::new(),
            parent: None,
        };
        assert!(
            NodeConfig::load(&args)
                .unwrap_err()
                .sentence
                .contains("cluster_secret_file")
        );
        std::fs::write(base.path().join("secret"), "correct horse battery staple\n").unwrap();
        args.settings = vec!["cluster_secret_file=secret".parse().unwrap()];
        assert!(NodeConfig::load(&args).is_ok());
        args.settings = vec!["cluster_secret_file=missing".parse().unwrap()];
        assert!(NodeConfig::load(&args).unwrap_err().sentence.contains("missing"));
    }
}
