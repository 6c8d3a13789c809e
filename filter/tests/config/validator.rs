//! As much of JSON Schema (draft 2020-12) as our schema uses. A keyword that it does not know is
//! an error of the test, so that nothing passes unlooked at.

use serde_json::{Map, Value};

/// What is wrong with `value`, by its path.
pub fn problems(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Validator { root: schema }.check(schema, value, "", &mut found);
    found
}

struct Validator<'a> {
    root: &'a Value,
}

impl Validator<'_> {
    fn fits(&self, schema: &Value, value: &Value) -> bool {
        let mut found = Vec::new();
        self.check(schema, value, "", &mut found);
        found.is_empty()
    }

    fn check(&self, schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
        let keywords = match schema {
            Value::Bool(true) => return,
            Value::Object(keywords) => keywords,
            _ => return found.push(format!("{path}: not allowed here")),
        };
        for (keyword, wanted) in keywords {
            if !self.keyword(keyword, wanted, keywords, value, path, found) {
                found.push(format!("{path}: {value} does not fit {keyword} {wanted}"));
            }
        }
    }

    fn keyword(
        &self,
        keyword: &str,
        wanted: &Value,
        all: &Map<String, Value>,
        value: &Value,
        path: &str,
        found: &mut Vec<String>,
    ) -> bool {
        let schemas = || wanted.as_array().unwrap();
        let number = || value.as_f64().zip(wanted.as_f64());
        match keyword {
            "$schema" | "$defs" | "title" | "description" | "default" | "format" | "then"
            | "else" => {}
            "$ref" => {
                let pointer = wanted.as_str().unwrap().strip_prefix('#').unwrap();
                let target = self.root.pointer(pointer).unwrap();
                self.check(target, value, path, found);
            }
            "type" => return has_type(wanted.as_str().unwrap(), value),
            "const" => return value == wanted,
            "enum" => return schemas().contains(value),
            "minimum" => return number().is_none_or(|(value, least)| value >= least),
            "maximum" => return number().is_none_or(|(value, most)| value <= most),
            "minLength" => return value.as_str().is_none_or(|text| !text.is_empty()),
            "minItems" => return value.as_array().is_none_or(|items| !items.is_empty()),
            "minProperties" => return value.as_object().is_none_or(|entries| !entries.is_empty()),
            "maxItems" => {
                let most = wanted.as_u64().unwrap() as usize;
                return value.as_array().is_none_or(|items| items.len() <= most);
            }
            "pattern" => return value.as_str().is_none_or(|text| matches(wanted, text)),
            "required" => {
                let Some(entries) = value.as_object() else { return true };
                return schemas().iter().all(|key| entries.contains_key(key.as_str().unwrap()));
            }
            "anyOf" => return schemas().iter().any(|schema| self.fits(schema, value)),
            "oneOf" => return schemas().iter().filter(|s| self.fits(s, value)).count() == 1,
            "allOf" => schemas().iter().for_each(|s| self.check(s, value, path, found)),
            "if" => {
                let branch = if self.fits(wanted, value) { "then" } else { "else" };
                self.check(&all[branch], value, path, found);
            }
            "properties" => {
                for (key, schema) in wanted.as_object().unwrap() {
                    if let Some(value) = value.get(key) {
                        self.check(schema, value, &format!("{path}/{key}"), found);
                    }
                }
            }
            "additionalProperties" => {
                let declared = all.get("properties").and_then(Value::as_object);
                for (key, value) in value.as_object().into_iter().flatten() {
                    if !declared.is_some_and(|declared| declared.contains_key(key)) {
                        self.check(wanted, value, &format!("{path}/{key}"), found);
                    }
                }
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    self.check(wanted, value, &format!("{path}/{index}"), found);
                }
            }
            "prefixItems" => {
                let items = value.as_array().into_iter().flatten();
                for (index, (schema, value)) in schemas().iter().zip(items).enumerate() {
                    self.check(schema, value, &format!("{path}/{index}"), found);
                }
            }
            _ => panic!("the validator does not know {keyword}"),
        }
        true
    }
}

fn has_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => panic!("the validator does not know the type {name}"),
    }
}

/// Of regular expressions it knows digits before one of several units.
fn matches(pattern: &Value, text: &str) -> bool {
    let units = pattern.as_str().unwrap().strip_prefix("^[0-9]+(").unwrap();
    let mut units = units.strip_suffix(")$").unwrap().split('|');
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    unit.len() < text.len() && units.any(|known| known == unit)
}
