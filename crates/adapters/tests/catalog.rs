//! Names and the adapters that they stand for.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::cell::Cell;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use common::{Adapter, base, message};
use multigraft_adapters::{AdapterError, Catalog, Entry, Source};
use multigraft_model::{AdapterWeights, ModelError, PackedAdapter};

fn source(name: &str, folder: &Path) -> Source {
    Source {
        name: name.to_owned(),
        folder: folder.to_owned(),
    }
}

fn add(catalog: &mut Catalog, name: &str, folder: &Path) -> Result<Arc<Entry>, AdapterError> {
    catalog.add(&source(name, folder), &base(false), |weights| {
        Ok(PackedAdapter::empty(weights.hash))
    })
}

#[test]
fn a_name_finds_its_adapter_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    Adapter::good().write(dir.path());
    let mut catalog = Catalog::new("acme/tiny");
    let entry = add(&mut catalog, "support", dir.path()).unwrap();
    assert_eq!(
        (entry.name.as_str(), entry.path.as_path()),
        ("support", dir.path())
    );
    assert_eq!(entry.hash, entry.packed.hash());
    assert_eq!(catalog.get("support").unwrap().hash, entry.hash);
    for other in ["", "acme/tiny", "Support", "support ", "suppor"] {
        assert!(catalog.get(other).is_none(), "{other}");
    }
    assert_eq!(catalog.base(), "acme/tiny");
    assert_eq!(catalog.entries().len(), 1);
}

#[test]
fn the_same_files_are_packed_once_and_shared() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, other) = (
        dir.path().join("one"),
        dir.path().join("two"),
        dir.path().join("other"),
    );
    Adapter::good().write(&one);
    Adapter::good().write(&two);
    let mut changed = Adapter::good();
    changed.config["lora_alpha"] = 8.into();
    changed.write(&other);
    let packed = Cell::new(0);
    let pack = |weights: &AdapterWeights| -> Result<PackedAdapter, ModelError> {
        packed.set(packed.get() + 1);
        Ok(PackedAdapter::empty(weights.hash))
    };
    let mut catalog = Catalog::new("base");
    for folder in [&one, &two, &other] {
        let name = folder.file_name().unwrap().to_str().unwrap();
        catalog.add(&source(name, folder), &base(false), pack).unwrap();
    }
    let [one, two, other] = ["one", "two", "other"].map(|name| catalog.get(name).unwrap());
    assert!(Arc::ptr_eq(&one.packed, &two.packed) && one.hash == two.hash);
    assert!(one.hash != other.hash && !Arc::ptr_eq(&one.packed, &other.packed));
    assert_eq!(packed.get(), 2);
}

#[test]
fn what_cannot_be_served_is_named_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad, again) = (
        dir.path().join("good"),
        dir.path().join("bad"),
        dir.path().join("again"),
    );
    Adapter::good().write(&good);
    Adapter::good().write(&again);
    let mut spoilt = Adapter::good();
    spoilt.reshape("0.self_attn.q_proj.lora_A.weight", &[2, 5]);
    spoilt.write(&bad);
    let mut catalog = Catalog::new("acme/tiny");
    add(&mut catalog, "support", &good).unwrap();
    let mut text = String::new();
    let long = "é".repeat(65);
    for (name, folder) in [
        ("bad", bad.as_path()),
        ("missing", &dir.path().join("missing")),
        ("support", &again),
        ("acme/tiny", &good),
        ("tgi", &good),
        ("", &good),
        (" support", &good),
        ("new\nline", &good),
        (&long, &good),
    ] {
        let error = add(&mut catalog, name, folder).unwrap_err();
        writeln!(text, "{}", message(&error, dir.path())).unwrap();
    }
    let pack = |_: &AdapterWeights| Err(ModelError::AdapterMismatch("layer 0".to_owned()));
    spoilt = Adapter::good();
    spoilt.config["lora_alpha"] = 1.into();
    spoilt.write(&bad);
    let error = catalog
        .add(&source("unpacked", &bad), &base(false), pack)
        .unwrap_err();
    writeln!(text, "{}", message(&error, dir.path())).unwrap();
    insta::assert_snapshot!(text);
    assert_eq!(catalog.entries().len(), 1);
    assert!(catalog.get("bad").is_none() && catalog.get("unpacked").is_none());
}

#[test]
fn names_with_slashes_dots_and_letters_of_any_script_are_served() {
    let dir = tempfile::tempdir().unwrap();
    Adapter::good().write(dir.path());
    let mut catalog = Catalog::new("base");
    let long = "x".repeat(128);
    for name in [
        "acme/support",
        "support-v1.2",
        "поддержка",
        "two words",
        "..",
        &long,
    ] {
        add(&mut catalog, name, dir.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn a_folder_of_folders_is_a_list_of_adapters() {
    let dir = tempfile::tempdir().unwrap();
    let (outside, folder) = (dir.path().join("outside"), dir.path().join("adapters"));
    Adapter::good().write(&outside);
    for name in ["support", "billing"] {
        Adapter::good().write(&folder.join(name));
    }
    std::fs::create_dir(folder.join("notes")).unwrap();
    std::fs::write(folder.join("README.md"), "not an adapter").unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&outside, folder.join("link")).unwrap();
        std::os::unix::fs::symlink(folder.join("support"), folder.join("alias")).unwrap();
    }
    let found = Source::in_folder(&folder).unwrap();
    let names: Vec<&str> = found.sources.iter().map(|source| source.name.as_str()).collect();
    let expected: &[&str] = if cfg!(unix) {
        &["alias", "billing", "support"]
    } else {
        &["billing", "support"]
    };
    assert_eq!(names, expected);
    assert_eq!(found.sources.last().unwrap().folder, folder.join("support"));
    let skipped = found.skipped.join("\n");
    assert_eq!(skipped.contains("leads out"), cfg!(unix), "{skipped}");
    assert!(
        skipped.contains("notes") && skipped.contains("adapter_config.json"),
        "{skipped}"
    );
    assert!(!skipped.contains("README"), "{skipped}");
    assert!(Source::in_folder(&folder.join("none")).is_err());
}
