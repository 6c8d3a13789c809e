//! How a reply's header comes from its request's.

use super::super::plan::{Head, Lengths, ReplyCommand};
use super::super::slot::{Shape, Slot};
use super::super::spec::{self, LayoutSpec, ReplyStatus, Value};
use super::fields::shape;
use super::values::{integer, text};
use crate::error::ConfigError;

/// The most pairs of a table.
const MAX_TABLE: usize = 65_536;

pub(super) struct Reply {
    pub(super) command: ReplyCommand,
    pub(super) status_prefix: Option<Shape>,
}

pub(super) fn reply(
    spec: &LayoutSpec,
    lengths: &Lengths,
    command: Slot,
    status: Option<Slot>,
) -> Result<Reply, ConfigError> {
    if spec.reply.echo_extension && matches!(lengths.head, Head::Declared) {
        return Err(ConfigError::new(
            "reply.echo_extension",
            "the header has no extension: leave it out, or let a field count \"header\" or \
             \"extension\"",
        ));
    }
    let command = reply_command(&spec.reply.command, command)
        .map_err(|error| error.under("reply.command"))?;
    let status_prefix =
        status_prefix(spec.reply.status, status).map_err(|error| error.under("reply.status"))?;
    Ok(Reply { command, status_prefix })
}

fn status_prefix(
    place: Option<ReplyStatus>,
    status: Option<Slot>,
) -> Result<Option<Shape>, ConfigError> {
    match (place, status) {
        (None, _) | (Some(ReplyStatus::Field), Some(_)) | (Some(ReplyStatus::Nowhere), None) => {
            Ok(None)
        }
        (Some(ReplyStatus::Field), None) => Err(ConfigError::new(
            "",
            "no header field has the role \"status\": give one that role, or say \
             {\"body_prefix\": \"i32\"} or \"nowhere\"",
        )),
        (Some(ReplyStatus::Nowhere | ReplyStatus::BodyPrefix(_)), Some(_)) => {
            Err(ConfigError::new(
                "",
                "a header field has the role \"status\" and takes it: say \"field\", or make \
                 that field \"reserved\"",
            ))
        }
        (Some(ReplyStatus::BodyPrefix(kind)), None) => match shape(kind) {
            Ok(Shape::Int { width: 8, signed: false }) => {
                Err(ConfigError::new("body_prefix", "a status is at most an i64: use i64"))
            }
            Ok(int @ Shape::Int { .. }) => Ok(Some(int)),
            _ => Err(ConfigError::new(
                "body_prefix",
                "expected an integer of fixed width, for instance \"i32\"",
            )),
        },
    }
}

fn reply_command(rule: &spec::ReplyCommand, command: Slot) -> Result<ReplyCommand, ConfigError> {
    let shape = command.shape;
    match rule {
        spec::ReplyCommand::Same => Ok(ReplyCommand::Same),
        spec::ReplyCommand::SetBit(bit) => {
            must_be_integer(shape, "set_bit")?;
            if u32::from(*bit) >= shape.bits() {
                return Err(ConfigError::new(
                    "set_bit",
                    format!("bit {bit} of a command of {} bits, they count from 0", shape.bits()),
                ));
            }
            Ok(ReplyCommand::Set(1_u64.wrapping_shl(u32::from(*bit))))
        }
        spec::ReplyCommand::Add(number) => {
            must_be_integer(shape, "add")?;
            Ok(ReplyCommand::Add(*number))
        }
        spec::ReplyCommand::Append(suffix) => {
            if !shape.is_text() {
                return Err(ConfigError::new(
                    "append",
                    "is for text commands, this layout's are integers: use \"add\", \"set_bit\" \
                     or \"table\"",
                ));
            }
            let value = Value::Text(suffix.clone());
            let suffix = text(&value, shape).map_err(|error| error.under("append"))?;
            Ok(ReplyCommand::Append(suffix.into()))
        }
        spec::ReplyCommand::Table(pairs) => {
            if pairs.len() > MAX_TABLE {
                return Err(ConfigError::new(
                    "table",
                    format!("{} pairs, expected at most {MAX_TABLE}", pairs.len()),
                ));
            }
            if shape.is_text() {
                let bytes = |value: &Value| Ok(text(value, shape)?.into());
                table(pairs, bytes).map(ReplyCommand::Texts)
            } else {
                table(pairs, |value| integer(value, shape)).map(ReplyCommand::Numbers)
            }
        }
    }
}

fn must_be_integer(shape: Shape, rule: &str) -> Result<(), ConfigError> {
    if shape.is_integer() {
        return Ok(());
    }
    Err(ConfigError::new(
        rule,
        "is for integer commands, this layout's are text: use \"append\" or \"table\"",
    ))
}

/// Pairs sorted by the request's command, each once.
fn table<T: Ord>(
    pairs: &[(Value, Value)],
    convert: impl Fn(&Value) -> Result<T, ConfigError>,
) -> Result<Box<[(T, T)]>, ConfigError> {
    let mut table: Vec<(T, T)> = Vec::with_capacity(pairs.len());
    for (index, (request, reply)) in pairs.iter().enumerate() {
        let under = |error: ConfigError| error.under(&format!("table[{index}]"));
        let pair = (convert(request).map_err(under)?, convert(reply).map_err(under)?);
        // Usually written in order; and a sort costs the filter more bytes than a table does.
        match table.binary_search_by(|(request, _)| request.cmp(&pair.0)) {
            Err(place) => table.insert(place, pair),
            Ok(_) => {
                return Err(ConfigError::new(
                    format!("table[{index}]"),
                    "this request already has its reply in an earlier pair",
                ));
            }
        }
    }
    Ok(table.into())
}
