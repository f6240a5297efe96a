//! The fixed-layout helper behind every record payload: PostgreSQL's C structs as byte offsets, spelled out once.
//!
//! `layout!` turns a list of `field: type @ offset` into a struct with a bounded `decode` and an `encode` that writes
//! padding as zeros. Nothing here panics on any input; trailing bytes beyond the declared size are left to the caller
//! (that is where Towline's own appended fields live).

use towline_base::{Incarnation, Lsn, RelFileNode, Tid};

/// Why a payload could not be decoded. A caller treats it as a damaged or foreign record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadError {
    /// The payload ends before the field that was to be read.
    Truncated {
        /// Bytes that were needed.
        needed: usize,
        /// Bytes that were there.
        available: usize,
    },
    /// A field holds a value that no writer produces.
    Invalid(&'static str),
}

impl std::fmt::Display for PayloadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated { needed, available } => {
                write!(f, "record payload has {available} bytes, {needed} are needed")
            }
            Self::Invalid(what) => write!(f, "invalid record payload: {what}"),
        }
    }
}

impl std::error::Error for PayloadError {}

/// Something that can be appended to a record's main data or to a block's data.
pub trait Payload {
    /// Appends the on-disk form.
    fn encode(&self, out: &mut Vec<u8>);
}

/// A value with a fixed little-endian form.
pub trait Field: Sized {
    /// Bytes it takes.
    const SIZE: usize;
    /// Writes it to the front of `out`, which has at least `SIZE` bytes.
    fn put(&self, out: &mut [u8]);
    /// Reads it from the front of `bytes`; `None` when they are too few.
    fn get(bytes: &[u8]) -> Option<Self>;
}

macro_rules! int_field {
    ($($t:ty),*) => {$(
        impl Field for $t {
            const SIZE: usize = size_of::<$t>();
            #[inline]
            fn put(&self, out: &mut [u8]) {
                if let Some(slot) = out.first_chunk_mut() {
                    *slot = self.to_le_bytes();
                }
            }
            #[inline]
            fn get(bytes: &[u8]) -> Option<Self> {
                bytes.first_chunk().map(|chunk| Self::from_le_bytes(*chunk))
            }
        }
    )*};
}
int_field!(u8, u16, u32, u64, i32, i64);

impl Field for bool {
    const SIZE: usize = 1;
    fn put(&self, out: &mut [u8]) {
        u8::from(*self).put(out);
    }
    fn get(bytes: &[u8]) -> Option<Self> {
        u8::get(bytes).map(|byte| byte != 0)
    }
}

impl Field for Lsn {
    const SIZE: usize = 8;
    fn put(&self, out: &mut [u8]) {
        self.0.put(out);
    }
    fn get(bytes: &[u8]) -> Option<Self> {
        u64::get(bytes).map(Lsn)
    }
}

impl Field for Incarnation {
    const SIZE: usize = 16;
    fn put(&self, out: &mut [u8]) {
        if let Some(slot) = out.first_chunk_mut() {
            *slot = self.0;
        }
    }
    fn get(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().copied().map(Self)
    }
}

impl Field for RelFileNode {
    const SIZE: usize = 12;
    fn put(&self, out: &mut [u8]) {
        if let Some(out) = out.get_mut(..12) {
            self.spc.put(out);
            self.db.put(&mut out[4..]);
            self.rel.put(&mut out[8..]);
        }
    }
    fn get(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            spc: u32::get(bytes)?,
            db: u32::get(bytes.get(4..)?)?,
            rel: u32::get(bytes.get(8..)?)?,
        })
    }
}

/// PostgreSQL's ItemPointerData: block number as two 16-bit halves, high first, then the offset number.
impl Field for Tid {
    const SIZE: usize = 6;
    fn put(&self, out: &mut [u8]) {
        if let Some(out) = out.get_mut(..6) {
            ((self.block >> 16) as u16).put(out);
            (self.block as u16).put(&mut out[2..]);
            self.offset.put(&mut out[4..]);
        }
    }
    fn get(bytes: &[u8]) -> Option<Self> {
        let high = u16::get(bytes)?;
        let low = u16::get(bytes.get(2..)?)?;
        Some(Self {
            block: u32::from(high) << 16 | u32::from(low),
            offset: u16::get(bytes.get(4..)?)?,
        })
    }
}

