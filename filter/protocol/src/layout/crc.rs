//! Reflected 32-bit CRCs, eight bytes at a time ("slicing by eight", Kounavis and Berry 2005).
//!
//! The tables are computed when a layout that wants one is compiled, so that neither the Wasm
//! module nor a worker carries 8 KiB for each checksum that nobody uses.

use super::spec::ChecksumAlgorithm;

/// The polynomials, lowest power in the highest bit.
const ISO_HDLC: u32 = 0xedb8_8320;
const ISCSI: u32 = 0x82f6_3b78;

const STRIDE: usize = 8;

type Table = [u32; 256];

/// `tables[n][byte]` is the remainder of that byte followed by `n` zero bytes.
pub(super) struct Crc {
    tables: Box<[Table; STRIDE]>,
}

impl Crc {
    /// `None` for what is no CRC.
    pub(super) fn of(algorithm: ChecksumAlgorithm) -> Option<Self> {
        match algorithm {
            ChecksumAlgorithm::Crc32 => Some(Self::new(ISO_HDLC)),
            ChecksumAlgorithm::Crc32c => Some(Self::new(ISCSI)),
            ChecksumAlgorithm::Adler32 => None,
        }
    }

    fn new(polynomial: u32) -> Self {
        let mut tables = Box::new([[0; 256]; STRIDE]);
        let mut table: Table = [0; 256];
        for (byte, remainder) in (0..).zip(table.iter_mut()) {
            *remainder = byte;
            for _ in 0..u8::BITS {
                let feedback = if *remainder & 1 == 0 { 0 } else { polynomial };
                *remainder = *remainder >> 1 ^ feedback;
            }
        }
        let first = table;
        for place in tables.iter_mut() {
            *place = table;
            for remainder in &mut table {
                *remainder = *remainder >> 8 ^ look(&first, *remainder);
            }
        }
        Self { tables }
    }

    /// The register before the first byte.
    pub(super) const START: u32 = u32::MAX;

    pub(super) fn add(&self, register: u32, bytes: &[u8]) -> u32 {
        let [t0, t1, t2, t3, t4, t5, t6, t7] = &*self.tables;
        let (strides, rest) = bytes.as_chunks::<STRIDE>();
        let mut crc = register;
        for &[a, b, c, d, e, f, g, h] in strides {
            let low = u32::from_le_bytes([a, b, c, d]) ^ crc;
            let high = u32::from_le_bytes([e, f, g, h]);
            crc = look(t7, low)
                ^ look(t6, low >> 8)
                ^ look(t5, low >> 16)
                ^ look(t4, low >> 24)
                ^ look(t3, high)
                ^ look(t2, high >> 8)
                ^ look(t1, high >> 16)
                ^ look(t0, high >> 24);
        }
        rest.iter().fold(crc, |crc, &byte| crc >> 8 ^ look(t0, crc ^ u32::from(byte)))
    }

    /// The checksum of all that was added.
    pub(super) const fn value(register: u32) -> u32 {
        !register
    }
}

/// The entry of the lowest byte.
fn look(table: &Table, index: u32) -> u32 {
    let [byte, ..] = index.to_le_bytes();
    table.get(usize::from(byte)).copied().unwrap_or_default()
}

impl std::fmt::Debug for Crc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Crc")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_agree_with_the_libraries_however_the_bytes_are_cut(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cut in any::<prop::sample::Index>(),
        ) {
            let cut = cut.index(bytes.len() + 1);
            for (polynomial, expected) in
                [(ISO_HDLC, crc32fast::hash(&bytes)), (ISCSI, crc32c::crc32c(&bytes))]
            {
                let crc = Crc::new(polynomial);
                let register = crc.add(Crc::START, &bytes[..cut]);
                prop_assert_eq!(Crc::value(crc.add(register, &bytes[cut..])), expected);
            }
        }
    }
}
