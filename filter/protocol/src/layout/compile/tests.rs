//! What is refused, where, and with which remedy.

use serde_json::{Value as Json, json};

use super::super::spec::LayoutSpec;
use super::*;

/// A small valid layout, to be broken in one place.
fn valid() -> Json {
    json!({
        "name": "small",
        "header": [
            { "name": "magic", "type": "u16", "role": { "constant": "0x4D47" } },
            { "name": "flags", "type": "u8", "role": { "flags": { "reply": 0 } } },
            { "name": "length", "type": "u16", "role": { "length": { "counts": "frame" } } },
            { "name": "command", "type": "u32", "role": "command" },
            { "name": "sequence", "type": "u32", "role": "sequence" },
            { "name": "spare", "type": { "bytes": 4 } }
        ]
    })
}

fn compile(json: Json) -> Result<Layout, ConfigError> {
    Layout::compile(serde_json::from_value::<LayoutSpec>(json).expect("the shape of a layout"))
}

/// The error of the valid layout with the value at a JSON pointer replaced.
#[track_caller]
fn broken(pointer: &str, value: Json) -> String {
    let mut json = valid();
    *json.pointer_mut(pointer).expect("a place to break") = value;
    match compile(json) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("accepted"),
    }
}

/// The error of the valid layout with a field more before its last.
#[track_caller]
fn with_field(field: Json) -> String {
    let mut json = valid();
    json["header"].as_array_mut().unwrap().insert(5, field);
    match compile(json) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("accepted"),
    }
}

fn flags(bits: Json) -> Json {
    json!({ "name": "more", "type": "u8", "role": { "flags": bits } })
}

fn length(counts: &str, adjust: i64) -> Json {
    json!({
        "name": "more",
        "type": "u8",
        "role": { "length": { "counts": counts, "adjust": adjust } }
    })
}

fn checksum(name: &str, over: Json) -> Json {
    let checksum = json!({ "algorithm": "crc32", "over": over });
    json!({ "name": name, "type": "u32", "role": { "checksum": checksum } })
}

#[test]
fn the_layout_that_is_broken_below_is_valid() {
    compile(valid()).unwrap();
}

#[test]
fn unknown_keys_are_refused_everywhere() {
    for pointer in ["", "/header/1", "/header/1/role/flags", "/header/2/role/length"] {
        let mut json = valid();
        json.pointer_mut(pointer).unwrap()["colour"] = json!("red");
        let error = Layout::from_json(&json.to_string()).unwrap_err().to_string();
        assert!(error.contains("unknown field `colour`"), "{pointer}: {error}");
    }
}

#[test]
fn names_are_checked() {
    assert_eq!(
        broken("/name", json!("Small")),
        "name: \"Small\" is no layout name, expected 1 to 64 of lower-case letters, digits, '-', \
         '_' and '.'"
    );
    assert_eq!(
        broken("/header/5/name", json!("magic")),
        "header[5].name: \"magic\" is the name of another field"
    );
    assert!(broken("/header/5/name", json!("")).starts_with("header[5].name: "));
    assert!(broken("/header/5/name", json!("body")).contains("names a part of every frame"));
}

#[test]
fn a_layout_needs_a_length_a_command_and_a_sequence() {
    assert!(
        broken("/header/2/role", json!("reserved")).starts_with(
            "header: no field says how long a frame is: give one the role {\"length\": "
        )
    );
    assert!(broken("/header/3/role", json!("reserved")).contains("the role \"command\""));
    assert_eq!(
        broken("/header/4/role", json!("reserved")),
        "correlation: no header field has the role \"sequence\": give one that role, or say \
         \"order\" if replies come in the order of their requests"
    );
    let mut json = valid();
    json["correlation"] = json!("order");
    assert!(compile(json).unwrap_err().to_string().starts_with("correlation: \"order\" is for"));
    // A header's length alone is none of a frame.
    let header = json!({ "length": { "counts": "header" } });
    assert!(broken("/header/2/role", header).contains("no field says how long a frame is"));
    assert_eq!(broken("/header", json!([])), "header: 0 fields, expected 1 to 64");
}

#[test]
fn what_can_be_there_once_is_refused_twice() {
    for role in ["command", "sequence"] {
        assert!(
            broken("/header/5", json!({ "name": "x", "type": "u32", "role": role }))
                .starts_with("header[5].role: a second ")
        );
    }
    assert!(
        with_field(length("frame", 0))
            .starts_with("header[5].role.length.counts: a second length of the whole frame")
    );
    assert!(with_field(length("after", 0)).contains("a second length of the whole frame"));
    assert_eq!(
        with_field(flags(json!({ "reply": 1 }))),
        "header[5].role.flags.reply: another place already says this: leave one out"
    );
    let kind = json!({ "kind": { "request": 0, "reply": 1 } });
    assert!(
        with_field(json!({ "name": "x", "type": "u8", "role": kind }))
            .starts_with("header[5].role.kind.reply: another place")
    );
}

