//! PostgreSQL's own compression of values, "pglz": LZ77 over a window of 4 KB with tokens of whole bytes.
//!
//! A stream is groups of a control byte and up to eight items, of which the control byte tells the kind, lowest bit first. A
//! clear bit is one literal byte. A set bit is a copy of bytes already written:
//! ```text
//! byte 0: high nibble = bits 8..11 of the distance back, low nibble = length - 3, or 15 when byte 2 follows
//! byte 1: bits 0..7 of the distance (1..4095)      byte 2, if any: length - 18
//! ```
//! A copy may reach into what it writes itself. The stream says neither its own length nor that of the value: both stand in
//! the varlena header ([`crate::varlena`]).

use crate::error::{Result, TypeError};

/// Values shorter than this are left alone.
const MIN_INPUT: usize = 32;
/// Values longer than this cannot be stored.
const MAX_INPUT: usize = (1 << 30) - 1;
/// Of 100 bytes, how many a stream may have to be worth storing.
const WORTH_PERCENT: u64 = 75;
/// Output without a single copy after which the value is taken for incompressible.
const HOPELESS: usize = 1024;
const MIN_COPY: usize = 3;
const MAX_COPY: usize = 273;
/// The shortest copy with a third byte.
const LONG_COPY: usize = 18;
const WINDOW: usize = 4096;
const MAX_DISTANCE: usize = WINDOW - 1;
const HASH_BITS: u32 = 12;
/// Earlier places looked at for each copy.
const MAX_TRIES: usize = 64;
/// No stream gives more bytes for one of its own: four bytes (control, copy) give at most 273, 25 bytes 8 × 273.
const MAX_EXPANSION: usize = 91;

/// The stream of a value, or `None` when it is not a quarter shorter than the value, or not shorter than `limit` bytes.
/// The work is bounded: by the value's length, and for hopeless values by `limit`.
pub fn compress(value: &[u8], limit: usize) -> Option<Vec<u8>> {
    if !(MIN_INPUT..=MAX_INPUT).contains(&value.len()) || value.len() / MAX_EXPANSION > limit {
        return None;
    }
    let worth = (value.len() as u64 * WORTH_PERCENT / 100) as usize;
    let limit = limit.min(worth);
    let mut window = Window::new(value);
    let mut stream = Stream::new();
    let (mut at, mut copied) = (0, false);
    while at < value.len() {
        let len = stream.out.len();
        if len >= limit || !copied && len >= HOPELESS {
            return None;
        }
        let length = match window.longest(at) {
            Some((distance, length)) => {
                stream.copy(distance, length);
                copied = true;
                length
            }
            None => {
                stream.literal(value[at]);
                1
            }
        };
        (at..at + length).for_each(|place| window.add(place));
        at += length;
    }
    (stream.out.len() < limit).then_some(stream.out)
}

/// The value of `raw_len` bytes that a stream stands for.
///
/// # Errors
/// XX001 when the stream is damaged or gives another number of bytes. No more memory is taken than a stream of its
/// length can fill.
pub fn decompress(stream: &[u8], raw_len: usize) -> Result<Vec<u8>> {
    let corrupt = || TypeError::corrupt("compressed value");
    if raw_len / MAX_EXPANSION > stream.len() {
        return Err(corrupt());
    }
    let mut out: Vec<u8> = Vec::with_capacity(raw_len);
    let mut rest = stream;
    while let Some((control, items)) = rest.split_first() {
        rest = items;
        for bit in 0..8 {
            if rest.is_empty() {
                break;
            }
            if control >> bit & 1 == 0 {
                let [byte, after @ ..] = rest else { break };
                out.push(*byte);
                rest = after;
            } else {
                let [high, low, after @ ..] = rest else {
                    return Err(corrupt());
                };
                rest = after;
                let distance = usize::from(high >> 4) << 8 | usize::from(*low);
                let mut length = usize::from(high & 0x0f) + MIN_COPY;
                if length == LONG_COPY {
                    let [more, after @ ..] = rest else {
                        return Err(corrupt());
                    };
                    length += usize::from(*more);
                    rest = after;
                }
                let start = out.len().checked_sub(distance).filter(|_| distance > 0);
                let start = start.ok_or_else(corrupt)?;
                if out.len() + length > raw_len {
                    return Err(corrupt());
                }
                // What is copied repeats with the distance as its period, so each round may take all there is.
                while length > 0 {
                    let chunk = length.min(out.len() - start);
                    out.extend_from_within(start..start + chunk);
                    length -= chunk;
                }
            }
            if out.len() > raw_len {
                return Err(corrupt());
            }
        }
    }
    if out.len() == raw_len {
        Ok(out)
    } else {
        Err(corrupt())
    }
}

/// The tokens written so far.
struct Stream {
    out: Vec<u8>,
    /// Where the control byte of the open group is.
    control: usize,
    /// Items in the open group.
    items: u32,
}

impl Stream {
    fn new() -> Self {
        Stream {
            out: Vec::new(),
            control: 0,
            items: 8,
        }
    }

    fn item(&mut self, is_copy: bool) {
        if self.items == 8 {
            self.control = self.out.len();
            self.out.push(0);
            self.items = 0;
        }
        self.out[self.control] |= u8::from(is_copy) << self.items;
        self.items += 1;
    }

    fn literal(&mut self, byte: u8) {
        self.item(false);
        self.out.push(byte);
    }

