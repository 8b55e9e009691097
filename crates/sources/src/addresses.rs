//! Which machines files may be fetched from: public addresses, and hosts that the operator trusts.
//! A host name may resolve to any address, so every resolved address is checked, and checked again
//! after each redirect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use object_store::client::{DnsError, DnsFuture, DnsResolver};
use url::{Host, Url};

/// Hosts that may have any address.
pub(crate) type Trusted = Arc<[String]>;

/// Whether an address is public according to IANA's special-purpose address registries (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match inner(address) {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || matches!(
            (a, b, c),
            (0 | 240..=255, _, _) | (100, 64..=127, _) | (192, 0, 0) | (198, 18..=19, _)
        );
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Global unicast is 2000::/3. Within it, 2001:db8::/32 is reserved for documentation and
    // 2001::/23 for protocol assignments.
    let [first, second, ..] = address.segments();
    let is_documentation = first == 0x2001 && (second == 0xdb8 || second < 0x200);
    first & 0xe000 == 0x2000 && !is_documentation
}

/// The IPv4 address embedded in an IPv6 address.
fn inner(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match (a, b) {
        (0, 0) if c == 0 && d == 0 && e == 0 && matches!(f, 0 | 0xffff) => Some(of(g, h)),
        // NAT64 and 6to4.
        (0x64, 0xff9b) => Some(of(g, h)),
        (0x2002, _) => Some(of(b, c)),
        _ => None,
    }
}

/// Whether the text of `url` permits a request. [`Resolver`] checks the addresses that a host name
/// resolves to.
pub(crate) fn is_allowed(url: &Url, trusted: &[String]) -> bool {
    let is_trusted = url
        .host_str()
        .is_some_and(|host| trusted.iter().any(|trusted| trusted == host));
    is_trusted
        || match url.host() {
            Some(Host::Ipv4(address)) => is_public_v4(address),
            Some(Host::Ipv6(address)) => is_public(address.into()),
            Some(Host::Domain(_)) => true,
            None => false,
        }
}

/// Resolves host names to public addresses only, except trusted hosts.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    pub(crate) trusted: Trusted,
}

impl Resolver {
    async fn addresses(self, host: String) -> Result<Vec<IpAddr>, DnsError> {
        let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
        let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        if !self.trusted.contains(&host) {
            addresses.retain(|address| is_public(*address));
        }
        match addresses.is_empty() {
            true => Err(format!(
                "`{host}` has no public address; this server fetches from other addresses only if --allow-source names the host"
            )
            .into()),
            false => Ok(addresses),
        }
    }
}

impl DnsResolver for Resolver {
    fn resolve(&self, host: &str) -> DnsFuture {
        Box::pin(self.clone().addresses(host.to_owned()))
    }
}

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let addresses = self.clone().addresses(name.as_str().to_owned());
        Box::pin(async move {
            let addresses = addresses
                .await?
                .into_iter()
                .map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as reqwest::dns::Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_local_networks_are_not_public() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.8",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2001:db8::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_trusted_host_may_be_anywhere_and_no_other() {
        let trusted = ["10.0.0.5".to_owned()];
        let allowed = |url: &str| is_allowed(&Url::parse(url).unwrap(), &trusted);
        assert!(allowed("https://10.0.0.5/x"));
        assert!(allowed("https://example.com/x"));
        for url in [
            "https://10.0.0.6/x",
            "https://[::1]/x",
            "https://2130706433/x",
            "https://0x7f.1/x",
        ] {
            assert!(!allowed(url), "{url}");
        }
    }
}
