use super::*;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Data(Vec<u8>),
    Bell,
    Ended(bool),
}

/// What was said; data that came in a row is one.
fn hear(tunnel: &mut Tunnel, bytes: &[u8]) -> Vec<Said> {
    let mut input = bytes;
    let mut said: Vec<Said> = Vec::new();
    while let Some(event) = tunnel.poll(&mut input).expect("a good upstream") {
        match event {
            TunnelEvent::Data(data) => said.push(Said::Data(data.to_vec())),
            TunnelEvent::BellAnswered => said.push(Said::Bell),
            TunnelEvent::Ended { connected } => said.push(Said::Ended(connected)),
        }
    }
    assert!(input.is_empty());
    joined(said)
}

fn joined(said: Vec<Said>) -> Vec<Said> {
    let mut all: Vec<Said> = Vec::new();
    for one in said {
        match (all.last_mut(), one) {
            (Some(Said::Data(before)), Said::Data(more)) => before.extend(more),
            (_, one) => all.push(one),
        }
    }
    all
}

fn raw(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write_head(kind, flags, stream, payload.len(), &mut out);
    out.extend_from_slice(payload);
    out
}

fn settings(entries: &[Setting]) -> Vec<u8> {
    let mut out = Vec::new();
    settings::write(entries, &mut out);
    out
}

fn status(stream: u32, status: &str, flags: u8) -> Vec<u8> {
    let mut block = Vec::new();
    encoder::encode_shortest(":status", status.as_bytes(), &mut block);
    raw(Kind::Headers, flag::END_HEADERS | flags, stream, &block)
}

fn ack() -> Vec<u8> {
    raw(Kind::Settings, flag::ACK, 0, b"")
}

/// The DATA in the output, which is emptied.
fn sent(tunnel: &mut Tunnel) -> Vec<u8> {
    let output = std::mem::take(tunnel.output());
    let mut left = output.strip_prefix(&CLIENT_PREFACE[..]).unwrap_or(&output);
    let mut data = Vec::new();
    while let Some((head, rest)) = left.split_first_chunk() {
        let head = Head::parse(head);
        let (load, rest) = rest.split_at(head.length as usize);
        if head.kind == Kind::Data {
            data.extend(load);
        }
        left = rest;
    }
    data
}

fn open() -> Tunnel {
    let mut tunnel = Tunnel::new("server:7800");
    assert!(tunnel.open());
    tunnel.send(b"early");
    assert_eq!(sent(&mut tunnel), b"", "nothing before the 2xx");
    let bytes = [settings(&[]), ack(), status(1, "200", 0)].concat();
    assert_eq!(hear(&mut tunnel, &bytes), []);
    assert_eq!(sent(&mut tunnel), b"early");
    tunnel
}

#[test]
fn bytes_go_both_ways_once_the_server_is_connected() {
    let mut tunnel = open();
    tunnel.send(b"asked");
    assert_eq!(sent(&mut tunnel), b"asked");
    let bytes = [raw(Kind::Data, 0, 1, b"ans"), raw(Kind::Data, 0, 1, b"wered")].concat();
    assert_eq!(hear(&mut tunnel, &bytes), [Said::Data(b"answered".into())]);
}

#[test]
fn a_server_that_cannot_be_reached_or_goes_is_told_and_another_try_is_another_stream() {
    let mut tunnel = Tunnel::new("server:7800");
    tunnel.open();
    tunnel.send(b"lost");
    let bytes = [settings(&[]), status(1, "503", flag::END_STREAM)].concat();
    assert_eq!(hear(&mut tunnel, &bytes), [Said::Ended(false)]);
    assert!(tunnel.open());
    tunnel.send(b"again");
    assert_eq!(hear(&mut tunnel, &status(3, "200", 0)), []);
    assert_eq!(sent(&mut tunnel), b"again");
    let last = raw(Kind::Data, flag::END_STREAM, 3, b"bye");
    assert_eq!(hear(&mut tunnel, &last), [Said::Data(b"bye".into()), Said::Ended(true)]);
    assert!(tunnel.open());
    let reset = raw(Kind::ResetStream, 0, 5, &8u32.to_be_bytes());
    assert_eq!(hear(&mut tunnel, &reset), [Said::Ended(false)]);
    assert_eq!(hear(&mut tunnel, &raw(Kind::Data, 0, 5, b"late")), []);
    assert_eq!(hear(&mut tunnel, &raw(Kind::GoAway, 0, 0, &[0; 8])), []);
    assert!(!tunnel.open());
}

#[test]
fn a_connection_that_is_given_up_is_reset_and_says_nothing_more() {
    let mut tunnel = open();
    tunnel.close();
    let output = std::mem::take(tunnel.output());
    assert_eq!(output, raw(Kind::ResetStream, 0, 1, &8u32.to_be_bytes()));
    assert_eq!(hear(&mut tunnel, &raw(Kind::Data, flag::END_STREAM, 1, b"late")), []);
    tunnel.close();
    assert!(tunnel.output().is_empty());
}

