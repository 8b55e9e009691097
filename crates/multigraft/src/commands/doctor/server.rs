//! Where the server listens, who may ask it, and what it keeps.

use std::{io::ErrorKind, net::TcpListener, path::Path};

use anyhow::Result;
use multigraft_access::Store;
use multigraft_sources::AllowedSource;

use super::{Findings, machine::writable};
use crate::config::ServerSettings;

/// Whether its port is free.
pub(super) fn address(settings: &ServerSettings, findings: &mut Findings) {
    const CHECK: &str = "port";
    let address = settings.address();
    match TcpListener::bind(address) {
        Ok(_) => findings.ok(CHECK, format!("{address} is free")),
        Err(error) => {
            let advice = match error.kind() {
                ErrorKind::AddrInUse => "another program listens there: end it, or take another --port",
                ErrorKind::PermissionDenied => "ports below 1024 want rights: --port 8080",
                ErrorKind::AddrNotAvailable => {
                    "this machine has no such address: --host 127.0.0.1 or 0.0.0.0"
                }
                _ => "take another --host or --port",
            };
            findings.fail(CHECK, format!("cannot listen on {address}: {error}"), advice);
        }
    }
}

/// Whether what is to survive can be kept.
pub(super) fn data(settings: &ServerSettings, findings: &mut Findings) {
    const CHECK: &str = "data";
    let Some(folder) = &settings.data else {
        if settings.allow_source.contains(&AllowedSource::Upload) {
            findings.fail(
                CHECK,
                "clients may upload adapters, but there is no folder for them",
                "--data FOLDER",
            );
        }
        return;
    };
    let there = folder
        .ancestors()
        .find(|folder| folder.exists() || folder.as_os_str().is_empty());
    let there = match there {
        Some(there) if there.as_os_str().is_empty() => Path::new("."),
        Some(there) => there,
        None => Path::new("/"),
    };
    if let Err(error) = writable(there) {
        let found = format!("nothing can be written to {}: {error}", there.display());
        return findings.fail(CHECK, found, "let the user that serves own it");
    }
    if there != folder {
        return findings.ok(CHECK, format!("{} will be made", folder.display()));
    }
    match others_may_write(folder) {
        true => findings.warn(
            CHECK,
            format!(
                "everybody on this machine may write to {}, where keys and adapters are",
                folder.display()
            ),
            format!("chmod o-w {}", folder.display()),
        ),
        false => findings.ok(CHECK, format!("{} can be written to", folder.display())),
    }
}

#[cfg(unix)]
fn others_may_write(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    folder.metadata().is_ok_and(|folder| folder.mode() & 0o002 != 0)
}

#[cfg(not(unix))]
fn others_may_write(_: &Path) -> bool {
    false
}

/// Whether those who reach it are those who should.
pub(super) fn access(settings: &ServerSettings, findings: &mut Findings) {
    const CHECK: &str = "access";
    let keys = match settings.data.as_deref().map_or(Ok(0), keys) {
        Ok(keys) => keys,
        Err(error) => return findings.fail(CHECK, format!("{error:#}"), "see docs/access.md"),
    };
    let ip = settings.address().ip();
    match (ip.is_loopback(), keys, settings.no_auth) {
        (true, 0, _) => findings.ok(CHECK, "this machine alone, without keys"),
        (true, keys, _) => findings.ok(CHECK, format!("this machine alone, with {keys} keys")),
        (false, 0, false) => findings.fail(
            CHECK,
            format!("{ip} can be reached from other machines, and there are no API keys"),
            "multigraft keys add NAME --data FOLDER, and serve with --data FOLDER",
        ),
        (false, 0, true) => findings.warn(
            CHECK,
            format!("{ip} can be reached from other machines, and everybody may do everything (--no-auth)"),
            "multigraft keys add NAME --data FOLDER, unless something before the server decides who may ask",
        ),
        (false, keys, _) if settings.tls().is_some() => {
            findings.ok(CHECK, format!("{ip} with {keys} keys, over TLS"));
        }
        (false, keys, _) => findings.warn(
            CHECK,
            format!("{keys} keys, which pass the network in the clear: the server speaks plain HTTP on {ip}"),
            "--tls-cert and --tls-key; or a proxy with TLS before it, and --host 127.0.0.1 if it runs on this machine",
        ),
    }
}

/// How many keys a data folder has.
fn keys(folder: &Path) -> Result<usize> {
    // Opening a store would begin one.
    match folder.join(multigraft_access::FILE).exists() {
        true => Ok(Store::open(folder)?.keys()?.len()),
        false => Ok(0),
    }
}
