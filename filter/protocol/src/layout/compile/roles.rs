//! Which field plays which part.

use super::super::frame::Flags;
use super::super::plan::{
    Check, FlagBit, FlagBits, HeaderField, Kind, MustBe, Part, Prefix, Version,
};
use super::super::slot::{Shape, Slot, push_int};
use super::super::spec::{Bit, ClearBit, FlagsSpec, KindSpec, LayoutSpec, Role, VersionSpec};
use super::values::integer;
use super::{at, once, placed};
use crate::error::ConfigError;

#[derive(Default)]
pub(super) struct Roles {
    pub(super) command: Option<Slot>,
    pub(super) sequence: Option<Slot>,
    pub(super) status: Option<Slot>,
    pub(super) version: Option<Version>,
    pub(super) flags: Vec<FlagBits>,
    pub(super) kind: Option<Kind>,
    pub(super) expresses: Flags,
    accepted: Vec<u64>,
}

impl Roles {
    pub(super) fn of(spec: &LayoutSpec, slots: &[Slot]) -> Result<Self, ConfigError> {
        let mut roles = Self::default();
        for (index, field, slot) in placed(spec, slots) {
            roles.add(&field.role, slot).map_err(|error| error.under(&at(index)))?;
        }
        Ok(roles)
    }

    fn add(&mut self, role: &Role, slot: Slot) -> Result<(), ConfigError> {
        match role {
            Role::Command => {
                if matches!(slot.shape, Shape::Bytes(_)) {
                    return Err(ConfigError::new(
                        "type",
                        "a command is an integer or text: use for instance u32 or {\"text\": 16}",
                    ));
                }
                once(&mut self.command, slot, "role", "command")
            }
            Role::Sequence => {
                must_be_integer(slot, "a sequence number")?;
                once(&mut self.sequence, slot, "role", "sequence number")
            }
            Role::Status => {
                must_be_integer(slot, "a status")?;
                if (slot.shape == Shape::Int { width: 8, signed: false }) {
                    return Err(ConfigError::new("type", "a status is at most an i64: use i64"));
                }
                once(&mut self.status, slot, "role", "status")
            }
            Role::Version(version) => self.add_version(version, slot),
            Role::Flags(flags) => {
                self.add_flags(flags, slot).map_err(|error| error.under("role.flags"))
            }
            Role::Kind(kind) => self.add_kind(kind, slot),
            Role::Reserved | Role::Constant(_) | Role::Length(_) | Role::Checksum(_) => Ok(()),
        }
    }

    fn add_version(&mut self, version: &VersionSpec, slot: Slot) -> Result<(), ConfigError> {
        must_be_integer(slot, "a version")?;
        let mut accepted = Vec::new();
        for (index, value) in version.accept.iter().enumerate() {
            accepted.push(
                integer(value, slot.shape)
                    .map_err(|error| error.under(&format!("role.version.accept[{index}]")))?,
            );
        }
        let Some(first) = accepted.first().copied() else {
            return Err(ConfigError::new(
                "role.version.accept",
                "no version is accepted, expected for instance [1]",
            ));
        };
        let write = match &version.write {
            Some(value) => {
                integer(value, slot.shape).map_err(|error| error.under("role.version.write"))?
            }
            None => first,
        };
        if !accepted.contains(&write) {
            return Err(ConfigError::new(
                "role.version.write",
                format!("{write} is not among the accepted versions, add it there"),
            ));
        }
        self.accepted = accepted;
        once(&mut self.version, Version { slot, write }, "role", "version")
    }

    fn add_flags(&mut self, flags: &FlagsSpec, slot: Slot) -> Result<(), ConfigError> {
        if !slot.shape.is_integer() {
            return Err(ConfigError::new("", "flags are bits of an integer: use for instance u8"));
        }
        let named = [
            ("reply", flags.reply, Flags::REPLY),
            ("one_way", flags.one_way, Flags::ONE_WAY),
            ("push", flags.push, Flags::PUSH),
            ("error", flags.error, Flags::ERROR),
            ("compressed", flags.compressed, Flags::COMPRESSED),
            ("sealed", flags.sealed, Flags::SEALED),
        ];
        let mut bits: Vec<FlagBit> = Vec::new();
        for (name, bit, flag) in named {
            let Some(bit) = bit else { continue };
            let (number, inverted) = match bit {
                Bit::Set(number) => (number, false),
                Bit::Clear(ClearBit { clear }) => (clear, true),
            };
            if u32::from(number) >= slot.shape.bits() {
                return Err(ConfigError::new(
                    name,
                    format!(
                        "bit {number} of a field of {} bits, they count from 0",
                        slot.shape.bits()
                    ),
                ));
            }
            let mask = 1_u64.wrapping_shl(u32::from(number));
            if bits.iter().any(|other| other.mask == mask) {
                return Err(ConfigError::new(
                    name,
                    format!("bit {number} already means something else"),
                ));
            }
            self.express(flag, name)?;
            bits.push(FlagBit { flag, mask, inverted });
        }
        let used = bits.iter().fold(0, |sum, bit| sum | bit.mask);
        let table = (used <= 0xff).then(|| {
            let mut table = Box::new([Flags::NONE; 256]);
            for (entry, value) in table.iter_mut().zip(0_u64..) {
                *entry = FlagBits::scan(&bits, value);
            }
            table
        });
        let others = slot.shape.mask() & !used;
        self.flags.push(FlagBits { slot, bits: bits.into(), others, table });
        Ok(())
    }

