//! The number that a client sees for each gRPC status.

use super::faults::Faults;
use super::read::{Entries, remedy};
use crate::call::Code;
use crate::protocol::layout::spec::{FieldType, LayoutSpec, ReplyStatus, Role};

object! {
    default
    /// The number that a client sees for each gRPC status. By default it is gRPC's own number, 0 for
    /// OK to 16 for UNAUTHENTICATED, which fits a status field of any width.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct StatusesSpec {
        /// Added to gRPC's number of every status but OK: with 1000 a client sees 1005 for
        /// NOT_FOUND.
        pub offset: i32,
        /// The number of single statuses, by gRPC's names, such as `{"NOT_FOUND": 404}`.
        pub codes: Entries<i64>,
        /// Puts the status text into the body of an error reply; otherwise that body is empty.
        pub error_text: bool,
    }
}

/// gRPC status → private status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusTable {
    numbers: [i64; Code::ALL.len()],
    /// The text of a status goes into the body of its reply.
    pub error_text: bool,
}

impl StatusTable {
    /// The number that the client sees for `code`.
    pub fn private(&self, code: Code) -> i64 {
        self.numbers.get(usize::from(code.number())).copied().unwrap_or_default()
    }

    /// The gRPC status that a caller sees for a private server's number; UNKNOWN for a number that
    /// the table does not have.
    pub fn code(&self, number: i64) -> Code {
        let place = self.numbers.iter().position(|known| *known == number);
        place.and_then(|place| Code::ALL.get(place).copied()).unwrap_or(Code::Unknown)
    }
}

impl StatusesSpec {
    /// Paths in `faults` start below `statuses`.
    pub fn compile(self, layout: Option<&LayoutSpec>, faults: &mut Faults) -> StatusTable {
        let set = |name: &str| self.codes.0.iter().find(|(set, _)| set == name);
        let mut numbers = [0; Code::ALL.len()];
        for (code, number) in Code::ALL.into_iter().zip(&mut numbers) {
            *number = match (code, set(code.name())) {
                (_, Some((_, number))) => *number,
                (Code::Ok, None) => 0,
                (_, None) => i64::from(code.number()).saturating_add(self.offset.into()),
            };
        }
        let table = StatusTable { numbers, error_text: self.error_text };

        let known = Code::ALL.map(Code::name);
        for (name, _) in self.codes.0.iter().filter(|(name, _)| Code::from_name(name).is_none()) {
            let problem = format_args!("not a gRPC status, {}", remedy(name, &known));
            faults.add(&format!("codes.{name}"), &problem);
        }
        let (least, most) = layout.and_then(status_range).unwrap_or((i64::MIN, i64::MAX));
        for code in Code::ALL {
            let (name, number) = (code.name(), table.private(code));
            let path = if set(name).is_some() { format!("codes.{name}") } else { "offset".into() };
            if number < least || number > most {
                let problem = format_args!(
                    "{number} for {name} does not fit the layout's status, expected {least} to \
                     {most}"
                );
                faults.add(&path, &problem);
                break;
            }
            if code != Code::Ok && number == table.private(Code::Ok) {
                let problem = format_args!(
                    "{name} would be {number} like OK, expected a number that a client can tell \
                     from it"
                );
                faults.add(&path, &problem);
            }
        }
        table
    }
}

/// What the layout's status can hold; `None` if it has none.
fn status_range(layout: &LayoutSpec) -> Option<(i64, i64)> {
    let kind = match layout.reply.status {
        Some(ReplyStatus::BodyPrefix(kind)) => kind,
        Some(ReplyStatus::Nowhere) => return None,
        Some(ReplyStatus::Field) | None => {
            layout.header.iter().find(|field| matches!(field.role, Role::Status))?.kind
        }
    };
    Some(match kind {
        FieldType::U8 => (0, u8::MAX.into()),
        FieldType::U16 => (0, u16::MAX.into()),
        FieldType::U24 => (0, 0xff_ffff),
        FieldType::U32 => (0, u32::MAX.into()),
        FieldType::U64 | FieldType::Varint => (0, i64::MAX),
        FieldType::I8 => (i8::MIN.into(), i8::MAX.into()),
        FieldType::I16 => (i16::MIN.into(), i16::MAX.into()),
        FieldType::I32 => (i32::MIN.into(), i32::MAX.into()),
        FieldType::I64 => (i64::MIN, i64::MAX),
        FieldType::Bytes(_) | FieldType::Text(_) | FieldType::SizedText(_) => return None,
    })
}
