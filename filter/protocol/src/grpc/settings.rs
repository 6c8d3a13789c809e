//! SETTINGS: what each side asks of the other.
//!
//! A payload is a list of six-byte entries, identifier (u16) and value (u32), both big-endian.
//! Source: RFC 9113 section 6.5.

use super::frame::{self, DEFAULT_MAX_FRAME_SIZE, Kind};
use super::reason::{ErrorCode, LegError};

/// The largest flow-control window (RFC 9113 section 6.9.1).
pub const MAX_WINDOW: u32 = 0x7fff_ffff;

/// The window of a stream, and of the connection, until somebody says otherwise.
pub const DEFAULT_WINDOW: u32 = 65_535;

/// The largest value that SETTINGS_MAX_FRAME_SIZE can have.
const LARGEST_MAX_FRAME_SIZE: u32 = 0x00ff_ffff;

/// One entry of a SETTINGS frame, its value checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    HeaderTableSize(u32),
    EnablePush(bool),
    MaxConcurrentStreams(u32),
    /// At most [`MAX_WINDOW`].
    InitialWindowSize(u32),
    /// From [`DEFAULT_MAX_FRAME_SIZE`] to 2^24-1.
    MaxFrameSize(u32),
    MaxHeaderListSize(u32),
    /// An extension: to be ignored.
    Unknown,
}

impl Setting {
    fn parse(identifier: u16, value: u32) -> Result<Self, LegError> {
        Ok(match identifier {
            0x1 => Self::HeaderTableSize(value),
            0x2 if value > 1 => {
                return Err(LegError::protocol("SETTINGS_ENABLE_PUSH is neither 0 nor 1"));
            }
            0x2 => Self::EnablePush(value == 1),
            0x3 => Self::MaxConcurrentStreams(value),
            0x4 if value > MAX_WINDOW => {
                return Err(LegError::new(
                    ErrorCode::FlowControlError,
                    "SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1",
                ));
            }
            0x4 => Self::InitialWindowSize(value),
            0x5 if !(DEFAULT_MAX_FRAME_SIZE..=LARGEST_MAX_FRAME_SIZE).contains(&value) => {
                return Err(LegError::protocol("SETTINGS_MAX_FRAME_SIZE outside 2^14..2^24-1"));
            }
            0x5 => Self::MaxFrameSize(value),
            0x6 => Self::MaxHeaderListSize(value),
            _ => Self::Unknown,
        })
    }

    const fn entry(self) -> Option<(u16, u32)> {
        Some(match self {
            Self::HeaderTableSize(value) => (0x1, value),
            Self::EnablePush(value) => (0x2, value as u32),
            Self::MaxConcurrentStreams(value) => (0x3, value),
            Self::InitialWindowSize(value) => (0x4, value),
            Self::MaxFrameSize(value) => (0x5, value),
            Self::MaxHeaderListSize(value) => (0x6, value),
            Self::Unknown => return None,
        })
    }
}

/// The entries of a payload, in order. The payload's length has been checked to be a multiple
/// of six.
pub fn parse(payload: &[u8]) -> impl Iterator<Item = Result<Setting, LegError>> {
    payload.as_chunks::<6>().0.iter().map(|[i0, i1, v0, v1, v2, v3]| {
        Setting::parse(u16::from_be_bytes([*i0, *i1]), u32::from_be_bytes([*v0, *v1, *v2, *v3]))
    })
}

/// Writes a SETTINGS frame; without entries it is the doorbell, or a server's polite minimum.
pub fn write(settings: &[Setting], out: &mut Vec<u8>) {
    let entries = settings.iter().filter_map(|setting| setting.entry());
    frame::write_head(Kind::Settings, 0, 0, entries.clone().count().saturating_mul(6), out);
    for (identifier, value) in entries {
        out.extend_from_slice(&identifier.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let settings = [
            Setting::HeaderTableSize(0),
            Setting::EnablePush(false),
            Setting::MaxConcurrentStreams(7),
            Setting::InitialWindowSize(MAX_WINDOW),
            Setting::MaxFrameSize(LARGEST_MAX_FRAME_SIZE),
            Setting::MaxHeaderListSize(16_384),
        ];
        let mut out = Vec::new();
        write(&settings, &mut out);
        assert_eq!(out[..9], [0, 0, 36, 4, 0, 0, 0, 0, 0]);
        let read: Result<Vec<_>, _> = parse(&out[9..]).collect();
        assert_eq!(read.unwrap(), settings);
    }

    #[test]
    fn unknown_settings_are_passed_over() {
        let read: Result<Vec<_>, _> = parse(&[0xca, 0xfe, 0, 0, 0, 1]).collect();
        assert_eq!(read.unwrap(), [Setting::Unknown]);
    }

    #[test]
    fn values_out_of_range_are_refused_with_the_rfc_code() {
        let code = |identifier: u8, value: u32| {
            let mut entry = vec![0, identifier];
            entry.extend_from_slice(&value.to_be_bytes());
            parse(&entry).next().unwrap().map_err(|error| error.code)
        };
        assert_eq!(code(2, 2), Err(ErrorCode::ProtocolError));
        assert_eq!(code(4, 1 << 31), Err(ErrorCode::FlowControlError));
        assert_eq!(code(5, 16_383), Err(ErrorCode::ProtocolError));
        assert_eq!(code(5, 1 << 24), Err(ErrorCode::ProtocolError));
        assert_eq!(code(5, 16_384), Ok(Setting::MaxFrameSize(16_384)));
    }
}
