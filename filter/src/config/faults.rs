//! What is wrong with a configuration, as it is found.

use std::fmt::Display;

use crate::error::ConfigError;

/// Collects errors, each with its path.
#[derive(Debug, Default)]
pub struct Faults {
    found: Vec<ConfigError>,
    /// The part of the document that is looked at: paths begin below it.
    part: &'static str,
}

impl Faults {
    /// Something is wrong at `path`, which is empty for the part itself.
    // Once in the program instead of at every place that finds something.
    #[inline(never)]
    #[cold]
    pub fn add(&mut self, path: &str, problem: &dyn Display) {
        let error = ConfigError::new(path, problem.to_string());
        self.found.push(if self.part.is_empty() { error } else { error.under(self.part) });
    }

    /// The same, unless something is wrong at this place already.
    pub fn add_once(&mut self, error: ConfigError) {
        if !self.found.iter().any(|other| other.path == error.path) {
            self.found.push(error);
        }
    }

    /// Looks at a part of the document: paths that `look` adds begin below it.
    pub fn under<T>(&mut self, part: &'static str, look: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.part, part);
        let value = look(self);
        self.part = outer;
        value
    }

    pub fn count(&self) -> usize {
        self.found.len()
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether something is wrong at exactly this place.
    pub fn has(&self, path: &str) -> bool {
        self.found.iter().any(|error| error.path == path)
    }

    /// In the order in which they were found.
    pub fn into_errors(self) -> Vec<ConfigError> {
        self.found
    }
}
