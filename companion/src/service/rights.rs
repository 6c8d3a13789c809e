//! Who may call what: proxies the edge, operators the admin service.

use std::sync::Arc;

use tonic::service::Interceptor;
use tonic::{Request, Status};
use tracing::warn;

use super::peer::{Peer, mesh_names};
use crate::domain::pattern::matches;
use crate::domain::ration::Ration;
use crate::domain::reach::{Grant, Grants};
use crate::domain::sessions::Sessions;
use crate::domain::token::Tokens;
use crate::live::Live;

/// Which of the listeners a gate stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Edge,
    Admin,
    App,
}

/// What a listener asks of those who call. The configuration has checked that it is enough for the
/// address that it listens on.
#[derive(Debug, Default)]
pub struct Rights {
    /// Accepted names; empty: every peer that has shown a certificate.
    pub peers: Vec<String>,
    pub tokens: Option<Tokens>,
    /// Names come from the mesh's sidecar.
    pub behind_mesh: bool,
    /// The listener has TLS that asks for certificates.
    pub certificates: bool,
    /// At the app listener: who may do what. Without any, and with nothing that proves who calls,
    /// everybody may do everything.
    pub grants: Vec<Grant>,
}

/// Who calls, as audit lines name him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(pub String);

impl Rights {
    /// Proxies need no token: what proves them is the transport.
    fn edge(&self, names: &[String]) -> Result<Caller, Status> {
        let caller = || Caller(names.first().map_or_else(|| "a proxy".into(), Clone::clone));
        if self.peers.is_empty() || self.accepted(names).is_some() {
            return Ok(caller());
        }
        Err(Status::permission_denied("this identity may not attach: see `edge.peers`"))
    }

    fn admin(&self, names: &[String], bearer: Option<&str>) -> Result<Caller, Status> {
        if let (Some(tokens), Some(token)) = (&self.tokens, bearer) {
            return match tokens.name(token) {
                Some(name) => Ok(Caller(format!("token {name}"))),
                None => Err(Status::unauthenticated("the bearer token is not accepted")),
            };
        }
        if let Some(name) = self.accepted(names) {
            return Ok(Caller(format!("peer {name}")));
        }
        if let (true, true, Some(name)) = (self.peers.is_empty(), self.certificates, names.first())
        {
            return Ok(Caller(format!("peer {name}")));
        }
        if !names.is_empty() && self.tokens.is_none() {
            return Err(Status::permission_denied("this identity may not call: see `admin.peers`"));
        }
        if self.tokens.is_none() && !self.certificates && !self.behind_mesh {
            return Ok(Caller("loopback".into()));
        }
        Err(Status::unauthenticated("give a bearer token, or a client certificate"))
    }

    /// A service shows a token or a certificate; what it may do is granted to that.
    fn app(&self, names: &[String], bearer: Option<&str>) -> Result<(Caller, Grants), Status> {
        let granted = |to: &dyn Fn(&Grant) -> bool, caller: String| {
            let grants: Vec<_> = self.grants.iter().filter(|grant| to(grant)).cloned().collect();
            if grants.is_empty() {
                let problem = format!("nothing is granted to {caller}: see `app.grants`");
                return Err(Status::permission_denied(problem));
            }
            Ok((Caller(caller), Grants::These(grants)))
        };
        if let (Some(tokens), Some(token)) = (&self.tokens, bearer) {
            return match tokens.name(token) {
                Some(name) => granted(&|grant| grant.is_for_token(name), format!("token {name}")),
                None => Err(Status::unauthenticated("the bearer token is not accepted")),
            };
        }
        if let Some(first) = names.first() {
            let known = |name: &&String| self.grants.iter().any(|grant| grant.is_for_peer(name));
            let name = names.iter().find(known).unwrap_or(first);
            return granted(&|grant| grant.is_for_peer(name), format!("peer {name}"));
        }
        if self.tokens.is_none() && !self.certificates && !self.behind_mesh {
            return Ok((Caller("loopback".into()), Grants::All));
        }
        Err(Status::unauthenticated("give a bearer token, or a client certificate"))
    }

    fn accepted<'a>(&self, names: &'a [String]) -> Option<&'a str> {
        let fits = |name: &&String| self.peers.iter().any(|pattern| matches(pattern, name));
        names.iter().find(fits).map(String::as_str)
    }
}

/// Stands before a service.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    side: Side,
    rights: Live<Rights>,
    sessions: Arc<Sessions>,
    /// Of lines about callers that were turned away.
    ration: Ration,
}

