//! The table of routes: every fact about a route, stated once.
//!
//! The router, authentication, the audit log, traces, the time limit, error bodies, batches, the
//! OpenAPI document and the tests of the documentation read [`ROUTES`]. Handlers take the server's
//! state, which stands above this module, so that a row names its handler by a [`Handler`] and
//! `crate::routes` pairs the two. The compiler holds them to each other: the `match` there lacks no
//! variant, and a variant that no row names is dead code.

use axum::{
    extract::{MatchedPath, Request},
    http::Extensions,
};

use super::{
    dialect::Dialect,
    route::{
        BodyLimit, Content, Handler, Method, RequestBody, Route, delete, get, openai, patch, post, tgi,
        undescribed,
    },
};

/// The end of the path of an adapter's upload, after the adapter's name.
pub(crate) const UPLOAD_SUFFIX: &str = "/upload";

// Groups of the OpenAPI document.
const OPENAI: &str = "OpenAI";
const TGI: &str = "TGI and LoRAX";
const ADAPTERS: &str = "Adapters";
const KEYS: &str = "Keys";
const OPERATIONS: &str = "Operations";

/// Every route, in the order of the OpenAPI document.
pub(crate) static ROUTES: &[Route] = &[
    openai(
        OPENAI,
        "/v1/chat/completions",
        &[post(
            Handler::ChatCompletions,
            "chat",
            "Answer a chat",
            &[(200, Content::JsonOrEvents("Chat"))],
        )
        .takes(RequestBody::Json("ChatRequest"))],
    )
    .timed()
    .generates("chat")
    .in_batches(),
    openai(
        OPENAI,
        "/v1/completions",
        &[post(
            Handler::Completions,
            "complete",
            "Complete a text",
            &[(200, Content::JsonOrEvents("Completion"))],
        )
        .takes(RequestBody::Json("CompletionRequest"))],
    )
    .timed()
    .generates("text_completion")
    .in_batches(),
    openai(
        OPENAI,
        "/v1/embeddings",
        &[post(
            Handler::Embeddings,
            "embeddings",
            "Embed texts",
            &[(200, Content::Json("Embeddings"))],
        )
        .takes(RequestBody::Json("EmbeddingsRequest"))],
    )
    .timed()
    .generates("embeddings")
    .in_batches(),
    openai(
        OPENAI,
        "/v1/models",
        &[get(
            Handler::ListModels,
            "listModels",
            "List the base and the adapters",
            &[(200, Content::Json("Models"))],
        )],
    ),
    openai(
        OPENAI,
        "/v1/models/{*name}",
        &[get(
            Handler::GetModel,
            "getModel",
            "Describe the base or an adapter, whose name may contain slashes",
            &[(200, Content::Json("Model"))],
        )],
    ),
    openai(
        OPENAI,
        "/v1/responses",
        &[post(
            Handler::Responses,
            "respond",
            "Answer a chat in the format of the Responses API",
            &[(200, Content::JsonOrEvents("Response"))],
        )
        .takes(RequestBody::Json("ResponseRequest"))],
    )
    .timed()
    .in_batches(),
    openai(
        OPENAI,
        "/v1/files",
        &[
            get(
                Handler::ListFiles,
                "listFiles",
                "List the files of batches",
                &[(200, Content::Json("Files"))],
            ),
            post(
                Handler::AddFile,
                "addFile",
                "Upload an input file of a batch",
                &[(200, Content::Json("File"))],
            )
            .takes(RequestBody::Form("AddFile"))
            .with_body_limit(BodyLimit::File),
        ],
    ),
    openai(
        OPENAI,
        "/v1/files/{id}",
        &[
            get(
                Handler::GetFile,
                "getFile",
                "Describe a file",
                &[(200, Content::Json("File"))],
            ),
            delete(
                Handler::RemoveFile,
                "removeFile",
                "Delete a file",
                &[(200, Content::Json("Deleted"))],
            ),
        ],
    ),
    openai(
        OPENAI,
        "/v1/files/{id}/content",
        &[get(
            Handler::GetFileContent,
            "getFileContent",
            "Download a file",
            &[(200, Content::Text("application/octet-stream"))],
        )],
    ),
    openai(
        OPENAI,
        "/v1/batches",
        &[
            get(
                Handler::ListBatches,
                "listBatches",
                "List the batches, the newest first",
                &[(200, Content::Json("Batches"))],
            ),
            post(
                Handler::AddBatch,
                "addBatch",
                "Run a file of requests at background priority",
                &[(200, Content::Json("Batch"))],
            )
            .takes(RequestBody::Json("BatchRequest")),
        ],
    ),
    openai(
        OPENAI,
        "/v1/batches/{id}",
        &[get(
            Handler::GetBatch,
            "getBatch",
            "Describe a batch",
            &[(200, Content::Json("Batch"))],
        )],
    ),
    openai(
        OPENAI,
        "/v1/batches/{id}/cancel",
        &[post(
            Handler::CancelBatch,
            "cancelBatch",
            "Cancel a batch",
            &[(200, Content::Json("Batch"))],
        )],
    ),
    tgi(
        TGI,
        "/",
        &[post(
            Handler::TgiCompatible,
            "tgi",
            "Generate text, as a list of one answer or as a stream if `stream` is true",
            &[(200, Content::ListOrEvents("Generated"))],
        )
        .takes(RequestBody::Json("GenerateRequest"))],
    )
    .timed()
    .generates("text_completion"),
    tgi(
        TGI,
        "/invocations",
        &[post(
            Handler::TgiCompatible,
            "invocations",
            "The route that SageMaker calls; the same as `/`",
            &[(200, Content::ListOrEvents("Generated"))],
        )
        .takes(RequestBody::Json("GenerateRequest"))],
    )
    .timed()
    .generates("text_completion"),
    tgi(
        TGI,
        "/generate",
        &[post(
            Handler::TgiGenerate,
            "generate",
            "Generate text",
            &[(200, Content::Json("Generated"))],
        )
        .takes(RequestBody::Json("GenerateRequest"))],
    )
    .timed()
    .generates("text_completion"),
    tgi(
        TGI,
        "/generate_stream",
        &[post(
            Handler::TgiGenerateStream,
            "generateStream",
            "Generate text as a stream of tokens",
            &[(200, Content::Events)],
        )
        .takes(RequestBody::Json("GenerateRequest"))],
    )
    .timed()
    .generates("text_completion"),
    tgi(
        TGI,
        "/embed",
        &[post(
            Handler::TgiEmbed,
            "embed",
            "Embed a text",
            &[(200, Content::Json("Embedded"))],
        )
        .takes(RequestBody::Json("EmbedRequest"))],
    )
    .timed()
    .generates("embeddings"),
    tgi(
        TGI,
        "/tokenize",
        &[post(
            Handler::TgiTokenize,
            "tokenize",
            "Tokenize a text",
            &[(200, Content::List("Piece"))],
        )
        .takes(RequestBody::Json("TokenizeRequest"))],
    ),
    tgi(
        TGI,
        "/chat_tokenize",
        &[post(
            Handler::TgiChatTokenize,
            "chatTokenize",
            "Tokenize a chat with its template",
            &[(200, Content::Json("ChatTokenized"))],
        )
        .takes(RequestBody::Json("ChatTokenizeRequest"))],
    ),
    tgi(
        TGI,
        "/info",
        &[get(
            Handler::TgiInfo,
            "info",
            "Describe the served model and the limits",
            &[(200, Content::Json("Info"))],
        )],
    ),
    openai(
        ADAPTERS,
        "/v1/adapters",
        &[
            get(
                Handler::ListAdapters,
                "listAdapters",
                "List the adapters and their memory",
                &[(200, Content::Json("Adapters"))],
            ),
            post(
                Handler::AddAdapter,
                "addAdapter",
                "Add an adapter, or replace one",
                &[
                    (200, Content::JsonOrEvents("Adapter")),
                    (201, Content::Json("Adapter")),
                ],
            )
            .takes(RequestBody::Json("AddAdapter"))
            .audited("adapter.add"),
        ],
    ),
    openai(
        ADAPTERS,
        "/v1/adapters/{*name}",
        &[
            get(
                Handler::GetAdapter,
                "getAdapter",
                "Describe an adapter; the name `events` streams the changes of all adapters",
                &[(200, Content::JsonOrEvents("Adapter"))],
            ),
            // The handler refuses other paths: names of adapters may hold slashes, so that the
            // router cannot tell where a name ends.
            undescribed(Method::Post, Handler::UploadAdapter)
                .below(UPLOAD_SUFFIX)
                .with_body_limit(BodyLimit::Upload)
                .audited("adapter.upload"),
            patch(
                Handler::ChangeAdapter,
                "changeAdapter",
                "Pin an adapter, activate a version, or set its defaults and limits",
                &[(200, Content::Json("Adapter"))],
            )
            .takes(RequestBody::Json("ChangeAdapter"))
            .audited("adapter.change"),
            delete(
                Handler::RemoveAdapter,
                "removeAdapter",
                "Remove an adapter",
                &[(204, Content::Nothing)],
            )
            .audited("adapter.remove"),
        ],
    ),
    openai(
        ADAPTERS,
        "/v1/load_lora_adapter",
        &[post(
            Handler::VllmLoad,
            "vllmLoad",
            "Add an adapter, as in vLLM",
            &[(200, Content::Text("text/plain"))],
        )
        .takes(RequestBody::Json("VllmLoad"))
        .audited("adapter.add")],
    ),
    openai(
        ADAPTERS,
        "/v1/unload_lora_adapter",
        &[post(
            Handler::VllmUnload,
            "vllmUnload",
            "Remove an adapter, as in vLLM",
            &[(200, Content::Text("text/plain"))],
        )
        .takes(RequestBody::Json("VllmUnload"))
        .audited("adapter.remove")],
    ),
    tgi(
        ADAPTERS,
        "/load_lora_adapter",
        &[post(
            Handler::SglangLoad,
            "sglangLoad",
            "Add an adapter, as in SGLang",
            &[(200, Content::Json("SglangDone")), (400, Content::SglangRefusal)],
        )
        .takes(RequestBody::Json("SglangLoad"))
        .audited("adapter.add")],
    ),
    tgi(
        ADAPTERS,
        "/unload_lora_adapter",
        &[post(
            Handler::SglangUnload,
            "sglangUnload",
            "Remove an adapter, as in SGLang",
            &[(200, Content::Json("SglangDone")), (400, Content::SglangRefusal)],
        )
        .takes(RequestBody::Json("SglangUnload"))
        .audited("adapter.remove")],
    ),
    tgi(
        ADAPTERS,
        "/lora-adapters",
        &[
            get(
                Handler::LlamaCppList,
                "llamaCppList",
                "List the adapters by number, as in llama.cpp",
                &[(200, Content::List("LlamaCppAdapter"))],
            ),
            post(
                Handler::LlamaCppSet,
                "llamaCppSet",
                "Refused: scales cannot be set for all requests",
                &[],
            ),
        ],
    ),
    openai(
        KEYS,
        "/v1/keys",
        &[
            get(
                Handler::ListKeys,
                "listKeys",
                "List the keys, without their secrets",
                &[(200, Content::Json("Keys"))],
            ),
            post(
                Handler::AddKey,
                "addKey",
                "Add a key; only this answer contains its secret",
                &[(201, Content::Json("Key"))],
            )
            .takes(RequestBody::Json("AddKey"))
            .audited("key.add"),
        ],
    ),
    openai(
        KEYS,
        "/v1/keys/{id}",
        &[
            get(
                Handler::GetKey,
                "getKey",
                "Describe a key",
                &[(200, Content::Json("Key"))],
            ),
            patch(
                Handler::ChangeKey,
                "changeKey",
                "Change a key; null removes a limit",
                &[(200, Content::Json("Key"))],
            )
            .takes(RequestBody::Json("ChangeKey"))
            .audited("key.change"),
            delete(
                Handler::RevokeKey,
                "revokeKey",
                "Revoke a key",
                &[(204, Content::Nothing)],
            )
            .audited("key.revoke"),
        ],
    ),
    openai(
        KEYS,
        "/v1/keys/{id}/rotate",
        &[post(
            Handler::RotateKey,
            "rotateKey",
            "Make a new secret; the previous ones stay valid for some hours",
            &[(200, Content::Json("Key"))],
        )
        .takes(RequestBody::Json("RotateKey"))
        .audited("key.rotate")],
    ),
    openai(
        OPERATIONS,
        "/v1/usage",
        &[get(
            Handler::Usage,
            "usage",
            "Report requests and tokens by key, tenant, adapter and time",
            &[(200, Content::Json("Usages"))],
        )
        .with_query(&[
            ("from", "Start of the period: a day in UTC, or seconds since 1970"),
            ("to", "End of the period (exclusive), in the same form"),
            (
                "by",
                "Columns to group by, comma-separated: key, tenant, adapter, and one of hour, day, month",
            ),
        ])],
    ),
    tgi(
        OPERATIONS,
        "/health",
        &[get(
            Handler::Health,
            "health",
            "Liveness: 200 while the engine runs",
            &[(200, Content::Nothing), (503, Content::Nothing)],
        )],
    )
    .open()
    .answered_at_shutdown(),
    tgi(
        OPERATIONS,
        "/ready",
        &[get(
            Handler::Ready,
            "ready",
            "Readiness: 200 while new requests are accepted, else 503 with the reason",
            &[(200, Content::Json("Ready")), (503, Content::Json("Ready"))],
        )],
    )
    .open()
    .answered_at_shutdown(),
    tgi(
        OPERATIONS,
        "/ping",
        &[
            get(
                Handler::Health,
                "ping",
                "Liveness, the same as `/health`",
                &[(200, Content::Nothing), (503, Content::Nothing)],
            ),
            post(
                Handler::Health,
                "pingPost",
                "Liveness, the same as `/health`",
                &[(200, Content::Nothing), (503, Content::Nothing)],
            ),
        ],
    )
    .open()
    .answered_at_shutdown(),
    tgi(
        OPERATIONS,
        "/version",
        &[get(
            Handler::Version,
            "version",
            "The version of multigraft",
            &[(200, Content::Json("Version"))],
        )],
    ),
    tgi(
        OPERATIONS,
        "/stats",
        &[get(
            Handler::Stats,
            "stats",
            "Statistics of the engine after its last step",
            &[(200, Content::Json("Stats"))],
        )],
    ),
    tgi(
        OPERATIONS,
        "/metrics",
        &[get(
            Handler::Metrics,
            "metrics",
            "Metrics for Prometheus",
            &[(200, Content::Metrics)],
        )],
    )
    .answered_at_shutdown(),
    tgi(
        OPERATIONS,
        "/openapi.json",
        &[get(
            Handler::OpenApi,
            "openapi",
            "This document",
            &[(200, Content::Json("Anything"))],
        )],
    )
    .open(),
    tgi(
        OPERATIONS,
        "/docs",
        &[get(
            Handler::Docs,
            "docs",
            "A page that renders this document",
            &[(200, Content::Text("text/html"))],
        )],
    )
    .open(),
];

