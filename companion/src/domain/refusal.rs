//! Why a login fails, and how much of that anybody learns.
//!
//! The log says exactly why; the client hears one of a few sentences. Whoever guesses cannot tell
//! an unknown key from a bad signature from an unknown user; "expired", "used before" and "logged
//! in already" are said only about credentials whose signature was good.

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
    #[error("the issuer's keys cannot be fetched")]
    KeysAway,
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
    #[error("its user has as many sessions as he may have")]
    TooManySessions,
    #[error("the login server refused the credential")]
    VerifierRefused,
    #[error("the login server says that the credential has expired")]
    VerifierExpired,
    #[error("the login server says not now")]
    VerifierTryAgain,
    #[error("the login server does not answer")]
    VerifierAway,
    #[error("as many questions to the login server are under way as may be")]
    VerifierBusy,
    #[error("it is to come back with a cookie")]
    CookieAsked,
    #[error("too many logins are under way")]
    TooMany,
    #[error("it waited too long while others came: shed")]
    Shed,
    #[error("too many logins come from its address")]
    AddressTooFast,
    #[error("too many logins come in all")]
    AllTooFast,
    #[error("the store does not answer")]
    StoreAway,
    #[error("the companion is stopping")]
    Stopping,
    #[error("the session was ended while it began")]
    EndedMeanwhile,
    #[error("the session to resume has ended, or never was")]
    SessionGone,
    #[error("the resume token was overtaken by a newer one")]
    TokenOld,
    #[error("the resume token or what goes with it is wrong")]
    TokenWrong,
    #[error("sessions are not resumed here")]
    ResumeOff,
    #[error("no randomness from the operating system")]
    NoRandomness,
}

/// What may come of a login, as metrics name it: `accepted`, then every [`Why::name`].
pub const RESULTS: [&str; 35] = [
    "accepted",
    "malformed",
    "mode_not_offered",
    "audience_not_served",
    "unknown_noise_key",
    "handshake",
    "unknown_key",
    "keys_away",
    "wrong_algorithm",
    "bad_signature",
    "wrong_audience",
    "wrong_issuer",
    "unacceptable_identity",
    "not_yet_valid",
    "expired",
    "used",
    "too_many_sessions",
    "verifier_refused",
    "verifier_expired",
    "verifier_try_again",
    "verifier_away",
    "verifier_busy",
    "cookie_asked",
    "too_many",
    "shed",
    "address_too_fast",
    "all_too_fast",
    "store_away",
    "stopping",
    "ended_meanwhile",
    "session_gone",
    "token_old",
    "token_wrong",
    "resume_off",
    "no_randomness",
];

/// A refusal, with what the login server wants the client to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub why: Why,
    /// In place of [`Refusal::text`].
    pub text: Option<Box<str>>,
}

impl From<Why> for Refused {
    fn from(why: Why) -> Self {
        Self { why, text: None }
    }
}

/// What the client may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    Unauthenticated,
    Expired,
    /// Said only where the credential was good.
    LoggedIn,
    /// The one answer to every resume token that is not good, whyever.
    NotResumed,
    TryAgain,
    /// The text is a cookie ([`super::cookie`]).
    ComeBack,
    Malformed,
}

impl Why {
    /// As metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::ModeNotOffered => "mode_not_offered",
            Self::AudienceNotServed => "audience_not_served",
            Self::UnknownNoiseKey => "unknown_noise_key",
            Self::Handshake => "handshake",
            Self::UnknownKey => "unknown_key",
            Self::KeysAway => "keys_away",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::BadSignature => "bad_signature",
            Self::WrongAudience => "wrong_audience",
            Self::WrongIssuer => "wrong_issuer",
            Self::UnacceptableIdentity => "unacceptable_identity",
            Self::NotYetValid => "not_yet_valid",
            Self::Expired => "expired",
            Self::Used => "used",
            Self::TooManySessions => "too_many_sessions",
            Self::VerifierRefused => "verifier_refused",
            Self::VerifierExpired => "verifier_expired",
            Self::VerifierTryAgain => "verifier_try_again",
            Self::VerifierAway => "verifier_away",
            Self::VerifierBusy => "verifier_busy",
            Self::CookieAsked => "cookie_asked",
            Self::TooMany => "too_many",
            Self::Shed => "shed",
            Self::AddressTooFast => "address_too_fast",
            Self::AllTooFast => "all_too_fast",
            Self::StoreAway => "store_away",
            Self::Stopping => "stopping",
            Self::EndedMeanwhile => "ended_meanwhile",
            Self::SessionGone => "session_gone",
            Self::TokenOld => "token_old",
            Self::TokenWrong => "token_wrong",
            Self::ResumeOff => "resume_off",
            Self::NoRandomness => "no_randomness",
        }
    }

    pub const fn refusal(self) -> Refusal {
        match self {
            Self::Malformed => Refusal::Malformed,
            Self::CookieAsked => Refusal::ComeBack,
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
            | Self::VerifierRefused
            | Self::NotYetValid => Refusal::Unauthenticated,
            Self::Expired | Self::Used | Self::VerifierExpired => Refusal::Expired,
            Self::TooManySessions => Refusal::LoggedIn,
            Self::SessionGone | Self::TokenOld | Self::TokenWrong | Self::ResumeOff => {
                Refusal::NotResumed
            }
            Self::KeysAway
            | Self::VerifierTryAgain
            | Self::VerifierAway
            | Self::VerifierBusy
            | Self::TooMany
            | Self::Shed
            | Self::AddressTooFast
            | Self::AllTooFast
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
            Self::LoggedIn => "this user is logged in already",
            Self::NotResumed => "the session cannot be resumed, log in",
            Self::ComeBack | Self::TryAgain => "no login just now, try again",
            Self::Malformed => "the login message is malformed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_among_the_results() {
        for why in [Why::Malformed, Why::Used, Why::TooManySessions, Why::Shed, Why::AllTooFast] {
            assert!(RESULTS.contains(&why.name()));
        }
    }
}
