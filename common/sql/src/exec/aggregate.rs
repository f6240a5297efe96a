//! Grouping by hash. Groups come out in the order in which they were met.

use hashbrown::HashMap;
use towline_types::Datum;

use super::{Flow, Row, Runtime, Source, pull};
use crate::error::SqlError;
use crate::expr::{AggregateCall, AggregateState, ScalarExpr};

/// GROUP BY and aggregates.
pub(super) struct Aggregate {
    input: Box<dyn Source>,
    keys: Vec<ScalarExpr>,
    calls: Vec<AggregateCall>,
    groups: HashMap<Row, usize>,
    states: Vec<(Row, Vec<AggregateState>)>,
    loaded: bool,
    at: usize,
    row: Row,
    key: Row,
    /// What groups and states take of the statement's memory.
    bytes: usize,
}

impl Aggregate {
    pub(super) fn new(input: Box<dyn Source>, keys: Vec<ScalarExpr>, calls: Vec<AggregateCall>) -> Self {
        Aggregate {
            input,
            keys,
            calls,
            groups: HashMap::new(),
            states: Vec::new(),
            loaded: false,
            at: 0,
            row: Vec::new(),
            key: Vec::new(),
            bytes: 0,
        }
    }

    fn fresh(&self) -> Vec<AggregateState> {
        self.calls.iter().map(AggregateCall::new_state).collect()
    }

    /// The group of the current key.
    fn group(&mut self, rt: &Runtime<'_>) -> Result<usize, SqlError> {
        if let Some(group) = self.groups.get(&self.key) {
            return Ok(*group);
        }
        self.bytes += rt.keep(&self.key)?;
        let bytes = 64 * self.calls.len() + 64;
        rt.keep_bytes(bytes)?;
        self.bytes += bytes;
        let states = self.fresh();
        self.states.push((self.key.clone(), states));
        let group = self.states.len() - 1;
        self.groups.insert(self.key.clone(), group);
        Ok(group)
    }
}

impl Source for Aggregate {
    fn next(&mut self, rt: &Runtime<'_>, outer: &[Datum], out: &mut Row) -> Result<Flow, SqlError> {
        if !self.loaded && self.keys.is_empty() && self.states.is_empty() {
            let states = self.fresh();
            self.states.push((Row::new(), states));
        }
        while !self.loaded {
            if !pull!(self.input.next(rt, outer, &mut self.row)) {
                self.loaded = true;
                break;
            }
            let cx = rt.eval(outer);
            let group = if self.keys.is_empty() {
                0
            } else {
                self.key.clear();
                for key in &self.keys {
                    self.key.push(key.eval(&self.row, &cx)?);
                }
                self.group(rt)?
            };
            if let Some((_, states)) = self.states.get_mut(group) {
                for (call, state) in self.calls.iter().zip(states) {
                    call.accumulate(state, &self.row, &cx)?;
                    let bytes = state.take_kept();
                    if bytes > 0 {
                        rt.keep_bytes(bytes)?;
                        self.bytes += bytes;
                    }
                }
            }
            if rt.tick()? {
                return Ok(Flow::Yield);
            }
        }
        let Some((key, states)) = self.states.get_mut(self.at) else {
            return Ok(Flow::End);
        };
        self.at += 1;
        out.clear();
        out.append(key);
        for (call, state) in self.calls.iter().zip(std::mem::take(states)) {
            out.push(call.finish(state)?);
        }
        Ok(Flow::Row)
    }

    fn rescan(&mut self, rt: &Runtime<'_>, outer: &[Datum], param: &[Datum]) -> Result<(), SqlError> {
        rt.forget(std::mem::take(&mut self.bytes));
        self.groups.clear();
        self.states.clear();
        self.loaded = false;
        self.at = 0;
        self.input.rescan(rt, outer, param)
    }
}
