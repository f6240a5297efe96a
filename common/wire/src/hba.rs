//! Who may connect from where and how: the `[[hba]]` rules of `towline.toml`, PostgreSQL's `pg_hba.conf` by another spelling.
//!
//! Pure: a rule table and a client go in, the first matching rule comes out. No match means refusal.

use std::net::IpAddr;

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// It need not.
    Trust,
    /// SCRAM-SHA-256 with the role's password.
    Scram,
    /// It may not connect.
    Reject,
}

/// Over what a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A socket file.
    Local,
    /// TCP from this address, encrypted or not.
    Tcp {
        /// The client's address.
        address: IpAddr,
        /// Whether TLS is on.
        tls: bool,
    },
}

/// Which transports a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

/// A network: an address and how many leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

/// Names a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    All,
    SameUser,
    List(Vec<String>),
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    kind: Kind,
    databases: Names,
    users: Names,
    network: Option<Network>,
    /// What the client must do.
    pub method: Method,
}

impl Rule {
    /// Reads the five fields of a rule. `database` and `user` are comma-separated names or `all` (`sameuser` for a
    /// database named like the user); `address` is `all`, an IP address or a CIDR network, and stays empty for type
    /// `local`.
    pub fn parse(
        kind: &str,
        database: &str,
        user: &str,
        address: &str,
        method: &str,
    ) -> Result<Self, String> {
        let kind = match kind {
            "local" => Kind::Local,
            "host" => Kind::Host,
            "hostssl" => Kind::HostSsl,
            "hostnossl" => Kind::HostNoSsl,
            other => {
                return Err(format!(
                    "type \"{other}\" is not one of local, host, hostssl, hostnossl"
                ));
            }
        };
        let network = match (kind, address) {
            (Kind::Local, "") => None,
            (Kind::Local, _) => return Err("a rule of type local takes no address".to_owned()),
            (_, "all") => None,
            (_, "") => {
                return Err(
                    "address is missing: an IP address, a network such as 10.0.0.0/8, or all".to_owned(),
                );
            }
            (_, text) => Some(Network::parse(text)?),
        };
        let method = match method {
            "trust" => Method::Trust,
            "scram-sha-256" => Method::Scram,
            "reject" => Method::Reject,
            other => {
                return Err(format!(
                    "method \"{other}\" is not one of trust, scram-sha-256, reject"
                ));
            }
        };
        Ok(Self {
            kind,
            databases: Names::parse(database)?,
            users: Names::parse(user)?,
            network,
            method,
        })
    }

    /// The rules of a node whose configuration has none: everybody on this machine is trusted, as in a fresh
    /// PostgreSQL, and nobody else gets in.
    pub fn loopback_trust() -> Vec<Self> {
        let host = |address| Self {
            kind: Kind::Host,
            databases: Names::All,
            users: Names::All,
            network: Some(address),
            method: Method::Trust,
        };
        vec![
            Self {
                kind: Kind::Local,
                databases: Names::All,
                users: Names::All,
                network: None,
                method: Method::Trust,
            },
            host(Network {
                address: IpAddr::from([127, 0, 0, 1]),
                bits: 8,
            }),
            host(Network {
                address: IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
                bits: 128,
            }),
        ]
    }

    /// Whether this rule lets somebody in over the network without a password.
    pub fn trusts_network(&self) -> bool {
        self.method == Method::Trust && self.kind != Kind::Local
    }

    fn matches(&self, transport: Transport, database: &str, user: &str) -> bool {
        let transport_matches = match (self.kind, transport) {
            (Kind::Local, Transport::Local) => true,
            (Kind::Local, Transport::Tcp { .. }) | (_, Transport::Local) => false,
            (kind, Transport::Tcp { address, tls }) => {
                let encryption = match kind {
                    Kind::HostSsl => tls,
                    Kind::HostNoSsl => !tls,
                    Kind::Host | Kind::Local => true,
                };
                encryption && self.network.is_none_or(|network| network.contains(address))
            }
        };
        transport_matches && self.databases.contains(database, user) && self.users.contains(user, user)
    }
}