    fn copy(&mut self, distance: usize, length: usize) {
        debug_assert!((1..=MAX_DISTANCE).contains(&distance) && (MIN_COPY..=MAX_COPY).contains(&length));
        self.item(true);
        let high = (distance >> 8 << 4) as u8;
        if length < LONG_COPY {
            self.out
                .extend_from_slice(&[high | (length - MIN_COPY) as u8, distance as u8]);
        } else {
            self.out
                .extend_from_slice(&[high | 0x0f, distance as u8, (length - LONG_COPY) as u8]);
        }
    }
}

/// Where the three bytes at a place were seen before: the newest place of each hash, and from each place the one before it.
/// Places are kept plus one, so that zero is none.
struct Window<'v> {
    value: &'v [u8],
    newest: Vec<u32>,
    before: Vec<u32>,
}

impl<'v> Window<'v> {
    fn new(value: &'v [u8]) -> Self {
        Window {
            value,
            newest: vec![0; 1 << HASH_BITS],
            before: vec![0; WINDOW],
        }
    }

    /// The hash of the bytes at a place; `None` too near to the end.
    fn hash(&self, at: usize) -> Option<usize> {
        let three = self.value.get(at..at + MIN_COPY)?;
        let number = u32::from_le_bytes([three[0], three[1], three[2], 0]);
        Some((number.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize)
    }

    fn add(&mut self, at: usize) {
        if let Some(hash) = self.hash(at) {
            self.before[at % WINDOW] = self.newest[hash];
            self.newest[hash] = at as u32 + 1;
        }
    }

    /// Distance and length of the longest copy for the bytes at a place.
    fn longest(&self, at: usize) -> Option<(usize, usize)> {
        let ahead = &self.value[at..self.value.len().min(at + MAX_COPY)];
        let mut next = self.newest[self.hash(at)?];
        let (mut distance, mut length) = (0, MIN_COPY - 1);
        for _ in 0..MAX_TRIES {
            let Some(place) = (next as usize).checked_sub(1) else {
                break;
            };
            // A slot of `before` is used again only by a place that lies a whole window further on.
            if at - place > MAX_DISTANCE {
                break;
            }
            let behind = &self.value[place..place + ahead.len()];
            if behind[length] == ahead[length] {
                let same = behind.iter().zip(ahead).take_while(|(a, b)| a == b).count();
                if same > length {
                    (distance, length) = (at - place, same);
                    if same == ahead.len() {
                        break;
                    }
                }
            }
            next = self.before[place % WINDOW];
        }
        (length >= MIN_COPY).then_some((distance, length))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn there_and_back(value: &[u8]) -> Option<usize> {
        let stream = compress(value, usize::MAX)?;
        assert_eq!(decompress(&stream, value.len()).unwrap(), value);
        Some(stream.len())
    }

    #[test]
    fn one_byte_repeated_costs_three_bytes_for_each_273() {
        assert_eq!(there_and_back(&[b'a'; 8000]), Some(2 + 30 * 3 + 3));
    }

    #[test]
    fn text_comes_back_and_is_shorter() {
        let text: String = (0..400).map(|n| format!("the {n}th line of a text; ")).collect();
        assert!(there_and_back(text.as_bytes()).unwrap() < text.len() / 2);
    }

    #[test]
    fn copies_reach_back_as_far_as_the_window_and_no_further() {
        let noise: Vec<u8> = (0..4000u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 23) as u8)
            .collect();
        for gap in [0, 94, 95, 96, 97, 200] {
            let mut value = noise.clone();
            value.resize(4000 + gap, b'-');
            value.extend_from_slice(&noise);
            there_and_back(&value);
        }
    }

    #[test]
    fn what_does_not_shrink_is_left_alone() {
        assert_eq!(compress(&[b'a'; 31], usize::MAX), None);
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(compress(&bytes, usize::MAX), None);
        // The limit is one that the stream must stay below.
        let len = compress(&[7; 3000], usize::MAX).unwrap().len();
        assert_eq!(compress(&[7; 3000], len), None);
        assert!(compress(&[7; 3000], len + 1).is_some());
        assert_eq!(compress(&vec![7; 1 << 20], 100), None);
    }

    #[test]
    fn damaged_streams_are_refused() {
        // A copy from before the beginning, one of distance 0, half a copy, a missing third byte, too many and too few bytes.
        for (stream, raw_len) in [
            (&[0x01, 0x00, 0x01][..], 3),
            (&[0x02, b'a', 0x00, 0x00][..], 4),
            (&[0x02, b'a', 0x00][..], 4),
            (&[0x02, b'a', 0x0f, 0x01][..], 19),
            (&[0x02, b'a', 0x00, 0x01][..], 3),
            (&[0x02, b'a', 0x00, 0x01][..], 5),
            (&[0x00, b'a'][..], 0),
            (&[][..], 1 << 29),
        ] {
            assert!(decompress(stream, raw_len).is_err(), "{stream:x?}");
        }
        assert_eq!(decompress(&[0x02, b'a', 0x00, 0x01], 4).unwrap(), b"aaaa");
        assert_eq!(
            decompress(&[0x02, b'a', 0x0f, 0x01, 0x02], 21).unwrap(),
            [b'a'; 21]
        );
        assert_eq!(decompress(&[], 0).unwrap(), b"");
    }
}
