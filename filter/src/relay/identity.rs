//! Who the server is told that the client is: header fields that no client can set.

use crate::bridge::Terms;
use crate::config::IdentityField;
use crate::protocol::layout::{EncodeError, Given, Stamp};
use crate::session::Identity;

/// The fields of one client's frames. They change once, with the login.
#[derive(Debug, Default)]
pub struct Stamps {
    /// Of whom they speak; none before the first request.
    anonymous: Option<bool>,
    /// Over what a frame brings, where it goes on as it is.
    stamps: Box<[Stamp]>,
    /// The same where a header is made anew: fields without a value have their defaults there.
    given: Box<[Given]>,
}

impl Stamps {
    /// Those of `identity`, or what does not fit its field.
    pub fn refresh(
        &mut self,
        terms: &Terms,
        identity: &Identity,
        peer: &str,
    ) -> Result<(), EncodeError> {
        if self.anonymous == Some(identity.is_anonymous()) {
            return Ok(());
        }
        let Some(relay) = super::config(terms) else { return Ok(()) };
        let layout = terms.config.server_layout();
        let (mut stamps, mut given) = (Vec::new(), Vec::new());
        for (name, field) in &relay.identity {
            let text = value(field, identity, peer);
            let text = text.as_ref().map(String::as_bytes);
            stamps.push(layout.stamp(name, text)?);
            if let Some(text) = text {
                given.push(layout.given(name, text)?);
            }
        }
        *self = Self {
            anonymous: Some(identity.is_anonymous()),
            stamps: stamps.into(),
            given: given.into(),
        };
        Ok(())
    }

    pub fn stamps(&self) -> &[Stamp] {
        &self.stamps
    }

    pub fn given(&self) -> &[Given] {
        &self.given
    }
}

/// `None` if nothing is known.
fn value(field: &IdentityField, identity: &Identity, peer: &str) -> Option<String> {
    match field {
        IdentityField::User => identity.user().map(str::to_owned),
        IdentityField::Session => identity.session().map(|session| session.to_string()),
        IdentityField::Peer => Some(peer.to_owned()),
        IdentityField::Roles if identity.is_anonymous() => None,
        IdentityField::Roles => Some(identity.roles().join(",")),
        IdentityField::Claim(name) => identity.claim(name).map(str::to_owned),
    }
}