/// The route whose path the router writes as `path`.
fn at(path: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.path == path)
}

/// The route that the router chose for the request with these extensions; `None` if no route has
/// the request's path.
pub(crate) fn of(extensions: &Extensions) -> Option<&'static Route> {
    at(extensions.get::<MatchedPath>()?.as_str())
}

/// The dialect of the answer to `request`: its route's, or that of an unknown path.
pub(crate) fn dialect(request: &Request) -> Dialect {
    match of(request.extensions()) {
        Some(route) => route.dialect,
        None => Dialect::of_unknown_path(request.uri().path()),
    }
}

/// The paths that the lines of a batch may call.
pub(crate) fn batch_paths() -> impl Iterator<Item = &'static str> {
    let routes = ROUTES.iter().filter(|route| route.in_batches);
    routes.map(|route| route.path)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs, path::PathBuf};

    use super::*;
    use crate::contract::route::TimeLimit;

    #[test]
    fn no_path_is_there_twice_and_no_method_of_a_path() {
        let mut paths = HashSet::new();
        for route in ROUTES {
            assert!(paths.insert(route.path), "{}", route.path);
            let mut methods = HashSet::new();
            for endpoint in route.endpoints {
                assert!(methods.insert(endpoint.method.as_str()), "{}", route.path);
            }
            assert!(!methods.is_empty(), "{}", route.path);
        }
    }

    #[test]
    fn whatever_answers_all_paths_of_a_route_is_described() {
        for route in ROUTES {
            for endpoint in route.endpoints {
                assert_eq!(
                    endpoint.operation.is_some(),
                    endpoint.suffix.is_none(),
                    "{} {}",
                    endpoint.method.as_str(),
                    route.path
                );
            }
        }
    }

    #[test]
    fn requests_that_change_adapters_or_keys_are_audited() {
        for route in ROUTES
            .iter()
            .filter(|route| [ADAPTERS, KEYS].contains(&route.tag))
        {
            for endpoint in route.endpoints {
                // llama.cpp's route to set scales refuses every request.
                let changes = endpoint.method != Method::Get && endpoint.handler != Handler::LlamaCppSet;
                let method = endpoint.method.as_str();
                assert_eq!(
                    endpoint.audit_action.is_some(),
                    changes,
                    "{method} {}",
                    route.path
                );
            }
        }
    }

    #[test]
    fn the_methods_that_are_allowed_are_those_of_all_paths_of_a_route() {
        let allowed = |path| at(path).map(Route::allowed).unwrap_or_default();
        assert_eq!(allowed("/v1/completions"), "POST");
        assert_eq!(allowed("/v1/models"), "GET,HEAD");
        assert_eq!(allowed("/v1/files/{id}"), "GET,HEAD,DELETE");
        assert_eq!(allowed("/v1/adapters/{*name}"), "GET,HEAD,PATCH,DELETE");
    }

    #[test]
    fn batches_call_routes_that_a_model_answers() {
        for route in ROUTES.iter().filter(|route| route.in_batches) {
            assert_eq!(route.time_limit, TimeLimit::Request, "{}", route.path);
        }
        assert!(batch_paths().next().is_some());
    }

    #[test]
    fn every_route_is_in_some_page() {
        let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let pages: String = fs::read_dir(docs)
            .expect("the pages")
            .map(|entry| fs::read_to_string(entry.expect("an entry").path()).unwrap_or_default())
            .collect();
        for Route { path, .. } in ROUTES {
            // Wildcards are written as names there.
            let known = path.split("/{").next().unwrap_or(path);
            assert!(
                pages.contains(&format!("{known}`")) || pages.contains(&format!("{known}/")),
                "no page names the route {path}"
            );
        }
    }
}