#[test]
fn the_bell_is_answered_once_for_each_time_it_is_rung() {
    let mut tunnel = Tunnel::new("server:7800");
    assert!(tunnel.ring());
    assert!(!tunnel.ring(), "under way");
    assert_eq!(hear(&mut tunnel, &[settings(&[]), ack()].concat()), [Said::Bell]);
    tunnel.output().clear();
    assert!(tunnel.ring());
    assert_eq!(*tunnel.output(), settings(&[]));
    assert_eq!(hear(&mut tunnel, &ack()), [Said::Bell]);
    assert!(tunnel.poll(&mut &ack()[..]).is_err(), "an answer to nothing");
}

#[test]
fn windows_hold_back_what_the_server_has_no_room_for() {
    let mut tunnel = Tunnel::new("server:7800");
    tunnel.open();
    let small = [Setting::InitialWindowSize(4), Setting::MaxFrameSize(16_384)];
    hear(&mut tunnel, &[settings(&small), status(1, "200", 0)].concat());
    tunnel.send(b"0123456789");
    assert_eq!((sent(&mut tunnel), tunnel.unsent()), (b"0123".to_vec(), 6));
    hear(&mut tunnel, &raw(Kind::WindowUpdate, 0, 1, &3u32.to_be_bytes()));
    assert_eq!(sent(&mut tunnel), b"456");
    hear(&mut tunnel, &settings(&[Setting::InitialWindowSize(100)]));
    assert_eq!(sent(&mut tunnel), b"789");
    let mut received = 0;
    let mut widened = 0;
    while received < 3 * WINDOW {
        hear(&mut tunnel, &raw(Kind::Data, 0, 1, &[7; 16_384]));
        received += 16_384;
        widened += usize::from(!tunnel.output().is_empty());
        tunnel.output().clear();
    }
    assert_eq!(widened, 6);
}

#[test]
fn a_conversation_is_the_same_cut_anywhere() {
    let mut continued = raw(Kind::Headers, 0, 1, &[0x08]);
    continued.extend(raw(Kind::Continuation, flag::END_HEADERS, 1, b"\x03200"));
    let bytes = [
        settings(&[Setting::InitialWindowSize(1000)]),
        ack(),
        status(1, "103", 0),
        continued,
        raw(Kind::Data, 0, 1, b"one"),
        raw(Kind::Ping, 0, 0, b"opaque!!"),
        raw(Kind::Unknown(99), 0, 0, b"extension"),
        raw(Kind::Data, 0, 1, b""),
        raw(Kind::Data, flag::END_STREAM, 1, b"two"),
        raw(Kind::Data, 0, 1, b"stray"),
    ]
    .concat();
    let play = |pieces: &[&[u8]]| {
        let mut tunnel = Tunnel::new("server:7800");
        tunnel.open();
        tunnel.ring();
        tunnel.send(b"hello");
        let said = pieces.iter().flat_map(|piece| hear(&mut tunnel, piece)).collect();
        (joined(said), std::mem::take(tunnel.output()))
    };
    let whole = play(&[&bytes]);
    let expected = [Said::Bell, Said::Data(b"onetwo".into()), Said::Ended(true)];
    assert_eq!(whole.0, expected);
    for cut in 0..=bytes.len() {
        assert_eq!(play(&[&bytes[..cut], &bytes[cut..]]), whole, "cut at {cut}");
    }
}

#[test]
fn what_an_upstream_may_not_send_ends_the_connection() {
    let cases = [
        ("a large frame", raw(Kind::Data, 0, 1, &[0; 16_385])),
        ("PUSH_PROMISE", raw(Kind::PushPromise, 0, 1, &[0; 4])),
        ("CONTINUATION alone", raw(Kind::Continuation, 0, 1, b"")),
        ("a broken block", raw(Kind::Headers, flag::END_HEADERS, 1, b"\xff\xff")),
        ("a flood", raw(Kind::Ping, 0, 0, &[0; 8]).repeat(10_001)),
        ("an endless block", {
            let piece = raw(Kind::Continuation, 0, 1, &[0x82; 16_000]);
            [raw(Kind::Headers, 0, 1, b""), piece.repeat(2)].concat()
        }),
    ];
    for (what, bytes) in cases {
        let mut tunnel = Tunnel::new("server:7800");
        tunnel.open();
        let mut input = &bytes[..];
        let error = loop {
            match tunnel.poll(&mut input) {
                Err(error) => break Some(error),
                Ok(None) => break None,
                Ok(Some(_)) => {}
            }
        };
        assert!(error.is_some(), "{what}");
    }
}
