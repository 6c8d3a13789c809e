//! Where calls go, and where logins are decided.

use std::collections::BTreeMap;

use super::faults::Faults;
use super::session::Mode;

object! {
    /// Where calls go.
    #[derive(Clone, Debug, PartialEq)]
    pub struct UpstreamSpec {
        /// What calls name as `:authority`; the routed path chooses its routes by it. Such as
        /// `"hall.game.svc.cluster.local:50051"`. Needed with the direction `ingress`.
        pub authority: Option<String>,
        /// Envoy's cluster for the connection; by default the one that the listener's tcp_proxy
        /// names (without `weighted_clusters`).
        pub cluster: Option<String>,
        /// The cluster that rings the bell for a client that is refused before its login, and serves
        /// nothing. Needs `"connect": "after_login"`; without it such a client is closed without
        /// a word.
        pub refusal_cluster: Option<String>,
        /// When the upstream connection is opened.
        #[cfg_attr(feature = "schema", schemars(default))]
        pub connect: Connect = Connect::AtConnect,
        /// Which server holds the client, where servers hold clients. Needs
        /// `"connect": "after_login"`.
        pub place: Option<PlaceSpec>,
    }
}

object! {
    /// A client whose session has a place is connected to the cluster of that server, and to
    /// `cluster` without one. Services change the place through the companion (`Place`).
    #[derive(Clone, Debug, PartialEq)]
    pub struct PlaceSpec {
        /// What stands before the place in the cluster's name: with "room-" and the place "a7", the
        /// cluster is "room-a7".
        pub cluster_prefix: String,
    }
}

choice! {
    /// When the upstream connection is opened.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum Connect {
        /// With the client's connection. Works with every tcp_proxy.
        #[default]
        AtConnect = "at_connect",
        /// When the client has logged in: strangers reach no service. Needs
        /// `upstream_connect_mode: ON_DOWNSTREAM_DATA` and `max_early_data_bytes` in the listener's
        /// tcp_proxy; with any other no byte of the client would ever arrive.
        AfterLogin = "after_login",
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    pub authority: Box<str>,
    /// For the filter state `envoy.tcp_proxy.cluster`; `None` leaves tcp_proxy its own.
    pub cluster: Option<Box<str>>,
    /// The same, for a client that is refused before its login.
    pub refusal_cluster: Option<Box<str>>,
    pub connect: Connect,
    /// What stands before a session's place in the name of its cluster.
    pub place_prefix: Option<Box<str>>,
}

/// The claim that says which server holds the client.
const PLACE: &str = "place";
/// The longest place, in bytes.
const MAX_PLACE: usize = 64;

impl UpstreamConfig {
    /// The cluster of a client with these claims; `None` if it has no place, `Err` if that is no name.
    pub fn placed(&self, claims: &BTreeMap<String, String>) -> Option<Result<Box<str>, NoPlace>> {
        let prefix = self.place_prefix.as_deref()?;
        let place = claims.get(PLACE)?;
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let good = (1..=MAX_PLACE).contains(&place.len()) && place.bytes().all(is_letter);
        Some(if good { Ok([prefix, place].concat().into()) } else { Err(NoPlace) })
    }
}

/// What a session has for a place is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPlace;

impl UpstreamConfig {
    /// The authority where nothing is called by it.
    const NOBODY: &str = "server";

    /// Where the listener alone says what is connected to.
    pub fn none() -> Self {
        Self {
            authority: Self::NOBODY.into(),
            cluster: None,
            refusal_cluster: None,
            connect: Connect::AtConnect,
            place_prefix: None,
        }
    }
}

