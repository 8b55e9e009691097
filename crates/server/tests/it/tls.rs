//! TLS: its certificate, another one while it runs, and clients that do not shake hands.

use std::{fs, path::Path, sync::Arc, time::Duration};

use multigraft_server::{ConnectionLimits, Tls, serve};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::server;

const LONG: Duration = Duration::from_secs(60);

/// Writes a certificate of its own and its key.
fn certify(cert: &Path, key: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(cert, made.cert.pem()).expect("written");
    fs::write(key, made.signing_key.serialize_pem()).expect("written");
}

/// A client that trusts the certificate in this file alone.
async fn connect(address: std::net::SocketAddr, cert: &Path) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(cert).expect("a certificate"))
        .expect("a certificate");
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(client)).connect(name, stream).await
}

/// Asks for `/health`; the status line.
async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    let request = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    let head = String::from_utf8(head).expect("text");
    head.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_certificate_is_replaced_while_connections_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let [cert, key, old] = ["cert.pem", "key.pem", "old.pem"].map(|name| folder.path().join(name));
    certify(&cert, &key);
    fs::copy(&cert, &old).expect("copied");
    let tls = Tls::open(&cert, &key).expect("a certificate and its key");
    let limits = ConnectionLimits {
        headers: Duration::from_secs(5),
        ..ConnectionLimits::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = server();
    let state = server.state.clone();
    tokio::spawn(serve(
        listener,
        state,
        limits,
        Some(tls.clone()),
        LONG,
        std::future::pending::<()>,
    ));
    let mut first = connect(address, &cert).await.expect("a handshake");
    assert_eq!(ask(&mut first).await, "HTTP/1.1 200 OK");

    // A pair that does not belong together changes nothing.
    certify(&cert, &folder.path().join("other.pem"));
    let error = tls.reload().expect_err("not a pair").to_string();
    assert!(error.contains("cert.pem") && error.contains("key.pem"), "{error}");
    assert_eq!(
        ask(&mut connect(address, &old).await.expect("a handshake")).await,
        "HTTP/1.1 200 OK"
    );
    // One that does is taken, and who is connected stays so.
    certify(&cert, &key);
    tls.reload().expect("a pair");
    assert_eq!(
        ask(&mut connect(address, &cert).await.expect("a handshake")).await,
        "HTTP/1.1 200 OK"
    );
    connect(address, &old).await.expect_err("another certificate");
    assert_eq!(ask(&mut first).await, "HTTP/1.1 200 OK");
    // It is also seen without being told.
    certify(&cert, &key);
    let again = async {
        while connect(address, &cert).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, again).await.expect("the files are followed");

    // Who does not shake hands, or speaks plainly, is sent away.
    let mut silent = TcpStream::connect(address).await.expect("a connection");
    let mut plain = TcpStream::connect(address).await.expect("a connection");
    plain
        .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("sent");
    for stream in [&mut silent, &mut plain] {
        let mut bytes = Vec::new();
        let ended = timeout(LONG, stream.read_to_end(&mut bytes)).await;
        let _ = ended.expect("the server should close the connection");
        assert!(!bytes.starts_with(b"HTTP"));
    }
}

#[test]
fn wrong_files_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let [cert, key, text] = ["cert.pem", "key.pem", "notes.txt"].map(|name| folder.path().join(name));
    certify(&cert, &key);
    fs::write(&text, "no certificate").expect("written");
    let missing = folder.path().join("missing.pem");
    for (cert, key, named) in [
        (&missing, &key, "missing.pem"),
        (&cert, &missing, "missing.pem"),
        (&text, &key, "notes.txt"),
        (&cert, &text, "notes.txt"),
        (&cert, &cert, "cert.pem"),
    ] {
        let error = Tls::open(cert, key).expect_err(named).to_string();
        assert!(error.contains(named), "{error}");
    }
}
