//! From a specification to a plan, or to an error that says where and what would be right.

mod checksums;
mod fields;
mod lengths;
mod reply;
mod roles;
mod trailer;
mod values;

#[cfg(test)]
mod tests;

use super::compression::Compression;
use super::encode::Prepared;
use super::frame::Flags;
use super::plan::{HeaderField, Layout};
use super::slot::Slot;
use super::spec::{Correlation, FieldSpec, LayoutSpec};
use crate::error::ConfigError;

impl Layout {
    /// Compiles a specification. Errors name the path inside of it, for instance
    /// `header[3].role.length.adjust`.
    pub fn compile(spec: LayoutSpec) -> Result<Self, ConfigError> {
        check_name(&spec.name)?;
        let slots = fields::slots(&spec)?;
        let fixed = slots.iter().all(|slot| slot.shape.fixed_width().is_some());
        let header_min =
            slots.iter().fold(0_usize, |sum, slot| sum.saturating_add(slot.shape.widths().0));
        let trailer = trailer::trailer(&spec)?;

        let roles = roles::Roles::of(&spec, &slots)?;
        let Some(command) = roles.command else {
            return Err(ConfigError::new(
                "header",
                "no field says what a frame asks for: give one the role \"command\"",
            ));
        };
        check_correlation(spec.correlation, roles.sequence)?;
        let lengths = lengths::lengths(&spec, &slots, header_min, trailer.len, fixed)?;
        let checksums = checksums::checksums(&spec, &slots, &trailer)?;
        let reply = reply::reply(&spec, &lengths, command, roles.status)?;
        let compression = compression(&spec, roles.expresses)?;

        let header: Box<[HeaderField]> = fields::header(&spec, &slots)?;
        let checks = roles.checks(&header);
        let (prefix, late_checks) =
            if fixed { roles::prefix(&checks, header_min) } else { (None, Box::default()) };
        Ok(Self {
            name: spec.name.into(),
            correlation: spec.correlation,
            order: spec.byte_order,
            fixed,
            header_min,
            checks,
            prefix,
            late_checks,
            command,
            sequence: roles.sequence,
            status: roles.status,
            version: roles.version,
            flags: roles.flags.into(),
            kind: roles.kind,
            expresses: roles.expresses,
            lengths,
            trailer: trailer.fields,
            trailer_len: trailer.len,
            checksums,
            reply_command: reply.command,
            status_prefix: reply.status_prefix,
            echo_extension: spec.reply.echo_extension,
            answers_one_way: spec.reply.one_way,
            echoes: header.iter().any(|field| field.echo),
            compression,
            trailer_template: trailer.template,
            prepared: Prepared::of(&header),
            header,
        })
    }

    /// Compiles a layout file: the JSON form of [`LayoutSpec`].
    pub fn from_json(json: &str) -> Result<Self, ConfigError> {
        let spec = serde_json::from_str::<LayoutSpec>(json)
            .map_err(|error| ConfigError::new("", error.to_string()))?;
        Self::compile(spec)
    }
}

fn check_name(name: &str) -> Result<(), ConfigError> {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
        return Err(ConfigError::new(
            "name",
            format!(
                "{name:?} is no layout name, expected 1 to 64 of lower-case letters, digits, \
                 '-', '_' and '.'"
            ),
        ));
    }
    Ok(())
}

fn check_correlation(correlation: Correlation, sequence: Option<Slot>) -> Result<(), ConfigError> {
    match (correlation, sequence) {
        (Correlation::Sequence, None) => Err(ConfigError::new(
            "correlation",
            "no header field has the role \"sequence\": give one that role, or say \"order\" \
             if replies come in the order of their requests",
        )),
        (Correlation::Order, Some(_)) => Err(ConfigError::new(
            "correlation",
            "\"order\" is for layouts without a field of the role \"sequence\": leave it out",
        )),
        _ => Ok(()),
    }
}

fn compression(spec: &LayoutSpec, expresses: Flags) -> Result<Option<Compression>, ConfigError> {
    match (&spec.compression, expresses.compressed()) {
        (Some(compression), true) => Ok(Some(Compression::new(*compression))),
        (None, false) => Ok(None),
        (Some(_), false) => Err(ConfigError::new(
            "compression",
            "no flag says whether a body is compressed: give a bit to \"compressed\" in a field \
             of the role \"flags\"",
        )),
        (None, true) => Err(ConfigError::new(
            "compression",
            "a flag says that a body is compressed, but not how: add \
             {\"algorithm\": \"zlib\"} or {\"algorithm\": \"lz4\"}",
        )),
    }
}

/// The path of a header field, for errors.
fn at(index: usize) -> String {
    format!("header[{index}]")
}

/// Counts a field that may be there only once.
fn once<T>(place: &mut Option<T>, value: T, path: &str, what: &str) -> Result<(), ConfigError> {
    if place.is_some() {
        return Err(ConfigError::new(
            path,
            format!("a second {what}: a layout can have one, make this field \"reserved\""),
        ));
    }
    *place = Some(value);
    Ok(())
}

/// The header's fields with their slots.
fn placed<'a>(
    spec: &'a LayoutSpec,
    slots: &'a [Slot],
) -> impl Iterator<Item = (usize, &'a FieldSpec, Slot)> {
    spec.header.iter().zip(slots).enumerate().map(|(index, (field, slot))| (index, field, *slot))
}
