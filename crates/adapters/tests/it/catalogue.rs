//! A catalogue other than SQLite: the `Catalogue` trait is all that the registry needs.

use std::sync::{Arc, Mutex};

use multigraft_adapters::{
    AdapterLimits, Adding, Catalogue, CataloguedName, CataloguedVersion, RegistryOptions, Settings,
    StoreError,
};
use multigraft_peft::AdapterInfo;

use crate::support::{Fixture, source};

/// A catalogue in memory.
#[derive(Debug, Default)]
struct InMemory(Mutex<Vec<CataloguedName>>);

impl InMemory {
    fn change(&self, name: &str, change: impl FnOnce(&mut CataloguedName)) -> Result<(), StoreError> {
        let mut names = self.0.lock().unwrap();
        change(names.iter_mut().find(|known| known.name == name).unwrap());
        Ok(())
    }
}

impl Catalogue for InMemory {
    fn names(&self) -> Result<Vec<CataloguedName>, StoreError> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn add(
        &self,
        name: &str,
        pinned: bool,
        version: &CataloguedVersion,
        oldest: u32,
        settings: &Settings,
    ) -> Result<(), StoreError> {
        let mut names = self.0.lock().unwrap();
        if names.iter().all(|known| known.name != name) {
            names.push(CataloguedName {
                name: name.to_owned(),
                pinned,
                defaults: None,
                limits: None,
                active: version.number,
                versions: Vec::new(),
            });
        }
        drop(names);
        self.change(name, |known| {
            let versions = &mut known.versions;
            versions.retain(|other| other.number >= oldest && other.number != version.number);
            versions.push(version.clone());
            versions.sort_by_key(|version| version.number);
            known.pinned = pinned;
            known.active = version.number;
        })?;
        self.set(name, settings)
    }

    fn set_info(&self, name: &str, number: u32, info: &AdapterInfo) -> Result<(), StoreError> {
        self.change(name, |known| {
            let mut versions = known.versions.iter_mut();
            let version = versions.find(|version| version.number == number);
            version.unwrap().info = Some(Arc::new(info.clone()));
        })
    }

    fn activate(&self, name: &str, number: u32) -> Result<(), StoreError> {
        self.change(name, |known| known.active = number)
    }

    fn pin(&self, name: &str, pinned: bool) -> Result<(), StoreError> {
        self.change(name, |known| known.pinned = pinned)
    }

    fn set(&self, name: &str, settings: &Settings) -> Result<(), StoreError> {
        self.change(name, |known| {
            known.defaults = settings.defaults.clone().or(known.defaults.take());
            known.limits = settings.limits.or(known.limits);
        })
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.0.lock().unwrap().retain(|known| known.name != name);
        Ok(())
    }
}

#[test]
fn what_one_registry_writes_another_reads() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = Arc::new(InMemory::default());
    let open = || {
        let options = RegistryOptions {
            data: Some(dir.path().to_owned()),
            catalogue: Some(Arc::clone(&catalogue) as Arc<dyn Catalogue>),
            ..RegistryOptions::default()
        };
        Fixture::with(options, None)
    };
    let first = open();
    let folder = first.write("files", 1);
    let added = first.registry.add(&source("kept", &folder), Adding::default());
    let hash = added.unwrap().block().unwrap().hash;
    let newer = first.replace("kept", &first.write("newer", 2)).unwrap();
    assert_eq!(first.registry.activate("kept", None).unwrap(), hash);
    first.registry.pin("kept", true).unwrap();
    let limits = AdapterLimits {
        weight: 2.0,
        ..AdapterLimits::default()
    };
    first.registry.set_limits("kept", limits).unwrap();
    first.replace("removed", &folder).unwrap();
    first.registry.remove("removed").unwrap();

    let second = open();
    assert_eq!(second.registry.names(), ["kept"]);
    let listed = second.registry.listed("kept").unwrap();
    let hashes: Vec<_> = listed.versions.iter().map(|version| version.hash).collect();
    assert_eq!(hashes, [Some(hash), Some(newer.hash)]);
    assert_eq!(listed.active().unwrap().hash, Some(hash));
    assert!(listed.pinned && listed.stored);
    assert_eq!(listed.limits, limits);
    // Requests and residency belong to each registry.
    assert_eq!((listed.requests, second.is_resident("kept")), (0, false));
    assert_eq!(second.get("kept").unwrap().hash, hash);
}
