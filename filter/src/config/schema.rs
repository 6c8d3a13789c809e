//! The JSON Schema of the configuration, from the types and their doc comments.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::Document;
use super::command::CommandSpec;
use super::commands::Methods;
use super::read::{Attempt, Entries};
use super::units::{Size, Span};

/// The schema of the whole document, draft 2020-12. Its words are those of `README.md`.
pub fn schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<Document>()
        .to_value();
    refuse_null(&mut schema);
    join_lines(&mut schema);
    schema
}

/// Doc comments are wrapped where the source is; a description is wrapped where it is shown.
fn join_lines(schema: &mut Value) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(join_lines),
        Value::Object(keywords) => {
            keywords.values_mut().for_each(join_lines);
            if let Some(Value::String(text)) = keywords.get_mut("description") {
                *text = text.replace('\n', " ");
            }
        }
        _ => {}
    }
}

/// An optional key may be left out, it may not be `null`: undoes what schemars does to options.
fn refuse_null(schema: &mut Value) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(refuse_null),
        Value::Object(keywords) => {
            keywords.values_mut().for_each(refuse_null);
            if keywords.get("default") == Some(&Value::Null) {
                keywords.remove("default");
            }
            if let Some(Value::Array(types)) = keywords.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_mut_slice() {
                    let only = only.take();
                    keywords.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(choices)) = keywords.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type") != Some(&Value::from("null")));
                if let [Value::Object(only)] = choices.as_mut_slice() {
                    let only = std::mem::take(only);
                    keywords.remove("anyOf");
                    for (name, value) in only {
                        keywords.entry(name).or_insert(value);
                    }
                }
            }
        }
        _ => {}
    }
}

/// What stands there in the document is the part itself.
impl<T: JsonSchema> JsonSchema for Attempt<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: JsonSchema> JsonSchema for Entries<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Object_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "additionalProperties": generator.subschema_for::<T>()
        })
    }
}

impl<T: Serialize> Serialize for Entries<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A length of time with its unit: `\"250ms\"`, `\"5s\"`, `\"2m\"`, `\"1h\"`.",
            "type": "string",
            "pattern": "^[0-9]+(ms|s|m|h)$"
        })
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of bytes below 4 GiB, plain or with a unit: `65536`, `\"64KiB\"`, `\"4MiB\"`.",
            "anyOf": [
                { "type": "integer", "minimum": 0, "maximum": u32::MAX },
                { "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" }
            ]
        })
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for CommandSpec {
    fn schema_name() -> Cow<'static, str> {
        "Command".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A command as the layout has it: a number (`1001`, `\"0x03e9\"`) or a name (`\"enter\"`).",
            "anyOf": [{ "type": "integer" }, { "type": "string", "minLength": 1 }]
        })
    }
}

impl JsonSchema for Methods {
    fn schema_name() -> Cow<'static, str> {
        "Methods".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A service's methods, by command (`{\"1001\": \"Enter\"}`) or in the order of their commands (`[\"Enter\", \"Leave\"]`).",
            "anyOf": [
                { "type": "object", "minProperties": 1, "additionalProperties": { "type": "string" } },
                { "type": "array", "minItems": 1, "items": { "type": "string" } }
            ]
        })
    }
}
