//! The on-disk form (PostgreSQL's short and long headers) and the binary wire form.

use super::{BASE, DEC_DIGITS, MAX_DSCALE, Numeric, Repr, Var, var::Digits};
use crate::error::{Result, TypeError};
use bytes::BufMut;
use smallvec::SmallVec;
use std::sync::Arc;
use towline_base::SqlState;

const SIGN_MASK: u16 = 0xC000;
const NEGATIVE: u16 = 0x4000;
const SHORT: u16 = 0x8000;
const SHORT_NEGATIVE: u16 = 0x2000;
const SHORT_DSCALE_SHIFT: u32 = 7;
const SHORT_DSCALE_MAX: i32 = 0x3F;
const SHORT_WEIGHT_SIGN: u16 = 0x40;
const SHORT_WEIGHT_MASK: u16 = 0x3F;
const NAN: u16 = 0xC000;
const POSITIVE_INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

impl Numeric {
    /// Bytes of the on-disk form without its varlena header.
    pub fn disk_len(&self) -> usize {
        match self.repr() {
            Repr::Finite(v) => (if is_short(v) { 2 } else { 4 }) + 2 * v.digits.len(),
            _ => 2,
        }
    }

    /// Appends the on-disk form without its varlena header.
    pub fn write_disk(&self, out: &mut Vec<u8>) {
        let v = match self.repr() {
            Repr::NaN => return out.extend_from_slice(&NAN.to_le_bytes()),
            Repr::PosInf => return out.extend_from_slice(&POSITIVE_INFINITY.to_le_bytes()),
            Repr::NegInf => return out.extend_from_slice(&NEGATIVE_INFINITY.to_le_bytes()),
            Repr::Finite(v) => v,
        };
        if is_short(v) {
            let mut header =
                SHORT | (v.dscale as u16) << SHORT_DSCALE_SHIFT | (v.weight as u16 & SHORT_WEIGHT_MASK);
            if v.negative {
                header |= SHORT_NEGATIVE;
            }
            if v.weight < 0 {
                header |= SHORT_WEIGHT_SIGN;
            }
            out.extend_from_slice(&header.to_le_bytes());
        } else {
            let sign = if v.negative { NEGATIVE } else { 0 };
            out.extend_from_slice(&(sign | v.dscale as u16).to_le_bytes());
            out.extend_from_slice(&(v.weight as i16).to_le_bytes());
        }
        for d in &v.digits {
            out.extend_from_slice(&d.to_le_bytes());
        }
    }

    /// Reads the on-disk form (without varlena header).
    pub fn from_disk(bytes: &[u8]) -> Result<Numeric> {
        let corrupt = || TypeError::corrupt("numeric");
        let (header, rest) = bytes.split_first_chunk::<2>().ok_or_else(corrupt)?;
        let header = u16::from_le_bytes(*header);
        let (negative, dscale, weight, rest) = match header & SIGN_MASK {
            SIGN_MASK => {
                return match header {
                    NAN => Ok(Numeric::nan()),
                    POSITIVE_INFINITY => Ok(Numeric::infinity(false)),
                    NEGATIVE_INFINITY => Ok(Numeric::infinity(true)),
                    _ => Err(corrupt()),
                };
            }
            SHORT => {
                let mut weight = i32::from(header & SHORT_WEIGHT_MASK);
                if header & SHORT_WEIGHT_SIGN != 0 {
                    weight -= i32::from(SHORT_WEIGHT_SIGN);
                }
                (
                    header & SHORT_NEGATIVE != 0,
                    i32::from(header >> SHORT_DSCALE_SHIFT) & SHORT_DSCALE_MAX,
                    weight,
                    rest,
                )
            }
            sign => {
                let (weight, rest) = rest.split_first_chunk::<2>().ok_or_else(corrupt)?;
                let dscale = i32::from(header & !SIGN_MASK);
                (
                    sign == NEGATIVE,
                    dscale,
                    i32::from(i16::from_le_bytes(*weight)),
                    rest,
                )
            }
        };
        if rest.len() % 2 != 0 {
            return Err(corrupt());
        }
        let mut digits: Digits = SmallVec::with_capacity(rest.len() / 2);
        for pair in rest.chunks_exact(2) {
            let d = i16::from_le_bytes([pair[0], pair[1]]);
            if !(0..BASE).contains(&i32::from(d)) {
                return Err(corrupt());
            }
            digits.push(d);
        }
        let mut var = Var {
            negative,
            weight,
            dscale,
            digits,
        };
        var.strip();
        Ok(Numeric(Arc::new(Repr::Finite(var))))
    }

    /// Appends the binary wire form (`numeric_send`).
    pub fn write_binary(&self, out: &mut impl BufMut) {
        let (count, weight, sign, dscale) = match self.repr() {
            Repr::NaN => (0, 0, NAN, 0),
            // PostgreSQL reads a scale of 32 out of the infinities' header bits.
            Repr::PosInf => (0, 0, POSITIVE_INFINITY, 32),
            Repr::NegInf => (0, 0, NEGATIVE_INFINITY, 32),
            Repr::Finite(v) => (
                v.digits.len(),
                v.weight,
                if v.negative { NEGATIVE } else { 0 },
                v.dscale,
            ),
        };
        for word in [count as u16, weight as i16 as u16, sign, dscale as u16] {
            out.put_u16(word);
        }
        if let Repr::Finite(v) = self.repr() {
            for d in &v.digits {
                out.put_i16(*d);
            }
        }
    }

    /// Reads the binary wire form (`numeric_recv`).
    pub fn from_binary(bytes: &[u8]) -> Result<Numeric> {
        let invalid = |what: &str| {
            TypeError::new(
                SqlState::INVALID_BINARY_REPRESENTATION,
                format!("invalid {what} in external \"numeric\" value"),
            )
        };
        if bytes.len() < 8 || !bytes.len().is_multiple_of(2) {
            return Err(TypeError::binary("numeric"));
        }
        let word = |i: usize| u16::from_be_bytes([bytes[2 * i], bytes[2 * i + 1]]);
        let (count, weight, sign, dscale) = (
            usize::from(word(0)),
            i32::from(word(1) as i16),
            word(2),
            i32::from(word(3)),
        );
        if bytes.len() != 8 + 2 * count {
            return Err(TypeError::binary("numeric"));
        }
        let negative = match sign {
            0 => false,
            NEGATIVE => true,
            NAN => return Ok(Numeric::nan()),
            POSITIVE_INFINITY => return Ok(Numeric::infinity(false)),
            NEGATIVE_INFINITY => return Ok(Numeric::infinity(true)),
            _ => return Err(invalid("sign")),
        };
        if dscale > MAX_DSCALE {
            return Err(invalid("scale"));
        }
        let mut digits = Digits::with_capacity(count);
        for i in 0..count {
            let d = word(4 + i);
            if i32::from(d) >= BASE {
                return Err(invalid("digit"));
            }
            digits.push(d as i16);
        }
        let mut var = Var {
            negative,
            weight,
            dscale: 0,
            digits,
        };
        var.trunc(dscale.max(-(MAX_DSCALE / DEC_DIGITS)));
        Numeric::from_var(var)
    }
}

fn is_short(v: &Var) -> bool {
    v.dscale <= SHORT_DSCALE_MAX && (-64..=63).contains(&v.weight)
}
