//! Reading a configuration: file, environment, flags; each overrides what comes before it.

use std::path::Path;

use serde::Deserialize as _;
use toml::{Table, Value};

use super::Document;
use super::schema::{Key, keys};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("{from}: not TOML: {problem}")]
    NotToml { from: String, problem: String },
    #[error("{from}: `{path}` is no key; {remedy}")]
    Unknown { from: String, path: String, remedy: String },
    #[error("{from}: `{path}` must be {expected}")]
    Wrong { from: String, path: String, expected: String },
    #[error("the configuration does not fit together: {0}")]
    Shape(String),
}

/// A value for one key, from elsewhere than the file.
#[derive(Clone, Debug)]
pub struct Override {
    /// For messages: `--listen`.
    pub from: String,
    pub path: String,
    pub value: String,
}

/// The document of a file's text and what overrides it. `variable` looks into the environment.
pub fn load(
    file: Option<(&Path, &str)>,
    variable: impl Fn(&str) -> Option<String>,
    flags: &[Override],
) -> Result<Document, LoadError> {
    let mut table = match file {
        Some((path, text)) => read_file(path, text)?,
        None => Table::new(),
    };
    for key in keys() {
        if let Some(value) = variable(&key.variable()) {
            put(&mut table, &key.variable(), key, &value)?;
        }
    }
    for Override { from, path, value } in flags {
        let key = find(path).ok_or_else(|| unknown(from, path))?;
        put(&mut table, from, key, value)?;
    }
    Document::deserialize(table).map_err(|error| LoadError::Shape(error.message().to_owned()))
}

fn find(path: &str) -> Option<&'static Key> {
    keys().iter().find(|key| key.path == path)
}

