//! Files in object stores (S3, Google Cloud Storage, Azure) and on web servers.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt as _;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{ClientConfigKey, ClientOptions, HttpClient, HttpConnector};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _, RetryConfig};
use reqwest::redirect::Policy;
use url::Url;

use crate::addresses::{Resolver, Trusted, is_allowed};
use crate::cache::Cache;
use crate::error::FetchError;
use crate::save::{ByteStream, Expected, Remote, save};
use crate::transport::{CONNECT, REDIRECTS, STALL, with_causes};
use crate::wanted::{Fetched, Need, Wanted};

/// Time limit of a whole file: the stores' clients require one.
const DAY: &str = "24h";
/// [`STALL`] in the form that the stores' clients take.
const MINUTE: &str = "60s";

/// Downloads the wanted files of the folder at `url`. The revision is made of what the server says
/// about each file. If the `known` revision is in the cache, the server is not contacted.
pub(crate) async fn fetch(
    url: &Url,
    known: Option<&str>,
    wanted: &Wanted,
    cache: &Cache,
    trusted: &Trusted,
    progress: &(dyn Fn(&str, u64, u64) + Sync),
) -> Result<Fetched, FetchError> {
    let fetched = |folder, tag: &str| Fetched {
        folder,
        revision: Some(tag.to_owned()),
    };
    if let Some((folder, tag)) = known.and_then(|tag| Some((cache.find(url.as_str(), tag)?, tag))) {
        return Ok(fetched(folder, tag));
    }
    let (store, prefix) = open(url, trusted)?;
    let mut found = Vec::new();
    for file in wanted.files {
        let path = prefix.clone().join(file.name);
        match store.head(&path).await {
            Ok(meta) if meta.size > file.limit && file.need == Need::Optional => {
                tracing::warn!("`{url}`: {} has {} bytes and is skipped", file.name, meta.size);
            }
            Ok(meta) if meta.size > file.limit => {
                return Err(FetchError::TooLarge {
                    name: file.name.to_owned(),
                    size: meta.size,
                    limit: file.limit,
                });
            }
            Ok(meta) => found.push((file.name, meta)),
            Err(Error::NotFound { .. }) if file.need != Need::Required => {}
            Err(error) => return Err(failed(file.name, error)),
        }
    }
    let tag = found
        .iter()
        .map(|(name, meta)| tag_of(name, meta))
        .collect::<Vec<_>>()
        .join(" ");
    if let Some(folder) = cache.find(url.as_str(), &tag) {
        return Ok(fetched(folder, &tag));
    }
    let filling = cache.fill(url.as_str(), &tag)?;
    if let Some(folder) = filling.completed() {
        return Ok(fetched(folder, &tag));
    }
    for (name, meta) in found {
        let expected = Expected {
            size: meta.size,
            sha256: None,
        };
        let path = filling.part.join(name);
        let part = filling.part.join(format!("{name}.part"));
        let object = Object {
            store: Arc::clone(&store),
            name,
            meta,
        };
        if !path.exists() {
            let progress = |bytes| progress(name, bytes, expected.size);
            save(&object, expected, &part, &path, &progress).await?;
        }
    }
    let folder = filling.finish()?;
    cache.prune(&folder);
    Ok(fetched(folder, &tag))
}

/// Identifies the state of a file by what the server says about it.
fn tag_of(name: &str, meta: &ObjectMeta) -> String {
    let tag = match &meta.e_tag {
        Some(tag) => tag.clone(),
        None if meta.last_modified.timestamp() > 0 => meta.last_modified.to_rfc3339(),
        // The server gives nothing to compare, so the file is downloaded each time.
        None => format!("{:?}", SystemTime::now()),
    };
    format!("{name}:{tag}:{}", meta.size)
}

struct Object {
    store: Arc<dyn ObjectStore>,
    name: &'static str,
    meta: ObjectMeta,
}

impl Remote for Object {
    async fn read(&self, start: u64) -> Result<(ByteStream, bool), FetchError> {
        let options = GetOptions {
            // Do not append the rest of a newer file.
            if_match: self.meta.e_tag.clone().filter(|tag| !tag.starts_with("W/")),
            range: (start > 0).then_some(GetRange::Offset(start)),
            ..GetOptions::default()
        };
        let name = self.name;
        let got = self.store.get_opts(&self.meta.location, options).await;
        let got = got.map_err(|error| failed(name, error))?;
        let begins_there = got.range.start == start;
        let bytes = got.into_stream();
        let arriving = bytes.map(move |bytes| bytes.map_err(|error| failed(name, error)));
        Ok((arriving.boxed(), begins_there))
    }
}

