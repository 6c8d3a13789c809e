//! Why a login fails, and how much of that anybody learns.
//!
//! The log says exactly why; the client hears one of a few sentences. Whoever guesses cannot tell
//! an unknown key from a bad signature from an unknown user; "expired" and "used before" are
//! said only about credentials whose signature was good.

/// The exact reason, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Why {
    #[error("the login message does not parse")]
    Malformed,
    #[error("the login mode is not offered")]
    ModeNotOffered,
    #[error("this companion does not serve the audience")]
    AudienceNotServed,
    #[error("the Noise key id is unknown")]
    UnknownNoiseKey,
    #[error("the Noise handshake failed: wrong key, prologue or bytes")]
    Handshake,
    #[error("the credential names an unknown key")]
    UnknownKey,
    #[error("the credential's algorithm is not its key's")]
    WrongAlgorithm,
    #[error("the credential's signature is wrong")]
    BadSignature,
    #[error("the credential is for another audience")]
    WrongAudience,
    #[error("the credential is from another issuer")]
    WrongIssuer,
    #[error("the credential names no acceptable user, roles or claims")]
    UnacceptableIdentity,
    #[error("the credential is not valid yet")]
    NotYetValid,
    #[error("the credential has expired")]
    Expired,
    #[error("the credential was used before")]
    Used,
    #[error("too many logins are under way")]
    TooMany,
    #[error("the store does not answer")]
    StoreAway,
    #[error("the companion is stopping")]
    Stopping,
    #[error("the session was ended while it began")]
    EndedMeanwhile,
    #[error("no randomness from the operating system")]
    NoRandomness,
}

/// What the client may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    Unauthenticated,
    Expired,
    TryAgain,
    Malformed,
}

impl Why {
    pub const fn refusal(self) -> Refusal {
        match self {
            Self::Malformed => Refusal::Malformed,
            Self::ModeNotOffered
            | Self::AudienceNotServed
            | Self::UnknownNoiseKey
            | Self::Handshake
            | Self::UnknownKey
            | Self::WrongAlgorithm
            | Self::BadSignature
            | Self::WrongAudience
            | Self::WrongIssuer
            | Self::UnacceptableIdentity
            | Self::NotYetValid => Refusal::Unauthenticated,
            Self::Expired | Self::Used => Refusal::Expired,
            Self::TooMany
            | Self::StoreAway
            | Self::Stopping
            | Self::EndedMeanwhile
            | Self::NoRandomness => Refusal::TryAgain,
        }
    }
}

impl Refusal {
    /// The sentence for the client.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unauthenticated => "login refused",
            Self::Expired => "the credential is no longer valid",
            Self::TryAgain => "no login just now, try again",
            Self::Malformed => "the login message is malformed",
        }
    }
}
