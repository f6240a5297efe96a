//! COPY FROM STDIN: data in, rows out, a page of them per log record.
//!
//! The client's messages are collected in one buffer; whole lines are taken from its front. What is kept is bounded by
//! the client's longest line and one batch of rows.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use towline_access::Step;
use towline_access::catalog::{RelationKind, Table};
use towline_access::locks::{LockMode, LockTag};
use towline_access::ops::MultiInsertOp;
use towline_base::SqlState;
use towline_types::binary::check_utf8;
use towline_types::{Datum, parse_text};

use super::Session;
use super::context::SessionContext;
use super::copy_format::CopyFormat;
use super::run::{Outcome, Progress};
use crate::bind::{self, BindContext};
use crate::error::SqlError;
use crate::exec::Row;
use crate::exec::modify::check_not_null;
use crate::expr::{EvalContext, FunctionContext, NoSubqueries, ScalarExpr};
use crate::parse::ast::{Copy, CopySource};
use crate::sink::{CommandTag, CopyShape, RowSink};

/// A line may not be longer than this (PostgreSQL's limit on one value).
const MAX_LINE: usize = 1 << 30;
/// Rows read before others may run.
const ROWS_PER_SLICE: usize = 2000;

/// A COPY that reads.
pub(crate) struct CopyIn {
    table: Arc<Table>,
    /// Attribute of each field.
    columns: Vec<usize>,
    defaults: Vec<(usize, ScalarExpr)>,
    filter: Option<ScalarExpr>,
    format: CopyFormat,
    buffer: BytesMut,
    /// Bytes of the buffer known to hold no line end, and whether they end inside quotes.
    scanned: usize,
    in_quotes: bool,
    ended: bool,
    failed: Option<String>,
    skip_header: bool,
    locked: bool,
    announced: bool,
    line: u64,
    count: u64,
    batch: MultiInsertOp,
    row: Row,
    finished: bool,
}

