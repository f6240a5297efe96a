//! The first packet of a connection: what the client is, or wants, before there is a session.
//!
//! A pure decoder of the packet's body; [`crate::connection`] reads the bytes and answers.

use crate::frontend::{Cursor, ProtocolError};

const PROTOCOL_3: u32 = 3;
/// The newest version that we speak, 3.0, as start-up packets and the answer to a newer one have it.
pub(crate) const NEWEST_PROTOCOL: u32 = PROTOCOL_3 << 16;
const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// A decoded first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Startup {
    /// May we speak TLS?
    Ssl,
    /// May we speak GSSAPI encryption?
    GssEnc,
    /// Cancel the statement of another connection.
    Cancel {
        /// The backend's number.
        pid: u32,
        /// Its secret.
        key: u32,
    },
    /// A session.
    Session(StartupParameters),
}

/// What a client tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartupParameters {
    /// Role to log in as.
    pub user: String,
    /// Database; the user's name when the client gave none.
    pub database: String,
    /// Settings for the session, in the order given: those of `options` first, as PostgreSQL applies them.
    pub settings: Vec<(String, String)>,
    /// Minor protocol version above what we speak, and unknown `_pq_.` options.
    pub negotiate: Option<Vec<String>>,
    /// The client asked for a physical or logical replication connection.
    pub replication: bool,
}

/// Decodes the packet behind its length word.
pub fn decode(body: &[u8]) -> Result<Startup, ProtocolError> {
    let mut cursor = Cursor(body);
    let code = cursor
        .u32()
        .map_err(|_| ProtocolError::fatal("invalid length of startup packet"))?;
    match code {
        SSL_REQUEST => Ok(Startup::Ssl),
        GSSENC_REQUEST => Ok(Startup::GssEnc),
        CANCEL_REQUEST => match (cursor.u32(), cursor.u32()) {
            (Ok(pid), Ok(key)) => Ok(Startup::Cancel { pid, key }),
            _ => Err(ProtocolError::fatal("invalid length of startup packet")),
        },
        _ => session(code, cursor).map(Startup::Session),
    }
}

fn session(code: u32, mut cursor: Cursor<'_>) -> Result<StartupParameters, ProtocolError> {
    let (major, minor) = (code >> 16, code & 0xFFFF);
    if major != PROTOCOL_3 {
        return Err(ProtocolError {
            message: format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0"),
            fatal: true,
            sqlstate: "0A000",
        });
    }
    let mut parameters = StartupParameters::default();
    let mut unknown = Vec::new();
    let mut named = Vec::new();
    loop {
        let name = text(&mut cursor)?;
        if name.is_empty() {
            break;
        }
        let value = text(&mut cursor)?;
        match name {
            "user" => value.clone_into(&mut parameters.user),
            "database" => value.clone_into(&mut parameters.database),
            "options" => parse_options(value, &mut parameters.settings)?,
            "replication" => parameters.replication = !matches!(value, "false" | "off" | "no" | "0"),
            _ if name.starts_with("_pq_.") => unknown.push(name.to_owned()),
            _ => named.push((name.to_owned(), value.to_owned())),
        }
    }
    if !cursor.0.is_empty() {
        return Err(ProtocolError::fatal(
            "invalid startup packet layout: expected terminator as last byte",
        ));
    }
    if parameters.user.is_empty() {
        return Err(ProtocolError {
            message: "no PostgreSQL user name specified in startup packet".to_owned(),
            fatal: true,
            sqlstate: "28000",
        });
    }
    if parameters.database.is_empty() {
        parameters.database.clone_from(&parameters.user);
    }
    parameters.settings.append(&mut named);
    if minor != 0 || !unknown.is_empty() {
        parameters.negotiate = Some(unknown);
    }
    Ok(parameters)
}

fn text<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, ProtocolError> {
    cursor
        .text()
        .map_err(|error| ProtocolError { fatal: true, ..error })
}

/// The `options` parameter: `-c name=value`, `-cname=value` and `--name=value`, words split at white space with
/// backslash as escape.
fn parse_options(options: &str, settings: &mut Vec<(String, String)>) -> Result<(), ProtocolError> {
    let refuse = |word: &str| ProtocolError {
        message: format!("invalid command-line argument for server process: {word}"),
        fatal: true,
        sqlstate: "42601",
    };
    let mut words = split_words(options).into_iter();
    while let Some(word) = words.next() {
        let assignment = if word == "-c" {
            words.next().ok_or_else(|| refuse(&word))?
        } else if let Some(rest) = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            rest.to_owned()
        } else {
            return Err(refuse(&word));
        };
        let (name, value) = assignment.split_once('=').ok_or_else(|| refuse(&assignment))?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(())
}

fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn packet(version: u32, pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut out = version.to_be_bytes().to_vec();
        for (name, value) in pairs {
            out.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
        }
        out.push(0);
        out
    }

    #[test]
    fn a_session_packet_yields_user_database_and_settings() {
        let body = packet(
            0x30000,
            &[
                ("user", "bob"),
                ("application_name", "psql"),
                ("options", "-c work_mem=1MB --search-path=a\\ b"),
            ],
        );
        let Startup::Session(parameters) = decode(&body).unwrap() else {
            panic!()
        };
        assert_eq!(parameters.user, "bob");
        assert_eq!(parameters.database, "bob");
        assert_eq!(
            parameters.settings,
            [
                ("work_mem", "1MB"),
                ("search_path", "a b"),
                ("application_name", "psql")
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(parameters.negotiate, None);
    }

    #[test]
    fn requests_are_told_by_their_codes() {
        assert_eq!(decode(&SSL_REQUEST.to_be_bytes()).unwrap(), Startup::Ssl);
        assert_eq!(decode(&GSSENC_REQUEST.to_be_bytes()).unwrap(), Startup::GssEnc);
        let cancel = [
            CANCEL_REQUEST.to_be_bytes(),
            7u32.to_be_bytes(),
            9u32.to_be_bytes(),
        ]
        .concat();
        assert_eq!(decode(&cancel).unwrap(), Startup::Cancel { pid: 7, key: 9 });
        assert!(decode(&cancel[..10]).is_err());
    }

    #[test]
    fn newer_minors_are_negotiated_and_other_majors_refused() {
        let newer = packet(0x30002, &[("user", "bob"), ("_pq_.x", "1")]);
        let Startup::Session(parameters) = decode(&newer).unwrap() else {
            panic!()
        };
        assert_eq!(parameters.negotiate, Some(vec!["_pq_.x".to_owned()]));
        assert_eq!(decode(&packet(0x20000, &[])).unwrap_err().sqlstate, "0A000");
        assert_eq!(decode(&packet(0x30000, &[])).unwrap_err().sqlstate, "28000");
    }

    #[test]
    fn every_truncation_is_an_error_and_none_panics() {
        let body = packet(0x30000, &[("user", "bob"), ("options", "-c a=b")]);
        for end in 0..body.len() {
            assert!(decode(&body[..end]).is_err(), "{end}");
        }
    }
}
