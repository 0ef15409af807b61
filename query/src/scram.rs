//! SCRAM-SHA-256 verifiers in PostgreSQL's form (RFC 5802, RFC 7677): the only secret that is stored.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::SecureRandom;
use ring::{digest, hmac, pbkdf2};

use crate::error::{Error, Result};

/// Rounds of PBKDF2 for new verifiers.
const ITERATIONS: u32 = 15_000;
/// More would let anybody who knows the user's name keep a thread busy.
const ITERATIONS_MAX: u32 = 1_000_000;
const SALT_BYTES: usize = 16;

/// What the server keeps of a password: enough to check it, not enough to log in with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// Rounds of PBKDF2.
    pub iterations: u32,
    /// The salt.
    pub salt: Vec<u8>,
    /// SHA-256 of the client key.
    pub stored_key: Vec<u8>,
    /// The key the server proves itself with.
    pub server_key: Vec<u8>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(***)")
    }
}

impl Verifier {
    /// Reads `SCRAM-SHA-256$<rounds>:<salt>$<stored key>:<server key>`.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("SCRAM-SHA-256$")?;
        let (head, keys) = rest.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let decode = |text: &str| BASE64.decode(text).ok();
        let verifier = Self {
            iterations: iterations.parse().ok().filter(|n| (1..=ITERATIONS_MAX).contains(n))?,
            salt: decode(salt)?,
            stored_key: decode(stored)?,
            server_key: decode(server)?,
        };
        (verifier.stored_key.len() == 32 && verifier.server_key.len() == 32).then_some(verifier)
    }

    /// Computes the verifier of a password.
    pub fn of(password: &str, salt: Vec<u8>, iterations: u32) -> Self {
        let rounds = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), &mut salted);
        let client_key = mac(&salted, b"Client Key");
        Self {
            iterations: rounds.get(),
            salt,
            stored_key: digest::digest(&digest::SHA256, &client_key).as_ref().to_vec(),
            server_key: mac(&salted, b"Server Key"),
        }
    }

    /// Returns whether a password is the one of this verifier. Takes milliseconds of hashing.
    pub fn matches(&self, password: &str) -> bool {
        let given = Self::of(password, self.salt.clone(), self.iterations);
        // Compared as MACs, which takes the same time for every wrong password.
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.server_key);
        let wanted = hmac::sign(&key, &self.stored_key);
        hmac::verify(&key, &given.stored_key, wanted.as_ref()).is_ok()
    }

    /// Returns what a password that was checked can be remembered by: it tells neither the password
    /// nor the verifier, and changes with both.
    pub fn remember(&self, user: &str, password: &str) -> Remembered {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.stored_key);
        let mut context = hmac::Context::with_key(&key);
        context.update(&(user.len() as u64).to_le_bytes());
        context.update(user.as_bytes());
        context.update(password.as_bytes());
        Remembered(context.sign().as_ref().to_vec())
    }

    fn text(&self) -> String {
        let encode = |bytes: &[u8]| BASE64.encode(bytes);
        format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            encode(&self.salt),
            encode(&self.stored_key),
            encode(&self.server_key)
        )
    }
}

/// Stands for a user and a password that were checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remembered(Vec<u8>);

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

/// Makes the stored form of a password; one that has this form already is kept.
///
/// # Errors
/// No randomness to be had; an empty password.
pub fn make_verifier(password: &str) -> Result<String> {
    if password.is_empty() {
        return Err(Error::new("28P01", "password must not be empty"));
    }
    if Verifier::parse(password).is_some() {
        return Ok(password.to_owned());
    }
    let mut salt = vec![0; SALT_BYTES];
    let random = ring::rand::SystemRandom::new();
    random.fill(&mut salt).map_err(|_| Error::internal("no randomness"))?;
    Ok(Verifier::of(password, salt, ITERATIONS).text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_the_one_of_rfc_7677() {
        // The example of RFC 7677, section 3: user "user", password "pencil".
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::of("pencil", salt, 4_096);
        assert_eq!(Verifier::parse(&verifier.text()), Some(verifier.clone()));
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                       s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,\
                       r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = mac(&verifier.server_key, message.as_bytes());
        assert_eq!(BASE64.encode(signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }
}
