//! A registry whose adapters come from the Hub.

use std::fs;
use std::sync::Arc;

use multigraft_adapters::{Adding, Lookup, Packer, Registry, RegistryOptions, Source};
use multigraft_model::ReadyAdapter;
use multigraft_sources::{FetchOptions, Fetcher, Hub, Reference};
use multigraft_testing::{Adapter, WebServer};

use crate::support::base;

const FIRST: &str = "1111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222";

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// A web server, and a user's caches.
struct Web {
    web: WebServer,
    dir: tempfile::TempDir,
}

impl Web {
    fn new() -> Self {
        Self {
            web: WebServer::start(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// The files of an adapter that differs from others by its alpha.
    fn files(alpha: u32) -> [Vec<u8>; 2] {
        let dir = tempfile::tempdir().unwrap();
        let mut adapter = Adapter::good();
        adapter.config["lora_alpha"] = alpha.into();
        adapter.write(dir.path());
        [CONFIG, WEIGHTS].map(|name| fs::read(dir.path().join(name)).unwrap())
    }

    fn commit(&self, repo: &str, commit: &str, alpha: u32) {
        let [config, weights] = Self::files(alpha);
        self.web.commit(
            repo,
            commit,
            &[(CONFIG, &config), (WEIGHTS, &weights), ("pickle.bin", b"x")],
        );
    }

    fn fetcher(&self) -> Fetcher {
        Fetcher::new(FetchOptions {
            cache: self.dir.path().join("cache"),
            cache_limit: u64::MAX,
            trusted_hosts: vec!["127.0.0.1".to_owned()],
            hub: Hub::at(&self.web.url(), None, self.dir.path().join("hub")),
        })
    }
}

fn hub(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

#[test]
fn a_registry_serves_a_repository_and_rolls_back_to_its_earlier_commit() {
    let web = Web::new();
    web.commit("org/support", FIRST, 1);
    let packer = Packer {
        shape: base(),
        self_test: None,
        size: Box::new(|_| 16),
        pack: Box::new(|weights, _| Ok(ReadyAdapter::new(weights.hash, 1000, Arc::new(())))),
    };
    let options = RegistryOptions {
        fetcher: Arc::new(web.fetcher()),
        // Room for one adapter.
        memory: 1500,
        ..RegistryOptions::default()
    };
    let registry = Registry::open("acme/tiny", packer, options).unwrap();
    let source = |name: &str| Source {
        name: name.to_owned(),
        at: hub("org/support"),
    };
    let load = |name: &str| match registry.get(name) {
        Lookup::Ready(entry) => entry,
        Lookup::Loading(waiting) => waiting.block().unwrap(),
        other => panic!("{other:?}"),
    };
    registry.register(source("support")).unwrap();
    let first = load("support").hash;
    web.commit("org/support", SECOND, 2);
    let replacing = Adding {
        replace: true,
        pinned: None,
        ..Adding::default()
    };
    let second = registry
        .add(&source("support"), replacing)
        .unwrap()
        .block()
        .unwrap()
        .hash;
    assert_ne!(first, second);
    let listed = registry.listed("support").unwrap();
    let revisions: Vec<_> = listed
        .versions
        .iter()
        .map(|version| version.revision.as_deref())
        .collect();
    assert_eq!(revisions, [Some(FIRST), Some(SECOND)]);
    // The first version is no longer in memory and the branch has moved, but the commit yields the
    // same files.
    fs::remove_dir_all(web.dir.path().join("hub")).unwrap();
    assert_eq!(registry.activate("support", None).unwrap(), first);
    assert_eq!(load("support").hash, first);
    // A failed download leaves no name behind.
    let none = Source {
        name: "none".to_owned(),
        at: hub("org/none"),
    };
    let error = registry
        .add(&none, Adding::default())
        .unwrap()
        .block()
        .unwrap_err()
        .to_string();
    assert!(error.contains("no such repository"), "{error}");
    assert!(!registry.contains("none"));
}

#[test]
fn what_requests_name_is_bounded_not_stored_and_not_asked_for_again_and_again() {
    let web = Web::new();
    web.commit("org/support", FIRST, 1);
    let open = || {
        let packer = Packer {
            self_test: None,
            shape: base(),
            size: Box::new(|_| 16),
            pack: Box::new(|weights, _| Ok(ReadyAdapter::new(weights.hash, 1000, Arc::new(())))),
        };
        let options = RegistryOptions {
            fetcher: Arc::new(web.fetcher()),
            data: Some(web.dir.path().join("data")),
            ..RegistryOptions::default()
        };
        Registry::open("acme/tiny", packer, options).unwrap()
    };
    let registry = open();
    let first_use = |name: &str| {
        let source = Source {
            name: name.to_owned(),
            at: hub(name),
        };
        match registry.first_use(&source).unwrap() {
            Lookup::Loading(waiting) => waiting.block(),
            Lookup::Unavailable(error) => Err(error),
            other => panic!("{other:?}"),
        }
    };
    first_use("org/support").unwrap();
    let error = first_use("org/none").unwrap_err().to_string();
    web.web.requests();
    assert_eq!(first_use("org/none").unwrap_err().to_string(), error);
    assert_eq!(web.web.requests(), [] as [&str; 0]);
    assert_eq!(registry.names(), ["org/support"]);
    drop(registry);
    assert_eq!(open().names(), [] as [&str; 0]);
}
