//! Which signature a call means: PostgreSQL's rules for operators and functions (chapter "Type Conversion").
//!
//! Exact matches win; otherwise candidates whose arguments all convert implicitly are narrowed down by exact matches,
//! preferred types and, for undecided literals, type categories, until one is left.

use super::coerce::select_common;
use super::functions::FunctionDef;
use crate::error::SqlError;
use towline_base::SqlState;
use towline_types::cast::{CastContext, find_cast};
use towline_types::{Category, TypeId};

/// Most arguments of a call.
pub(super) const MAX_ARGUMENTS: usize = 100;

/// What a resolution came to.
pub(super) enum Choice {
    /// This signature.
    One(&'static FunctionDef),
    /// None takes these types.
    None,
    /// Several fit equally.
    Ambiguous,
}

/// Whether an argument of type `from` may stand where `to` is declared.
fn convertible(from: TypeId, to: TypeId) -> bool {
    match to {
        TypeId::Any | TypeId::AnyElement => true,
        TypeId::AnyArray => from == TypeId::Unknown || from.element().is_some() || from == TypeId::AnyArray,
        // varchar has no operators of its own: it is text.
        _ => find_cast(from, to) == Some(CastContext::Implicit),
    }
}

/// The same type for resolution: a varchar is a text that need not be converted.
fn is_exact(from: TypeId, to: TypeId) -> bool {
    from == to
}

/// Functions whose array and element may differ in type and meet in a common one (`anycompatible`).
fn is_compatible_family(name: &str) -> bool {
    matches!(
        name,
        "||" | "array_append"
            | "array_prepend"
            | "array_cat"
            | "array_remove"
            | "array_replace"
            | "array_position"
    )
}

/// The element types that the polymorphic arguments bring.
fn elements<'t>(def: &'t FunctionDef, types: &'t [TypeId]) -> impl Iterator<Item = TypeId> + 't {
    let brought = types.iter().enumerate().filter_map(|(i, ty)| match def.arg(i) {
        TypeId::AnyElement => Some(*ty),
        TypeId::AnyArray => ty.element(),
        _ => None,
    });
    brought.filter(|ty| *ty != TypeId::Unknown)
}

/// Whether all AnyElement and AnyArray arguments agree on one element type.
fn polymorphic(def: &FunctionDef, types: &[TypeId]) -> bool {
    let mut elements = elements(def, types);
    let Some(first) = elements.next() else { return true };
    if is_compatible_family(def.name) {
        return select_common(elements.chain([first])).is_ok();
    }
    elements.all(|ty| ty == first)
}

/// Whether a call has polymorphic arguments and none tells their type.
pub(super) fn is_undetermined(def: &FunctionDef, types: &[TypeId]) -> bool {
    let polymorphic = |i: usize| matches!(def.arg(i), TypeId::AnyElement | TypeId::AnyArray);
    let mut wanted = (0..types.len()).filter(|i| polymorphic(*i)).peekable();
    wanted.peek().is_some() && wanted.all(|i| types[i] == TypeId::Unknown)
}

/// The element type of a polymorphic call; `None` if no argument tells.
pub(super) fn polymorphic_element(def: &FunctionDef, types: &[TypeId]) -> Option<TypeId> {
    let mut elements = elements(def, types);
    let first = elements.next()?;
    if is_compatible_family(def.name) {
        return select_common([first].into_iter().chain(elements)).ok().flatten();
    }
    Some(first)
}

/// Chooses among signatures of one name for arguments of these types.
pub(super) fn choose(candidates: &[&'static FunctionDef], types: &[TypeId]) -> Choice {
    let mut fitting: Vec<&'static FunctionDef> = candidates
        .iter()
        .copied()
        .filter(|d| {
            d.takes(types.len())
                && types.iter().enumerate().all(|(i, t)| convertible(*t, d.arg(i)))
                && polymorphic(d, types)
        })
        .collect();
    if let Some(exact) = fitting.iter().find(|d| {
        types
            .iter()
            .enumerate()
            .all(|(i, t)| is_exact(*t, d.arg(i)) && *t != TypeId::Unknown)
    }) {
        return Choice::One(exact);
    }
    match fitting.as_slice() {
        [] => return Choice::None,
        [one] => return Choice::One(one),
        _ => {}
    }
    let known = |i: usize| types[i] != TypeId::Unknown;
    // Varchar is looked up as text in everything that follows.
    let base = |t: TypeId| if t == TypeId::Varchar { TypeId::Text } else { t };
    keep_best(&mut fitting, |d| {
        (0..types.len())
            .filter(|i| known(*i) && base(types[*i]) == d.arg(*i))
            .count()
    });
    if let [one] = fitting.as_slice() {
        return Choice::One(one);
    }
    keep_best(&mut fitting, |d| {
        let fits = |i: usize| {
            let declared = d.arg(i);
            base(types[i]) == declared
                || (declared.is_preferred() && declared.category() == types[i].category())
        };
        (0..types.len()).filter(|i| known(*i) && fits(*i)).count()
    });
    if let [one] = fitting.as_slice() {
        return Choice::One(one);
    }
    if types.iter().all(|t| *t != TypeId::Unknown) {
        return Choice::Ambiguous;
    }
    // Decide the category of each undecided argument: string if any candidate takes one, else what all agree on.
    let mut decided = true;
    let mut wanted: Vec<Option<(Category, bool)>> = vec![None; types.len()];
    for (i, slot) in wanted.iter_mut().enumerate() {
        if known(i) {
            continue;
        }
        let categories: Vec<Category> = fitting.iter().map(|d| d.arg(i).category()).collect();
        let category = if categories.contains(&Category::String) {
            Category::String
        } else if categories.iter().all(|c| *c == categories[0]) {
            categories[0]
        } else {
            decided = false;
            break;
        };
        let preferred = fitting
            .iter()
            .any(|d| d.arg(i).category() == category && d.arg(i).is_preferred());
        *slot = Some((category, preferred));
    }
    if decided {
        let narrowed: Vec<_> = fitting
            .iter()
            .copied()
            .filter(|d| {
                wanted.iter().enumerate().all(|(i, w)| match w {
                    None => true,
                    Some((category, preferred)) => {
                        d.arg(i).category() == *category && (!preferred || d.arg(i).is_preferred())
                    }
                })
            })
            .collect();
        if !narrowed.is_empty() {
            fitting = narrowed;
        }
        if let [one] = fitting.as_slice() {
            return Choice::One(one);
        }
    }
    // If all known arguments are of one type, assume the others are too.
    let mut types_known = types.iter().copied().filter(|t| *t != TypeId::Unknown);
    if let Some(first) = types_known.next()
        && types_known.all(|t| t == first)
    {
        let assumed: Vec<_> = fitting
            .iter()
            .copied()
            .filter(|d| (0..types.len()).all(|i| convertible(first, d.arg(i))))
            .filter(|d| polymorphic(d, &vec![first; types.len()]))
            .collect();
        if let [one] = assumed.as_slice() {
            return Choice::One(one);
        }
    }
    Choice::Ambiguous
}

fn keep_best(candidates: &mut Vec<&'static FunctionDef>, score: impl Fn(&FunctionDef) -> usize) {
    let best = candidates.iter().map(|d| score(d)).max().unwrap_or(0);
    if best > 0 {
        candidates.retain(|d| score(d) == best);
    }
}

/// Chooses an operator: as [`choose`], but first an undecided operand is taken to be of the other's type.
pub(super) fn choose_operator(candidates: &[&'static FunctionDef], types: &[TypeId]) -> Choice {
    if let [left, right] = types {
        let (left, right) = match (*left, *right) {
            (TypeId::Unknown, r) => (r, r),
            (l, TypeId::Unknown) => (l, l),
            both => both,
        };
        if left != TypeId::Unknown {
            let exact = candidates.iter().find(|d| d.args == [left, right]);
            if let Some(def) = exact {
                return Choice::One(def);
            }
        }
    }
    if types.iter().any(|t| t.element().is_some()) {
        // `any || text` means anything but an array.
        let arrays: Vec<_> = candidates
            .iter()
            .copied()
            .filter(|d| !d.args.contains(&TypeId::Any))
            .collect();
        return choose(&arrays, types);
    }
    choose(candidates, types)
}

fn names(types: &[TypeId]) -> String {
    types.iter().map(|t| t.sql_name()).collect::<Vec<_>>().join(", ")
}

/// 42883 or 42725 for an operator.
#[cold]
pub(super) fn operator_error(op: &str, types: &[TypeId], ambiguous: bool) -> SqlError {
    let shown = match types {
        [arg] => format!("{op} {}", arg.sql_name()),
        [left, right] => format!("{} {op} {}", left.sql_name(), right.sql_name()),
        _ => op.to_string(),
    };
    if ambiguous {
        return SqlError::new(
            SqlState::AMBIGUOUS_FUNCTION,
            format!("operator is not unique: {shown}"),
        )
        .with_hint("Could not choose a best candidate operator. You might need to add explicit type casts.");
    }
    let error = SqlError::new(
        SqlState::UNDEFINED_FUNCTION,
        format!("operator does not exist: {shown}"),
    );
    let plural = if types.len() == 1 {
        "argument type. You might need to add an explicit type cast."
    } else {
        "argument types. You might need to add explicit type casts."
    };
    error.with_hint(format!("No operator matches the given name and {plural}"))
}

/// 42883 or 42725 for a function.
#[cold]
pub(super) fn function_error(name: &str, types: &[TypeId], ambiguous: bool) -> SqlError {
    let shown = format!("{name}({})", names(types));
    if ambiguous {
        return SqlError::new(
            SqlState::AMBIGUOUS_FUNCTION,
            format!("function {shown} is not unique"),
        )
        .with_hint("Could not choose a best candidate function. You might need to add explicit type casts.");
    }
    SqlError::new(
        SqlState::UNDEFINED_FUNCTION,
        format!("function {shown} does not exist"),
    )
    .with_hint(
        "No function matches the given name and argument types. You might need to add explicit type casts.",
    )
}
