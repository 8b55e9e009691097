//! Checks of the server's address, access and data folder.

use std::{io::ErrorKind, net::TcpListener, path::Path};

use anyhow::Result;
use multigraft_access::Store;
use multigraft_sources::AllowedSource;

use super::{Findings, machine::writable};
use crate::config::ServerSettings;

/// Checks whether the port is free.
pub(super) fn address(settings: &ServerSettings, findings: &mut Findings) {
    const CHECK: &str = "port";
    let address = settings.address();
    match TcpListener::bind(address) {
        Ok(_) => findings.ok(CHECK, format!("{address} is free")),
        Err(error) => {
            let advice = match error.kind() {
                ErrorKind::AddrInUse => "another program uses this port: stop it, or choose another --port",
                ErrorKind::PermissionDenied => "ports below 1024 need privileges: use --port 8080",
                ErrorKind::AddrNotAvailable => {
                    "this machine has no such address: use --host 127.0.0.1 or 0.0.0.0"
                }
                _ => "choose another --host or --port",
            };
            findings.fail(CHECK, format!("cannot listen on {address}: {error}"), advice);
        }
    }
}

/// Checks the data folder.
pub(super) fn data(settings: &ServerSettings, findings: &mut Findings) {
    const CHECK: &str = "data";
    let Some(folder) = &settings.data else {
        if settings.allow_source.contains(&AllowedSource::Upload) {
            findings.fail(
                CHECK,
                "clients may upload adapters, but there is no data folder for them",
                "give one with --data FOLDER",
            );
        }
        return;
    };
    let existing = folder
        .ancestors()
        .find(|folder| folder.exists() || folder.as_os_str().is_empty());
    let existing = match existing {
        Some(path) if path.as_os_str().is_empty() => Path::new("."),
        Some(path) => path,
        None => Path::new("/"),
    };
    if let Err(error) = writable(existing) {
        let found = format!("cannot write to {}: {error}", existing.display());
        return findings.fail(CHECK, found, "make the user of the server its owner");
    }
    if existing != folder {
        return findings.ok(CHECK, format!("{} will be created", folder.display()));
    }
    match others_may_write(folder) {
        true => findings.warn(
            CHECK,
            format!(
                "every user of this machine may write to {}, which holds keys and adapters",
                folder.display()
            ),
            format!("chmod o-w {}", folder.display()),
        ),
        false => findings.ok(CHECK, format!("{} is writable", folder.display())),
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

/// Checks which machines can reach the server, and whether requests need a key.
pub(super) fn access(settings: &ServerSettings, findings: &mut Findings) {
    const CHECK: &str = "access";
    let keys = match settings.data.as_deref().map_or(Ok(0), keys) {
        Ok(keys) => keys,
        Err(error) => return findings.fail(CHECK, format!("{error:#}"), "see docs/access.md"),
    };
    let ip = settings.address().ip();
    match (ip.is_loopback(), keys, settings.no_auth) {
        (true, 0, _) => findings.ok(CHECK, "this machine only, without keys"),
        (true, keys, _) => findings.ok(CHECK, format!("this machine only, with {keys} keys")),
        (false, 0, false) => findings.fail(
            CHECK,
            format!("{ip} can be reached from other machines, and there are no API keys"),
            "add one with `multigraft keys add NAME --data FOLDER`, and serve with --data FOLDER",
        ),
        (false, 0, true) => findings.warn(
            CHECK,
            format!("{ip} can be reached from other machines, and everybody may do everything (--no-auth)"),
            "add a key with `multigraft keys add NAME --data FOLDER`, unless a proxy before the server controls access",
        ),
        (false, keys, _) if settings.tls().is_some() => {
            findings.ok(CHECK, format!("{ip} with {keys} keys, over TLS"));
        }
        (false, keys, _) => findings.warn(
            CHECK,
            format!("{keys} keys, which the network can read: the server speaks plain HTTP on {ip}"),
            "use --tls-cert and --tls-key, or a proxy with TLS (with --host 127.0.0.1 if it runs on this machine)",
        ),
    }
}

/// The number of keys in a data folder.
fn keys(folder: &Path) -> Result<usize> {
    // Opening a store would create one.
    match folder.join(multigraft_access::FILE).exists() {
        true => Ok(Store::open(folder)?.keys()?.len()),
        false => Ok(0),
    }
}
