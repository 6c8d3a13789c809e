//! Payload codecs: from a frame's body to a gRPC message and back.

/// Codec `bytes`: the body is field 1 of the message.
pub mod wrapped {
    /// The field's tag and length, to stand in front of the body: at most 11 bytes.
    pub fn prefix(body_len: usize, out: &mut Vec<u8>) {
        out.push(FIELD_1_BYTES);
        let mut rest = body_len as u64;
        while rest >= 0x80 {
            out.push((rest as u8 & 0x7f) | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }

    /// The bytes of field 1; empty if the message has none; `None` if it is no protobuf.
    /// Unknown fields are skipped, and of several field 1 the last one counts, as protobuf asks.
    pub fn unwrap(message: &[u8]) -> Option<&[u8]> {
        let mut rest = message;
        let mut body: &[u8] = &[];
        while !rest.is_empty() {
            let tag = varint(&mut rest)?;
            match tag & 7 {
                0 => drop(varint(&mut rest)?),
                1 => drop(take(&mut rest, 8)?),
                2 => {
                    let len = usize::try_from(varint(&mut rest)?).ok()?;
                    let field = take(&mut rest, len)?;
                    if tag >> 3 == 1 {
                        body = field;
                    }
                }
                5 => drop(take(&mut rest, 4)?),
                _ => return None,
            }
        }
        Some(body)
    }

    const FIELD_1_BYTES: u8 = 0x0a;

    fn varint(input: &mut &[u8]) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = input.split_first()?;
            *input = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = input.split_at_checked(len)?;
        *input = rest;
        Some(taken)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn wrap(body: &[u8]) -> Vec<u8> {
            let mut out = Vec::new();
            prefix(body.len(), &mut out);
            out.extend_from_slice(body);
            out
        }

        #[test]
        fn a_body_comes_back_as_it_went() {
            for len in [0, 1, 127, 128, 16_383, 16_384, 70_000] {
                let body = vec![7; len];
                assert_eq!(unwrap(&wrap(&body)), Some(&body[..]), "length {len}");
            }
        }

        #[test]
        fn the_last_of_several_counts_and_others_are_skipped() {
            let mut message = wrap(b"old");
            message.extend([0x10, 0x96, 0x01]); // field 2, varint 150
            message.extend([0x1d, 1, 2, 3, 4]); // field 3, 4 bytes
            message.extend(wrap(b"new"));
            assert_eq!(unwrap(&message), Some(&b"new"[..]));
        }

        #[test]
        fn a_broken_message_is_none_at_every_length() {
            let message = wrap(b"abc");
            for len in 1..message.len() {
                assert_eq!(unwrap(&message[..len]), None, "length {len}");
            }
            assert_eq!(unwrap(&[0x0b]), None, "groups are no part of proto3");
        }
    }
}
