//! [`SqlState`]: the five-character error codes of PostgreSQL that Towline uses.
//!
//! One table; an error of any crate maps to one of these in exactly one place of that crate.

use std::fmt;

/// A five-character SQLSTATE.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SqlState([u8; 5]);

impl SqlState {
    const fn of(code: &'static str) -> SqlState {
        let bytes = code.as_bytes();
        assert!(bytes.len() == 5);
        SqlState([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]])
    }

    /// The five characters.
    pub fn code(&self) -> &str {
        // Always ASCII: made only by `of` and `from_code`.
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }

    /// From five upper-case letters or digits.
    pub fn from_code(code: &str) -> Option<SqlState> {
        let bytes: [u8; 5] = code.as_bytes().try_into().ok()?;
        let valid = bytes.iter().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
        valid.then_some(SqlState(bytes))
    }

    /// The first two characters.
    pub fn class(&self) -> &str {
        &self.code()[..2]
    }

    /// PostgreSQL's condition name, or an empty string for a code that is not in our table.
    pub fn name(&self) -> &'static str {
        NAMES
            .iter()
            .find(|(state, _)| state == self)
            .map_or("", |(_, name)| name)
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlState({} {})", self.code(), self.name())
    }
}

macro_rules! states {
    ($($name:ident = $code:literal, $doc:literal;)*) => {
        impl SqlState {
            $(#[doc = $doc] pub const $name: SqlState = SqlState::of($code);)*
        }

        const NAMES: &[(SqlState, &str)] = &[$((SqlState::$name, stringify!($name)),)*];
    };
}

states! {
    SUCCESSFUL_COMPLETION = "00000", "`00000`: Success.";
    WARNING = "01000", "`01000`: A warning.";
    NO_DATA = "02000", "`02000`: No data.";
    CONNECTION_EXCEPTION = "08000", "`08000`: Connection trouble.";
    CONNECTION_DOES_NOT_EXIST = "08003", "`08003`: The connection does not exist.";
    CONNECTION_FAILURE = "08006", "`08006`: The connection failed.";
    TRANSACTION_RESOLUTION_UNKNOWN = "08007", "`08007`: Whether the transaction committed is not known.";
    PROTOCOL_VIOLATION = "08P01", "`08P01`: The client broke the protocol.";
    FEATURE_NOT_SUPPORTED = "0A000", "`0A000`: A feature that is not built.";
    CARDINALITY_VIOLATION = "21000", "`21000`: A scalar subquery gave more than one row.";
    STRING_DATA_RIGHT_TRUNCATION = "22001", "`22001`: A value is too long for its column.";
    NULL_VALUE_NOT_ALLOWED = "22004", "`22004`: A null where none may be.";
    NUMERIC_VALUE_OUT_OF_RANGE = "22003", "`22003`: A number out of range.";
    INVALID_DATETIME_FORMAT = "22007", "`22007`: Not a date or time.";
    DATETIME_FIELD_OVERFLOW = "22008", "`22008`: A date or time out of range.";
    INVALID_TIME_ZONE_DISPLACEMENT_VALUE = "22009", "`22009`: A time zone offset out of range.";
    SUBSTRING_ERROR = "22011", "`22011`: A negative substring length.";
    INTERVAL_FIELD_OVERFLOW = "22015", "`22015`: An interval out of range.";
    DIVISION_BY_ZERO = "22012", "`22012`: Division by zero.";
    INVALID_ESCAPE_CHARACTER = "22019", "`22019`: Not an escape character.";
    CHARACTER_NOT_IN_REPERTOIRE = "22021", "`22021`: Bytes that are not valid in the encoding.";
    INVALID_PARAMETER_VALUE = "22023", "`22023`: A parameter out of range.";
    INVALID_ESCAPE_SEQUENCE = "22025", "`22025`: An escape sequence that means nothing.";
    ARRAY_SUBSCRIPT_ERROR = "2202E", "`2202E`: An array subscript out of range.";
    INVALID_REGULAR_EXPRESSION = "2201B", "`2201B`: Not a regular expression.";
    INVALID_ROW_COUNT_IN_LIMIT_CLAUSE = "2201W", "`2201W`: A negative LIMIT.";
    INVALID_ROW_COUNT_IN_RESULT_OFFSET_CLAUSE = "2201X", "`2201X`: A negative OFFSET.";
    INVALID_ARGUMENT_FOR_LOGARITHM = "2201E", "`2201E`: Logarithm of a number that has none.";
    INVALID_ARGUMENT_FOR_POWER_FUNCTION = "2201F", "`2201F`: A power that has no value.";
    INVALID_TEXT_REPRESENTATION = "22P02", "`22P02`: Text that is not a value of its type.";
    INVALID_BINARY_REPRESENTATION = "22P03", "`22P03`: Bytes that are not a value of their type.";
    BAD_COPY_FILE_FORMAT = "22P04", "`22P04`: COPY data in the wrong format.";
    UNTRANSLATABLE_CHARACTER = "22P05", "`22P05`: A character without an equivalent.";
    INTEGRITY_CONSTRAINT_VIOLATION = "23000", "`23000`: A constraint is violated.";
    NOT_NULL_VIOLATION = "23502", "`23502`: A null in a NOT NULL column.";
    FOREIGN_KEY_VIOLATION = "23503", "`23503`: A foreign key without its row.";
    UNIQUE_VIOLATION = "23505", "`23505`: A duplicate key.";
    CHECK_VIOLATION = "23514", "`23514`: A CHECK constraint is violated.";
    INVALID_CURSOR_STATE = "24000", "`24000`: A cursor in the wrong state.";
    INVALID_TRANSACTION_STATE = "25000", "`25000`: The transaction is in the wrong state.";
    ACTIVE_SQL_TRANSACTION = "25001", "`25001`: Not allowed inside a transaction.";
    READ_ONLY_SQL_TRANSACTION = "25006", "`25006`: A write in a read-only transaction.";
    NO_ACTIVE_SQL_TRANSACTION = "25P01", "`25P01`: No transaction is open.";
    IN_FAILED_SQL_TRANSACTION = "25P02", "`25P02`: The transaction has failed.";
    IDLE_IN_TRANSACTION_SESSION_TIMEOUT = "25P03", "`25P03`: The session idled in a transaction for too long.";
    INVALID_SQL_STATEMENT_NAME = "26000", "`26000`: No such prepared statement.";
    INVALID_AUTHORIZATION_SPECIFICATION = "28000", "`28000`: The login is not allowed.";
    INVALID_PASSWORD = "28P01", "`28P01`: The password is wrong.";
    DEPENDENT_OBJECTS_STILL_EXIST = "2BP01", "`2BP01`: Other objects depend on it.";
    INVALID_CURSOR_NAME = "34000", "`34000`: No such cursor or portal.";
    INVALID_CATALOG_NAME = "3D000", "`3D000`: No such database.";
    INVALID_SCHEMA_NAME = "3F000", "`3F000`: No such schema.";
    TRANSACTION_ROLLBACK = "40000", "`40000`: The transaction was rolled back.";
    SERIALIZATION_FAILURE = "40001", "`40001`: Try the transaction again.";
    STATEMENT_COMPLETION_UNKNOWN = "40003", "`40003`: Whether the statement completed is not known.";
    DEADLOCK_DETECTED = "40P01", "`40P01`: A deadlock.";
    SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION = "42000", "`42000`: Syntax or access rule.";
    SYNTAX_ERROR = "42601", "`42601`: Syntax error.";
    INSUFFICIENT_PRIVILEGE = "42501", "`42501`: Permission denied.";
    CANNOT_COERCE = "42846", "`42846`: No such cast.";
    GROUPING_ERROR = "42803", "`42803`: A column outside GROUP BY.";
    WINDOWING_ERROR = "42P20", "`42P20`: A window function in the wrong place.";
    INVALID_RECURSION = "42P19", "`42P19`: A recursive query that is not allowed.";
    INVALID_NAME = "42602", "`42602`: Not a name.";
    NAME_TOO_LONG = "42622", "`42622`: A name too long.";
    RESERVED_NAME = "42939", "`42939`: A reserved name.";
    DATATYPE_MISMATCH = "42804", "`42804`: A value of the wrong type.";
    INDETERMINATE_DATATYPE = "42P18", "`42P18`: The type cannot be told.";
    WRONG_OBJECT_TYPE = "42809", "`42809`: An object of the wrong kind.";
    UNDEFINED_COLUMN = "42703", "`42703`: No such column.";
    UNDEFINED_FUNCTION = "42883", "`42883`: No such function or operator.";
    UNDEFINED_TABLE = "42P01", "`42P01`: No such table.";
    UNDEFINED_PARAMETER = "42P02", "`42P02`: No such parameter.";
    UNDEFINED_OBJECT = "42704", "`42704`: No such object.";
    DUPLICATE_COLUMN = "42701", "`42701`: The column exists already.";
    DUPLICATE_CURSOR = "42P03", "`42P03`: The cursor exists already.";
    DUPLICATE_DATABASE = "42P04", "`42P04`: The database exists already.";
    DUPLICATE_PREPARED_STATEMENT = "42P05", "`42P05`: The prepared statement exists already.";
    DUPLICATE_SCHEMA = "42P06", "`42P06`: The schema exists already.";
    DUPLICATE_TABLE = "42P07", "`42P07`: The table exists already.";
    DUPLICATE_ALIAS = "42712", "`42712`: A table name is given twice.";
    DUPLICATE_OBJECT = "42710", "`42710`: The object exists already.";
    AMBIGUOUS_COLUMN = "42702", "`42702`: The column name is ambiguous.";
    AMBIGUOUS_FUNCTION = "42725", "`42725`: The function call is ambiguous.";
    AMBIGUOUS_PARAMETER = "42P08", "`42P08`: The parameter's type is ambiguous.";
    INVALID_COLUMN_REFERENCE = "42P10", "`42P10`: A column reference in the wrong place.";
    INVALID_COLUMN_DEFINITION = "42611", "`42611`: A column definition that makes no sense.";
    INVALID_FUNCTION_DEFINITION = "42P13", "`42P13`: A function definition that makes no sense.";
    INVALID_TABLE_DEFINITION = "42P16", "`42P16`: A table definition that makes no sense.";
    INVALID_OBJECT_DEFINITION = "42P17", "`42P17`: An object definition that makes no sense.";
    INSUFFICIENT_RESOURCES = "53000", "`53000`: Out of some resource.";
    DISK_FULL = "53100", "`53100`: The disk is full.";
    OUT_OF_MEMORY = "53200", "`53200`: Out of memory.";
    TOO_MANY_CONNECTIONS = "53300", "`53300`: Too many connections.";
    CONFIGURATION_LIMIT_EXCEEDED = "53400", "`53400`: A configured limit is exceeded.";
    PROGRAM_LIMIT_EXCEEDED = "54000", "`54000`: A limit of the program is exceeded.";
    STATEMENT_TOO_COMPLEX = "54001", "`54001`: The statement is nested too deeply.";
    TOO_MANY_COLUMNS = "54011", "`54011`: Too many columns.";
    TOO_MANY_ARGUMENTS = "54023", "`54023`: Too many arguments.";
    OBJECT_NOT_IN_PREREQUISITE_STATE = "55000", "`55000`: The object is in the wrong state.";
    OBJECT_IN_USE = "55006", "`55006`: The object is in use.";
    CANT_CHANGE_RUNTIME_PARAM = "55P02", "`55P02`: The setting cannot be changed now.";
    LOCK_NOT_AVAILABLE = "55P03", "`55P03`: The lock is taken.";
    OPERATOR_INTERVENTION = "57000", "`57000`: An operator stepped in.";
    QUERY_CANCELED = "57014", "`57014`: The query was cancelled.";
    ADMIN_SHUTDOWN = "57P01", "`57P01`: The server stops, or an administrator ended the session.";
    CRASH_SHUTDOWN = "57P02", "`57P02`: The server crashed.";
    CANNOT_CONNECT_NOW = "57P03", "`57P03`: The server is starting or stopping.";
    DATABASE_DROPPED = "57P04", "`57P04`: The database was dropped.";
    IDLE_SESSION_TIMEOUT = "57P05", "`57P05`: The session idled for too long.";
    SYSTEM_ERROR = "58000", "`58000`: The operating system failed.";
    IO_ERROR = "58030", "`58030`: An I/O error.";
    UNDEFINED_FILE = "58P01", "`58P01`: No such file.";
    DUPLICATE_FILE = "58P02", "`58P02`: The file exists already.";
    CONFIG_FILE_ERROR = "F0000", "`F0000`: A configuration file is wrong.";
    INTERNAL_ERROR = "XX000", "`XX000`: A bug in the server.";
    DATA_CORRUPTED = "XX001", "`XX001`: Stored data is damaged.";
    INDEX_CORRUPTED = "XX002", "`XX002`: An index is damaged.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_well_formed() {
        for (index, (state, name)) in NAMES.iter().enumerate() {
            assert_eq!(SqlState::from_code(state.code()), Some(*state), "{name}");
            assert!(
                NAMES[..index].iter().all(|(other, _)| other != state),
                "{name} twice"
            );
        }
        assert_eq!(SqlState::from_code("2350"), None);
        assert_eq!(SqlState::from_code("2350x"), None);
        assert_eq!(SqlState::UNIQUE_VIOLATION.class(), "23");
    }
}
