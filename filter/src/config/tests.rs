//! What good documents mean, and how wrong ones are refused.

mod compact;
mod meaning;
mod mutated;
mod pushes;
mod wrong;

use serde_json::{Value, json};

use super::Config;

/// A small valid document without logins.
fn plain() -> Value {
    json!({
        "layout": {
            "name": "demo",
            "header": [
                {"name": "magic", "type": "u16", "role": {"constant": "0x4D47"}},
                {"name": "flags", "type": "u8", "role": {"flags": {"reply": 0, "error": 1}}},
                {"name": "length", "type": "u32", "role": {"length": {"counts": "frame"}}},
                {"name": "command", "type": "u16", "role": "command"},
                {"name": "sequence", "type": "u32", "role": "sequence"},
                {"name": "status", "type": "u8", "role": "status"},
                {"name": "zone", "type": "u16", "metadata": "x-zone"}
            ]
        },
        "session": {"mode": "none"},
        "upstream": {"authority": "hall:50051"},
        "commands": [
            {"command": 1001, "method": "/demo.v1.Hall/Enter"},
            {"service": "demo.v1.Hall", "methods": {"1002": "Leave", "1003": "Talk"}},
            {"service": "demo.v1.Shop", "first": 2000, "methods": ["List", "Buy"]},
            {"from": 3000, "to": 3999, "method": "/demo.v1.Legacy/Handle",
             "command_metadata": "x-command"}
        ]
    })
}

/// The same with logins by ticket.
fn ticket() -> Value {
    let mut document = plain();
    document["session"] = json!({
        "mode": "ticket", "audience": "game-live", "trusted": true, "login": {"command": 1}
    });
    document["companion"] = json!({"cluster": "companion"});
    document
}

/// The same with names for commands.
fn named() -> Value {
    let mut document = plain();
    document["layout"]["header"][3]["type"] = json!({"text": 8});
    document["commands"] = json!([{"command": "enter", "method": "/demo.v1.Hall/Enter"}]);
    document
}

/// The same for gRPC callers and a private server.
fn egress() -> Value {
    let mut document = without(without(plain(), "session"), "upstream");
    document["direction"] = json!("egress");
    document["server"] = json!({
        "login": {"command": 1, "body": "let me in", "fields": {"zone": "7"}},
        "heartbeat": {"command": 3, "interval": "10s"}
    });
    document["commands"] = json!([
        {"command": 1001, "method": "/demo.v1.Hall/Enter", "idempotent": true},
        {"service": "demo.v1.Hall", "methods": {"1002": "Leave", "1003": "Talk"}}
    ]);
    document
}

/// The same for private clients and a private server.
fn relay() -> Value {
    let mut document = without(plain(), "upstream");
    document["direction"] = json!("relay");
    document["server"] = json!({
        "login": {"command": 1, "body": "let me in", "fields": {"zone": "7"}},
        "heartbeat": {"command": 3},
        "identity": {"zone": "peer"},
        "pushes": {"commands": [1206]}
    });
    document["commands"] = json!([
        {"command": 1001},
        {"from": 2000, "to": 2999, "deadline": "1s"},
        {"service": "demo.v1.Hall", "methods": {"1002": "Leave", "1003": "Talk"}}
    ]);
    document
}

/// Sets `path` (`commands/3/method`) in `document`.
fn with(mut document: Value, path: &str, value: Value) -> Value {
    let (parent, last) = path.rsplit_once('/').map_or(("", path), |(parent, last)| (parent, last));
    let pointer = if parent.is_empty() { String::new() } else { format!("/{parent}") };
    let parent = document.pointer_mut(&pointer).unwrap();
    match parent {
        Value::Array(items) => match last.parse::<usize>().unwrap() {
            index if index == items.len() => items.push(value),
            index => items[index] = value,
        },
        Value::Object(entries) => {
            entries.insert(last.into(), value);
        }
        _ => panic!("{path}"),
    }
    document
}

/// Takes `key` out of the object at the top or at `path`.
fn without(mut document: Value, path: &str) -> Value {
    let (parent, last) = path.rsplit_once('/').map_or(("", path), |(parent, last)| (parent, last));
    let pointer = if parent.is_empty() { String::new() } else { format!("/{parent}") };
    document.pointer_mut(&pointer).unwrap().as_object_mut().unwrap().remove(last).unwrap();
    document
}

fn parse(document: &Value) -> Config {
    match Config::check(document.to_string().as_bytes()) {
        Ok(config) => config,
        Err(errors) => panic!("refused: {errors:#?}"),
    }
}

fn errors(json: &str) -> Vec<String> {
    match Config::check(json.as_bytes()) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}