fn failed(name: &'static str, error: Error) -> FetchError {
    match error {
        Error::NotFound { .. } => FetchError::Missing {
            name: name.to_owned(),
        },
        Error::Unauthenticated { .. } | Error::PermissionDenied { .. } => FetchError::Denied {
            reason: error.to_string(),
        },
        Error::Precondition { .. } => FetchError::ChangedMeanwhile,
        error => FetchError::Transport(with_causes(&error)),
    }
}

/// The store that `url` is in, and the path within it. Credentials and endpoints come from the
/// environment, under each store's usual variables (`AWS_ACCESS_KEY_ID`,
/// `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME`…).
fn open(url: &Url, trusted: &Trusted) -> Result<(Arc<dyn ObjectStore>, ObjectPath), FetchError> {
    let fail = |error: Error| FetchError::Transport(with_causes(&error));
    let path = ObjectPath::from_url_path(url.path());
    let path = path.map_err(|error| FetchError::Transport(error.to_string()))?;
    let retry = RetryConfig {
        max_retries: 3,
        retry_timeout: 2 * CONNECT,
        ..RetryConfig::default()
    };
    // A whole file may take long, as long as data keeps arriving.
    let (whole, idle) = (ClientConfigKey::Timeout, ClientConfigKey::ReadTimeout);
    let store: Arc<dyn ObjectStore> = match url.scheme() {
        "s3" => {
            let builder = AmazonS3Builder::from_env()
                .with_url(url.as_str())
                .with_retry(retry);
            let builder = builder.with_config(AmazonS3ConfigKey::Client(whole), DAY);
            let builder = builder.with_config(AmazonS3ConfigKey::Client(idle), MINUTE);
            Arc::new(builder.build().map_err(fail)?)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env();
            let builder = builder.with_url(url.as_str()).with_retry(retry);
            let builder = builder.with_config(GoogleConfigKey::Client(whole), DAY);
            let builder = builder.with_config(GoogleConfigKey::Client(idle), MINUTE);
            Arc::new(builder.build().map_err(fail)?)
        }
        "az" => {
            let builder = MicrosoftAzureBuilder::from_env()
                .with_url(url.as_str())
                .with_retry(retry);
            let builder = builder.with_config(AzureConfigKey::Client(whole), DAY);
            let builder = builder.with_config(AzureConfigKey::Client(idle), MINUTE);
            Arc::new(builder.build().map_err(fail)?)
        }
        scheme => {
            let origin = url.origin().ascii_serialization();
            let builder = HttpBuilder::new().with_url(origin).with_retry(retry);
            let connector = Connector {
                trusted: Arc::clone(trusted),
                http: scheme == "http",
            };
            if !is_allowed(url, trusted) {
                return Err(FetchError::Private {
                    host: url.host_str().unwrap_or_default().to_owned(),
                });
            }
            Arc::new(builder.with_http_connector(connector).build().map_err(fail)?)
        }
    };
    Ok((store, path))
}

/// Creates HTTP clients that connect to public addresses and trusted hosts only, after redirects
/// too.
#[derive(Debug)]
struct Connector {
    trusted: Trusted,
    http: bool,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let trusted = Arc::clone(&self.trusted);
        let policy = Policy::custom(move |attempt| {
            if attempt.previous().len() > REDIRECTS {
                attempt.error("too many redirects")
            } else if is_allowed(attempt.url(), &trusted) {
                attempt.follow()
            } else {
                attempt.error("a redirect into a local network")
            }
        });
        let resolver = Resolver {
            trusted: Arc::clone(&self.trusted),
        };
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(STALL)
            .https_only(!self.http)
            .redirect(policy)
            .dns_resolver(Arc::new(resolver))
            .build()
            .map_err(|source| Error::Generic {
                store: "HTTP",
                source: Box::new(source),
            })?;
        Ok(HttpClient::new(client))
    }
}
