//! Everything that is neither data nor definition: transactions, settings, maintenance, prepared statements.

use towline_base::SqlState;

use super::Parser;
use super::ast::{ExplainOptions, IsolationLevel, SetValue, Statement, TransactionMode, VacuumOptions};
use super::lex::Tok;
use crate::error::SqlError;

impl Parser<'_> {
    pub(super) fn utility(&mut self) -> Result<Statement, SqlError> {
        let Tok::Word(word) = self.tok() else {
            return Err(self.unexpected());
        };
        let word = word.to_string();
        match word.as_str() {
            "begin" => {
                self.advance();
                self.transaction_word();
                Ok(Statement::Begin(self.transaction_modes(false)?, false))
            }
            "start" => {
                self.advance();
                self.expect_word("transaction")?;
                Ok(Statement::Begin(self.transaction_modes(false)?, true))
            }
            "commit" | "end" => {
                self.advance();
                if word == "commit" && self.is_word("prepared") {
                    return self.unsupported("COMMIT PREPARED");
                }
                self.transaction_word();
                Ok(Statement::Commit(self.chain()?))
            }
            "rollback" | "abort" => self.rollback(),
            "savepoint" | "release" => self.unsupported("SAVEPOINT"),
            "set" => self.set(),
            "show" => self.show(),
            "reset" => {
                self.advance();
                if self.accept_words(&["session", "authorization"]) {
                    return self.unsupported("RESET SESSION AUTHORIZATION");
                }
                Ok(Statement::Reset(self.setting_or_all()?))
            }
            "discard" => {
                self.advance();
                if !self.is_any_word(&["all", "plans", "sequences", "temp", "temporary"]) {
                    return Err(self.unexpected());
                }
                let what = self.col_label()?;
                Ok(Statement::Discard(what.text))
            }
            "explain" => self.explain(),
            "copy" => self.copy(),
            "vacuum" => self.vacuum(),
            "analyze" | "analyse" => self.analyze(),
            "checkpoint" => {
                self.advance();
                Ok(Statement::Checkpoint)
            }
            "prepare" => self.prepare(),
            "execute" => {
                self.advance();
                let name = self.col_id()?;
                let args = if self.accept_sym('(') {
                    let args = self.comma_list(Self::expr)?;
                    self.expect_sym(')')?;
                    args
                } else {
                    Vec::new()
                };
                Ok(Statement::Execute(name, args))
            }
            "deallocate" => {
                self.advance();
                self.accept_word("prepare");
                Ok(Statement::Deallocate(if self.accept_word("all") {
                    None
                } else {
                    Some(self.col_id()?)
                }))
            }
            "lock" => self.lock_table(),
            "wait" if self.is_word_at(1, "for") && self.is_word_at(2, "lsn") => {
                self.advance();
                self.advance();
                self.advance();
                let pos = self.pos();
                Ok(Statement::WaitForLsn(self.string()?, pos))
            }
            // No session has cursors of SQL or listens: what ends all of them has nothing to do.
            "close" if self.is_word_at(1, "all") => {
                self.advance();
                self.advance();
                Ok(Statement::Discard("cursors".into()))
            }
            "unlisten" => {
                self.advance();
                if self.is_op("*") {
                    self.advance();
                } else {
                    self.col_id()?;
                }
                Ok(Statement::Discard("channels".into()))
            }
            "declare" | "fetch" | "move" | "close" => self.unsupported("a cursor of SQL"),
            "listen" | "notify" | "comment" | "grant" | "revoke" | "cluster" | "reindex" | "load" | "do"
            | "call" | "security" | "refresh" | "reassign" | "import" | "merge" => {
                self.unsupported(&word.to_uppercase())
            }
            _ => Err(self.unexpected()),
        }
    }

    fn transaction_word(&mut self) {
        if !self.accept_word("transaction") {
            self.accept_word("work");
        }
    }

    fn chain(&mut self) -> Result<bool, SqlError> {
        if !self.accept_word("and") {
            return Ok(false);
        }
        let no = self.accept_word("no");
        self.expect_word("chain")?;
        Ok(!no)
    }

    fn rollback(&mut self) -> Result<Statement, SqlError> {
        self.advance();
        if self.is_word("prepared") {
            return self.unsupported("ROLLBACK PREPARED");
        }
        self.transaction_word();
        if self.is_word("to") {
            return self.unsupported("SAVEPOINT");
        }
        Ok(Statement::Rollback(self.chain()?))
    }

    fn transaction_modes(&mut self, required: bool) -> Result<Vec<TransactionMode>, SqlError> {
        let mut modes = Vec::new();
        loop {
            if self.accept_words(&["isolation", "level"]) {
                let level = if self.accept_words(&["read", "uncommitted"]) {
                    IsolationLevel::ReadUncommitted
                } else if self.accept_words(&["read", "committed"]) {
                    IsolationLevel::ReadCommitted
                } else if self.accept_words(&["repeatable", "read"]) {
                    IsolationLevel::RepeatableRead
                } else if self.accept_word("serializable") {
                    IsolationLevel::Serializable
                } else {
                    return Err(self.unexpected());
                };
                modes.push(TransactionMode::Isolation(level));
            } else if self.accept_words(&["read", "only"]) {
                modes.push(TransactionMode::ReadOnly(true));
            } else if self.accept_words(&["read", "write"]) {
                modes.push(TransactionMode::ReadOnly(false));
            } else if self.accept_word("deferrable") {
                modes.push(TransactionMode::Deferrable(true));
            } else if self.accept_words(&["not", "deferrable"]) {
                modes.push(TransactionMode::Deferrable(false));
            } else if modes.is_empty() && !required {
                return Ok(modes);
            } else {
                return Err(self.unexpected());
            }
            let comma = self.accept_sym(',');
            if !comma && !self.is_any_word(&["isolation", "read", "deferrable", "not"]) {
                return Ok(modes);
            }
        }
    }

    /// `name` or `extension.name`.
    pub(super) fn setting_name(&mut self) -> Result<String, SqlError> {
        let mut name = self.col_id()?.text;
        while self.accept_sym('.') {
            name = format!("{name}.{}", self.col_id()?.text);
        }
        Ok(name)
    }

    fn setting_or_all(&mut self) -> Result<String, SqlError> {
        if self.accept_word("all") {
            return Ok("all".to_owned());
        }
        if self.accept_words(&["time", "zone"]) {
            return Ok("timezone".to_owned());
        }
        if self.accept_words(&["transaction", "isolation", "level"]) {
            return Ok("transaction_isolation".to_owned());
        }
        self.setting_name()
    }

    fn show(&mut self) -> Result<Statement, SqlError> {
        self.advance();
        if self.accept_words(&["session", "authorization"]) {
            return Ok(Statement::Show("session_authorization".to_owned()));
        }
        Ok(Statement::Show(self.setting_or_all()?))
    }

    fn set(&mut self) -> Result<Statement, SqlError> {
        self.advance();
        let local = self.is_word("local") && !self.is_sym_at(1, '.');
        let session = self.is_word("session") && !self.is_sym_at(1, '.');
        if local || session {
            self.advance();
        }
        if session && self.accept_words(&["characteristics", "as", "transaction"]) {
            return Ok(Statement::SetTransaction(self.transaction_modes(true)?, true));
        }
        if self.is_word("transaction") && !self.is_word_at(1, "to") {
            self.advance();
            if self.is_word("snapshot") {
                return self.unsupported("SET TRANSACTION SNAPSHOT");
            }
            return Ok(Statement::SetTransaction(self.transaction_modes(true)?, false));
        }
        if self.is_word("constraints") {
            return self.unsupported("SET CONSTRAINTS");
        }
        if session && self.is_word("authorization")
            || self.is_word("session") && self.is_word_at(1, "authorization")
        {
            return self.unsupported("SET SESSION AUTHORIZATION");
        }
        if self.accept_words(&["time", "zone"]) {
            let value = match self.tok() {
                Tok::Word(word) if word == "local" || word == "default" => {
                    self.advance();
                    SetValue::Default
                }
                Tok::Word(word) if word == "interval" => return self.unsupported("SET TIME ZONE INTERVAL"),
                _ => SetValue::Values(vec![self.option_text()?]),
            };
            return Ok(Statement::Set("timezone".to_owned(), value, local));
        }
        if self.accept_word("names") {
            let value = if self.is_word("default") || self.at_end() || self.is_sym(';') {
                self.accept_word("default");
                SetValue::Default
            } else {
                SetValue::Values(vec![self.string()?])
            };
            return Ok(Statement::Set("client_encoding".to_owned(), value, local));
        }
        if self.is_word("role") && !self.is_word_at(1, "to") {
            return self.unsupported("SET ROLE");
        }
        if self.accept_word("schema") {
            let value = SetValue::Values(vec![self.string()?]);
            return Ok(Statement::Set("search_path".to_owned(), value, local));
        }
        let name = self.setting_name()?;
        let value = self.set_value()?;
        Ok(Statement::Set(name, value, local))
    }

    /// `TO value, …` or `= value, …`
    pub(super) fn set_value(&mut self) -> Result<SetValue, SqlError> {
        if !self.accept_word("to") && !self.accept_op("=") {
            return Err(self.unexpected());
        }
        if self.accept_word("default") {
            return Ok(SetValue::Default);
        }
        self.comma_list(|parser| {
            parser.accept_op("+");
            parser.option_text()
        })
        .map(SetValue::Values)
    }

    fn explain(&mut self) -> Result<Statement, SqlError> {
        self.advance();
        let mut options = ExplainOptions {
            analyze: false,
            verbose: false,
            costs: true,
            buffers: false,
            timing: true,
            summary: None,
        };
        if self.is_sym('(') && !self.paren_holds_query() {
            self.advance();
            self.comma_list(|parser| parser.explain_option(&mut options))?;
            self.expect_sym(')')?;
        } else {
            options.analyze = self.accept_word("analyze") || self.accept_word("analyse");
            options.verbose = self.accept_word("verbose");
        }
        if !self.is_sym('(')
            && !self.is_any_word(&[
                "select", "values", "table", "with", "insert", "update", "delete", "execute", "create",
            ])
        {
            return Err(self.unexpected());
        }
        if self.is_word("create") {
            return self.unsupported("EXPLAIN of CREATE TABLE AS");
        }
        let statement = self.statement()?;
        Ok(Statement::Explain(options, Box::new(statement)))
    }

    fn explain_option(&mut self, options: &mut ExplainOptions) -> Result<(), SqlError> {
        let name = self.col_label()?;
        match name.text.as_str() {
            "analyze" | "analyse" => options.analyze = self.option_bool()?,
            "verbose" => options.verbose = self.option_bool()?,
            "costs" => options.costs = self.option_bool()?,
            "buffers" => options.buffers = self.option_bool()?,
            "timing" => options.timing = self.option_bool()?,
            "summary" => options.summary = Some(self.option_bool()?),
            "settings" | "wal" => {
                self.option_bool()?;
            }
            "format" => {
                let format = self.option_text()?;
                if !format.eq_ignore_ascii_case("text") {
                    return self.unsupported("EXPLAIN in a format other than text");
                }
            }
            other => {
                return Err(self.error_at(
                    name.pos,
                    SqlState::SYNTAX_ERROR,
                    format!("unrecognized EXPLAIN option \"{other}\""),
                ));
            }
        }
        Ok(())
    }

    fn vacuum(&mut self) -> Result<Statement, SqlError> {
        self.advance();
        let mut options = VacuumOptions {
            vacuum: true,
            ..VacuumOptions::default()
        };
        if self.accept_sym('(') {
            self.comma_list(|parser| parser.vacuum_option(&mut options))?;
            self.expect_sym(')')?;
        } else {
            options.full = self.accept_word("full");
            options.freeze = self.accept_word("freeze");
            options.verbose = self.accept_word("verbose");
            options.analyze = self.accept_word("analyze") || self.accept_word("analyse");
        }
        if options.full {
            return self.unsupported("VACUUM FULL");
        }
        Ok(Statement::Vacuum(options, self.vacuum_tables()?))
    }

    fn vacuum_option(&mut self, options: &mut VacuumOptions) -> Result<(), SqlError> {
        let name = self.col_label()?;
        match name.text.as_str() {
            "full" => options.full = self.option_bool()?,
            "freeze" => options.freeze = self.option_bool()?,
            "verbose" => options.verbose = self.option_bool()?,
            "analyze" | "analyse" => options.analyze = self.option_bool()?,
            "disable_page_skipping" | "skip_locked" | "truncate" | "process_toast" => {
                self.option_bool()?;
            }
            "index_cleanup" | "parallel" => {
                self.option_text()?;
            }
            other => {
                let verb = if options.vacuum { "VACUUM" } else { "ANALYZE" };
                return Err(self.error_at(
                    name.pos,
                    SqlState::SYNTAX_ERROR,
                    format!("unrecognized {verb} option \"{other}\""),
                ));
            }
        }
        Ok(())
    }

    fn analyze(&mut self) -> Result<Statement, SqlError> {
        self.advance();
        let mut options = VacuumOptions {
            analyze: true,
            ..VacuumOptions::default()
        };
        if self.accept_sym('(') {
            self.comma_list(|parser| parser.vacuum_option(&mut options))?;
            self.expect_sym(')')?;
        } else {
            options.verbose = self.accept_word("verbose");
        }
        Ok(Statement::Vacuum(options, self.vacuum_tables()?))
    }

    fn vacuum_tables(&mut self) -> Result<Vec<(super::ast::QualifiedName, Vec<super::ast::Name>)>, SqlError> {
        if self.at_end() || self.is_sym(';') {
            return Ok(Vec::new());
        }
        self.comma_list(|parser| {
            let name = parser.qualified_name()?;
            let columns = if parser.is_sym('(') {
                parser.name_list_in_parens()?
            } else {
                Vec::new()
            };
            Ok((name, columns))
        })
    }

    fn prepare(&mut self) -> Result<Statement, SqlError> {
        self.advance();
        if self.is_word("transaction") {
            return self.unsupported("PREPARE TRANSACTION");
        }
        let name = self.col_id()?;
        let types = if self.accept_sym('(') {
            let types = self.comma_list(Self::type_name)?;
            self.expect_sym(')')?;
            types
        } else {
            Vec::new()
        };
        self.expect_word("as")?;
        if !self.is_sym('(')
            && !self.is_any_word(&["select", "values", "table", "with", "insert", "update", "delete"])
        {
            return Err(self.unexpected());
        }
        let statement = self.statement()?;
        Ok(Statement::Prepare(name, types, Box::new(statement)))
    }

    fn lock_table(&mut self) -> Result<Statement, SqlError> {
        self.advance();
        self.accept_word("table");
        let names = self.comma_list(|parser| {
            parser.accept_word("only");
            let name = parser.qualified_name()?;
            parser.accept_op("*");
            Ok(name)
        })?;
        let mut mode = 8;
        if self.accept_word("in") {
            const MODES: &[(&[&str], u8)] = &[
                (&["access", "share"], 1),
                (&["row", "share"], 2),
                (&["row", "exclusive"], 3),
                (&["share", "update", "exclusive"], 4),
                (&["share", "row", "exclusive"], 6),
                (&["share"], 5),
                (&["exclusive"], 7),
                (&["access", "exclusive"], 8),
            ];
            let found = MODES.iter().find(|(words, _)| self.accept_words(words));
            let Some((_, number)) = found else {
                return Err(self.unexpected());
            };
            mode = *number;
            self.expect_word("mode")?;
        }
        let nowait = self.accept_word("nowait");
        Ok(Statement::Lock(names, mode, nowait))
    }
}
