//! SCRAM-SHA-256 secrets and the server's side of the exchange (RFC 5802, RFC 7677), in PostgreSQL's textual form.
//!
//! Owned here, below SQL and the wire, because two layers need it: `CREATE ROLE … PASSWORD` turns a clear-text password
//! into a [`ScramSecret`], and the protocol front end verifies a client's proof against it. A clear-text password is
//! never stored; a stolen secret does not let its thief log in.
//!
//! Passwords are used as their UTF-8 bytes. SASLprep changes only non-ASCII ones, where PostgreSQL too falls back to
//! the raw bytes when preparation is not possible.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::fmt;

/// Iterations of a new secret, as PostgreSQL's `scram_iterations` default.
pub const DEFAULT_ITERATIONS: u32 = 4096;
/// Iterations above this in a stored secret are refused: each login would cost that much.
const MAX_ITERATIONS: u32 = 1_000_000;
const SALT_LEN: usize = 16;
const PREFIX: &str = "SCRAM-SHA-256$";

/// What is stored of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramSecret {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl fmt::Debug for ScramSecret {
    /// Never prints key material: it may reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramSecret")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for ScramSecret {
    /// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, the value of `pg_authid.rolpassword`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{PREFIX}{}:{}${}:{}",
            self.iterations,
            base64_encode(&self.salt),
            base64_encode(&self.stored_key),
            base64_encode(&self.server_key)
        )
    }
}

impl ScramSecret {
    /// Derives the secret of `password` with a random `salt`.
    pub fn from_password(password: &str, salt: &[u8], iterations: u32) -> Self {
        let salted = salted_password(password.as_bytes(), salt, iterations.max(1));
        let client_key = hmac(&salted, &[b"Client Key"]);
        Self {
            iterations: iterations.max(1),
            salt: salt.to_vec(),
            stored_key: Sha256::digest(client_key).into(),
            server_key: hmac(&salted, &[b"Server Key"]),
        }
    }

    /// A new secret with a salt from the operating system.
    pub fn generate(password: &str) -> std::io::Result<Self> {
        let mut salt = [0; SALT_LEN];
        random_bytes(&mut salt)?;
        Ok(Self::from_password(password, &salt, DEFAULT_ITERATIONS))
    }

