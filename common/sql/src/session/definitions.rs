//! CREATE, DROP, ALTER, TRUNCATE and roles: from the syntax tree to the engine's definitions.

use towline_access::ddl::{self, DdlOp};
use towline_base::SqlState;
use towline_base::scram::ScramSecret;
use towline_types::{ColumnType, TypeId};

use super::Session;
use super::run::Portal;
use super::utility::Utility;
use crate::error::{Notice, Severity, SqlError};
use crate::parse::ast::{self, AlterAction, Statement};

impl Session {
    pub(super) fn start_create_table(
        &mut self,
        portal: &Portal,
        create: &ast::CreateTable,
    ) -> Result<Utility, SqlError> {
        self.ensure_transaction()?;
        let mut columns = Vec::with_capacity(create.columns.len());
        let text = portal.prepared.text.clone();
        if let Some(query) = &create.query {
            let view = self.catalog_view()?;
            let path = self.search_path();
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let cx = crate::bind::BindContext {
                text: &text,
                catalog: &view,
                search_path: &path,
                style: &self.style,
                params: false,
            };
            let bound = crate::bind::bind(&Statement::Query(query.clone()), Vec::new(), cx)?;
            for column in bound.columns {
                crate::bind::check_storable(column.ty, &column.name)?;
                columns.push(ddl::NewColumn {
                    name: column.name,
                    column_type: column.ty,
                    not_null: false,
                    default: None,
                });
            }
        }
        for column in &create.columns {
            columns.push(self.new_column(column, &text)?);
        }
        let mut constraints = Vec::with_capacity(create.keys.len());
        for (at, key) in create.keys.iter().enumerate() {
            if key.primary && create.keys[..at].iter().any(|other| other.primary) {
                let table = create.name.last().map_or("", |name| name.text.as_str());
                return Err(SqlError::new(
                    SqlState::INVALID_TABLE_DEFINITION,
                    format!("multiple primary keys for table \"{table}\" are not allowed"),
                )
                .with_position(crate::parse::lex::char_position(&text, key.pos)));
            }
            constraints.push(new_constraint(key));
        }
        let statement = ddl::Statement::CreateTable(ddl::CreateTable {
            name: qualified(&create.name),
            if_not_exists: create.if_not_exists,
            columns,
            constraints,
            fillfactor: fillfactor(&create.options)?,
        });
        let op = DdlOp::new(statement, self.role.oid);
        let Some(query) = &create.query else {
            return Ok(Utility::Ddl {
                ops: vec![op],
                tag: "CREATE TABLE",
            });
        };
        let fill = ast::Insert {
            with: Vec::new(),
            table: create.name.clone(),
            alias: None,
            columns: Vec::new(),
            source: Some(query.clone()),
            returning: Vec::new(),
        };
        Ok(Utility::CreateAs {
            op: Some(Box::new(op)),
            insert: None,
            text,
            fill: Box::new(fill),
        })
    }

    fn new_column(&mut self, column: &ast::ColumnDef, text: &str) -> Result<ddl::NewColumn, SqlError> {
        let ty = crate::bind::bind_type(&column.ty, text)?;
        crate::bind::check_storable(ty, &column.name.text)?;
        let default = match &column.default {
            None => None,
            Some((expr, written)) => {
                let view = self.catalog_view()?;
                let path = self.search_path();
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                let cx = crate::bind::BindContext {
                    text,
                    catalog: &view,
                    search_path: &path,
                    style: &self.style,
                    params: false,
                };
                crate::bind::default_expression(expr, ty, &column.name.text, cx)?;
                Some(shown_default(expr, written, ty))
            }
        };
        Ok(ddl::NewColumn {
            name: column.name.text.clone(),
            column_type: ty,
            not_null: column.not_null,
            default,
        })
    }

