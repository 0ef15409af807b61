//! Users who prove by an RSA key who they are: the catalog has the public key, a request brings a token
//! that the private one signed, or, as users of the original do, the private key itself.
//!
//! Tokens are JSON Web Tokens (RFC 7519) signed by RS256 (RFC 7518, 3.3): `sub` is the user, `exp` says
//! when they end.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rsa::KeyPair as RsaKeyPair;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde::Deserialize;

use crate::error::{Error, Result};

/// The longest time a token may still have, seconds.
const TOKEN_SECONDS_MAX: f64 = 86_400.0;
/// The longest token and key that are looked at, in bytes.
const PROOF_BYTES_MAX: usize = 16 << 10;
/// The algorithm of a key that is RSA's, in DER: rsaEncryption and no parameters (RFC 8017, A.1).
const RSA: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// The public key of a user: RSAPublicKey in DER (RFC 8017, A.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

#[derive(Deserialize)]
struct Header {
    alg: String,
    /// Extensions that must be understood: none is.
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    /// Seconds since 1970, fractions allowed.
    exp: f64,
}

/// Returns the user a token says it is of, whoever signed it.
pub fn user_of(token: &str) -> Option<String> {
    let claims = token.split('.').nth(1).filter(|_| token.len() <= PROOF_BYTES_MAX)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    Some(claims.sub)
}

impl PublicKey {
    /// Reads a key as `openssl rsa -pubout` writes it.
    ///
    /// # Errors
    /// 22023 for what is none, and for one of fewer than 2,048 bits.
    pub(crate) fn parse(pem: &str) -> Result<Self> {
        let refused = |why: &str| {
            Error::new("22023", format!("rsa_public_key {why}"))
                .hint("openssl rsa -in key.pem -pubout writes it")
        };
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| refused("is no public key in PEM"))?;
        let key = rsa_key(&der).ok_or_else(|| refused("is no RSA key"))?;
        // RSAPublicKey: the sequence's header, then the modulus with its header.
        if key.len() < 256 + 8 {
            return Err(refused("has fewer than 2048 bits"));
        }
        Ok(Self(key.to_vec()))
    }

    /// Returns whether a token names the user, has not ended, and was signed by the private key.
    pub fn signed(&self, token: &str, user: &str, now_ns: i64) -> bool {
        self.check_token(token, user, now_ns).is_some()
    }

    fn check_token(&self, token: &str, user: &str, now_ns: i64) -> Option<()> {
        if token.len() > PROOF_BYTES_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let part = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let header: Header = serde_json::from_slice(&part(header)?).ok()?;
        if header.alg != "RS256" || header.crit.is_some() {
            return None;
        }
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.0)
            .verify(signed.as_bytes(), &part(signature)?)
            .ok()?;
        let claims: Claims = serde_json::from_slice(&part(claims)?).ok()?;
        let left = claims.exp - now_ns as f64 / 1e9;
        (claims.sub == user && left > 0.0 && left <= TOKEN_SECONDS_MAX).then_some(())
    }

    /// Returns whether a private key, its PEM in base64, belongs to this one.
    pub fn belongs_to(&self, private: &str) -> bool {
        private.len() <= PROOF_BYTES_MAX
            && public_of(private).is_some_and(|public| public == self.0)
    }
}

fn public_of(private: &str) -> Option<Vec<u8>> {
    let pem = STANDARD.decode(private.trim()).ok()?;
    let pair = match PrivateKeyDer::from_pem_slice(&pem).ok()? {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok()?,
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok()?,
        _ => return None,
    };
    Some(pair.public_key().as_ref().to_vec())
}

/// Takes the RSA key out of a SubjectPublicKeyInfo (RFC 5280, 4.1).
fn rsa_key(der: &[u8]) -> Option<&[u8]> {
    let (whole, rest) = element(der, 0x30)?;
    let bits = whole.strip_prefix(&RSA[..])?;
    let (key, more) = element(bits, 0x03)?;
    // The first byte of a bit string: how many bits its last byte lacks.
    (rest.is_empty() && more.is_empty()).then(|| key.strip_prefix(&[0]))?
}

/// Splits the value of a DER element of a tag from what follows it (X.690, 8.1).
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (len, rest) = rest.split_first()?;
    let (len, rest) = match *len {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => rest.split_first().map(|(len, rest)| (usize::from(*len), rest))?,
        0x82 => rest
            .split_first_chunk::<2>()
            .map(|(len, rest)| (usize::from(u16::from_be_bytes(*len)), rest))?,
        _ => return None,
    };
    (*first == tag).then(|| rest.split_at_checked(len))?
}
