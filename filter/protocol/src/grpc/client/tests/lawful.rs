//! Random lawful upstreams: whatever the interleaving, the continuations, the padding, the frame
//! sizes and the pieces in which it all arrives, each call hears its messages and its end.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::script::*;
use crate::call::Code;
use crate::grpc::client::{ClientLeg, Limits};
use crate::grpc::frame::Kind;
use crate::grpc::reason::ErrorCode;

/// How a header block is cut into frames, and whether it is padded.
#[derive(Clone, Debug)]
struct Cut {
    at: Vec<Index>,
    padding: Option<u8>,
}

fn cut() -> impl Strategy<Value = Cut> {
    (
        prop_oneof![3 => vec(any::<Index>(), 0..1), 1 => vec(any::<Index>(), 1..4)],
        any::<Option<u8>>(),
    )
        .prop_map(|(at, padding)| Cut { at, padding })
}

/// What one call gets.
#[derive(Clone, Debug)]
struct Response {
    early: Vec<Cut>,
    head: Cut,
    messages: Vec<Vec<u8>>,
    /// Lengths of the DATA frames, over and over, and the padding of each.
    frames: Vec<(usize, Option<u8>)>,
    end: Ending,
}

#[derive(Clone, Debug)]
enum Ending {
    Trailers(Code, bool, Cut),
    Reset,
}

fn response() -> impl Strategy<Value = Response> {
    let text = prop_oneof![vec(any::<u8>(), 0..8), vec(any::<u8>(), 0..300)];
    let end = prop_oneof![
        5 => (0u64..17, any::<bool>(), cut())
            .prop_map(|(code, said, cut)| Ending::Trailers(Code::from_number(code), said, cut)),
        1 => Just(Ending::Reset),
    ];
    let frames = vec((1usize..200, prop_oneof![3 => Just(None), 1 => any::<Option<u8>>()]), 1..5);
    (vec(cut(), 0..2), cut(), vec(text, 0..5), frames, end).prop_map(
        |(early, head, messages, frames, end)| Response { early, head, messages, frames, end },
    )
}

impl Response {
    /// The frames, in units that nothing may come between.
    fn units(&self, stream: u32) -> Vec<Vec<u8>> {
        let mut units = Vec::new();
        for cut in &self.early {
            units.push(cut.headers(stream, 0, &[(":status", "103"), ("link", "x")]));
        }
        let head = [(":status", "200"), ("content-type", "application/grpc"), ("x-a", "b")];
        units.push(self.head.headers(stream, 0, &head));
        let all: Vec<u8> = self.messages.iter().flat_map(|text| message(text)).collect();
        let mut left = &all[..];
        let mut frames = self.frames.iter().cycle();
        while !left.is_empty() {
            let (length, padding) = frames.next().unwrap();
            let (piece, rest) = left.split_at((*length).min(left.len()));
            left = rest;
            units.push(match padding {
                None => data(stream, piece),
                Some(count) => {
                    let padded = [&[*count], piece, &vec![0; usize::from(*count)]].concat();
                    raw(Kind::Data, PADDED, stream, &padded)
                }
            });
        }
        units.push(match &self.end {
            Ending::Reset => reset(stream, ErrorCode::Cancel),
            Ending::Trailers(code, said, cut) => {
                let number = code.number().to_string();
                let mut fields = vec![("grpc-status", number.as_str())];
                if *said {
                    fields.push(("grpc-message", "so%21"));
                }
                cut.headers(stream, END_STREAM, &fields)
            }
        });
        units
    }

    fn expected(&self, token: u32) -> Vec<Said> {
        let messages = self.messages.iter().map(|text| Said::Message(token, text.clone()));
        let end = match self.end {
            Ending::Reset => end(token, Code::Cancelled, "upstream cancelled the stream"),
            Ending::Trailers(code, true, _) => end(token, code, "so!"),
            Ending::Trailers(code, false, _) => end(token, code, ""),
        };
        messages.chain([end]).collect()
    }
}

impl Cut {
    fn headers(&self, stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
        let coded = block(fields);
        let mut places: Vec<usize> = self.at.iter().map(|at| at.index(coded.len())).collect();
        places.sort_unstable();
        places.push(coded.len());
        let mut out = Vec::new();
        let mut from = 0;
        let last = places.len() - 1;
        for (number, place) in places.into_iter().enumerate() {
            let piece = &coded[from..place];
            from = place;
            let end = if number == last { END_HEADERS } else { 0 };
            out.extend(match (number, self.padding) {
                (0, Some(count)) => {
                    let padded = [&[count], piece, &vec![0; usize::from(count)]].concat();
                    raw(Kind::Headers, flags | end | PADDED, stream, &padded)
                }
                (0, None) => raw(Kind::Headers, flags | end, stream, piece),
                _ => raw(Kind::Continuation, end, stream, piece),
            });
        }
        out
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn every_call_hears_its_own_whatever_the_order_and_the_pieces(
        responses in vec(response(), 1..10),
        order in vec(any::<Index>(), 1..100),
        pieces in vec(1usize..400, 1..30),
        idle in vec(any::<Index>(), 0..5),
    ) {
        let mut leg = ClientLeg::new(&Limits::default());
        let mut waiting = Vec::new();
        for (token, response) in (0..).zip(&responses) {
            let stream = start(&mut leg, token, b"request");
            let mut units = response.units(stream);
            units.reverse();
            waiting.push(units);
        }
        let mut bytes = [settings(&[]), settings_ack()].concat();
        let mut order = order.iter().cycle();
        let mut units = 0;
        while !waiting.is_empty() {
            let which = order.next().unwrap().index(waiting.len());
            bytes.extend(waiting[which].pop().unwrap());
            if waiting[which].is_empty() {
                waiting.swap_remove(which);
            }
            units += 1;
            for place in &idle {
                if place.index(60) == units {
                    bytes.extend([ping(0), settings(&[]), raw(Kind::Unknown(99), 5, 7, b"?")].concat());
                }
            }
        }
        let mut said: BTreeMap<u32, Vec<Said>> = BTreeMap::new();
        let mut left = &bytes[..];
        for length in pieces.iter().cycle() {
            let (piece, rest) = left.split_at((*length).min(left.len()));
            left = rest;
            for event in heard(&mut leg, piece) {
                let (Said::Message(token, _) | Said::End(token, ..)) = event else {
                    panic!("{event:?}");
                };
                said.entry(token).or_default().push(event);
            }
            if left.is_empty() {
                break;
            }
        }
        for (token, response) in (0..).zip(&responses) {
            prop_assert_eq!(&said[&token], &response.expected(token));
        }
        prop_assert_eq!(leg.in_flight(), 0);
    }
}
