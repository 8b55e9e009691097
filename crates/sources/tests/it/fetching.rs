//! Downloads from the Hub and from web servers: what is downloaded, what is verified, and what is
//! found in caches without a network.

use std::fs;
use std::sync::Mutex;

use multigraft_sources::{FetchOptions, Fetcher, Hub, Need, Reference, Wanted, WantedFile};
use multigraft_testing::{Adapter, WebServer};

const FIRST: &str = "1111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222";

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// What the registry fetches of an adapter.
const WANTED: Wanted = Wanted {
    marker: ".multigraft-adapter",
    files: &[
        file(CONFIG, 1 << 20, Need::Required),
        file(WEIGHTS, 16 << 30, Need::Required),
        file("README.md", 4 << 20, Need::Optional),
        file("reference.json", 1 << 20, Need::Optional),
        file("chat_template.jinja", 16 << 20, Need::IfPresent),
        file("tokenizer_config.json", 16 << 20, Need::IfPresent),
        file("chat_template.json", 16 << 20, Need::IfPresent),
    ],
};

const fn file(name: &'static str, limit: u64, need: Need) -> WantedFile {
    WantedFile { name, limit, need }
}

/// A web server, and a user's caches.
struct Setup {
    web: WebServer,
    dir: tempfile::TempDir,
}

impl Setup {
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

    fn hub(&self) -> Hub {
        Hub::at(&self.web.url(), None, self.dir.path().join("hub"))
    }

    fn fetcher_of(&self, hub: Hub) -> Fetcher {
        Fetcher::new(FetchOptions {
            cache: self.dir.path().join("cache"),
            cache_limit: u64::MAX,
            trusted_hosts: vec!["127.0.0.1".to_owned()],
            hub,
        })
    }

    fn fetcher(&self) -> Fetcher {
        self.fetcher_of(self.hub())
    }

    fn at(&self, path: &str) -> Reference {
        Reference::parse(&format!("{}{path}", self.web.url())).unwrap()
    }

    /// What was asked for, without the requests for facts alone.
    fn downloads(&self) -> Vec<String> {
        let requests = self.web.requests().into_iter();
        requests
            .filter(|request| {
                request.starts_with("GET") && !request.contains("/api/") && !request.contains(" /org/")
            })
            .collect()
    }
}

