//! Who may talk to the companion. It hands out traffic keys: whoever reaches it must be entitled.

use std::net::SocketAddr;

/// What keeps others out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    None,
    /// The companion's own TLS, and a certificate from every client.
    MutualTls,
    /// The operator says that the mesh lets only workloads with an identity reach the port.
    MeshMutualTls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} can be reached by others, and the companion hands out traffic keys: listen on a loopback \
     address, or give --tls-cert, --tls-key and --client-ca, or say --behind-mesh-mtls where the \
     mesh protects the port"
)]
pub struct Exposed(pub SocketAddr);

pub fn check(address: SocketAddr, protection: Protection) -> Result<(), Exposed> {
    let loopback = match address {
        SocketAddr::V4(v4) => v4.ip().is_loopback(),
        // An IPv4 loopback address in IPv6 clothes is one as well.
        SocketAddr::V6(v6) => v6.ip().to_canonical().is_loopback(),
    };
    if loopback || protection != Protection::None { Ok(()) } else { Err(Exposed(address)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_open_without_protection() {
        for (address, alone) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.0.0.1:1", false),
            ("192.168.1.1:1", false),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(check(address, Protection::None).is_ok(), alone, "{address}");
            assert!(check(address, Protection::MutualTls).is_ok());
            assert!(check(address, Protection::MeshMutualTls).is_ok());
        }
    }
}