    pub(super) fn start_ddl(&mut self, statement: &Statement) -> Result<Utility, SqlError> {
        self.ensure_transaction()?;
        let (statement, tag) = match statement {
            Statement::DropTable(names, if_exists, cascade) => (
                drop_of(ddl::DropKind::Table, names, *if_exists, *cascade),
                "DROP TABLE",
            ),
            Statement::DropIndex(names, if_exists, cascade) => (
                drop_of(ddl::DropKind::Index, names, *if_exists, *cascade),
                "DROP INDEX",
            ),
            Statement::Truncate(names) => {
                let tables = names.iter().map(|name| qualified(name)).collect();
                (
                    ddl::Statement::Truncate(ddl::Truncate { tables }),
                    "TRUNCATE TABLE",
                )
            }
            Statement::AlterTable(name, if_exists, actions) => {
                let mut bound = Vec::with_capacity(actions.len());
                for action in actions {
                    bound.push(match action {
                        AlterAction::AddKey(key) => ddl::AlterTableAction::AddConstraint(new_constraint(key)),
                        AlterAction::SetOptions(options) => {
                            ddl::AlterTableAction::SetFillfactor(fillfactor(options)?)
                        }
                    });
                }
                let alter = ddl::AlterTable {
                    name: qualified(name),
                    if_exists: *if_exists,
                    actions: bound,
                };
                (ddl::Statement::AlterTable(alter), "ALTER TABLE")
            }
            Statement::CreateIndex(create) => {
                let keys = create
                    .columns
                    .iter()
                    .map(|(column, descending, nulls_first)| ddl::NewIndexKey {
                        column: column.text.clone(),
                        descending: *descending,
                        nulls_first: *nulls_first,
                    })
                    .collect();
                let index = ddl::CreateIndex {
                    name: create.name.as_ref().map(|name| name.text.clone()),
                    if_not_exists: create.if_not_exists,
                    table: qualified(&create.table),
                    unique: create.unique,
                    keys,
                    fillfactor: fillfactor(&create.options)?,
                };
                (ddl::Statement::CreateIndex(index), "CREATE INDEX")
            }
            Statement::CreateRole(name, user, options) => {
                self.check_role_privilege("create role")?;
                let mut options = self.role_options(options)?;
                if *user && options.can_login.is_none() {
                    options.can_login = Some(true);
                }
                let create = ddl::CreateRole {
                    name: name.text.clone(),
                    options,
                };
                (ddl::Statement::CreateRole(create), "CREATE ROLE")
            }
            Statement::AlterRole(name, options) => {
                let name = self.role_named(&name.text);
                self.check_may_alter(&name, options)?;
                let options = self.role_options(options)?;
                (
                    ddl::Statement::AlterRole(ddl::AlterRole { name, options }),
                    "ALTER ROLE",
                )
            }
            Statement::DropRole(names, if_exists) => {
                self.check_role_privilege("drop role")?;
                let names: Vec<String> = names.iter().map(|name| self.role_named(&name.text)).collect();
                for name in &names {
                    if self.is_superuser(name)? && !self.role.superuser {
                        return Err(SqlError::denied("must be superuser to drop superusers"));
                    }
                }
                if names.contains(&self.user) {
                    return Err(SqlError::new(
                        SqlState::OBJECT_IN_USE,
                        "current user cannot be dropped",
                    ));
                }
                (
                    ddl::Statement::DropRole(ddl::DropRole {
                        names,
                        if_exists: *if_exists,
                    }),
                    "DROP ROLE",
                )
            }
            _ => return Err(SqlError::internal("a statement without an executor")),
        };
        Ok(Utility::Ddl {
            ops: vec![DdlOp::new(statement, self.role.oid)],
            tag,
        })
    }

    fn role_named(&self, name: &str) -> String {
        match name {
            "current_user" | "session_user" => self.user.clone(),
            other => other.to_owned(),
        }
    }

    fn check_role_privilege(&self, what: &str) -> Result<(), SqlError> {
        if self.role.superuser || self.role.create_role {
            return Ok(());
        }
        Err(SqlError::denied(format!("permission denied to {what}")))
    }

    fn is_superuser(&mut self, name: &str) -> Result<bool, SqlError> {
        Ok(self.catalog_view()?.role(name).is_some_and(|role| role.superuser))
    }

    /// Who may not create roles may give itself a password and nothing else; a superuser is altered by
    /// superusers only.
    fn check_may_alter(&mut self, name: &str, options: &ast::RoleOptions) -> Result<(), SqlError> {
        if self.role.superuser {
            return Ok(());
        }
        if self.is_superuser(name)? || options.superuser.is_some() {
            return Err(SqlError::denied(
                "must be superuser to alter superuser roles or change superuser attribute",
            ));
        }
        let replicates = self
            .catalog_view()?
            .role(name)
            .is_some_and(|role| role.replication);
        if replicates || options.replication.is_some() {
            return Err(SqlError::denied(
                "must be superuser to alter replication roles or change replication attribute",
            ));
        }
        if options.bypass_rls.is_some() {
            return Err(SqlError::denied(
                "must be superuser to change bypassrls attribute",
            ));
        }
        let password = ast::RoleOptions {
            password: options.password.clone(),
            ..ast::RoleOptions::default()
        };
        if self.role.create_role || (name == self.user && options.password.is_some() && *options == password)
        {
            return Ok(());
        }
        Err(SqlError::denied("permission denied"))
    }

