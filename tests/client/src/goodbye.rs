//! What a goodbye says (the session protocol, section 8.1).

use std::time::Duration;

use crate::frame::Frame;

/// Bytes of what follows the text, before the address.
const TAIL: usize = 11;
const VERSION: u8 = 1;
const SERVED: u8 = 1;

/// A goodbye frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goodbye {
    pub status: u16,
    /// For people.
    pub text: String,
    /// The client shall come back; `None` where the server says nothing of that.
    pub back: Option<Return>,
}

/// How to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Return {
    /// The connection still serves. If not, what has no reply when it closes was not carried out.
    pub served: bool,
    /// When to come back, from the goodbye.
    pub after: Duration,
    /// If it is served: until when, from the goodbye.
    pub until: Duration,
    /// Where to; `None`: where it came from.
    pub address: Option<String>,
}

impl Goodbye {
    pub fn read(frame: &Frame) -> Self {
        let body = &frame.body[..];
        let end = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
        let (text, tail) = body.split_at(end);
        let text = String::from_utf8_lossy(text).into_owned();
        Self { status: frame.status, text, back: Return::read(tail) }
    }
}

impl Return {
    /// From the NUL behind the text on; later versions may say more, elsewhere.
    fn read(tail: &[u8]) -> Option<Self> {
        let (head, address) = tail.split_first_chunk::<TAIL>()?;
        let [_, VERSION, flags, times @ ..] = head else { return None };
        let millis = |bytes: &[u8]| {
            let bytes = bytes.try_into().expect("four bytes");
            Duration::from_millis(u32::from_be_bytes(bytes).into())
        };
        let (after, until) = times.split_at(4);
        let address = String::from_utf8_lossy(address).into_owned();
        Some(Self {
            served: flags & SERVED != 0,
            after: millis(after),
            until: millis(until),
            address: Some(address).filter(|address| !address.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of `tests/vectors/session/goodbye.json`.
    #[test]
    fn goodbyes_are_read_as_the_document_says() {
        let vectors = include_str!("../../vectors/session/goodbye.json");
        let vectors: Vec<serde_json::Value> = serde_json::from_str(vectors).unwrap();
        assert!(vectors.len() >= 4);
        for vector in vectors {
            let hex = vector["body"].as_str().unwrap();
            let body: Vec<u8> = (0..hex.len() / 2)
                .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            let goodbye = Goodbye::read(&Frame { body, ..Frame::default() });
            assert_eq!(goodbye.text, vector["text"].as_str().unwrap());
            let back = vector["return"].as_object().map(|back| Return {
                served: back["served"].as_bool().unwrap(),
                after: Duration::from_millis(back["after_ms"].as_u64().unwrap()),
                until: Duration::from_millis(back["until_ms"].as_u64().unwrap()),
                address: back["address"].as_str().map(str::to_owned),
            });
            assert_eq!(goodbye.back, back, "{vector}");
        }
    }
}
