//! Where files are: a URL, checked against what the node's configuration names, and the store behind it.

use std::path::{Component, Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig};

use meta::Tenant;

use super::FilesConfig;
use crate::access::Identity;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::sql::FileOptions;

/// The most files that are read by one statement.
const FILES_MAX: usize = 10_000;
/// The longest name of a region or an account.
const NAME_BYTES_MAX: usize = 64;
/// How often and how long a request is repeated that a store did not answer.
const RETRIES_MAX: usize = 3;
const RETRY_TIME: Duration = Duration::from_secs(30);

/// A place in a store.
#[derive(Clone, Debug)]
pub(super) struct Location {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) path: Path,
    /// The folder that paths are below, where the store is this machine's disk.
    pub(super) folder: Option<PathBuf>,
}

/// Makes an error of what a store says.
pub(super) fn failed(error: object_store::Error) -> Error {
    let sqlstate = match &error {
        object_store::Error::NotFound { .. } => "58P01",
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => "42501",
        object_store::Error::InvalidPath { .. } => "22023",
        _ => "58030",
    };
    Error::new(sqlstate, error.to_string())
}

fn refused(url: &str, setting: &str) -> Error {
    let message = format!("\"{url}\" is outside of what this node lets its users use");
    Error::new("42501", message).hint(format!("an administrator names it in {setting}"))
}

/// Returns the place that a URL means to somebody.
pub(super) async fn locate(
    database: &Database,
    who: Identity,
    url: &str,
    connection: &FileOptions,
) -> Result<Location> {
    let config = database.files();
    let invalid = || Error::new("22023", format!("\"{url}\" is no location of files"));
    let (scheme, rest) = url.split_once("://").unwrap_or(("file", url));
    if scheme == "file" {
        let catalog = database.catalog();
        let tenant = catalog.tenant_by_id(who.tenant).ok_or_else(invalid)?;
        let root = config.folder.join(folder_of(tenant));
        let (url, rest) = (url.to_owned(), rest.to_owned());
        let found = tokio::task::spawn_blocking(move || local(&root, (&url, &rest))).await;
        return found.map_err(Error::internal)?;
    }
    check_values(connection)?;
    let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if bucket.is_empty() || !bucket.bytes().all(is_plain) {
        return Err(invalid());
    }
    // Of a path as it is taken, not as it is written: `a/../b` is none.
    let path = Path::parse(path.trim_end_matches('/')).map_err(|_| invalid())?;
    let account = match scheme {
        // Containers are an account's, and names of accounts are known to all.
        "az" | "azblob" => format!("{}/", account_of(connection)?),
        _ => String::new(),
    };
    let named = format!("{scheme}://{account}{bucket}/{path}");
    if !config.urls.iter().any(|allowed| is_below(&named, allowed)) {
        return Err(refused(&named, "files.urls"));
    }
    let store = match scheme {
        "s3" => s3(bucket, connection, config)?,
        "gs" | "gcs" => gcs(bucket, connection, config)?,
        "az" | "azblob" => azure(bucket, connection, config)?,
        _ => {
            let error = Error::unsupported(format!("files by {scheme}://"));
            return Err(error.hint("file://, s3://, gcs://, azblob://"));
        }
    };
    Ok(Location { store, path, folder: None })
}

/// Returns the folder of a tenant. A name may come again once its tenant is dropped; the first is never.
fn folder_of(tenant: &Tenant) -> String {
    if tenant.name == meta::FIRST_TENANT {
        return tenant.name.clone();
    }
    format!("{}.{}", tenant.name, tenant.id)
}

/// Refuses what would not stay one value in a header or in the name of a host.
fn check_values(options: &FileOptions) -> Result<()> {
    let plain = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n'));
    match options.iter().find(|(_, value)| !plain(value)) {
        Some((name, _)) => Err(Error::new("22023", format!("{name} holds a control character"))),
        None => Ok(()),
    }
}

fn account_of(options: &FileOptions) -> Result<String> {
    let account = text(options, "account");
    let account = account.ok_or_else(|| Error::new("22023", "CONNECTION needs an account"))?;
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if account.is_empty() || account.len() > NAME_BYTES_MAX || !account.bytes().all(is_plain) {
        return Err(Error::new("22023", "account is no name of an account"));
    }
    Ok(account)
}

