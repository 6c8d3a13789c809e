//! What holds for every layout and every frame.

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::random::{Choices, layout};
use super::*;
use crate::layout::plan::{Part, ReplyCommand};
use crate::layout::{
    Command, Correlation, EncodeError, FieldValue, Flags, LayoutSpec, Onward, Push, Reply, Request,
};

fn choices() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..400)
}

/// A random layout, if it compiles.
fn compiled(choices: &mut Choices<'_>) -> Result<Layout, TestCaseError> {
    let spec = layout(choices);
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<LayoutSpec>(&json).unwrap(), spec, "{json}");
    Layout::compile(spec).map_err(|error| {
        assert!(!error.path.is_empty() && !error.problem.is_empty(), "{error:?}");
        TestCaseError::reject(error.to_string())
    })
}

/// What a random frame is made from.
struct Material {
    number: u64,
    text: Vec<u8>,
    sequence: u64,
    status: i64,
    body: Vec<u8>,
    extension: Vec<u8>,
    compress: bool,
    seal: bool,
}

impl Material {
    fn new(layout: &Layout, choices: &mut Choices<'_>) -> Self {
        let room = layout.command.shape.text_room().unwrap_or_default();
        // Room for what replies append.
        let text = choices.text(room.saturating_sub(1)).into_bytes();
        let sequence = match layout.correlation() {
            Correlation::Sequence => {
                choices.bits() & layout.sequence.map_or(0, |slot| slot.shape.mask())
            }
            Correlation::Order => 0,
        };
        let run = 1 + choices.below(200);
        // Around 128 a LEB128 length takes a byte more.
        let len = if choices.chance(2) { 90 + choices.below(50) } else { choices.below(500) };
        let body = (0..len).map(|n| (n / run) as u8 ^ 0x33).collect();
        let extension = match layout.lengths.head {
            crate::layout::plan::Head::Declared => Vec::new(),
            _ => (0..choices.below(40)).map(|n| n as u8).collect(),
        };
        Self {
            number: choices.bits() & layout.command.shape.mask(),
            text,
            sequence,
            status: choices.below(256) as i64 - 128,
            body,
            extension,
            compress: choices.chance(2),
            seal: choices.chance(3),
        }
    }

    fn command(&self, layout: &Layout) -> Command<'_> {
        if layout.has_text_commands() {
            Command::Text(&self.text)
        } else {
            Command::Number(self.number)
        }
    }
}

/// What of `flags` comes back through a layout: a kind says one thing at a time, and each bit
/// what it is for.
fn survives(layout: &Layout, flags: Flags) -> Flags {
    let kind = layout.kind.as_ref().map_or(Flags::NONE, |kind| {
        match (flags.reply(), flags.push(), flags.one_way()) {
            (_, true, _) if kind.push.is_some() => Flags::PUSH,
            (_, true, _) => Flags::REPLY,
            (true, ..) if flags.error() && kind.error.is_some() => Flags::REPLY.with(Flags::ERROR),
            (true, ..) => Flags::REPLY,
            (_, _, true) if kind.one_way.is_some() => Flags::ONE_WAY,
            _ => Flags::NONE,
        }
    });
    layout
        .flags
        .iter()
        .flat_map(|field| &field.bits)
        .filter(|bit| flags.contains(bit.flag))
        .fold(kind, |sum, bit| sum.with(bit.flag))
}

