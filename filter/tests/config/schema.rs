use meshgate_filter::config::schema::schema;
use serde_json::{Value, json};

use crate::validator::problems;

#[test]
fn the_schema_is_that_of_the_types() {
    let mut text = serde_json::to_string_pretty(&schema()).unwrap();
    text.push('\n');
    crate::check_generated(&crate::root().join("envoy-config/meshgate.schema.json"), &text);
}

#[test]
fn no_key_may_be_null_and_every_key_is_explained() {
    let schema = schema();
    assert!(!schema.to_string().contains("\"null\""));
    let mut silent = Vec::new();
    collect_silent("", &schema, &mut silent);
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        collect_silent(name, definition, &mut silent);
    }
    // The layout language explains itself in its own reference.
    silent.retain(|key| {
        !key.starts_with(char::is_uppercase) || OURS.iter().any(|o| key.starts_with(o))
    });
    assert!(silent.is_empty(), "without a description: {silent:?}");
}

const OURS: [&str; 17] = [
    "CompanionSpec",
    "Defaults",
    "Entry",
    "GoodbyeSpec",
    "IdentitySpec",
    "Limits",
    "LogConfig",
    "LoginSpec",
    "MetricsConfig",
    "Otherwise",
    "ServerHeartbeatSpec",
    "ServerLoginSpec",
    "ServerPushSpec",
    "ServerSpec",
    "SessionSpec",
    "TunnelSpec",
    "UpstreamSpec",
];

fn collect_silent(name: &str, schema: &Value, silent: &mut Vec<String>) {
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        if property["description"].as_str().is_none_or(str::is_empty) {
            silent.push(format!("{name}.{key}"));
        }
    }
}

#[test]
fn the_schema_knows_the_keys_of_each_form_and_mode() {
    let schema = schema();
    let good: Value = serde_json::from_str(include_str!("minimal.json")).unwrap();
    assert_eq!(problems(&schema, &good), [""; 0]);
    let wrong = [
        ("limits", json!({ "max_fram": 5 })),
        ("limits", json!({ "max_frame": "64KB" })),
        ("limits", json!({ "idle_timeout": 5 })),
        ("limits", json!({ "max_in_flight": -1 })),
        ("limits", json!({ "idle_timeout": null })),
        ("session", json!({ "mode": "tls" })),
        ("session", json!({ "mode": "none", "audience": "game" })),
        ("session", json!({ "mode": "noise" })),
        ("companion", json!({ "cluster": "companion" })),
        ("commands", json!([{ "command": 5 }])),
        ("commands", json!([{ "command": 5, "method": "/a.B/C", "from": 5 }])),
        ("commands", json!([{ "service": "a.B", "methods": {} }])),
        ("commands", json!([{ "command": 5, "method": "/a.B/C", "kind": "both" }])),
        ("otherwise", json!({ "method": "/a.B/C" })),
        ("identity", json!({ "traceparent": "field" })),
        ("colour", json!("red")),
        ("direction", json!("egress")),
        ("server", json!({})),
        ("direction", json!("relay")),
        ("upstream", json!({})),
        ("commands", json!([{ "from": 5, "to": 6 }])),
    ];
    for (key, value) in wrong {
        let mut document = good.clone();
        document[key] = value.clone();
        assert_ne!(problems(&schema, &document), [""; 0], "{key} = {value}");
    }
}
