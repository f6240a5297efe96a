//! The stack of a session's calls: that of the thread, or a deep one once a statement needs it (see [`crate::stack`]).

use super::Session;
use super::prepared::TextCache;
use crate::error::SqlError;
use crate::stack;

impl Session {
    /// Runs a call on a stack that is large enough for every tree that the session holds.
    #[inline]
    pub(super) fn on_stack<T>(&mut self, call: impl FnOnce(&mut Session) -> T) -> T {
        if self.deep {
            stack::on_deep_stack(|| call(self))
        } else {
            call(self)
        }
    }

    /// Runs what makes a tree; once more, on a deep stack, if this one is too small for it. `make` may be run twice: it changes
    /// nothing before it has its tree.
    #[inline]
    pub(super) fn make_tree<T>(
        &mut self,
        mut make: impl FnMut(&mut Session) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let result = self.on_stack(&mut make);
        match result {
            Err(error) if !self.deep && stack::wants_deep_stack(&error) => {
                self.deep = true;
                self.on_stack(make)
            }
            result => result,
        }
    }

    /// A new statement comes and takes the place of all there were: the stack may be an ordinary one again.
    #[inline]
    pub(super) fn leave_deep_stack(&mut self) {
        if self.deep && self.running.is_none() && self.statements.is_empty() && self.portals.is_empty() {
            self.drop_trees();
            self.deep = false;
        }
    }

    #[cold]
    fn drop_trees(&mut self) {
        self.on_stack(|session| {
            session.running = None;
            session.portals.clear();
            session.statements.clear();
            session.unnamed = None;
            session.texts = TextCache::default();
            session.simple_texts = TextCache::default();
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.deep {
            self.drop_trees();
        }
    }
}
