//! Folders of adapters, with GGUF files among them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use multigraft_adapters::{Adding, Lookup, Packer, Registry, RegistryOptions, Source, adapter_files_in};
use multigraft_model::{Config, ModelFiles, ReadyAdapter};
use multigraft_peft::BaseShape;
use multigraft_sources::{AllowedSource, AllowedSources, Reference};
use tempfile::tempdir;

/// An adapter that llama.cpp's converter wrote.
fn gguf() -> PathBuf {
    multigraft_testing::fixtures().join("gguf_adapters/llama/qv_r4.f32.gguf")
}

/// Its base.
fn config() -> Config {
    let model = multigraft_testing::fixtures().join("peft/llama/model");
    ModelFiles::open(&model).unwrap().config().unwrap()
}

#[test]
fn folders_of_adapters_hold_files_too() {
    let dir = tempdir().unwrap();
    let adapter = gguf();
    fs::copy(&adapter, dir.path().join("billing.gguf")).unwrap();
    fs::create_dir(dir.path().join("support")).unwrap();
    fs::copy(&adapter, dir.path().join("support/some-name.gguf")).unwrap();
    fs::copy(
        multigraft_testing::fixtures().join("gguf/llama.gguf"),
        dir.path().join("base.gguf"),
    )
    .unwrap();
    let found = Source::in_folder(dir.path()).unwrap();
    let names: Vec<&str> = found.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["billing", "support"]);
    assert!(found.skipped[0].contains("base.gguf"), "{:?}", found.skipped);
    // Converted files often lie beside the folder that they were converted from.
    fs::create_dir(dir.path().join("billing")).unwrap();
    fs::copy(&adapter, dir.path().join("billing/adapter.gguf")).unwrap();
    let found = Source::in_folder(dir.path()).unwrap();
    let at: Vec<&Path> = found
        .sources
        .iter()
        .filter_map(|source| source.at.folder())
        .collect();
    assert!(at.contains(&dir.path().join("billing").as_path()), "{at:?}");
    assert!(
        found.skipped.iter().any(|skipped| skipped.contains("goes first")),
        "{:?}",
        found.skipped
    );
    fs::remove_dir_all(dir.path().join("billing")).unwrap();

    let allowed = AllowedSources::new(&[AllowedSource::Folder(dir.path().to_owned())]).unwrap();
    let file = dir.path().join("billing.gguf");
    assert_eq!(
        allowed.resolve(file.to_str().unwrap(), adapter_files_in).unwrap(),
        Reference::Folder(file.canonicalize().unwrap())
    );
    assert!(
        allowed
            .resolve(adapter.to_str().unwrap(), adapter_files_in)
            .is_err()
    );
    #[cfg(unix)]
    {
        fs::create_dir(dir.path().join("sly")).unwrap();
        std::os::unix::fs::symlink(&adapter, dir.path().join("sly/link.gguf")).unwrap();
        assert!(
            allowed
                .resolve(dir.path().join("sly").to_str().unwrap(), adapter_files_in)
                .is_err()
        );
    }
}

#[test]
fn a_file_added_while_the_server_runs_is_there_after_a_restart() {
    let dir = tempdir().unwrap();
    let open = || {
        let packer = Packer {
            self_test: None,
            shape: BaseShape::new(&config()),
            size: Box::new(|_| 16),
            pack: Box::new(|weights, _| Ok(ReadyAdapter::new(weights.hash, 100, Arc::new(())))),
        };
        let data = Some(dir.path().join("data"));
        Registry::open(
            "llama",
            packer,
            RegistryOptions {
                data,
                ..RegistryOptions::default()
            },
        )
        .unwrap()
    };
    let file = dir.path().join("adapter.gguf");
    fs::copy(gguf(), &file).unwrap();
    let source = Source {
        name: "support".to_owned(),
        at: Reference::Folder(file),
    };
    let registry = open();
    let adding = Adding {
        replace: false,
        pinned: None,
        ..Adding::default()
    };
    let hash = registry.add(&source, adding).unwrap().block().unwrap().hash;
    drop(registry);
    fs::remove_file(source.at.folder().unwrap()).unwrap();
    let entry = match open().get("support") {
        Lookup::Loading(waiting) => waiting.block().unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(entry.hash, hash);
}
