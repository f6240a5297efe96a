//! One version of the catalog, loaded into memory: every descriptor by OID and by name.
//!
//! A state is what one snapshot sees in pg_class, pg_attribute, pg_index and the rest; it never changes. It is built by
//! [`super::load`] and shared.

use std::sync::Arc;

use hashbrown::HashMap;
use towline_base::{Lsn, Oid};

use super::descriptor::{Index, Role, Schema, Table};

/// A relation found by name.
#[derive(Clone, Debug)]
pub enum Relation {
    /// A table or virtual view.
    Table(Arc<Table>),
    /// An index.
    Index(Arc<Index>),
}

impl Relation {
    /// Its OID.
    pub fn oid(&self) -> Oid {
        match self {
            Relation::Table(table) => table.oid,
            Relation::Index(index) => index.oid,
        }
    }
}

/// All descriptors that one snapshot sees.
#[derive(Debug, Default)]
pub struct CatalogState {
    pub(super) loaded_at: Lsn,
    pub(super) relations: HashMap<Oid, Relation>,
    pub(super) by_name: HashMap<(Oid, Arc<str>), Oid>,
    pub(super) schemas: HashMap<Oid, Schema>,
    pub(super) schema_names: HashMap<Arc<str>, Oid>,
    pub(super) roles: HashMap<Oid, Arc<Role>>,
    pub(super) role_names: HashMap<Arc<str>, Oid>,
}

impl CatalogState {
    /// Adds a relation.
    pub(super) fn insert(&mut self, schema: Oid, name: &Arc<str>, relation: Relation) {
        let oid = relation.oid();
        self.by_name.insert((schema, Arc::clone(name)), oid);
        self.relations.insert(oid, relation);
    }

    /// The snapshot this was read with.
    pub fn loaded_at(&self) -> Lsn {
        self.loaded_at
    }

    /// The table or virtual view with this OID.
    pub fn table(&self, oid: Oid) -> Option<&Arc<Table>> {
        match self.relations.get(&oid)? {
            Relation::Table(table) => Some(table),
            Relation::Index(_) => None,
        }
    }

    /// The index with this OID.
    pub fn index(&self, oid: Oid) -> Option<&Arc<Index>> {
        match self.relations.get(&oid)? {
            Relation::Table(_) => None,
            Relation::Index(index) => Some(index),
        }
    }

    /// The relation with this OID, of either kind.
    pub fn relation(&self, oid: Oid) -> Option<&Relation> {
        self.relations.get(&oid)
    }

    /// The relation called `name` in the schema with OID `schema`.
    pub fn relation_in(&self, schema: Oid, name: &str) -> Option<&Relation> {
        let key = NameKey(schema, name);
        self.relations.get(self.by_name.get(&key)?)
    }

    /// The relation called `name`: in `schema` if one is named, else the first found along `search_path` (schema
    /// names; pg_catalog is searched first unless the path names it).
    pub fn find_relation(&self, schema: Option<&str>, name: &str, search_path: &[&str]) -> Option<&Relation> {
        if let Some(schema) = schema {
            return self.relation_in(*self.schema_names.get(schema)?, name);
        }
        let implicit = if search_path.contains(&"pg_catalog") {
            None
        } else {
            Some("pg_catalog")
        };
        implicit
            .iter()
            .chain(search_path)
            .filter_map(|schema| self.schema_names.get(*schema))
            .find_map(|schema| self.relation_in(*schema, name))
    }

    /// The schema called `name`.
    pub fn schema(&self, name: &str) -> Option<&Schema> {
        self.schemas.get(self.schema_names.get(name)?)
    }

    /// The schema with this OID.
    pub fn schema_by_oid(&self, oid: Oid) -> Option<&Schema> {
        self.schemas.get(&oid)
    }

    /// The role called `name`.
    pub fn role(&self, name: &str) -> Option<&Arc<Role>> {
        self.roles.get(self.role_names.get(name)?)
    }

    /// The role with this OID.
    pub fn role_by_oid(&self, oid: Oid) -> Option<&Arc<Role>> {
        self.roles.get(&oid)
    }

    /// All tables and virtual views, in no order.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.relations.values().filter_map(|relation| match relation {
            Relation::Table(table) => Some(table),
            Relation::Index(_) => None,
        })
    }

    /// All roles, in no order.
    pub fn roles(&self) -> impl Iterator<Item = &Arc<Role>> {
        self.roles.values()
    }

    /// All schemas, in no order.
    pub fn schemas(&self) -> impl Iterator<Item = &Schema> {
        self.schemas.values()
    }
}

/// Looks up `(Oid, Arc<str>)` keys by a borrowed name.
#[derive(Hash)]
struct NameKey<'a>(Oid, &'a str);

impl hashbrown::Equivalent<(Oid, Arc<str>)> for NameKey<'_> {
    fn equivalent(&self, key: &(Oid, Arc<str>)) -> bool {
        self.0 == key.0 && self.1 == &*key.1
    }
}