impl UpstreamSpec {
    /// Paths in `faults` start below `upstream`.
    pub fn compile(self, mode: Option<Mode>, faults: &mut Faults) -> UpstreamConfig {
        if let Some(authority) = self.authority.as_ref().filter(|name| !is_authority(name)) {
            let problem = format_args!("{authority:?} is not an authority, expected \"host:port\"");
            faults.add("authority", &problem);
        }
        for (key, cluster) in
            [("cluster", &self.cluster), ("refusal_cluster", &self.refusal_cluster)]
        {
            if let Some(Err(problem)) = cluster.as_deref().map(check_cluster) {
                faults.add(key, &problem);
            }
        }
        if self.connect == Connect::AtConnect && self.refusal_cluster.is_some() {
            let problem = "a client that is refused has its upstream already with \"connect\": \
                           \"at_connect\": leave this key out, or set \"connect\": \"after_login\"";
            faults.add("refusal_cluster", &problem);
        }
        if self.connect == Connect::AfterLogin && mode == Some(Mode::None) {
            let problem = "nobody logs in with the session mode \"none\", expected \"at_connect\"";
            faults.add("connect", &problem);
        }
        if let Some(place) = &self.place {
            if let Err(problem) = check_cluster(&place.cluster_prefix) {
                faults.add("place.cluster_prefix", &problem);
            }
            if self.connect == Connect::AtConnect {
                let problem =
                    "a place is known after the login, expected \"connect\": \"after_login\"";
                faults.add("place", &problem);
            }
        }
        UpstreamConfig {
            authority: self.authority.as_deref().unwrap_or(UpstreamConfig::NOBODY).into(),
            cluster: self.cluster.map(Into::into),
            refusal_cluster: self.refusal_cluster.map(Into::into),
            connect: self.connect,
            place_prefix: self.place.map(|place| place.cluster_prefix.into()),
        }
    }
}

object! {
    /// The companion that decides logins and keeps sessions. Needed for the session modes `ticket`
    /// and `noise`.
    #[derive(Clone, Debug, PartialEq)]
    pub struct CompanionSpec {
        /// Envoy's cluster of the companion; on Istio
        /// `"outbound|9443||companion.meshgate.svc.cluster.local"`.
        pub cluster: String,
        /// What calls to the companion name as `:authority`; by default the cluster's name, or the
        /// host of a cluster that Istio named.
        pub authority: Option<String>,
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompanionConfig {
    pub cluster: Box<str>,
    pub authority: Box<str>,
}

impl CompanionConfig {
    /// The longest name of the cluster and the longest authority, in bytes: so far a length in
    /// [`Self::grpc_service`] is one byte of ASCII.
    const NAME_MAX: usize = 120;

    /// The target of a gRPC call as the host takes it: Envoy's message
    /// `envoy.config.core.v3.GrpcService` with `envoy_grpc.cluster_name` and
    /// `envoy_grpc.authority`. The SDK wants text, so the message is written as two halves (a
    /// field that stands twice is merged), whose lengths are below 128 and so ASCII.
    pub fn grpc_service(&self) -> String {
        let mut message = String::new();
        for (field, value) in [('\n', &self.cluster), ('\u{12}', &self.authority)] {
            let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
            message.push('\n');
            message.push(char::from(length.saturating_add(2)));
            message.push(field);
            message.push(char::from(length));
            message.push_str(value);
        }
        message
    }
}

impl CompanionSpec {
    /// Paths in `faults` start below `companion`.
    pub fn compile(self, faults: &mut Faults) -> CompanionConfig {
        let host = self.cluster.rsplit('|').next().unwrap_or_default();
        let authority = self.authority.clone().unwrap_or_else(|| host.into());
        if let Err(problem) = check_cluster(&self.cluster) {
            faults.add("cluster", &problem);
        } else if !is_authority(&authority) {
            let problem = format_args!("{authority:?} is not an authority, expected \"host:port\"");
            faults.add("authority", &problem);
        }
        for (key, value) in [("cluster", &self.cluster), ("authority", &authority)] {
            if value.len() > CompanionConfig::NAME_MAX {
                let (length, most) = (value.len(), CompanionConfig::NAME_MAX);
                let problem = format_args!("{length} bytes are too many, expected at most {most}");
                faults.add(key, &problem);
            }
        }
        CompanionConfig { authority: authority.into(), cluster: self.cluster.into() }
    }
}

pub(super) fn is_authority(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

fn check_cluster(name: &str) -> Result<(), String> {
    if name.is_empty() || name.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(format!("{name:?} is not the name of a cluster"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_companion_is_named_in_envoys_own_message() {
        let companion = CompanionConfig { cluster: "companion".into(), authority: "c:1".into() };
        // GrpcService { envoy_grpc (1): { cluster_name (1) } }, then { authority (2) }.
        let expected = b"\x0a\x0b\x0a\x09companion\x0a\x05\x12\x03c:1";
        assert_eq!(companion.grpc_service().as_bytes(), expected);
        let long: Box<str> = "c".repeat(CompanionConfig::NAME_MAX).into();
        let companion = CompanionConfig { cluster: long.clone(), authority: long };
        assert!(companion.grpc_service().is_ascii());
    }
}
