//! Index entries of a new version, with unique checks.

use std::borrow::Cow;

use towline_base::{SqlState, Tid};
use towline_types::{Datum, IoStyle, Stored, TypeId, disk, text_of};

use crate::btree::{self, IndexContext, InsertOutcome, Pressure, Values};
use crate::catalog::{Index, Table};
use crate::error::{AccessError, Result};
use crate::heap::probe::HeapProbe;
use crate::heap::tuple::TupleRef;
use crate::locks::RowTicket;
use crate::step::{Step, Wait};
use crate::toast::{self, Outgoing};
use crate::txn::Transaction;

/// How far the entries of one version are.
#[derive(Debug, Default)]
pub(super) struct Entries {
    next: usize,
    place: Option<RowTicket>,
}

/// The key's payloads, out of the row; those that stand out of line are among `outgoing`, or were there before.
fn key_values<'a>(
    txn: &Transaction,
    table: &Table,
    index: &Index,
    tuple: TupleRef<'a>,
    outgoing: &Outgoing,
) -> Result<Values<'a>> {
    let (data, bitmap, natts) = (tuple.data(), tuple.bitmap(), tuple.natts());
    let layout = &table.layout;
    let mut values = Values::new();
    for key in &index.keys {
        let at = usize::try_from(key.column - 1).unwrap_or(usize::MAX);
        let value = match layout.stored(data, bitmap, natts, at)? {
            Some(Stored::External(pointer)) => Some(Cow::Owned(match outgoing.payload(at)? {
                Some(payload) => payload,
                None => toast::read_value(txn, table, pointer)?,
            })),
            stored => stored.map(Stored::payload).transpose()?,
        };
        let is_name = layout
            .attrs()
            .get(at)
            .is_some_and(|attr| attr.ty.id == TypeId::Name);
        // A name is a fixed field in the row and a string in the key.
        values.push(match value {
            Some(Cow::Borrowed(bytes)) if is_name => {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                Some(Cow::Borrowed(&bytes[..end]))
            }
            other => other,
        });
    }
    Ok(values)
}

/// Whether no key column of any index differs between two versions. A value out of line is the same only if it is the very same; it is
/// not looked at here, under the latch.
pub(super) fn same_keys(table: &Table, old: TupleRef<'_>, new: TupleRef<'_>) -> Result<bool> {
    for index in &table.indexes {
        for key in &index.keys {
            let at = usize::try_from(key.column - 1).unwrap_or(usize::MAX);
            let before = table.layout.stored(old.data(), old.bitmap(), old.natts(), at)?;
            let after = table.layout.stored(new.data(), new.bitmap(), new.natts(), at)?;
            let same = match (before, after) {
                (Some(Stored::External(before)), Some(Stored::External(after))) => before == after,
                (Some(Stored::External(_)), _) | (_, Some(Stored::External(_))) => false,
                (before, after) => {
                    before.map(Stored::payload).transpose()? == after.map(Stored::payload).transpose()?
                }
            };
            if !same {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

impl Entries {
    /// Adds the entries that are still missing. The tuple is the formed new version at `tid`, and `outgoing` what it has moved out of line.
    pub(super) fn step(
        &mut self,
        txn: &mut Transaction,
        table: &Table,
        tuple: &[u8],
        outgoing: &Outgoing,
        tid: Tid,
    ) -> Result<Step<()>> {
        while let Some(index) = table.indexes.get(self.next) {
            crate::ready!(self.insert_one(txn, table, index, tuple, outgoing, tid));
            self.place = None;
            self.next += 1;
        }
        Ok(Step::Done(()))
    }

    fn insert_one(
        &mut self,
        txn: &mut Transaction,
        table: &Table,
        index: &Index,
        tuple: &[u8],
        outgoing: &Outgoing,
        tid: Tid,
    ) -> Result<Step<()>> {
        let engine = txn.engine().clone();
        let writer = engine.writer()?;
        let view = TupleRef::new(tuple)
            .ok_or_else(|| AccessError::internal("a tuple was formed with a wrong header"))?;
        let values = key_values(txn, table, index, view, outgoing)?;
        let horizon = || engine.removal_horizon();
        let cx = IndexContext {
            storage: engine.storage(),
            permit: &writer.permit,
            xid: txn.xid,
            horizon: &horizon,
        };
        let probe = HeapProbe {
            engine: &engine,
            rel: table.node,
            xid: txn.xid,
        };
        loop {
            let unique = index.unique.then_some(&probe as &dyn btree::RowProbe);
            match btree::insert(&cx, index, &values, tid, unique)? {
                InsertOutcome::Inserted { depends_on } => {
                    txn.raise_depends_on(depends_on);
                    return Ok(Step::Done(()));
                }
                InsertOutcome::Needs(pressure) => return Ok(Step::Wait(wait_for(&engine, pressure))),
                InsertOutcome::Blocked { xid, tid: _ } => {
                    if let Some(wait) = txn.wait_for_xid(xid, &mut self.place)? {
                        return Ok(Step::Wait(wait));
                    }
                }
                InsertOutcome::Duplicate { tid: _, depends_on } => {
                    txn.raise_depends_on(depends_on);
                    return Err(duplicate(table, index, &values));
                }
            }
        }
    }
}

/// The wait that a full log asks for.
pub(crate) fn wait_for(engine: &crate::Engine, pressure: Pressure) -> Wait {
    match pressure {
        Pressure::Flush(lsn) => engine.wait_flush(lsn),
        Pressure::Quorum(lsn) => engine.wait_quorum(lsn),
    }
}

/// 23505, worded as PostgreSQL does.
fn duplicate(table: &Table, index: &Index, values: &Values<'_>) -> AccessError {
    let error = AccessError::new(
        SqlState::UNIQUE_VIOLATION,
        format!(
            "duplicate key value violates unique constraint \"{}\"",
            index.name
        ),
    )
    .with_table(&table.schema_name, &table.name)
    .with_constraint(&index.name);
    let (mut names, mut texts) = (Vec::new(), Vec::new());
    for (key, payload) in index.keys.iter().zip(values) {
        let column = usize::try_from(key.column - 1)
            .ok()
            .and_then(|at| table.columns.get(at));
        let Some(column) = column else { continue };
        let value = match payload {
            Some(payload) => disk::read(column.column_type.id, payload),
            None => Ok(Datum::Null),
        };
        let Ok(value) = value else { return error };
        names.push(&*column.name);
        texts.push(text_of(&value, &IoStyle::default()));
    }
    error.with_detail(format!(
        "Key ({})=({}) already exists.",
        names.join(", "),
        texts.join(", ")
    ))
}
