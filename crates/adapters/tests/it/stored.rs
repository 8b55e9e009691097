//! What survives a restart.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use multigraft_adapters::{
    AdapterLimits, AddedBy, Adding, Entry, LoadError, Lookup, OpenError, Outcome, Packer, Registry,
    RegistryOptions, Residency, Source,
};
use multigraft_model::{AdapterHash, ReadyAdapter};
use multigraft_sources::Reference;

use crate::support::{Adapter, base};

fn open(data: &Path) -> Result<Registry, OpenError> {
    open_as("acme/tiny", data)
}

/// A registry whose base is called `base_name`.
fn open_as(base_name: &str, data: &Path) -> Result<Registry, OpenError> {
    let packer = Packer {
        shape: base(),
        self_test: None,
        size: Box::new(|_| 16),
        pack: Box::new(|weights, _| Ok(ReadyAdapter::new(weights.hash, 100, Arc::new(())))),
    };
    let options = RegistryOptions {
        data: Some(data.to_owned()),
        ..RegistryOptions::default()
    };
    Registry::open(base_name, packer, options)
}

fn write(folder: PathBuf, alpha: u32) -> PathBuf {
    let mut adapter = Adapter::good();
    adapter.config["lora_alpha"] = alpha.into();
    adapter.write(&folder);
    folder
}

fn add(registry: &Registry, name: &str, folder: &Path) -> Outcome {
    let source = Source {
        name: name.to_owned(),
        at: Reference::Folder(folder.to_owned()),
    };
    let adding = Adding {
        replace: true,
        pinned: None,
        ..Adding::default()
    };
    registry.add(&source, adding).unwrap().block()
}

fn get(registry: &Registry, name: &str) -> Entry {
    match registry.get(name) {
        Lookup::Ready(entry) => entry,
        Lookup::Loading(waiting) => waiting.block().unwrap(),
        other => panic!("{name}: {other:?}"),
    }
}

/// Names, the hashes of their versions, the active version, and pins.
fn state(registry: &Registry) -> Vec<(String, Vec<Option<AdapterHash>>, usize, bool)> {
    let listed = registry.list().into_iter();
    listed
        .map(|listed| {
            let active = listed.versions.iter().position(|version| version.active).unwrap();
            let hashes = listed.versions.iter().map(|version| version.hash).collect();
            (listed.name, hashes, active, listed.pinned)
        })
        .collect()
}

#[test]
fn names_versions_and_pins_survive_and_their_files_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let (data, source) = (dir.path().join("data"), dir.path().join("source"));
    let registry = open(&data).unwrap();
    let mut hashes = Vec::new();
    for alpha in 1..4 {
        // Repeatedly from the same folder, as training writes it.
        write(source.clone(), alpha);
        hashes.push(add(&registry, "a", &source).unwrap().hash);
    }
    add(&registry, "b", &source).unwrap();
    add(&registry, "gone", &source).unwrap();
    registry.remove("gone").unwrap();
    registry.pin("b", true).unwrap();
    let defaults: serde_json::Map<_, _> = [("temperature".to_owned(), 0.5.into())].into_iter().collect();
    registry.set_defaults("b", defaults.clone()).unwrap();
    let limits = AdapterLimits {
        weight: 2.5,
        requests_per_minute: NonZeroU32::new(60),
        ..AdapterLimits::default()
    };
    registry.set_limits("b", limits).unwrap();
    registry.activate("a", Some(hashes[0])).unwrap();
    let before = state(&registry);
    std::fs::remove_dir_all(&source).unwrap();
    drop(registry);

    let registry = open(&data).unwrap();
    assert_eq!(state(&registry), before);
    assert_eq!(before[0].1, hashes.iter().copied().map(Some).collect::<Vec<_>>());
    assert_eq!(get(&registry, "a").hash, hashes[0]);
    assert_eq!(get(&registry, "a").at, Reference::Folder(source));
    registry.activate("a", Some(hashes[1])).unwrap();
    assert_eq!(
        get(&registry, "a").hash,
        hashes[1],
        "files of an earlier version are kept"
    );
    assert_eq!(get(&registry, "b").hash, hashes[2]);
    assert_eq!(registry.defaults("b").as_deref(), Some(&defaults));
    assert_eq!(registry.defaults("a"), None);
    assert_eq!(registry.limits("b"), limits);
    assert_eq!(registry.limits("a"), AdapterLimits::default());
}

#[test]
fn what_an_adapter_says_that_it_should_answer_is_kept_with_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let (data, source) = (dir.path().join("data"), dir.path().join("source"));
    write(source.clone(), 1);
    let registry = open(&data).unwrap();
    for reference in ["{}", "{\"prompt\": [1]}"] {
        std::fs::write(source.join("reference.json"), reference).unwrap();
        let adding = Adding {
            replace: true,
            ..Adding::default()
        };
        let from = Source {
            name: "a".to_owned(),
            at: Reference::Folder(source.clone()),
        };
        let hash = registry.add(&from, adding).unwrap().block().unwrap().hash;
        let kept = data
            .join("adapters")
            .join(hash.to_string())
            .join("reference.json");
        assert_eq!(std::fs::read_to_string(kept).unwrap(), reference);
    }
}