#[test]
fn bits_and_kinds_are_distinct_and_in_range() {
    assert_eq!(
        with_field(flags(json!({ "push": 8 }))),
        "header[5].role.flags.push: bit 8 of a field of 8 bits, they count from 0"
    );
    assert_eq!(
        with_field(flags(json!({ "push": 2, "error": { "clear": 2 } }))),
        "header[5].role.flags.error: bit 2 already means something else"
    );
    let kind = |kind| with_field(json!({ "name": "x", "type": "u8", "role": { "kind": kind } }));
    assert_eq!(
        kind(json!({ "request": 256, "reply": 1 })),
        "header[5].role.kind.request: 256 does not fit 8 bits"
    );
    assert!(
        kind(json!({ "request": 1, "reply": 1 })).contains("1 already stands for another kind")
    );
    let text = json!({ "name": "x", "type": { "text": 4 }, "role": { "flags": { "push": 1 } } });
    assert!(with_field(text).contains("flags are bits of an integer"));
}

#[test]
fn lengths_that_cannot_be_written_are_refused() {
    assert!(
        broken("/header/2/type", json!({ "bytes": 2 })).starts_with("header[2].type: a length is")
    );
    let adjusted = |adjust: i64| {
        broken("/header/2/role", json!({ "length": { "counts": "frame", "adjust": adjust } }))
    };
    assert_eq!(
        adjusted(-18),
        "header[2].role.length.adjust: the field counts at least 17 bytes, with -18 added it \
         would be negative: expected at least -17"
    );
    assert!(adjusted(70_000).contains("expected -65536 to 65536"));
    let mut json = valid();
    json["header"][2]["type"] = json!("u8");
    json["header"][5]["type"] = json!({ "bytes": 400 });
    assert_eq!(
        compile(json).unwrap_err().to_string(),
        "header[2].type: the field must be able to say at least 412, but goes up to 255: use a \
         wider one"
    );
    let mut json = valid();
    let header = json["header"].as_array_mut().unwrap();
    header.push(json!({ "name": "a", "type": "u8", "role": { "length": { "counts": "header" } } }));
    header.push(
        json!({ "name": "b", "type": "u8", "role": { "length": { "counts": "extension" } } }),
    );
    assert!(compile(json).unwrap_err().to_string().contains("the extension is counted twice"));
}

#[test]
fn values_fit_their_fields() {
    let constant = |kind: Json, value: Json| {
        broken("/header/0", json!({ "name": "m", "type": kind, "role": { "constant": value } }))
    };
    assert_eq!(
        constant(json!("u16"), json!("0x12345")),
        "header[0].role.constant: \"0x12345\" does not fit 16 bits"
    );
    assert_eq!(
        constant(json!("i8"), json!(128)),
        "header[0].role.constant: 128 does not fit 8 bits"
    );
    assert!(constant(json!("u8"), json!(-1)).contains("-1 does not fit 8 bits"));
    assert_eq!(
        constant(json!("u16"), json!("MG")),
        "header[0].role.constant: \"MG\" is no integer, expected for instance 19783 or \"0x4D47\""
    );
    assert!(constant(json!("u16"), json!("0x+1")).contains("is no integer"));
    assert!(constant(json!({ "bytes": 2 }), json!("0x4d")).contains("is 1 bytes, the field has 2"));
    assert!(constant(json!({ "bytes": 1 }), json!("0x+1")).contains("is not hexadecimal"));
    assert!(constant(json!({ "bytes": 1 }), json!(1)).contains("is not hexadecimal"));
    assert!(
        constant(json!({ "text": 2 }), json!("abc"))
            .contains("is 3 bytes, the field has room for 2")
    );
    assert!(constant(json!({ "text": 2 }), json!("\0")).contains("has a NUL inside"));
    assert!(constant(json!({ "text": 2 }), json!(7)).contains("is no text"));
    assert!(constant(json!("varint"), json!(7)).contains("must be of fixed width"));
    assert!(
        broken("/header/5", json!({ "name": "x", "type": "u8", "default": 256 }))
            .starts_with("header[5].default: 256 does not fit")
    );
    assert!(
        broken(
            "/header/4",
            json!({
                "name": "s", "type": "u32", "role": "sequence", "default": 1
            })
        )
        .starts_with("header[4].default: only a reserved field has a default")
    );
}

