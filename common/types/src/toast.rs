//! Rows that are too long: PostgreSQL's `heap_toast_insert_or_update`. Values are compressed in place or moved out of line, the
//! largest first, until the row is short enough:
//!
//! 1. those of storage `extended` (text, bytea, arrays) are compressed; one that is still longer than the whole row may be
//!    moves out at once,
//! 2. the largest of them, compressed or not, move out,
//! 3. those of storage `main` (numeric) are compressed,
//! 4. and move out only where the row does not fit a page otherwise.
//!
//! A value that does not shrink stays as it is; one that is out of line already is left alone.

use std::ops::Range;
use std::sync::Arc;

use crate::datum::Datum;
use crate::error::Result;
use crate::row::{AttrDesc, RowDesc, pad, put_header, take_attr};
use crate::varlena::{self, PLAIN_HEADER, SHORT_MAX, Stored, ToastPointer};

/// Values that take no more than this are left alone: an out-of-line pointer, aligned, would take as much.
const SMALLEST: usize = 24;

/// How short a row's data area must be, and by which means.
#[derive(Clone, Copy, Debug)]
pub struct Shortening {
    /// Bytes that are aimed at.
    pub target: usize,
    /// Bytes that are aimed at before values of storage `main` move out.
    pub target_main: usize,
    /// A value whose stream would take as many bytes is not compressed.
    pub limit: usize,
    /// OID of the TOAST table that values may move to.
    pub toast: Option<u32>,
}

/// A value that moves out of line: its pointer stands in the row already, with value id 0.
#[derive(Clone, Debug)]
pub struct OutOfLine {
    /// The attribute, from 0.
    pub attr: usize,
    /// Where the pointer stands in the buffer that the row was shortened in.
    pub at: usize,
    /// The pointer.
    pub pointer: ToastPointer,
    data: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl OutOfLine {
    /// What its chunks hold together.
    pub fn bytes(&self) -> &[u8] {
        &self.data[self.range.clone()]
    }

    /// The value's payload.
    ///
    /// # Errors
    /// Never, for a value that was made here.
    pub fn payload(&self) -> Result<Vec<u8>> {
        self.pointer.unpack(self.bytes().to_vec())
    }
}

/// One attribute of the row being shortened. Ranges are of the row's data area as it was.
#[derive(Clone, Debug)]
enum Piece {
    Null,
    /// A value of fixed width, or a string without its NUL.
    Bytes(Range<usize>),
    /// The payload of a varlena that may be compressed still, and of one that may not.
    Payload(Range<usize>),
    Stubborn(Range<usize>),
    /// A compressed varlena with its header.
    Compressed(Arc<Vec<u8>>),
    /// Out of line since before.
    Pointer(ToastPointer),
    /// It moves out of line: what its chunks will hold.
    Moved(ToastPointer, Arc<Vec<u8>>, Range<usize>),
}

impl RowDesc {
    /// Lays the data area that begins at `start` of `out` out anew, with values compressed or moved out of line until it is as
    /// short as wanted, or nothing is left to gain. `values` tells what is NULL. Returns what moves.
    ///
    /// # Errors
    /// XX001 when the data area is not one that [`RowDesc::form`] made of these values.
    pub fn shorten(
        &self,
        start: usize,
        values: &[Datum],
        how: Shortening,
        out: &mut Vec<u8>,
    ) -> Result<Vec<OutOfLine>> {
        // The old buffer is kept as long as something moves: a large value is not copied.
        let head = out[..start].to_vec();
        let data = Arc::new(std::mem::replace(out, head));
        let mut pieces = self.take_apart(&data, start, values)?;
        while self.length(&pieces) > how.target {
            let Some(at) = self.largest(&pieces, b'x', true) else {
                break;
            };
            compress(&mut pieces[at], &data, how.limit);
            if self.piece_len(at, &pieces[at]) > how.target {
                self.move_out(&mut pieces[at], &data, how.toast);
            }
        }
        self.move_while_longer(&mut pieces, b'x', how.target, &data, how.toast);
        while self.length(&pieces) > how.target {
            let Some(at) = self.largest(&pieces, b'm', true) else {
                break;
            };
            compress(&mut pieces[at], &data, how.limit);
        }
        self.move_while_longer(&mut pieces, b'm', how.target_main, &data, how.toast);
        Ok(self.put_together(pieces, &data, start, out))
    }

    fn take_apart(&self, data: &Arc<Vec<u8>>, start: usize, values: &[Datum]) -> Result<Vec<Piece>> {
        let area = &data[start..];
        let range_of = |bytes: &[u8]| {
            let from = start + (bytes.as_ptr() as usize - area.as_ptr() as usize);
            from..from + bytes.len()
        };
        let mut pieces = Vec::with_capacity(values.len());
        let mut offset = 0;
        for (attr, value) in self.attrs().iter().zip(values) {
            if value.is_null() {
                pieces.push(Piece::Null);
                continue;
            }
            pieces.push(match take_attr(attr, area, &mut offset)? {
                Stored::Plain(payload) if attr.len == -1 => Piece::Payload(range_of(payload)),
                Stored::Plain(bytes) => Piece::Bytes(range_of(bytes)),
                Stored::Compressed { stream, .. } => {
                    let stream = range_of(stream);
                    Piece::Compressed(Arc::new(data[stream.start - 8..stream.end].to_vec()))
                }
                Stored::External(pointer) => Piece::Pointer(pointer),
            });
        }
        Ok(pieces)
    }

