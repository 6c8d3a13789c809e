//! Responses, and the end of streams.
//!
//! ```text
//! HEADERS  :status 200, content-type application/grpc
//! DATA     messages
//! HEADERS  grpc-status, grpc-message; END_STREAM
//! ```
//!
//! What fails before its first message has the first and the last in one block ("Trailers-Only").

use super::reading::Step;
use super::streams::{End, Phase, Stream};
use super::{ServerLeg, StreamKey};
use crate::call::Code;
use crate::grpc::frame;
use crate::grpc::hpack::encoder;
use crate::grpc::reason::ErrorCode;

/// `:status 415` and a text, for who does not ask in gRPC: "Responses" in gRPC's PROTOCOL-HTTP2.
const FOREIGN_HEAD: &[u8] = b"\x08\x03415\x0f\x10\x0atext/plain\x0f\x0d\x0235";
const FOREIGN_TEXT: &[u8; 35] = b"This server is to be asked in gRPC\n";

/// The longest `grpc-message` that is sent, in bytes of text: it is for a person.
const MAX_TEXT: usize = 1024;

/// Commands.
impl ServerLeg {
    /// Answers a call with one message, given in pieces without gRPC's prefix, and OK.
    pub fn respond(&mut self, stream: StreamKey, message: &[&[u8]]) {
        if self.send(stream, message) {
            self.finish(stream, Code::Ok, "");
        }
    }

    /// Sends one message of a response; more may follow. False if the call is over: it was
    /// before, or is now, because more would wait for the caller than may.
    pub fn send(&mut self, stream: StreamKey, message: &[&[u8]]) -> bool {
        let Some(state) = self.streams.get(stream) else { return false };
        if !self.sending.has_room(message, &self.limits) {
            if state.answering {
                self.break_off(stream, ErrorCode::EnhanceYourCalm, Code::ResourceExhausted);
            } else {
                self.finish(stream, Code::ResourceExhausted, "the caller does not read responses");
            }
            return false;
        }
        if !std::mem::replace(&mut state.answering, true) {
            self.sending.head(stream, &mut self.output);
        }
        self.sending.message(stream, state, message, &mut self.output);
        true
    }

    /// Ends a call. A caller that has not sent all of its request is told not to.
    pub fn finish(&mut self, stream: StreamKey, code: Code, text: &str) {
        let Some(state) = self.streams.get(stream) else { return };
        if let Some(rest) = &mut state.rest {
            let mut block = Vec::new();
            status_fields(code, text, &mut block);
            rest.end = Some(End::Trailers(block));
            // The call is over, its response waits for windows: nothing is told of it any more,
            // when its token may be another call's.
            state.phase = Phase::Ignored;
            return;
        }
        self.sending.trailers(stream, state.answering, code, text, &mut self.output);
        self.answered(stream);
    }

    /// Ends a call that was certainly not carried out: REFUSED_STREAM, after which it may be tried
    /// again elsewhere whatever it does (RFC 9113 section 8.7).
    pub fn refuse_stream(&mut self, stream: StreamKey) {
        self.break_off(stream, ErrorCode::RefusedStream, Code::Unavailable);
    }
}

impl ServerLeg {
    /// Takes a stream out of the tables and the books.
    pub(super) fn take(&mut self, key: StreamKey) -> Option<Stream> {
        let stream = self.streams.remove(key)?;
        self.partial_messages = self.partial_messages.saturating_sub(stream.partial.len());
        self.sending.forget(key, stream.rest.as_deref());
        self.finished.add(key.number());
        Some(stream)
    }

    /// The response has been sent whole.
    fn answered(&mut self, key: StreamKey) {
        self.given_up = self.given_up.saturating_sub(1);
        let Some(stream) = self.take(key) else { return };
        if !stream.ended {
            frame::write_reset(key.number(), ErrorCode::NoError, &mut self.output);
            self.resets.add(key.number());
        }
    }

    /// Resets a stream; its call, if there was one, is over with this code.
    pub(super) fn break_off(
        &mut self,
        key: StreamKey,
        reason: ErrorCode,
        code: Code,
    ) -> Step<'static> {
        let Some(stream) = self.take(key) else { return Step::Again };
        frame::write_reset(key.number(), reason, &mut self.output);
        self.resets.add(key.number());
        let over = |token| Step::Over { stream: key, token, code };
        stream.token().map_or(Step::Again, over)
    }

    /// Sends what the windows admit.
    pub(super) fn flush(&mut self) {
        while let Some(done) = self.sending.flush(&mut self.streams, &mut self.output) {
            self.answered(done);
        }
    }

    /// Says that this is a gRPC server.
    pub(super) fn answer_foreign(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get(key) else { return };
        let Phase::Foreign { silent } = stream.phase else { return };
        if std::mem::replace(&mut stream.answering, true) {
            return;
        }
        self.sending.foreign(key, FOREIGN_HEAD, silent, &mut self.output);
        if silent {
            return self.answered(key);
        }
        if self.sending.data(key, stream, FOREIGN_TEXT, &mut self.output) {
            self.answered(key);
        }
    }
}

/// `grpc-status`, and `grpc-message` if there is a text.
pub(super) fn status_fields(code: Code, text: &str, out: &mut Vec<u8>) {
    let number = code.number();
    let digits = [b'1', b'0'.saturating_add(number % 10)];
    let digits = if number < 10 { digits.get(1..) } else { Some(&digits[..]) };
    encoder::encode_literal(b"grpc-status", digits.unwrap_or_default(), out);
    if !text.is_empty() {
        let mut coded = Vec::with_capacity(text.len());
        percent_encode(text, &mut coded);
        encoder::encode_literal(b"grpc-message", &coded, out);
    }
}

/// Codes a status text: `%` and what is not printable ASCII as `%` and two hexadecimal digits
/// ("Status-Message" in gRPC's PROTOCOL-HTTP2).
fn percent_encode(text: &str, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes().take(MAX_TEXT) {
        if matches!(byte, b' '..=b'$' | b'&'..=b'~') {
            out.push(byte);
        } else {
            out.push(b'%');
            let digits = [byte >> 4, byte & 0xf];
            out.extend(digits.iter().filter_map(|digit| DIGITS.get(usize::from(*digit))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_percent_encoded_and_bounded() {
        let coded = |text: &str| {
            let mut out = Vec::new();
            percent_encode(text, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(coded("no such player"), "no such player");
        assert_eq!(coded("50% ü\n"), "50%25 %C3%BC%0A");
        assert_eq!(coded(&"a".repeat(5000)).len(), MAX_TEXT);
    }

    #[test]
    fn the_foreign_answer_tells_its_length() {
        assert!(FOREIGN_HEAD.ends_with(FOREIGN_TEXT.len().to_string().as_bytes()));
    }
}
