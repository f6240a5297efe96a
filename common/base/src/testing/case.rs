//! [`Case`]: the random numbers of one fuzz case, and the mutations made with them.

/// Numbers at which decoders go wrong: zero, borders of widths and signs.
const BORDERS: [u64; 16] = [
    0,
    1,
    2,
    7,
    8,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// Random numbers from a seed (SplitMix64, Steele, Lea and Flood 2014), and mutations of valid input.
#[derive(Debug, Clone)]
pub struct Case {
    seed: u64,
    state: u64,
    /// What is left of the bytes that numbers are taken from before they are random.
    input: std::vec::IntoIter<u8>,
}

impl Case {
    /// The case of this seed.
    pub fn new(seed: u64) -> Case {
        Case {
            seed,
            state: seed,
            input: Vec::new().into_iter(),
        }
    }

    /// The case whose numbers are these bytes, as many as each choice needs; and those of seed 0 when they are used up.
    pub fn of_input(input: &[u8]) -> Case {
        Case {
            input: Vec::from(input).into_iter(),
            ..Case::new(0)
        }
    }

    /// A number of `width` bytes from the input, or 64 random bits.
    fn draw(&mut self, width: usize) -> u64 {
        if self.input.as_slice().is_empty() {
            return self.random();
        }
        self.input
            .by_ref()
            .take(width)
            .enumerate()
            .fold(0, |value, (at, byte)| value | u64::from(byte) << (8 * at))
    }

    /// What it was made from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.draw(8)
    }

    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound.max(1) as u64;
        let width = match bound {
            0..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 8,
        };
        (self.draw(width) % bound) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of the choices, of which there must be some.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// A number from the borders of widths, from near them, or any.
    pub fn border(&mut self) -> u64 {
        match self.below(4) {
            0 => self.next_u64(),
            1 => self.below(300) as u64,
            _ => {
                let border = *self.pick(&BORDERS);
                border.wrapping_add(self.below(3) as u64).wrapping_sub(1)
            }
        }
    }

    /// This many random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.draw(1) as u8).collect()
    }

    /// A place in `len` bytes, and a short length that fits there.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let at = self.below(len);
        let longest = if self.one_in(8) { len } else { 16 };
        let count = self.below((len - at).min(longest) + 1);
        at..at + count
    }

    /// Changes bytes without changing their number.
    pub fn mutate_in_place(&mut self, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        for _ in 0..1 + self.below(4) {
            self.change(bytes);
        }
    }

    fn change(&mut self, bytes: &mut [u8]) {
        let at = self.below(bytes.len());
        match self.below(6) {
            0 | 1 => bytes[at] ^= 1 << self.below(8),
            2 => bytes[at] = self.border() as u8,
            3 => {
                let value = self.border().to_le_bytes();
                let width = [2, 4, 8][self.below(3)];
                let at = if self.one_in(2) { at - at % width } else { at };
                let width = width.min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&value[..width]);
            }
            4 => {
                let range = self.range(bytes.len());
                let filler = *self.pick(&[0, 0xff, 0x80]);
                bytes[range].fill(filler);
            }
            _ => {
                let range = self.range(bytes.len());
                let to = self.below(bytes.len() - range.len() + 1);
                bytes.copy_within(range, to);
            }
        }
    }

    /// Changes bytes and often their number: cut off, left out, repeated, added.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..1 + self.below(3) {
            match self.below(8) {
                0 if !bytes.is_empty() => bytes.truncate(self.below(bytes.len())),
                1 if !bytes.is_empty() => {
                    let range = self.range(bytes.len());
                    bytes.drain(range);
                }
                2 if !bytes.is_empty() => {
                    let range = self.range(bytes.len());
                    let repeated = bytes[range.clone()].to_vec();
                    bytes.splice(range.end..range.end, repeated);
                }
                3 => {
                    let count = self.below(17);
                    let at = self.below(bytes.len() + 1);
                    let added = self.bytes(count);
                    bytes.splice(at..at, added);
                }
                _ => self.mutate_in_place(bytes),
            }
        }
    }

    /// Puts a piece of `other` into `bytes`.
    pub fn splice(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        if other.is_empty() {
            return;
        }
        let piece = self.range(other.len());
        let at = self.below(bytes.len() + 1);
        let replaced = self.below((bytes.len() - at).min(16) + 1);
        bytes.splice(at..at + replaced, other[piece].iter().copied());
    }

    /// Changes a text, which stays one. `words` are put in at times.
    pub fn mutate_text(&mut self, text: &mut String, words: &[&str]) {
        let mut bytes = std::mem::take(text).into_bytes();
        if !words.is_empty() && self.one_in(2) {
            let word = *self.pick(words);
            let at = self.below(bytes.len() + 1);
            bytes.splice(at..at, word.bytes());
        } else {
            self.mutate(&mut bytes);
        }
        *text = String::from_utf8_lossy(&bytes).into_owned();
    }
}
