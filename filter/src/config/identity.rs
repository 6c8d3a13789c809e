//! What services learn about the client, under names that a client cannot forge.

use crate::protocol::layout::spec::LayoutSpec;
use crate::session::identity::{MAX_CLAIM_NAME, MAX_CLAIMS, RESERVED_PREFIX};

use super::faults::Faults;

object! {
    default
    /// What services learn about the client. Everything stands under `x-meshgate-`, which neither
    /// frames nor configuration can set.
    #[derive(Clone, Debug, PartialEq)]
    pub struct IdentitySpec {
        /// The user's name, as `x-meshgate-user`.
        pub user: bool,
        /// The session's id in hexadecimal, as `x-meshgate-session`.
        pub session: bool,
        /// The client's address and port, as `x-meshgate-peer`.
        pub peer: bool,
        /// The session's roles, joined by commas, as `x-meshgate-roles`.
        pub roles: bool,
        /// The claims of the credential that are handed on, each as `x-meshgate-claim-NAME` with the
        /// name in lower case.
        pub claims: Vec<String>,
            /// Where a call's `traceparent` comes from.
        pub traceparent: TraceparentSpec,
    }
}

impl Default for IdentitySpec {
    fn default() -> Self {
        Self {
            user: true,
            session: true,
            peer: true,
            roles: false,
            claims: Vec::new(),
            traceparent: TraceparentSpec::Off,
        }
    }
}

/// Where a call's `traceparent` (W3C Trace Context) comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(serde::Serialize, schemars::JsonSchema))]
#[cfg_attr(feature = "schema", serde(rename_all = "snake_case"))]
pub enum TraceparentSpec {
    /// There is none.
    #[default]
    Off,
    /// The filter makes a new one for each call.
    Generate,
    /// From the layout's header field of this name, which must have `metadata` too; a new one is
    /// made where the field holds none.
    Field(String),
}

read_choice!(TraceparentSpec { "off" => Off, "generate" => Generate } { "field" => Field });

/// Where a call's `traceparent` comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Traceparent {
    Off,
    Generate,
    /// From the header field that the layout hands on under this metadata name; nothing is handed
    /// on under the name itself.
    Field(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityConfig {
    pub user: bool,
    pub session: bool,
    pub peer: bool,
    pub roles: bool,
    pub claims: Box<[ClaimHeader]>,
    pub traceparent: Traceparent,
}

/// A claim and the metadata name that it is handed on under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimHeader {
    pub claim: Box<str>,
    pub header: Box<str>,
}

impl IdentitySpec {
    /// Paths in `faults` start below `identity`.
    pub fn compile(self, layout: Option<&LayoutSpec>, faults: &mut Faults) -> IdentityConfig {
        let mut claims: Vec<ClaimHeader> = Vec::with_capacity(self.claims.len());
        for (index, claim) in self.claims.iter().enumerate() {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            let header = format!("{RESERVED_PREFIX}claim-{}", claim.to_ascii_lowercase());
            let problem = if claim.is_empty()
                || claim.len() > MAX_CLAIM_NAME
                || !claim.bytes().all(allowed)
            {
                format!(
                    "{claim:?} cannot be part of a metadata name, expected letters, digits, \
                     \"-\", \"_\" and \".\", at most {MAX_CLAIM_NAME}"
                )
            } else if let Some(taken) = claims.iter().find(|other| *other.header == *header) {
                let other = &taken.claim;
                format!("{claim:?} would have the same name as {other:?}, {header:?}")
            } else {
                claims.push(ClaimHeader { claim: claim.as_str().into(), header: header.into() });
                continue;
            };
            faults.add(&format!("claims[{index}]"), &problem);
        }
        if self.claims.len() > MAX_CLAIMS {
            let problem =
                format_args!("{} claims, expected at most {MAX_CLAIMS}", self.claims.len());
            faults.add("claims", &problem);
        }
        IdentityConfig {
            user: self.user,
            session: self.session,
            peer: self.peer,
            roles: self.roles,
            claims: claims.into(),
            traceparent: self.traceparent.compile(layout, faults),
        }
    }
}

impl TraceparentSpec {
    fn compile(self, layout: Option<&LayoutSpec>, faults: &mut Faults) -> Traceparent {
        let name = match self {
            Self::Off => return Traceparent::Off,
            Self::Generate => return Traceparent::Generate,
            Self::Field(name) => name,
        };
        // Without a layout there is a fault already.
        let Some(layout) = layout else { return Traceparent::Off };
        let field = layout.header.iter().find(|field| field.name == name);
        let problem = match field.map(|field| &field.metadata) {
            Some(Some(metadata)) => return Traceparent::Field(metadata.as_str().into()),
            Some(None) => {
                format!("the field {name:?} is read only if the layout gives it \"metadata\"")
            }
            None => format!("the layout's header has no field {name:?}"),
        };
        faults.add("traceparent.field", &problem);
        Traceparent::Off
    }
}