fn region_of(options: &FileOptions) -> Result<String> {
    let region = text(options, "region").unwrap_or_else(|| "us-east-1".to_owned());
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if region.is_empty() || region.len() > NAME_BYTES_MAX || !region.bytes().all(is_plain) {
        return Err(Error::new("22023", "region is no name of a region"));
    }
    Ok(region)
}

impl Location {
    /// Returns the objects there are: one of this name, else those below it.
    pub(super) async fn objects(&self) -> Result<Vec<ObjectMeta>> {
        if self.path.parts().next().is_some() {
            match self.store.head(&self.path).await {
                Ok(one) => return Ok(vec![one]),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let mut found = Vec::new();
        let mut listed = self.store.list(Some(&self.path));
        while let Some(object) = listed.try_next().await.map_err(failed)? {
            if is_hidden(&self.path, &object.location) {
                continue;
            }
            if found.len() == FILES_MAX {
                return Err(Error::new("54000", format!("there are more than {FILES_MAX} files")));
            }
            found.push(object);
        }
        found.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }
}

/// Returns whether a file below a place is what others keep for themselves, as `_SUCCESS` and `.crc` files.
pub(super) fn is_hidden(place: &Path, file: &Path) -> bool {
    let below = file.parts().skip(place.parts().count());
    below.into_iter().any(|part| part.as_ref().starts_with(['_', '.']))
}

/// Returns whether a URL is one that is allowed, or below it.
fn is_below(url: &str, allowed: &str) -> bool {
    let allowed = allowed.trim_end_matches('/');
    url.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns a place below a folder, which is made where it is not there.
fn local(root: &FilePath, (url, path): (&str, &str)) -> Result<Location> {
    let outside = || refused(url, "files.folder");
    let at = |error: std::io::Error| Error::new("58030", format!("{}: {error}", root.display()));
    std::fs::create_dir_all(root).map_err(at)?;
    let root = root.canonicalize().map_err(at)?;
    let path = FilePath::new(path);
    let below =
        if path.is_absolute() { path.strip_prefix(&root).map_err(|_| outside())? } else { path };
    let mut parts = Vec::new();
    for part in below.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str().ok_or_else(outside)?),
            Component::CurDir => {}
            _ => return Err(outside()),
        }
    }
    let store = LocalFileSystem::new_with_prefix(&root).map_err(failed)?;
    let path = Path::parse(parts.join("/")).map_err(|_| outside())?;
    Ok(Location { store: Arc::new(store), path, folder: Some(root) })
}

/// Returns what a connection's option says.
fn text(options: &FileOptions, name: &str) -> Option<String> {
    options.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
}

fn flag(options: &FileOptions, name: &str, default: bool) -> Result<bool> {
    match text(options, name).as_deref() {
        None => Ok(default),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => {
            let message = format!("{name} must be true or false, not {other}");
            Err(Error::new("22023", message))
        }
    }
}

fn check_options(options: &FileOptions, known: &[&str]) -> Result<()> {
    match options.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((name, _)) => {
            let error = Error::new("22023", format!("unknown option of CONNECTION: {name}"));
            Err(error.hint(format!("options are {}", known.join(", "))))
        }
        None => Ok(()),
    }
}

fn check_endpoint(endpoint: Option<&String>, config: &FilesConfig) -> Result<()> {
    match endpoint {
        Some(endpoint) if !config.endpoints.iter().any(|allowed| is_below(endpoint, allowed)) => {
            Err(refused(endpoint, "files.endpoints"))
        }
        _ => Ok(()),
    }
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_TIME, ..RetryConfig::default() }
}

fn client(endpoint: Option<&String>) -> ClientOptions {
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    ClientOptions::new().with_allow_http(plain)
}

fn s3(bucket: &str, options: &FileOptions, config: &FilesConfig) -> Result<Arc<dyn ObjectStore>> {
    check_options(
        options,
        &["region", "access_key_id", "secret_key", "token", "endpoint_url", "virtual_hosted_style"],
    )?;
    let endpoint = text(options, "endpoint_url");
    check_endpoint(endpoint.as_ref(), config)?;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region_of(options)?)
        .with_virtual_hosted_style_request(flag(
            options,
            "virtual_hosted_style",
            endpoint.is_none(),
        )?)
        .with_client_options(client(endpoint.as_ref()))
        .with_retry(retries());
    builder = match (text(options, "access_key_id"), text(options, "secret_key")) {
        (Some(key), Some(secret)) => builder.with_access_key_id(key).with_secret_access_key(secret),
        // Without keys: what the machine may do is not for its users.
        (None, None) => builder.with_skip_signature(true),
        _ => return Err(Error::new("22023", "access_key_id and secret_key belong together")),
    };
    if let Some(token) = text(options, "token") {
        builder = builder.with_token(token);
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    Ok(Arc::new(builder.build().map_err(failed)?))
}

