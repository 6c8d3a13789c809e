//! Compression of bodies: bounded on the way in, worthwhile or left out on the way out.

use std::fmt;
use std::sync::Mutex;

use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, TDEFLStatus, compress};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_PARSE_ZLIB_HEADER, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use miniz_oxide::{DataFormat, deflate::CompressionLevel};

use super::error::FrameError;
use super::frame::Flags;
use super::plan::Layout;
use super::spec::{CompressionAlgorithm, CompressionSpec};

/// The first guess at how much a zlib body grows, and its least buffer: small bodies fit at
/// once, large ones double from there.
const FIRST_GROWTH: usize = 4;
const FIRST_BUFFER: usize = 512;

/// The size before an LZ4 block.
const LZ4_PREFIX: usize = 4;

/// LZ4 grows no body more than this: a match takes a byte for each 255 bytes.
const LZ4_MOST_GROWTH: u64 = 255;

/// How a layout compresses, with the state that is used again and again.
pub(super) struct Compression {
    spec: CompressionSpec,
    /// The compressors are large (zlib's has some 300 KiB), so they are made once. Whoever
    /// finds the place empty makes its own.
    idle: Mutex<Option<Box<Workspace>>>,
}

#[derive(Default)]
pub(super) struct Workspace {
    deflate: Option<Box<CompressorOxide>>,
    inflate: Option<Box<DecompressorOxide>>,
    lz4: Option<lz4_flex::block::CompressTable>,
    joined: Vec<u8>,
    compressed: Vec<u8>,
}

impl Workspace {
    pub(super) fn compressed(&self) -> &[u8] {
        &self.compressed
    }
}

impl fmt::Debug for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Compression").field(&self.spec).finish()
    }
}

impl Layout {
    /// The plain text of a body: `body` itself, or what it decompresses to in `scratch` if
    /// `flags` say that it is compressed. `body` is a frame's, or what the session opened of
    /// it. More than `max` bytes are refused without being made.
    pub fn open_body<'a>(
        &self,
        flags: Flags,
        body: &'a [u8],
        max: usize,
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], FrameError> {
        match (&self.compression, flags.compressed()) {
            (Some(compression), true) => {
                compression.decompress(body, max, scratch)?;
                Ok(scratch)
            }
            _ if body.len() > max => Err(too_large(max)),
            _ => Ok(body),
        }
    }
}

impl Compression {
    pub(super) const fn new(spec: CompressionSpec) -> Self {
        Self { spec, idle: Mutex::new(None) }
    }

    fn borrow(&self) -> Box<Workspace> {
        self.idle.try_lock().ok().and_then(|mut idle| idle.take()).unwrap_or_default()
    }

    pub(super) fn give_back(&self, workspace: Box<Workspace>) {
        if let Ok(mut idle) = self.idle.try_lock() {
            *idle = Some(workspace);
        }
    }

    /// Compresses a body in parts; none if it is too short or does not get shorter.
    pub(super) fn compress<'a>(
        &self,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
        len: usize,
    ) -> Option<Box<Workspace>> {
        if u32::try_from(len).is_ok_and(|len| len < self.spec.min_bytes) {
            return None;
        }
        let mut workspace = self.borrow();
        let shorter = match self.spec.algorithm {
            CompressionAlgorithm::Zlib => workspace.deflate(parts, len),
            CompressionAlgorithm::Lz4 => workspace.lz4(parts, len),
        };
        if shorter {
            return Some(workspace);
        }
        self.give_back(workspace);
        None
    }

    fn decompress(&self, body: &[u8], max: usize, scratch: &mut Vec<u8>) -> Result<(), FrameError> {
        scratch.clear();
        match self.spec.algorithm {
            CompressionAlgorithm::Lz4 => unlz4(body, max, scratch),
            CompressionAlgorithm::Zlib => {
                let mut workspace = self.borrow();
                let result = workspace.inflate(body, max, scratch);
                self.give_back(workspace);
                result
            }
        }
    }
}

