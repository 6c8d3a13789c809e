//! Flow control both ways, frame sizes, queues.

use super::script::*;
use crate::call::Code;
use crate::grpc::client::{ClientLeg, Limits, StartError, StreamId};
use crate::grpc::frame::Kind;
use crate::grpc::reason::ErrorCode;
use crate::grpc::settings::{MAX_WINDOW, Setting};

/// A leg whose upstream gives each stream a window of `window`.
fn narrow(window: u32) -> ClientLeg {
    leg_with(&Limits::default(), &[Setting::InitialWindowSize(window)])
}

/// The DATA frames in the output: stream, length, and whether the stream ends.
fn sent(leg: &mut ClientLeg) -> Vec<(u32, usize, bool)> {
    audit(leg);
    let frames = written(leg).into_iter().filter(|(head, _)| head.kind == Kind::Data);
    frames.map(|(head, load)| (head.stream, load.len(), head.has(END_STREAM))).collect()
}

#[test]
fn a_request_is_one_frame_with_prefix_and_end() {
    let mut leg = narrow(100);
    leg.start(0, &[], b"\x83\x86", &[b"ab", b"", b"cde"]).unwrap();
    let frames = written(&mut leg);
    assert_eq!(frames[0].1, b"\x20\x3f\xe1\x1f\x83\x86");
    assert_eq!(frames[0].0.flags, END_HEADERS);
    assert_eq!(frames[1].1, b"\0\0\0\0\x05abcde");
    assert_eq!(frames[1].0.flags, END_STREAM);
}

#[test]
fn a_stream_window_holds_a_request_back_until_it_is_widened() {
    let mut leg = narrow(10);
    start(&mut leg, 0, &[7; 20]);
    assert_eq!(sent(&mut leg), [(1, 10, false)]);
    heard(&mut leg, &window_update(0, 1000));
    assert_eq!(sent(&mut leg), []);
    heard(&mut leg, &window_update(1, 14));
    assert_eq!(sent(&mut leg), [(1, 14, false)]);
    heard(&mut leg, &window_update(1, 1));
    assert_eq!(sent(&mut leg), [(1, 1, true)]);
    assert_eq!(heard(&mut leg, &[answer(1), done(1)].concat()), [end(0, Code::Ok, "")]);
}

#[test]
fn whole_requests_use_the_connection_window_up_as_well() {
    let mut leg = narrow(MAX_WINDOW);
    for token in 0..5 {
        start(&mut leg, token, &vec![0; 16_379]);
    }
    let whole = |stream| (stream, 16_384, true);
    let cut = (7, 16_383, false);
    assert_eq!(sent(&mut leg), [whole(1), whole(3), whole(5), cut]);
    heard(&mut leg, &window_update(0, 1 + 16_384));
    assert_eq!(sent(&mut leg), [(7, 1, true), whole(9)]);
}

#[test]
fn the_connection_window_is_shared_in_turns() {
    let mut leg = narrow(MAX_WINDOW);
    start(&mut leg, 0, &vec![0; 100_000]);
    let first: usize = sent(&mut leg).iter().map(|(_, length, _)| length).sum();
    assert_eq!(first, 65_535);
    start(&mut leg, 1, &vec![0; 20_000]);
    assert_eq!(sent(&mut leg), []);
    heard(&mut leg, &window_update(0, 40_000));
    assert_eq!(
        sent(&mut leg),
        [(1, 16_384, false), (3, 16_384, false), (1, 40_000 - 2 * 16_384, false)]
    );
    heard(&mut leg, &window_update(0, 40_000));
    assert_eq!(
        sent(&mut leg),
        [(3, 20_005 - 16_384, true), (1, 100_005 - 65_535 - 16_384 - 7_232, true)]
    );
}

#[test]
fn a_stream_that_is_stuck_does_not_hold_up_the_others() {
    let mut leg = narrow(10);
    start(&mut leg, 0, &[0; 100]);
    start(&mut leg, 1, b"abc");
    assert_eq!(sent(&mut leg), [(1, 10, false), (3, 8, true)]);
}

#[test]
fn a_stream_among_stuck_ones_sends_all_that_it_may() {
    let mut leg = narrow(10);
    for token in 0..3 {
        start(&mut leg, token, &[0; 100]);
    }
    start(&mut leg, 3, &vec![0; 50_000]);
    sent(&mut leg);
    heard(&mut leg, &window_update(7, 40_000));
    let frame = (7, 16_384, false);
    assert_eq!(sent(&mut leg), [frame, frame, (7, 40_000 - 2 * 16_384, false)]);
}

