//! Scalar expressions, by PostgreSQL's operator precedence.

use super::Parser;
use super::ast::{Expr, IsTest, Literal};
use super::lex::Tok;
use super::primary::call;
use crate::error::SqlError;

// Binding powers, low to high, as in PostgreSQL's grammar.
const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;
const IS: u8 = 4;
const COMPARE: u8 = 5;
/// Above BETWEEN, IN and LIKE: an operand that may not hold these words unparenthesised.
pub(super) const BETWEEN: u8 = 6;
const OTHER: u8 = 7;
const ADD: u8 = 8;
const MULTIPLY: u8 = 9;
const POWER: u8 = 10;
const AT: u8 = 11;
const COLLATE: u8 = 12;
const SIGN: u8 = 13;
const SUBSCRIPT: u8 = 14;
const CAST: u8 = 15;

fn operator_power(op: &str) -> u8 {
    match op {
        "<" | ">" | "=" | "<=" | ">=" | "<>" => COMPARE,
        "+" | "-" => ADD,
        "*" | "/" | "%" => MULTIPLY,
        "^" => POWER,
        _ => OTHER,
    }
}

/// A number with the other sign.
fn negated(digits: &str) -> String {
    match digits.strip_prefix('-') {
        Some(positive) => positive.to_owned(),
        None => format!("-{digits}"),
    }
}