#[test]
fn data_of_every_earlier_version_is_read_and_brought_up_to_date() {
    /// From each version of the tables back to the one before, the newest first.
    const BACK: [&str; 4] = [
        "ALTER TABLE version DROP COLUMN info; ALTER TABLE version DROP COLUMN added_by; PRAGMA user_version = 4;",
        "ALTER TABLE adapter DROP COLUMN limits; PRAGMA user_version = 3;",
        "ALTER TABLE adapter DROP COLUMN defaults; PRAGMA user_version = 2;",
        "ALTER TABLE version DROP COLUMN revision; PRAGMA user_version = 1;",
    ];
    for steps in 1..=BACK.len() {
        let dir = tempfile::tempdir().unwrap();
        let (data, source) = (dir.path().join("data"), dir.path().join("source"));
        write(source.clone(), 1);
        let hash = add(&open(&data).unwrap(), "a", &source).unwrap().hash;
        let database = rusqlite::Connection::open(data.join("registry.sqlite")).unwrap();
        database.execute_batch(&BACK[..steps].concat()).unwrap();
        drop(database);
        for loaded_before in [false, true] {
            let registry = open(&data).unwrap();
            let listed = registry.listed("a").unwrap();
            let version = &listed.versions[0];
            assert_eq!((version.added_by, version.info.is_some()), (None, loaded_before));
            assert_eq!(get(&registry, "a").hash, hash);
        }
    }
}

#[test]
fn what_was_found_of_an_adapter_is_known_while_it_is_cold() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let registry = open(&data).unwrap();
    let entry = add(&registry, "a", &write(dir.path().join("1"), 1)).unwrap();
    let other = add(&registry, "a", &write(dir.path().join("2"), 2)).unwrap();
    drop(registry);

    let registry = open(&data).unwrap();
    let listed = registry.listed("a").unwrap();
    assert!(matches!(listed.residency, Residency::Cold));
    let known: Vec<_> = listed
        .versions
        .iter()
        .map(|version| version.info.clone())
        .collect();
    assert_eq!(known, [Some(entry.info), Some(other.info)]);
    let by: Vec<_> = listed.versions.iter().map(|version| version.added_by).collect();
    assert_eq!(by, [Some(AddedBy::Http); 2]);

    // Facts that cannot be parsed are treated as unknown.
    drop(registry);
    let database = rusqlite::Connection::open(data.join("registry.sqlite")).unwrap();
    let damage = "UPDATE version SET info = '{}', added_by = 'nobody'";
    database.execute_batch(damage).unwrap();
    drop(database);
    let registry = open(&data).unwrap();
    let version = registry.listed("a").unwrap().versions.remove(0);
    assert_eq!((version.info, version.added_by), (None, None));
}

#[test]
fn what_was_given_at_the_start_goes_before_what_was_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (data, first, second) = (
        dir.path().join("data"),
        write(dir.path().join("first"), 1),
        write(dir.path().join("second"), 2),
    );
    let registry = open(&data).unwrap();
    let stored = add(&registry, "a", &first).unwrap().hash;
    drop(registry);
    let registry = open(&data).unwrap();
    let given = || Source {
        name: "a".to_owned(),
        at: Reference::Folder(second.clone()),
    };
    assert!(registry.register(given()).unwrap());
    assert!(registry.register(given()).is_err(), "given twice");
    assert_ne!(get(&registry, "a").hash, stored);
    // Versions added to a name of the command line are not stored either.
    add(&registry, "a", &write(dir.path().join("third"), 3)).unwrap();
    drop(registry);
    assert_eq!(get(&open(&data).unwrap(), "a").hash, stored);
}

#[test]
fn what_nothing_names_is_swept_away_and_what_is_named_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let source = write(dir.path().join("source"), 1);
    let registry = open(&data).unwrap();
    let hash = add(&registry, "a", &source).unwrap().hash;
    // A file that was being written when the power failed, and one of a version that no name has.
    for left in [format!("{hash}.new"), AdapterHash([7; 32]).to_string()] {
        std::fs::create_dir(data.join("adapters").join(left)).unwrap();
    }
    drop(registry);
    let registry = open(&data).unwrap();
    let files: Vec<String> = std::fs::read_dir(data.join("adapters"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files, [hash.to_string()]);
    get(&registry, "a");
}

#[test]
fn an_adapter_that_cannot_be_served_leaves_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut spoilt = Adapter::good();
    spoilt.reshape("0.self_attn.q_proj.lora_A.weight", &[2, 5]);
    let source = dir.path().join("source");
    spoilt.write(&source);
    let registry = open(&data).unwrap();
    assert!(matches!(add(&registry, "a", &source), Err(LoadError::Failed(_))));
    assert_eq!(std::fs::read_dir(data.join("adapters")).unwrap().count(), 0);
    drop(registry);
    assert!(open(&data).unwrap().names().is_empty());
}

