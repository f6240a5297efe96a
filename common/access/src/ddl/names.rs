//! Names that a statement leaves to us: PostgreSQL's choice, made unique within the schema.

use towline_base::Oid;

use crate::catalog::CatalogState;

/// Longest name, in bytes.
const MAX_NAME: usize = 63;

/// Cuts a name to 63 bytes at a character boundary, as PostgreSQL truncates identifiers.
pub(super) fn truncated(name: &str, max: usize) -> &str {
    let mut end = name.len().min(max);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// `name1_name2_label`, the longer part cut first until all fits (PostgreSQL's `makeObjectName`).
pub(super) fn object_name(name1: &str, name2: Option<&str>, label: &str) -> String {
    let overhead = 1 + label.len() + if name2.is_some() { 1 } else { 0 };
    let room = MAX_NAME.saturating_sub(overhead);
    let second = name2.unwrap_or("");
    let (mut len1, mut len2) = (name1.len(), second.len());
    while len1 + len2 > room {
        if len1 > len2 {
            len1 -= 1;
        } else {
            len2 -= 1;
        }
    }
    let mut out = truncated(name1, len1).to_owned();
    if name2.is_some() {
        out.push('_');
        out.push_str(truncated(second, len2));
    }
    out.push('_');
    out.push_str(label);
    out
}

/// A name for an index or constraint on `columns` of `table` that no relation of the schema, and nothing in `taken`, has.
pub(super) fn choose(
    catalog: &CatalogState,
    schema: Oid,
    table: &str,
    columns: &[&str],
    label: &str,
    taken: &[String],
) -> String {
    let joined = (!columns.is_empty()).then(|| joined_columns(columns));
    for pass in 0u32.. {
        let label = if pass == 0 {
            label.to_owned()
        } else {
            format!("{label}{pass}")
        };
        let name = object_name(table, joined.as_deref(), &label);
        if catalog.relation_in(schema, &name).is_none() && !taken.contains(&name) {
            return name;
        }
    }
    unreachable!("more names than relations")
}

/// Column names joined by underscores, no longer than a name (PostgreSQL's `ChooseIndexNameAddition`).
fn joined_columns(columns: &[&str]) -> String {
    let mut out = String::new();
    for column in columns {
        if !out.is_empty() {
            out.push('_');
        }
        out.push_str(column);
        if out.len() > MAX_NAME {
            break;
        }
    }
    truncated(&out, MAX_NAME).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_composed_and_cut_like_postgresqls() {
        assert_eq!(object_name("t", None, "pkey"), "t_pkey");
        assert_eq!(object_name("t", Some("a_b"), "key"), "t_a_b_key");
        let long = "x".repeat(63);
        assert_eq!(object_name(&long, None, "pkey").len(), 63);
        assert_eq!(
            object_name(&long, Some("col"), "idx"),
            format!("{}_col_idx", "x".repeat(55))
        );
    }
}