/// The method of the first rule that fits, if any does.
pub fn first_match(rules: &[Rule], transport: Transport, database: &str, user: &str) -> Option<Method> {
    rules
        .iter()
        .find(|rule| rule.matches(transport, database, user))
        .map(|rule| rule.method)
}

impl Names {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Err("database and user must not be empty; use all".to_owned()),
            "all" => Ok(Self::All),
            "sameuser" => Ok(Self::SameUser),
            list => Ok(Self::List(
                list.split(',').map(|name| name.trim().to_owned()).collect(),
            )),
        }
    }

    fn contains(&self, name: &str, user: &str) -> bool {
        match self {
            Self::All => true,
            Self::SameUser => name == user,
            Self::List(names) => names.iter().any(|candidate| candidate == name),
        }
    }
}

impl Network {
    fn parse(text: &str) -> Result<Self, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| format!("address \"{text}\" is not an IP address or network"))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= most)
                .ok_or_else(|| format!("address \"{text}\" has no valid mask length"))?,
        };
        Ok(Self { address, bits })
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32u32.saturating_sub(u32::from(self.bits));
                u32::from(network).checked_shr(shift) == u32::from(address).checked_shr(shift)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128u32.saturating_sub(u32::from(self.bits));
                u128::from(network).checked_shr(shift) == u128::from(address).checked_shr(shift)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tcp(address: &str) -> Transport {
        Transport::Tcp {
            address: address.parse().unwrap(),
            tls: false,
        }
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let rules = vec![
            Rule::parse("host", "all", "eve", "all", "reject").unwrap(),
            Rule::parse("host", "all", "all", "10.1.0.0/16", "scram-sha-256").unwrap(),
            Rule::parse("host", "sameuser", "bob,alice", "::1", "trust").unwrap(),
        ];
        let table = [
            ("10.1.2.3", "postgres", "eve", Some(Method::Reject)),
            ("10.1.2.3", "postgres", "bob", Some(Method::Scram)),
            ("::ffff:10.1.2.3", "postgres", "bob", Some(Method::Scram)),
            ("10.2.0.1", "postgres", "bob", None),
            ("::1", "bob", "bob", Some(Method::Trust)),
            ("::1", "postgres", "bob", None),
            ("::1", "carol", "carol", None),
        ];
        for (address, database, user, expected) in table {
            assert_eq!(
                first_match(&rules, tcp(address), database, user),
                expected,
                "{address} {database} {user}"
            );
        }
    }

    #[test]
    fn encryption_and_socket_kinds_are_told_apart() {
        let rules = vec![
            Rule::parse("hostssl", "all", "all", "0.0.0.0/0", "scram-sha-256").unwrap(),
            Rule::parse("local", "all", "all", "", "trust").unwrap(),
        ];
        assert_eq!(first_match(&rules, tcp("1.2.3.4"), "d", "u"), None);
        let tls = Transport::Tcp {
            address: "1.2.3.4".parse().unwrap(),
            tls: true,
        };
        assert_eq!(first_match(&rules, tls, "d", "u"), Some(Method::Scram));
        assert_eq!(
            first_match(&rules, Transport::Local, "d", "u"),
            Some(Method::Trust)
        );
    }

    #[test]
    fn the_default_rules_trust_loopback_only() {
        let rules = Rule::loopback_trust();
        assert_eq!(
            first_match(&rules, tcp("127.0.0.1"), "d", "u"),
            Some(Method::Trust)
        );
        assert_eq!(first_match(&rules, tcp("::1"), "d", "u"), Some(Method::Trust));
        assert_eq!(first_match(&rules, tcp("192.168.0.1"), "d", "u"), None);
    }

    #[test]
    fn wrong_fields_are_named() {
        for (kind, database, user, address, method, word) in [
            ("tcp", "all", "all", "all", "trust", "type"),
            ("host", "all", "all", "10.0.0.0/33", "trust", "mask"),
            ("host", "all", "all", "example.org", "trust", "address"),
            ("host", "all", "all", "", "trust", "address"),
            ("host", "", "all", "all", "trust", "database"),
            ("host", "all", "all", "all", "md5", "method"),
            ("local", "all", "all", "all", "trust", "local"),
        ] {
            let error = Rule::parse(kind, database, user, address, method).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