#[test]
fn files_that_were_tampered_with_are_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let source = write(dir.path().join("source"), 1);
    let registry = open(&data).unwrap();
    let hash = add(&registry, "a", &source).unwrap().hash;
    drop(registry);
    write(data.join("adapters").join(hash.to_string()), 2);
    let registry = open(&data).unwrap();
    let Lookup::Loading(waiting) = registry.get("a") else {
        panic!("it was in memory")
    };
    let error = waiting.block().unwrap_err();
    assert!(error.to_string().contains("have changed"), "{error}");
}

#[test]
fn a_data_folder_is_one_servers_alone() {
    let dir = tempfile::tempdir().unwrap();
    let registry = open(dir.path()).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(
        error.to_string().contains("is in use by another server"),
        "{error}"
    );
    drop(registry);
    open(dir.path()).unwrap();
}

#[test]
fn the_oldest_version_that_is_remembered_can_be_added_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let registry = open(&data).unwrap();
    let folders: Vec<PathBuf> = (1..18)
        .map(|alpha| write(dir.path().join(alpha.to_string()), alpha))
        .collect();
    let hashes: Vec<AdapterHash> = folders
        .iter()
        .map(|folder| add(&registry, "a", folder).unwrap().hash)
        .collect();
    let before = state(&registry);
    assert_eq!(before[0].1.len(), 16);
    assert_eq!(before[0].1[0], Some(hashes[1]));
    registry.activate("a", Some(hashes[1])).unwrap();
    add(&registry, "a", &folders[1]).unwrap();
    assert_eq!(state(&registry)[0].1, before[0].1);
    drop(registry);
    let registry = open(&data).unwrap();
    assert_eq!(state(&registry)[0].1, before[0].1);
    assert_eq!(get(&registry, "a").hash, hashes[1]);
}

#[test]
fn a_stored_adapter_that_is_called_as_the_base_is_by_now_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let source = write(dir.path().join("source"), 1);
    let data = dir.path().join("data");
    let registry = open(&data).unwrap();
    add(&registry, "support", &source).unwrap();
    drop(registry);
    let registry = open_as("support", &data).unwrap();
    assert!(registry.names().is_empty());
    drop(registry);
    get(&open(&data).unwrap(), "support");
}

#[test]
fn files_that_were_damaged_are_mended_when_the_adapter_is_added_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let source = write(dir.path().join("source"), 1);
    let registry = open(&data).unwrap();
    let hash = add(&registry, "a", &source).unwrap().hash;
    drop(registry);
    let kept = data.join("adapters").join(hash.to_string());
    std::fs::write(kept.join("adapter_model.safetensors"), b"damaged").unwrap();
    let registry = open(&data).unwrap();
    add(&registry, "a", &source).unwrap();
    drop(registry);
    assert_eq!(get(&open(&data).unwrap(), "a").hash, hash);
}

#[test]
fn a_removed_name_is_not_what_was_stored_under_it_before() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let folders = [1, 2, 3].map(|alpha| write(dir.path().join(alpha.to_string()), alpha));
    let registry = open(&data).unwrap();
    for folder in &folders[..2] {
        add(&registry, "a", folder).unwrap();
    }
    drop(registry);
    let registry = open(&data).unwrap();
    let given = Source {
        name: "a".to_owned(),
        at: Reference::Folder(folders[0].clone()),
    };
    registry.register(given).unwrap();
    registry.remove("a").unwrap();
    let hash = add(&registry, "a", &folders[2]).unwrap().hash;
    drop(registry);
    let registry = open(&data).unwrap();
    assert_eq!(state(&registry), [("a".to_owned(), vec![Some(hash)], 0, false)]);
}

#[test]
fn an_upload_survives_and_what_never_arrived_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let registry = open(&data).unwrap();
    let mut hashes = Vec::new();
    for alpha in 1..3 {
        let upload = registry.upload("a", true).unwrap();
        write(upload.folder().to_owned(), alpha);
        let adding = Adding {
            replace: true,
            ..Adding::default()
        };
        let added = registry.add(&upload.source(), adding).unwrap().block();
        hashes.push(added.unwrap().hash);
    }
    // As a crash leaves it.
    let crashed = registry.upload("b", false).unwrap();
    write(crashed.folder().to_owned(), 3);
    let left = data.join("adapters/upload-left");
    std::fs::rename(crashed.folder(), &left).unwrap();
    drop((crashed, registry));

    let registry = open(&data).unwrap();
    assert!(!left.exists());
    let listed = registry.listed("a").unwrap();
    let sources: Vec<_> = listed
        .versions
        .iter()
        .map(|version| version.source.to_string())
        .collect();
    assert_eq!(sources, ["upload", "upload"]);
    assert_eq!(get(&registry, "a").hash, hashes[1]);
    assert_eq!(registry.activate("a", None).unwrap(), hashes[0]);
    assert_eq!(get(&registry, "a").hash, hashes[0]);
    assert!(!registry.contains("b"));
}
