//! Header fields that are handed on as gRPC metadata, or looked at by name.

use super::frame::{FieldValue, Frame};
use super::plan::{HeaderField, Layout};
use super::slot::{Shape, Spans};

impl Layout {
    /// The fields of a frame that are handed on, by their metadata names, in the order of the
    /// wire.
    pub fn metadata<'a>(
        &'a self,
        frame: &Frame<'a>,
    ) -> impl Iterator<Item = (&'a str, FieldValue<'a>)> + use<'a> {
        let header = frame.header;
        let spans = self.spans(header);
        self.header.iter().filter_map(move |field| {
            Some((field.metadata.as_deref()?, value(field, header, &spans)))
        })
    }

    /// The metadata names that frames of this layout can hand on.
    pub fn metadata_names(&self) -> impl Iterator<Item = &str> {
        self.header.iter().filter_map(|field| field.metadata.as_deref())
    }

    /// All header fields of a frame by their own names, in the order of the wire.
    pub fn fields<'a>(
        &'a self,
        frame: &Frame<'a>,
    ) -> impl Iterator<Item = (&'a str, FieldValue<'a>)> + use<'a> {
        let header = frame.header;
        let spans = self.spans(header);
        self.header.iter().map(move |field| (&*field.name, value(field, header, &spans)))
    }
}

fn value<'a>(field: &HeaderField, header: &'a [u8], spans: &Spans) -> FieldValue<'a> {
    let slot = field.slot;
    match slot.shape {
        Shape::Int { signed: true, .. } => {
            FieldValue::Signed(slot.shape.signed(slot.number(header, spans)))
        }
        Shape::Int { .. } | Shape::Varint => FieldValue::Unsigned(slot.number(header, spans)),
        Shape::Bytes(_) => FieldValue::Bytes(slot.content(header, spans)),
        Shape::Text(_) | Shape::SizedText(_) => FieldValue::Text(slot.content(header, spans)),
    }
}
