//! SELECT, VALUES, set operations, WITH, FROM.

use std::sync::Arc;

use towline_base::SqlState;

use super::Parser;
use super::ast::{
    Alias, Body, CommonTable, Expr, FromItem, JoinCondition, JoinKind, Literal, LockPolicy, LockStrength,
    Locking, Name, Query, Select, SetOp, SortItem, Statement, Target,
};
use super::keywords;
use super::lex::{Tok, Token};
use crate::error::SqlError;

impl Parser<'_> {
    /// `WITH … SELECT | INSERT | UPDATE | DELETE`
    pub(super) fn with_statement(&mut self) -> Result<Statement, SqlError> {
        let pos = self.pos();
        let with = self.with_clause()?;
        match self.tok() {
            Tok::Word(word) if word == "insert" => self.insert(with),
            Tok::Word(word) if word == "update" => self.update(with),
            Tok::Word(word) if word == "delete" => self.delete(with),
            _ => {
                let mut query = self.nested(Self::query_without_with)?;
                query.with = with;
                query.pos = pos;
                Ok(Statement::Query(Box::new(query)))
            }
        }
    }

    pub(super) fn with_clause(&mut self) -> Result<Vec<CommonTable>, SqlError> {
        self.expect_word("with")?;
        let recursive = self.is_word("recursive") && !self.is_word_at(1, "as");
        if recursive {
            self.advance();
        }
        self.comma_list(|parser| {
            let name = parser.col_id()?;
            let columns = if parser.is_sym('(') {
                parser.name_list_in_parens()?
            } else {
                Vec::new()
            };
            parser.expect_word("as")?;
            if parser.accept_word("not") {
                parser.expect_word("materialized")?;
            } else {
                parser.accept_word("materialized");
            }
            parser.expect_sym('(')?;
            if parser.is_any_word(&["insert", "update", "delete"]) {
                return parser.unsupported("a data-modifying statement in WITH");
            }
            let query = parser.query()?;
            parser.expect_sym(')')?;
            Ok(CommonTable {
                name,
                columns,
                query: Arc::new(query),
                recursive,
            })
        })
    }

    /// A whole query, with WITH and what follows the body.
    pub(super) fn query(&mut self) -> Result<Query, SqlError> {
        self.nested(|parser| {
            let pos = parser.pos();
            let with = if parser.is_word("with") {
                parser.with_clause()?
            } else {
                Vec::new()
            };
            let mut query = parser.query_without_with()?;
            if !with.is_empty() {
                query.with = with;
            }
            query.pos = pos;
            Ok(query)
        })
    }

    fn query_without_with(&mut self) -> Result<Query, SqlError> {
        let query = self.set_expression(0, None)?;
        self.query_tail(query)
    }

    /// Goes on after a parenthesised query that turned out to be the left side of a set operation.
    pub(super) fn query_after(&mut self, left: Query) -> Result<Query, SqlError> {
        let query = self.set_expression(0, Some(left))?;
        self.query_tail(query)
    }

    /// True at a word that may follow a parenthesised query only if it is part of a larger one.
    pub(super) fn at_query_continuation(&self) -> bool {
        self.is_any_word(&[
            "union",
            "intersect",
            "except",
            "order",
            "limit",
            "offset",
            "fetch",
            "for",
        ])
    }

    fn query_tail(&mut self, query: Query) -> Result<Query, SqlError> {
        let plain = query.order_by.is_empty()
            && query.limit.is_none()
            && query.offset.is_none()
            && query.with.is_empty();
        if !self.at_query_continuation() {
            return Ok(query);
        }
        // `(select … limit 1) limit 2`: what is inside the parentheses stays inside.
        let mut query = if plain { query } else { wrap(query) };
        if self.accept_word("order") {
            self.expect_word("by")?;
            query.order_by = self.comma_list(Self::sort_item)?;
        }
        loop {
            if self.is_word("limit") && query.limit.is_none() {
                self.advance();
                let pos = self.pos();
                query.limit = Some(if self.accept_word("all") {
                    Expr::Literal(Literal::Null, pos)
                } else {
                    self.expr()?
                });
                if self.is_sym(',') {
                    let error = self.error_at(
                        self.pos(),
                        SqlState::SYNTAX_ERROR,
                        "LIMIT #,# syntax is not supported",
                    );
                    return Err(error.with_hint("Use separate LIMIT and OFFSET clauses."));
                }
            } else if self.is_word("offset") && query.offset.is_none() {
                self.advance();
                query.offset = Some(self.expr()?);
                if !self.accept_word("rows") {
                    self.accept_word("row");
                }
            } else if self.is_word("fetch") && query.limit.is_none() {
                query.limit = Some(self.fetch_first()?);
            } else if self.is_word("for") {
                if self.accept_words(&["for", "read", "only"]) {
                    continue;
                }
                let locking = self.locking()?;
                query.locking.push(locking);
            } else {
                return Ok(query);
            }
        }
    }

    fn fetch_first(&mut self) -> Result<Expr, SqlError> {
        self.advance();
        if !self.accept_word("first") {
            self.expect_word("next")?;
        }
        let pos = self.pos();
        let count = if self.is_any_word(&["row", "rows"]) {
            Expr::Literal(Literal::Int("1".into()), pos)
        } else {
            self.primary()?
        };
        if !self.accept_word("rows") {
            self.expect_word("row")?;
        }
        if self.is_word("with") {
            return self.unsupported("FETCH FIRST … WITH TIES");
        }
        self.expect_word("only")?;
        Ok(count)
    }

    fn locking(&mut self) -> Result<Locking, SqlError> {
        let pos = self.pos();
        self.expect_word("for")?;
        let strength = if self.accept_word("update") {
            LockStrength::Update
        } else if self.accept_words(&["no", "key", "update"]) {
            LockStrength::NoKeyUpdate
        } else if self.accept_word("share") {
            LockStrength::Share
        } else if self.accept_words(&["key", "share"]) {
            LockStrength::KeyShare
        } else {
            return Err(self.unexpected());
        };
        let tables = if self.accept_word("of") {
            self.comma_list(Self::col_id)?
        } else {
            Vec::new()
        };
        let policy = if self.accept_word("nowait") {
            LockPolicy::NoWait
        } else if self.accept_words(&["skip", "locked"]) {
            LockPolicy::Skip
        } else {
            LockPolicy::Wait
        };
        Ok(Locking {
            strength,
            tables,
            policy,
            pos,
        })
    }

    pub(super) fn sort_item(&mut self) -> Result<SortItem, SqlError> {
        let expr = self.expr()?;
        let descending = if self.accept_word("desc") {
            true
        } else if self.is_word("using") {
            return self.unsupported("ORDER BY … USING");
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
        Ok(SortItem {
            expr,
            descending,
            nulls_first,
        })
    }

    /// UNION and EXCEPT are level 0, INTERSECT level 1; both associate to the left.
    fn set_expression(&mut self, level: u8, left: Option<Query>) -> Result<Query, SqlError> {
        let mut left = match left {
            Some(left) if level == 0 => self.set_expression(1, Some(left))?,
            Some(left) => left,
            None if level == 0 => self.set_expression(1, None)?,
            None => self.query_operand()?,
        };
        loop {
            let pos = self.pos();
            let op = match self.tok() {
                Tok::Word(word) if level == 0 && word == "union" => SetOp::Union,
                Tok::Word(word) if level == 0 && word == "except" => SetOp::Except,
                Tok::Word(word) if level == 1 && word == "intersect" => SetOp::Intersect,
                _ => return Ok(left),
            };
            self.grow(super::TALL)?;
            self.advance();
            let all = self.accept_word("all");
            if !all {
                self.accept_word("distinct");
            }
            let right = if level == 0 {
                self.set_expression(1, None)?
            } else {
                self.query_operand()?
            };
            let start = left.pos;
            let body = Body::Set {
                op,
                all,
                left: Box::new(left),
                right: Box::new(right),
                pos,
            };
            left = bare(body, start);
        }
    }

    fn query_operand(&mut self) -> Result<Query, SqlError> {
        let pos = self.pos();
        if self.accept_sym('(') {
            let query = self.query()?;
            self.expect_sym(')')?;
            return Ok(query);
        }
        if self.accept_word("select") {
            let select = self.nested(Self::select)?;
            return Ok(bare(Body::Select(Box::new(select)), pos));
        }
        if self.accept_word("values") {
            let rows = self.comma_list(|parser| {
                parser.expect_sym('(')?;
                let row = parser.comma_list(Self::expr_or_default)?;
                parser.expect_sym(')')?;
                Ok(row)
            })?;
            return Ok(bare(Body::Values(rows, pos), pos));
        }
        if self.accept_word("table") {
            let name = self.qualified_name()?;
            let select = Select {
                distinct: None,
                targets: vec![Target::Star(pos)],
                from: vec![FromItem::Table(name, Alias::default())],
                filter: None,
                group_by: Vec::new(),
                having: None,
            };
            return Ok(bare(Body::Select(Box::new(select)), pos));
        }
        Err(self.unexpected())
    }

    fn select(&mut self) -> Result<Select, SqlError> {
        let distinct = if self.accept_word("distinct") {
            if self.accept_word("on") {
                self.expect_sym('(')?;
                let keys = self.comma_list(Self::expr)?;
                self.expect_sym(')')?;
                Some(keys)
            } else {
                Some(Vec::new())
            }
        } else {
            self.accept_word("all");
            None
        };
        let targets = if self.at_end() || self.is_sym(';') || self.is_sym(')') || self.at_select_clause() {
            Vec::new()
        } else {
            self.comma_list(Self::target)?
        };
        if self.is_word("into") {
            return self.unsupported("SELECT INTO");
        }
        let from = if self.accept_word("from") {
            self.comma_list(Self::table_item)?
        } else {
            Vec::new()
        };
        let filter = if self.accept_word("where") {
            Some(self.expr()?)
        } else {
            None
        };
        let group_by = if self.accept_word("group") {
            self.expect_word("by")?;
            if self.is_any_word(&["rollup", "cube"]) && self.is_sym_at(1, '(') || self.is_word("grouping") {
                return self.unsupported("GROUPING SETS, ROLLUP and CUBE");
            }
            self.comma_list(Self::expr)?
        } else {
            Vec::new()
        };
        let having = if self.accept_word("having") {
            Some(self.expr()?)
        } else {
            None
        };
        if self.is_word("window") {
            return self.unsupported("WINDOW");
        }
        Ok(Select {
            distinct,
            targets,
            from,
            filter,
            group_by,
            having,
        })
    }

    fn at_select_clause(&self) -> bool {
        self.is_any_word(&[
            "from",
            "where",
            "group",
            "having",
            "union",
            "intersect",
            "except",
            "order",
            "limit",
            "offset",
            "for",
            "fetch",
        ])
    }

    pub(super) fn target(&mut self) -> Result<Target, SqlError> {
        let pos = self.pos();
        if self.accept_op("*") {
            return Ok(Target::Star(pos));
        }
        let expr = self.expr()?;
        if let Expr::WholeRow(name) = expr {
            return Ok(Target::QualifiedStar(name));
        }
        let alias = if self.accept_word("as") {
            Some(self.col_label()?)
        } else {
            self.name_if(keywords::can_be_bare_label)
        };
        Ok(Target::Expr(expr, alias))
    }

    pub(super) fn returning(&mut self) -> Result<Vec<Target>, SqlError> {
        if self.accept_word("returning") {
            self.comma_list(Self::target)
        } else {
            Ok(Vec::new())
        }
    }

    pub(super) fn table_item(&mut self) -> Result<FromItem, SqlError> {
        self.nested(|parser| {
            let mut left = parser.table_primary()?;
            while let Some(joined) = parser.join(&mut left)? {
                left = joined;
                parser.grow(super::TALL)?;
            }
            Ok(left)
        })
    }

    fn join(&mut self, left: &mut FromItem) -> Result<Option<FromItem>, SqlError> {
        let pos = self.pos();
        let natural = self.accept_word("natural");
        let (kind, cross) = if self.accept_word("cross") {
            (JoinKind::Inner, true)
        } else if self.is_any_word(&["left", "right", "full"]) {
            let kind = match self.tok() {
                Tok::Word(word) if word == "left" => JoinKind::Left,
                Tok::Word(word) if word == "right" => JoinKind::Right,
                _ => JoinKind::Full,
            };
            self.advance();
            self.accept_word("outer");
            (kind, false)
        } else if self.accept_word("inner") || natural || self.is_word("join") {
            (JoinKind::Inner, false)
        } else {
            return Ok(None);
        };
        self.expect_word("join")?;
        let right = self.table_primary()?;
        let condition = if cross {
            JoinCondition::None
        } else if natural {
            JoinCondition::Natural
        } else {
            // `a join b join c on … on …`: the condition may come after further joins of the right side.
            return self.join_condition(left, right, kind, pos).map(Some);
        };
        let left = std::mem::replace(left, FromItem::Table(Vec::new(), Alias::default()));
        Ok(Some(FromItem::Join {
            kind,
            left: Box::new(left),
            right: Box::new(right),
            condition,
            pos,
        }))
    }

    fn join_condition(
        &mut self,
        left: &mut FromItem,
        mut right: FromItem,
        kind: JoinKind,
        pos: u32,
    ) -> Result<FromItem, SqlError> {
        let condition = loop {
            if self.accept_word("on") {
                break JoinCondition::On(self.expr()?);
            }
            if self.accept_word("using") {
                break JoinCondition::Using(self.name_list_in_parens()?);
            }
            match self.nested(|parser| parser.join(&mut right))? {
                Some(joined) => right = joined,
                None => return Err(self.unexpected()),
            }
            self.grow(super::TALL)?;
        };
        let left = std::mem::replace(left, FromItem::Table(Vec::new(), Alias::default()));
        Ok(FromItem::Join {
            kind,
            left: Box::new(left),
            right: Box::new(right),
            condition,
            pos,
        })
    }

    fn table_primary(&mut self) -> Result<FromItem, SqlError> {
        let lateral = self.accept_word("lateral");
        let pos = self.pos();
        if self.is_sym('(') {
            if self.paren_holds_query() {
                self.advance();
                let query = self.query()?;
                self.expect_sym(')')?;
                let alias = self.alias()?;
                if alias.name.is_none() {
                    let kind = if matches!(query.body, Body::Values(..)) {
                        "VALUES"
                    } else {
                        "subquery"
                    };
                    return Err(self
                        .error_at(
                            pos,
                            SqlState::SYNTAX_ERROR,
                            format!("{kind} in FROM must have an alias"),
                        )
                        .with_hint(if kind == "VALUES" {
                            "For example, FROM (VALUES ...) [AS] foo."
                        } else {
                            "For example, FROM (SELECT ...) [AS] foo."
                        }));
                }
                return Ok(FromItem::Query(Box::new(query), alias, lateral, pos));
            }
            self.advance();
            let item = self.table_item()?;
            if !matches!(item, FromItem::Join { .. }) {
                return Err(self.unexpected());
            }
            self.expect_sym(')')?;
            if self.is_word("as") || matches!(self.tok(), Tok::Word(word) if keywords::can_name_column(word))
            {
                return self.unsupported("an alias of a parenthesised join");
            }
            return Ok(item);
        }
        if self.is_words_rows_from() {
            return self.unsupported("ROWS FROM");
        }
        self.accept_word("only");
        if self.at_function_call() {
            let Expr::Call(call) = self.primary()? else {
                return Err(self.unexpected());
            };
            let ordinality = self.accept_words(&["with", "ordinality"]);
            let alias = self.alias()?;
            return Ok(FromItem::Function(call, alias, ordinality));
        }
        let name = self.qualified_name()?;
        self.accept_op("*");
        if self.is_word("tablesample") {
            return self.unsupported("TABLESAMPLE");
        }
        Ok(FromItem::Table(name, self.alias()?))
    }

    fn is_words_rows_from(&self) -> bool {
        self.is_word("rows") && self.is_word_at(1, "from") && self.is_sym_at(2, '(')
    }

    /// Name parts joined by points, then a parenthesis.
    fn at_function_call(&self) -> bool {
        let mut ahead = 0;
        loop {
            match self.tok_at(ahead) {
                Tok::Word(word) if ahead > 0 || keywords::can_name_function(word) => {}
                Tok::Word(word) if word.starts_with("current_") || word == "session_user" => return true,
                Tok::Quoted(_) => {}
                _ => return false,
            }
            if self.is_sym_at(ahead + 1, '.') {
                ahead += 2;
            } else {
                return self.is_sym_at(ahead + 1, '(');
            }
        }
    }

    /// At `(`: does the parenthesis enclose a query (and not a join)?
    pub(super) fn paren_holds_query(&self) -> bool {
        let starts_query = |at: usize| {
            ["select", "values", "with", "table"]
                .iter()
                .any(|word| self.is_word_at(at, word))
        };
        if !self.is_sym_at(1, '(') {
            return starts_query(1);
        }
        // Each of many parentheses asks: where they lead and end is looked up.
        let parens = self.parens.get_or_init(|| Parens::of(&self.tokens));
        let inner = self.at + 1;
        if !starts_query(parens.after_run[inner] as usize - self.at) {
            return false;
        }
        // `((select …) …`: a query if a set operation or `)` follows the inner parenthesis, a join otherwise.
        let at = match parens.after_close[inner] as usize {
            0 => return true,
            after => after - self.at,
        };
        self.is_sym_at(at, ')')
            || [
                "union",
                "intersect",
                "except",
                "order",
                "limit",
                "offset",
                "fetch",
            ]
            .iter()
            .any(|word| self.is_word_at(at, word))
    }

    fn alias(&mut self) -> Result<Alias, SqlError> {
        let name = if self.accept_word("as") {
            Some(self.col_id()?)
        } else {
            self.name_if(keywords::can_name_column)
        };
        let Some(name) = name else {
            return Ok(Alias::default());
        };
        let columns = if self.is_sym('(') {
            self.alias_columns()?
        } else {
            Vec::new()
        };
        Ok(Alias {
            name: Some(name),
            columns,
        })
    }

    fn alias_columns(&mut self) -> Result<Vec<Name>, SqlError> {
        if matches!(self.tok_at(1), Tok::Word(_) | Tok::Quoted(_)) && matches!(self.tok_at(2), Tok::Word(_)) {
            return self.unsupported("a column definition list");
        }
        self.name_list_in_parens()
    }
}

