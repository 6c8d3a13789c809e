use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn node(value: &Value) -> Node {
    match value {
        Value::Null => Node::Null,
        Value::Bool(value) => Node::Bool(*value),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Node::Unsigned(number),
            (_, Some(number)) => Node::Signed(number),
            _ => Node::Fraction,
        },
        Value::String(text) => Node::Text(text.clone()),
        Value::Array(items) => Node::List(items.iter().map(node).collect()),
        Value::Object(entries) => {
            Node::Object(entries.iter().map(|(key, value)| (key.clone(), node(value))).collect())
        }
    }
}

fn said(json: &str) -> String {
    parse(json.as_bytes()).unwrap_err()
}

#[test]
fn whole_numbers_stay_whole_however_they_are_written() {
    for (text, expected) in [
        ("0", Node::Unsigned(0)),
        ("-0", Node::Unsigned(0)),
        ("1001.0", Node::Unsigned(1001)),
        ("-2e3", Node::Signed(-2000)),
        ("1.5E+2", Node::Unsigned(150)),
        ("2500e-2", Node::Unsigned(25)),
        ("0e999999999999", Node::Unsigned(0)),
        ("18446744073709551615", Node::Unsigned(u64::MAX)),
        ("-9223372036854775808", Node::Signed(i64::MIN)),
        ("9007199254740992.0", Node::Unsigned(LARGEST_EXACT)),
        ("9007199254740994.0", Node::Large),
        ("18446744073709551616", Node::Large),
        ("-9223372036854775809", Node::Large),
        ("1e99999999999", Node::Large),
        ("1e-99999999999", Node::Fraction),
        ("0.5", Node::Fraction),
    ] {
        assert_eq!(parse(text.as_bytes()), Ok(expected), "{text}");
    }
}

#[test]
fn texts_have_their_escapes_resolved() {
    let text = r#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é""#;
    let expected = "a\"\\/\u{8}\u{c}\n\r\té😀é";
    assert_eq!(parse(text.as_bytes()), Ok(Node::Text(expected.into())));
}

#[test]
fn a_key_that_stands_twice_is_kept_twice() {
    let Ok(Node::Object(entries)) = parse(br#"{"a":1,"a":2}"#) else { panic!() };
    assert_eq!(entries.len(), 2);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (json, expected) in [
        ("", "expected a value, got the end at line 1 column 1"),
        ("{", "expected a key in quotes, got the end at line 1 column 2"),
        ("{\"a\":1,}", "expected a key in quotes, got '}' at line 1 column 8"),
        ("{\"a\" 1}", "expected \":\", got '1' at line 1 column 6"),
        ("[1 2]", "expected \",\" or \"]\", got '2' at line 1 column 4"),
        ("[1,\n  é]", "expected a value, got 'é' at line 2 column 3"),
        ("{} {}", "expected the end, got '{' at line 1 column 4"),
        ("nul", "expected a value, got 'n' at line 1 column 1"),
        ("01", "expected the end, got '1' at line 1 column 2"),
        ("1.", "expected a digit, got the end at line 1 column 3"),
        ("-", "expected a digit, got the end at line 1 column 2"),
        ("\"a", "expected the text's closing quote, got the end at line 1 column 3"),
        ("\"\t\"", "expected no control character in a text, got '\\t' at line 1 column 2"),
        ("\"\\x\"", "expected an escape that JSON knows, got 'x' at line 1 column 3"),
        ("\"\\u00g0\"", "expected four hexadecimal digits, got '0' at line 1 column 4"),
        ("\"\\ud800\"", "expected a surrogate pair, got '\"' at line 1 column 8"),
    ] {
        assert_eq!(said(json), expected, "{json}");
    }
    assert_eq!(parse(b"{}\xff").unwrap_err(), "no UTF-8 after byte 2");
    let deep = "[".repeat(100_000);
    assert_eq!(said(&deep), "expected at most 64 levels, got '[' at line 1 column 66");
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_serde_json_writes_is_read_as_it_was(value in any_value(), pretty in any::<bool>()) {
        let text = if pretty {
            serde_json::to_string_pretty(&value).unwrap()
        } else {
            value.to_string()
        };
        prop_assert_eq!(parse(text.as_bytes()), Ok(node(&value)));
    }

    #[test]
    fn what_serde_json_refuses_is_refused_and_no_more(
        value in any_value(),
        at in any::<prop::sample::Index>(),
        other in "[\\[\\]{},:\"\\\\u0-9.eE+ntf -]{0,3}",
    ) {
        let mut bytes = value.to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes.splice(at..=at, other.bytes());
        let theirs = serde_json::from_slice::<Value>(&bytes);
        // They refuse numbers that no float can hold, before anything asked for them.
        let range = theirs.as_ref().is_err_and(|e| e.to_string().contains("out of range"));
        prop_assert!(range || parse(&bytes).is_ok() == theirs.is_ok());
    }
}