    /// Reads the textual form; `None` when `text` is anything else (a clear-text password, an MD5 hash).
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX)?;
        let (left, right) = rest.split_once('$')?;
        let (iterations, salt) = left.split_once(':')?;
        let (stored, server) = right.split_once(':')?;
        let iterations = iterations
            .parse()
            .ok()
            .filter(|n| (1..=MAX_ITERATIONS).contains(n))?;
        Some(Self {
            iterations,
            salt: base64_decode(salt).filter(|salt| !salt.is_empty() && salt.len() <= 1024)?,
            stored_key: base64_decode(stored)?.try_into().ok()?,
            server_key: base64_decode(server)?.try_into().ok()?,
        })
    }

    /// A secret nobody can satisfy, for a user that does not exist: the exchange then looks like any other and does
    /// not tell who exists. `key` is random per process, so the salt of a name stays the same between attempts.
    pub fn mock(user: &str, key: &[u8; 32]) -> Self {
        let seed = hmac(key, &[b"salt", user.as_bytes()]);
        Self {
            iterations: DEFAULT_ITERATIONS,
            salt: seed.iter().take(SALT_LEN).copied().collect(),
            stored_key: hmac(key, &[b"stored", user.as_bytes()]),
            server_key: hmac(key, &[b"server", user.as_bytes()]),
        }
    }

    /// Whether `password` is the one behind this secret.
    pub fn verify_password(&self, password: &str) -> bool {
        let other = Self::from_password(password, &self.salt, self.iterations);
        equal(&other.stored_key, &self.stored_key)
    }
}

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramError {
    /// A message that does not follow the RFC: SQLSTATE 08P01.
    Malformed(&'static str),
    /// The proof is wrong: SQLSTATE 28P01.
    WrongPassword,
}

/// The server's side after the client's first message.
#[derive(Debug)]
pub struct ScramExchange {
    secret: ScramSecret,
    client_first_bare: String,
    gs2_header: String,
    server_first: String,
    nonce: String,
}

impl ScramExchange {
    /// Reads the client-first message and answers with the server-first message, [`ScramExchange::server_first`].
    /// `server_nonce` is 18 random bytes.
    pub fn start(
        secret: ScramSecret,
        client_first: &str,
        server_nonce: &[u8; 18],
    ) -> Result<Self, ScramError> {
        let (gs2_flag, rest) = client_first
            .split_once(',')
            .ok_or(ScramError::Malformed("the message is incomplete"))?;
        match gs2_flag {
            "n" | "y" => {}
            flag if flag.starts_with("p=") => {
                return Err(ScramError::Malformed(
                    "the client selected channel binding, which was not offered",
                ));
            }
            _ => return Err(ScramError::Malformed("unexpected channel-binding flag")),
        }
        let (authzid, bare) = rest
            .split_once(',')
            .ok_or(ScramError::Malformed("the message is incomplete"))?;
        if !authzid.is_empty() {
            return Err(ScramError::Malformed(
                "the client uses authorization identity, but it is not supported",
            ));
        }
        let mut attributes = bare.split(',');
        attributes
            .next()
            .filter(|user| user.starts_with("n="))
            .ok_or(ScramError::Malformed("the user name is missing"))?;
        let client_nonce = attributes
            .next()
            .and_then(|nonce| nonce.strip_prefix("r="))
            .filter(|nonce| !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic()))
            .ok_or(ScramError::Malformed("the nonce is missing"))?;
        let nonce = format!("{client_nonce}{}", base64_encode(server_nonce));
        let server_first = format!(
            "r={nonce},s={},i={}",
            base64_encode(&secret.salt),
            secret.iterations
        );
        Ok(Self {
            secret,
            client_first_bare: bare.to_owned(),
            gs2_header: format!("{gs2_flag},,"),
            server_first,
            nonce,
        })
    }

    /// The server-first message.
    pub fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Checks the client-final message; the result is the server-final message.
    pub fn finish(&self, client_final: &str) -> Result<String, ScramError> {
        let (without_proof, proof) = client_final
            .rsplit_once(",p=")
            .ok_or(ScramError::Malformed("the proof is missing"))?;
        let mut attributes = without_proof.split(',');
        let binding = attributes
            .next()
            .and_then(|binding| binding.strip_prefix("c="))
            .and_then(base64_decode)
            .ok_or(ScramError::Malformed("the channel binding is missing"))?;
        if binding != self.gs2_header.as_bytes() {
            return Err(ScramError::Malformed("unexpected channel-binding attribute"));
        }
        if attributes.next().and_then(|nonce| nonce.strip_prefix("r=")) != Some(self.nonce.as_str()) {
            return Err(ScramError::Malformed("the nonce does not match"));
        }
        let proof: [u8; 32] = base64_decode(proof)
            .and_then(|proof| proof.try_into().ok())
            .ok_or(ScramError::Malformed("the proof is malformed"))?;
        let message: [&[u8]; 5] = [
            self.client_first_bare.as_bytes(),
            b",",
            self.server_first.as_bytes(),
            b",",
            without_proof.as_bytes(),
        ];
        let mut client_key = hmac(&self.secret.stored_key, &message);
        for (byte, proof) in client_key.iter_mut().zip(proof) {
            *byte ^= proof;
        }
        let stored: [u8; 32] = Sha256::digest(client_key).into();
        if !equal(&stored, &self.secret.stored_key) {
            return Err(ScramError::WrongPassword);
        }
        Ok(format!(
            "v={}",
            base64_encode(&hmac(&self.secret.server_key, &message))
        ))
    }
}

/// Fills `out` from the operating system's random source.
pub fn random_bytes(out: &mut [u8]) -> std::io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}

