//! Names, shapes and places of header fields, and what becomes of them.

use super::super::plan::{HeaderField, Part};
use super::super::slot::{MAX_HEADER_FIELDS, Shape, Slot};
use super::super::spec::{Counts, FieldSpec, FieldType, LayoutSpec, Role, TextLength, Value};
use super::at;
use super::values::bytes_of;
use crate::error::ConfigError;

/// The most bytes of one field: names and tokens, not payloads.
const MAX_FIELD: u16 = 1024;

/// The most bytes of a declared header or of a trailer: both are held until a frame's length
/// is known.
pub(super) const MAX_HEADER: usize = 4096;

/// Checks names and types, and places the header's fields.
pub(super) fn slots(spec: &LayoutSpec) -> Result<Vec<Slot>, ConfigError> {
    if spec.header.is_empty() || spec.header.len() > MAX_HEADER_FIELDS {
        return Err(ConfigError::new(
            "header",
            format!("{} fields, expected 1 to {MAX_HEADER_FIELDS}", spec.header.len()),
        ));
    }
    check_names(spec)?;
    let mut slots = Vec::with_capacity(spec.header.len());
    let mut most = 0_usize;
    for (index, field) in spec.header.iter().enumerate() {
        let shape = shape(field.kind).map_err(|error| error.under(&at(index)))?;
        slots.push(Slot {
            index: u8::try_from(index).unwrap_or(u8::MAX),
            offset: u16::try_from(most).unwrap_or(u16::MAX),
            shape,
            order: field.byte_order.unwrap_or(spec.byte_order),
        });
        most = most.saturating_add(shape.widths().1);
    }
    if most > MAX_HEADER {
        return Err(ConfigError::new(
            "header",
            format!("its fields can take {most} bytes, at most {MAX_HEADER} are allowed"),
        ));
    }
    Ok(slots)
}

fn check_names(spec: &LayoutSpec) -> Result<(), ConfigError> {
    let header = spec.header.iter().enumerate().map(|(index, field)| (at(index), field));
    let trailer =
        spec.trailer.iter().enumerate().map(|(index, field)| (format!("trailer[{index}]"), field));
    let mut seen: Vec<&str> = Vec::new();
    let mut handed_on: Vec<&str> = Vec::new();
    for (path, field) in header.chain(trailer) {
        let name = field.name.as_str();
        if let Some(metadata) = &field.metadata {
            if handed_on.contains(&metadata.as_str()) {
                return Err(ConfigError::new(
                    format!("{path}.metadata"),
                    format!("{metadata:?} is already the name of another field's value"),
                ));
            }
            handed_on.push(metadata);
        }
        let path = format!("{path}.name");
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            return Err(ConfigError::new(
                path,
                format!("{name:?} is no field name, expected 1 to 64 printable bytes"),
            ));
        }
        if ["body", "extension"].contains(&name) {
            return Err(ConfigError::new(
                path,
                format!("{name:?} names a part of every frame, choose another name"),
            ));
        }
        if seen.contains(&name) {
            return Err(ConfigError::new(path, format!("{name:?} is the name of another field")));
        }
        seen.push(name);
    }
    Ok(())
}

pub(super) fn shape(kind: FieldType) -> Result<Shape, ConfigError> {
    let int = |width, signed| Ok(Shape::Int { width, signed });
    let sized = |path: &str, len: u16, shape| {
        if len == 0 || len > MAX_FIELD {
            return Err(ConfigError::new(path, format!("{len} bytes, expected 1 to {MAX_FIELD}")));
        }
        Ok(shape)
    };
    match kind {
        FieldType::U8 => int(1, false),
        FieldType::U16 => int(2, false),
        FieldType::U24 => int(3, false),
        FieldType::U32 => int(4, false),
        FieldType::U64 => int(8, false),
        FieldType::I8 => int(1, true),
        FieldType::I16 => int(2, true),
        FieldType::I32 => int(4, true),
        FieldType::I64 => int(8, true),
        FieldType::Varint => Ok(Shape::Varint),
        FieldType::Bytes(len) => sized("type.bytes", len, Shape::Bytes(len)),
        FieldType::Text(len) => sized("type.text", len, Shape::Text(len)),
        FieldType::SizedText(text) => {
            if text.length == TextLength::U8 && text.max > 255 {
                return Err(ConfigError::new(
                    "type.sized_text.max",
                    format!("a u8 length cannot say {}, at most 255", text.max),
                ));
            }
            sized("type.sized_text.max", text.max, Shape::SizedText(text))
        }
    }
}

