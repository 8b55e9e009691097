//! `multigraft health`: checks whether a server answers, for container images without a shell.

use std::{
    env,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use reqwest::{Client, Url};
use tokio::runtime;

use crate::{
    cli::HealthArguments,
    config::{ConfigFile, ServerOptions, ServerSettings},
};

/// How long the server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn run(arguments: &HealthArguments, config: Option<&Path>) -> Result<ExitCode> {
    let (url, is_local) = match &arguments.url {
        Some(url) => (url.clone(), false),
        None => {
            let file = ConfigFile::read(config)?;
            let flags = ServerOptions {
                host: arguments.host,
                port: arguments.port,
                // As for `serve`.
                tls_cert: env::var_os("MULTIGRAFT_TLS_CERT").map(PathBuf::from),
                tls_key: env::var_os("MULTIGRAFT_TLS_KEY").map(PathBuf::from),
                ..ServerOptions::default()
            };
            let settings = ServerSettings::resolve(flags, file.server)?;
            (local_url(settings.address(), settings.tls().is_some())?, true)
        }
    };
    // The cryptography of TLS. A second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .timeout(TIMEOUT)
        .no_proxy()
        // The certificate is for the server's public name, and the request has no secrets.
        .tls_danger_accept_invalid_certs(is_local)
        .build()?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async { client.get(url.clone()).send().await });
    let mut out = io::stdout().lock();
    match answer {
        Ok(answer) if answer.status().is_success() => {
            writeln!(out, "{url} answers")?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(answer) => {
            writeln!(out, "{url} answers with {}", answer.status())?;
            Ok(ExitCode::FAILURE)
        }
        Err(error) => {
            writeln!(
                out,
                "{:#}",
                anyhow::Error::from(error).context(format!("{url} does not answer"))
            )?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The URL of the server that listens on this address, from this machine.
fn local_url(address: SocketAddr, is_tls: bool) -> Result<Url> {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let scheme = if is_tls { "https" } else { "http" };
    let url = format!("{scheme}://{}/health", SocketAddr::new(ip, address.port()));
    Url::parse(&url).with_context(|| format!("`{url}` is no URL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_on_all_addresses_is_reached_on_localhost() {
        for (address, url) in [
            ("0.0.0.0:8080", "http://127.0.0.1:8080/health"),
            ("[::]:81", "http://[::1]:81/health"),
            ("10.0.0.1:9", "http://10.0.0.1:9/health"),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(local_url(address, false).expect("a URL").as_str(), url);
            let url = url.replace("http:", "https:");
            assert_eq!(local_url(address, true).expect("a URL").as_str(), url);
        }
    }
}