impl CopyIn {
    pub(crate) fn start(
        session: &mut Session,
        copy: &Copy,
        format: CopyFormat,
        text: &str,
    ) -> Result<CopyIn, SqlError> {
        let CopySource::Table(name, names) = &copy.source else {
            return Err(SqlError::internal("COPY FROM a query"));
        };
        if let Some(txn) = &session.txn {
            txn.check_writable("COPY FROM")?;
        }
        let table = session.table_named(name)?;
        if table.kind != RelationKind::Table {
            let what = if table.kind == RelationKind::View {
                "view"
            } else {
                "non-table relation"
            };
            return Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("cannot copy to {what} \"{}\"", table.name),
            ));
        }
        if table.is_system() {
            return Err(SqlError::denied(format!(
                "permission denied: \"{}\" is a system catalog",
                table.name
            )));
        }
        let mut columns = Vec::new();
        for name in names {
            let column = table.column(&name.text).ok_or_else(|| {
                SqlError::new(
                    SqlState::UNDEFINED_COLUMN,
                    format!(
                        "column \"{}\" of relation \"{}\" does not exist",
                        name.text, table.name
                    ),
                )
            })?;
            let at = usize::try_from(column.number - 1).unwrap_or(0);
            if columns.contains(&at) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{}\" specified more than once", name.text),
                ));
            }
            columns.push(at);
        }
        if names.is_empty() {
            columns.extend((0..table.columns.len()).filter(|at| !table.columns[*at].dropped));
        }
        let view = session.catalog_view()?;
        let path = session.search_path();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let cx = BindContext {
            text,
            catalog: &view,
            search_path: &path,
            style: &session.style,
            params: false,
        };
        let mut defaults = Vec::new();
        for at in 0..table.columns.len() {
            if !columns.contains(&at) && table.columns[at].default.is_some() {
                defaults.push((at, bind::column_default(&table, at, cx)?));
            }
        }
        let filter = copy
            .filter
            .as_ref()
            .map(|filter| bind::bind_scalar(filter, Some(&table), cx))
            .transpose()?;
        let skip_header = format.header;
        Ok(CopyIn {
            batch: MultiInsertOp::new(table.clone()),
            table,
            columns,
            defaults,
            filter,
            format,
            buffer: BytesMut::new(),
            scanned: 0,
            in_quotes: false,
            ended: false,
            failed: None,
            skip_header,
            locked: false,
            announced: false,
            line: 0,
            count: 0,
            row: Vec::new(),
            finished: false,
        })
    }

    pub(crate) fn data(&mut self, data: &[u8]) {
        if !self.ended {
            self.buffer.extend_from_slice(data);
        }
    }

    pub(crate) fn done(&mut self) {
        self.ended = true;
    }

    pub(crate) fn fail(&mut self, message: &str) {
        self.failed = Some(message.to_owned());
    }

    fn shape(&self) -> CopyShape {
        CopyShape {
            columns: self.columns.len() as u16,
            binary: false,
        }
    }

    /// Goes on: asks for data, or finishes.
    pub(crate) fn step(
        &mut self,
        session: &mut Session,
        out: &mut dyn RowSink,
    ) -> Result<Progress, SqlError> {
        if let Some(message) = &self.failed {
            return Err(SqlError::new(
                SqlState::QUERY_CANCELED,
                format!("COPY from stdin failed: {message}"),
            )
            .with_context(format!("COPY {}, line {}", self.table.name, self.line + 1)));
        }
        if !self.locked {
            let Some(txn) = &mut session.txn else {
                return Err(SqlError::internal("no transaction"));
            };
            if let Step::Wait(wait) = txn.lock(LockTag::Relation(self.table.oid.0), LockMode::RowExclusive)? {
                return Ok(Progress::Wait(wait));
            }
            txn.begin_statement();
            self.locked = true;
        }
        if !std::mem::replace(&mut self.announced, true) {
            out.copy_in(self.shape());
            return Ok(Progress::CopyIn(self.shape()));
        }
        let Some(mut txn) = session.txn.take() else {
            return Err(SqlError::internal("no transaction"));
        };
        let view = session.catalog_view_with(&mut txn);
        let result = view.and_then(|view| {
            let context = SessionContext::new(session, &view);
            self.read_rows(&mut txn, session, &context)
        });
        session.txn = Some(txn);
        result
    }

    fn read_rows(
        &mut self,
        txn: &mut towline_access::Transaction,
        session: &Session,
        context: &dyn FunctionContext,
    ) -> Result<Progress, SqlError> {
        let cx = EvalContext {
            params: &[],
            outer: &[],
            style: &session.style,
            functions: context,
            subqueries: &NoSubqueries,
        };
        let mut rows = 0;
        loop {
            if self.batch.is_full() || self.finished {
                match self
                    .batch
                    .step(txn)
                    .map_err(|error| self.located(error.into(), None))?
                {
                    Step::Wait(wait) => return Ok(Progress::Wait(wait)),
                    Step::Done(written) => self.count += written as u64,
                }
                if self.finished {
                    return Ok(Progress::Done(Outcome::Tag(CommandTag::Rows("COPY", self.count))));
                }
            }
            if rows >= ROWS_PER_SLICE {
                txn.check_interrupts()?;
                return Ok(Progress::Yield);
            }
            let Some(line) = self.next_line()? else {
                if self.ended {
                    self.finished = true;
                    continue;
                }
                return Ok(Progress::CopyIn(self.shape()));
            };
            if std::mem::take(&mut self.skip_header) {
                continue;
            }
            if line[..] == b"\\."[..] {
                self.ended = true;
                self.buffer.clear();
                self.scanned = 0;
                continue;
            }
            rows += 1;
            self.parse_line(&line, &cx)?;
            if let Some(filter) = &self.filter
                && !matches!(filter.eval(&self.row, &cx)?, Datum::Bool(true))
            {
                continue;
            }
            check_not_null(&self.table, &self.row, cx.style).map_err(|error| self.located(error, None))?;
            self.batch
                .push(&self.row)
                .map_err(|error| self.located(error.into(), None))?;
        }
    }

    /// Takes the next whole line (record, in CSV) from the buffer, without its end.
    fn next_line(&mut self) -> Result<Option<BytesMut>, SqlError> {
        let bytes = &self.buffer[..];
        let mut at = self.scanned;
        let mut found = None;
        while let Some(&byte) = bytes.get(at) {
            let escapes = if self.format.csv {
                self.in_quotes && byte == self.format.escape && byte != self.format.quote
            } else {
                byte == b'\\'
            };
            if escapes && bytes.get(at + 1).is_none() && !self.ended {
                // What it escapes comes with the next piece.
                break;
            }
            if self.format.csv && byte == self.format.quote {
                self.in_quotes = !self.in_quotes;
            } else if self.format.csv && escapes {
                at += 1;
            } else if byte == b'\n' && !self.in_quotes {
                found = Some((at, at + 1));
                break;
            } else if byte == b'\r' && !self.in_quotes {
                match bytes.get(at + 1) {
                    Some(b'\n') => found = Some((at, at + 2)),
                    Some(_) => found = Some((at, at + 1)),
                    None if self.ended => found = Some((at, at + 1)),
                    None => {}
                }
                break;
            } else if escapes && bytes.get(at + 1).is_some_and(|next| *next != b'\r') {
                // An escaped newline belongs to the value.
                at += 1;
            }
            at += 1;
        }
        let Some((end, next)) = found else {
            if self.ended && !self.buffer.is_empty() {
                self.line += 1;
                self.scanned = 0;
                if self.in_quotes {
                    return Err(self.bad("unterminated CSV quoted field"));
                }
                return Ok(Some(self.buffer.split()));
            }
            self.scanned = at.min(self.buffer.len());
            if self.buffer.len() > MAX_LINE {
                return Err(self.bad("line is too long"));
            }
            return Ok(None);
        };
        self.line += 1;
        self.scanned = 0;
        let mut line = self.buffer.split_to(next);
        line.truncate(end);
        Ok(Some(line))
    }

    fn bad(&self, message: impl Into<String>) -> SqlError {
        SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, message)
            .with_context(format!("COPY {}, line {}", self.table.name, self.line))
    }

    fn located(&self, error: SqlError, field: Option<(&str, &str)>) -> SqlError {
        let place = format!("COPY {}, line {}", self.table.name, self.line);
        error.with_context(match field {
            Some((column, value)) => {
                let shown: String = value.chars().take(100).collect();
                format!("{place}, column {column}: \"{shown}\"")
            }
            None => place,
        })
    }

    fn parse_line(&mut self, line: &BytesMut, cx: &EvalContext<'_>) -> Result<(), SqlError> {
        let text = check_utf8(line).map_err(|error| self.located(error.into(), None))?;
        self.row.clear();
        self.row.resize(self.table.columns.len(), Datum::Null);
        for at in 0..self.defaults.len() {
            let (column, expr) = &self.defaults[at];
            let value = expr.eval(&[], cx)?;
            if let Some(slot) = self.row.get_mut(*column) {
                *slot = value;
            }
        }
        if self.format.csv {
            self.parse_csv(text, cx)
        } else {
            self.parse_plain(text, cx)
        }
    }

    fn put(&mut self, field: usize, value: Option<&str>, cx: &EvalContext<'_>) -> Result<(), SqlError> {
        let Some(&at) = self.columns.get(field) else {
            return Err(self.bad("extra data after last expected column"));
        };
        let Some(value) = value else { return Ok(()) };
        let ty = self.table.columns[at].column_type;
        let parsed = if ty.id.is_reg() {
            cx.functions.reg_in(ty.id, value).map(Datum::Oid)
        } else {
            parse_text(ty, value, cx.style).map_err(SqlError::from)
        };
        match parsed {
            Ok(parsed) => {
                self.row[at] = parsed;
                Ok(())
            }
            Err(error) => Err(self.located(error, Some((&self.table.columns[at].name, value)))),
        }
    }

    fn missing(&self, fields: usize) -> SqlError {
        let column = self
            .columns
            .get(fields)
            .map_or("", |at| &*self.table.columns[*at].name);
        self.bad(format!("missing data for column \"{column}\""))
    }

    fn parse_plain(&mut self, text: &str, cx: &EvalContext<'_>) -> Result<(), SqlError> {
        if self.columns.is_empty() && text.is_empty() {
            return Ok(());
        }
        let delimiter = self.format.delimiter;
        let mut field = 0;
        let mut rest = text;
        loop {
            let bytes = rest.as_bytes();
            let mut end = 0;
            let mut escaped = false;
            while let Some(&byte) = bytes.get(end) {
                if byte == delimiter {
                    break;
                }
                if byte == b'\\' {
                    escaped = true;
                    end += 1;
                }
                end += 1;
            }
            let end = end.min(rest.len());
            let raw = rest.get(..end).unwrap_or_default();
            if raw == self.format.null {
                self.put(field, None, cx)?;
            } else if escaped {
                let value = unescape(raw).ok_or_else(|| {
                    SqlError::new(
                        SqlState::CHARACTER_NOT_IN_REPERTOIRE,
                        "invalid byte sequence for encoding \"UTF8\"",
                    )
                })?;
                self.put(field, Some(&value), cx)?;
            } else {
                self.put(field, Some(raw), cx)?;
            }
            field += 1;
            match rest.get(end + 1..) {
                Some(next) => rest = next,
                None => break,
            }
        }
        if field < self.columns.len() {
            Err(self.missing(field))
        } else {
            Ok(())
        }
    }

    fn parse_csv(&mut self, text: &str, cx: &EvalContext<'_>) -> Result<(), SqlError> {
        let (delimiter, quote, escape) = (self.format.delimiter, self.format.quote, self.format.escape);
        let mut bytes = text.as_bytes();
        let mut field = 0;
        loop {
            let mut value = Vec::new();
            let mut quoted = false;
            let mut inside = false;
            let mut more = false;
            while let Some(&byte) = bytes.first() {
                bytes.advance(1);
                if inside {
                    let next = bytes.first().copied();
                    if byte == escape && next.is_some_and(|next| next == quote || next == escape) {
                        value.extend(next);
                        bytes.advance(1);
                    } else if byte == quote {
                        inside = false;
                    } else {
                        value.push(byte);
                    }
                } else if byte == quote {
                    inside = true;
                    quoted = true;
                } else if byte == delimiter {
                    more = true;
                    break;
                } else {
                    value.push(byte);
                }
            }
            let value = String::from_utf8(value).map_err(|_| self.bad("invalid byte sequence"))?;
            let name = self
                .columns
                .get(field)
                .map(|at| self.table.columns[*at].name.to_string())
                .unwrap_or_default();
            let forced_null = self.format.force_null.contains(&name);
            let forced_not = self.format.force_not_null.contains(&name);
            let null = value == self.format.null && (!quoted || forced_null) && !forced_not;
            self.put(field, (!null).then_some(value.as_str()), cx)?;
            field += 1;
            if !more {
                break;
            }
        }
        if field < self.columns.len() {
            Err(self.missing(field))
        } else {
            Ok(())
        }
    }
}

