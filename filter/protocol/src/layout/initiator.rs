//! The initiator's side: values for a request's header from text, and which frame answers what.

use super::error::EncodeError;
use super::frame::{Command, FieldValue};
use super::plan::{HeaderField, Layout, Part};
use super::slot::Shape;

/// A value for a reserved header field that was made from text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    field: Box<str>,
    value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Unsigned(u64),
    Signed(i64),
    Text(Box<[u8]>),
    Bytes(Box<[u8]>),
}

impl Given {
    /// As [`Request::fields`](super::Request::fields) takes it.
    pub fn field(&self) -> (&str, FieldValue<'_>) {
        let value = match &self.value {
            Value::Unsigned(value) => FieldValue::Unsigned(*value),
            Value::Signed(value) => FieldValue::Signed(*value),
            Value::Text(text) => FieldValue::Text(text),
            Value::Bytes(bytes) => FieldValue::Bytes(bytes),
        };
        (&self.field, value)
    }
}

impl Layout {
    /// The largest sequence number that a frame can carry.
    pub fn max_sequence(&self) -> u64 {
        self.sequence.map_or(u64::MAX, |slot| slot.shape.mask())
    }

    /// Whether a reply with this command can answer a request with that one.
    pub fn answers(&self, reply: Command<'_>, request: Command<'_>) -> bool {
        match (reply, request) {
            (Command::Number(_), Command::Number(number)) => self.reply_to_number(number) == reply,
            (Command::Text(text), Command::Text(request)) => {
                let (Command::Text(first), last) = self.reply_to_text(request) else {
                    return false;
                };
                text.strip_prefix(first) == Some(last)
            }
            _ => false,
        }
    }

    /// A number for the command of a reply to `request`, to be held against [`Self::command_key`].
    pub fn reply_key(&self, request: Command<'_>) -> u64 {
        match request {
            Command::Number(number) => self.command_key(self.reply_to_number(number)),
            Command::Text(text) => {
                let (reply, suffix) = self.reply_to_text(text);
                let Command::Text(first) = reply else { return 0 };
                text_key([first, suffix])
            }
        }
    }

    /// A number for a command: itself, or what stands for its text.
    pub fn command_key(&self, command: Command<'_>) -> u64 {
        match command {
            Command::Number(number) => number,
            Command::Text(text) => text_key([text, &[]]),
        }
    }

    /// The value that `text` stands for in the reserved header field of this name, as
    /// [`FieldValue::write_ascii`] writes it: integers in decimal, bytes in hexadecimal.
    pub fn given(&self, name: &str, text: &[u8]) -> Result<Given, EncodeError> {
        let field = self.header.iter().find(|field| &*field.name == name);
        let field = field.ok_or_else(|| EncodeError::NoSuchField { name: name.to_owned() })?;
        self.value_of(field, text)
    }

    /// The same for the field that is handed on as metadata in this place of
    /// [`Self::metadata_names`].
    pub fn given_metadata(&self, place: usize, text: &[u8]) -> Result<Given, EncodeError> {
        let field = self.header.iter().filter(|field| field.metadata.is_some()).nth(place);
        let field = field.ok_or_else(|| EncodeError::NoSuchField { name: String::new() })?;
        self.value_of(field, text)
    }

    /// The metadata names of fields that a request can be given a value for, with their places in
    /// [`Self::metadata_names`].
    pub fn can_be_given(&self, place: usize) -> bool {
        let field = self.header.iter().filter(|field| field.metadata.is_some()).nth(place);
        field.is_some_and(|field| field.part == Part::Reserved)
    }

    fn value_of(&self, field: &HeaderField, text: &[u8]) -> Result<Given, EncodeError> {
        let wrong = || EncodeError::ValueType { field: field.name.clone() };
        let ascii = || std::str::from_utf8(text).map_err(|_| wrong());
        let value = match field.slot.shape {
            Shape::Int { signed: true, .. } => {
                Value::Signed(ascii()?.parse().map_err(|_| wrong())?)
            }
            Shape::Int { .. } | Shape::Varint => {
                Value::Unsigned(ascii()?.parse().map_err(|_| wrong())?)
            }
            Shape::Bytes(_) => Value::Bytes(from_hex(text).ok_or_else(wrong)?),
            Shape::Text(_) | Shape::SizedText(_) => Value::Text(text.into()),
        };
        let given = Given { field: field.name.clone(), value };
        let (name, value) = given.field();
        self.check_value(name, &value)?;
        Ok(given)
    }
}

