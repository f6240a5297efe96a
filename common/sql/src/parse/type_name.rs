//! Type names, in SQL's and PostgreSQL's spellings.

use super::Parser;
use super::ast::{Name, TypeName};
use super::keywords;
use super::lex::Tok;
use crate::error::SqlError;

impl Parser<'_> {
    /// A type's name, in SQL's or PostgreSQL's spelling.
    pub(super) fn type_name(&mut self) -> Result<TypeName, SqlError> {
        let pos = self.pos();
        if self.is_word("setof") {
            return self.unsupported("SETOF");
        }
        let mut ty = self.simple_type(pos)?;
        loop {
            if self.is_sym('[') && (self.is_sym_at(1, ']') || self.is_sym_at(2, ']')) {
                self.advance();
                if !self.is_sym(']') {
                    self.signed_integer()?;
                }
                self.expect_sym(']')?;
                ty.array = true;
            } else if self.accept_word("array") {
                ty.array = true;
            } else {
                return Ok(ty);
            }
        }
    }

    fn simple_type(&mut self, pos: u32) -> Result<TypeName, SqlError> {
        let builtin = |text: &str, modifiers: Vec<i32>| TypeName {
            name: vec![
                Name {
                    text: "pg_catalog".into(),
                    pos,
                },
                Name {
                    text: text.into(),
                    pos,
                },
            ],
            modifiers,
            array: false,
            pos,
        };
        let Tok::Word(word) = self.tok() else {
            return self.generic_type(pos);
        };
        let word = word.to_string();
        if self.is_sym_at(1, '.') {
            return self.generic_type(pos);
        }
        let plain = match word.as_str() {
            "int" | "integer" => Some("int4"),
            "smallint" => Some("int2"),
            "bigint" => Some("int8"),
            "real" => Some("float4"),
            "boolean" => Some("bool"),
            _ => None,
        };
        if let Some(name) = plain {
            self.advance();
            return Ok(builtin(name, Vec::new()));
        }
        match word.as_str() {
            "double" => {
                self.advance();
                self.expect_word("precision")?;
                Ok(builtin("float8", Vec::new()))
            }
            "float" => {
                self.advance();
                let digits = self.type_modifiers()?;
                Ok(builtin(
                    if digits.first().is_some_and(|&digits| digits <= 24) {
                        "float4"
                    } else {
                        "float8"
                    },
                    Vec::new(),
                ))
            }
            "decimal" | "dec" | "numeric" => {
                self.advance();
                let modifiers = self.type_modifiers()?;
                Ok(builtin("numeric", modifiers))
            }
            "character" | "char" | "nchar" | "national" | "varchar" => {
                self.advance();
                if word == "national" && !self.accept_word("character") {
                    self.expect_word("char")?;
                }
                let varying = word == "varchar" || self.accept_word("varying");
                let mut modifiers = self.type_modifiers()?;
                if modifiers.is_empty() && !varying {
                    modifiers.push(1);
                }
                Ok(builtin(if varying { "varchar" } else { "bpchar" }, modifiers))
            }
            "timestamp" | "time" => {
                self.advance();
                let modifiers = self.type_modifiers()?;
                let zone = if self.accept_words(&["with", "time", "zone"]) {
                    true
                } else {
                    self.accept_words(&["without", "time", "zone"]);
                    false
                };
                let name = if zone { format!("{word}tz") } else { word };
                Ok(builtin(&name, modifiers))
            }
            "interval" => {
                self.advance();
                let modifiers = self.type_modifiers()?;
                if self.is_any_word(&["year", "month", "day", "hour", "minute", "second"]) {
                    return self.unsupported("an interval with fields");
                }
                Ok(builtin("interval", modifiers))
            }
            "bit" => self.unsupported("type bit"),
            _ => self.generic_type(pos),
        }
    }

    fn generic_type(&mut self, pos: u32) -> Result<TypeName, SqlError> {
        let mut name = vec![
            self.name_if(keywords::can_name_function)
                .ok_or_else(|| self.unexpected())?,
        ];
        while self.accept_sym('.') {
            name.push(self.col_label()?);
        }
        let modifiers = self.type_modifiers()?;
        Ok(TypeName {
            name,
            modifiers,
            array: false,
            pos,
        })
    }

    fn type_modifiers(&mut self) -> Result<Vec<i32>, SqlError> {
        if !self.is_sym('(') {
            return Ok(Vec::new());
        }
        self.advance();
        let list = self.comma_list(Self::signed_integer)?;
        self.expect_sym(')')?;
        Ok(list)
    }
}
