//! Who a client is, and how the services behind get to know it.
//!
//! An [`Identity`] is made in this folder alone: an anonymous one where a connection begins, a
//! named one where the companion accepted a login. It carries the metadata of every call made in
//! its name, encoded once:
//!
//! | field | value | when |
//! |---|---|---|
//! | `x-meshgate-peer` | the client's address and port | unless switched off |
//! | `x-meshgate-session` | the session's id, 32 hexadecimal digits | after a login, unless switched off |
//! | `x-meshgate-user` | the user | after a login, unless switched off |
//! | `x-meshgate-roles` | the session's roles, joined by commas | after a login, if switched on |
//! | `x-meshgate-claim-<name>` | a claim of the credential | those that the configuration names |
//!
//! The prefix is reserved: nothing that a client sends can become a field under it. Values are
//! ASCII: `%`, and everything but visible ASCII and inner spaces, stands as `%XX` of its UTF-8
//! bytes (in roles the comma too), so that decoding gives back exactly the original. A control
//! character is nothing that an honest credential has: it refuses the login.

use std::collections::BTreeMap;
use std::fmt;

use super::login::{Accepted, SessionId};

/// The prefix of every field that tells who the client is.
pub const RESERVED_PREFIX: &str = "x-meshgate-";

const PEER: &str = "x-meshgate-peer";
const SESSION: &str = "x-meshgate-session";
const USER: &str = "x-meshgate-user";
const ROLES: &str = "x-meshgate-roles";
const CLAIM: &str = "x-meshgate-claim-";

/// The longest value of one field before it is encoded, in bytes: what the companion lets a
/// claim be. Roles count all together.
pub const MAX_VALUE: usize = 1024;
/// The longest claim's name, in bytes.
pub const MAX_CLAIM_NAME: usize = 64;
/// How many claims may be handed on.
pub const MAX_CLAIMS: usize = 32;
/// The longest block of all fields together, in bytes. Servers commonly refuse 8 KiB of headers
/// in all, and a call has others.
pub const MAX_BLOCK: usize = 6 * 1024;

/// What services get to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataPolicy {
    pub peer: bool,
    pub session: bool,
    pub user: bool,
    pub roles: bool,
    /// As the credential names them, and the field's whole name.
    claims: Vec<(String, String)>,
}

/// The address, the session and the user; neither roles nor claims.
impl Default for MetadataPolicy {
    fn default() -> Self {
        Self { peer: true, session: true, user: true, roles: false, claims: Vec::new() }
    }
}

/// Why a [`MetadataPolicy`] cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyError {
    /// Cannot be part of a field's name.
    Name(String),
    /// Two claims would have the same field, for instance `Level` and `level`.
    Twice(String),
    /// More than [`MAX_CLAIMS`].
    TooMany,
}

impl MetadataPolicy {
    /// The default, and these claims. A name consists of ASCII letters, digits, `-`, `_` and `.`;
    /// the field has its letters in lower case.
    pub fn new<S: AsRef<str>>(
        claims: impl IntoIterator<Item = S>,
    ) -> Result<Self, (usize, PolicyError)> {
        let mut policy = Self::default();
        for (index, claim) in claims.into_iter().enumerate() {
            let claim = claim.as_ref();
            policy.add(claim).map_err(|error| (index, error))?;
        }
        Ok(policy)
    }

    fn add(&mut self, claim: &str) -> Result<(), PolicyError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if claim.is_empty() || claim.len() > MAX_CLAIM_NAME || !claim.bytes().all(fits) {
            return Err(PolicyError::Name(claim.to_owned()));
        }
        let field = format!("{CLAIM}{}", claim.to_ascii_lowercase());
        if self.claims.iter().any(|(_, known)| *known == field) {
            return Err(PolicyError::Twice(field));
        }
        if self.claims.len() >= MAX_CLAIMS {
            return Err(PolicyError::TooMany);
        }
        self.claims.push((claim.to_owned(), field));
        Ok(())
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(
                f,
                "\"{name}\" cannot be part of a field's name, expected up to {MAX_CLAIM_NAME} of \
                 the letters a-z, digits, '-', '_' and '.'"
            ),
            Self::Twice(field) => write!(f, "a second claim for the field \"{field}\""),
            Self::TooMany => write!(f, "expected at most {MAX_CLAIMS} claims"),
        }
    }
}

impl std::error::Error for PolicyError {}

/// Why somebody cannot have an identity: something about them cannot be told to a service.
/// The companion should not have let it pass, so this refuses the login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// The field's value has a control character.
    Control(String),
    /// The field's value is longer than [`MAX_VALUE`] bytes.
    TooLong(String),
    /// All fields together are longer than [`MAX_BLOCK`] bytes.
    TooMuch,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control(field) => write!(f, "{field} would hold a control character"),
            Self::TooLong(field) => write!(f, "{field} would be longer than {MAX_VALUE} bytes"),
            Self::TooMuch => write!(f, "metadata would be longer than {MAX_BLOCK} bytes"),
        }
    }
}

impl std::error::Error for IdentityError {}

/// Who the client is.
pub struct Identity {
    named: Option<Named>,
    metadata: Vec<u8>,
}

struct Named {
    session: SessionId,
    user: String,
    claims: BTreeMap<String, String>,
    roles: Vec<String>,
}

impl Identity {
    /// Someone of whom nothing is known but the address; and not even that if it cannot stand
    /// in metadata, such as a socket's path with control characters.
    pub(super) fn anonymous(policy: &MetadataPolicy, peer: &str) -> Self {
        let mut block = Block::default();
        if policy.peer && block.field(PEER, peer).is_err() {
            block = Block::default();
        }
        Self { named: None, metadata: block.bytes }
    }

