//! Parses JSON (RFC 8259) into a document as it was written: order kept, and keys that stand
//! twice still there twice, so that nothing of it is lost before it can be refused.
//!
//! It is our own because it takes a tenth of the code of a general one: there are no floating
//! point numbers in a configuration, and a Wasm module carries everything that it links.

use std::fmt::Write as _;

#[derive(Debug, PartialEq)]
pub enum Node {
    Null,
    Bool(bool),
    Unsigned(u64),
    /// Below zero.
    Signed(i64),
    /// A number that is not whole.
    Fraction,
    /// A number that does not fit, or one that came as a float and may have been rounded.
    Large,
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// How deep lists and objects may stand in each other. A configuration has less than ten levels.
const DEPTH_MAX: usize = 64;

/// The largest whole number that survives the trip through a 64-bit float, which is what Istio's
/// `pluginConfig` turns every number into: 2^53.
const LARGEST_EXACT: u64 = 9_007_199_254_740_992;

impl Node {
    /// What a person would call it: `the number 5`, `the text "x"`, `a list`.
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(value) => value.to_string(),
            Self::Unsigned(value) => format!("the number {value}"),
            Self::Signed(value) => format!("the number {value}"),
            Self::Fraction => "a number with a fraction".into(),
            Self::Large => "a number too large to be exact".into(),
            Self::Text(value) => format!("the text {value:?}"),
            Self::List(_) => "a list".into(),
            Self::Object(_) => "an object".into(),
        }
    }
}

/// The document in `json`, or what is wrong with it and where.
pub fn parse(json: &[u8]) -> Result<Node, String> {
    let text = match std::str::from_utf8(json) {
        Ok(text) => text,
        Err(error) => return Err(format!("no UTF-8 after byte {}", error.valid_up_to())),
    };
    let mut parser = Parser { text, at: 0 };
    let node = parser.value(0).and_then(|node| match parser.peek() {
        None => Ok(node),
        Some(_) => Err(Unexpected("the end")),
    });
    node.map_err(|Unexpected(expected)| parser.describe(expected))
}

/// Something else was expected where the parser stands.
struct Unexpected(&'static str);

struct Parser<'a> {
    text: &'a str,
    /// In bytes, always between characters.
    at: usize,
}