#[test]
fn sizes_have_limits() {
    assert_eq!(
        broken("/header/5/type", json!({ "bytes": 0 })),
        "header[5].type.bytes: 0 bytes, expected 1 to 1024"
    );
    assert!(broken("/header/5/type", json!({ "text": 1025 })).contains("expected 1 to 1024"));
    assert!(
        broken("/header/5/type", json!({ "sized_text": { "length": "u8", "max": 256 } }))
            .starts_with("header[5].type.sized_text.max: a u8 length cannot say 256")
    );
    let mut json = valid();
    let header = json["header"].as_array_mut().unwrap();
    for number in 0..4 {
        header.push(json!({ "name": format!("x{number}"), "type": { "bytes": 1024 } }));
    }
    assert!(compile(json).unwrap_err().to_string().contains("at most 4096 are allowed"));
    let mut json = valid();
    let header = json["header"].as_array_mut().unwrap();
    for number in 0..60 {
        header.push(json!({ "name": format!("x{number}"), "type": "u8" }));
    }
    assert_eq!(compile(json).unwrap_err().to_string(), "header: 66 fields, expected 1 to 64");
}

#[test]
fn versions_are_checked() {
    let version =
        |version| with_field(json!({ "name": "x", "type": "u8", "role": { "version": version } }));
    assert!(
        version(json!({ "accept": [] })).starts_with("header[5].role.version.accept: no version")
    );
    assert!(
        version(json!({ "accept": [1, 256] })).starts_with("header[5].role.version.accept[1]: ")
    );
    assert_eq!(
        version(json!({ "accept": [1], "write": 2 })),
        "header[5].role.version.write: 2 is not among the accepted versions, add it there"
    );
}

#[test]
fn metadata_that_a_client_must_not_set_is_refused() {
    let metadata = |name: &str| {
        broken(
            "/header/5",
            json!({
                "name": "x", "type": "u32", "metadata": name
            }),
        )
    };
    for name in [
        "authorization",
        "grpc-timeout",
        "x-envoy-retry-on",
        "x-forwarded-for",
        "host",
        "te",
        "x-meshgate-user",
        "content-type",
    ] {
        assert_eq!(
            metadata(name),
            format!(
                "header[5].metadata: {name:?} is not a client's to set, choose a name of your own \
                 such as \"x-game-zone\""
            )
        );
    }
    for name in ["", "X-Zone", ":path", "x zone", "x\n"] {
        assert!(metadata(name).contains("is no metadata name"), "{name:?}");
    }
    assert!(metadata("x-zone-bin").contains("leave \"-bin\" out"));
    let twice = json!({ "name": "x", "type": "u8", "metadata": "x-zone" });
    let mut json = valid();
    json["header"][5] = twice;
    json["header"][4]["metadata"] = json!("x-zone");
    assert!(
        compile(json)
            .unwrap_err()
            .to_string()
            .starts_with("header[5].metadata: \"x-zone\" is already")
    );
    let mut json = valid();
    json["header"][0]["metadata"] = json!("x-magic");
    assert!(compile(json).unwrap_err().to_string().starts_with("header[0].metadata: constants,"));
}

#[test]
fn only_what_has_no_role_is_echoed() {
    assert!(
        broken(
            "/header/4",
            json!({
                "name": "s", "type": "u32", "role": "sequence", "echo": true
            })
        )
        .starts_with("header[4].echo: only reserved fields")
    );
}

#[test]
fn checksums_cover_something_that_can_be_computed() {
    assert!(with_field(json!({
        "name": "c", "type": "u16", "role": { "checksum": { "algorithm": "crc32", "over": "frame" } }
    }))
    .starts_with("header[5].type: a checksum is 4 bytes wide, found \"u16\": use u32"));
    let span = |from: &str, through: &str| {
        with_field(checksum("c", json!({ "span": { "from": from, "through": through } })))
    };
    assert!(
        span("nothing", "body")
            .starts_with("header[5].role.checksum.over.span.from: no part is called \"nothing\"")
    );
    assert_eq!(
        span("body", "magic"),
        "header[5].role.checksum.over.span: \"body\" comes after \"magic\": swap them"
    );
    assert!(span("c", "c").contains("the checksum would cover nothing"));
    let mut json = valid();
    json["header"].as_array_mut().unwrap().insert(0, checksum("c", json!("before")));
    assert!(compile(json).unwrap_err().to_string().contains("the checksum would cover nothing"));
    let mut json = valid();
    json["header"].as_array_mut().unwrap().push(checksum("a", json!("frame")));
    json["trailer"] = json!([checksum("b", json!("frame"))]);
    assert_eq!(
        compile(json).unwrap_err().to_string(),
        "header[6].role.checksum.over: checksums that cover each other cannot be computed: let \
         one of them cover less"
    );
}

