//! Wrong documents, each with the whole of what is said about it.

use std::fmt::Write as _;

use serde_json::json;

use super::{egress, errors, named, plain, relay, ticket, with, without};

/// Rows of `document path = value`, each followed by the errors, `> ` before each.
const TABLE: &str = include_str!("wrong.txt");

#[test]
fn every_wrong_document_is_refused_in_these_words() {
    let lines: Vec<&str> = TABLE.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    let mut rows = 0;
    let mut differing = String::new();
    let mut rest = lines.as_slice();
    while let [row, after @ ..] = rest {
        let expected: Vec<&str> = after.iter().map_while(|line| line.strip_prefix("> ")).collect();
        rest = &after[expected.len()..];
        rows += 1;
        let (place, value) = row.split_once(" = ").unwrap();
        let (base, path) = place.split_once(' ').unwrap();
        let base = match base {
            "plain" => plain(),
            "ticket" => ticket(),
            "named" => named(),
            "egress" => egress(),
            "relay" => relay(),
            _ => panic!("{row}"),
        };
        let document = with(base, path, serde_json::from_str(value).expect(row));
        let said = errors(&document.to_string());
        if said != expected {
            writeln!(differing, "{row}\n> {}", said.join("\n> ")).unwrap();
        }
    }
    assert!(differing.is_empty(), "other words were said:\n{differing}");
    assert!(rows >= 100, "only {rows} rows were read");
}

#[test]
fn what_is_no_document_is_refused() {
    let rows = [
        ("", "the configuration is empty, expected a JSON object"),
        (" \n", "the configuration is empty, expected a JSON object"),
        ("{", "not a JSON document: expected a key in quotes, got the end at line 1 column 2"),
        (
            r#"{"layout": {},}"#,
            "not a JSON document: expected a key in quotes, got '}' at line 1 column 15",
        ),
        ("[]", "expected an object, got a list"),
        ("5", "expected an object, got the number 5"),
        (
            "{}",
            "the key \"layout\" is missing\nthe key \"session\" is missing\nthe key \
             \"upstream\" is missing",
        ),
    ];
    for (json, expected) in rows {
        assert_eq!(errors(json).join("\n"), expected, "{json}");
    }
}

#[test]
fn what_a_login_needs_is_asked_for() {
    let rows = [
        (
            "companion",
            "companion: the session mode \"ticket\" needs a companion that decides logins: \
             {\"cluster\": \"companion\"}",
        ),
        (
            "session/login",
            "session.login: the mode \"ticket\" needs the command of its login frame: \"login\": \
             {\"command\": 1}",
        ),
        (
            "session/audience",
            "session.audience: the mode \"ticket\" needs what its sessions are for, such as \
             \"game-live\": 1 to 128 printable ASCII letters",
        ),
    ];
    for (key, expected) in rows {
        assert_eq!(errors(&without(ticket(), key).to_string()), [expected], "{key}");
    }
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    let document = plain().to_string();
    let twice = document.replace(r#""1002":"Leave""#, r#""1002":"Leave","1002":"Left""#);
    let expected = [
        "commands[1].methods: the key \"1002\" stands here more than once, keep one",
        "commands[1].methods.1002: the command 1002 is taken by commands[1].methods.1002 already, \
         keep one",
    ];
    assert_eq!(errors(&twice), expected);
    let twice = document.replace(r#""mode":"none""#, r#""mode":"none","mode":"noise""#);
    let expected = "session: the key \"mode\" stands here more than once, keep one";
    assert_eq!(errors(&twice), [expected]);
}

#[test]
fn errors_in_different_places_are_told_together() {
    let document = with(plain(), "limits", json!({"max_frame": "64KB", "max_fram": 5}));
    let document = with(document, "commands/0/method", json!("game.Echo"));
    let document = with(document, "commands/1/kind", json!("both"));
    let document = with(document, "upstream/cluster", json!(""));
    let expected = [
        "commands[1].kind: \"both\" is not known here, expected \"unary\", \"one_way\", \
         \"server_stream\", \"client_stream\", \"bidi_stream\" or \"subscribe\"",
        "limits.max_fram: not a key here, did you mean \"max_frame\"?",
        "limits.max_frame: expected a size such as 65536, \"64KiB\" or \"4MiB\", below 4 GiB, got \
         the text \"64KB\"",
        "upstream.cluster: \"\" is not the name of a cluster",
        "commands[0].method: \"game.Echo\" is not a full method, expected \
         \"/package.Service/Method\"",
    ];
    assert_eq!(errors(&document.to_string()), expected);
}

#[test]
fn not_more_than_fifty_errors_are_told() {
    let entries: Vec<_> = (0..200).map(|n| json!({"command": n, "method": "Echo"})).collect();
    assert_eq!(errors(&with(plain(), "commands", json!(entries)).to_string()).len(), 50);
}
