//! Expressions without operators: constants, names, calls, and the forms that SQL spells with words of their own.

use towline_base::SqlState;

use super::Parser;
use super::ast::{Call, Expr, Literal, Name, QualifiedName};
use super::expr::BETWEEN;
use super::keywords;
use super::lex::Tok;
use crate::error::SqlError;

impl Parser<'_> {
    /// An expression without operators.
    pub(super) fn primary(&mut self) -> Result<Expr, SqlError> {
        let pos = self.pos();
        match self.tok() {
            Tok::Int(digits) => {
                let literal = Literal::Int((*digits).to_owned());
                self.advance();
                Ok(Expr::Literal(literal, pos))
            }
            Tok::Num(digits) => {
                let literal = Literal::Num((*digits).to_owned());
                self.advance();
                Ok(Expr::Literal(literal, pos))
            }
            Tok::Str(text) => {
                let literal = Literal::Str(text.to_string());
                self.advance();
                Ok(Expr::Literal(literal, pos))
            }
            Tok::Param(number) => {
                let number = *number;
                self.advance();
                Ok(Expr::Param(number, pos))
            }
            Tok::Sym('(') => self.parenthesised(),
            Tok::Word(word) => {
                let word = word.to_string();
                match self.special(&word)? {
                    Some(expr) => Ok(expr),
                    None => self.name_or_call(),
                }
            }
            Tok::Quoted(_) => self.name_or_call(),
            _ => Err(self.unexpected()),
        }
    }

    fn parenthesised(&mut self) -> Result<Expr, SqlError> {
        let pos = self.pos();
        self.advance();
        if self.is_any_word(&["select", "values", "with", "table"]) {
            let query = self.query()?;
            self.expect_sym(')')?;
            return Ok(Expr::Subquery(Box::new(query), pos));
        }
        let first = self.expr()?;
        // `((select 1) union select 2)`: the inner parenthesis was the left side of a larger query.
        let first = match first {
            Expr::Subquery(query, _) if self.at_query_continuation() => {
                let query = self.query_after(*query)?;
                Expr::Subquery(Box::new(query), pos)
            }
            other => other,
        };
        if self.is_sym(',') {
            let mut parts = vec![first];
            while self.accept_sym(',') {
                parts.push(self.expr()?);
            }
            self.expect_sym(')')?;
            self.grow_by_row(parts.len())?;
            return Ok(Expr::Row(parts, pos));
        }
        self.expect_sym(')')?;
        if self.is_sym('.') {
            return self.unsupported("the selection of a composite's field");
        }
        Ok(first)
    }

    /// A comparison of rows is a tree of two levels for each of their fields.
    fn grow_by_row(&mut self, fields: usize) -> Result<(), SqlError> {
        self.grow(u32::try_from(fields).unwrap_or(u32::MAX).saturating_mul(2))
    }

    fn expr_list(&mut self) -> Result<Vec<Expr>, SqlError> {
        self.expect_sym('(')?;
        let list = self.comma_list(Self::expr)?;
        self.expect_sym(')')?;
        Ok(list)
    }

    /// Forms that begin with a keyword. None: an ordinary name.
    fn special(&mut self, word: &str) -> Result<Option<Expr>, SqlError> {
        let pos = self.pos();
        let paren = self.is_sym_at(1, '(');
        let expr = match word {
            "null" | "true" | "false" => {
                self.advance();
                Expr::Literal(
                    if word == "null" {
                        Literal::Null
                    } else {
                        Literal::Bool(word == "true")
                    },
                    pos,
                )
            }
            "current_date" | "current_user" | "session_user" | "user" | "current_role"
            | "current_catalog" | "current_time" | "current_timestamp" | "localtime" | "localtimestamp" => {
                self.sql_value(word)?
            }
            "current_schema" if !paren => self.sql_value(word)?,
            "case" => self.case()?,
            "cast" if paren => {
                self.advance();
                self.advance();
                let arg = self.expr()?;
                self.expect_word("as")?;
                let ty = self.type_name()?;
                self.expect_sym(')')?;
                Expr::Cast(Box::new(arg), ty, pos)
            }
            "exists" if paren => {
                self.advance();
                self.advance();
                let query = self.query()?;
                self.expect_sym(')')?;
                Expr::Exists(Box::new(query), pos)
            }
            "array" => self.array()?,
            "row" if paren => {
                self.advance();
                if self.is_sym_at(1, ')') {
                    self.advance();
                    self.advance();
                    Expr::Row(Vec::new(), pos)
                } else {
                    let parts = self.expr_list()?;
                    self.grow_by_row(parts.len())?;
                    Expr::Row(parts, pos)
                }
            }
            "coalesce" if paren => {
                self.advance();
                Expr::Coalesce(self.expr_list()?, pos)
            }
            "greatest" | "least" if paren => {
                self.advance();
                Expr::Greatest(word == "greatest", self.expr_list()?, pos)
            }
            "nullif" if paren => {
                self.advance();
                self.expect_sym('(')?;
                let left = self.expr()?;
                self.expect_sym(',')?;
                let right = self.expr()?;
                self.expect_sym(')')?;
                Expr::NullIf(Box::new(left), Box::new(right), pos)
            }
            "extract" | "substring" | "position" | "trim" | "overlay" if paren => self.sql_function(word)?,
            "treat" | "grouping" | "normalize" | "xmlconcat" | "xmlelement" | "xmlexists" | "xmlforest"
            | "xmlparse" | "xmlpi" | "xmlroot" | "xmlserialize"
                if paren =>
            {
                return self.unsupported(&word.to_uppercase());
            }
            _ => match self.typed_literal()? {
                Some(expr) => expr,
                None => return Ok(None),
            },
        };
        Ok(Some(expr))
    }

    /// CURRENT_DATE and its kin.
    fn sql_value(&mut self, word: &str) -> Result<Expr, SqlError> {
        let pos = self.pos();
        self.advance();
        let mut args = Vec::new();
        if matches!(
            word,
            "current_timestamp" | "localtimestamp" | "current_time" | "localtime"
        ) && self.accept_sym('(')
        {
            let digits = self.signed_integer()?;
            self.expect_sym(')')?;
            args.push(Expr::Literal(Literal::Int(digits.to_string()), pos));
        }
        let Expr::Call(mut call) = call(if word == "user" { "current_user" } else { word }, args, pos) else {
            return Err(self.unexpected());
        };
        call.sql_value = true;
        Ok(Expr::Call(call))
    }

    fn case(&mut self) -> Result<Expr, SqlError> {
        let pos = self.pos();
        self.advance();
        let operand = if self.is_word("when") {
            None
        } else {
            Some(Box::new(self.expr()?))
        };
        let mut whens = Vec::new();
        loop {
            let when_pos = self.pos();
            if !self.accept_word("when") {
                break;
            }
            let condition = self.expr()?;
            self.expect_word("then")?;
            whens.push((condition, self.expr()?, when_pos));
        }
        if whens.is_empty() {
            return Err(self.unexpected());
        }
        let otherwise = if self.accept_word("else") {
            Some(Box::new(self.expr()?))
        } else {
            None
        };
        self.expect_word("end")?;
        Ok(Expr::Case {
            operand,
            whens,
            otherwise,
            pos,
        })
    }

    fn array(&mut self) -> Result<Expr, SqlError> {
        let pos = self.pos();
        self.advance();
        if self.accept_sym('(') {
            let query = self.query()?;
            self.expect_sym(')')?;
            return Ok(Expr::ArrayQuery(Box::new(query), pos));
        }
        self.expect_sym('[')?;
        if self.accept_sym(']') {
            return Ok(Expr::Array(Vec::new(), pos));
        }
        if self.is_sym('[') {
            return self.unsupported("an array of several dimensions");
        }
        let list = self.comma_list(Self::expr)?;
        self.expect_sym(']')?;
        Ok(Expr::Array(list, pos))
    }

    /// The functions that SQL writes with words between their arguments.
    fn sql_function(&mut self, word: &str) -> Result<Expr, SqlError> {
        let pos = self.pos();
        self.advance();
        self.expect_sym('(')?;
        let (name, args) = match word {
            "extract" => {
                let field_pos = self.pos();
                let field = match self.tok() {
                    Tok::Word(text) | Tok::Quoted(text) | Tok::Str(text) => text.to_string(),
                    _ => return Err(self.unexpected()),
                };
                self.advance();
                self.expect_word("from")?;
                (
                    "extract",
                    vec![Expr::Literal(Literal::Str(field), field_pos), self.expr()?],
                )
            }
            "position" => {
                let needle = self.nested(|parser| parser.expr_above(BETWEEN))?;
                self.expect_word("in")?;
                let text = self.nested(|parser| parser.expr_above(BETWEEN))?;
                ("position", vec![text, needle])
            }
            "trim" => return self.trim(pos),
            _ => {
                let mut args = vec![self.expr()?];
                if self.is_word("similar") {
                    return self.unsupported("SUBSTRING … SIMILAR");
                }
                if word == "overlay" && self.accept_word("placing") {
                    args.push(self.expr()?);
                }
                let mut length = None;
                let mut plain = true;
                loop {
                    if self.accept_sym(',') {
                        args.push(self.expr()?);
                    } else if self.accept_word("from") {
                        plain = false;
                        args.push(self.expr()?);
                    } else if self.accept_word("for") {
                        length = Some(self.expr()?);
                    } else {
                        break;
                    }
                }
                if let Some(length) = length {
                    if word == "substring" && args.len() == 1 {
                        args.push(Expr::Literal(Literal::Int("1".into()), pos));
                    }
                    args.push(length);
                } else if plain && word == "substring" {
                    // Called like any function, it is named as it was written.
                    self.expect_sym(')')?;
                    let mut plain = call(word, args, pos);
                    if let Expr::Call(call) = &mut plain {
                        call.name.remove(0);
                    }
                    return Ok(plain);
                }
                (word, args)
            }
        };
        self.expect_sym(')')?;
        Ok(call(name, args, pos))
    }

    fn trim(&mut self, pos: u32) -> Result<Expr, SqlError> {
        let name = if self.accept_word("leading") {
            "ltrim"
        } else if self.accept_word("trailing") {
            "rtrim"
        } else {
            self.accept_word("both");
            "btrim"
        };
        let args = if self.accept_word("from") {
            self.comma_list(Self::expr)?
        } else {
            let first = self.expr()?;
            if self.accept_word("from") {
                let mut args = self.comma_list(Self::expr)?;
                args.push(first);
                args
            } else if self.accept_sym(',') {
                vec![first, self.expr()?]
            } else {
                vec![first]
            }
        };
        self.expect_sym(')')?;
        Ok(call(name, args, pos))
    }

    /// `date '2024-01-01'`, `numeric(10,2) '1.5'`, `pg_catalog.int4 '1'`. None (and nothing read): not one.
    fn typed_literal(&mut self) -> Result<Option<Expr>, SqlError> {
        let start = self.at;
        // Only a look-ahead that ends in a string makes it one; `f (1) 'x'` is an error either way.
        let mut ahead = 1;
        while self.is_sym_at(ahead, '.') {
            ahead += 2;
        }
        while ["precision", "varying", "with", "without", "time", "zone"]
            .iter()
            .any(|word| self.is_word_at(ahead, word))
        {
            ahead += 1;
        }
        if self.is_sym_at(ahead, '(') {
            while !self.is_sym_at(ahead, ')') {
                if !matches!(self.tok_at(ahead), Tok::Sym('(' | ',') | Tok::Int(_)) {
                    return Ok(None);
                }
                ahead += 1;
            }
            ahead += 1;
            while ["with", "without", "time", "zone"]
                .iter()
                .any(|word| self.is_word_at(ahead, word))
            {
                ahead += 1;
            }
        }
        if !matches!(self.tok_at(ahead), Tok::Str(_)) {
            return Ok(None);
        }
        let Ok(ty) = self.type_name() else {
            self.at = start;
            return Ok(None);
        };
        let literal_pos = self.pos();
        let Tok::Str(text) = self.tok() else {
            self.at = start;
            return Ok(None);
        };
        let literal = Expr::Literal(Literal::Str(text.to_string()), literal_pos);
        self.advance();
        Ok(Some(Expr::Cast(Box::new(literal), ty, literal_pos)))
    }

    fn name_or_call(&mut self) -> Result<Expr, SqlError> {
        let pos = self.pos();
        let mut ahead = 0;
        while self.is_sym_at(ahead + 1, '.')
            && matches!(self.tok_at(ahead + 2), Tok::Word(_) | Tok::Quoted(_))
        {
            ahead += 2;
        }
        let is_call = self.is_sym_at(ahead + 1, '(');
        let allowed = if is_call && ahead == 0 {
            keywords::can_name_function
        } else {
            keywords::can_name_column
        };
        let Some(first) = self.name_if(allowed) else {
            return Err(self.unexpected());
        };
        let mut name = vec![first];
        while self.accept_sym('.') {
            if self.is_op("*") {
                self.advance();
                return Ok(Expr::WholeRow(name));
            }
            name.push(self.col_label()?);
        }
        if is_call {
            return self.call(name, pos);
        }
        if name.len() > 4 {
            let written: Vec<&str> = name.iter().map(|part| part.text.as_str()).collect();
            return Err(self.error_at(
                pos,
                SqlState::SYNTAX_ERROR,
                format!(
                    "improper qualified name (too many dotted names): {}",
                    written.join(".")
                ),
            ));
        }
        Ok(Expr::Column(name))
    }

    fn call(&mut self, name: QualifiedName, pos: u32) -> Result<Expr, SqlError> {
        self.expect_sym('(')?;
        let mut call = Call {
            name,
            args: Vec::new(),
            star: false,
            distinct: false,
            variadic: false,
            order_by: Vec::new(),
            filter: None,
            sql_value: false,
            pos,
        };
        if self.accept_op("*") {
            call.star = true;
        } else if !self.is_sym(')') {
            if self.accept_word("distinct") {
                call.distinct = true;
            } else {
                self.accept_word("all");
            }
            loop {
                call.variadic = self.accept_word("variadic");
                call.args.push(self.expr()?);
                if *self.tok() == Tok::Assign {
                    return self.unsupported("a named argument");
                }
                if !self.accept_sym(',') {
                    break;
                }
            }
            if self.accept_word("order") {
                self.expect_word("by")?;
                call.order_by = self.comma_list(Self::sort_item)?;
            }
        }
        self.expect_sym(')')?;
        if self.is_word("within") && self.is_word_at(1, "group") {
            return self.unsupported("WITHIN GROUP");
        }
        if self.is_word("filter") && self.is_sym_at(1, '(') {
            self.advance();
            self.advance();
            self.expect_word("where")?;
            call.filter = Some(Box::new(self.expr()?));
            self.expect_sym(')')?;
        }
        if self.is_word("over") && (self.is_sym_at(1, '(') || matches!(self.tok_at(1), Tok::Word(_))) {
            return self.unsupported("a window function");
        }
        Ok(Expr::Call(call))
    }
}

/// A call of a built-in function, as if it had been written.
pub(super) fn call(name: &str, args: Vec<Expr>, pos: u32) -> Expr {
    Expr::Call(Call {
        name: vec![
            Name {
                text: "pg_catalog".into(),
                pos,
            },
            Name {
                text: name.into(),
                pos,
            },
        ],
        args,
        star: false,
        distinct: false,
        variadic: false,
        order_by: Vec::new(),
        filter: None,
        sql_value: false,
        pos,
    })
}