impl Parser<'_> {
    /// Any scalar expression.
    pub(super) fn expr(&mut self) -> Result<Expr, SqlError> {
        self.nested(|parser| parser.expr_above(0))
    }

    /// An expression without AND, OR, NOT, IS, IN … (the grammar's `b_expr`, used by column defaults).
    pub(super) fn expr_tight(&mut self) -> Result<Expr, SqlError> {
        self.nested(|parser| parser.expr_above(COMPARE))
    }

    /// An expression, or DEFAULT.
    pub(super) fn expr_or_default(&mut self) -> Result<Expr, SqlError> {
        let pos = self.pos();
        if self.accept_word("default") {
            Ok(Expr::Default(pos))
        } else {
            self.expr()
        }
    }

    /// An expression of operators that bind tighter than `power`.
    pub(super) fn expr_above(&mut self, power: u8) -> Result<Expr, SqlError> {
        let mut left = self.prefix(power)?;
        loop {
            match self.infix(left, power)? {
                (expr, true) => left = expr,
                (expr, false) => return Ok(expr),
            }
            self.grow(1)?;
        }
    }

    fn prefix(&mut self, _power: u8) -> Result<Expr, SqlError> {
        let pos = self.pos();
        if self.is_word("not") {
            self.advance();
            let arg = self.nested(|parser| parser.expr_above(NOT))?;
            return Ok(Expr::Not(Box::new(arg), pos));
        }
        if let Tok::Op(op) = *self.tok() {
            if op == "*" {
                return Err(self.unexpected());
            }
            self.advance();
            let power = if op == "+" || op == "-" { SIGN } else { OTHER };
            let arg = self.nested(|parser| parser.expr_above(power))?;
            return Ok(match (op, arg) {
                // A signed number is one constant, so that -2147483648 is an int4's text, and -(-2147483648)
                // the text of what no int4 holds.
                ("-", Expr::Literal(Literal::Int(digits), _)) => {
                    Expr::Literal(Literal::Int(negated(&digits)), pos)
                }
                ("-", Expr::Literal(Literal::Num(digits), _)) => {
                    Expr::Literal(Literal::Num(negated(&digits)), pos)
                }
                (op, arg) => Expr::Unary(op.to_owned(), Box::new(arg), pos),
            });
        }
        if self.at_operator_call() {
            let op = self.operator_name()?;
            let arg = self.nested(|parser| parser.expr_above(OTHER))?;
            return Ok(Expr::Unary(op, Box::new(arg), pos));
        }
        self.primary()
    }

    /// `OPERATOR(schema.op)`
    fn at_operator_call(&self) -> bool {
        self.is_word("operator") && self.is_sym_at(1, '(')
    }

    fn operator_name(&mut self) -> Result<String, SqlError> {
        self.advance();
        self.expect_sym('(')?;
        while matches!(self.tok(), Tok::Word(_) | Tok::Quoted(_)) {
            if !self.is_word("pg_catalog") {
                return self.unsupported("an operator outside pg_catalog");
            }
            self.advance();
            self.expect_sym('.')?;
        }
        let Tok::Op(op) = *self.tok() else {
            return Err(self.unexpected());
        };
        self.advance();
        self.expect_sym(')')?;
        Ok(op.to_owned())
    }

    /// Goes on from `left` with one operator of at least this power; false: there is none.
    fn infix(&mut self, left: Expr, power: u8) -> Result<(Expr, bool), SqlError> {
        let pos = self.pos();
        match self.tok() {
            Tok::Op(op) => {
                let op = *op;
                let own = operator_power(op);
                if own <= power {
                    return Ok((left, false));
                }
                self.advance();
                self.binary(left, op.to_owned(), own, pos)
                    .map(|expr| (expr, true))
            }
            Tok::TypeCast => {
                if CAST <= power {
                    return Ok((left, false));
                }
                self.advance();
                let ty = self.type_name()?;
                Ok((Expr::Cast(Box::new(left), ty, pos), true))
            }
            Tok::Sym('[') => {
                if SUBSCRIPT <= power {
                    return Ok((left, false));
                }
                self.advance();
                let index = self.expr()?;
                if self.is_sym(':') {
                    return self.unsupported("an array slice");
                }
                self.expect_sym(']')?;
                Ok((Expr::Subscript(Box::new(left), Box::new(index), pos), true))
            }
            Tok::Word(word) => {
                let word = word.to_string();
                self.infix_word(left, &word, power, pos)
            }
            _ => Ok((left, false)),
        }
    }

    fn infix_word(&mut self, left: Expr, word: &str, power: u8, pos: u32) -> Result<(Expr, bool), SqlError> {
        let own = match word {
            "or" => OR,
            "and" => AND,
            "is" | "isnull" | "notnull" => IS,
            "between" | "in" | "like" | "ilike" | "similar" => BETWEEN,
            "not"
                if ["between", "in", "like", "ilike", "similar"]
                    .iter()
                    .any(|next| self.is_word_at(1, next)) =>
            {
                BETWEEN
            }
            "operator" if self.is_sym_at(1, '(') => OTHER,
            "at" if self.is_word_at(1, "time") => AT,
            "collate" => COLLATE,
            "overlaps" => return self.unsupported("OVERLAPS"),
            _ => return Ok((left, false)),
        };
        if own <= power {
            return Ok((left, false));
        }
        match word {
            "or" | "and" => self.logic(left, word == "and", own, pos),
            "is" | "isnull" | "notnull" => self.is_test(left, pos),
            "operator" => {
                let op = self.operator_name()?;
                self.binary(left, op, OTHER, pos)
            }
            "at" => {
                self.advance();
                self.advance();
                self.expect_word("zone")?;
                let zone = self.nested(|parser| parser.expr_above(AT))?;
                Ok(call("timezone", vec![zone, left], pos))
            }
            "collate" => {
                self.advance();
                let mut name = vec![self.col_label()?];
                while self.accept_sym('.') {
                    name.push(self.col_label()?);
                }
                Ok(Expr::Collate(Box::new(left), name, pos))
            }
            _ => self.set_test(left, pos),
        }
        .map(|expr| (expr, true))
    }

    fn logic(&mut self, left: Expr, and: bool, own: u8, pos: u32) -> Result<Expr, SqlError> {
        let word = if and { "and" } else { "or" };
        let mut parts = vec![left];
        while self.accept_word(word) {
            parts.push(self.nested(|parser| parser.expr_above(own))?);
        }
        Ok(if and {
            Expr::And(parts, pos)
        } else {
            Expr::Or(parts, pos)
        })
    }

    fn binary(&mut self, left: Expr, op: String, own: u8, pos: u32) -> Result<Expr, SqlError> {
        if self.is_any_word(&["any", "some", "all"]) && self.is_sym_at(1, '(') {
            return self.any_all(left, op, pos);
        }
        let right = self.nested(|parser| parser.expr_above(own))?;
        if own == COMPARE
            && let Tok::Op(next) = self.tok()
            && operator_power(next) == COMPARE
        {
            return Err(self.unexpected());
        }
        Ok(Expr::Binary(op, Box::new(left), Box::new(right), pos))
    }

    fn any_all(&mut self, left: Expr, op: String, pos: u32) -> Result<Expr, SqlError> {
        let all = self.is_word("all");
        self.advance();
        if self.paren_holds_query() {
            self.advance();
            let query = self.query()?;
            self.expect_sym(')')?;
            return Ok(Expr::AnyAllQuery(Box::new(left), op, all, Box::new(query), pos));
        }
        self.advance();
        let array = self.expr()?;
        self.expect_sym(')')?;
        Ok(Expr::AnyAll(Box::new(left), op, all, Box::new(array), pos))
    }

    fn is_test(&mut self, left: Expr, pos: u32) -> Result<Expr, SqlError> {
        let left = Box::new(left);
        if self.accept_word("isnull") {
            return Ok(Expr::Is(left, IsTest::Null, false, pos));
        }
        if self.accept_word("notnull") {
            return Ok(Expr::Is(left, IsTest::Null, true, pos));
        }
        self.advance();
        let negated = self.accept_word("not");
        if self.accept_words(&["distinct", "from"]) {
            let right = self.nested(|parser| parser.expr_above(IS))?;
            return Ok(Expr::Distinct(left, Box::new(right), negated, pos));
        }
        let test = match self.tok() {
            Tok::Word(word) if word == "null" => IsTest::Null,
            Tok::Word(word) if word == "true" => IsTest::True,
            Tok::Word(word) if word == "false" => IsTest::False,
            Tok::Word(word) if word == "unknown" => IsTest::Unknown,
            Tok::Word(word) if matches!(word.as_ref(), "document" | "normalized" | "of") => {
                return self.unsupported("this form of IS");
            }
            _ => return Err(self.unexpected()),
        };
        self.advance();
        Ok(Expr::Is(left, test, negated, pos))
    }

    /// [NOT] BETWEEN, IN, LIKE, ILIKE
    fn set_test(&mut self, left: Expr, pos: u32) -> Result<Expr, SqlError> {
        let negated = self.accept_word("not");
        let left = Box::new(left);
        if self.accept_word("between") {
            let symmetric = self.accept_word("symmetric");
            if !symmetric {
                self.accept_word("asymmetric");
            }
            let low = self.nested(|parser| parser.expr_above(BETWEEN))?;
            self.expect_word("and")?;
            let high = self.nested(|parser| parser.expr_above(BETWEEN))?;
            return Ok(Expr::Between {
                arg: left,
                low: Box::new(low),
                high: Box::new(high),
                negated,
                symmetric,
                pos,
            });
        }
        if self.accept_word("in") {
            if !self.is_sym('(') {
                return Err(self.unexpected());
            }
            if self.paren_holds_query() {
                self.advance();
                let query = self.query()?;
                self.expect_sym(')')?;
                return Ok(Expr::InQuery(left, Box::new(query), negated, pos));
            }
            self.advance();
            let list = self.comma_list(Self::expr)?;
            self.expect_sym(')')?;
            return Ok(Expr::InList(left, list, negated, pos));
        }
        if self.is_word("similar") {
            return self.unsupported("SIMILAR TO");
        }
        let insensitive = self.is_word("ilike");
        self.advance();
        if self.is_any_word(&["any", "some", "all"]) && self.is_sym_at(1, '(') {
            let op = match (insensitive, negated) {
                (false, false) => "~~",
                (false, true) => "!~~",
                (true, false) => "~~*",
                (true, true) => "!~~*",
            };
            return self.any_all(*left, op.to_owned(), pos);
        }
        let pattern = self.nested(|parser| parser.expr_above(BETWEEN))?;
        let escape = if self.accept_word("escape") {
            Some(Box::new(self.nested(|parser| parser.expr_above(BETWEEN))?))
        } else {
            None
        };
        Ok(Expr::Like {
            arg: left,
            pattern: Box::new(pattern),
            escape,
            insensitive,
            negated,
            pos,
        })
    }
}
