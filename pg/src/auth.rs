//! SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding, and trust of loopback for users
//! without a password.
//!
//! An unknown user goes through the same exchange as a known one, and fails at its end.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use query::{Error, Result, Verifier};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};

/// The only mechanism offered.
pub(crate) const MECHANISM: &str = "SCRAM-SHA-256";
const NONCE_BYTES: usize = 18;

/// The state between the client's two messages.
pub(crate) struct Challenge {
    verifier: Verifier,
    /// Whether there is such a user with a password at all.
    is_known: bool,
    client_first_bare: String,
    server_first: String,
    nonce: String,
    channel_binding: String,
}

fn malformed() -> Error {
    Error::new("08P01", "malformed SCRAM message")
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

/// Makes up a verifier for a user who is not there: always the same for the same name, so that
/// nobody learns who is there.
pub(crate) fn mock_verifier(secret: &[u8], user: &str) -> Verifier {
    let salt = mac(secret, user.as_bytes())[..16].to_vec();
    Verifier {
        iterations: 15_000,
        salt,
        stored_key: mac(secret, b"stored"),
        server_key: mac(secret, b"server"),
    }
}

impl Challenge {
    /// Reads the client's first message and returns the state and the server's answer.
    pub(crate) fn begin(
        message: &[u8],
        verifier: Verifier,
        is_known: bool,
    ) -> Result<(Self, String)> {
        let zero = message.iter().position(|byte| *byte == 0).ok_or_else(malformed)?;
        if message.get(..zero) != Some(MECHANISM.as_bytes()) {
            return Err(Error::new(
                "08P01",
                "client selected an invalid SASL authentication mechanism",
            ));
        }
        let (len, data) = message[zero + 1..].split_at_checked(4).ok_or_else(malformed)?;
        let len = i32::from_be_bytes(len.try_into().map_err(|_| malformed())?);
        if usize::try_from(len).ok() != Some(data.len()) {
            return Err(malformed());
        }
        let text = std::str::from_utf8(data).map_err(|_| malformed())?;
        let mut parts = text.splitn(3, ',');
        let mut part = || parts.next().ok_or_else(malformed);
        let (flag, authorization, bare) = (part()?, part()?, part()?);
        // `p=` asks for channel binding, which was not offered.
        if !matches!(flag, "n" | "y") {
            return Err(malformed());
        }
        if !authorization.is_empty() {
            return Err(Error::new("0A000", "authorization identities are not supported"));
        }
        let mut attributes = bare.split(',');
        if !attributes.next().is_some_and(|name| name.starts_with("n=")) {
            return Err(malformed());
        }
        let printable = |nonce: &&str| {
            !nonce.is_empty() && nonce.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
        };
        let client_nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r="));
        let client_nonce = client_nonce.filter(printable).ok_or_else(malformed)?;
        let mut random = [0; NONCE_BYTES];
        let filled = SystemRandom::new().fill(&mut random);
        filled.map_err(|_| Error::new("XX000", "no randomness"))?;
        let nonce = format!("{client_nonce}{}", BASE64.encode(random));
        let salt = BASE64.encode(&verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let challenge = Self {
            verifier,
            is_known,
            client_first_bare: bare.to_owned(),
            server_first: server_first.clone(),
            nonce,
            channel_binding: BASE64.encode(format!("{flag},,")),
        };
        Ok((challenge, server_first))
    }

    /// Checks the client's proof and returns the server's; `None` where the proof is wrong.
    pub(crate) fn finish(self, message: &[u8]) -> Result<Option<String>> {
        let text = std::str::from_utf8(message).map_err(|_| malformed())?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or_else(malformed)?;
        let mut attributes = without_proof.split(',');
        let same = attributes.next() == Some(&*format!("c={}", self.channel_binding))
            && attributes.next() == Some(&*format!("r={}", self.nonce));
        if !same {
            return Err(malformed());
        }
        let proof = BASE64.decode(proof).map_err(|_| malformed())?;
        let exchange = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let signature = mac(&self.verifier.stored_key, exchange.as_bytes());
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        // Compared as MACs under a fresh key, which takes the same time for every wrong proof.
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.nonce.as_bytes());
        let expected = hmac::sign(&key, &self.verifier.stored_key);
        let same = hmac::verify(&key, stored_key.as_ref(), expected.as_ref()).is_ok();
        let proof_ok = proof.len() == signature.len() && same && self.is_known;
        Ok(proof_ok.then(|| {
            let server = mac(&self.verifier.server_key, exchange.as_bytes());
            format!("v={}", BASE64.encode(server))
        }))
    }
}