    fn move_while_longer(
        &self,
        pieces: &mut [Piece],
        storage: u8,
        target: usize,
        data: &Arc<Vec<u8>>,
        toast: Option<u32>,
    ) {
        while toast.is_some() && self.length(pieces) > target {
            let Some(at) = self.largest(pieces, storage, false) else {
                break;
            };
            self.move_out(&mut pieces[at], data, toast);
        }
    }

    fn move_out(&self, piece: &mut Piece, data: &Arc<Vec<u8>>, toast: Option<u32>) {
        let Some(relation) = toast else { return };
        let (raw_len, bytes, range) = match piece {
            Piece::Payload(range) | Piece::Stubborn(range) => (range.len(), Arc::clone(data), range.clone()),
            Piece::Compressed(bytes) => {
                // The chunks hold what follows the first word: length and method, the stream.
                let raw_len = bytes
                    .get(4..8)
                    .and_then(|word| word.try_into().ok())
                    .map_or(0, u32::from_le_bytes);
                (raw_len as usize, Arc::clone(bytes), 4..bytes.len())
            }
            Piece::Null | Piece::Bytes(_) | Piece::Pointer(_) | Piece::Moved(..) => return,
        };
        let pointer = ToastPointer {
            raw_size: (raw_len + PLAIN_HEADER) as u32,
            info: range.len() as u32,
            value: 0,
            relation,
        };
        *piece = Piece::Moved(pointer, bytes, range);
    }

    fn put_together(
        &self,
        pieces: Vec<Piece>,
        data: &[u8],
        start: usize,
        out: &mut Vec<u8>,
    ) -> Vec<OutOfLine> {
        let mut moved = Vec::new();
        for (number, (attr, piece)) in self.attrs().iter().zip(pieces).enumerate() {
            match piece {
                Piece::Null => {}
                Piece::Bytes(range) if attr.len > 0 => {
                    pad(out, start, attr.align);
                    out.extend_from_slice(&data[range]);
                }
                Piece::Bytes(range) => {
                    out.extend_from_slice(&data[range]);
                    out.push(0);
                }
                Piece::Payload(range) | Piece::Stubborn(range) => {
                    put_header(attr, range.len(), start, out);
                    out.extend_from_slice(&data[range]);
                }
                Piece::Compressed(bytes) => {
                    pad(out, start, attr.align);
                    out.extend_from_slice(&bytes);
                }
                Piece::Pointer(pointer) => out.extend_from_slice(&pointer.encode()),
                Piece::Moved(pointer, data, range) => {
                    moved.push(OutOfLine {
                        attr: number,
                        at: out.len(),
                        pointer,
                        data,
                        range,
                    });
                    out.extend_from_slice(&pointer.encode());
                }
            }
        }
        moved
    }

    /// Bytes of the data area of these pieces.
    fn length(&self, pieces: &[Piece]) -> usize {
        self.attrs()
            .iter()
            .zip(pieces)
            .fold(0, |offset, (attr, piece)| match piece {
                Piece::Null => offset,
                Piece::Bytes(bytes) if attr.len > 0 => attr.align.up(offset) + bytes.len(),
                Piece::Bytes(bytes) => offset + bytes.len() + 1,
                Piece::Payload(payload) | Piece::Stubborn(payload) => match stored_len(attr, payload.len()) {
                    short @ ..=SHORT_MAX if attr.packable => offset + short,
                    long => attr.align.up(offset) + long,
                },
                Piece::Compressed(bytes) => attr.align.up(offset) + bytes.len(),
                Piece::Pointer(_) | Piece::Moved(..) => offset + ToastPointer::SIZE,
            })
    }

    /// Bytes of one value with its header.
    fn piece_len(&self, at: usize, piece: &Piece) -> usize {
        match (piece, self.attrs().get(at)) {
            (Piece::Payload(payload) | Piece::Stubborn(payload), Some(attr)) => {
                stored_len(attr, payload.len())
            }
            (Piece::Compressed(bytes), _) => bytes.len(),
            _ => 0,
        }
    }

    /// The first of the largest values of this storage that may move, or that were not tried to be compressed.
    fn largest(&self, pieces: &[Piece], storage: u8, to_compress: bool) -> Option<usize> {
        let mut best = (None, SMALLEST);
        for (at, (attr, piece)) in self.attrs().iter().zip(pieces).enumerate() {
            let candidate = matches!(piece, Piece::Payload(_)) || !to_compress;
            if candidate && attr.storage == storage && self.piece_len(at, piece) > best.1 {
                best = (Some(at), self.piece_len(at, piece));
            }
        }
        best.0
    }
}

fn compress(piece: &mut Piece, data: &[u8], limit: usize) {
    if let Piece::Payload(range) = piece {
        *piece = match varlena::compressed(&data[range.clone()], limit) {
            Some(bytes) => Piece::Compressed(Arc::new(bytes)),
            None => Piece::Stubborn(range.clone()),
        };
    }
}

/// Bytes of a plain value with its header.
fn stored_len(attr: &AttrDesc, payload: usize) -> usize {
    let short = attr.packable && payload < SHORT_MAX;
    payload + if short { 1 } else { 4 }
}