    fn add_kind(&mut self, kind: &KindSpec, slot: Slot) -> Result<(), ConfigError> {
        must_be_integer(slot, "a kind")?;
        let named = [
            ("request", Some(kind.request), Flags::NONE),
            ("reply", Some(kind.reply), Flags::REPLY),
            ("one_way", kind.one_way, Flags::ONE_WAY),
            ("push", kind.push, Flags::PUSH),
            ("error", kind.error, Flags::ERROR),
        ];
        let mut seen = Vec::new();
        for (name, value, flag) in named {
            let Some(value) = value else { continue };
            let path = format!("role.kind.{name}");
            if value > slot.shape.mask() {
                return Err(ConfigError::new(
                    path,
                    format!("{value} does not fit {} bits", slot.shape.bits()),
                ));
            }
            if seen.contains(&value) {
                return Err(ConfigError::new(
                    path,
                    format!("{value} already stands for another kind"),
                ));
            }
            seen.push(value);
            self.express(flag, &path)?;
        }
        let kind = Kind {
            slot,
            request: kind.request,
            reply: kind.reply,
            one_way: kind.one_way,
            push: kind.push,
            error: kind.error,
        };
        once(&mut self.kind, kind, "role", "kind")
    }

    /// Notes that the layout can say a flag, which only one place may.
    fn express(&mut self, flag: Flags, path: &str) -> Result<(), ConfigError> {
        if flag != Flags::NONE && self.expresses.contains(flag) {
            return Err(ConfigError::new(path, "another place already says this: leave one out"));
        }
        self.expresses = self.expresses.with(flag);
        Ok(())
    }

    /// What a header must say to be of this layout, in the order of the wire.
    pub(super) fn checks(&self, header: &[HeaderField]) -> Box<[Check]> {
        header
            .iter()
            .filter_map(|field| {
                let must_be = match field.part {
                    Part::Constant => MustBe::Bytes(field.fill.clone()),
                    Part::Version => MustBe::OneOf(self.accepted.as_slice().into()),
                    Part::Kind => MustBe::Kind,
                    _ => return None,
                };
                Some(Check { slot: field.slot, must_be })
            })
            .collect()
    }
}

/// As many checks as possible joined into one comparison of a fixed header's first 8 bytes,
/// and the checks that are left.
pub(super) fn prefix(checks: &[Check], header_min: usize) -> (Option<Prefix>, Box<[Check]>) {
    let mut mask = [0_u8; 8];
    let mut expected = [0_u8; 8];
    if header_min < mask.len() {
        return (None, checks.into());
    }
    let mut late = Vec::new();
    for check in checks {
        let mut bytes = Vec::new();
        match (&check.must_be, check.slot.shape) {
            (MustBe::Bytes(constant), _) => bytes.extend_from_slice(constant),
            (MustBe::OneOf(values), Shape::Int { width, .. }) => {
                if let [value] = **values {
                    push_int(&mut bytes, width, value, check.slot.order);
                }
            }
            _ => {}
        }
        let start = usize::from(check.slot.offset);
        let range = start..start.saturating_add(bytes.len());
        match (mask.get_mut(range.clone()), expected.get_mut(range)) {
            (Some(mask), Some(expected)) if !bytes.is_empty() => {
                mask.fill(0xff);
                expected.copy_from_slice(&bytes);
            }
            _ => late.push(check.clone()),
        }
    }
    let prefix = Prefix { mask: u64::from_ne_bytes(mask), expected: u64::from_ne_bytes(expected) };
    (Some(prefix), late.into())
}

fn must_be_integer(slot: Slot, what: &str) -> Result<(), ConfigError> {
    if slot.shape.is_integer() {
        return Ok(());
    }
    Err(ConfigError::new("type", format!("{what} is an integer: use for instance u32")))
}
