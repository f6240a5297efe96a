//! INSERT, UPDATE, DELETE, COPY.

use towline_base::SqlState;

use super::Parser;
use super::ast::{
    Assignment, CommonTable, Copy, CopyOptions, CopySource, Delete, Expr, FromItem, Insert, Name, Statement,
    Update,
};
use super::keywords;
use super::lex::Tok;
use crate::error::SqlError;
use crate::parse::Pos;

impl Parser<'_> {
    pub(super) fn insert(&mut self, with: Vec<CommonTable>) -> Result<Statement, SqlError> {
        self.advance();
        self.expect_word("into")?;
        let table = self.qualified_name()?;
        let alias = if self.accept_word("as") {
            Some(self.col_id()?)
        } else {
            None
        };
        let columns = if self.is_sym('(') && !self.paren_holds_query() {
            self.advance();
            let columns = self.comma_list(|parser| {
                let name = parser.col_id()?;
                if parser.is_sym('.') || parser.is_sym('[') {
                    return parser.unsupported("a part of a column as the target of INSERT");
                }
                Ok(name)
            })?;
            self.expect_sym(')')?;
            columns
        } else {
            Vec::new()
        };
        if self.is_word("overriding") {
            return self.unsupported("OVERRIDING");
        }
        let source = if self.is_word("default") {
            self.advance();
            self.expect_word("values")?;
            None
        } else {
            Some(Box::new(self.query()?))
        };
        if self.is_word("on") {
            return self.unsupported("ON CONFLICT");
        }
        let returning = self.returning()?;
        Ok(Statement::Insert(Box::new(Insert {
            with,
            table,
            alias,
            columns,
            source,
            returning,
        })))
    }

    fn assignments(&mut self) -> Result<Vec<Assignment>, SqlError> {
        let lists = self.comma_list(|parser| {
            if parser.is_sym('(') {
                return parser.row_assignment();
            }
            let column = parser.col_id()?;
            if parser.is_sym('.') || parser.is_sym('[') {
                return parser.unsupported("a part of a column as the target of SET");
            }
            if !parser.accept_op("=") {
                return Err(parser.unexpected());
            }
            Ok(vec![Assignment {
                column,
                value: parser.expr_or_default()?,
            }])
        })?;
        Ok(lists.into_iter().flatten().collect())
    }

    /// `(a, b) = (1, 2)`
    fn row_assignment(&mut self) -> Result<Vec<Assignment>, SqlError> {
        let columns = self.name_list_in_parens()?;
        if !self.accept_op("=") {
            return Err(self.unexpected());
        }
        self.accept_word("row");
        let pos = self.pos();
        if self.is_sym('(') && self.paren_holds_query() {
            return self.unsupported("a row subquery in SET");
        }
        self.expect_sym('(')?;
        let values = self.comma_list(Self::expr_or_default)?;
        self.expect_sym(')')?;
        if values.len() != columns.len() {
            return Err(self.error_at(
                pos,
                SqlState::SYNTAX_ERROR,
                "number of columns does not match number of values",
            ));
        }
        Ok(columns
            .into_iter()
            .zip(values)
            .map(|(column, value)| Assignment { column, value })
            .collect())
    }

    /// `[ONLY] name [*] [[AS] alias]`
    fn target_table(&mut self) -> Result<(Vec<Name>, Option<Name>), SqlError> {
        self.accept_word("only");
        let table = self.qualified_name()?;
        self.accept_op("*");
        let alias = if self.accept_word("as") {
            Some(self.col_id()?)
        } else if self.is_word("set") {
            None
        } else {
            self.name_if(keywords::can_name_column)
        };
        Ok((table, alias))
    }

    fn table_list(&mut self, word: &str) -> Result<Vec<FromItem>, SqlError> {
        if self.accept_word(word) {
            self.comma_list(Self::table_item)
        } else {
            Ok(Vec::new())
        }
    }

    fn where_clause(&mut self) -> Result<Option<Expr>, SqlError> {
        if !self.accept_word("where") {
            return Ok(None);
        }
        if self.is_word("current") && self.is_word_at(1, "of") {
            return self.unsupported("WHERE CURRENT OF");
        }
        self.expr().map(Some)
    }

    pub(super) fn update(&mut self, with: Vec<CommonTable>) -> Result<Statement, SqlError> {
        self.advance();
        let (table, alias) = self.target_table()?;
        self.expect_word("set")?;
        let set = self.assignments()?;
        let from = self.table_list("from")?;
        let filter = self.where_clause()?;
        let returning = self.returning()?;
        Ok(Statement::Update(Box::new(Update {
            with,
            table,
            alias,
            set,
            from,
            filter,
            returning,
        })))
    }

    pub(super) fn delete(&mut self, with: Vec<CommonTable>) -> Result<Statement, SqlError> {
        self.advance();
        self.expect_word("from")?;
        let (table, alias) = self.target_table()?;
        let using = self.table_list("using")?;
        let filter = self.where_clause()?;
        let returning = self.returning()?;
        Ok(Statement::Delete(Box::new(Delete {
            with,
            table,
            alias,
            using,
            filter,
            returning,
        })))
    }

    pub(super) fn copy(&mut self) -> Result<Statement, SqlError> {
        self.advance();
        let mut options = CopyOptions::default();
        if self.accept_word("binary") {
            options.format = Some(("binary".into(), self.pos()));
        }
        let source = if self.is_sym('(') {
            self.advance();
            if !self.is_any_word(&["select", "values", "with", "table"]) && !self.is_sym('(') {
                return self.unsupported("COPY of a data-modifying statement");
            }
            let query = self.query()?;
            self.expect_sym(')')?;
            CopySource::Query(Box::new(query))
        } else {
            let name = self.qualified_name()?;
            let columns = if self.is_sym('(') {
                self.name_list_in_parens()?
            } else {
                Vec::new()
            };
            CopySource::Table(name, columns)
        };
        let from = if self.accept_word("from") {
            true
        } else {
            self.expect_word("to")?;
            false
        };
        if from && matches!(source, CopySource::Query(_)) {
            return Err(self.unexpected());
        }
        if matches!(self.tok(), Tok::Str(_)) || self.is_word("program") {
            return self.unsupported("COPY with a server-side file or program");
        }
        // As in PostgreSQL the two words are interchangeable.
        if !self.accept_word("stdin") {
            self.expect_word("stdout")?;
        }
        self.copy_options(&mut options)?;
        let filter = if from && self.accept_word("where") {
            Some(self.expr()?)
        } else {
            None
        };
        Ok(Statement::Copy(Box::new(Copy {
            source,
            from,
            options,
            filter,
        })))
    }

    fn copy_options(&mut self, options: &mut CopyOptions) -> Result<(), SqlError> {
        if self.is_word("with") && self.is_sym_at(1, '(') {
            self.advance();
        }
        let mut given = Vec::new();
        if self.accept_sym('(') {
            self.comma_list(|parser| parser.copy_option(options, &mut given))?;
            return self.expect_sym(')');
        }
        // The old, bare form.
        self.accept_word("with");
        loop {
            let pos = self.pos();
            let mut once = |parser: &Self, name: &str| parser.only_once(&mut given, name, pos);
            if self.accept_word("csv") {
                once(self, "format")?;
                options.format = Some(("csv".into(), pos));
            } else if self.accept_word("binary") {
                once(self, "format")?;
                options.format = Some(("binary".into(), pos));
            } else if self.accept_word("freeze") {
                once(self, "freeze")?;
                options.freeze = true;
            } else if self.accept_word("header") {
                once(self, "header")?;
                options.header = true;
            } else if self.accept_word("delimiter") || self.accept_word("delimiters") {
                once(self, "delimiter")?;
                self.accept_word("as");
                options.delimiter = Some(self.string()?);
            } else if self.accept_word("null") {
                once(self, "null")?;
                self.accept_word("as");
                options.null = Some(self.string()?);
            } else if self.accept_word("quote") {
                once(self, "quote")?;
                self.accept_word("as");
                options.quote = Some(self.string()?);
            } else if self.accept_word("escape") {
                once(self, "escape")?;
                self.accept_word("as");
                options.escape = Some(self.string()?);
            } else if self.accept_word("encoding") {
                once(self, "encoding")?;
                options.encoding = Some(self.string()?);
            } else if self.accept_words(&["force", "quote"]) {
                once(self, "force_quote")?;
                if self.accept_op("*") {
                    options.force_quote_all = true;
                } else {
                    options.force_quote = self.comma_list(Self::col_id)?;
                }
            } else if self.accept_words(&["force", "not", "null"]) {
                once(self, "force_not_null")?;
                options.force_not_null = self.comma_list(Self::col_id)?;
            } else if self.accept_words(&["force", "null"]) {
                once(self, "force_null")?;
                options.force_null = self.comma_list(Self::col_id)?;
            } else {
                return Ok(());
            }
        }
    }

    /// 42601 when the option `name` was given before.
    fn only_once(&self, given: &mut Vec<String>, name: &str, pos: Pos) -> Result<(), SqlError> {
        if given.iter().any(|before| before == name) {
            return Err(self.error_at(pos, SqlState::SYNTAX_ERROR, "conflicting or redundant options"));
        }
        given.push(name.to_owned());
        Ok(())
    }

    fn copy_option(&mut self, options: &mut CopyOptions, given: &mut Vec<String>) -> Result<(), SqlError> {
        let name = self.col_label()?;
        self.only_once(given, &name.text, name.pos)?;
        match name.text.as_str() {
            "format" => options.format = Some((self.option_text()?, name.pos)),
            "freeze" => options.freeze = self.option_bool()?,
            "header" if self.is_word("match") => return self.unsupported("HEADER MATCH"),
            "header" => options.header = self.option_bool()?,
            "delimiter" => options.delimiter = Some(self.option_text()?),
            "null" => options.null = Some(self.option_text()?),
            "quote" => options.quote = Some(self.option_text()?),
            "escape" => options.escape = Some(self.option_text()?),
            "encoding" => options.encoding = Some(self.option_text()?),
            "force_quote" if self.accept_op("*") => options.force_quote_all = true,
            "force_quote" => options.force_quote = self.name_list_in_parens()?,
            "force_null" => options.force_null = self.name_list_in_parens()?,
            "force_not_null" => options.force_not_null = self.name_list_in_parens()?,
            other => {
                return Err(self.error_at(
                    name.pos,
                    SqlState::SYNTAX_ERROR,
                    format!("option \"{other}\" not recognized"),
                ));
            }
        }
        Ok(())
    }

    /// The value of an option: a word, string or number, as text.
    pub(super) fn option_text(&mut self) -> Result<String, SqlError> {
        let negative = self.accept_op("-");
        let text = match self.tok() {
            Tok::Word(text) | Tok::Quoted(text) | Tok::Str(text) if !negative => text.to_string(),
            Tok::Int(text) | Tok::Num(text) => format!("{}{text}", if negative { "-" } else { "" }),
            _ => return Err(self.unexpected()),
        };
        self.advance();
        Ok(text)
    }

    /// The value of a boolean option; absent = true.
    pub(super) fn option_bool(&mut self) -> Result<bool, SqlError> {
        if self.is_sym(',') || self.is_sym(')') {
            return Ok(true);
        }
        let pos = self.pos();
        let text = self.option_text()?.to_ascii_lowercase();
        match text.as_str() {
            "true" | "on" | "1" | "match" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            _ => Err(self.error_at(pos, SqlState::SYNTAX_ERROR, "the option requires a Boolean value")),
        }
    }
}
