//! Bearer tokens of operators.
//!
//! A token is `mgat_` and 32 random bytes in base64url. The companion's file holds names and
//! hashes alone, one token a line, so whoever reads it can call nothing:
//!
//! ```text
//! # comment
//! <name> <SHA-256 of the token, 64 hexadecimal digits>
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};
use zeroize::Zeroizing;

use super::key::hex;

const PREFIX: &str = "mgat_";
/// One call hashes once and compares with each: operators are people and a few programs.
const MAX_TOKENS: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error(
        "line {0} is no token: expected a name and 64 hexadecimal digits, as `meshgate token new` \
         writes them"
    )]
    Line(usize),
    #[error("two tokens have the name `{0}`")]
    Duplicate(String),
    #[error("there is no token: make one with `meshgate token new`")]
    Empty,
    #[error("there are more than {MAX_TOKENS} tokens")]
    TooMany,
}

/// A token that was just made.
pub struct NewToken {
    pub token: Zeroizing<String>,
    /// For the companion's file.
    pub line: String,
}

/// A name is what audit lines show.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_graphic())
        && !name.starts_with('#')
}

pub fn generate(name: &str) -> Result<NewToken, getrandom::Error> {
    let mut random = Zeroizing::new([0; 32]);
    getrandom::fill(random.as_mut_slice())?;
    let token = Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random.as_slice())));
    let line = format!("{name} {}\n", hex(&Sha256::digest(token.as_bytes())));
    Ok(NewToken { token, line })
}

/// The tokens that are good now.
#[derive(Debug)]
pub struct Tokens(Vec<(String, [u8; 32])>);

impl Tokens {
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let mut tokens: Vec<(String, [u8; 32])> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = || TokenError::Line(index.saturating_add(1));
            let (name, hash) = line.split_once(char::is_whitespace).ok_or_else(wrong)?;
            let hash = unhex(hash.trim()).ok_or_else(wrong)?;
            if !is_name(name) {
                return Err(wrong());
            }
            if tokens.iter().any(|(known, _)| known == name) {
                return Err(TokenError::Duplicate(name.to_owned()));
            }
            tokens.push((name.to_owned(), hash));
        }
        match tokens.len() {
            0 => Err(TokenError::Empty),
            1..=MAX_TOKENS => Ok(Self(tokens)),
            _ => Err(TokenError::TooMany),
        }
    }

    /// The name of this token. Takes as long for every token, good or not.
    pub fn name(&self, token: &str) -> Option<&str> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut found = u32::MAX;
        for (index, (_, known)) in (0_u32..).zip(&self.0) {
            found.conditional_assign(&index, known.ct_eq(&hash));
        }
        let found = usize::try_from(found).ok()?;
        self.0.get(found).map(|(name, _)| name.as_str())
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        let at = index.saturating_mul(2);
        *byte = u8::from_str_radix(text.get(at..at.saturating_add(2))?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_hash_alone() {
        let (ada, bob) = (generate("ada").unwrap(), generate("bob").unwrap());
        assert!(!ada.line.contains(&ada.token[PREFIX.len()..]));
        let tokens = Tokens::parse(&format!("# people\n\n{}{}", ada.line, bob.line)).unwrap();
        assert_eq!(tokens.name(&ada.token), Some("ada"));
        assert_eq!(tokens.name(&bob.token), Some("bob"));
        for wrong in ["", PREFIX, &ada.token[1..], &format!("{}x", *bob.token)] {
            assert_eq!(tokens.name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn mistakes_in_the_file_are_named_by_line() {
        let line = generate("ada").unwrap().line;
        let parse = |text: &str| Tokens::parse(text).unwrap_err();
        assert_eq!(parse("# nothing\n"), TokenError::Empty);
        assert_eq!(parse(&format!("{line}bob")), TokenError::Line(2));
        assert_eq!(parse("bob 12"), TokenError::Line(1));
        assert_eq!(parse(&format!("{line}{line}")), TokenError::Duplicate("ada".into()));
    }
}