/// Undoes the backslashes of the text format; `None`: the result is no UTF-8.
fn unescape(raw: &str) -> Option<String> {
    let bytes = raw.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let Some(&escaped) = bytes.get(at) else {
            out.push(b'\\');
            break;
        };
        at += 1;
        out.push(match escaped {
            b'b' => 8,
            b'f' => 12,
            b'n' => 10,
            b'r' => 13,
            b't' => 9,
            b'v' => 11,
            b'0'..=b'7' => {
                let mut value = u32::from(escaped - b'0');
                for _ in 0..2 {
                    match bytes.get(at) {
                        Some(digit @ b'0'..=b'7') => {
                            value = value * 8 + u32::from(digit - b'0');
                            at += 1;
                        }
                        _ => break,
                    }
                }
                (value & 0xFF) as u8
            }
            b'x' => {
                let mut value = 0u32;
                let mut digits = 0;
                while digits < 2 {
                    let Some(digit) = bytes.get(at).and_then(|byte| (*byte as char).to_digit(16)) else {
                        break;
                    };
                    value = value * 16 + digit;
                    digits += 1;
                    at += 1;
                }
                if digits == 0 { b'x' } else { value as u8 }
            }
            other => other,
        });
    }
    String::from_utf8(out).ok().filter(|text| !text.contains('\0'))
}