#[test]
fn the_initial_window_can_change_in_flight_and_become_negative() {
    let mut leg = narrow(10);
    start(&mut leg, 0, &[0; 45]);
    assert_eq!(sent(&mut leg), [(1, 10, false)]);
    // 10 sent of a window that is now 4: 6 below zero.
    heard(&mut leg, &settings(&[Setting::InitialWindowSize(4)]));
    heard(&mut leg, &window_update(1, 6));
    assert_eq!(sent(&mut leg), []);
    heard(&mut leg, &window_update(1, 1));
    assert_eq!(sent(&mut leg), [(1, 1, false)]);
    heard(&mut leg, &settings(&[Setting::InitialWindowSize(1000)]));
    assert_eq!(sent(&mut leg), [(1, 39, true)]);
}

#[test]
fn frames_are_as_large_as_the_upstream_allows() {
    let mut leg = narrow(MAX_WINDOW);
    start(&mut leg, 0, &vec![0; 40_000]);
    assert_eq!(sent(&mut leg), [(1, 16_384, false), (1, 16_384, false), (1, 7_237, true)]);
    heard(&mut leg, &settings(&[Setting::MaxFrameSize(20_000)]));
    start(&mut leg, 1, &vec![0; 19_995]);
    assert_eq!(sent(&mut leg), [(3, 20_000, true)]);
}

#[test]
fn a_long_header_block_is_continued() {
    let mut leg = leg(&Limits::default());
    let long = vec![0x83; 40_000];
    leg.start(0, &[], &long, &[b""]).unwrap();
    let frames = written(&mut leg);
    let kinds: Vec<_> = frames.iter().map(|(head, _)| (head.kind, head.flags)).collect();
    assert_eq!(
        kinds,
        [
            (Kind::Headers, 0),
            (Kind::Continuation, 0),
            (Kind::Continuation, END_HEADERS),
            (Kind::Data, END_STREAM)
        ]
    );
    let all: Vec<u8> = frames[..3].iter().flat_map(|(_, load)| load.clone()).collect();
    assert_eq!(all, [&b"\x20\x3f\xe1\x1f"[..], &long].concat());
}

#[test]
fn calls_wait_in_order_within_bounds() {
    let limits = Limits { max_queued_calls: 2, ..Limits::default() };
    let mut leg = leg_with(&limits, &[Setting::MaxConcurrentStreams(0)]);
    assert!(leg.has_room());
    start(&mut leg, 0, b"a");
    start(&mut leg, 1, b"b");
    assert!(!leg.has_room());
    assert_eq!(leg.start(2, &[], b"", &[b""]), Err(StartError::Full));
    assert_eq!(sent(&mut leg), []);
    heard(&mut leg, &settings(&[Setting::MaxConcurrentStreams(1)]));
    assert_eq!(sent(&mut leg), [(1, 6, true)]);
    assert!(leg.has_room());
    // Settings that do not name it leave it as it is.
    heard(&mut leg, &settings(&[Setting::MaxFrameSize(20_000)]));
    assert_eq!(sent(&mut leg), []);
    heard(&mut leg, &settings(&[Setting::MaxConcurrentStreams(9)]));
    assert_eq!(sent(&mut leg), [(3, 6, true)]);
}

#[test]
fn bytes_that_wait_are_bounded_and_given_back() {
    let limits = Limits { max_queued_bytes: 100, ..Limits::default() };
    let mut leg = leg_with(&limits, &[Setting::InitialWindowSize(0)]);
    let large = start(&mut leg, 0, &[0; 200]);
    assert!(!leg.has_room());
    assert_eq!(leg.start(1, &[], b"", &[b""]), Err(StartError::Full));
    leg.cancel(StreamId(large));
    assert!(leg.has_room());
    start(&mut leg, 1, &[0; 95 - 5]);
    assert!(leg.has_room(), "95 bytes of 100");
    let exact = start(&mut leg, 2, b"");
    assert!(!leg.has_room(), "100 bytes of 100");
    leg.cancel(StreamId(exact));
    let large = start(&mut leg, 3, &[0; 200]);
    assert!(!leg.has_room());
    heard(&mut leg, &window_update(large, 201));
    assert!(leg.has_room());
    heard(&mut leg, &reset(large, ErrorCode::Cancel));
    assert_eq!(leg.in_flight(), 1);
    audit(&mut leg);
}

