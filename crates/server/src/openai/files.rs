//! `/v1/files`: the input and output files of batches.

use std::{io::SeekFrom, time::SystemTime};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{
        FromRequest as _, Multipart, Path, Query, Request, multipart::MultipartError,
        rejection::QueryRejection,
    },
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use multigraft_batches::{FileLimits, Kept, Purpose, Removed, StoredFile};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::{
    caller::session::Session,
    http::{
        error::ApiError,
        fields::Fields,
        id::{seconds, unique_id},
    },
};

/// The range of `expires_after`, in seconds, as in OpenAI's API: an hour to thirty days.
const KEEP: std::ops::RangeInclusive<u64> = 3600..=2_592_000;
/// The size of the chunks in which a file is read, in bytes.
const CHUNK: usize = 64 << 10;
/// The longest form field beside the file in an upload, in bytes.
const FIELD: usize = 256;

/// The query of the list of files.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listing {
    after: Option<String>,
    limit: Option<usize>,
    order: Option<String>,
    purpose: Option<String>,
}

/// `GET /v1/files`.
pub(crate) async fn list(
    state: Session,
    listing: Result<Query<Listing>, QueryRejection>,
) -> Result<Json<Page<File>>, ApiError> {
    let Query(listing) = listing.map_err(|error| ApiError::malformed(error.body_text()))?;
    let limit = within(listing.limit, 10_000)?.unwrap_or(10_000);
    let tenant = state.tenant_name().map(str::to_owned);
    let now = seconds(SystemTime::now());
    let mut files = state
        .batches()?
        .on_disk(move |store| store.files(tenant.as_deref(), now))
        .await?;
    match listing.order.as_deref() {
        None | Some("desc") => {}
        Some("asc") => files.reverse(),
        Some(other) => {
            let message = format!("`order` is `{other}`, but must be asc or desc");
            return Err(ApiError::invalid("order", message));
        }
    }
    if let Some(after) = &listing.after {
        let at = files.iter().position(|file| file.id == *after);
        let at =
            at.ok_or_else(|| ApiError::invalid("after", format!("`after`: there is no file `{after}`")))?;
        files.drain(..=at);
    }
    files.retain(|file| {
        let purpose = listing.purpose.as_deref();
        purpose.is_none_or(|purpose| purpose == file.purpose.as_str())
    });
    let has_more = files.len() > limit;
    files.truncate(limit);
    let files = files.iter().map(File::from).collect();
    Ok(Json(Page::new(files, |file: &File| &file.id, has_more)))
}

/// The `limit` of a page, if the query has one.
pub(super) fn within(limit: Option<usize>, most: usize) -> Result<Option<usize>, ApiError> {
    match limit {
        Some(limit) if !(1..=most).contains(&limit) => {
            let message = format!("`limit` is {limit}, but must be 1 to {most}");
            Err(ApiError::invalid("limit", message))
        }
        limit => Ok(limit),
    }
}

/// A page of a list.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Page<T> {
    object: &'static str,
    first_id: Option<String>,
    last_id: Option<String>,
    /// Whether there are more after `last_id`.
    has_more: bool,
    data: Vec<T>,
}

impl<T> Page<T> {
    /// The first page of a list, or the page after `after`.
    pub(super) fn new(data: Vec<T>, id: impl Fn(&T) -> &str, has_more: bool) -> Self {
        let id = |item: Option<&T>| item.map(|item| id(item).to_owned());
        Self {
            object: "list",
            first_id: id(data.first()),
            last_id: id(data.last()),
            has_more,
            data,
        }
    }
}

/// A file. Times are in seconds since 1970.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct File {
    id: String,
    object: &'static str,
    bytes: u64,
    created_at: u64,
    expires_at: Option<u64>,
    filename: String,
    /// `batch` or `batch_output`.
    purpose: &'static str,
    /// OpenAI's processing state. Always the same here: files are checked by the batch that reads
    /// them.
    status: &'static str,
    status_details: Option<()>,
}

