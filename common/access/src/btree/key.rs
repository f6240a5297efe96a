//! Keys: how an index's columns are stored and ordered, and the comparison that everything else here rests on.
//!
//! The order is PostgreSQL's: per column by the type's B-tree order (reversed for DESC), NULLs where the index wants them,
//! then by the row's place. In a pivot tuple a missing attribute, and a missing place, is minus infinity
//! (`_bt_compare` in PostgreSQL's nbtsearch.c). Comparison works on raw attribute bytes; an index on one int4 or int8
//! column compares integers directly.

use std::borrow::Cow;
use std::cmp::Ordering;

use smallvec::SmallVec;
use towline_base::Tid;
use towline_types::{ColumnType, Datum, Payload, RowDesc, TypeId, disk};

use super::tuple::{IndexTuple, TUPLE_HEADER};
use crate::error::Result;

/// How one key column is stored and ordered.
#[derive(Clone, Copy, Debug)]
pub struct KeyColumn {
    /// The stored type, which fixes the order: the column's, except that a `name` is kept as a `cstring`.
    pub type_id: TypeId,
    /// Larger values first.
    pub descending: bool,
    /// NULLs before all other values.
    pub nulls_first: bool,
}

impl KeyColumn {
    /// A key on a column of this type.
    pub fn new(column: TypeId, descending: bool, nulls_first: bool) -> KeyColumn {
        let type_id = if column == TypeId::Name {
            TypeId::Cstring
        } else {
            column
        };
        KeyColumn {
            type_id,
            descending,
            nulls_first,
        }
    }

    /// The index order of two values of this column. Bytes that are no value of the type compare as bytes: a damaged page
    /// gives a wrong answer or an error later, never a panic.
    #[inline]
    fn compare(&self, left: &Option<Payload<'_>>, right: &Option<Payload<'_>>) -> Ordering {
        match (left.as_deref(), right.as_deref()) {
            (Some(left), Some(right)) => {
                let order = disk::compare(self.type_id, left, right).unwrap_or_else(|_| left.cmp(right));
                if self.descending { order.reverse() } else { order }
            }
            (None, None) => Ordering::Equal,
            (None, Some(_)) if self.nulls_first => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) if self.nulls_first => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
        }
    }
}

/// The one-column indexes that compare without looking at types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fast {
    No,
    Int4,
    Int8,
}

/// How the keys of an index are stored and ordered.
#[derive(Clone, Debug)]
pub struct KeyDescriptor {
    /// The key columns.
    pub columns: Box<[KeyColumn]>,
    /// Their physical layout.
    pub(crate) layout: RowDesc,
    fast: Fast,
}

/// The payloads of a key's attributes (a varlena without its header, decompressed), `None` for NULL.
pub(crate) type Values<'a> = SmallVec<[Option<Payload<'a>>; 4]>;

impl KeyDescriptor {
    /// Describes an index with these columns.
    pub fn new(columns: Vec<KeyColumn>) -> KeyDescriptor {
        let fast = match columns.as_slice() {
            [only] if !only.descending && !only.nulls_first => match only.type_id {
                TypeId::Int4 => Fast::Int4,
                TypeId::Int8 => Fast::Int8,
                _ => Fast::No,
            },
            _ => Fast::No,
        };
        let layout = RowDesc::new(columns.iter().map(|column| ColumnType::from(column.type_id)));
        KeyDescriptor {
            columns: columns.into_boxed_slice(),
            layout,
            fast,
        }
    }

    /// Takes the first `count` attributes of a tuple apart; what the tuple does not have is left out.
    pub(crate) fn split<'a>(&self, tuple: IndexTuple<'a>, count: usize, out: &mut Values<'a>) {
        out.clear();
        let present = tuple.attribute_count(self.columns.len()).min(count);
        let (data, bitmap) = (tuple.data(), tuple.bitmap());
        for at in 0..present {
            let Ok(value) = self.layout.attr(data, bitmap, present, at) else {
                return;
            };
            out.push(value);
        }
    }

    fn fast_value(&self, tuple: IndexTuple<'_>) -> Option<i64> {
        let bytes = tuple.0;
        match self.fast {
            Fast::No => None,
            Fast::Int4 => bytes
                .get(TUPLE_HEADER..TUPLE_HEADER + 4)
                .map(|b| i64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
            Fast::Int8 => bytes
                .get(TUPLE_HEADER..TUPLE_HEADER + 8)
                .and_then(|b| b.try_into().ok())
                .map(i64::from_le_bytes),
        }
    }

    /// How many leading attributes of `right` tell it from `left`, one more than there are if only the place does.
    pub(crate) fn distinguishing(&self, left: IndexTuple<'_>, right: IndexTuple<'_>) -> usize {
        let total = self.columns.len();
        let (mut left_values, mut right_values) = (Values::new(), Values::new());
        self.split(left, total, &mut left_values);
        self.split(right, total, &mut right_values);
        let mut keep = 1;
        for (index, column) in self.columns.iter().enumerate() {
            let (Some(left), Some(right)) = (left_values.get(index), right_values.get(index)) else {
                break;
            };
            if column.compare(left, right) != Ordering::Equal {
                break;
            }
            keep += 1;
        }
        keep
    }

    /// `search` against `tuple`, PostgreSQL's `_bt_compare`.
    pub(crate) fn compare(&self, search: &SearchKey<'_>, tuple: IndexTuple<'_>) -> Ordering {
        let present = tuple.attribute_count(self.columns.len());
        let wanted = search.values.len();
        if let Some(value) = search.fast
            && present == 1
            && !tuple.has_nulls()
        {
            let Some(stored) = self.fast_value(tuple) else {
                return Ordering::Greater;
            };
            match value.cmp(&stored) {
                Ordering::Equal => {}
                other => return other,
            }
        } else {
            let mut cursor = self.layout.cursor(tuple.data(), tuple.bitmap(), present);
            for (column, value) in self.columns.iter().zip(&search.values).take(present) {
                let Ok(stored) = cursor.next_attr() else {
                    return Ordering::Greater;
                };
                match column.compare(value, &stored) {
                    Ordering::Equal => {}
                    other => return other,
                }
            }
        }
        if wanted > present {
            return Ordering::Greater;
        }
        let stored_tid = tuple.heap_tid();
        let Some(tid) = search.tid else {
            // All attributes present but no place: minus infinity, so everything sought lies to its right.
            return if wanted == present && stored_tid.is_none() && !search.exact_pivot {
                Ordering::Greater
            } else {
                Ordering::Equal
            };
        };
        match stored_tid {
            None => Ordering::Greater,
            Some(stored) => tid.cmp(&stored),
        }
    }

    /// The order of two leaf tuples, places included.
    pub(crate) fn compare_tuples(&self, left: IndexTuple<'_>, right: IndexTuple<'_>) -> Ordering {
        if let (Some(a), Some(b)) = (self.fast_value(left), self.fast_value(right))
            && !left.has_nulls()
            && !right.has_nulls()
        {
            return a.cmp(&b).then_with(|| left.leaf_tid().cmp(&right.leaf_tid()));
        }
        self.compare(&SearchKey::of_tuple(self, left), right)
    }

    /// The payloads of `values`, one after the other.
    #[cfg(test)]
    pub(crate) fn encode(&self, values: &[Datum]) -> Result<EncodedKey> {
        let mut encoded = EncodedKey::default();
        for (column, value) in self.columns.iter().zip(values) {
            encoded.push(column.type_id, value)?;
        }
        Ok(encoded)
    }
}