    fn role_options(&self, options: &ast::RoleOptions) -> Result<ddl::RoleOptions, SqlError> {
        let password = match &options.password {
            None => None,
            Some(None) => Some(None),
            Some(Some(text)) if ScramSecret::parse(text).is_some() => Some(Some(text.clone())),
            // Taken for a password in clear, whoever has the hash could log in with it.
            Some(Some(text)) if is_md5_hash(text) => {
                return Err(SqlError::unsupported("a password that is an MD5 hash"));
            }
            Some(Some(text)) if text.is_empty() => {
                self.notices.borrow_mut().push(Notice::new(
                    Severity::Notice,
                    SqlState::SUCCESSFUL_COMPLETION,
                    "empty string is not a valid password, clearing password",
                ));
                Some(None)
            }
            Some(Some(text)) => Some(Some(
                ScramSecret::generate(text)
                    .map_err(|error| SqlError::new(SqlState::SYSTEM_ERROR, error.to_string()))?
                    .to_string(),
            )),
        };
        if !self.role.superuser {
            for (given, whom) in [
                (options.superuser, "superusers"),
                (options.replication, "replication users"),
                (options.bypass_rls, "bypassrls users"),
            ] {
                if given == Some(true) {
                    return Err(SqlError::denied(format!("must be superuser to create {whom}")));
                }
            }
        }
        Ok(ddl::RoleOptions {
            superuser: options.superuser,
            inherit: options.inherit,
            create_role: options.createrole,
            create_database: options.createdb,
            can_login: options.login,
            replication: options.replication,
            bypass_row_security: options.bypass_rls,
            connection_limit: options.connection_limit,
            password,
            valid_until: None,
        })
    }
}

fn qualified(name: &[ast::Name]) -> ddl::QualifiedName {
    match name {
        [.., schema, name] => ddl::QualifiedName::in_schema(&schema.text, &name.text),
        [name] => ddl::QualifiedName::new(&name.text),
        [] => ddl::QualifiedName::new(""),
    }
}

fn fillfactor(options: &[(String, String)]) -> Result<Option<u8>, SqlError> {
    let mut found = None;
    for (name, value) in options {
        match name.as_str() {
            "fillfactor" => {
                let number = value
                    .parse::<u8>()
                    .ok()
                    .filter(|number| (10..=100).contains(number));
                found = Some(number.ok_or_else(|| {
                    let message = if value.parse::<i64>().is_ok() {
                        format!("value {value} out of bounds for option \"fillfactor\"")
                    } else {
                        format!("invalid value for integer option \"fillfactor\": {value}")
                    };
                    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
                        .with_detail("Valid values are between \"10\" and \"100\".")
                })?);
            }
            // Accepted, without effect: autovacuum comes later.
            name if name.starts_with("autovacuum_")
                || name.starts_with("toast")
                || name == "parallel_workers" => {}
            other => {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("unrecognized parameter \"{other}\""),
                ));
            }
        }
    }
    Ok(found)
}

fn drop_of(kind: ddl::DropKind, names: &[Vec<ast::Name>], if_exists: bool, cascade: bool) -> ddl::Statement {
    let names = names.iter().map(|name| qualified(name)).collect();
    ddl::Statement::Drop(ddl::Drop {
        kind,
        names,
        if_exists,
        cascade,
    })
}

fn new_constraint(key: &ast::KeyConstraint) -> ddl::NewConstraint {
    ddl::NewConstraint {
        primary: key.primary,
        name: key.name.as_ref().map(|name| name.text.clone()),
        columns: key.columns.iter().map(|column| column.text.clone()).collect(),
        fillfactor: None,
    }
}

/// A default as `pg_get_expr` prints it: string constants carry their type.
/// Whether this is what PostgreSQL stores of a password with `password_encryption = md5`.
fn is_md5_hash(text: &str) -> bool {
    text.strip_prefix("md5")
        .is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

fn shown_default(expr: &ast::Expr, written: &str, ty: ColumnType) -> String {
    match expr {
        // `character` without a length would be `character(1)`: PostgreSQL writes `bpchar` here.
        ast::Expr::Literal(ast::Literal::Str(_), _) if ty.id == TypeId::Bpchar => {
            format!("{written}::bpchar")
        }
        ast::Expr::Literal(ast::Literal::Str(_), _) => format!("{written}::{}", ty.id.sql_name()),
        ast::Expr::Literal(ast::Literal::Bool(value), _) => value.to_string(),
        ast::Expr::Call(call) if call.sql_value => written.to_uppercase(),
        _ => written.to_owned(),
    }
}