impl From<&StoredFile> for File {
    fn from(file: &StoredFile) -> Self {
        Self {
            id: file.id.clone(),
            object: "file",
            bytes: file.bytes,
            created_at: file.created,
            expires_at: file.expires,
            filename: file.name.clone(),
            purpose: file.purpose.as_str(),
            status: "processed",
            status_details: None,
        }
    }
}

/// The answer to a deletion.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

/// The file with this id, if it belongs to the caller.
pub(super) async fn find(state: &Session, id: &str) -> Result<StoredFile, ApiError> {
    let (tenant, of) = (state.tenant_name().map(str::to_owned), id.to_owned());
    let now = seconds(SystemTime::now());
    let file = state
        .batches()?
        .on_disk(move |store| store.file(&of, tenant.as_deref(), now));
    file.await?
        .ok_or_else(|| ApiError::NotFound(format!("there is no file `{id}`")))
}

/// `GET /v1/files/{id}`.
pub(crate) async fn get(state: Session, Path(id): Path<String>) -> Result<Json<File>, ApiError> {
    Ok(Json((&find(&state, &id).await?).into()))
}

/// `DELETE /v1/files/{id}`.
pub(crate) async fn remove(state: Session, Path(id): Path<String>) -> Result<Json<Deleted>, ApiError> {
    let file = find(&state, &id).await?;
    let removed = state.batches()?.on_disk(move |store| store.remove_file(&file.id));
    match removed.await? {
        Removed::Removed => Ok(Json(Deleted {
            id,
            object: "file",
            deleted: true,
        })),
        Removed::InUse(batch) => Err(ApiError::Conflict(format!(
            "batch `{batch}` still reads file `{id}`: cancel it first, or wait until it has ended"
        ))),
    }
}

/// `GET /v1/files/{id}/content`.
pub(crate) async fn content(state: Session, Path(id): Path<String>) -> Result<Response, ApiError> {
    let file = find(&state, &id).await?;
    let path = state.batches()?.store().content(&file.id);
    let open = async || {
        let mut opened = tokio::fs::File::open(&path).await?;
        opened.seek(SeekFrom::Start(0)).await?;
        Ok::<_, std::io::Error>(opened)
    };
    let opened = open().await.map_err(|error| {
        tracing::error!(%error, path = %path.display(), "a file cannot be read");
        ApiError::Failed(format!("file `{id}` cannot be read; the server's log says more"))
    })?;
    let chunks = stream::unfold(opened, async |mut opened| {
        let mut chunk = Vec::with_capacity(CHUNK);
        match opened.read_buf(&mut chunk).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(Bytes::from(chunk)), opened)),
            Err(error) => Some((Err(error), opened)),
        }
    });
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(file.bytes));
    Ok(response)
}