/// Owned payloads of a key or of a prefix of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct EncodedKey {
    bytes: Vec<u8>,
    /// End of each value in `bytes`, and whether it is NULL.
    ends: SmallVec<[(u32, bool); 4]>,
}

impl EncodedKey {
    /// The values one by one.
    pub(crate) fn values(&self) -> Values<'_> {
        let mut start = 0;
        self.ends
            .iter()
            .map(|(end, null)| {
                let range = start..*end as usize;
                start = range.end;
                if *null {
                    None
                } else {
                    self.bytes.get(range).map(Cow::Borrowed)
                }
            })
            .collect()
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Adds a value.
    pub(crate) fn push(&mut self, type_id: TypeId, value: &Datum) -> Result<()> {
        if value.is_null() {
            self.push_null();
            return Ok(());
        }
        match value {
            Datum::Text(text) if type_id == TypeId::Cstring => self.bytes.extend_from_slice(text.as_bytes()),
            _ => disk::write(type_id, value, &mut self.bytes)?,
        }
        self.ends.push((self.bytes.len() as u32, false));
        Ok(())
    }

    /// Adds a payload, or NULL.
    pub(crate) fn push_payload(&mut self, payload: Option<&[u8]>) {
        self.bytes.extend_from_slice(payload.unwrap_or(&[]));
        self.ends.push((self.bytes.len() as u32, payload.is_none()));
    }

    /// Forgets the values, keeping the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Adds a NULL.
    pub(crate) fn push_null(&mut self) {
        self.ends.push((self.bytes.len() as u32, true));
    }
}

/// What a descent looks for: a prefix of the key columns, and a row's place when inserting.
#[derive(Clone, Debug)]
pub(crate) struct SearchKey<'a> {
    pub(crate) values: Values<'a>,
    /// The place as last key.
    pub(crate) tid: Option<Tid>,
    /// Match a pivot with the same attributes and no place exactly (used to find a page's own high key).
    pub(crate) exact_pivot: bool,
    fast: Option<i64>,
}

impl<'a> SearchKey<'a> {
    /// A search for `values` (a prefix of the columns) and, if given, a place.
    pub(crate) fn new(key: &KeyDescriptor, values: Values<'a>, tid: Option<Tid>) -> SearchKey<'a> {
        let fast = match (key.fast, values.as_slice()) {
            (Fast::Int4, [Some(bytes)]) => (**bytes)
                .try_into()
                .ok()
                .map(|four: [u8; 4]| i64::from(i32::from_le_bytes(four))),
            (Fast::Int8, [Some(bytes)]) => (**bytes).try_into().ok().map(i64::from_le_bytes),
            _ => None,
        };
        SearchKey {
            values,
            tid,
            exact_pivot: false,
            fast,
        }
    }

    /// The key of an existing tuple, place included.
    pub(crate) fn of_tuple(key: &KeyDescriptor, tuple: IndexTuple<'a>) -> SearchKey<'a> {
        let mut values = Values::new();
        key.split(tuple, key.columns.len(), &mut values);
        SearchKey::new(key, values, tuple.heap_tid())
    }
}

/// The key of `index` for a table row with these values.
pub(crate) fn encode_row(index: &crate::catalog::Index, row: &[Datum]) -> Result<EncodedKey> {
    let mut encoded = EncodedKey::default();
    for (key, column) in index.keys.iter().zip(&index.key.columns) {
        let value = usize::try_from(key.column - 1).ok().and_then(|at| row.get(at));
        let value = value.ok_or_else(|| {
            crate::error::AccessError::internal(format!(
                "a row has no column {} for index \"{}\"",
                key.column, index.name
            ))
        })?;
        encoded.push(column.type_id, value)?;
    }
    Ok(encoded)
}