impl Gate {
    pub fn new(side: Side, rights: Rights, sessions: Arc<Sessions>) -> Self {
        let (rights, ration) = (Live::new(rights), Ration::default());
        Self(Arc::new(Inner { side, rights, sessions, ration }))
    }

    /// Asks this of the calls that come.
    pub fn reload(&self, rights: Rights) {
        self.0.rights.set(rights);
    }

    /// Who calls, and what is granted to him.
    fn judge(
        &self,
        peer: Option<&Peer>,
        request: &Request<()>,
    ) -> Result<(Caller, Grants), Status> {
        let rights = self.0.rights.get();
        let names = match peer {
            _ if rights.behind_mesh => mesh_names(request.metadata()),
            Some(peer) => peer.names.to_vec(),
            None => Vec::new(),
        };
        match self.0.side {
            Side::Edge => rights.edge(&names).map(|caller| (caller, Grants::These(Vec::new()))),
            Side::Admin => {
                let caller = rights.admin(&names, bearer(request)?)?;
                Ok((caller, Grants::These(Vec::new())))
            }
            Side::App => rights.app(&names, bearer(request)?),
        }
    }
}

fn bearer(request: &Request<()>) -> Result<Option<&str>, Status> {
    let header = request.metadata().get("authorization");
    let Some(value) = header.and_then(|value| value.to_str().ok()) else { return Ok(None) };
    // RFC 9110, section 11.1: the scheme is case-insensitive.
    match value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) {
        Some((_, token)) => Ok(Some(token.trim())),
        None => Err(Status::unauthenticated("`authorization` must be a bearer token")),
    }
}

impl Interceptor for Gate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        match self.judge(peer.as_ref(), &request) {
            Ok((caller, grants)) => {
                request.extensions_mut().insert(caller);
                request.extensions_mut().insert(grants);
                Ok(request)
            }
            Err(status) => {
                let Inner { side, sessions, ration, .. } = &*self.0;
                let name = match side {
                    Side::Edge => "edge",
                    Side::Admin => "admin",
                    Side::App => "app",
                };
                sessions.metrics().denied.count(name);
                let peer = peer.map_or_else(|| "?".to_owned(), |peer| peer.address.to_string());
                if let Some(held_back) = ration.line(&peer, sessions.clock().now()) {
                    warn!(
                        target: "meshgate::audit",
                        listener = name, peer, held_back, reason = status.message(), "call denied"
                    );
                }
                Err(status)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::domain::token::generate;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_open_admin_service_is_one_that_asks_for_nothing_and_knows_no_names() {
        let open = Rights::default();
        assert_eq!(open.admin(&[], None).unwrap(), Caller("loopback".into()));
        for closed in [
            Rights { certificates: true, ..Rights::default() },
            Rights { behind_mesh: true, ..Rights::default() },
        ] {
            assert_eq!(closed.admin(&[], None).unwrap_err().code(), Code::Unauthenticated);
        }
        // The mesh gives every workload a name: none of them is an operator by that alone.
        let mesh = Rights { behind_mesh: true, ..Rights::default() };
        let denied = mesh.admin(&names(&["spiffe://d/x"]), None).unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied);
    }

    #[test]
    fn operators_show_a_token_or_an_accepted_certificate() {
        let token = generate("ada").unwrap();
        let rights = Rights {
            tokens: Some(Tokens::parse(&token.line).unwrap()),
            peers: names(&["ops-*"]),
            certificates: true,
            ..Rights::default()
        };
        let caller = |names: &[String], token| rights.admin(names, token).unwrap().0;
        assert_eq!(caller(&[], Some(&token.token)), "token ada");
        assert_eq!(caller(&names(&["ops-1"]), None), "peer ops-1");
        // A wrong token is wrong, whatever else is shown.
        let code = |names: &[String], token| rights.admin(names, token).unwrap_err().code();
        assert_eq!(code(&names(&["ops-1"]), Some("mgat_x")), Code::Unauthenticated);
        assert_eq!(code(&names(&["proxy"]), None), Code::Unauthenticated);
        assert_eq!(code(&[], None), Code::Unauthenticated);
    }

    #[test]
    fn proxies_need_an_accepted_name_where_names_are_listed() {
        let rights = Rights { peers: names(&["spiffe://d/ns/*/sa/gw"]), ..Rights::default() };
        assert!(rights.edge(&names(&["x", "spiffe://d/ns/a/sa/gw"])).is_ok());
        assert_eq!(rights.edge(&names(&["x"])).unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(rights.edge(&[]).unwrap_err().code(), Code::PermissionDenied);
        assert!(Rights::default().edge(&[]).is_ok());
    }
}