#[test]
fn before_the_settings_a_hundred_streams_are_opened_and_ours_is_the_limit_after() {
    let limits = Limits { max_streams: 150, ..Limits::default() };
    let mut leg = ClientLeg::new(&limits);
    for token in 0..200 {
        start(&mut leg, token, b"");
    }
    assert_eq!(sent(&mut leg).len(), 100);
    heard(&mut leg, &settings(&[]));
    assert_eq!(sent(&mut leg).len(), 50);
}

#[test]
fn an_answer_before_the_request_is_out_cancels_the_rest() {
    let mut leg = narrow(10);
    start(&mut leg, 0, &[0; 100]);
    assert_eq!(heard(&mut leg, &[answer(1), done(1)].concat()), [end(0, Code::Ok, "")]);
    assert_eq!(resets(&mut leg), [(1, ErrorCode::Cancel)]);
    assert_eq!(heard(&mut leg, &window_update(1, 1000)), []);
    assert_eq!(sent(&mut leg), []);
}

#[test]
fn windows_are_widened_when_half_is_used() {
    let limits = Limits { stream_window: 1000, connection_window: 65_535, ..Limits::default() };
    let mut leg = leg(&limits);
    start(&mut leg, 0, b"");
    start(&mut leg, 1, b"");
    leg.output().clear();
    heard(&mut leg, &[answer(1), answer(3), data(1, &message(&[0; 494]))].concat());
    assert_eq!(summary(&mut leg), []);
    heard(&mut leg, &data(1, &message(b"")));
    let update = written(&mut leg);
    assert_eq!((update[0].0.stream, update[0].1.as_slice()), (1, &504u32.to_be_bytes()[..]));
    // Stream 3 has its own count, the connection counts both, padding included.
    let padded = raw(Kind::Data, PADDED, 3, &[&[99][..], &[0; 99]].concat());
    for _ in 0..4 {
        heard(&mut leg, &padded);
    }
    assert_eq!(summary(&mut leg), []);
    heard(&mut leg, &padded);
    assert_eq!(summary(&mut leg), [(Kind::WindowUpdate, 3, 4)]);
    let mut updates = Vec::new();
    for _ in 0..100 {
        heard(&mut leg, &data(1, &message(&[0; 395])));
        updates.extend(written(&mut leg));
    }
    let widened = |stream| -> u32 {
        let of = updates.iter().filter(|(head, _)| head.stream == stream);
        of.map(|(_, load)| u32::from_be_bytes(load.clone().try_into().unwrap())).sum()
    };
    assert_eq!(widened(1), 40_000);
    assert!((32_767..=41_004).contains(&widened(0)));
}

#[test]
fn no_window_is_wasted_on_a_stream_that_ended() {
    let limits = Limits { stream_window: 10, ..Limits::default() };
    let mut leg = leg(&limits);
    start(&mut leg, 0, b"");
    leg.output().clear();
    heard(&mut leg, &[answer(1), raw(Kind::Data, END_STREAM, 1, &message(b"12345"))].concat());
    assert_eq!(summary(&mut leg), []);
}

#[test]
fn data_beyond_the_windows_is_refused() {
    let limits = Limits { stream_window: 10, ..Limits::default() };
    let mut leg = leg(&limits);
    start(&mut leg, 0, b"");
    let text = "more DATA than the stream's window admits";
    let said = heard(&mut leg, &[answer(1), data(1, &[0; 11])].concat());
    assert_eq!(said, [end(0, Code::Internal, text)]);
    assert_eq!(resets(&mut leg), [(1, ErrorCode::FlowControlError)]);
}

#[test]
fn a_cancelled_streams_data_still_counts_for_the_connection() {
    let limits = Limits { connection_window: 65_535, ..Limits::default() };
    let mut leg = leg(&limits);
    let id = start(&mut leg, 0, b"");
    leg.cancel(StreamId(id));
    leg.output().clear();
    heard(&mut leg, &[data(1, &[0; 16_384]), data(1, &[0; 16_383])].concat());
    let update = written(&mut leg);
    assert_eq!((update[0].0.kind, update[0].0.stream), (Kind::WindowUpdate, 0));
    assert_eq!(update[0].1, 32_767u32.to_be_bytes());
}

