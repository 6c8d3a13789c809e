//! How a frame says how long it is.

use super::super::plan::{Head, Length, Lengths, Whole};
use super::super::slot::Slot;
use super::super::spec::{Counts, LayoutSpec, LengthSpec, Role};
use super::{at, once, placed};
use crate::error::ConfigError;

/// The most that a length may differ from what it counts.
const MAX_ADJUST: i64 = 65_536;

pub(super) fn lengths(
    spec: &LayoutSpec,
    slots: &[Slot],
    header_min: usize,
    trailer_len: usize,
    fixed: bool,
) -> Result<Lengths, ConfigError> {
    let mut whole = None;
    let mut head = None;
    let mut extension: Vec<Length> = Vec::new();
    let mut body: Vec<Length> = Vec::new();
    let mut end = 0;
    for (index, field, slot) in placed(spec, slots) {
        let Role::Length(length) = &field.role else { continue };
        let path = at(index);
        // The least that the field ever has to say.
        let after = usize::from(slot.offset).saturating_add(slot.shape.widths().0);
        let least = match length.counts {
            Counts::Frame => header_min.saturating_add(trailer_len),
            Counts::After if fixed => header_min.saturating_add(trailer_len).saturating_sub(after),
            Counts::Header => header_min,
            Counts::After | Counts::Extension | Counts::Body => 0,
        };
        let rule = rule(length, slot, least).map_err(|error| error.under(&path))?;
        let role = format!("{path}.role.length.counts");
        match length.counts {
            Counts::Frame => once(&mut whole, Whole::Frame(rule), &role, WHOLE)?,
            Counts::After => once(&mut whole, Whole::After(rule), &role, WHOLE)?,
            Counts::Header => once(&mut head, rule, &role, "length of the header")?,
            Counts::Extension => extension.push(rule),
            Counts::Body => body.push(rule),
        }
        end = after;
    }
    if whole.is_none() && body.is_empty() {
        return Err(ConfigError::new(
            "header",
            "no field says how long a frame is: give one the role \
             {\"length\": {\"counts\": \"frame\"}}, \"after\" or \"body\"",
        ));
    }
    let head = match (head, extension.is_empty()) {
        (None, true) => Head::Declared,
        (Some(rule), true) => Head::Header(rule),
        (None, false) => Head::Extension(extension.into()),
        (Some(_), false) => {
            return Err(ConfigError::new(
                "header",
                "the extension is counted twice, by \"header\" and by \"extension\": make one \
                 of the fields \"reserved\"",
            ));
        }
    };
    Ok(Lengths { whole: whole.unwrap_or(Whole::Sum), head, body: body.into(), end })
}

const WHOLE: &str = "length of the whole frame (\"frame\" or \"after\")";

fn rule(length: &LengthSpec, slot: Slot, least: usize) -> Result<Length, ConfigError> {
    if !slot.shape.is_integer() {
        return Err(ConfigError::new("type", "a length is an integer: use for instance u32"));
    }
    let adjust = i64::from(length.adjust);
    if adjust.abs() > MAX_ADJUST {
        return Err(ConfigError::new(
            "role.length.adjust",
            format!("{adjust} is out of range, expected -{MAX_ADJUST} to {MAX_ADJUST}"),
        ));
    }
    let least = i64::try_from(least).unwrap_or(i64::MAX);
    let said = least.saturating_add(adjust);
    if said < 0 {
        return Err(ConfigError::new(
            "role.length.adjust",
            format!(
                "the field counts at least {least} bytes, with {adjust} added it would be \
                 negative: expected at least -{least}"
            ),
        ));
    }
    if said.cast_unsigned() > slot.shape.most() {
        return Err(ConfigError::new(
            "type",
            format!(
                "the field must be able to say at least {said}, but goes up to {}: use a wider one",
                slot.shape.most()
            ),
        ));
    }
    Ok(Length { slot, adjust })
}