fn hub(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

#[test]
fn a_repository_is_fetched_once_and_its_revisions_are_told_apart() {
    let setup = Setup::new();
    setup.commit("org/support", FIRST, 1);
    let fetcher = setup.fetcher();
    let first = fetcher.fetch(&hub("hf://org/support"), None, &WANTED).unwrap();
    assert_eq!(first.revision.as_deref(), Some(FIRST));
    assert_eq!(fs::read(first.folder.join(WEIGHTS)).unwrap(), Setup::files(1)[1]);
    assert!(!first.folder.join("pickle.bin").exists());
    setup.web.requests();
    assert_eq!(
        fetcher.fetch(&hub("hf://org/support"), None, &WANTED).unwrap(),
        first
    );
    assert_eq!(
        setup.web.requests(),
        ["GET /api/models/org/support/revision/main"],
        "a branch may have moved, which one question tells"
    );
    // It moves; the earlier commit stays what it was, and needs no network at all.
    setup.commit("org/support", SECOND, 2);
    let second = fetcher.fetch(&hub("hf://org/support"), None, &WANTED).unwrap();
    assert_eq!(second.revision.as_deref(), Some(SECOND));
    setup.web.requests();
    let pinned = hub(&format!("org/support@{FIRST}"));
    assert_eq!(fetcher.fetch(&pinned, None, &WANTED).unwrap(), first);
    assert_eq!(
        fetcher.fetch(&hub("org/support"), Some(FIRST), &WANTED).unwrap(),
        first
    );
    assert_eq!(setup.web.requests(), [] as [&str; 0]);
}

#[test]
fn what_is_in_the_hubs_cache_is_found_without_a_network() {
    let setup = Setup::new();
    setup.commit("org/support", FIRST, 1);
    let fetched = setup.fetcher().fetch(&hub("org/support"), None, &WANTED).unwrap();
    let gone = Hub::at("http://127.0.0.1:9", None, setup.dir.path().join("hub"));
    let unreachable = setup
        .fetcher_of(gone)
        .fetch(&hub("org/support"), None, &WANTED)
        .unwrap();
    assert_eq!(unreachable, fetched);
    setup.web.requests();
    let offline = setup.fetcher_of(setup.hub().offline());
    assert_eq!(
        offline.fetch(&hub("org/support"), None, &WANTED).unwrap(),
        fetched
    );
    let error = offline
        .fetch(&hub("org/other"), None, &WANTED)
        .unwrap_err()
        .to_string();
    assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
    assert_eq!(setup.web.requests(), [] as [&str; 0]);
}

#[test]
fn a_chat_template_is_downloaded_from_every_kind_of_source() {
    let setup = Setup::new();
    let [config, weights] = Setup::files(1);
    let jinja = "chat_template.jinja";
    let mut files = vec![(CONFIG, &config[..]), (WEIGHTS, &weights), (jinja, b"mine")];
    setup.web.commit("org/support", FIRST, &files);
    for (name, bytes) in &files {
        setup.web.put(&format!("/a/{name}"), bytes);
    }
    for at in [hub("org/support"), setup.at("/a")] {
        let fetched = setup.fetcher().fetch(&at, None, &WANTED).unwrap();
        assert_eq!(fs::read(fetched.folder.join(jinja)).unwrap(), b"mine");
    }
    // A snapshot of which another program fetched the weights alone is not taken for a whole one,
    // unless nobody can be asked.
    let snapshot = |name: &str| {
        setup
            .dir
            .path()
            .join("hub/models--org--support/snapshots")
            .join(FIRST)
            .join(name)
    };
    fs::remove_file(snapshot(jinja)).unwrap();
    fs::remove_file(snapshot(".multigraft-adapter")).unwrap();
    let pinned = hub(&format!("org/support@{FIRST}"));
    setup
        .fetcher_of(setup.hub().offline())
        .fetch(&pinned, None, &WANTED)
        .unwrap();
    assert!(!snapshot(jinja).exists());
    setup.fetcher().fetch(&pinned, None, &WANTED).unwrap();
    assert!(snapshot(jinja).exists());
    // One that is too large would be left out of the adapter, so there is none.
    let large = vec![b'x'; (16 << 20) + 1];
    files[2].1 = &large;
    setup.web.commit("org/support", SECOND, &files);
    setup.web.put("/b/adapter_config.json", &config);
    setup.web.put("/b/adapter_model.safetensors", &weights);
    setup.web.put("/b/chat_template.jinja", &large);
    for at in [hub("org/support"), setup.at("/b")] {
        let error = setup.fetcher().fetch(&at, None, &WANTED).unwrap_err().to_string();
        assert!(
            error.contains("chat_template.jinja has 16777217 bytes"),
            "{error}"
        );
    }
}

#[test]
fn an_interrupted_download_resumes_where_it_ended() {
    let setup = Setup::new();
    setup.commit("org/support", FIRST, 1);
    let [config, weights] = Setup::files(1);
    setup.web.put("/plain/support/adapter_config.json", &config);
    setup
        .web
        .put("/plain/support/adapter_model.safetensors", &weights);
    for at in [hub("org/support"), setup.at("/plain/support")] {
        // The configuration comes first.
        setup.web.cut(10);
        let fetched = setup.fetcher().fetch(&at, None, &WANTED).unwrap();
        assert_eq!(fs::read(fetched.folder.join(CONFIG)).unwrap(), config);
        assert_eq!(fs::read(fetched.folder.join(WEIGHTS)).unwrap(), weights);
        let requests = setup.web.requests();
        assert!(
            requests.iter().any(|request| request.contains("bytes=10-")),
            "{requests:?}"
        );
    }
}

#[test]
fn progress_is_reported_up_to_the_whole_file() {
    let setup = Setup::new();
    setup.commit("org/support", FIRST, 1);
    let [config, weights] = Setup::files(1);
    setup.web.put("/a/adapter_config.json", &config);
    setup.web.put("/a/adapter_model.safetensors", &weights);
    for at in [hub("org/support"), setup.at("/a")] {
        let told = Mutex::new(Vec::new());
        let progress =
            |name: &str, done: u64, total: u64| told.lock().unwrap().push((name.to_owned(), done, total));
        setup
            .fetcher()
            .fetch_with_progress(&at, None, &WANTED, &progress)
            .unwrap();
        let told = told.into_inner().unwrap();
        let size = weights.len() as u64;
        let last = ("adapter_model.safetensors".to_owned(), size, size);
        assert!(told.contains(&last), "{told:?}");
        assert!(told.iter().all(|(_, done, total)| done <= total), "{told:?}");
    }
}

#[test]
fn a_damaged_download_is_neither_returned_nor_kept() {
    let setup = Setup::new();
    setup.commit("org/support", FIRST, 1);
    let fetcher = setup.fetcher();
    setup.web.spoil("adapter_model.safetensors");
    let error = fetcher
        .fetch(&hub("org/support"), None, &WANTED)
        .unwrap_err()
        .to_string();
    assert!(error.contains("SHA-256"), "{error}");
    let fetched = fetcher.fetch(&hub("org/support"), None, &WANTED).unwrap();
    assert_eq!(
        fs::read(fetched.folder.join(WEIGHTS)).unwrap(),
        Setup::files(1)[1]
    );
}

#[test]
fn a_repository_with_pickled_weights_alone_is_refused() {
    let setup = Setup::new();
    let [config, weights] = Setup::files(1);
    setup.web.commit(
        "org/support",
        FIRST,
        &[(CONFIG, &config), ("adapter_model.bin", &weights)],
    );
    let error = setup
        .fetcher()
        .fetch(&hub("org/support"), None, &WANTED)
        .unwrap_err()
        .to_string();
    assert!(error.contains("holds no adapter_model.safetensors"), "{error}");
    assert_eq!(setup.downloads(), [] as [&str; 0]);
}

#[test]
fn private_repositories_need_the_token_and_errors_do_not_reveal_it() {
    let setup = Setup::new();
    setup.commit("org/support", FIRST, 1);
    setup.web.require("hf_secret");
    let error = setup
        .fetcher()
        .fetch(&hub("org/support"), None, &WANTED)
        .unwrap_err()
        .to_string();
    assert!(error.contains("HF_TOKEN"), "{error}");
    let hub_with = Hub::at(&setup.web.url(), Some("hf_secret"), setup.dir.path().join("hub"));
    assert!(!format!("{hub_with:?}").contains("secret"));
    assert!(
        setup
            .fetcher_of(hub_with)
            .fetch(&hub("org/support"), None, &WANTED)
            .is_ok()
    );
}

#[test]
fn a_web_folder_is_fetched_again_only_when_it_has_changed() {
    let setup = Setup::new();
    let put = |alpha| {
        let [config, weights] = Setup::files(alpha);
        setup.web.put("/a/support/adapter_config.json", &config);
        setup.web.put("/a/support/adapter_model.safetensors", &weights);
    };
    put(1);
    let (fetcher, at) = (setup.fetcher(), setup.at("/a/support/"));
    let first = fetcher.fetch(&at, None, &WANTED).unwrap();
    assert_eq!(setup.downloads().len(), 2);
    assert_eq!(fetcher.fetch(&at, None, &WANTED).unwrap(), first);
    assert_eq!(setup.downloads(), [] as [&str; 0]);
    put(2);
    let second = fetcher.fetch(&at, None, &WANTED).unwrap();
    assert_ne!(second.folder, first.folder);
    // The first is still here for whoever had it.
    setup.web.requests();
    assert_eq!(
        fetcher.fetch(&at, first.revision.as_deref(), &WANTED).unwrap(),
        first
    );
    assert_eq!(setup.web.requests(), [] as [&str; 0]);
    let error = fetcher
        .fetch(&setup.at("/none"), None, &WANTED)
        .unwrap_err()
        .to_string();
    assert!(error.contains("adapter_config.json"), "{error}");
}

#[test]
fn no_reference_or_redirect_reaches_the_local_network() {
    let setup = Setup::new();
    let [config, weights] = Setup::files(1);
    setup.web.put("/a/adapter_config.json", &config);
    setup.web.put("/a/adapter_model.safetensors", &weights);
    let inner = WebServer::start();
    inner.put("/adapter_config.json", &config);
    let untrusting = |hosts: &[&str]| {
        Fetcher::new(FetchOptions {
            cache: setup.dir.path().join("cache"),
            cache_limit: u64::MAX,
            trusted_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            hub: setup.hub(),
        })
    };
    // An address, a name that leads to one, and a redirection from a host that may be anywhere.
    let port = setup.web.url().rsplit(':').next().unwrap().to_owned();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let at = Reference::parse(&format!("http://{host}:{port}/a")).unwrap();
        let error = untrusting(&[]).fetch(&at, None, &WANTED).unwrap_err().to_string();
        assert!(
            error.contains("no public address") || error.contains("not a public address"),
            "{error}"
        );
    }
    setup.web.redirect(
        "/b/adapter_config.json",
        &inner.url().replace("127.0.0.1", "127.0.0.2"),
    );
    setup.web.requests();
    let error = untrusting(&["127.0.0.1"])
        .fetch(&setup.at("/b"), None, &WANTED)
        .unwrap_err()
        .to_string();
    assert!(error.contains("redirect"), "{error}");
    assert_eq!(inner.requests(), [] as [&str; 0]);
    assert!(
        untrusting(&["127.0.0.1"])
            .fetch(&setup.at("/a"), None, &WANTED)
            .is_ok()
    );
}
