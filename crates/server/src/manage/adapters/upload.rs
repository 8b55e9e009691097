//! `POST /v1/adapters/{name}/upload`: adding an adapter whose files are in the request.
//!
//! The files are streamed into a temporary folder, from which the adapter is added like any other.
//! The folder is deleted in every case, also when the client disconnects.

use std::{collections::HashSet, fs, path::Path, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{
        FromRequest as _, Multipart, Path as UrlPath, Query, Request,
        multipart::{Field, MultipartError},
        rejection::QueryRejection,
    },
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, stream};
use multigraft_adapters::{ADAPTER_FILES, AdapterError, AddedBy, Adding, LoadError, Upload};
use multigraft_peft::{CONFIG_FILE as CONFIG, WEIGHTS_FILE as WEIGHTS};
use serde::Deserialize;
use tokio::{io::AsyncWriteExt as _, sync::Mutex, time::timeout};

use super::{native, not_loaded};
use crate::{
    caller::session::Session,
    contract::routes::{self, UPLOAD_SUFFIX},
    http::{connections::is_too_slow, error::ApiError},
};

/// The stored name of a file in llama.cpp's format, whatever its name in the upload.
const GGUF: &str = "adapter.gguf";

/// How long the rest of a refused upload is read and discarded. Closing a connection while the
/// client sends resets it, and the client might never read the error.
const LINGER: Duration = Duration::from_secs(10);

/// The query of an upload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Uploading {
    /// Whether an adapter of the same name is replaced.
    #[serde(default)]
    replace: bool,
    /// Whether the adapter is pinned in memory.
    pinned: Option<bool>,
}

/// `POST /v1/adapters/{name}/upload?replace=true&pinned=true` with `multipart/form-data`. Answers
/// once the adapter is served.
pub(crate) async fn upload(
    session: Session,
    UrlPath(path): UrlPath<String>,
    uploading: Result<Query<Uploading>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    // With `Expect: 100-continue`, the client waits before it sends the body, so there is nothing
    // to discard.
    let waits = request.headers().contains_key(header::EXPECT);
    let (head, body) = request.into_parts();
    let arriving = Arc::new(Mutex::new(body.into_data_stream()));
    let body = stream::unfold(Arc::clone(&arriving), |arriving| async move {
        let bytes = arriving.lock().await.next().await?;
        Some((bytes, arriving))
    });
    let request = Request::from_parts(head, Body::from_stream(body));
    let answer = answer(&session, &path, uploading, request).await;
    if answer.is_err() && !waits {
        tokio::spawn(timeout(LINGER, async move {
            let mut arriving = arriving.lock().await;
            while let Some(Ok(_)) = arriving.next().await {}
        }));
    }
    answer
}

async fn answer(
    session: &Session,
    path: &str,
    uploading: Result<Query<Uploading>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let Some(name) = path.strip_suffix(UPLOAD_SUFFIX) else {
        return Err(match routes::of(request.extensions()) {
            Some(route) => ApiError::method_not_allowed(&request, route),
            None => ApiError::unknown_route(&request),
        });
    };
    if !session.adapters().takes_uploads() {
        return Err(ApiError::Forbidden(
            "this server does not allow uploads; start it with `--allow-source upload`".to_owned(),
        ));
    }
    session.may_manage()?;
    let Query(uploading) = uploading.map_err(|error| ApiError::malformed(error.body_text()))?;
    let adding = Adding {
        replace: uploading.replace,
        pinned: uploading.pinned,
        by: AddedBy::Http,
        ..Adding::default()
    };
    session.may_pin(adding.pinned)?;
    // Checked before the body is read.
    session.may_claim(name).await?;
    receive_and_add(session, name, adding, request).await
}

async fn receive_and_add(
    session: &Session,
    name: &str,
    adding: Adding,
    request: Request,
) -> Result<Response, ApiError> {
    let upload = session.adapters().upload(name, adding.replace).await?;
    let upload = upload.map_err(|error| not_uploaded(name, &error))?;
    let parts = Multipart::from_request(request, session).await.map_err(|error| {
        ApiError::malformed(format!(
            "{}; send files as multipart/form-data",
            error.body_text()
        ))
    })?;
    receive(parts, upload.folder(), session.limits().upload_bytes).await?;

    let status = match session.contains(name) {
        true => StatusCode::OK,
        false => StatusCode::CREATED,
    };
    // In a task, because the files must stay until they are loaded even if the client disconnects.
    let (for_task, added) = (session.clone(), name.to_owned());
    session
        .to_the_end(async move { add(&for_task, &added, &upload, adding).await })
        .await?;
    let Json(adapter) = native::shown(session, name)?;
    Ok((status, Json(adapter)).into_response())
}