    /// Someone whom the companion vouches for.
    pub(super) fn named(
        accepted: NamedBy,
        policy: &MetadataPolicy,
        peer: &str,
    ) -> Result<Self, IdentityError> {
        let NamedBy { session, user, claims, roles } = accepted;
        let mut block = Block { bytes: Self::anonymous(policy, peer).metadata };
        if policy.session {
            block.field(SESSION, &session.to_string())?;
        }
        if policy.user {
            block.field(USER, &user)?;
        }
        if policy.roles && !roles.is_empty() {
            block.list(ROLES, &roles)?;
        }
        for (claim, field) in &policy.claims {
            if let Some(value) = claims.get(claim) {
                block.field(field, value)?;
            }
        }
        Ok(Self { named: Some(Named { session, user, claims, roles }), metadata: block.bytes })
    }

    /// `None` for an anonymous identity, like everything else that only a login can tell.
    pub fn session(&self) -> Option<SessionId> {
        self.named.as_ref().map(|named| named.session)
    }

    pub fn user(&self) -> Option<&str> {
        self.named.as_ref().map(|named| named.user.as_str())
    }

    pub fn claim(&self, name: &str) -> Option<&str> {
        self.named.as_ref()?.claims.get(name).map(String::as_str)
    }

    pub fn roles(&self) -> &[String] {
        self.named.as_ref().map_or(&[], |named| &named.roles)
    }

    pub const fn is_anonymous(&self) -> bool {
        self.named.is_none()
    }

    /// The fields that tell a service who calls, as an HPACK fragment (RFC 7541, section 6.2.2):
    /// each a literal without indexing and with a new name, nothing Huffman-coded
    /// (`0x00`, length of name, name, length of value, value). It depends on no table and may
    /// stand anywhere after a header block's pseudo-header fields.
    pub fn metadata(&self) -> &[u8] {
        &self.metadata
    }
}

/// Who, and nothing about what they do: neither claims nor metadata belong in a log.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.named {
            Some(named) => write!(f, "Identity({}, {:?})", named.session, named.user),
            None => f.write_str("Identity(anonymous)"),
        }
    }
}

/// What the companion says about somebody.
pub(super) struct NamedBy {
    pub session: SessionId,
    pub user: String,
    pub claims: BTreeMap<String, String>,
    pub roles: Vec<String>,
}

impl NamedBy {
    pub fn take(accepted: &mut Accepted) -> Self {
        Self {
            session: accepted.session,
            user: std::mem::take(&mut accepted.user),
            claims: std::mem::take(&mut accepted.claims),
            roles: std::mem::take(&mut accepted.roles),
        }
    }
}

/// A header block in the making.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
}

impl Block {
    fn field(&mut self, name: &str, value: &str) -> Result<(), IdentityError> {
        check(name, value, value.len())?;
        self.literal(name, &percent_encode(value, false))
    }

    /// `values` joined by commas; a comma in one of them is encoded.
    fn list(&mut self, name: &str, values: &[String]) -> Result<(), IdentityError> {
        let mut len = 0_usize;
        for value in values {
            len = len.saturating_add(value.len());
            check(name, value, len)?;
        }
        let encoded: Vec<_> = values.iter().map(|value| percent_encode(value, true)).collect();
        self.literal(name, &encoded.join(","))
    }

    fn literal(&mut self, name: &str, value: &str) -> Result<(), IdentityError> {
        self.bytes.push(0x00);
        self.string(name.as_bytes());
        self.string(value.as_bytes());
        if self.bytes.len() > MAX_BLOCK { Err(IdentityError::TooMuch) } else { Ok(()) }
    }

    /// A string literal (RFC 7541, section 5.2): its length with a prefix of 7 bits, its bytes.
    fn string(&mut self, bytes: &[u8]) {
        const PREFIX_FULL: usize = 0x7f;
        match u8::try_from(bytes.len()) {
            Ok(len) if bytes.len() < PREFIX_FULL => self.bytes.push(len),
            _ => {
                self.bytes.push(0x7f);
                let mut rest = bytes.len().saturating_sub(PREFIX_FULL);
                while rest >= 0x80 {
                    self.bytes.push(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
                    rest >>= 7;
                }
                self.bytes.push(u8::try_from(rest).unwrap_or(0));
            }
        }
        self.bytes.extend_from_slice(bytes);
    }
}

fn check(name: &str, value: &str, len: usize) -> Result<(), IdentityError> {
    if value.chars().any(char::is_control) {
        return Err(IdentityError::Control(name.to_owned()));
    }
    if len > MAX_VALUE {
        return Err(IdentityError::TooLong(name.to_owned()));
    }
    Ok(())
}

/// `value` with `%` and everything but visible ASCII and inner spaces as `%XX` of its UTF-8
/// bytes. Spaces at either end are encoded too because a field's value must not begin or end
/// with one (RFC 9113, section 8.2.1).
fn percent_encode(value: &str, in_list: bool) -> String {
    const HEX: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let last = value.len().saturating_sub(1);
    let mut encoded = String::with_capacity(value.len());
    for (at, byte) in value.bytes().enumerate() {
        let plain = match byte {
            b'%' => false,
            b' ' => at != 0 && at != last,
            b',' => !in_list,
            b'!'..=b'~' => true,
            _ => false,
        };
        if plain {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            for nibble in [byte >> 4, byte & 0x0f] {
                encoded.push(HEX.get(usize::from(nibble)).copied().unwrap_or('0'));
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
