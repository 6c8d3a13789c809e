//! Kubernetes objects from YAML files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Map, Number, Value};
use yaml_rust2::{Yaml, YamlLoader};

/// A chart's whole output has some hundred thousand bytes.
const MAX_BYTES: u64 = 64 << 20;
/// Folders in folders; deeper ones are not manifests, or a link that leads back.
const MAX_DEPTH: usize = 16;

#[derive(Debug)]
pub struct Object {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub value: Value,
    pub source: PathBuf,
}

impl Object {
    pub fn title(&self) -> String {
        let namespace =
            if self.namespace.is_empty() { "" } else { &format!("{}/", self.namespace) };
        format!("{namespace}{} {}", self.kind, self.name)
    }

    pub fn at(&self, path: &str) -> &Value {
        self.value.pointer(path).unwrap_or(&Value::Null)
    }
}

/// Every object in these files, and in the .yaml and .yml files of these folders.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Object>> {
    let mut files = Vec::new();
    for path in paths {
        collect(path, 0, &mut files)?;
    }
    let mut objects = Vec::new();
    for file in files {
        let name = file.display();
        if fs::metadata(&file).with_context(|| name.to_string())?.len() > MAX_BYTES {
            bail!("{name} has more than {MAX_BYTES} bytes");
        }
        let text = fs::read_to_string(&file).with_context(|| name.to_string())?;
        objects.extend(parse(&text, &file).with_context(|| name.to_string())?);
    }
    if objects.is_empty() {
        bail!("no object in {paths:?}");
    }
    Ok(objects)
}

/// A named file whatever its name; of a folder what looks like a manifest. Templates of a chart are
/// not YAML before Helm has rendered them.
fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    if depth > MAX_DEPTH || path.join("Chart.yaml").exists() {
        return Ok(());
    }
    let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
    let mut inside = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    inside.sort();
    for entry in inside {
        let extension = entry.extension().and_then(|extension| extension.to_str());
        if entry.is_dir() || matches!(extension, Some("yaml" | "yml")) {
            collect(&entry, depth.saturating_add(1), files)?;
        }
    }
    Ok(())
}

pub fn parse(text: &str, source: &Path) -> anyhow::Result<Vec<Object>> {
    let mut objects = Vec::new();
    for document in YamlLoader::load_from_str(text)? {
        let value = json(&document);
        let inside = match value.pointer("/items").and_then(Value::as_array) {
            Some(items) => items.clone(),
            None => vec![value],
        };
        objects.extend(inside.into_iter().filter_map(|value| object(value, source)));
    }
    Ok(objects)
}

fn object(value: Value, source: &Path) -> Option<Object> {
    let text = |path: &str| Some(value.pointer(path)?.as_str()?.to_owned());
    Some(Object {
        kind: text("/kind")?,
        namespace: text("/metadata/namespace").unwrap_or_default(),
        name: text("/metadata/name")?,
        source: source.to_owned(),
        value,
    })
}

fn json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::String(text) => Value::String(text.clone()),
        Yaml::Integer(number) => Value::Number((*number).into()),
        Yaml::Real(text) => {
            let number = text.parse().ok().and_then(Number::from_f64);
            number.map_or_else(|| Value::String(text.clone()), Value::Number)
        }
        Yaml::Boolean(truth) => Value::Bool(*truth),
        Yaml::Array(entries) => entries.iter().map(json).collect(),
        Yaml::Hash(entries) => {
            let pairs = entries.iter().map(|(key, value)| (key_text(key), json(value)));
            Value::Object(pairs.collect::<Map<_, _>>())
        }
        Yaml::Null | Yaml::BadValue | Yaml::Alias(_) => Value::Null,
    }
}

/// JSON has no other keys than texts: a port as a key is one.
fn key_text(key: &Yaml) -> String {
    match json(key) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_lists_and_keys_that_are_numbers_are_read() {
        let text = "kind: A\nmetadata: { name: a, namespace: n }\nspec: { 7000: { mode: x }, f: 1.5 }\n\
                    ---\n# nothing\n---\nkind: List\nitems:\n  - kind: B\n    metadata: { name: b }\n";
        let objects = parse(text, Path::new("f")).unwrap();
        assert_eq!(objects.iter().map(Object::title).collect::<Vec<_>>(), ["n/A a", "B b"]);
        assert_eq!(objects[0].at("/spec/7000/mode"), "x");
        assert_eq!(objects[0].at("/spec/f"), 1.5);
    }
}
