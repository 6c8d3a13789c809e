//! What checksums cover, and in which order they can be computed.

use super::super::crc::Crc;
use super::super::plan::{Checksum, ChecksumPlace, Edge};
use super::super::slot::{Shape, Slot};
use super::super::spec::{ChecksumSpec, FieldType, LayoutSpec, Over, Role};
use super::fields::shape;
use super::trailer::Trailer;
use crate::error::ConfigError;

/// A checksum with the parts of the frame by their position: header fields from 0, then the
/// extension, the body and the trailer's fields.
struct Candidate {
    path: String,
    own: usize,
    from: usize,
    /// The first part that is not covered.
    to: usize,
    checksum: Checksum,
}

impl Candidate {
    fn covers(&self, other: &Self) -> bool {
        (self.from..self.to).contains(&other.own)
    }
}

pub(super) fn checksums(
    spec: &LayoutSpec,
    slots: &[Slot],
    trailer: &Trailer,
) -> Result<Box<[Checksum]>, ConfigError> {
    let mut waiting = Vec::new();
    for (index, field, slot) in super::placed(spec, slots) {
        if let Role::Checksum(checksum) = &field.role {
            let parts = Parts { spec, trailer };
            let place = ChecksumPlace::Header(slot);
            waiting.push(parts.candidate(index, place, checksum, &super::at(index))?);
        }
    }
    let after_body = spec.header.len().saturating_add(2);
    for (index, (field, compiled)) in spec.trailer.iter().zip(&trailer.fields).enumerate() {
        if let Role::Checksum(checksum) = &field.role {
            let parts = Parts { spec, trailer };
            let place = ChecksumPlace::Trailer(compiled.offset);
            let own = after_body.saturating_add(index);
            waiting.push(parts.candidate(own, place, checksum, &format!("trailer[{index}]"))?);
        }
    }
    in_order(waiting)
}

/// A checksum comes after those that it covers.
fn in_order(mut waiting: Vec<Candidate>) -> Result<Box<[Checksum]>, ConfigError> {
    let mut ordered = Vec::new();
    while !waiting.is_empty() {
        let ready = waiting.iter().position(|candidate| {
            waiting.iter().all(|other| other.own == candidate.own || !candidate.covers(other))
        });
        match (ready, waiting.first()) {
            (Some(ready), _) => ordered.push(waiting.remove(ready).checksum),
            (None, Some(stuck)) => {
                return Err(ConfigError::new(
                    format!("{}.role.checksum.over", stuck.path),
                    "checksums that cover each other cannot be computed: let one of them cover less",
                ));
            }
            (None, None) => break,
        }
    }
    Ok(ordered.into())
}

struct Parts<'a> {
    spec: &'a LayoutSpec,
    trailer: &'a Trailer,
}

impl Parts<'_> {
    fn candidate(
        &self,
        own: usize,
        place: ChecksumPlace,
        checksum: &ChecksumSpec,
        path: &str,
    ) -> Result<Candidate, ConfigError> {
        let declared = self.spec.header.len();
        let body = declared.saturating_add(1);
        let end = body.saturating_add(1).saturating_add(self.spec.trailer.len());
        let field = match own.checked_sub(body.saturating_add(1)) {
            Some(index) => self.spec.trailer.get(index),
            None => self.spec.header.get(own),
        };
        let Some(field) = field else {
            return Err(ConfigError::new(path, "no such field"));
        };
        if shape(field.kind)? != (Shape::Int { width: 4, signed: false }) {
            return Err(ConfigError::new(
                format!("{path}.type"),
                format!("a checksum is 4 bytes wide, found {:?}: use u32", kind_name(field.kind)),
            ));
        }
        let over = format!("{path}.role.checksum.over");
        let (from, to) = match &checksum.over {
            Over::Frame => (0, end),
            Over::Header => (0, body),
            Over::Body => (body, body.saturating_add(1)),
            Over::Before => (0, own),
            Over::After => (own.saturating_add(1), end),
            Over::Span(span) => {
                let from = self.part(&span.from, &format!("{over}.span.from"))?;
                let through = self.part(&span.through, &format!("{over}.span.through"))?;
                if through < from {
                    return Err(ConfigError::new(
                        format!("{over}.span"),
                        format!("\"{}\" comes after \"{}\": swap them", span.from, span.through),
                    ));
                }
                (from, through.saturating_add(1))
            }
        };
        let own_alone = from == own && to == own.saturating_add(1);
        if from >= to || own_alone {
            return Err(ConfigError::new(
                over,
                "the checksum would cover nothing: expected \"frame\", \"header\", \"body\", \
                 \"before\", \"after\" or a span",
            ));
        }
        Ok(Candidate {
            path: path.to_owned(),
            own,
            from,
            to,
            checksum: Checksum {
                name: field.name.as_str().into(),
                place,
                order: field.byte_order.unwrap_or(self.spec.byte_order),
                crc: Crc::of(checksum.algorithm),
                from: self.edge(from),
                to: self.edge(to),
                own_bytes: checksum.own_bytes,
            },
        })
    }

    /// The position of a part by its name.
    fn part(&self, name: &str, path: &str) -> Result<usize, ConfigError> {
        let header = self.spec.header.iter().map(|field| field.name.as_str());
        let trailer = self.spec.trailer.iter().map(|field| field.name.as_str());
        header.chain(["extension", "body"]).chain(trailer).position(|part| part == name).ok_or_else(
            || {
                ConfigError::new(
                    path,
                    format!(
                        "no part is called {name:?}, expected a field, \"extension\" or \"body\""
                    ),
                )
            },
        )
    }

    fn edge(&self, position: usize) -> Edge {
        let declared = self.spec.header.len();
        match position.checked_sub(declared) {
            None => Edge::Field(u8::try_from(position).unwrap_or(u8::MAX)),
            Some(0) => Edge::Declared,
            Some(1) => Edge::Body,
            Some(after) => {
                let field = self.trailer.fields.get(after.saturating_sub(2));
                Edge::Trailer(field.map_or(self.trailer.len, |field| field.offset))
            }
        }
    }
}

fn kind_name(kind: FieldType) -> String {
    serde_json::to_string(&kind).unwrap_or_default().replace('"', "")
}