fn read_file(path: &Path, text: &str) -> Result<Table, LoadError> {
    let from = path.display().to_string();
    let mut table: Table = toml::from_str(text).map_err(|error| {
        let line = error.span().and_then(|span| text.get(..span.start)).map(|before| {
            let line = before.matches('\n').count().saturating_add(1);
            format!("line {line}: ")
        });
        let problem = format!("{}{}", line.unwrap_or_default(), error.message());
        LoadError::NotToml { from: from.clone(), problem }
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    check(&from, folder, "", &mut table)?;
    Ok(table)
}

/// Refuses unknown keys and wrong types; makes relative paths count from the file's folder.
fn check(from: &str, folder: &Path, prefix: &str, table: &mut Table) -> Result<(), LoadError> {
    for (name, value) in table.iter_mut() {
        let path = format!("{prefix}{name}");
        if let Some(key) = find(&path) {
            if !key.accepts(value) {
                let expected = key.expected();
                return Err(LoadError::Wrong { from: from.to_owned(), path, expected });
            }
            if key.is_path {
                from_folder(folder, value);
            }
            continue;
        }
        let inside = format!("{path}.");
        let is_section = keys().iter().any(|key| key.path.starts_with(&inside));
        match value {
            Value::Table(table) if is_section => check(from, folder, &inside, table)?,
            _ if is_section => {
                let expected = format!("a table: [{path}]");
                return Err(LoadError::Wrong { from: from.to_owned(), path, expected });
            }
            _ => return Err(unknown(from, &path)),
        }
    }
    Ok(())
}

fn from_folder(folder: &Path, value: &mut Value) {
    match value {
        Value::String(path) => *path = folder.join(&*path).display().to_string(),
        Value::Array(items) => items.iter_mut().for_each(|item| from_folder(folder, item)),
        _ => {}
    }
}

fn put(table: &mut Table, from: &str, key: &Key, text: &str) -> Result<(), LoadError> {
    let wrong = || {
        let (from, path) = (from.to_owned(), key.path.clone());
        LoadError::Wrong { from, path, expected: key.expected() }
    };
    let value = key.read(text).ok_or_else(wrong)?;
    let (sections, name) = key.section_and_name();
    let mut table = table;
    for section in sections.split('.').filter(|section| !section.is_empty()) {
        let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
        table = inner.as_table_mut().ok_or_else(wrong)?;
    }
    table.insert(name.to_owned(), value);
    Ok(())
}

fn unknown(from: &str, path: &str) -> LoadError {
    let nearest = keys()
        .iter()
        .map(|key| (distance(&key.path, path), &key.path))
        .min()
        .filter(|(distance, _)| *distance <= path.len() / 2);
    let remedy = match nearest {
        Some((_, near)) => format!("did you mean `{near}`? `meshgate config reference` lists all"),
        None => "`meshgate config reference` lists all".into(),
    };
    LoadError::Unknown { from: from.to_owned(), path: path.to_owned(), remedy }
}

/// How many characters to add, take away or change (Levenshtein's distance).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (index, from) in a.chars().enumerate() {
        let mut next = vec![index.saturating_add(1)];
        for (pair, to) in row.windows(2).zip(b.chars()) {
            let &[diagonal, above] = pair else { continue };
            let left = next.last().copied().unwrap_or_default();
            let change = diagonal.saturating_add(usize::from(from != to));
            next.push(change.min(above.saturating_add(1)).min(left.saturating_add(1)));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn from_text(text: &str) -> Result<Document, LoadError> {
        load(Some((Path::new("/etc/meshgate/c.toml"), text)), |_| None, &[])
    }

    #[test]
    fn flags_override_the_environment_which_overrides_the_file() {
        let file = "[edge]\nlisten = \"127.0.0.1:1\"\n[login]\naudiences = [\"a\"]\n[log]\nfilter = \"warn\"";
        let variable = |name: &str| match name {
            "MESHGATE_EDGE_LISTEN" => Some("127.0.0.1:2".to_owned()),
            "MESHGATE_LOGIN_AUDIENCES" => Some("b, c".to_owned()),
            _ => None,
        };
        let flag = Override {
            from: "--listen".into(),
            path: "edge.listen".into(),
            value: "127.0.0.1:3".into(),
        };
        let document = load(Some((Path::new("c.toml"), file)), variable, &[flag]).unwrap();
        assert_eq!(document.edge.listen, "127.0.0.1:3");
        assert_eq!(document.login.audiences, ["b", "c"]);
        assert_eq!(document.log.filter, "warn");
        assert_eq!(document.login.max_under_way, 4096);
    }

    #[test]
    fn relative_paths_of_the_file_count_from_its_folder() {
        let text = "[keys]\nnoise = [\"n.json\", \"/abs.json\"]\n[store]\npath = \"s.redb\"";
        let document = from_text(text).unwrap();
        let expected = ["/etc/meshgate/n.json", "/abs.json"].map(PathBuf::from);
        assert_eq!(document.keys.noise, expected);
        assert_eq!(document.store.path, PathBuf::from("/etc/meshgate/s.redb"));
    }

    #[test]
    fn mistakes_are_named_with_their_path_and_a_remedy() {
        for (text, message) in [
            (
                "[edge]\nlissten = \"x\"",
                "/etc/meshgate/c.toml: `edge.lissten` is no key; did you mean `edge.listen`? \
                 `meshgate config reference` lists all",
            ),
            (
                "qqqqqq = 1",
                "/etc/meshgate/c.toml: `qqqqqq` is no key; `meshgate config reference` lists all",
            ),
            ("edge = 1", "/etc/meshgate/c.toml: `edge` must be a table: [edge]"),
            (
                "[edge]\nbehind_mesh = 1",
                "/etc/meshgate/c.toml: `edge.behind_mesh` must be `true` or `false`",
            ),
            ("[keys]\nnoise = \"a\"", "/etc/meshgate/c.toml: `keys.noise` must be a list of paths"),
            (
                "[login]\nsingle_use = \"once\"",
                "/etc/meshgate/c.toml: `login.single_use` must be one of `noise`, `always`, `never`",
            ),
            (
                "[login]\nsession_lifetime = \"soon\"",
                "/etc/meshgate/c.toml: `login.session_lifetime` must be a duration such as `90s`, \
                 `15m`, `12h` or `7d`",
            ),
            (
                "[login]\nmax_under_way = 0",
                "/etc/meshgate/c.toml: `login.max_under_way` must be a number from 1 to 65536",
            ),
            ("[edge.tls.cert]\nx = 1", "/etc/meshgate/c.toml: `edge.tls.cert` must be a path"),
        ] {
            assert_eq!(from_text(text).unwrap_err().to_string(), message, "{text}");
        }
        let broken = from_text("[edge]\nlisten = ").unwrap_err().to_string();
        assert!(broken.starts_with("/etc/meshgate/c.toml: not TOML: line 2: "), "{broken}");
        let variable = |name: &str| (name == "MESHGATE_EDGE_BEHIND_MESH").then(|| "yes".into());
        assert_eq!(
            load(None, variable, &[]).unwrap_err().to_string(),
            "MESHGATE_EDGE_BEHIND_MESH: `edge.behind_mesh` must be `true` or `false`"
        );
    }

    #[test]
    fn distances_count_single_changes() {
        assert_eq!(distance("listen", "lissten"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
