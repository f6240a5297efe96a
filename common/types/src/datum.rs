//! A value in memory, its order and its hash.
//!
//! The order is that of PostgreSQL's default B-tree operator class under the C collation: `compare` is what indexes,
//! ORDER BY, DISTINCT and the comparison operators all use, so they cannot disagree. Values of the integer types
//! compare and hash alike across widths (PostgreSQL's `integer_ops` family), `char(n)` ignores trailing blanks, NaN
//! is equal to itself and above every number, negative zero equals zero.

use crate::array::ArrayValue;
use crate::interval::Interval;
use crate::numeric::Numeric;
use crate::type_id::TypeId;
use crate::varlena::ToastPointer;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use towline_base::{Lsn, Tid};

/// A value of any type, or NULL. Cheap to clone: what does not fit 16 bytes is shared.
#[derive(Clone, Debug)]
pub enum Datum {
    /// NULL, of any type.
    Null,
    /// `boolean`
    Bool(bool),
    /// `"char"`
    Char(u8),
    /// `smallint`
    Int2(i16),
    /// `integer`
    Int4(i32),
    /// `bigint`
    Int8(i64),
    /// `real`
    Float4(f32),
    /// `double precision`
    Float8(f64),
    /// `numeric`
    Numeric(Numeric),
    /// `text`, `varchar`, `name`, an unknown literal, and what else is text to us.
    Text(Arc<str>),
    /// `char(n)`, blank padded as stored.
    Bpchar(Arc<str>),
    /// `bytea`
    Bytea(Arc<[u8]>),
    /// `date`: days since 2000-01-01; `i32::MIN` and `i32::MAX` are the infinities.
    Date(i32),
    /// `time`: microseconds since midnight.
    Time(i64),
    /// `timestamp`: microseconds since 2000-01-01 00:00; `i64::MIN` and `i64::MAX` are the infinities.
    Timestamp(i64),
    /// `timestamptz`: the same, in UTC.
    TimestampTz(i64),
    /// `interval`
    Interval(Interval),
    /// `pg_lsn`
    PgLsn(Lsn),
    /// `oid` and the `reg…` types.
    Oid(u32),
    /// `xid` and `cid`: 32 bits.
    Xid(u32),
    /// `tid`
    Tid(Tid),
    /// `int2vector`
    Int2Vector(Arc<[i16]>),
    /// `oidvector`
    OidVector(Arc<[u32]>),
    /// Any other array.
    Array(Arc<ArrayValue>),
    /// An anonymous row (`ROW(…)`); never stored.
    Record(Arc<[Datum]>),
    /// A value out of line that was not fetched, because nobody looks at it: an UPDATE carries it from the old version of a
    /// row to the new one. It has no order and no text.
    External(ToastPointer),
}

impl Datum {
    /// A `text` value.
    pub fn text(s: &str) -> Datum {
        Datum::Text(Arc::from(s))
    }

    /// Whether this is NULL.
    #[inline]
    pub fn is_null(&self) -> bool {
        matches!(self, Datum::Null)
    }

    /// The type this value has by itself: `Unknown` for NULL, `Text` for everything kept as text.
    pub fn type_id(&self) -> TypeId {
        match self {
            Datum::Null => TypeId::Unknown,
            Datum::Bool(_) => TypeId::Bool,
            Datum::Char(_) => TypeId::Char,
            Datum::Int2(_) => TypeId::Int2,
            Datum::Int4(_) => TypeId::Int4,
            Datum::Int8(_) => TypeId::Int8,
            Datum::Float4(_) => TypeId::Float4,
            Datum::Float8(_) => TypeId::Float8,
            Datum::Numeric(_) => TypeId::Numeric,
            Datum::Text(_) => TypeId::Text,
            Datum::Bpchar(_) => TypeId::Bpchar,
            Datum::Bytea(_) => TypeId::Bytea,
            Datum::Date(_) => TypeId::Date,
            Datum::Time(_) => TypeId::Time,
            Datum::Timestamp(_) => TypeId::Timestamp,
            Datum::TimestampTz(_) => TypeId::TimestampTz,
            Datum::Interval(_) => TypeId::Interval,
            Datum::PgLsn(_) => TypeId::PgLsn,
            Datum::Oid(_) => TypeId::Oid,
            Datum::Xid(_) => TypeId::Xid,
            Datum::Tid(_) => TypeId::Tid,
            Datum::Int2Vector(_) => TypeId::Int2Vector,
            Datum::OidVector(_) => TypeId::OidVector,
            Datum::Array(a) => a.element.array().unwrap_or(TypeId::TextArray),
            Datum::Record(_) => TypeId::Record,
            Datum::External(_) => TypeId::Unknown,
        }
    }