/// The header's fields for the plan: what fills them, their fixed bytes, what becomes of them.
pub(super) fn header(spec: &LayoutSpec, slots: &[Slot]) -> Result<Box<[HeaderField]>, ConfigError> {
    let mut flags = 0_u8;
    let mut extensions = 0_u8;
    let mut bodies = 0_u8;
    super::placed(spec, slots)
        .map(|(index, field, slot)| {
            let part = match &field.role {
                Role::Reserved => Part::Reserved,
                Role::Constant(_) => Part::Constant,
                Role::Version(_) => Part::Version,
                Role::Command => Part::Command,
                Role::Sequence => Part::Sequence,
                Role::Status => Part::Status,
                Role::Kind(_) => Part::Kind,
                Role::Checksum(_) => Part::Checksum,
                Role::Flags(_) => {
                    flags = flags.saturating_add(1);
                    Part::Flags { index: flags.saturating_sub(1) }
                }
                Role::Length(length) => {
                    let adjust = i64::from(length.adjust);
                    match length.counts {
                        Counts::Frame => Part::Frame { adjust },
                        Counts::After => Part::After { adjust },
                        Counts::Header => Part::Header { adjust },
                        Counts::Extension => {
                            extensions = extensions.saturating_add(1);
                            Part::Extension { adjust, first: extensions == 1 }
                        }
                        Counts::Body => {
                            bodies = bodies.saturating_add(1);
                            Part::Body { adjust, first: bodies == 1 }
                        }
                    }
                }
            };
            field_of(field, slot, part).map_err(|error| error.under(&at(index)))
        })
        .collect()
}

fn field_of(field: &FieldSpec, slot: Slot, part: Part) -> Result<HeaderField, ConfigError> {
    let fill = match (&field.role, &field.default) {
        (Role::Constant(value), None) => constant(value, slot)?,
        (Role::Reserved, Some(value)) => {
            bytes_of(value, slot.shape, slot.order).map_err(|error| error.under("default"))?
        }
        (Role::Reserved, None) => match slot.shape.fixed_width() {
            Some(width) => vec![0; width],
            // A varint of 0 and a sized text without text.
            None => vec![0; slot.shape.widths().0],
        },
        (Role::Checksum(_), None) => vec![0; slot.shape.widths().0],
        (_, None) => Vec::new(),
        (_, Some(_)) => {
            return Err(ConfigError::new(
                "default",
                "only a reserved field has a default, this one is filled by its role: leave it out",
            ));
        }
    };
    if field.echo && !matches!(field.role, Role::Reserved | Role::Flags(_)) {
        return Err(ConfigError::new(
            "echo",
            "only reserved fields and the free bits of flags can be echoed, this field is \
             filled by its role: leave it out",
        ));
    }
    if let Some(name) = &field.metadata {
        check_metadata(name, &field.role).map_err(|error| error.under("metadata"))?;
    }
    Ok(HeaderField {
        name: field.name.as_str().into(),
        slot,
        part,
        fill: fill.into(),
        metadata: field.metadata.as_deref().map(Into::into),
        echo: field.echo,
    })
}

/// Names that a client must not be able to set: they steer gRPC, Envoy or the service's trust.
const FORBIDDEN_METADATA: [&str; 9] = [
    "authorization",
    "connection",
    "content-type",
    "host",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
    "cookie",
];
const FORBIDDEN_PREFIXES: [&str; 4] = ["grpc-", "x-envoy-", "x-forwarded-", "x-meshgate-"];

fn check_metadata(name: &str, role: &Role) -> Result<(), ConfigError> {
    if matches!(role, Role::Constant(_) | Role::Checksum(_) | Role::Length(_)) {
        return Err(ConfigError::new(
            "",
            "constants, checksums and lengths are not handed on: leave it out",
        ));
    }
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
        return Err(ConfigError::new(
            "",
            format!(
                "{name:?} is no metadata name, expected 1 to 64 of lower-case letters, digits, \
                 '-', '_' and '.'"
            ),
        ));
    }
    if name.ends_with("-bin") {
        return Err(ConfigError::new(
            "",
            format!("{name:?} would be binary metadata, fields go as text: leave \"-bin\" out"),
        ));
    }
    if FORBIDDEN_METADATA.contains(&name)
        || FORBIDDEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    {
        return Err(ConfigError::new(
            "",
            format!(
                "{name:?} is not a client's to set, choose a name of your own such as \
                 \"x-game-zone\""
            ),
        ));
    }
    Ok(())
}

fn constant(value: &Value, slot: Slot) -> Result<Vec<u8>, ConfigError> {
    if slot.shape.fixed_width().is_none() {
        return Err(ConfigError::new(
            "type",
            "a constant must be of fixed width: an integer from u8 to i64, bytes or text",
        ));
    }
    bytes_of(value, slot.shape, slot.order).map_err(|error| error.under("role.constant"))
}