/// Declares a payload struct by byte offsets. See the module.
macro_rules! layout {
    ($(#[$meta:meta])* pub struct $name:ident : $size:literal { $($rest:tt)* }) => {
        layout! { $(#[$meta])* pub struct $name : $size, at least $size { $($rest)* } }
    };
    ($(#[$meta:meta])* pub struct $name:ident : $size:literal, at least $min:literal {
        $($(#[$fmeta:meta])* pub $field:ident : $ty:ty = $off:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name {
            $($(#[$fmeta])* pub $field: $ty,)*
        }

        impl $name {
            /// Bytes of the on-disk form.
            pub const SIZE: usize = $size;

            /// The on-disk form.
            pub fn to_bytes(&self) -> [u8; $size] {
                let mut out = [0u8; $size];
                $(<$ty as $crate::records::layout::Field>::put(&self.$field, &mut out[$off..]);)*
                out
            }

            /// Decodes the front of `bytes`; more may follow. Appended fields of ours that PostgreSQL's own record lacks read as zero.
            pub fn decode(bytes: &[u8]) -> Result<Self, $crate::records::layout::PayloadError> {
                let mut padded = [0u8; $size];
                let bytes = match bytes.get(..$size) {
                    Some(bytes) => bytes,
                    None if bytes.len() >= $min => {
                        padded[..$min].copy_from_slice(&bytes[..$min]);
                        &padded[..]
                    }
                    None => {
                        return Err($crate::records::layout::PayloadError::Truncated { needed: $min, available: bytes.len() });
                    }
                };
                Ok(Self {
                    $($field: <$ty as $crate::records::layout::Field>::get(&bytes[$off..])
                        .ok_or($crate::records::layout::PayloadError::Invalid(concat!(stringify!($name), " layout")))?,)*
                })
            }
        }

        impl $crate::records::layout::Payload for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_bytes());
            }
        }

        // Fields must not overlap nor leave the struct: a typo in an offset is a compile error.
        const _: () = {
            let mut end = 0usize;
            $(assert!($off >= end); end = $off + <$ty as $crate::records::layout::Field>::SIZE;)*
            assert!(end <= $size && $min <= $size);
        };
    };
}
pub(crate) use layout;

impl Payload for [u8] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

/// Offset numbers as stored: little-endian `u16`s, unaligned. Borrowed from a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetNumbers<'a>(&'a [u8]);

impl<'a> OffsetNumbers<'a> {
    /// Takes `count` offsets from the front of `bytes` and returns what follows them.
    pub fn split(bytes: &'a [u8], count: usize) -> Result<(Self, &'a [u8]), PayloadError> {
        let needed = count * 2;
        match bytes.split_at_checked(needed) {
            Some((head, tail)) => Ok((Self(head), tail)),
            None => Err(PayloadError::Truncated {
                needed,
                available: bytes.len(),
            }),
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len() / 2
    }

    /// No offsets at all.
    pub fn is_empty(&self) -> bool {
        self.0.len() < 2
    }

    /// The offsets in stored order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u16> + 'a {
        self.0
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
    }
}

/// Appends offset numbers in their stored form.
pub fn encode_offsets(offsets: &[u16], out: &mut Vec<u8>) {
    for offset in offsets {
        out.extend_from_slice(&offset.to_le_bytes());
    }
}

/// Reads one field at `at` of `bytes`.
pub(crate) fn field_at<T: Field>(bytes: &[u8], at: usize) -> Result<T, PayloadError> {
    bytes.get(at..).and_then(T::get).ok_or(PayloadError::Truncated {
        needed: at + T::SIZE,
        available: bytes.len(),
    })
}