impl Parser<'_> {
    fn describe(&self, expected: &str) -> String {
        let before = self.text.get(..self.at).unwrap_or_default();
        let after = self.text.get(self.at..).unwrap_or_default();
        let line = before.matches('\n').count().saturating_add(1);
        let last = before.rsplit('\n').next().unwrap_or_default();
        let column = last.chars().count().saturating_add(1);
        let mut problem = format!("expected {expected}, got ");
        // Writing to a String cannot fail.
        let _ = match after.chars().next() {
            Some(found) => write!(problem, "{found:?}"),
            None => write!(problem, "the end"),
        };
        let _ = write!(problem, " at line {line} column {column}");
        problem
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.byte() {
            self.step();
        }
        self.byte()
    }

    /// Goes on by one byte of ASCII.
    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    /// Goes on if this byte comes next.
    fn take(&mut self, byte: u8) -> bool {
        let next = self.byte() == Some(byte);
        if next {
            self.step();
        }
        next
    }

    fn value(&mut self, depth: usize) -> Result<Node, Unexpected> {
        if depth > DEPTH_MAX {
            return Err(Unexpected("at most 64 levels"));
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.string().map(Node::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Node::Bool(true)),
            Some(b'f') => self.word("false", Node::Bool(false)),
            Some(b'n') => self.word("null", Node::Null),
            _ => Err(Unexpected("a value")),
        }
    }

    fn word(&mut self, word: &'static str, node: Node) -> Result<Node, Unexpected> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return Err(Unexpected("a value"));
        }
        self.at = self.at.saturating_add(word.len());
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Node, Unexpected> {
        self.step();
        let mut items = Vec::new();
        if self.peek() != Some(b']') {
            loop {
                items.push(self.value(depth.saturating_add(1))?);
                self.peek();
                if !self.take(b',') {
                    break;
                }
            }
        }
        if !self.take(b']') {
            return Err(Unexpected("\",\" or \"]\""));
        }
        Ok(Node::List(items))
    }

    fn object(&mut self, depth: usize) -> Result<Node, Unexpected> {
        self.step();
        let mut entries = Vec::new();
        if self.peek() != Some(b'}') {
            loop {
                if self.peek() != Some(b'"') {
                    return Err(Unexpected("a key in quotes"));
                }
                let key = self.string()?;
                self.peek();
                if !self.take(b':') {
                    return Err(Unexpected("\":\""));
                }
                entries.push((key, self.value(depth.saturating_add(1))?));
                self.peek();
                if !self.take(b',') {
                    break;
                }
            }
        }
        if !self.take(b'}') {
            return Err(Unexpected("\",\" or \"}\""));
        }
        Ok(Node::Object(entries))
    }

    fn string(&mut self) -> Result<String, Unexpected> {
        self.step();
        let mut string = String::new();
        loop {
            let start = self.at;
            while self.byte().is_some_and(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
                self.step();
            }
            string.push_str(self.text.get(start..self.at).unwrap_or_default());
            match self.byte() {
                Some(b'"') => {
                    self.step();
                    return Ok(string);
                }
                Some(b'\\') => {
                    self.step();
                    string.push(self.escaped()?);
                }
                Some(_) => return Err(Unexpected("no control character in a text")),
                None => return Err(Unexpected("the text's closing quote")),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, Unexpected> {
        let letter = match self.byte() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.step();
                return self.unicode();
            }
            _ => return Err(Unexpected("an escape that JSON knows")),
        };
        self.step();
        Ok(letter)
    }

    /// After `\u`: four hexadecimal digits, or twice that for a surrogate pair.
    fn unicode(&mut self) -> Result<char, Unexpected> {
        let unit = self.four_digits()?;
        if let 0xd800..=0xdbff = unit
            && self.take(b'\\')
            && self.take(b'u')
        {
            let low = self.four_digits()?;
            let pair = [unit, low];
            return match char::decode_utf16(pair).next() {
                Some(Ok(letter)) => Ok(letter),
                _ => Err(Unexpected("the second half of a surrogate pair before this")),
            };
        }
        char::from_u32(unit.into()).ok_or(Unexpected("a surrogate pair"))
    }

    fn four_digits(&mut self) -> Result<u16, Unexpected> {
        let end = self.at.saturating_add(4);
        let digits = self.text.get(self.at..end).unwrap_or_default();
        if digits.len() != 4 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(Unexpected("four hexadecimal digits"));
        }
        self.at = end;
        u16::from_str_radix(digits, 16).map_err(|_| Unexpected("four hexadecimal digits"))
    }

    fn number(&mut self) -> Result<Node, Unexpected> {
        let mut decimal = Decimal { digits: Some(0), scale: 0 };
        let negative = self.take(b'-');
        if !self.take(b'0') {
            self.digits(|digit| decimal.push(digit))?;
        }
        let mut float = false;
        if self.take(b'.') {
            float = true;
            self.digits(|digit| {
                decimal.push(digit);
                decimal.scale = decimal.scale.saturating_sub(1);
            })?;
        }
        if self.take(b'e') || self.take(b'E') {
            float = true;
            let below_zero = self.take(b'-');
            if !below_zero {
                self.take(b'+');
            }
            let mut exponent = 0_i32;
            self.digits(|digit| {
                exponent = exponent.saturating_mul(10).saturating_add(digit.into());
            })?;
            let exponent = if below_zero { exponent.saturating_neg() } else { exponent };
            decimal.scale = decimal.scale.saturating_add(exponent);
        }
        Ok(match decimal.whole() {
            Ok(number) if float && number > LARGEST_EXACT => Node::Large,
            Ok(number) if negative && number > 0 => {
                0_i64.checked_sub_unsigned(number).map_or(Node::Large, Node::Signed)
            }
            Ok(number) => Node::Unsigned(number),
            Err(node) => node,
        })
    }

    /// At least one digit.
    fn digits(&mut self, mut each: impl FnMut(u8)) -> Result<(), Unexpected> {
        let start = self.at;
        while let Some(byte @ b'0'..=b'9') = self.byte() {
            each(byte.wrapping_sub(b'0'));
            self.step();
        }
        if self.at == start { Err(Unexpected("a digit")) } else { Ok(()) }
    }
}

/// `digits` × 10^`scale`.
struct Decimal {
    /// `None`: more than 64 bits.
    digits: Option<u64>,
    scale: i32,
}

impl Decimal {
    fn push(&mut self, digit: u8) {
        let tenfold = self.digits.and_then(|digits| digits.checked_mul(10));
        self.digits = tenfold.and_then(|digits| digits.checked_add(digit.into()));
    }

    /// The number, if it is whole and fits.
    fn whole(self) -> Result<u64, Node> {
        let mut number = self.digits.ok_or(Node::Large)?;
        if number == 0 {
            return Ok(0);
        }
        // A number has at most 20 digits, so neither loop goes on for long.
        for _ in self.scale..0 {
            if number % 10 != 0 {
                return Err(Node::Fraction);
            }
            number /= 10;
        }
        for _ in 0..self.scale {
            number = number.checked_mul(10).ok_or(Node::Large)?;
        }
        Ok(number)
    }
}

#[cfg(test)]
mod tests;
