//! `/v1/adapters`.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::tag::object;

/// An adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "object", rename = "adapter")]
#[schemars(transform = object("adapter"))]
pub struct Adapter {
    /// The name that requests give as `model`.
    pub name: String,
    /// Whether its weights are in memory.
    pub state: AdapterState,
    /// Content hash of the active version; null until its files are read for the first time.
    pub hash: Option<String>,
    /// Where the files of the active version come from.
    pub source: Option<String>,
    /// Who added the active version; as in `versions`.
    pub added_by: Option<AddedBy>,
    /// Which state of the source it is: a commit of the Hub, or what an object store said of it.
    pub revision: Option<String>,
    /// Whether it stays in memory.
    pub pinned: bool,
    /// Whether a newer version is being loaded.
    pub replacing: bool,
    /// Requests since the start of the server; null if the key may not know.
    pub requests: Option<u64>,
    /// When the last request named it, in seconds since 1970.
    pub last_used: Option<u64>,
    /// Bytes of memory that its weights take; null if they are not in memory.
    pub bytes: Option<u64>,
    /// What its files hold; null if they were never read.
    pub info: Option<AdapterInfo>,
    /// How much of its weights is here, while they are fetched.
    pub progress: Option<Progress>,
    /// Why its last load failed.
    pub error: Option<String>,
    /// Seconds until the next load is tried.
    pub retry_after: Option<f64>,
    /// Fields of requests that hold where a request does not give them.
    pub defaults: Option<Map<String, Value>>,
    /// What its requests may take.
    pub limits: AdapterLimits,
    /// The newest last.
    pub versions: Vec<AdapterVersion>,
}

/// Whether an adapter's weights are in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdapterState {
    /// They are.
    Resident,
    /// They are not; the first request loads them.
    Cold,
    /// They are being fetched or loaded.
    Loading,
    /// The last load failed.
    Failed,
}

impl AdapterState {
    /// The word that JSON has for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resident => "resident",
            Self::Cold => "cold",
            Self::Loading => "loading",
            Self::Failed => "failed",
        }
    }
}

/// Who added a version of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AddedBy {
    /// Whoever started the server.
    #[serde(rename = "command line")]
    CommandLine,
    /// The file of adapters.
    #[serde(rename = "adapters file")]
    AdaptersFile,
    /// A request whose model nobody had added.
    #[serde(rename = "request")]
    Request,
    /// A call of a management route.
    #[serde(rename = "http")]
    Http,
}

impl AddedBy {
    /// The words that JSON has for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CommandLine => "command line",
            Self::AdaptersFile => "adapters file",
            Self::Request => "request",
            Self::Http => "http",
        }
    }
}

/// Facts about an adapter whose files were read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AdapterInfo {
    /// Content hash, hexadecimal.
    pub hash: String,
    /// The base that it was trained on, as its config says.
    pub base_model: Option<String>,
    /// The version of PEFT that saved it.
    pub peft_version: Option<String>,
    /// Smallest and largest rank of its low-rank updates, if it has any.
    #[schemars(with = "Option<[u64; 2]>")]
    pub ranks: Option<(u64, u64)>,
    /// Names of the modules with low-rank updates, such as `q_proj`.
    pub targets: Vec<String>,
    /// Decoder layers that it changes, counted from 0.
    pub layers: Vec<u64>,
    /// What it has besides plain low-rank updates: `rsLoRA`, `DoRA`, `token rows` and so on.
    pub features: Vec<String>,
    /// Number of tensors in its file.
    pub tensors: u64,
    /// Number of weights in its file.
    pub parameters: u64,
    /// Size of its files in bytes.
    pub bytes: u64,
    /// Sentences about what may surprise.
    pub warnings: Vec<String>,
    /// The file that its chat template is in; left out if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// What it does to the base; left out if it was not tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
}

/// What an adapter does to the base, as its self test measured it on a fixed prompt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Effect {
    /// Root mean square of what it adds to the logits, over that of the base's logits.
    pub moved: f32,
    /// Positions whose likeliest next token it changes.
    pub changed: u64,
    /// Positions of the prompt.
    pub positions: u64,
    /// How it agrees with its `reference.json`, if it has one.
    pub reference: Option<Agreement>,
}

/// How an adapter agrees with the tokens that its `reference.json` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Agreement {
    /// Tokens that are the likeliest after what comes before them.
    pub agree: u64,
    /// Tokens in all.
    pub of: u64,
}

/// How far a download has come, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// Bytes that are here.
    pub done: u64,
    /// Bytes in all; null until that is known.
    pub total: Option<u64>,
}

/// The share and the bounds of an adapter's requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AdapterLimits {
    /// Its share where there is not enough for all: twice the weight is twice the tokens.
    pub weight: f32,
    /// Requests that are accepted in a minute; null is any number.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens in a minute, of prompts and answers together; null is any number.
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Requests that wait or run at once; null is any number.
    pub concurrent_requests: Option<NonZeroU32>,
    /// Whether tenants use each other's cached prefixes.
    pub shared_prefixes: bool,
}

impl Default for AdapterLimits {
    /// An equal share, no bounds, and nothing shared.
    fn default() -> Self {
        Self {
            weight: 1.0,
            requests_per_minute: None,
            tokens_per_minute: None,
            concurrent_requests: None,
            shared_prefixes: false,
        }
    }
}

