use std::fs;
use std::path::Path;

use schemars::{JsonSchema, schema_for};
use serde_json::Value as Json;

use super::super::super::faults::Faults;
use super::super::document;
use super::*;

/// The names in a type's schema: keys of an object, names of a choice.
fn names(schema: &Json) -> Vec<String> {
    let mut names = Vec::new();
    names
        .extend(schema["properties"].as_object().into_iter().flatten().map(|(key, _)| key.clone()));
    for choice in schema["oneOf"].as_array().into_iter().flatten().chain([schema]) {
        let words = choice["enum"].as_array().into_iter().flatten().chain(choice.get("const"));
        names.extend(words.filter_map(Json::as_str).map(String::from));
        if schema.get("oneOf").is_some() {
            let content = choice["properties"].as_object().into_iter().flatten();
            names.extend(content.map(|(key, _)| key.clone()));
        }
    }
    names.sort();
    names
}

fn same_names<T: Read + JsonSchema>() {
    let mut known: Vec<String> = T::KEYS.iter().map(ToString::to_string).collect();
    known.sort();
    let schema = schema_for!(T).to_value();
    assert_eq!(known, names(&schema), "{}", T::schema_name());
    assert!(!known.is_empty());
}

#[test]
fn the_names_are_those_of_the_types() {
    same_names::<LayoutSpec>();
    same_names::<ByteOrder>();
    same_names::<FieldSpec>();
    same_names::<FieldType>();
    same_names::<SizedText>();
    same_names::<TextLength>();
    same_names::<Role>();
    same_names::<VersionSpec>();
    same_names::<LengthSpec>();
    same_names::<Counts>();
    same_names::<FlagsSpec>();
    same_names::<ClearBit>();
    same_names::<KindSpec>();
    same_names::<ChecksumSpec>();
    same_names::<ChecksumAlgorithm>();
    same_names::<Over>();
    same_names::<SpanSpec>();
    same_names::<OwnBytes>();
    same_names::<Correlation>();
    same_names::<ReplySpec>();
    same_names::<ReplyCommand>();
    same_names::<ReplyStatus>();
    same_names::<CompressionSpec>();
    same_names::<CompressionAlgorithm>();
}

fn read(json: &str) -> Result<LayoutSpec, String> {
    let mut faults = Faults::default();
    let spec = document(json.as_bytes(), &mut faults);
    spec.ok_or_else(|| format!("{:?}", faults.into_errors()))
}

#[test]
fn shipped_layouts_are_read_as_serde_reads_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy-config/layouts");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert_eq!(read(&text), Ok(serde_json::from_str(&text).unwrap()));
        count += 1;
    }
    assert!(count >= 4);
}

#[test]
fn everything_that_a_layout_can_say_is_read_as_serde_reads_it() {
    let text = r#"{
        "$schema": "s", "name": "n", "description": "d", "byte_order": "little",
        "header": [
            {"name": "a", "type": {"bytes": 3}, "role": {"constant": "0x010203"}},
            {"name": "b", "type": {"text": 3}, "role": "command", "description": "d"},
            {"name": "c", "type": {"sized_text": {"length": "varint", "max": 9}},
             "role": "reserved", "default": "x", "metadata": "x-c", "echo": true},
            {"name": "d", "type": "i32", "role": {"version": {"accept": [-1, 18446744073709551615],
             "write": 2}}, "byte_order": "big"},
            {"name": "e", "type": "u24", "role": {"length": {"counts": "body", "adjust": -4}}},
            {"name": "f", "type": "u8", "role": {"flags": {"reply": 0, "one_way": {"clear": 1},
             "push": 2, "error": 3, "compressed": 4, "sealed": 5}}},
            {"name": "g", "type": "u8", "role": {"kind": {"request": 0, "reply": 1, "one_way": 2,
             "push": 3, "error": 4}}},
            {"name": "h", "type": "u32", "role": {"checksum": {"algorithm": "crc32c",
             "over": {"span": {"from": "a", "through": "body"}}, "own_bytes": "skip"}}}
        ],
        "trailer": [{"name": "t", "type": "u32", "role": {"checksum": {"algorithm": "adler32",
            "over": "before"}}}],
        "correlation": "order",
        "reply": {"command": {"table": [[1, 2], ["a", "b"]]}, "status": {"body_prefix": "i16"},
            "echo_extension": true, "one_way": true},
        "compression": {"algorithm": "lz4", "min_bytes": 9}
    }"#;
    assert_eq!(read(text), Ok(serde_json::from_str(text).unwrap()));
    for reply in [r#""same""#, r#"{"set_bit": 31}"#, r#"{"add": -1}"#, r#"{"append": "R"}"#] {
        let text = format!(
            r#"{{"name": "n", "header": [], "reply": {{"command": {reply}, "status": "nowhere"}},
               "compression": {{"algorithm": "zlib"}}}}"#
        );
        assert_eq!(read(&text), Ok(serde_json::from_str(&text).unwrap()));
    }
}

#[test]
fn wrong_values_are_named() {
    let field =
        |field: &str| read(&format!(r#"{{"name": "n", "header": [{field}]}}"#)).unwrap_err();
    let said = field(r#"{"name": "a", "type": "u8", "role": {"constant": true}}"#);
    assert!(said.contains("header[0].role.constant"), "{said}");
    assert!(said.contains("expected a whole number, or text such as"), "{said}");
    let said = field(r#"{"name": "a", "type": "u8", "role": {"flags": {"reply": 300}}}"#);
    assert!(said.contains("expected a bit's number such as 3, or"), "{said}");
    let said = read(r#"{"name": "n", "header": [], "reply": {"command": {"table": [[1]]}}}"#);
    assert!(said.unwrap_err().contains("reply.command.table[0]"));
}
