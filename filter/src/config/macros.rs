//! Definitions of what can stand in the document: the type, how it is read, and its part of the
//! schema, all from one place.

/// An object: a struct with one field for each key.
///
/// `key: Type` is needed unless the type says otherwise (`Option`), `key: Type = value` has a
/// default, `key as "name": Type` has another name in the document. With `default` in front,
/// every key has the default that the type's `Default` gives it.
macro_rules! object {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(
                $(#[$key_meta:meta])*
                pub $key:ident $(as $other:literal)? : $type:ty $(= $default:expr)?,
            )*
        }
    ) => {
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[cfg_attr(feature = "schema", schemars(deny_unknown_fields))]
        $(#[$meta])*
        pub struct $name {
            $(
                $(#[$key_meta])*
                $(#[cfg_attr(feature = "schema", schemars(rename = $other))])?
                pub $key: $type,
            )*
        }

        read_object!($name { $($key $(as $other)? $(= $default)?,)* });
    };
    (
        default
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$key_meta:meta])* pub $key:ident: $type:ty,)*
        }
    ) => {
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[cfg_attr(feature = "schema", schemars(deny_unknown_fields, default))]
        $(#[$meta])*
        pub struct $name {
            $($(#[$key_meta])* pub $key: $type,)*
        }

        impl $crate::config::read::Read for $name {
            const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];

            #[inline(never)]
            fn read(at: &$crate::config::read::At<'_>) -> Option<Self> {
                let object = at.object(Self::KEYS)?;
                let default = Self::default();
                $(let $key = object.field_or(stringify!($key), default.$key);)*
                Some(Self { $($key: $key?),* })
            }
        }
    };
}

/// How an object is read, for a struct that is defined elsewhere.
macro_rules! read_object {
    ($name:ident { $($key:ident $(as $other:literal)? $(= $default:expr)?),* $(,)? }) => {
        impl $crate::config::read::Read for $name {
            const KEYS: &'static [&'static str] = &[$(key_name!($key $($other)?)),*];

            #[inline(never)]
            // Every key is looked at before the first that failed ends it.
            fn read(at: &$crate::config::read::At<'_>) -> Option<Self> {
                #[allow(unused_variables, reason = "an object may have no keys")]
                let object = at.object(Self::KEYS)?;
                $(let $key = field!(object, key_name!($key $($other)?) $(, $default)?);)*
                Some(Self { $($key: $key?),* })
            }
        }
    };
}

macro_rules! key_name {
    ($key:ident) => {
        stringify!($key)
    };
    ($key:ident $other:literal) => {
        $other
    };
}

macro_rules! field {
    ($object:ident, $key:expr) => {
        $object.field($key)
    };
    ($object:ident, $key:expr, $default:expr) => {
        $object.field_or($key, $default)
    };
}

/// A choice between names.
macro_rules! choice {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)*
        }
    ) => {
        #[cfg_attr(feature = "schema", derive(serde::Serialize, schemars::JsonSchema))]
        $(#[$meta])*
        pub enum $name {
            $(
                $(#[$variant_meta])*
                #[cfg_attr(feature = "schema", serde(rename = $word))]
                $variant,
            )*
        }

        impl $name {
            /// As the document writes it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        read_choice!($name { $($word => $variant,)* });
    };
}

/// How a choice is read, for an enum that is defined elsewhere: names alone, then names with
/// content.
macro_rules! read_choice {
    (
        $name:ident { $($word:literal => $variant:ident),* $(,)? }
        $({ $($with:literal => $content:ident),* $(,)? })?
    ) => {
        impl $crate::config::read::Read for $name {
            const KEYS: &'static [&'static str] = &[$($word,)* $($($with,)*)?];

            #[inline(never)]
            fn read(at: &$crate::config::read::At<'_>) -> Option<Self> {
                let (name, content) = at.choice(Self::KEYS)?;
                match name {
                    $($word => at.alone(name, content.is_none()).then_some(Self::$variant),)*
                    $($($with => at.content(name, content).map(Self::$content),)*)?
                    _ => None,
                }
            }
        }
    };
}
