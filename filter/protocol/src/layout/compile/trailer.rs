//! The fields after the body.

use super::super::plan::TrailerField;
use super::super::spec::{ByteOrder, FieldSpec, LayoutSpec, Role};
use super::fields::{MAX_HEADER, shape};
use super::values::bytes_of;
use crate::error::ConfigError;

/// The most fields of a trailer.
const MAX_TRAILER_FIELDS: usize = 16;

/// The trailer for the plan.
pub(super) struct Trailer {
    pub(super) fields: Box<[TrailerField]>,
    pub(super) len: usize,
    pub(super) template: Box<[u8]>,
}

pub(super) fn trailer(spec: &LayoutSpec) -> Result<Trailer, ConfigError> {
    if spec.trailer.len() > MAX_TRAILER_FIELDS {
        return Err(ConfigError::new(
            "trailer",
            format!("{} fields, expected at most {MAX_TRAILER_FIELDS}", spec.trailer.len()),
        ));
    }
    let mut fields = Vec::new();
    let mut template = Vec::new();
    for (index, field) in spec.trailer.iter().enumerate() {
        let order = field.byte_order.unwrap_or(spec.byte_order);
        let (constant, fill) = trailer_field(field, order)
            .map_err(|error| error.under(&format!("trailer[{index}]")))?;
        fields.push(TrailerField {
            name: field.name.as_str().into(),
            offset: template.len(),
            constant: if constant { fill.as_slice().into() } else { Box::default() },
        });
        template.extend_from_slice(&fill);
    }
    if template.len() > MAX_HEADER {
        return Err(ConfigError::new(
            "trailer",
            format!("{} bytes, at most {MAX_HEADER} are allowed", template.len()),
        ));
    }
    Ok(Trailer { fields: fields.into(), len: template.len(), template: template.into() })
}

/// Whether a trailer field is a constant, and its bytes before any value is known.
fn trailer_field(field: &FieldSpec, order: ByteOrder) -> Result<(bool, Vec<u8>), ConfigError> {
    let shape = shape(field.kind)?;
    let Some(width) = shape.fixed_width() else {
        return Err(ConfigError::new(
            "type",
            "a trailer is found from the end of the frame, its fields must be of fixed width",
        ));
    };
    if field.metadata.is_some() {
        return Err(ConfigError::new("metadata", "only header fields are handed on: leave it out"));
    }
    if field.echo {
        return Err(ConfigError::new("echo", "only header fields are echoed: leave it out"));
    }
    let default = || match &field.default {
        Some(value) => bytes_of(value, shape, order).map_err(|error| error.under("default")),
        None => Ok(vec![0; width]),
    };
    match &field.role {
        Role::Reserved => Ok((false, default()?)),
        Role::Constant(_) | Role::Checksum(_) if field.default.is_some() => Err(ConfigError::new(
            "default",
            "only a reserved field has a default, this one is filled by its role: leave it out",
        )),
        Role::Constant(value) => {
            Ok((true, bytes_of(value, shape, order).map_err(|error| error.under("role.constant"))?))
        }
        Role::Checksum(_) => Ok((false, vec![0; width])),
        _ => Err(ConfigError::new(
            "role",
            "a trailer holds checksums, constants and reserved fields: move this one to the header",
        )),
    }
}