fn gcs(bucket: &str, options: &FileOptions, config: &FilesConfig) -> Result<Arc<dyn ObjectStore>> {
    check_options(options, &["gcs_base_url", "disable_oauth", "client_email", "private_key"])?;
    let endpoint = text(options, "gcs_base_url");
    check_endpoint(endpoint.as_ref(), config)?;
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_client_options(client(endpoint.as_ref()))
        .with_retry(retries());
    if let Some(endpoint) = &endpoint {
        builder = builder.with_base_url(endpoint);
    }
    let open = flag(options, "disable_oauth", false)?;
    builder = match (text(options, "client_email"), text(options, "private_key")) {
        (Some(email), Some(key)) if !open => {
            let account = serde_json::json!({
                "client_email": email,
                "private_key": key,
                "private_key_id": "",
                "disable_oauth": false,
            });
            builder.with_service_account_key(account.to_string())
        }
        (None, None) => builder.with_skip_signature(true),
        (Some(_), Some(_)) => builder.with_skip_signature(true),
        _ => return Err(Error::new("22023", "client_email and private_key belong together")),
    };
    Ok(Arc::new(builder.build().map_err(failed)?))
}

fn azure(
    container: &str,
    options: &FileOptions,
    config: &FilesConfig,
) -> Result<Arc<dyn ObjectStore>> {
    check_options(
        options,
        &["account", "access_key", "bearer_token", "use_emulator", "endpoint_url"],
    )?;
    let endpoint = text(options, "endpoint_url");
    check_endpoint(endpoint.as_ref(), config)?;
    if flag(options, "use_emulator", false)? {
        let hint = "name the emulator's address as endpoint_url";
        return Err(Error::unsupported("use_emulator").hint(hint));
    }
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(container)
        .with_account(account_of(options)?)
        .with_client_options(client(endpoint.as_ref()))
        .with_retry(retries());
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    builder = match (text(options, "access_key"), text(options, "bearer_token")) {
        (Some(key), None) => builder.with_access_key(key),
        (None, Some(token)) => builder.with_bearer_token_authorization(token),
        (None, None) => builder.with_skip_signature(true),
        (Some(_), Some(_)) => {
            return Err(Error::new("22023", "access_key and bearer_token exclude each other"));
        }
    };
    Ok(Arc::new(builder.build().map_err(failed)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_below_its_tenants_folder_or_refused() {
        let folder = std::env::temp_dir().join(format!("cnosdb-files-{}", std::process::id()));
        let place = |path: &str| local(&folder.join("t"), (path, path)).map(|found| found.path);
        assert_eq!(place("a/b.csv").unwrap().as_ref(), "a/b.csv");
        let absolute = format!("{}/t/x", folder.canonicalize().unwrap().display());
        assert_eq!(place(&absolute).unwrap().as_ref(), "x");
        for outside in ["../u/x", "a/../../x", "/etc/passwd"] {
            assert_eq!(place(outside).unwrap_err().sqlstate, "42501", "{outside}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn names_of_hosts_are_names() {
        let region = |text: &str| region_of(&vec![("region".to_owned(), text.to_owned())]);
        assert_eq!(region("eu-central-1").unwrap(), "eu-central-1");
        for wrong in ["evil.com/?", "x@10.0.0.5:6443/?", "", "EU"] {
            assert!(region(wrong).is_err(), "{wrong}");
        }
        let account = |text: &str| account_of(&vec![("account".to_owned(), text.to_owned())]);
        assert!(account("reports7").is_ok() && account("a.b").is_err() && account("a/b").is_err());
        assert!(check_values(&vec![("token".to_owned(), "a\rb".to_owned())]).is_err());
    }

    #[test]
    fn a_url_is_allowed_by_whole_parts() {
        assert!(is_below("s3://bucket/a/b", "s3://bucket/a/"));
        assert!(is_below("s3://bucket/a", "s3://bucket"));
        assert!(!is_below("s3://bucket2/a", "s3://bucket"));
        assert!(!is_below("s3://bucket/ab", "s3://bucket/a"));
    }
}
