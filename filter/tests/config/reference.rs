//! The tables of `filter/src/config/README.md`, made from the schema.

use std::fmt::Write as _;

use meshgate_filter::config::schema::schema;
use serde_json::Value;

const BEGIN: &str = "<!-- The tables are made from the types: see filter/tests/config. -->\n";
const END: &str = "<!-- End of the tables. -->\n";

/// The tables in their order: heading, the definition whose keys it lists, and one whose keys
/// are listed elsewhere.
const TABLES: [(&str, &str, &str); 21] = [
    ("The document", "", ""),
    ("`session`", "SessionSpec", ""),
    ("`session.login`", "LoginSpec", ""),
    ("`session.goodbye`", "GoodbyeSpec", ""),
    ("`push`", "PushSpec", ""),
    ("`push.ranges[…]`", "PushRange", ""),
    ("`companion`", "CompanionSpec", ""),
    ("`server`", "ServerSpec", ""),
    ("`server.login`", "ServerLoginSpec", ""),
    ("`server.heartbeat`", "ServerHeartbeatSpec", ""),
    ("`server.tunnel`", "TunnelSpec", ""),
    ("`server.pushes`", "ServerPushSpec", ""),
    ("`upstream`", "UpstreamSpec", ""),
    ("`commands[…]`: which commands", "Entry", "Defaults"),
    ("`defaults`, `commands[…]` and `otherwise`: on what terms", "Defaults", ""),
    ("`otherwise`: where the rest goes", "Otherwise", "Defaults"),
    ("`statuses`", "StatusesSpec", ""),
    ("`limits`", "Limits", ""),
    ("`identity`", "IdentitySpec", ""),
    ("`log`", "LogConfig", ""),
    ("`metrics`", "MetricsConfig", ""),
];

#[test]
fn the_reference_lists_every_key_as_the_types_have_it() {
    let path = crate::root().join("filter/src/config/README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("the mark where the tables begin");
    let (_, after) = rest.split_once(END).expect("the mark where the tables end");
    let schema = schema();
    let tables: String =
        TABLES.iter().map(|(heading, name, but)| table(&schema, heading, name, but)).collect();
    crate::check_generated(&path, &format!("{before}{BEGIN}{tables}\n{END}{after}"));
}

fn table(root: &Value, heading: &str, name: &str, but: &str) -> String {
    let definition = if name.is_empty() { root } else { &root["$defs"][name] };
    let elsewhere = &root["$defs"][but]["properties"];
    let required = definition["required"].as_array();
    let mut text = format!("\n### {heading}\n\n");
    let about = definition["description"].as_str().unwrap_or_default();
    writeln!(text, "{about}\n").unwrap();
    text.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
    for (key, property) in definition["properties"].as_object().unwrap() {
        if elsewhere.get(key).is_some() {
            continue;
        }
        let default = match property.get("default") {
            Some(default) => format!("`{default}`"),
            None if required.is_some_and(|keys| keys.iter().any(|k| k == key)) => "required".into(),
            None => String::new(),
        };
        let meaning = property["description"].as_str().unwrap();
        let meaning = format!("{meaning}{}", choices(root, property));
        let (kind, meaning) = (kind(root, property), meaning.replace('|', "\\|"));
        writeln!(text, "| `{key}` | {kind} | {default} | {meaning} |").unwrap();
    }
    text
}

/// The type as a person would call it.
fn kind(root: &Value, schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return match name {
            "Duration" | "Size" | "Command" | "Methods" => name.to_lowercase(),
            _ => kind(root, &root["$defs"][name]),
        };
    }
    if schema.get("oneOf").is_some() && schema.get("properties").is_none() {
        return "one of".into();
    }
    match schema["type"].as_str().unwrap() {
        "string" => "text".into(),
        "boolean" => "true or false".into(),
        "integer" => "whole number".into(),
        "array" => match kind(root, &schema["items"]).as_str() {
            "object" => "list of objects".into(),
            item => format!("list of {item}"),
        },
        "object" if schema["additionalProperties"].is_object() => {
            format!("object of {}", kind(root, &schema["additionalProperties"]))
        }
        "object" => "object".into(),
        other => panic!("{other}"),
    }
}

/// The names of a choice with their meanings.
fn choices(root: &Value, schema: &Value) -> String {
    let name = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next());
    let target = name.map_or(schema, |name| &root["$defs"][name]);
    if target.get("properties").is_some() {
        return String::new();
    }
    let mut text = String::new();
    for choice in target["oneOf"].as_array().into_iter().flatten() {
        let meaning = choice["description"].as_str().unwrap();
        if let Some(name) = choice["const"].as_str() {
            write!(text, " `\"{name}\"`: {meaning}").unwrap();
        } else {
            let name = choice["required"][0].as_str().unwrap();
            write!(text, " `{{\"{name}\": …}}`: {meaning}").unwrap();
        }
    }
    text
}