/// A version of an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdapterVersion {
    /// Content hash; null until its files are read for the first time.
    pub hash: Option<String>,
    /// Where its files come from.
    pub source: String,
    /// Which state of the source it is: a commit of the Hub, or what an object store said of it.
    pub revision: Option<String>,
    /// When it was added, in seconds since 1970.
    pub added: u64,
    /// Who added it; null if it was added before this was written down.
    pub added_by: Option<AddedBy>,
    /// Whether requests get it.
    pub active: bool,
}

/// `GET /v1/adapters`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "object", rename = "list")]
#[schemars(transform = object("list"))]
pub struct Adapters {
    /// The adapters that the key may see.
    pub data: Vec<Adapter>,
    /// Memory of all of them together.
    pub memory: AdapterMemory,
}

/// Memory of all adapters together, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdapterMemory {
    /// What they take.
    pub bytes: u64,
    /// What they may take; null if it is not bounded.
    pub limit: Option<u64>,
    /// The budget that they share with the KV cache; null if each has its own.
    pub budget: Option<MemoryBudget>,
}

/// Memory of adapters and of the KV cache together, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryBudget {
    /// What both may take.
    pub limit: u64,
    /// What the KV cache takes.
    pub keys_and_values: u64,
    /// What adapters take.
    pub adapters: u64,
}

/// The body of `POST /v1/adapters`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AddAdapter {
    /// The name that it is to have.
    pub name: String,
    /// Where its files are.
    pub source: String,
    /// Whether it may replace an adapter of that name.
    #[serde(default)]
    pub replace: bool,
    /// Whether it is to stay in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<bool>,
    /// Fields of requests that hold where a request does not give them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Map<String, Value>>,
    /// What its requests may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<AdapterLimits>,
}

/// The body of `PATCH /v1/adapters/{name}`: what is left out stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeAdapter {
    /// Whether it is to stay in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<bool>,
    /// The content hash of the version that requests are to get, or `previous`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// Fields of requests that hold where a request does not give them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Map<String, Value>>,
    /// What its requests may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<AdapterLimits>,
}

/// What became of an adapter: the data of an event of `GET /v1/adapters/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdapterEvent {
    /// The adapter.
    pub name: String,
    /// What it does now.
    pub state: AdapterPhase,
    /// Content hash of the active version, if that is known.
    pub hash: Option<String>,
    /// Bytes of the weights that are here; null unless they are fetched.
    pub bytes_done: Option<u64>,
    /// Bytes in all; null until that is known.
    pub bytes_total: Option<u64>,
    /// Why it could not be loaded.
    pub error: Option<String>,
}

/// What an adapter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdapterPhase {
    /// Its files are being fetched.
    Fetching,
    /// Its files are being read and its weights prepared.
    Loading,
    /// Its weights are in memory.
    Resident,
    /// Its weights are not in memory.
    Cold,
    /// It could not be loaded.
    Failed,
    /// It is not served any more.
    Removed,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_adapter_is_written_in_this_order_and_read_back() {
        let limits = AdapterLimits {
            weight: 0.1,
            ..AdapterLimits::default()
        };
        let adapter = Adapter {
            name: "a".to_owned(),
            state: AdapterState::Cold,
            hash: None,
            source: Some("/a".to_owned()),
            added_by: Some(AddedBy::CommandLine),
            revision: None,
            pinned: false,
            replacing: true,
            requests: Some(3),
            last_used: None,
            bytes: None,
            info: None,
            progress: Some(Progress { done: 1, total: None }),
            error: None,
            retry_after: Some(1.5),
            defaults: None,
            limits,
            versions: Vec::new(),
        };
        let text = r#"{"object":"adapter","name":"a","state":"cold","hash":null,"source":"/a","added_by":"command line",
            "revision":null,"pinned":false,"replacing":true,"requests":3,"last_used":null,"bytes":null,"info":null,
            "progress":{"done":1,"total":null},"error":null,"retry_after":1.5,"defaults":null,
            "limits":{"weight":0.1,"requests_per_minute":null,"tokens_per_minute":null,"concurrent_requests":null,
            "shared_prefixes":false},"versions":[]}"#;
        let text: String = text.lines().map(str::trim_start).collect();
        assert_eq!(serde_json::to_string(&adapter).expect("JSON"), text);
        assert_eq!(serde_json::from_str::<Adapter>(&text).expect("read"), adapter);
    }

    #[test]
    fn what_is_not_to_change_is_left_out() {
        let change = ChangeAdapter {
            pinned: Some(false),
            ..ChangeAdapter::default()
        };
        assert_eq!(json!(change), json!({"pinned": false}));
        let add = json!({"name": "a", "source": "/a", "replace": false});
        assert_eq!(
            json!(serde_json::from_value::<AddAdapter>(add.clone()).expect("read")),
            add
        );
    }

    #[test]
    fn words_are_those_of_json() {
        for state in [
            AdapterState::Resident,
            AdapterState::Cold,
            AdapterState::Loading,
            AdapterState::Failed,
        ] {
            assert_eq!(json!(state), state.as_str());
        }
        for by in [
            AddedBy::CommandLine,
            AddedBy::AdaptersFile,
            AddedBy::Request,
            AddedBy::Http,
        ] {
            assert_eq!(json!(by), by.as_str());
        }
    }
}
