//! The values that documents are made of.

use super::{At, Object, Read};

/// A part of the document that may fail by itself: its fault is noted, and what does not depend
/// on it is still looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attempt<T>(pub Option<T>);

impl<T: Read> Read for Attempt<T> {
    fn read(at: &At<'_>) -> Option<Self> {
        Some(Self(T::read(at)))
    }

    fn absent(object: &Object<'_>, key: &str) -> Option<Self> {
        Some(Self(T::absent(object, key)))
    }
}

/// An object whose keys are data, in the order of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries<T>(pub Vec<(String, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Read> Read for Entries<T> {
    fn read(at: &At<'_>) -> Option<Self> {
        let Some(entries) = at.entries() else { return at.mismatch("an object") };
        let mut read = Some(Vec::new());
        for (key, at) in entries {
            let value = T::read(&at);
            read = read.zip(value).map(|(mut all, value)| {
                all.push((key.to_owned(), value));
                all
            });
        }
        read.map(Self)
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(at: &At<'_>) -> Option<Self> {
        let Some(items) = at.items() else { return at.mismatch("a list") };
        let mut read = Some(Self::new());
        for at in items {
            let value = T::read(&at);
            read = read.zip(value).map(|(mut all, value)| {
                all.push(value);
                all
            });
        }
        read
    }
}

impl<T: Read> Read for Option<T> {
    fn read(at: &At<'_>) -> Option<Self> {
        T::read(at).map(Some)
    }

    fn absent(_: &Object<'_>, _: &str) -> Option<Self> {
        Some(None)
    }
}

impl Read for bool {
    fn read(at: &At<'_>) -> Option<Self> {
        match at.node {
            super::Node::Bool(value) => Some(*value),
            _ => at.mismatch("true or false"),
        }
    }
}

impl Read for String {
    fn read(at: &At<'_>) -> Option<Self> {
        let Some(text) = at.text() else { return at.mismatch("text") };
        Some(text.into())
    }
}

macro_rules! whole_numbers {
    ($($type:ty)*) => {
        $(impl Read for $type {
            fn read(at: &At<'_>) -> Option<Self> {
                let number = at.whole_within(Self::MIN.into(), Self::MAX.into())?;
                Self::try_from(number).ok()
            }
        })*
    };
}

whole_numbers!(u8 u16 u32 u64 i32 i64);