/// `POST /v1/files` with `multipart/form-data`.
pub(crate) async fn upload(state: Session, request: Request) -> Result<Response, ApiError> {
    let batches = state.batches()?;
    let limit = state.limits().file_bytes;
    let too_large = ApiError::TooLarge { limit };
    let broken = |error: MultipartError| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge { limit },
        _ => ApiError::malformed(format!(
            "the upload ended early or is malformed: {}",
            error.body_text()
        )),
    };
    let mut parts = Multipart::from_request(request, &state)
        .await
        .map_err(|error| ApiError::malformed(format!("{}; send multipart/form-data", error.body_text())))?;
    let mut texts = Fields::none("");
    let mut written = None;
    while let Some(mut part) = parts.next_field().await.map_err(broken)? {
        let name = part.name().unwrap_or_default().to_owned();
        if name != "file" {
            let mut text = Vec::new();
            while let Some(more) = part.chunk().await.map_err(broken)? {
                text.extend_from_slice(&more);
                if text.len() > FIELD {
                    let message = format!("`{name}` is longer than {FIELD} bytes");
                    return Err(ApiError::invalid(name, message));
                }
            }
            texts.set(&name, String::from_utf8_lossy(&text).into_owned().into());
            continue;
        }
        if written.is_some() {
            return Err(ApiError::invalid("file", "`file` was sent twice"));
        }
        let file_name = part.file_name().unwrap_or("file").chars().take(255).collect();
        let file = batches.on_disk(|store| store.begin_file()).await?;
        let failed =
            |error: std::io::Error| ApiError::Failed(format!("the upload could not be written: {error}"));
        let mut to = tokio::fs::File::from_std(file.reopen().map_err(failed)?);
        let mut bytes = 0;
        while let Some(more) = part.chunk().await.map_err(broken)? {
            bytes += more.len();
            if bytes > limit {
                return Err(too_large);
            }
            to.write_all(&more).await.map_err(failed)?;
        }
        to.flush().await.map_err(failed)?;
        written = Some((file, bytes as u64, file_name));
    }
    let Some((written, bytes, name)) = written else {
        return Err(ApiError::invalid("file", "`file` is missing"));
    };
    let now = seconds(SystemTime::now());
    let file = StoredFile {
        id: unique_id("file-"),
        tenant: state.tenant_name().map(str::to_owned),
        name,
        purpose: purpose(&mut texts)?,
        bytes,
        created: now,
        expires: expires_after(&mut texts)?.map(|seconds| now + seconds),
    };
    texts.finish()?;
    let limits = FileLimits {
        bytes: state.limits().stored_bytes,
        files: state.limits().stored_files,
    };
    let answer = File::from(&file);
    match batches
        .on_disk(move |store| store.keep(written, &file, limits))
        .await?
    {
        Kept::Kept => Ok(Json(answer).into_response()),
        Kept::TooManyBytes(has) => Err(ApiError::Conflict(format!(
            "the file has {bytes} bytes, and there are {has} of at most {} already: delete files first",
            limits.bytes
        ))),
        Kept::TooManyFiles(has) => Err(ApiError::Conflict(format!(
            "there are {has} files of at most {} already: delete some first",
            limits.files
        ))),
    }
}

fn purpose(texts: &mut Fields) -> Result<Purpose, ApiError> {
    match texts.string("purpose")?.as_deref() {
        Some("batch") => Ok(Purpose::Batch),
        Some(other) => {
            let message =
                format!("`purpose` is {other:?}, but files are for batches alone: it must be \"batch\"");
            Err(ApiError::invalid("purpose", message))
        }
        None => Err(ApiError::invalid(
            "purpose",
            "`purpose` is missing: it must be \"batch\"",
        )),
    }
}

/// The parts of `expires_after` as forms spell them.
fn expires_after(texts: &mut Fields) -> Result<Option<u64>, ApiError> {
    let anchor = texts.string("expires_after[anchor]")?;
    let seconds = texts.string("expires_after[seconds]")?;
    match (anchor, seconds) {
        (None, None) => Ok(None),
        (anchor, seconds) => expiry_seconds(
            anchor.as_deref(),
            seconds.and_then(|seconds| seconds.parse().ok()),
            "expires_after",
        )
        .map(Some),
    }
}

/// How long a file is kept, in seconds.
pub(super) fn expiry_seconds(
    anchor: Option<&str>,
    seconds: Option<u64>,
    field: &str,
) -> Result<u64, ApiError> {
    let complain = |problem: String| Err(ApiError::invalid(field, format!("`{field}` {problem}")));
    match (anchor, seconds) {
        (Some("created_at"), Some(seconds)) if KEEP.contains(&seconds) => Ok(seconds),
        (Some("created_at"), _) => complain(format!(
            "must have `seconds`: a whole number between {} and {}",
            KEEP.start(),
            KEEP.end()
        )),
        _ => complain("must have `anchor`: \"created_at\"".to_owned()),
    }
}