/// Checks a frame's body against what was written: opened and decompressed it is the same.
fn same_body(
    layout: &Layout,
    frame: &Frame<'_>,
    sent: &Material,
    prefix: usize,
    base: Flags,
) -> TestCaseResult {
    let len = sent.body.len() + prefix;
    let plain = if sent.seal {
        ToySeal::open(layout, frame).expect("the seal holds")
    } else {
        frame.body.to_vec()
    };
    let compressed = plain.len() < len;
    let flags = base.with_if(sent.seal, Flags::SEALED).with_if(compressed, Flags::COMPRESSED);
    prop_assert_eq!(frame.flags, survives(layout, flags));
    prop_assert!(!compressed || sent.compress);
    let mut scratch = Vec::new();
    let flags = Flags::NONE.with_if(compressed, Flags::COMPRESSED);
    let body = layout.open_body(flags, &plain, len, &mut scratch).unwrap();
    prop_assert_eq!(&body[prefix..], &sent.body);
    if compressed {
        let mut small = Vec::new();
        let bomb = layout.open_body(flags, &plain, len - 1, &mut small);
        prop_assert_eq!(bomb, Err(FrameError::BodyTooLarge { max: len as u64 - 1 }));
    }
    Ok(())
}

fn expected_reply(layout: &Layout, sent: &Material) -> (u64, Vec<u8>) {
    let number = match &layout.reply_command {
        ReplyCommand::Same | ReplyCommand::Append(_) | ReplyCommand::Texts(_) => sent.number,
        ReplyCommand::Set(bit) => sent.number | bit,
        ReplyCommand::Add(more) => {
            (i128::from(sent.number) + i128::from(*more)) as u64 & layout.command.shape.mask()
        }
        ReplyCommand::Numbers(pairs) => {
            pairs.iter().find(|(from, _)| *from == sent.number).map_or(sent.number, |(_, to)| *to)
        }
    };
    let text = match &layout.reply_command {
        ReplyCommand::Append(suffix) => [&sent.text, &suffix[..]].concat(),
        _ => sent.text.clone(),
    };
    (number, text)
}

fn is_command(command: Command<'_>, number: u64, text: &[u8]) -> bool {
    match command {
        Command::Number(found) => found == number,
        Command::Text(found) => found == text,
    }
}

fn round_trip(bytes: &[u8]) -> TestCaseResult {
    let mut choices = Choices::new(bytes);
    let layout = compiled(&mut choices)?;
    let sent = Material::new(&layout, &mut choices);
    let one_way = choices.chance(2);
    let mut out = vec![0xee];
    let parts = sent.body.split_at(choices.below(sent.body.len() + 1));
    let request = Request {
        one_way,
        compress: sent.compress,
        extension: &sent.extension,
        ..Request::new(sent.command(&layout), sent.sequence, &[])
    };
    let mut seal = sent.seal.then_some(ToySeal);
    let seal = seal.as_mut().map(|seal| seal as &mut dyn FrameSeal);
    let body = [parts.0, parts.1];
    layout.encode_request(Request { body: &body, ..request }, seal, &mut out).unwrap();
    prop_assert_eq!(out.remove(0), 0xee);

    arrives_in_pieces(&layout, &out);
    let frame = whole(&layout, &out);
    prop_assert!(is_command(frame.command, sent.number, &sent.text));
    prop_assert_eq!(frame.sequence, sent.sequence);
    prop_assert_eq!(frame.extension(), &sent.extension);
    prop_assert_eq!(frame.raw.len(), frame.header.len() + frame.body.len() + frame.trailer.len());
    same_body(&layout, &frame, &sent, 0, Flags::NONE.with_if(one_way, Flags::ONE_WAY))?;

    passed_on(&layout, &frame, &sent, choices.bits())?;
    answered(&layout, &frame, &sent)?;
    pushed(&layout, &sent)
}

