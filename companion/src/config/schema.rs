//! The document's keys, read off the schema of its types.

use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::{Document, duration};

/// One key that takes a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// `edge.tls.cert`
    pub path: String,
    pub kind: Kind,
    /// The default, if there is one.
    pub default: Option<Value>,
    pub text: String,
    /// SIGHUP reloads it.
    pub reload: bool,
    /// Its value names files.
    pub is_path: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Texts,
    OneOf(Vec<String>),
    Duration,
    DurationOrNone,
    Number { min: i64, max: i64 },
    Truth,
}

impl Key {
    /// `("edge.tls", "cert")`
    pub fn section_and_name(&self) -> (&str, &str) {
        self.path.rsplit_once('.').unwrap_or(("", &self.path))
    }

    /// The variable that overrides it: `MESHGATE_EDGE_TLS_CERT`.
    pub fn variable(&self) -> String {
        format!("MESHGATE_{}", self.path.replace('.', "_").to_uppercase())
    }

    /// What the value may be, for messages and the reference.
    pub fn expected(&self) -> String {
        match &self.kind {
            Kind::Text if self.is_path => "a path".into(),
            Kind::Text => "a text".into(),
            Kind::Texts if self.is_path => "a list of paths".into(),
            Kind::Texts => "a list of texts".into(),
            Kind::OneOf(names) => format!("one of `{}`", names.join("`, `")),
            Kind::DurationOrNone => {
                "a duration such as `90s` or `15m`, or `0s` for none at all".into()
            }
            Kind::Duration => "a duration such as `90s`, `15m`, `12h` or `7d`".into(),
            Kind::Number { min, max } => format!("a number from {min} to {max}"),
            Kind::Truth => "`true` or `false`".into(),
        }
    }

    /// A value as the environment or a flag gives it; lists are split at commas.
    pub fn read(&self, text: &str) -> Option<toml::Value> {
        let value = match self.kind {
            Kind::Text | Kind::OneOf(_) | Kind::Duration | Kind::DurationOrNone => {
                toml::Value::from(text)
            }
            Kind::Texts => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                toml::Value::Array(items.map(toml::Value::from).collect())
            }
            Kind::Number { .. } => toml::Value::Integer(text.parse().ok()?),
            Kind::Truth => toml::Value::Boolean(text.parse().ok()?),
        };
        self.accepts(&value).then_some(value)
    }

    pub fn accepts(&self, value: &toml::Value) -> bool {
        match (&self.kind, value) {
            (Kind::Text, toml::Value::String(_)) | (Kind::Truth, toml::Value::Boolean(_)) => true,
            (Kind::Texts, toml::Value::Array(items)) => items.iter().all(toml::Value::is_str),
            (Kind::OneOf(names), toml::Value::String(name)) => names.contains(name),
            (Kind::Duration, toml::Value::String(text)) => duration::parse(text).is_ok(),
            (Kind::DurationOrNone, toml::Value::String(text)) => {
                duration::parse_or_none(text).is_ok()
            }
            (Kind::Number { min, max }, toml::Value::Integer(number)) => {
                (*min..=*max).contains(number)
            }
            _ => false,
        }
    }
}

/// All keys, by section.
pub fn keys() -> &'static [Key] {
    static KEYS: OnceLock<Vec<Key>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let settings = SchemaSettings::default().with(|settings| settings.inline_subschemas = true);
        let schema = settings.into_generator().into_root_schema_for::<Document>();
        let mut keys = Vec::new();
        collect("", &schema.to_value(), &mut keys);
        keys.sort_by(|a, b| a.section_and_name().cmp(&b.section_and_name()));
        keys
    })
}

fn collect(path: &str, schema: &Value, keys: &mut Vec<Key>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        keys.push(leaf(path, schema));
        return;
    };
    for (name, property) in properties {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect(&path, property, keys);
    }
}

fn leaf(path: &str, schema: &Value) -> Key {
    let is = |mark: &str| schema.get(mark) == Some(&Value::Bool(true));
    let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    let default = schema.get("default").filter(|default| !default.is_null()).cloned();
    Key {
        path: path.to_owned(),
        kind: kind(schema),
        default,
        text: text.replace('\n', " "),
        reload: is("x-reload"),
        is_path: is("x-path"),
    }
}

fn kind(schema: &Value) -> Kind {
    let of_type = |name: &str| match schema.get("type") {
        Some(Value::String(one)) => one == name,
        Some(Value::Array(several)) => several.iter().any(|one| one == name),
        _ => false,
    };
    let bound = |name: &str| schema.get(name).and_then(Value::as_i64);
    if let Some(names) = schema.get("enum").and_then(Value::as_array) {
        Kind::OneOf(names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
    } else if of_type("array") {
        Kind::Texts
    } else if of_type("boolean") {
        Kind::Truth
    } else if of_type("integer") {
        let (min, max) = (bound("minimum"), bound("maximum"));
        Kind::Number { min: min.unwrap_or(0), max: max.unwrap_or(i64::MAX) }
    } else if schema.get("format").and_then(Value::as_str) == Some("duration") {
        Kind::Duration
    } else if schema.get("format").and_then(Value::as_str) == Some("duration-or-none") {
        Kind::DurationOrNone
    } else {
        Kind::Text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> &'static Key {
        keys().iter().find(|key| key.path == path).unwrap()
    }

    #[test]
    fn every_key_says_what_it_is_for() {
        assert!(keys().len() > 20);
        for key in keys() {
            assert!(key.text.ends_with('.'), "{}: {:?}", key.path, key.text);
        }
        assert_eq!(key("edge.tls.cert").variable(), "MESHGATE_EDGE_TLS_CERT");
        assert!(key("edge.tls.cert").is_path && key("edge.tls.cert").reload);
        assert!(!key("edge.listen").reload);
        assert_eq!(key("login.max_under_way").kind, Kind::Number { min: 1, max: 65_536 });
        assert_eq!(key("login.session_lifetime").kind, Kind::Duration);
        assert_eq!(key("login.session_lifetime").default, Some("12h".into()));
        assert_eq!(key("keys.noise").kind, Kind::Texts);
        assert_eq!(key("edge.behind_mesh").kind, Kind::Truth);
        assert_eq!(key("admin.listen").kind, Kind::Text);
    }

    #[test]
    fn no_two_keys_have_one_variable() {
        let mut variables: Vec<_> = keys().iter().map(Key::variable).collect();
        variables.sort();
        variables.dedup();
        assert_eq!(variables.len(), keys().len());
    }
}
