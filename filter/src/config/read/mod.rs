//! Reads a JSON document into types, strictly, and says of everything that is wrong where it
//! stands.
//!
//! A type that can stand in a document implements [`Read`]; `object!` and `choice!` do that from
//! its definition. A value knows its path, so errors need no help from
//! the types; unknown keys, keys that stand twice and `null` are refused here for all of them.
//! A fault does not stop the reading: the rest of the document is looked at too.
//!
//! It is our own because derived code for 50 types, as serde makes it, took more of the Wasm
//! than the data path itself.

mod json;
mod layout;
mod values;
mod wording;

use std::cell::RefCell;
use std::fmt;

use self::json::Node;
pub use self::values::{Attempt, Entries};
pub use self::wording::remedy;
use super::faults::Faults;
use super::seen::Seen;
use crate::route::index::hash_text;

/// What can stand in a document.
pub trait Read: Sized {
    /// The names that it knows: keys of an object, names of a choice.
    const KEYS: &'static [&'static str] = &[];

    /// The value at `at`. `None` if there is a fault, which has been noted.
    fn read(at: &At<'_>) -> Option<Self>;

    /// The value of a key that is not there.
    fn absent(object: &Object<'_>, key: &str) -> Option<Self> {
        object.at.note(&format_args!("the key {key:?} is missing"));
        None
    }
}

/// Reads `json`; faults go to `faults`. `None` if there is no value to go on with.
pub fn document<T: Read>(json: &[u8], faults: &mut Faults) -> Option<T> {
    if json.iter().all(u8::is_ascii_whitespace) {
        faults.add("", &"the configuration is empty, expected a JSON object");
        return None;
    }
    let root = json::parse(json);
    let root =
        root.map_err(|problem| faults.add("", &format_args!("not a JSON document: {problem}")));
    let root = root.ok()?;
    let found = RefCell::new(std::mem::take(faults));
    let value = T::read(&At { node: &root, path: Path::ROOT, faults: &found });
    *faults = found.into_inner();
    value
}

/// A value and its place in the document.
pub struct At<'a> {
    node: &'a Node,
    path: Path<'a>,
    faults: &'a RefCell<Faults>,
}

/// An object whose keys have been looked at.
pub struct Object<'a> {
    at: &'a At<'a>,
    entries: &'a [(String, Node)],
}

struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl Path<'_> {
    const ROOT: Path<'static> = Path { parent: None, step: Step::Root };
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        let first = self.parent.is_none_or(|parent| matches!(parent.step, Step::Root));
        match self.step {
            Step::Root => Ok(()),
            Step::Key(key) if first => f.write_str(key),
            Step::Key(key) => write!(f, ".{key}"),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl<'a> At<'a> {
    /// Notes what is wrong here.
    #[inline(never)]
    #[cold]
    pub fn note(&self, problem: &dyn fmt::Display) {
        self.faults.borrow_mut().add(&self.path.to_string(), problem);
    }

    /// Notes that something else is expected here.
    pub fn mismatch<T>(&self, expected: &str) -> Option<T> {
        self.note_mismatch(expected);
        None
    }

    #[inline(never)]
    #[cold]
    fn note_mismatch(&self, expected: &str) {
        if let Node::Null = self.node {
            self.note(&"null says nothing, leave the key out to get its default");
        } else {
            self.note(&format_args!("expected {expected}, got {}", self.node.describe()));
        }
    }

    /// The text here, if it is one.
    pub fn text(&self) -> Option<&'a str> {
        if let Node::Text(text) = self.node { Some(text) } else { None }
    }

    /// The whole number here, if it is one from `least` to `most`. Else that is noted.
    #[inline(never)]
    pub fn whole_within(&self, least: i128, most: i128) -> Option<i128> {
        let number = self.whole().filter(|number| (least..=most).contains(number));
        number.or_else(|| self.mismatch(&format!("a whole number from {least} to {most}")))
    }

    /// The whole number here, if it is one.
    pub fn whole(&self) -> Option<i128> {
        match self.node {
            Node::Unsigned(number) => Some((*number).into()),
            Node::Signed(number) => Some((*number).into()),
            _ => None,
        }
    }

    pub fn is_list(&self) -> bool {
        matches!(self.node, Node::List(_))
    }

    pub fn is_object(&self) -> bool {
        matches!(self.node, Node::Object(_))
    }

    /// The items of the list here, if it is one.
    pub fn items(&self) -> Option<impl Iterator<Item = At<'_>>> {
        let Node::List(items) = self.node else { return None };
        let item = |(index, node)| At {
            node,
            path: Path { parent: Some(&self.path), step: Step::Index(index) },
            faults: self.faults,
        };
        Some(items.iter().enumerate().map(item))
    }

    /// The keys and values of the object here, if it is one. Any keys will do, once each.
    pub fn entries(&self) -> Option<impl Iterator<Item = (&str, At<'_>)>> {
        let Node::Object(entries) = self.node else { return None };
        self.refuse_doubled_keys(entries);
        Some(entries.iter().map(|(key, node)| (key.as_str(), self.child(key, node))))
    }

    /// The object here with keys of `known` alone. Else that is noted.
    #[inline(never)]
    pub fn object(&self, known: &[&str]) -> Option<Object<'_>> {
        let Node::Object(entries) = self.node else { return self.mismatch("an object") };
        self.refuse_doubled_keys(entries);
        for (key, node) in entries {
            if !known.contains(&key.as_str()) {
                let problem = format_args!("not a key here, {}", wording::remedy(key, known));
                self.child(key, node).note(&problem);
            }
        }
        Some(Object { at: self, entries })
    }

    /// The name and the content of the choice here: `"name"` or `{"name": content}`, with a name
    /// of `known`. Else that is noted.
    #[inline(never)]
    pub fn choice(&self, known: &[&str]) -> Option<(&str, Option<At<'_>>)> {
        let (name, content) = match self.node {
            Node::Text(name) => (name, None),
            Node::Object(entries) => match entries.as_slice() {
                [(name, content)] => (name, Some(self.child(name, content))),
                _ => {
                    let names = wording::one_of(known);
                    self.note(&format_args!("expected an object with one key, {names}"));
                    return None;
                }
            },
            _ => return self.mismatch(&wording::one_of(known)),
        };
        if !known.contains(&name.as_str()) {
            let remedy = wording::remedy(name, known);
            self.note(&format_args!("{name:?} is not known here, {remedy}"));
            return None;
        }
        Some((name, content))
    }

    /// Whether a choice without content stands alone. Else that is noted.
    pub fn alone(&self, name: &str, alone: bool) -> bool {
        if !alone {
            self.note(&format_args!("{name:?} stands alone, without braces"));
        }
        alone
    }

    /// The content of a choice that needs one.
    pub fn content<T: Read>(&self, name: &str, content: Option<At<'_>>) -> Option<T> {
        let Some(content) = content else {
            self.note(&format_args!("{name:?} needs more: {{{name:?}: …}}"));
            return None;
        };
        T::read(&content)
    }

    fn child<'b>(&'b self, key: &'b str, node: &'b Node) -> At<'b> {
        let path = Path { parent: Some(&self.path), step: Step::Key(key) };
        At { node, path, faults: self.faults }
    }

    fn refuse_doubled_keys(&self, entries: &[(String, Node)]) {
        let mut seen = Seen::with_room_for(entries.len());
        for (number, (key, _)) in entries.iter().enumerate() {
            let same = |other: usize| entries.get(other).is_some_and(|(other, _)| other == key);
            if seen.insert(hash_text(key.as_bytes()), number, &same).is_some() {
                self.note(&format_args!("the key {key:?} stands here more than once, keep one"));
            }
        }
    }
}

impl Object<'_> {
    /// The value of a key.
    #[inline(never)]
    pub fn field<T: Read>(&self, key: &str) -> Option<T> {
        match self.get(key) {
            Some(at) => T::read(&at),
            None => T::absent(self, key),
        }
    }

    /// The value of a key that has a default.
    #[inline(never)]
    pub fn field_or<T: Read>(&self, key: &str, default: T) -> Option<T> {
        match self.get(key) {
            Some(at) => T::read(&at),
            None => Some(default),
        }
    }

    #[inline(never)]
    fn get(&self, key: &str) -> Option<At<'_>> {
        let (key, node) = self.entries.iter().find(|(found, _)| found == key)?;
        Some(self.at.child(key, node))
    }
}

#[cfg(test)]
mod tests;
