//! Whatever stands in a document, it is taken or refused with a reason; nothing else happens.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::Config;
use super::{named, plain, ticket, with};

/// Values that documents go wrong by.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2_i64..300).prop_map(Value::from),
        Just(json!(u64::MAX)),
        Just(json!(1e300)),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        "\\PC{0,4}".prop_map(Value::from),
        prop_oneof![
            Just("5s"),
            Just("0s"),
            Just("99999999999999999999h"),
            Just("64KiB"),
            Just("0B"),
            Just("none"),
            Just("noise"),
            Just("command"),
            Just("sequence"),
            Just("status"),
            Just("u8"),
            Just("varint"),
            Just("0x"),
            Just("/a.B/C"),
            Just("10.0.0.0/8"),
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,8}", inner, 0..3)
                .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A document with every part in it.
fn whole() -> Value {
    let mut document = ticket();
    for (key, value) in [
        ("defaults", json!({"deadline": "2s", "roles": ["a"], "metadata": {"x-a": "b"}})),
        ("otherwise", json!({"method": "/a.B/C", "command_metadata": "x-command"})),
        ("statuses", json!({"offset": 1, "codes": {"NOT_FOUND": 4}, "error_text": true})),
        ("limits", json!({"max_frame": "64KiB", "frames_per_second": 5, "idle_timeout": "1m"})),
        ("identity", json!({"claims": ["a"]})),
        ("log", json!({"calls": true})),
        ("metrics", json!({"commands": 3})),
    ] {
        document = with(document, key, value);
    }
    document
}

/// All places in a value, the value itself included.
fn places(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(value, format!("{path}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places(value, format!("{path}/{index}"), found);
            }
        }
        _ => {}
    }
    found.push(path);
}

fn taken_or_refused_with_a_reason(json: &[u8]) {
    if let Err(errors) = Config::check(json) {
        assert!(!errors.is_empty() && errors.len() <= 50);
        assert!(errors.iter().all(|error| !error.problem.is_empty()));
    }
}

proptest! {
    #[test]
    fn a_document_with_anything_anywhere(
        base in prop_oneof![Just(whole()), Just(named()), Just(plain())],
        changes in prop::collection::vec((any::<prop::sample::Index>(), value()), 1..4),
    ) {
        let mut document = base;
        for (index, value) in changes {
            let mut found = Vec::new();
            places(&document, String::new(), &mut found);
            let place = index.get(&found);
            *document.pointer_mut(place).unwrap() = value;
        }
        taken_or_refused_with_a_reason(document.to_string().as_bytes());
    }

    #[test]
    fn a_document_cut_or_with_other_bytes_in_it(
        cut in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = whole().to_string().into_bytes();
        let at = cut.index(bytes.len());
        taken_or_refused_with_a_reason(&bytes[..at]);
        bytes[at] = byte;
        taken_or_refused_with_a_reason(&bytes);
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        taken_or_refused_with_a_reason(&bytes);
    }
}

#[test]
fn the_whole_document_is_good_before_it_is_changed() {
    super::parse(&whole());
}