#[test]
fn trailers_hold_what_needs_no_header() {
    let trailer = |field: Json| {
        let mut json = valid();
        json["trailer"] = json!([field]);
        compile(json).unwrap_err().to_string()
    };
    assert!(
        trailer(json!({ "name": "x", "type": "varint" }))
            .starts_with("trailer[0].type: a trailer is found from the end")
    );
    assert!(
        trailer(json!({ "name": "x", "type": "u8", "role": "status" }))
            .starts_with("trailer[0].role: a trailer holds checksums, constants and reserved")
    );
    assert!(
        trailer(json!({ "name": "x", "type": "u8", "echo": true })).starts_with("trailer[0].echo")
    );
    assert!(
        trailer(json!({ "name": "x", "type": "u8", "metadata": "x" }))
            .starts_with("trailer[0].metadata: only header fields")
    );
    assert!(trailer(json!({ "name": "magic", "type": "u8" })).starts_with("trailer[0].name"));
    assert!(
        trailer(json!({ "name": "x", "type": "u8", "role": { "constant": 256 } }))
            .starts_with("trailer[0].role.constant")
    );
}

#[test]
fn replies_are_checked() {
    let reply = |reply: Json| {
        let mut json = valid();
        json["reply"] = reply;
        compile(json).unwrap_err().to_string()
    };
    assert_eq!(
        reply(json!({ "command": { "set_bit": 32 } })),
        "reply.command.set_bit: bit 32 of a command of 32 bits, they count from 0"
    );
    assert!(
        reply(json!({ "command": { "append": "!" } })).starts_with("reply.command.append: is for")
    );
    assert_eq!(
        reply(json!({ "command": { "table": [[1, 2], ["0x01", 3]] } })),
        "reply.command.table[1]: this request already has its reply in an earlier pair"
    );
    assert!(
        reply(json!({ "command": { "table": [[1, "x"]] } }))
            .starts_with("reply.command.table[0]: \"x\" is no integer")
    );
    assert!(reply(json!({ "status": "field" })).starts_with("reply.status: no header field has"));
    assert!(
        reply(json!({ "status": { "body_prefix": "varint" } }))
            .starts_with("reply.status.body_prefix: expected an integer of fixed width")
    );
    assert!(
        reply(json!({ "echo_extension": true })).starts_with("reply.echo_extension: the header")
    );
    let mut json = valid();
    json["header"][5]["type"] = json!("i16");
    json["header"][5]["role"] = json!("status");
    json["reply"] = json!({ "status": { "body_prefix": "i32" } });
    assert!(
        compile(json).unwrap_err().to_string().contains("has the role \"status\" and takes it")
    );
    let mut json = valid();
    json["header"][3]["type"] = json!({ "text": 8 });
    json["reply"] = json!({ "command": { "add": 1 } });
    assert!(
        compile(json).unwrap_err().to_string().starts_with("reply.command.add: is for integer")
    );
}

#[test]
fn compression_and_its_flag_go_together() {
    let mut json = valid();
    json["compression"] = json!({ "algorithm": "lz4" });
    assert!(
        compile(json.clone())
            .unwrap_err()
            .to_string()
            .starts_with("compression: no flag says whether a body is compressed")
    );
    json["header"][1]["role"]["flags"]["compressed"] = json!(3);
    compile(json.clone()).unwrap();
    json.as_object_mut().unwrap().remove("compression");
    assert!(
        compile(json)
            .unwrap_err()
            .to_string()
            .starts_with("compression: a flag says that a body is compressed, but not how")
    );
}

#[test]
fn the_fields_in_the_reference_are_valid() {
    let reference = include_str!("../README.md");
    let snippets: Vec<&str> =
        reference.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!snippets.is_empty());
    for snippet in snippets {
        let field: Json = serde_json::from_str(snippet).unwrap();
        let mut json = valid();
        // In the place of the flags, some of which the snippet says itself.
        json["header"][1] = field;
        json["compression"] = match snippet.contains("compressed") {
            true => json!({ "algorithm": "zlib" }),
            false => Json::Null,
        };
        compile(json).unwrap_or_else(|error| panic!("{snippet}: {error}"));
    }
}
