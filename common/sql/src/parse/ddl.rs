//! CREATE, DROP, ALTER, TRUNCATE.

use towline_base::SqlState;

use super::Parser;
use super::ast::{
    AlterAction, ColumnDef, CreateIndex, CreateTable, KeyConstraint, Name, QualifiedName, RoleOptions,
    SetValue, Statement,
};
use super::lex::Tok;
use crate::error::SqlError;

impl Parser<'_> {
    pub(super) fn create(&mut self) -> Result<Statement, SqlError> {
        self.advance();
        if self.is_any_word(&["temp", "temporary", "local", "global"]) {
            return self.unsupported("CREATE TEMPORARY");
        }
        let unlogged = self.accept_word("unlogged");
        if self.accept_word("table") {
            return self.create_table(unlogged);
        }
        if self.is_word("unique") || self.is_word("index") {
            let unique = self.accept_word("unique");
            self.expect_word("index")?;
            return self.create_index(unique);
        }
        if self.is_word("role") || self.is_word("user") && !self.is_word_at(1, "mapping") {
            let user = self.is_word("user");
            self.advance();
            let name = self.role_name()?;
            let options = self.role_options()?;
            return Ok(Statement::CreateRole(name, user, options));
        }
        self.unsupported_object("CREATE")
    }

    /// Refuses by name what PostgreSQL has and we have not; anything else is a syntax error.
    fn unsupported_object<T>(&mut self, verb: &str) -> Result<T, SqlError> {
        let verb = if self.accept_words(&["or", "replace"]) {
            "CREATE OR REPLACE"
        } else {
            verb
        };
        const KINDS: &[&str] = &[
            "access",
            "aggregate",
            "cast",
            "collation",
            "conversion",
            "database",
            "default",
            "domain",
            "event",
            "extension",
            "foreign",
            "function",
            "group",
            "language",
            "large",
            "materialized",
            "operator",
            "policy",
            "procedural",
            "procedure",
            "publication",
            "recursive",
            "routine",
            "rule",
            "schema",
            "sequence",
            "server",
            "statistics",
            "subscription",
            "table",
            "tablespace",
            "text",
            "transform",
            "trigger",
            "trusted",
            "type",
            "user",
            "view",
            "index",
            "role",
            "owned",
            "system",
        ];
        match self.tok() {
            Tok::Word(word) if KINDS.contains(&word.as_ref()) => {
                let mut feature = format!("{verb} {}", word.to_uppercase());
                if matches!(
                    word.as_ref(),
                    "materialized" | "event" | "foreign" | "access" | "text" | "owned"
                ) && let Tok::Word(next) = self.tok_at(1)
                {
                    feature = format!("{feature} {}", next.to_uppercase());
                }
                self.unsupported(&feature)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn if_not_exists(&mut self) -> bool {
        self.accept_words(&["if", "not", "exists"])
    }

    fn create_table(&mut self, unlogged: bool) -> Result<Statement, SqlError> {
        let if_not_exists = self.if_not_exists();
        let name = self.qualified_name()?;
        let mut table = CreateTable {
            name,
            if_not_exists,
            unlogged,
            columns: Vec::new(),
            keys: Vec::new(),
            options: Vec::new(),
            query: None,
        };
        if self.is_any_word(&["of", "partition"]) {
            return self.unsupported("CREATE TABLE … OF and PARTITION OF");
        }
        if self.is_word("as") || self.is_word("with") {
            return self.create_table_as(table);
        }
        self.expect_sym('(')?;
        if !self.is_sym(')') {
            self.comma_list(|parser| parser.table_element(&mut table))?;
        }
        self.expect_sym(')')?;
        if self.is_word("inherits") {
            return self.unsupported("INHERITS");
        }
        if self.is_word("partition") {
            return self.unsupported("PARTITION BY");
        }
        self.table_options(&mut table)?;
        if self.is_word("as") {
            return self.unsupported("CREATE TABLE AS with column names");
        }
        Ok(Statement::CreateTable(Box::new(table)))
    }

    fn create_table_as(&mut self, mut table: CreateTable) -> Result<Statement, SqlError> {
        self.table_options(&mut table)?;
        self.expect_word("as")?;
        table.query = Some(Box::new(self.query()?));
        if self.accept_words(&["with", "no", "data"]) {
            return self.unsupported("CREATE TABLE AS … WITH NO DATA");
        }
        self.accept_words(&["with", "data"]);
        Ok(Statement::CreateTable(Box::new(table)))
    }

    fn table_options(&mut self, table: &mut CreateTable) -> Result<(), SqlError> {
        if self.is_word("using") {
            self.advance();
            let pos = self.pos();
            let method = self.col_id()?;
            if method.text != "heap" {
                return Err(self.error_at(
                    pos,
                    SqlState::UNDEFINED_OBJECT,
                    format!("access method \"{}\" does not exist", method.text),
                ));
            }
        }
        if self.accept_word("with") {
            table.options = self.storage_options()?;
        } else {
            self.accept_words(&["without", "oids"]);
        }
        if self.is_word("on") && self.is_word_at(1, "commit") {
            return self.unsupported("ON COMMIT");
        }
        self.tablespace()
    }

    /// TABLESPACE: only the two that exist.
    fn tablespace(&mut self) -> Result<(), SqlError> {
        if self.accept_word("tablespace") {
            let pos = self.pos();
            let name = self.col_id()?;
            if name.text != "pg_default" {
                return Err(self.error_at(
                    pos,
                    SqlState::UNDEFINED_OBJECT,
                    format!("tablespace \"{}\" does not exist", name.text),
                ));
            }
        }
        Ok(())
    }

    fn storage_options(&mut self) -> Result<Vec<(String, String)>, SqlError> {
        self.expect_sym('(')?;
        let options = self.comma_list(|parser| {
            let mut name = parser.col_label()?.text;
            while parser.accept_sym('.') {
                name = format!("{name}.{}", parser.col_label()?.text);
            }
            let value = if parser.accept_op("=") {
                parser.option_text()?
            } else {
                "true".to_owned()
            };
            Ok((name, value))
        })?;
        self.expect_sym(')')?;
        Ok(options)
    }

    fn table_element(&mut self, table: &mut CreateTable) -> Result<(), SqlError> {
        if self.is_word("like") {
            return self.unsupported("CREATE TABLE … LIKE");
        }
        if self.is_any_word(&["constraint", "primary", "unique", "check", "foreign", "exclude"]) {
            let key = self.table_constraint()?;
            table.keys.push(key);
            return Ok(());
        }
        let name = self.col_id()?;
        let ty = self.type_name()?;
        let mut column = ColumnDef {
            name,
            ty,
            not_null: false,
            default: None,
        };
        let name = table
            .name
            .last()
            .map(|name| name.text.clone())
            .unwrap_or_default();
        self.column_constraints(&mut column, &mut table.keys, &name)?;
        table.columns.push(column);
        Ok(())
    }

    fn column_constraints(
        &mut self,
        column: &mut ColumnDef,
        keys: &mut Vec<KeyConstraint>,
        table: &str,
    ) -> Result<(), SqlError> {
        let mut null_said = false;
        loop {
            let constraint = if self.accept_word("constraint") {
                Some(self.col_id()?)
            } else {
                None
            };
            let pos = self.pos();
            if self.accept_words(&["not", "null"]) {
                if null_said {
                    return Err(self.null_conflict(column, table, pos));
                }
                column.not_null = true;
            } else if self.accept_word("null") {
                if column.not_null {
                    return Err(self.null_conflict(column, table, pos));
                }
                null_said = true;
            } else if self.accept_word("default") {
                let start = self.pos();
                let expr = self.expr_tight()?;
                let text = self.text_between(start, self.previous_end());
                if column.default.is_some() {
                    return Err(self.error_at(
                        pos,
                        SqlState::SYNTAX_ERROR,
                        format!(
                            "multiple default values specified for column \"{}\"",
                            column.name.text
                        ),
                    ));
                }
                column.default = Some((expr, text));
            } else if self.is_word("primary") || self.is_word("unique") {
                let primary = self.is_word("primary");
                self.advance();
                if primary {
                    self.expect_word("key")?;
                }
                self.key_options()?;
                keys.push(KeyConstraint {
                    name: constraint,
                    primary,
                    columns: vec![column.name.clone()],
                    pos,
                });
            } else if self.is_word("check") {
                return self.unsupported("CHECK constraints");
            } else if self.is_word("references") {
                return self.unsupported("foreign keys");
            } else if self.is_word("generated") {
                return self.unsupported("generated columns");
            } else if self.accept_word("collate") {
                self.collation()?;
            } else if self.is_any_word(&["storage", "compression"]) {
                return self.unsupported("STORAGE and COMPRESSION of a column");
            } else if constraint.is_some() {
                return Err(self.unexpected());
            } else {
                return Ok(());
            }
        }
    }

    fn null_conflict(&self, column: &ColumnDef, table: &str, pos: u32) -> SqlError {
        let column = &column.name.text;
        let message =
            format!("conflicting NULL/NOT NULL declarations for column \"{column}\" of table \"{table}\"");
        self.error_at(pos, SqlState::SYNTAX_ERROR, message)
    }

    /// Ours is C; the names that mean it, or the default, are accepted.
    fn collation(&mut self) -> Result<(), SqlError> {
        let pos = self.pos();
        let mut name = self.col_label()?;
        while self.accept_sym('.') {
            name = self.col_label()?;
        }
        if matches!(name.text.as_str(), "C" | "POSIX" | "default" | "ucs_basic") {
            return Ok(());
        }
        Err(self.error_at(
            pos,
            SqlState::UNDEFINED_OBJECT,
            format!("collation \"{}\" for encoding \"UTF8\" does not exist", name.text),
        ))
    }

    fn table_constraint(&mut self) -> Result<KeyConstraint, SqlError> {
        let name = if self.accept_word("constraint") {
            Some(self.col_id()?)
        } else {
            None
        };
        let pos = self.pos();
        let primary = if self.accept_words(&["primary", "key"]) {
            true
        } else if self.accept_word("unique") {
            false
        } else if self.is_word("check") {
            return self.unsupported("CHECK constraints");
        } else if self.is_word("foreign") {
            return self.unsupported("foreign keys");
        } else if self.is_word("exclude") {
            return self.unsupported("EXCLUDE constraints");
        } else {
            return Err(self.unexpected());
        };
        if self.is_word("using") {
            return self.unsupported("ADD CONSTRAINT … USING INDEX");
        }
        if self.is_word("nulls") {
            return Err(self.unexpected());
        }
        let columns = self.name_list_in_parens()?;
        self.key_options()?;
        Ok(KeyConstraint {
            name,
            primary,
            columns,
            pos,
        })
    }

    fn key_options(&mut self) -> Result<(), SqlError> {
        if self.is_word("include") {
            return self.unsupported("INCLUDE");
        }
        if self.accept_word("with") {
            self.storage_options()?;
        }
        if self.accept_words(&["using", "index"]) {
            self.tablespace()?;
        }
        if self.is_word("deferrable") {
            return self.unsupported("DEFERRABLE constraints");
        }
        if self.is_word("not") && self.is_word_at(1, "deferrable") {
            self.advance();
            self.advance();
        }
        Ok(())
    }

    fn create_index(&mut self, unique: bool) -> Result<Statement, SqlError> {
        if self.is_word("concurrently") {
            return self.unsupported("CREATE INDEX CONCURRENTLY");
        }
        let if_not_exists = self.if_not_exists();
        let name = if self.is_word("on") {
            None
        } else {
            Some(self.col_id()?)
        };
        self.expect_word("on")?;
        self.accept_word("only");
        let table = self.qualified_name()?;
        if self.accept_word("using") {
            let method = self.col_id()?;
            if method.text != "btree" {
                return Err(SqlError::unsupported(format!(
                    "access method \"{}\"",
                    method.text
                )));
            }
        }
        self.expect_sym('(')?;
        let columns = self.comma_list(Self::index_column)?;
        self.expect_sym(')')?;
        if self.is_word("include") {
            return self.unsupported("INCLUDE");
        }
        if self.is_word("nulls") {
            return Err(self.unexpected());
        }
        let options = if self.accept_word("with") {
            self.storage_options()?
        } else {
            Vec::new()
        };
        self.tablespace()?;
        if self.is_word("where") {
            return self.unsupported("a partial index");
        }
        Ok(Statement::CreateIndex(Box::new(CreateIndex {
            name,
            unique,
            if_not_exists,
            table,
            columns,
            options,
        })))
    }

    fn index_column(&mut self) -> Result<(Name, bool, bool), SqlError> {
        if self.is_sym('(') || self.is_sym_at(1, '(') {
            return self.unsupported("an index on an expression");
        }
        let column = self.col_id()?;
        if self.accept_word("collate") {
            self.collation()?;
        }
        if matches!(self.tok(), Tok::Word(word) if word.ends_with("_ops")) {
            self.advance();
        }
        let descending = if self.accept_word("desc") {
            true
        } else {
            self.accept_word("asc");
            false
        };
        let nulls_first = if self.accept_words(&["nulls", "first"]) {
            true
        } else if self.accept_words(&["nulls", "last"]) {
            false
        } else {
            descending
        };
        Ok((column, descending, nulls_first))
    }

    fn cascade(&mut self) -> bool {
        let cascade = self.accept_word("cascade");
        if !cascade {
            self.accept_word("restrict");
        }
        cascade
    }

    pub(super) fn drop_statement(&mut self) -> Result<Statement, SqlError> {
        self.advance();
        if self.is_any_word(&["table", "index"]) {
            let table = self.is_word("table");
            self.advance();
            if !table && self.is_word("concurrently") {
                return self.unsupported("DROP INDEX CONCURRENTLY");
            }
            let if_exists = self.accept_words(&["if", "exists"]);
            let names = self.comma_list(Self::qualified_name)?;
            let cascade = self.cascade();
            return Ok(if table {
                Statement::DropTable(names, if_exists, cascade)
            } else {
                Statement::DropIndex(names, if_exists, cascade)
            });
        }
        if self.is_any_word(&["role", "user", "group"]) && !self.is_word_at(1, "mapping") {
            self.advance();
            let if_exists = self.accept_words(&["if", "exists"]);
            let names = self.comma_list(Self::role_name)?;
            return Ok(Statement::DropRole(names, if_exists));
        }
        self.unsupported_object("DROP")
    }

    pub(super) fn truncate(&mut self) -> Result<Statement, SqlError> {
        self.advance();
        self.accept_word("table");
        let names = self.comma_list(|parser| {
            parser.accept_word("only");
            let name = parser.qualified_name()?;
            parser.accept_op("*");
            Ok(name)
        })?;
        // There are no sequences and no foreign keys: the options change nothing.
        if !self.accept_words(&["restart", "identity"]) {
            self.accept_words(&["continue", "identity"]);
        }
        self.cascade();
        Ok(Statement::Truncate(names))
    }

    pub(super) fn alter(&mut self) -> Result<Statement, SqlError> {
        self.advance();
        if self.accept_word("table") {
            return self.alter_table();
        }
        if self.accept_word("system") {
            return self.alter_system();
        }
        if self.is_any_word(&["role", "user"]) && !self.is_word_at(1, "mapping") {
            self.advance();
            let name = self.role_name()?;
            if self.is_any_word(&["set", "reset", "in"]) {
                return self.unsupported("ALTER ROLE … SET");
            }
            if self.is_word("rename") {
                return self.unsupported("ALTER ROLE … RENAME");
            }
            let options = self.role_options()?;
            return Ok(Statement::AlterRole(name, options));
        }
        self.unsupported_object("ALTER")
    }

    fn alter_table(&mut self) -> Result<Statement, SqlError> {
        let if_exists = self.accept_words(&["if", "exists"]);
        self.accept_word("only");
        let name: QualifiedName = self.qualified_name()?;
        self.accept_op("*");
        let actions = self.comma_list(|parser| {
            if parser.is_word("add")
                && ["constraint", "primary", "unique", "check", "foreign", "exclude"]
                    .iter()
                    .any(|word| parser.is_word_at(1, word))
            {
                parser.advance();
                return parser.table_constraint().map(AlterAction::AddKey);
            }
            if parser.is_word("set") && parser.is_sym_at(1, '(') {
                parser.advance();
                return parser.storage_options().map(AlterAction::SetOptions);
            }
            let mut feature = "ALTER TABLE".to_owned();
            for ahead in 0..2 {
                if let Tok::Word(word) = parser.tok_at(ahead)
                    && (ahead == 0
                        || matches!(
                            word.as_ref(),
                            "column" | "constraint" | "trigger" | "rule" | "to" | "schema"
                        ))
                {
                    feature = format!("{feature} {}", word.to_uppercase());
                }
            }
            const ACTIONS: &[&str] = &[
                "add", "drop", "alter", "rename", "owner", "enable", "disable", "cluster", "set", "reset",
                "inherit", "no", "of", "not", "replica", "attach", "detach", "validate", "force",
            ];
            if parser.is_any_word(ACTIONS) {
                parser.unsupported(&feature)
            } else {
                Err(parser.unexpected())
            }
        })?;
        Ok(Statement::AlterTable(name, if_exists, actions))
    }

    fn alter_system(&mut self) -> Result<Statement, SqlError> {
        if self.accept_word("reset") {
            let name = if self.accept_word("all") {
                "all".to_owned()
            } else {
                self.setting_name()?
            };
            return Ok(Statement::AlterSystem(name, None));
        }
        self.expect_word("set")?;
        let name = self.setting_name()?;
        match self.set_value()? {
            SetValue::Default => Ok(Statement::AlterSystem(name, None)),
            value => Ok(Statement::AlterSystem(name, Some(value))),
        }
    }

    pub(super) fn role_name(&mut self) -> Result<Name, SqlError> {
        let pos = self.pos();
        if self.is_any_word(&["current_user", "session_user", "current_role", "user"]) {
            let Tok::Word(word) = self.tok() else {
                return Err(self.unexpected());
            };
            let text = if word == "session_user" {
                "session_user"
            } else {
                "current_user"
            };
            self.advance();
            return Ok(Name {
                text: text.to_owned(),
                pos,
            });
        }
        let name = self.col_id()?;
        if matches!(name.text.as_str(), "public" | "none") {
            return Err(self.error_at(
                pos,
                SqlState::RESERVED_NAME,
                format!("role name \"{}\" is reserved", name.text),
            ));
        }
        Ok(name)
    }

    fn role_options(&mut self) -> Result<RoleOptions, SqlError> {
        let mut options = RoleOptions::default();
        self.accept_word("with");
        loop {
            let pos = self.pos();
            let Tok::Word(word) = self.tok() else {
                return Ok(options);
            };
            let word = word.to_string();
            self.advance();
            match word.as_str() {
                "encrypted" => {
                    self.expect_word("password")?;
                    options.password = Some(Some(self.string()?));
                }
                "password" => {
                    options.password = Some(if self.accept_word("null") {
                        None
                    } else {
                        Some(self.string()?)
                    });
                }
                "login" | "nologin" => options.login = Some(word == "login"),
                "superuser" | "nosuperuser" => options.superuser = Some(word == "superuser"),
                "createdb" | "nocreatedb" => options.createdb = Some(word == "createdb"),
                "createrole" | "nocreaterole" => options.createrole = Some(word == "createrole"),
                "inherit" | "noinherit" => options.inherit = Some(word == "inherit"),
                "replication" | "noreplication" => options.replication = Some(word == "replication"),
                "bypassrls" | "nobypassrls" => options.bypass_rls = Some(word == "bypassrls"),
                "connection" => {
                    self.expect_word("limit")?;
                    options.connection_limit = Some(self.signed_integer()?);
                }
                "valid" | "in" | "role" | "user" | "admin" | "sysid" => {
                    return Err(SqlError::unsupported(format!(
                        "the role option {}",
                        word.to_uppercase()
                    )));
                }
                other => {
                    return Err(self.error_at(
                        pos,
                        SqlState::SYNTAX_ERROR,
                        format!("unrecognized role option \"{other}\""),
                    ));
                }
            }
        }
    }
}