    /// The text of a `Text` or `Bpchar`.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Datum::Text(s) | Datum::Bpchar(s) => Some(s),
            _ => None,
        }
    }

    /// The value of a `Bool`.
    #[inline]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Datum::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The value of any integer type, `oid` and `xid` included.
    #[inline]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Datum::Int2(v) => Some(i64::from(*v)),
            Datum::Int4(v) => Some(i64::from(*v)),
            Datum::Int8(v) => Some(*v),
            Datum::Oid(v) | Datum::Xid(v) => Some(i64::from(*v)),
            _ => None,
        }
    }

    /// The value of an `oid` or `reg…`.
    pub fn as_oid(&self) -> Option<u32> {
        match self {
            Datum::Oid(v) => Some(*v),
            _ => None,
        }
    }

    /// B-tree order of two values of one type (or of one operator family). The caller decides about NULL first; here
    /// two NULLs are equal and NULL is above everything, the order of NULLS LAST. Values of unrelated types are
    /// ordered by their variant, so that the order is total whatever the caller did.
    pub fn compare(&self, other: &Datum) -> Ordering {
        use Datum::*;
        match (self, other) {
            (Int4(a), Int4(b)) => a.cmp(b),
            (Int8(a), Int8(b)) => a.cmp(b),
            (Text(a), Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Int2(a), Int2(b)) => a.cmp(b),
            (Null, Null) => Ordering::Equal,
            (Null, _) => Ordering::Greater,
            (_, Null) => Ordering::Less,
            (Bool(a), Bool(b)) => a.cmp(b),
            (Char(a), Char(b)) => a.cmp(b),
            (Bpchar(a), Bpchar(b)) => trim_blanks(a).as_bytes().cmp(trim_blanks(b).as_bytes()),
            (Bytea(a), Bytea(b)) => a.cmp(b),
            (Float8(a), Float8(b)) => compare_f64(*a, *b),
            (Float4(a), Float4(b)) => compare_f64(f64::from(*a), f64::from(*b)),
            (Float4(a), Float8(b)) => compare_f64(f64::from(*a), *b),
            (Float8(a), Float4(b)) => compare_f64(*a, f64::from(*b)),
            (Numeric(a), Numeric(b)) => a.cmp(b),
            (Date(a), Date(b)) => a.cmp(b),
            (Time(a), Time(b)) => a.cmp(b),
            (Timestamp(a), Timestamp(b)) | (TimestampTz(a), TimestampTz(b)) => a.cmp(b),
            (Interval(a), Interval(b)) => a.cmp(b),
            (PgLsn(a), PgLsn(b)) => a.cmp(b),
            (Oid(a), Oid(b)) | (Xid(a), Xid(b)) => a.cmp(b),
            (Tid(a), Tid(b)) => (a.block, a.offset).cmp(&(b.block, b.offset)),
            (Int2Vector(a), Int2Vector(b)) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
            (OidVector(a), OidVector(b)) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
            (Array(a), Array(b)) => a.compare(b),
            (Record(a), Record(b)) => {
                let unequal = a
                    .iter()
                    .zip(b.iter())
                    .map(|(x, y)| x.compare(y))
                    .find(|o| o.is_ne());
                unequal.unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            (External(a), External(b)) => (a.relation, a.value).cmp(&(b.relation, b.value)),
            _ => match (self.as_i64(), other.as_i64()) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => self.rank().cmp(&other.rank()),
            },
        }
    }

    /// A number per variant, for the order between unrelated types.
    fn rank(&self) -> u32 {
        self.type_id().oid()
    }
}

