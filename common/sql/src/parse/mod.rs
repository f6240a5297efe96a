//! Text to syntax tree, in PostgreSQL's grammar, with PostgreSQL's error positions.
//!
//! A hand-written recursive descent. (docs/decisions/ says why no parser crate: operator positions, PostgreSQL's own
//! keyword classes and statement forms, and a tree in which every accepted clause is one we execute.) Nesting is
//! bounded by [`Limits`], so no text can exhaust the stack.

pub(crate) mod ast;
mod ddl;
mod dml;
mod expr;
pub(crate) mod keywords;
pub(crate) mod lex;
mod primary;
mod query;
mod type_name;
mod utility;

use std::cell::OnceCell;

use towline_base::SqlState;

use self::ast::{Name, Pos, QualifiedName, Statement};
use self::lex::{Tok, Token, char_position, tokenize};
use crate::error::SqlError;
use crate::stack::{self, Limits, too_deep};

/// How much higher a join or a set operation makes its tree: a level of it takes far more stack than an
/// operator does.
const TALL: u32 = 4;

/// A statement of a text.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    /// The tree.
    pub statement: Statement,
}

/// Parses all statements of a text; empty ones are dropped.
pub(crate) fn parse(text: &str) -> Result<Vec<Parsed>, SqlError> {
    let mut parser = Parser::new(text)?;
    let mut statements = Vec::new();
    loop {
        while parser.accept_sym(';') {}
        if parser.at_end() {
            return Ok(statements);
        }
        let statement = parser.statement()?;
        if !parser.at_end() && !parser.is_sym(';') {
            return Err(parser.unexpected());
        }
        statements.push(Parsed { statement });
    }
}

/// Parses one expression (a column default kept as text in the catalog).
pub(crate) fn parse_expression(text: &str) -> Result<ast::Expr, SqlError> {
    let mut parser = Parser::new(text)?;
    let expr = parser.expr()?;
    if parser.at_end() {
        Ok(expr)
    } else {
        Err(parser.unexpected())
    }
}

/// Parses a type's name (`'int4'::regtype`, `format_type`'s inverse).
pub(crate) fn parse_type_name(text: &str) -> Result<ast::TypeName, SqlError> {
    let mut parser = Parser::new(text)?;
    let name = parser.type_name()?;
    if parser.at_end() {
        Ok(name)
    } else {
        Err(parser.unexpected())
    }
}

/// Parses a possibly qualified name (`'public.t'::regclass`).
pub(crate) fn parse_qualified_name(text: &str) -> Result<QualifiedName, SqlError> {
    let mut parser = Parser::new(text)?;
    let mut name = vec![parser.col_label()?];
    while parser.accept_sym('.') {
        name.push(parser.col_label()?);
    }
    if parser.at_end() {
        Ok(name)
    } else {
        Err(parser.unexpected())
    }
}