/// What an opening parenthesis leads to and where it ends, for each token (of others it says nothing).
pub(super) struct Parens {
    /// The first token behind it and the opening parentheses that follow it at once.
    after_run: Vec<u32>,
    /// The token behind the one that closes it; 0: nothing does.
    after_close: Vec<u32>,
}

impl Parens {
    fn of(tokens: &[Token<'_>]) -> Parens {
        let mut after_run = vec![0; tokens.len()];
        let mut after_close = vec![0; tokens.len()];
        let mut open = Vec::new();
        for (at, token) in tokens.iter().enumerate() {
            match token.tok {
                Tok::Sym('(') => open.push(at),
                Tok::Sym(')') => {
                    if let Some(from) = open.pop() {
                        after_close[from] = at as u32 + 1;
                    }
                }
                _ => {}
            }
        }
        let mut after = tokens.len() as u32;
        for (at, token) in tokens.iter().enumerate().rev() {
            if token.tok == Tok::Sym('(') {
                after_run[at] = after;
            } else {
                after = at as u32;
            }
        }
        Parens {
            after_run,
            after_close,
        }
    }
}

/// A query with nothing around its body.
pub(super) fn bare(body: Body, pos: u32) -> Query {
    Query {
        with: Vec::new(),
        body,
        order_by: Vec::new(),
        limit: None,
        offset: None,
        locking: Vec::new(),
        pos,
    }
}

/// `select * from (query) as "?"`: keeps the inner clauses apart from the outer ones.
fn wrap(query: Query) -> Query {
    let pos = query.pos;
    let alias = Alias {
        name: Some(Name {
            text: "*paren*".into(),
            pos,
        }),
        columns: Vec::new(),
    };
    let select = Select {
        distinct: None,
        targets: vec![Target::Star(pos)],
        from: vec![FromItem::Query(Box::new(query), alias, false, pos)],
        filter: None,
        group_by: Vec::new(),
        having: None,
    };
    bare(Body::Select(Box::new(select)), pos)
}
