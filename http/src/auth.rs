//! Who asks: HTTP basic, `Token user:password`, or the parameters `u` and `p`, checked against the SCRAM
//! verifier; or a token signed by the user's key (`Bearer`), or that key itself.
//! A check that succeeded is remembered for a while, for it costs thousands of hashes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use query::{Database, PublicKey, Remembered, Session, user_of};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::failure::Failure;
use crate::lines::Precision;

/// The header that brings a private key: its PEM in base64.
const PRIVATE_KEY: &str = "x-cnosdb-privatekey";
/// How long a check that succeeded is remembered.
const REMEMBERED: Duration = Duration::from_secs(300);
/// How many are.
const REMEMBERED_MAX: usize = 1_024;

/// What a request says beside its body: where it goes, who it is from, how it is to be taken.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Parameters {
    pub(crate) tenant: Option<String>,
    pub(crate) db: Option<String>,
    /// InfluxDB 2's name of a database.
    pub(crate) bucket: Option<String>,
    u: Option<String>,
    p: Option<String>,
    /// The unit of times written as numbers.
    precision: Option<String>,
    /// All lines or none, as far as that can be told before writing.
    pub(crate) strict: Option<bool>,
    /// What writes wait for: one, quorum or all members of a replica set.
    consistency: Option<String>,
    /// OpenTSDB's wishes to be told what became of the points.
    pub(crate) details: Option<String>,
    pub(crate) summary: Option<String>,
}

impl Parameters {
    /// Returns the unit of times, where it is said.
    ///
    /// # Errors
    /// 400 for a name that is none.
    pub(crate) fn precision(&self) -> Result<Option<Precision>, Failure> {
        let Some(named) = &self.precision else { return Ok(None) };
        let precision = Precision::named(named).ok_or_else(|| {
            Failure::bad_request(format!("precision \"{named}\" is none of ns, us, ms, s"))
        });
        precision.map(Some)
    }
}

/// Knows who proved to be whom a moment ago.
pub(crate) struct Doorkeeper {
    database: Arc<Database>,
    remembered: Mutex<HashMap<Remembered, Instant>>,
}

impl Doorkeeper {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        Self { database, remembered: Mutex::default() }
    }

    /// Opens a session for who asks.
    pub(crate) async fn enter(
        &self,
        headers: &HeaderMap,
        parameters: &Parameters,
        peer: SocketAddr,
    ) -> Result<Arc<Session>, Failure> {
        let user = self.user(headers, parameters, peer).await?;
        let tenant = parameters.tenant.as_deref().unwrap_or("cnosdb");
        let session = self.database.connect(&user, tenant, None)?;
        if let Some(database) = parameters.db.as_deref().or(parameters.bucket.as_deref()) {
            session.set("search_path", Some(database))?;
        }
        if let Some(consistency) = &parameters.consistency {
            session.set("consistency", Some(consistency))?;
        }
        Ok(Arc::new(session))
    }

    /// Returns who asks, proved.
    async fn user(
        &self,
        headers: &HeaderMap,
        parameters: &Parameters,
        peer: SocketAddr,
    ) -> Result<String, Failure> {
        if let Some(token) = bearer(headers) {
            let user = user_of(token).ok_or_else(unreadable)?;
            let signed = |key: &PublicKey| key.signed(token, &user, self.database.now_ns());
            self.check_key(&user, peer, signed)?;
            return Ok(user);
        }
        let (user, password) = credentials(headers, parameters)?;
        match headers.get(PRIVATE_KEY) {
            Some(key) => {
                let key = key.to_str().map_err(|_| unreadable())?;
                self.check_key(&user, peer, |public| public.belongs_to(key))?;
            }
            None => self.check(&user, password.as_deref(), peer).await?,
        }
        Ok(user)
    }

    /// Lets in who has the private key to a user's public one.
    fn check_key(
        &self,
        user: &str,
        peer: SocketAddr,
        proves: impl FnOnce(&PublicKey) -> bool,
    ) -> Result<(), Failure> {
        self.database.check_login(user, peer.ip())?;
        let proved = self.database.public_key(user).is_some_and(|key| proves(&key));
        self.database.note_login(user, peer.ip(), proved);
        if proved {
            return Ok(());
        }
        let message = format!("key authentication failed for user \"{user}\"");
        Err(Failure::new(StatusCode::UNAUTHORIZED, "28000", message))
    }

    async fn check(
        &self,
        user: &str,
        password: Option<&str>,
        peer: SocketAddr,
    ) -> Result<(), Failure> {
        let refused = || {
            let message = format!("password authentication failed for user \"{user}\"");
            Failure::new(StatusCode::UNAUTHORIZED, "28P01", message)
        };
        let verifier = match self.database.verifier(user) {
            Some(None) if peer.ip().is_loopback() => return Ok(()),
            Some(Some(verifier)) => verifier,
            Some(None) | None => {
                // As one whose password is wrong: names cannot be guessed faster than passwords.
                self.database.check_login(user, peer.ip())?;
                self.database.note_login(user, peer.ip(), false);
                return Err(refused());
            }
        };
        let Some(password) = password else { return Err(refused()) };
        let proof = verifier.remember(user, password);
        let mut remembered = self.remembered.lock().await;
        remembered.retain(|_, since| since.elapsed() < REMEMBERED);
        if remembered.contains_key(&proof) {
            return Ok(());
        }
        drop(remembered);
        self.database.check_login(user, peer.ip())?;
        let password = password.to_owned();
        let checked = tokio::task::spawn_blocking(move || verifier.matches(&password)).await;
        let matched = checked.map_err(|_| refused())?;
        self.database.note_login(user, peer.ip(), matched);
        if !matched {
            return Err(refused());
        }
        let mut remembered = self.remembered.lock().await;
        if remembered.len() < REMEMBERED_MAX {
            remembered.insert(proof, Instant::now());
        }
        Ok(())
    }
}

fn unreadable() -> Failure {
    Failure::new(StatusCode::UNAUTHORIZED, "28000", "the Authorization header is not readable")
}

/// Returns the token of `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn credentials(
    headers: &HeaderMap,
    parameters: &Parameters,
) -> Result<(String, Option<String>), Failure> {
    let Some(header) = headers.get(AUTHORIZATION) else {
        let user = parameters.u.clone().unwrap_or_else(|| "root".to_owned());
        return Ok((user, parameters.p.clone()));
    };
    let (scheme, rest) =
        header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(unreadable)?;
    let pair = match scheme.to_ascii_lowercase().as_str() {
        "basic" => {
            let bytes = BASE64.decode(rest.trim()).map_err(|_| unreadable())?;
            String::from_utf8(bytes).map_err(|_| unreadable())?
        }
        "token" => rest.trim().to_owned(),
        _ => return Err(unreadable()),
    };
    let (user, password) = pair.split_once(':').ok_or_else(unreadable)?;
    Ok((user.to_owned(), (!password.is_empty()).then(|| password.to_owned())))
}