impl Workspace {
    /// Whether `compressed` now holds the parts as a zlib stream shorter than they are.
    fn deflate<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>, len: usize) -> bool {
        let deflate = self.deflate.get_or_insert_with(|| {
            let mut deflate = Box::<CompressorOxide>::default();
            deflate.set_format_and_level(DataFormat::Zlib, CompressionLevel::DefaultLevel as u8);
            deflate
        });
        deflate.reset();
        self.compressed.clear();
        // One byte less than the body: what does not fit is not worth it.
        self.compressed.resize(len.saturating_sub(1), 0);
        let mut written = 0_usize;
        // The stream is finished by a part of its own, which is empty.
        let parts = parts.map(|part| (part, TDEFLFlush::None));
        for (mut input, flush) in parts.chain([(&[][..], TDEFLFlush::Finish)]) {
            loop {
                let room = self.compressed.get_mut(written..).unwrap_or_default();
                let (status, read, wrote) = compress(deflate, input, room, flush);
                written = written.saturating_add(wrote);
                input = input.get(read..).unwrap_or_default();
                match status {
                    TDEFLStatus::Done => {
                        self.compressed.truncate(written);
                        return true;
                    }
                    TDEFLStatus::Okay if input.is_empty() && flush == TDEFLFlush::None => break,
                    TDEFLStatus::Okay if read > 0 || wrote > 0 => {}
                    // No room left.
                    _ => return false,
                }
            }
        }
        false
    }

    /// Whether `compressed` now holds the size of the parts and their LZ4 block, shorter than
    /// they are.
    fn lz4<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>, len: usize) -> bool {
        let Ok(size) = u32::try_from(len) else { return false };
        // LZ4 wants its input in one piece.
        self.joined.clear();
        for part in parts {
            self.joined.extend_from_slice(part);
        }
        let table = self.lz4.get_or_insert_with(Default::default);
        let most = lz4_flex::block::get_maximum_output_size(len).saturating_add(LZ4_PREFIX);
        self.compressed.clear();
        self.compressed.resize(most, 0);
        let Some((prefix, block)) = self.compressed.split_first_chunk_mut::<LZ4_PREFIX>() else {
            return false;
        };
        *prefix = size.to_le_bytes();
        let Ok(written) = lz4_flex::block::compress_into_with_table(&self.joined, block, table)
        else {
            return false;
        };
        self.compressed.truncate(written.saturating_add(LZ4_PREFIX));
        self.compressed.len() < len
    }

    fn inflate(&mut self, body: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let inflate = self.inflate.get_or_insert_default();
        inflate.init();
        let flags = TINFL_FLAG_PARSE_ZLIB_HEADER | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        // One byte above the limit tells a body of the limit from a longer one.
        let most = max.saturating_add(1);
        out.resize(body.len().saturating_mul(FIRST_GROWTH).max(FIRST_BUFFER).min(most), 0);
        let mut read = 0_usize;
        let mut written = 0_usize;
        loop {
            let input = body.get(read..).unwrap_or_default();
            let (status, more_read, more_written) = decompress(inflate, input, out, written, flags);
            read = read.saturating_add(more_read);
            written = written.saturating_add(more_written);
            if written > max {
                return Err(too_large(max));
            }
            match status {
                TINFLStatus::Done if read == body.len() => {
                    out.truncate(written);
                    return Ok(());
                }
                TINFLStatus::Done => return Err(broken("bytes follow the zlib stream")),
                TINFLStatus::HasMoreOutput if out.len() < most => {
                    let len = out.len().saturating_mul(2).min(most);
                    out.resize(len, 0);
                }
                TINFLStatus::HasMoreOutput => return Err(too_large(max)),
                TINFLStatus::NeedsMoreInput | TINFLStatus::FailedCannotMakeProgress => {
                    return Err(broken("the zlib stream ends early"));
                }
                TINFLStatus::Adler32Mismatch => {
                    return Err(broken("the zlib stream's own checksum is wrong"));
                }
                _ => return Err(broken("not a zlib stream")),
            }
        }
    }
}

fn unlz4(body: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let Some((prefix, block)) = body.split_first_chunk::<LZ4_PREFIX>() else {
        return Err(broken("no size before the LZ4 block"));
    };
    let size = u32::from_le_bytes(*prefix);
    let Some(len) = usize::try_from(size).ok().filter(|len| *len <= max) else {
        return Err(too_large(max));
    };
    let block_len = u64::try_from(block.len()).unwrap_or(u64::MAX);
    if u64::from(size) > block_len.saturating_mul(LZ4_MOST_GROWTH) {
        return Err(broken("the size before the LZ4 block is more than it can hold"));
    }
    out.resize(len, 0);
    match lz4_flex::block::decompress_into(block, out) {
        Ok(written) if written == len => Ok(()),
        Ok(_) => Err(broken("the LZ4 block is shorter than the size before it")),
        Err(_) => Err(broken("not an LZ4 block of the size before it")),
    }
}

fn too_large(max: usize) -> FrameError {
    FrameError::BodyTooLarge { max: u64::try_from(max).unwrap_or(u64::MAX) }
}

fn broken(problem: &'static str) -> FrameError {
    FrameError::Compression { problem }
}