/// Compares without stopping at the first difference.
fn equal(left: &[u8; 32], right: &[u8; 32]) -> bool {
    left.iter()
        .zip(right)
        .fold(0, |difference, (a, b)| difference | (a ^ b))
        == 0
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = keyed(key);
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// `Hi()` of RFC 5802: PBKDF2 with one block.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mac = keyed(password);
    let mut first = mac.clone();
    first.update(salt);
    first.update(&1u32.to_be_bytes());
    let mut step: [u8; 32] = first.finalize().into_bytes().into();
    let mut result = step;
    for _ in 1..iterations {
        let mut next = mac.clone();
        next.update(&step);
        step = next.finalize().into_bytes().into();
        for (byte, other) in result.iter_mut().zip(step) {
            *byte ^= other;
        }
    }
    result
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64_encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            if index <= chunk.len() {
                let digit = (word >> (18 - 6 * index)) & 63;
                out.push(ALPHABET.get(digit as usize).map_or('=', |&byte| char::from(byte)));
            } else {
                out.push('=');
            }
        }
    }
    out
}

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(4) {
        return None;
    }
    let mut out = Vec::with_capacity(bytes.len() / 4 * 3);
    let chunks = bytes.len() / 4;
    for (index, chunk) in bytes.chunks(4).enumerate() {
        let padding = chunk.iter().rev().take_while(|&&byte| byte == b'=').count();
        if padding > 2 || (padding > 0 && index + 1 != chunks) {
            return None;
        }
        let mut word = 0u32;
        for &byte in chunk.iter().take(4 - padding) {
            let digit = ALPHABET.iter().position(|&letter| letter == byte)?;
            word = word << 6 | u32::try_from(digit).ok()?;
        }
        word <<= 6 * padding;
        out.extend(word.to_be_bytes().iter().skip(1).take(3 - padding));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_exchange_of_rfc_7677_is_accepted() {
        let salt = base64_decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let secret = ScramSecret::from_password("pencil", &salt, 4096);
        let mut exchange =
            ScramExchange::start(secret, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO", &[0; 18]).unwrap();
        exchange.nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".into();
        exchange.server_first = format!("r={},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", exchange.nonce);
        let proof = format!(
            "c=biws,r={},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            exchange.nonce
        );
        assert_eq!(
            exchange.finish(&proof).unwrap(),
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
        let wrong = proof.replace("p=dHzb", "p=dHzc");
        assert_eq!(exchange.finish(&wrong), Err(ScramError::WrongPassword));
    }

    #[test]
    fn a_secret_survives_its_textual_form() {
        let secret = ScramSecret::generate("geheim").unwrap();
        let text = secret.to_string();
        assert_eq!(ScramSecret::parse(&text).unwrap(), secret);
        assert!(secret.verify_password("geheim"));
        assert!(!secret.verify_password("Geheim"));
        assert!(!format!("{secret:?}").contains(&base64_encode(&secret.stored_key)));
    }

    #[test]
    fn what_is_not_a_secret_is_told_apart() {
        for text in [
            "",
            "geheim",
            "md5abc",
            "SCRAM-SHA-256$",
            "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA",
            "SCRAM-SHA-256$0:AAAA$A:A",
        ] {
            assert!(ScramSecret::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn malformed_messages_are_refused_without_panic() {
        let secret = ScramSecret::mock("nobody", &[7; 32]);
        for first in [
            "",
            "n",
            "n,,",
            "p=tls,,n=,r=x",
            "n,a=x,n=,r=x",
            "n,,r=x",
            "n,,n=",
            "n,,n=,r=",
        ] {
            assert!(
                ScramExchange::start(secret.clone(), first, &[1; 18]).is_err(),
                "{first}"
            );
        }
        let exchange = ScramExchange::start(secret, "n,,n=,r=abc", &[1; 18]).unwrap();
        for last in ["", ",p=", "c=biws,p=AAAA", "c=biws,r=abc,p=AAAA", "c=,r=,p="] {
            assert!(exchange.finish(last).is_err(), "{last}");
        }
    }

    #[test]
    fn base64_round_trips_every_length() {
        for len in 0..40 {
            let bytes: Vec<u8> = (0..len).map(|n| (n * 37) as u8).collect();
            assert_eq!(base64_decode(&base64_encode(&bytes)).unwrap(), bytes);
        }
    }
}