/// FNV-1a, 64 bits.
fn text_key(parts: [&[u8]; 2]) -> u64 {
    parts.into_iter().flatten().fold(0xcbf2_9ce4_8422_2325_u64, |key, byte| {
        (key ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Two hexadecimal digits a byte.
fn from_hex(text: &[u8]) -> Option<Box<[u8]>> {
    let (pairs, rest) = text.as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok();
    pairs.iter().map(byte).collect::<Option<Box<[u8]>>>().filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Decoded, Request};

    fn layout(reply: &str) -> Layout {
        let text = format!(
            r#"{{"name": "given", "header": [
                {{"name": "length", "type": "u16", "role": {{"length": {{"counts": "frame"}}}}}},
                {{"name": "command", "type": "u16", "role": "command"}},
                {{"name": "sequence", "type": "u16", "role": "sequence"}},
                {{"name": "zone", "type": "u16", "metadata": "x-zone"}},
                {{"name": "delta", "type": "i8", "metadata": "x-delta"}},
                {{"name": "who", "type": {{"text": 4}}, "metadata": "x-who"}},
                {{"name": "id", "type": {{"bytes": 2}}, "metadata": "x-id"}}],
                "reply": {{"command": {reply}}}}}"#
        );
        Layout::from_json(&text).unwrap()
    }

    #[test]
    fn what_metadata_was_made_of_is_made_of_metadata() {
        let layout = layout(r#""same""#);
        let texts = [&b"513"[..], b"-3", b"ann", b"00ff"];
        let given: Vec<_> = (0..4).map(|n| layout.given_metadata(n, texts[n]).unwrap()).collect();
        let fields: Vec<_> = given.iter().map(Given::field).collect();
        let request = Request { fields: &fields, ..Request::new(Command::Number(7), 1, &[]) };
        let mut out = Vec::new();
        layout.encode_request(request, None, &mut out).unwrap();
        let Decoded::Frame(frame) = layout.decode(&out, 100).unwrap() else { panic!("a frame") };
        let read: Vec<_> = layout
            .metadata(&frame)
            .map(|(name, value)| {
                let mut text = Vec::new();
                assert!(value.write_ascii(&mut text));
                (name, String::from_utf8(text).unwrap())
            })
            .collect();
        let expected = [("x-zone", "513"), ("x-delta", "-3"), ("x-who", "ann"), ("x-id", "00ff")];
        assert_eq!(read, expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn what_does_not_fit_its_field_is_refused() {
        let layout = layout(r#""same""#);
        let cases = [
            ("zone", "65536"),
            ("zone", "-1"),
            ("zone", "x"),
            ("zone", ""),
            ("delta", "128"),
            ("who", "annie"),
            ("id", "0"),
            ("id", "0g00"),
            ("id", "000000"),
            ("command", "1"),
            ("nothing", "1"),
        ];
        for (name, text) in cases {
            assert!(layout.given(name, text.as_bytes()).is_err(), "{name} {text}");
        }
        assert!(layout.given_metadata(4, b"1").is_err());
    }

    #[test]
    fn replies_are_known_by_their_commands() {
        let answers = |layout: &Layout, reply, request| {
            layout.answers(Command::Number(reply), Command::Number(request))
        };
        let same = layout(r#""same""#);
        assert!(answers(&same, 7, 7) && !answers(&same, 8, 7));
        let next = layout(r#"{"add": 1}"#);
        assert!(answers(&next, 8, 7) && !answers(&next, 7, 7));
        assert!(!same.answers(Command::Text(b"7"), Command::Number(7)));
        let chat = include_str!("../../../../envoy-config/layouts/chat.json");
        let chat = Layout::from_json(chat).unwrap();
        let (reply, suffix) = chat.reply_to_text(b"say");
        let Command::Text(reply) = reply else { panic!("text") };
        let reply = [reply, suffix].concat();
        assert!(chat.answers(Command::Text(&reply), Command::Text(b"say")));
        assert!(!chat.answers(Command::Text(b"other"), Command::Text(b"say")));
        assert_eq!(same.max_sequence(), 65_535);
        let key = |text| chat.command_key(Command::Text(text));
        assert_eq!(chat.reply_key(Command::Text(b"say")), key(&reply[..]));
        assert_ne!(chat.reply_key(Command::Text(b"say")), key(b"say"));
        assert_eq!(next.reply_key(Command::Number(7)), next.command_key(Command::Number(8)));
    }
}
