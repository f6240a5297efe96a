//! PostgreSQL's page checksum: 32 interleaved FNV-1a variants over 32-bit words, mixed with the block number.
//!
//! The algorithm and its constants are a format fact (PostgreSQL's `storage/checksum_impl.h`): the page is read as 64 rows of
//! 32 words, each column is hashed by `h = (h ^ w) * prime ^ ((h ^ w) >> 17)`, two rows of zeros follow, the columns are
//! XORed together with the block number, and the result is reduced to 1..=65535. The columns are independent, so the
//! compiler turns the inner loop into vector code.

use towline_base::PAGE_SIZE;

const COLUMNS: usize = 32;
const PRIME: u32 = 16_777_619;

const BASE: [u32; COLUMNS] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

#[inline(always)]
fn mix(sum: u32, word: u32) -> u32 {
    let hashed = sum ^ word;
    hashed.wrapping_mul(PRIME) ^ (hashed >> 17)
}

#[inline(always)]
fn add_row(sums: &mut [u32; COLUMNS], row: &[u8; COLUMNS * 4]) {
    let (words, _) = row.as_chunks::<4>();
    for (sum, word) in sums.iter_mut().zip(words) {
        *sum = mix(*sum, u32::from_le_bytes(*word));
    }
}

/// The checksum of a page at `block`; the stored checksum's two bytes count as zero.
pub(super) fn page_checksum(bytes: &[u8; PAGE_SIZE], block: u32) -> u16 {
    let mut sums = BASE;
    let (rows, rest) = bytes.as_chunks::<{ COLUMNS * 4 }>();
    debug_assert!(rest.is_empty());
    let mut first = rows[0];
    first[8..10].fill(0);
    add_row(&mut sums, &first);
    for row in &rows[1..] {
        add_row(&mut sums, row);
    }
    for sum in &mut sums {
        *sum = mix(mix(*sum, 0), 0);
    }
    let folded = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
    ((folded % 65_535) + 1) as u16
}