pub(super) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token<'a>>,
    at: usize,
    depth: u32,
    /// Height of the tree made so far at this level of nesting.
    height: u32,
    limits: Limits,
    /// Made when first asked for.
    parens: OnceCell<query::Parens>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, SqlError> {
        Ok(Parser {
            text,
            tokens: tokenize(text)?,
            at: 0,
            depth: 0,
            height: 0,
            limits: stack::limits(),
            parens: OnceCell::new(),
        })
    }

    // The last token is Eof and is never passed, so the index is always good.
    fn token(&self, ahead: usize) -> &Token<'a> {
        let last = self.tokens.len() - 1;
        &self.tokens[(self.at + ahead).min(last)]
    }

    fn tok(&self) -> &Tok<'a> {
        &self.token(0).tok
    }

    fn tok_at(&self, ahead: usize) -> &Tok<'a> {
        &self.token(ahead).tok
    }

    fn pos(&self) -> Pos {
        self.token(0).start
    }

    fn previous_end(&self) -> Pos {
        self.tokens
            .get(self.at.wrapping_sub(1))
            .map_or(0, |token| token.end)
    }

    fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    fn at_end(&self) -> bool {
        *self.tok() == Tok::Eof
    }

    /// `syntax error at or near "…"` at the current token.
    #[cold]
    fn unexpected(&self) -> SqlError {
        let token = self.token(0);
        let message = if token.tok == Tok::Eof {
            "syntax error at end of input".to_owned()
        } else {
            let written = self
                .text
                .get(token.start as usize..token.end as usize)
                .unwrap_or_default();
            format!("syntax error at or near \"{written}\"")
        };
        SqlError::new(SqlState::SYNTAX_ERROR, message).with_position(char_position(self.text, token.start))
    }

    #[cold]
    fn unsupported<T>(&self, feature: &str) -> Result<T, SqlError> {
        Err(SqlError::unsupported(feature).with_position(char_position(self.text, self.pos())))
    }

    fn error_at(&self, pos: Pos, sqlstate: SqlState, message: impl Into<String>) -> SqlError {
        SqlError::new(sqlstate, message).with_position(char_position(self.text, pos))
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.tok(), Tok::Word(have) if have == word)
    }

    fn is_word_at(&self, ahead: usize, word: &str) -> bool {
        matches!(self.tok_at(ahead), Tok::Word(have) if have == word)
    }

    fn is_any_word(&self, words: &[&str]) -> bool {
        matches!(self.tok(), Tok::Word(have) if words.contains(&have.as_ref()))
    }

    fn accept_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }

    /// Accepts a phrase of words or nothing.
    fn accept_words(&mut self, words: &[&str]) -> bool {
        let found = words
            .iter()
            .enumerate()
            .all(|(ahead, word)| self.is_word_at(ahead, word));
        if found {
            for _ in words {
                self.advance();
            }
        }
        found
    }

    fn expect_word(&mut self, word: &str) -> Result<(), SqlError> {
        if self.accept_word(word) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    fn is_sym(&self, sym: char) -> bool {
        *self.tok() == Tok::Sym(sym)
    }

    fn is_sym_at(&self, ahead: usize, sym: char) -> bool {
        *self.tok_at(ahead) == Tok::Sym(sym)
    }

    fn accept_sym(&mut self, sym: char) -> bool {
        let found = self.is_sym(sym);
        if found {
            self.advance();
        }
        found
    }

    fn expect_sym(&mut self, sym: char) -> Result<(), SqlError> {
        if self.accept_sym(sym) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.tok(), Tok::Op(have) if *have == op)
    }

    fn accept_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        if found {
            self.advance();
        }
        found
    }

    fn name_if(&mut self, allowed: fn(&str) -> bool) -> Option<Name> {
        let pos = self.pos();
        let text = match self.tok() {
            Tok::Word(word) if allowed(word) => word.to_string(),
            Tok::Quoted(text) => text.to_string(),
            _ => return None,
        };
        self.advance();
        Some(Name { text, pos })
    }

    /// A name of a table, column, alias, role …
    fn col_id(&mut self) -> Result<Name, SqlError> {
        self.name_if(keywords::can_name_column)
            .ok_or_else(|| self.unexpected())
    }

    /// A name where every word is allowed (after AS, after a point).
    fn col_label(&mut self) -> Result<Name, SqlError> {
        self.name_if(|_| true).ok_or_else(|| self.unexpected())
    }

    fn qualified_name(&mut self) -> Result<QualifiedName, SqlError> {
        let mut name = vec![self.col_id()?];
        while self.is_sym('.') {
            self.advance();
            name.push(self.col_label()?);
        }
        if name.len() > 3 {
            let written: Vec<&str> = name.iter().map(|part| part.text.as_str()).collect();
            return Err(self.error_at(
                name[0].pos,
                SqlState::SYNTAX_ERROR,
                format!(
                    "improper qualified name (too many dotted names): {}",
                    written.join(".")
                ),
            ));
        }
        Ok(name)
    }

    fn comma_list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, SqlError>,
    ) -> Result<Vec<T>, SqlError> {
        let mut items = vec![item(self)?];
        while self.accept_sym(',') {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn name_list_in_parens(&mut self) -> Result<Vec<Name>, SqlError> {
        self.expect_sym('(')?;
        let names = self.comma_list(Self::col_id)?;
        self.expect_sym(')')?;
        Ok(names)
    }

    fn string(&mut self) -> Result<String, SqlError> {
        match self.tok() {
            Tok::Str(text) => {
                let text = text.to_string();
                self.advance();
                Ok(text)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn signed_integer(&mut self) -> Result<i32, SqlError> {
        let negative = self.accept_op("-");
        if !negative {
            self.accept_op("+");
        }
        let pos = self.pos();
        match self.tok() {
            Tok::Int(digits) => {
                let value = digits.parse::<i32>().ok();
                let near = (*digits).to_owned();
                self.advance();
                value
                    .map(|value| if negative { -value } else { value })
                    .ok_or_else(|| {
                        self.error_at(
                            pos,
                            SqlState::SYNTAX_ERROR,
                            format!("syntax error at or near \"{near}\""),
                        )
                    })
            }
            _ => Err(self.unexpected()),
        }
    }

    /// Runs `inner` one level deeper.
    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, SqlError>) -> Result<T, SqlError> {
        if self.depth >= self.limits.depth {
            return Err(too_deep());
        }
        stack::check()?;
        self.depth += 1;
        let beside = std::mem::take(&mut self.height);
        let result = inner(self);
        self.depth -= 1;
        let inner = std::mem::replace(&mut self.height, beside);
        self.grow_to(inner.saturating_add(1))?;
        result
    }

    /// What was parsed at this level becomes an operand of something higher by `levels`.
    fn grow(&mut self, levels: u32) -> Result<(), SqlError> {
        self.grow_to(self.height.saturating_add(levels))
    }

    fn grow_to(&mut self, height: u32) -> Result<(), SqlError> {
        self.height = self.height.max(height);
        if self.height > self.limits.height {
            return Err(too_deep());
        }
        Ok(())
    }

    fn text_between(&self, start: Pos, end: Pos) -> String {
        self.text
            .get(start as usize..end as usize)
            .unwrap_or_default()
            .to_owned()
    }

    fn statement(&mut self) -> Result<Statement, SqlError> {
        if self.is_sym('(') {
            return Ok(Statement::Query(Box::new(self.query()?)));
        }
        let Tok::Word(word) = self.tok() else {
            return Err(self.unexpected());
        };
        match word.as_ref() {
            "select" | "values" | "table" => Ok(Statement::Query(Box::new(self.query()?))),
            "with" => self.with_statement(),
            "insert" => self.insert(Vec::new()),
            "update" => self.update(Vec::new()),
            "delete" => self.delete(Vec::new()),
            "create" => self.create(),
            "drop" => self.drop_statement(),
            "alter" => self.alter(),
            "truncate" => self.truncate(),
            _ => self.utility(),
        }
    }
}