/// A frame goes on as it came, but for what is said to differ.
fn passed_on(layout: &Layout, frame: &Frame<'_>, sent: &Material, bits: u64) -> TestCaseResult {
    let opened =
        if sent.seal { ToySeal::open(layout, frame).unwrap() } else { frame.body.to_vec() };
    let same = Onward { sequence: frame.sequence, body: &opened, one_way: false, stamps: &[] };
    let mut plain = vec![0xee];
    let frame = &Frame { body: &opened, ..*frame };
    layout.encode_onward(frame, same, None, &mut plain).unwrap();
    prop_assert_eq!(plain.remove(0), 0xee);
    prop_assert!(sent.seal || plain == frame.raw);
    let plain = whole(layout, &plain);
    prop_assert_eq!(plain.flags, frame.flags.without(Flags::SEALED));
    prop_assert_eq!(plain.body, &opened);

    let mut sealed = Vec::new();
    let mut seal = sent.seal.then_some(ToySeal);
    let seal = seal.as_mut().map(|seal| seal as &mut dyn FrameSeal);
    layout.encode_onward(&plain, same, seal, &mut sealed).unwrap();
    prop_assert!(sealed == frame.raw);

    let sequence = bits & layout.sequence.map_or(0, |slot| slot.shape.mask());
    let reserved = layout.header.iter().find(|field| field.part == Part::Reserved);
    let stamp = reserved.map(|field| layout.stamp(&field.name, None).unwrap());
    let mut other = Vec::new();
    let changed = Onward { sequence, body: &opened, one_way: false, stamps: stamp.as_slice() };
    layout.encode_onward(&plain, changed, None, &mut other).unwrap();
    let other = whole(layout, &other);
    prop_assert_eq!(other.sequence, sequence);
    prop_assert_eq!((other.command, other.status), (frame.command, frame.status));
    prop_assert_eq!((other.body, other.extension()), (&opened[..], frame.extension()));

    let mut silent = Vec::new();
    layout.encode_onward(&plain, Onward { one_way: true, ..same }, None, &mut silent).unwrap();
    let flags = plain.flags.with_if(layout.expresses().one_way(), Flags::ONE_WAY);
    prop_assert_eq!(whole(layout, &silent).flags, flags);
    Ok(())
}

fn answered(layout: &Layout, request: &Frame<'_>, sent: &Material) -> TestCaseResult {
    let error = sent.status < 0;
    let reply = Reply { status: sent.status, error, body: &[&sent.body], compress: sent.compress };
    prop_assert!(layout.fits_status(sent.status));
    let mut out = Vec::new();
    let mut seal = sent.seal.then_some(ToySeal);
    let seal = seal.as_mut().map(|seal| seal as &mut dyn FrameSeal);
    layout.encode_reply(&layout.seed(request), reply, seal, &mut out).unwrap();
    arrives_in_pieces(layout, &out);
    let frame = whole(layout, &out);
    let (number, text) = expected_reply(layout, sent);
    prop_assert!(is_command(frame.command, number, &text), "{:?}", frame.command);
    prop_assert_eq!(frame.sequence, sent.sequence);
    prop_assert_eq!(frame.version, request.version);
    let prefix = layout.status_prefix.and_then(|shape| shape.fixed_width()).unwrap_or_default();
    same_body(layout, &frame, sent, prefix, Flags::REPLY.with_if(error, Flags::ERROR))?;
    if layout.status.is_some() {
        prop_assert_eq!(frame.status, sent.status);
    }
    // A sealed body's length says nothing: a compressed one with its tag can be as long.
    if prefix > 0 && !sent.seal && frame.body.len() == sent.body.len() + prefix {
        prop_assert_eq!(layout.split_status(&frame, frame.body), Ok((sent.status, &sent.body[..])));
    }
    for ((field, (_, asked)), (_, told)) in
        layout.header.iter().zip(layout.fields(request)).zip(layout.fields(&frame))
    {
        if field.echo && field.part == Part::Reserved {
            prop_assert_eq!(asked, told, "{} is echoed", field.name);
        }
    }
    let extension = if layout.echo_extension { request.extension() } else { &[] };
    prop_assert_eq!(frame.extension(), extension);
    Ok(())
}

fn pushed(layout: &Layout, sent: &Material) -> TestCaseResult {
    let push = Push {
        command: sent.command(layout),
        sequence: sent.sequence,
        status: sent.status,
        error: false,
        body: &[&sent.body],
        compress: sent.compress,
    };
    let mut out = Vec::new();
    let mut seal = sent.seal.then_some(ToySeal);
    let seal = seal.as_mut().map(|seal| seal as &mut dyn FrameSeal);
    layout.encode_push(push, seal, &mut out).unwrap();
    let frame = whole(layout, &out);
    prop_assert!(is_command(frame.command, sent.number, &sent.text));
    same_body(layout, &frame, sent, 0, Flags::PUSH)
}

