//! Who may reach the companion. It hands out traffic keys and throws players out: whoever reaches
//! it must be entitled.

use std::net::SocketAddr;

use super::rights::Side;

/// What keeps others out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    None,
    /// The listener's own TLS, and a certificate from every client.
    MutualTls,
    /// The listener's own TLS, and a bearer token from whoever shows no certificate.
    TlsAndToken,
    /// The operator says that the mesh lets only workloads with an identity reach the port.
    MeshMutualTls,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exposed {
    #[error(
        "{0} can be reached by others, and the companion hands out traffic keys: listen on a \
         loopback address, or give --tls-cert, --tls-key and --client-ca (`edge.tls`), or say \
         --behind-mesh-mtls (`edge.behind_mesh`) where the mesh protects the port"
    )]
    Edge(SocketAddr),
    #[error(
        "{0} can be reached by others, and the admin service throws players out: listen on a \
         loopback address, or give `admin.tls.cert` and `admin.tls.key` with `admin.tokens` or \
         `admin.tls.client_ca`, or say `admin.behind_mesh` with `admin.tokens` or `admin.peers`"
    )]
    Admin(SocketAddr),
    #[error(
        "{0} can be reached by others, and the app service speaks to players: listen on a loopback \
         address, or give `app.grants`, with `app.tls.cert` and `app.tls.key` and `app.tokens` or \
         `app.tls.client_ca`, or with `app.behind_mesh`"
    )]
    App(SocketAddr),
}

pub fn check(side: Side, address: SocketAddr, protection: Protection) -> Result<(), Exposed> {
    let loopback = match address {
        SocketAddr::V4(v4) => v4.ip().is_loopback(),
        // An IPv4 loopback address in IPv6 clothes is one as well.
        SocketAddr::V6(v6) => v6.ip().to_canonical().is_loopback(),
    };
    let protected = match side {
        Side::Edge => {
            matches!(protection, Protection::MutualTls | Protection::MeshMutualTls)
        }
        Side::Admin | Side::App => protection != Protection::None,
    };
    match side {
        _ if loopback || protected => Ok(()),
        Side::Edge => Err(Exposed::Edge(address)),
        Side::Admin => Err(Exposed::Admin(address)),
        Side::App => Err(Exposed::App(address)),
    }
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
            for side in [Side::Edge, Side::Admin, Side::App] {
                assert_eq!(check(side, address, Protection::None).is_ok(), alone, "{address}");
                assert!(check(side, address, Protection::MutualTls).is_ok());
                assert!(check(side, address, Protection::MeshMutualTls).is_ok());
            }
            assert_eq!(check(Side::Edge, address, Protection::TlsAndToken).is_ok(), alone);
            assert!(check(Side::Admin, address, Protection::TlsAndToken).is_ok());
        }
    }
}