#[test]
fn windows_that_grow_too_large_are_refused() {
    // The connection's window is used up, so that of the stream can only grow.
    let stuck = || {
        let mut leg = narrow(0);
        start(&mut leg, 0, &vec![0; 100_000]);
        heard(&mut leg, &window_update(1, 65_536));
        assert_eq!(sent(&mut leg).iter().map(|(_, length, _)| length).sum::<usize>(), 65_535);
        leg
    };
    let mut leg = stuck();
    let said = heard(&mut leg, &window_update(1, MAX_WINDOW));
    assert_eq!(said, [end(0, Code::Internal, "upstream made the stream's window too large")]);
    assert_eq!(resets(&mut leg), [(1, ErrorCode::FlowControlError)]);

    let mut leg = narrow(0);
    start(&mut leg, 0, &[0; 100]);
    assert_eq!(refused(&mut leg, &window_update(0, MAX_WINDOW)), ErrorCode::FlowControlError);

    let mut leg = stuck();
    assert_eq!(heard(&mut leg, &window_update(1, MAX_WINDOW - 1)), []);
    let wrong = settings(&[Setting::InitialWindowSize(10)]);
    assert_eq!(refused(&mut leg, &wrong), ErrorCode::FlowControlError);
}

#[test]
fn widening_by_zero_is_an_error_of_the_stream_or_of_the_connection() {
    let mut leg = narrow(10);
    start(&mut leg, 0, &[0; 100]);
    let said = heard(&mut leg, &window_update(1, 0));
    assert_eq!(said, [end(0, Code::Internal, "upstream widened the stream's window by 0")]);
    assert_eq!(resets(&mut leg), [(1, ErrorCode::ProtocolError)]);
    // The highest bit is reserved, and no part of the number.
    assert_eq!(refused(&mut leg, &window_update(0, 1 << 31)), ErrorCode::ProtocolError);
    assert_eq!(refused(&mut narrow(10), &window_update(0, 0)), ErrorCode::ProtocolError);
}

/// An upstream that sends messages of these lengths as the windows admit, in frames of at most
/// `frame` bytes. The most that it was ever admitted to send at once.
fn honest(window: u32, lengths: &[usize], frame: usize) -> u64 {
    let limits = Limits { stream_window: window, ..Limits::default() };
    let mut leg = leg(&limits);
    start(&mut leg, 0, b"");
    heard(&mut leg, &answer(1));
    leg.output().clear();
    let all: Vec<u8> = lengths.iter().flat_map(|length| message(&vec![5; *length])).collect();
    let (mut sent, mut admitted, mut most) = (0usize, u64::from(window), u64::from(window));
    let mut messages = Vec::new();
    while sent < all.len() {
        let length = frame.min(all.len() - sent).min(admitted as usize);
        assert!(length > 0, "stuck after {sent} of {} bytes", all.len());
        messages.extend(heard(&mut leg, &data(1, &all[sent..sent + length])));
        sent += length;
        admitted -= length as u64;
        for (head, load) in written(&mut leg) {
            if head.kind == Kind::WindowUpdate && head.stream == 1 {
                admitted += u64::from(u32::from_be_bytes(load.try_into().unwrap()));
            }
        }
        most = most.max(admitted);
    }
    let expected = lengths.iter().map(|length| Said::Message(0, vec![5; *length]));
    assert!(messages.into_iter().eq(expected));
    most
}

#[test]
fn a_long_message_gets_room_at_once_and_short_ones_no_more_than_the_window() {
    assert_eq!(honest(65_536, &[1000; 400], 16_384), 65_536);
    let most = honest(65_536, &[1_000_000, 10, 2_000_000], 16_384);
    assert!((2_000_000..2_100_000).contains(&most), "{most}");
    assert!(honest(65_536, &[65_000; 40], 16_384) <= 65_536);
}

proptest::proptest! {
    #[test]
    fn an_upstream_that_keeps_to_its_windows_is_neither_stuck_nor_refused(
        window in 1u32..3000,
        lengths in proptest::collection::vec(0usize..8000, 1..12),
        frame in 1usize..5000,
    ) {
        let longest = lengths.iter().max().copied().unwrap_or(0) as u64;
        assert!(honest(window, &lengths, frame) <= 2 * (u64::from(window) + longest + 5));
    }
}
