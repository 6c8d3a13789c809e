//! Commands: which can be written, and which answers which.

use super::super::error::EncodeError;
use super::super::frame::Command;
use super::super::plan::{Layout, ReplyCommand};
use super::super::slot::Shape;

impl Layout {
    /// Whether a frame with this command can be written, and its reply.
    pub fn fits_command(&self, command: Command<'_>) -> Result<(), EncodeError> {
        self.check_command(command, 0)?;
        match command {
            // Replies to integers fit if their requests do.
            Command::Number(_) => Ok(()),
            Command::Text(text) => {
                let (reply, suffix) = self.reply_to_text(text);
                self.check_command(reply, suffix.len())
            }
        }
    }

    pub(super) fn check_command(
        &self,
        command: Command<'_>,
        suffix: usize,
    ) -> Result<(), EncodeError> {
        let shape = self.command.shape;
        match (command, shape.text_room()) {
            (Command::Text(text), Some(max)) => {
                let len = text.len().saturating_add(suffix);
                let padded = matches!(shape, Shape::Text(_));
                if len > max {
                    return Err(EncodeError::TextTooLong {
                        field: self.name_of(self.command),
                        len,
                        max,
                    });
                }
                if padded && text.contains(&0) {
                    return Err(EncodeError::ValueType { field: self.name_of(self.command) });
                }
                Ok(())
            }
            (Command::Number(number), None) if number <= shape.mask() => Ok(()),
            (Command::Number(number), None) => Err(EncodeError::OutOfRange {
                field: self.name_of(self.command),
                value: i128::from(number),
            }),
            (Command::Number(_), Some(_)) => Err(EncodeError::CommandType { expected: "text" }),
            (Command::Text(_), None) => Err(EncodeError::CommandType { expected: "integers" }),
        }
    }

    /// The reply's command; one that cannot be written is caught when it is written.
    pub(in super::super) fn reply_to_number(&self, request: u64) -> Command<'static> {
        let mask = self.command.shape.mask();
        Command::Number(match &self.reply_command {
            ReplyCommand::Set(bit) => request | bit,
            // In the field's own width, so that every request can be answered.
            ReplyCommand::Add(number) => request.wrapping_add_signed(*number) & mask,
            ReplyCommand::Numbers(table) => table
                .binary_search_by_key(&request, |(from, _)| *from)
                .ok()
                .and_then(|index| table.get(index))
                .map_or(request, |(_, to)| *to),
            ReplyCommand::Same | ReplyCommand::Append(_) | ReplyCommand::Texts(_) => request,
        })
    }

    /// The reply's command, and what is appended to it.
    pub(in super::super) fn reply_to_text<'a>(
        &'a self,
        request: &'a [u8],
    ) -> (Command<'a>, &'a [u8]) {
        match &self.reply_command {
            ReplyCommand::Append(suffix) => (Command::Text(request), suffix),
            ReplyCommand::Texts(table) => {
                let reply = table
                    .binary_search_by(|(from, _)| (**from).cmp(request))
                    .ok()
                    .and_then(|index| table.get(index))
                    .map_or(request, |(_, to)| to);
                (Command::Text(reply), &[])
            }
            _ => (Command::Text(request), &[]),
        }
    }
}