/// `char(n)` without its padding.
pub fn trim_blanks(s: &str) -> &str {
    s.trim_end_matches(' ')
}

/// Order of floats: NaN equal to NaN and above all, -0 equal to 0.
pub fn compare_f64(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Same value (NULL equals NULL here, as in DISTINCT), by [`Datum::compare`].
impl PartialEq for Datum {
    fn eq(&self, other: &Self) -> bool {
        self.compare(other).is_eq()
    }
}

impl Eq for Datum {}

/// Agrees with `eq`.
impl Hash for Datum {
    fn hash<H: Hasher>(&self, h: &mut H) {
        fn float<H: Hasher>(v: f64, h: &mut H) {
            let canonical = if v.is_nan() {
                f64::NAN
            } else if v == 0.0 {
                0.0
            } else {
                v
            };
            h.write_u64(canonical.to_bits());
        }
        match self {
            Datum::Null => h.write_u8(0),
            Datum::Bool(b) => h.write_u8(u8::from(*b) + 1),
            Datum::Char(c) => h.write_u8(*c),
            Datum::Int2(v) => h.write_i64(i64::from(*v)),
            Datum::Int4(v) => h.write_i64(i64::from(*v)),
            Datum::Int8(v) => h.write_i64(*v),
            Datum::Oid(v) | Datum::Xid(v) => h.write_i64(i64::from(*v)),
            Datum::Float4(v) => float(f64::from(*v), h),
            Datum::Float8(v) => float(*v, h),
            Datum::Numeric(n) => n.hash(h),
            Datum::Text(s) => h.write(s.as_bytes()),
            Datum::Bpchar(s) => h.write(trim_blanks(s).as_bytes()),
            Datum::Bytea(b) => h.write(b),
            Datum::Date(v) => h.write_i32(*v),
            Datum::Time(v) | Datum::Timestamp(v) | Datum::TimestampTz(v) => h.write_i64(*v),
            Datum::Interval(v) => v.hash(h),
            Datum::PgLsn(v) => h.write_u64(v.0),
            Datum::Tid(t) => {
                h.write_u32(t.block);
                h.write_u16(t.offset);
            }
            Datum::Int2Vector(v) => v.hash(h),
            Datum::OidVector(v) => v.hash(h),
            Datum::Array(a) => a.values.hash(h),
            Datum::Record(v) => v.hash(h),
            Datum::External(pointer) => pointer.hash(h),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::DefaultHasher;

    fn hash(d: &Datum) -> u64 {
        let mut h = DefaultHasher::new();
        d.hash(&mut h);
        h.finish()
    }

    #[test]
    fn a_datum_stays_three_words() {
        assert!(size_of::<Datum>() <= 24);
    }

    #[test]
    fn equal_values_of_one_family_hash_alike() {
        let pairs = [
            (Datum::Int2(7), Datum::Int8(7)),
            (Datum::Float8(0.0), Datum::Float8(-0.0)),
            (Datum::Bpchar("a  ".into()), Datum::Bpchar("a".into())),
            (Datum::Float8(f64::NAN), Datum::Float8(-f64::NAN)),
        ];
        for (a, b) in pairs {
            assert_eq!(a, b);
            assert_eq!(hash(&a), hash(&b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn order_is_that_of_the_b_tree() {
        assert!(
            Datum::Float8(f64::NAN)
                .compare(&Datum::Float8(f64::INFINITY))
                .is_gt()
        );
        assert!(Datum::text("a").compare(&Datum::text("B")).is_gt());
        assert!(Datum::Null.compare(&Datum::Int4(1)).is_gt());
        assert!(
            Datum::OidVector([9].into())
                .compare(&Datum::OidVector([1, 1].into()))
                .is_lt()
        );
    }
}