async fn add(session: &Session, name: &str, upload: &Upload, adding: Adding) -> Result<(), ApiError> {
    let is_new = session.claim(name).await?;
    let outcome = session.adapters().add(&upload.source(), adding).await?;
    session.settle_owner(name, is_new, outcome.is_ok()).await?;
    outcome.map(drop).map_err(|error| {
        let error = not_uploaded(name, &error);
        // The message must not contain the path of the temporary folder.
        let folder = upload.folder().display().to_string();
        match error {
            ApiError::Unusable(message) => ApiError::Unusable(message.replace(&folder, "upload")),
            ApiError::NoAdapter(message) => ApiError::Unusable(message.replace(&folder, "upload")),
            error => error,
        }
    })
}

/// The error of a failed upload. Unlike in other ways to add an adapter, a name that is taken is a
/// conflict.
fn not_uploaded(name: &str, error: &LoadError) -> ApiError {
    match error {
        LoadError::Failed(reason) => match **reason {
            AdapterError::DuplicateName { .. } => ApiError::Conflict(format!(
                "there is an adapter called `{name}` already; `?replace=true` takes its place"
            )),
            AdapterError::BeingLoaded { .. } => ApiError::Conflict(reason.to_string()),
            AdapterError::TooManyUploads { .. } => ApiError::overloaded(reason.to_string()),
            _ => not_loaded(name, error),
        },
        LoadError::Store(error) => ApiError::Failed(format!("adapter `{name}` was not stored: {error}")),
        error => not_loaded(name, error),
    }
}

/// Writes the files of one adapter from `parts` into `folder`.
async fn receive(mut parts: Multipart, folder: &Path, limit: usize) -> Result<(), ApiError> {
    let broken = |error: &MultipartError| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge { limit },
        _ if is_too_slow(error) => ApiError::TooSlow,
        _ => ApiError::malformed(format!(
            "the upload ended early or is malformed: {}",
            error.body_text()
        )),
    };
    let mut files = HashSet::new();
    while let Some(part) = parts.next_field().await.map_err(|error| broken(&error))? {
        let name = file_name(&part)?;
        if !files.insert(name) {
            return Err(ApiError::malformed(format!("`{name}` was sent twice")));
        }
        write(part, &folder.join(name), &broken).await?;
    }
    let has = |name| files.contains(name);
    let missing = |name: &str| {
        Err(ApiError::malformed(format!(
            "`{name}` is missing: an adapter is `{CONFIG}` and `{WEIGHTS}`, or one `.gguf` file"
        )))
    };
    match (has(GGUF), has(CONFIG), has(WEIGHTS)) {
        (true, false, false) | (false, true, true) => Ok(()),
        (true, ..) => Err(ApiError::malformed(format!(
            "a `.gguf` file is a whole adapter: send it without `{CONFIG}` and `{WEIGHTS}`"
        ))),
        (false, false, _) => missing(CONFIG),
        (false, true, false) => missing(WEIGHTS),
    }
}

/// The file name that a part is stored as. It is one of a fixed list, so that no upload can leave
/// the folder.
fn file_name(part: &Field<'_>) -> Result<&'static str, ApiError> {
    let Some(given) = part.file_name() else {
        return Err(ApiError::malformed(format!(
            "the field `{}` has no file name; every field must be a file",
            part.name().unwrap_or_default()
        )));
    };
    let known = ADAPTER_FILES.files.iter().map(|file| file.name);
    match known.clone().find(|name| *name == given) {
        Some(name) => Ok(name),
        None if given.ends_with(".gguf") => Ok(GGUF),
        None => {
            let names: Vec<&str> = known.collect();
            Err(ApiError::malformed(format!(
                "`{given}` is no file of an adapter: `{}` or one `.gguf` file are",
                names.join("`, `")
            )))
        }
    }
}

async fn write(
    mut part: Field<'_>,
    path: &Path,
    broken: &impl Fn(&MultipartError) -> ApiError,
) -> Result<(), ApiError> {
    let failed =
        |error: std::io::Error| ApiError::Failed(format!("the upload could not be written: {error}"));
    // Created synchronously, or the file might be created after its folder was deleted.
    let mut file = tokio::fs::File::from_std(fs::File::create_new(path).map_err(failed)?);
    while let Some(bytes) = part.chunk().await.map_err(|error| broken(&error))? {
        file.write_all(&bytes).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)
}