/// Whatever the bytes: no panic, no request for less than there is or more than the limit,
/// and what is refused stays refused when more comes.
fn survives_any(layout: &Layout, input: &[u8]) -> TestCaseResult {
    const LIMIT: usize = 8192;
    let mut refused = None;
    for end in 0..=input.len() {
        match layout.decode(&input[..end], LIMIT) {
            Ok(Decoded::Incomplete { need }) => {
                prop_assert!(need > end && need <= LIMIT, "needs {} of {}", need, end);
                prop_assert_eq!(&refused, &None, "accepted what was refused, at {}", end);
            }
            Ok(Decoded::Frame(frame)) => {
                prop_assert_eq!(&refused, &None, "accepted what was refused, at {}", end);
                prop_assert!(!frame.raw.is_empty());
                return used(layout, &frame);
            }
            Err(error) => {
                prop_assert!(!error.reason().is_empty() && !error.to_string().is_empty());
                refused = Some(error);
            }
        }
    }
    Ok(())
}

/// Everything that is done with a frame, with one that nobody has written properly.
fn used(layout: &Layout, frame: &Frame<'_>) -> TestCaseResult {
    let mut scratch = Vec::new();
    let opened = layout.open_body(frame.flags, frame.body, 4096, &mut scratch);
    if let Ok(body) = opened {
        prop_assert!(body.len() <= 4096);
        let _ = layout.split_status(frame, body);
    }
    for (_, value) in layout.metadata(frame) {
        let mut out = Vec::new();
        if value.write_ascii(&mut out) {
            prop_assert!(out.iter().all(|byte| (b' '..=b'~').contains(byte)));
        }
        prop_assert!(!matches!(value, FieldValue::Text(text) if text.len() > 1024));
    }
    let mut associated = Vec::new();
    layout.associated_data(frame, &mut associated);
    prop_assert_eq!(associated.len(), frame.header.len() + frame.trailer.len());
    let mut out = Vec::new();
    let reply = Reply { status: 1, error: true, body: &[b"no"], compress: true };
    match layout.encode_reply(&layout.seed(frame), reply, None, &mut out) {
        Ok(()) => {
            let reply = whole(layout, &out);
            prop_assert_eq!(reply.sequence, frame.sequence);
        }
        // No room for what is appended to a command that nobody has configured.
        Err(EncodeError::TextTooLong { .. }) => prop_assert!(layout.has_text_commands()),
        Err(error) => return Err(TestCaseError::fail(format!("{error:?}"))),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_of_any_layout_come_back_as_they_were_written(bytes in choices()) {
        round_trip(&bytes)?;
    }

    #[test]
    fn no_bytes_harm_any_layout(
        bytes in choices(),
        input in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let layout = compiled(&mut Choices::new(&bytes))?;
        survives_any(&layout, &input)?;
    }

    #[test]
    fn no_damage_to_a_frame_harms_any_layout(
        bytes in choices(),
        damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4),
    ) {
        let mut choices = Choices::new(&bytes);
        let layout = compiled(&mut choices)?;
        let sent = Material::new(&layout, &mut choices);
        let mut out = Vec::new();
        let request = Request {
            extension: &sent.extension,
            compress: true,
            ..Request::new(sent.command(&layout), sent.sequence, &[])
        };
        layout.encode_request(Request { body: &[&sent.body], ..request }, None, &mut out).unwrap();
        for (at, value) in damage {
            // The header is where the damage is interesting.
            let at = usize::from(at) % out.len().min(64);
            out[at] = value;
        }
        survives_any(&layout, &out)?;
    }

    #[test]
    fn no_bytes_harm_the_shipped_layouts(
        input in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        for name in SHIPPED {
            survives_any(&shipped(name), &input)?;
        }
    }
}
