//! The format of COPY data: options checked as PostgreSQL does.

use towline_base::SqlState;

use crate::error::SqlError;
use crate::parse::ast::CopyOptions;
use crate::parse::lex::char_position;

/// How COPY data looks.
#[derive(Clone, Debug)]
pub(crate) struct CopyFormat {
    pub(crate) csv: bool,
    pub(crate) delimiter: u8,
    pub(crate) null: String,
    pub(crate) header: bool,
    pub(crate) quote: u8,
    pub(crate) escape: u8,
    pub(crate) force_quote_all: bool,
    pub(crate) force_quote: Vec<String>,
    pub(crate) force_null: Vec<String>,
    pub(crate) force_not_null: Vec<String>,
}

fn single_byte(value: &Option<String>, default: u8, name: &str) -> Result<u8, SqlError> {
    match value.as_deref().map(str::as_bytes) {
        None => Ok(default),
        Some([byte]) => Ok(*byte),
        Some(_) => Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("COPY {name} must be a single one-byte character"),
        )),
    }
}

impl CopyFormat {
    /// Checks the options.
    pub(crate) fn new(options: &CopyOptions, text: &str) -> Result<CopyFormat, SqlError> {
        let csv = match options.format.as_ref().map(|(name, pos)| (name.as_str(), *pos)) {
            None | Some(("text", _)) => false,
            Some(("csv", _)) => true,
            Some(("binary", _)) => return Err(SqlError::unsupported("COPY in binary format")),
            Some((other, pos)) => {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("COPY format \"{other}\" not recognized"),
                )
                .with_position(char_position(text, pos)));
            }
        };
        let invalid = |message: &str| Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
        let csv_only = |given: bool, name: &str| {
            if given && !csv {
                return Err(SqlError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    format!("COPY {name} available only in CSV mode"),
                ));
            }
            Ok(())
        };
        csv_only(options.quote.is_some(), "quote")?;
        csv_only(options.escape.is_some(), "escape")?;
        csv_only(
            options.force_quote_all || !options.force_quote.is_empty(),
            "force quote",
        )?;
        csv_only(!options.force_null.is_empty(), "force null")?;
        csv_only(!options.force_not_null.is_empty(), "force not null")?;
        if let Some(encoding) = &options.encoding {
            let plain: String = encoding.chars().filter(char::is_ascii_alphanumeric).collect();
            if !matches!(
                plain.to_ascii_lowercase().as_str(),
                "utf8" | "unicode" | "sqlascii"
            ) {
                return Err(SqlError::unsupported(format!("COPY in encoding \"{encoding}\"")));
            }
        }
        let delimiter = single_byte(&options.delimiter, if csv { b',' } else { b'\t' }, "delimiter")?;
        if delimiter == b'\n' || delimiter == b'\r' {
            return invalid("COPY delimiter cannot be newline or carriage return");
        }
        if !csv
            && (delimiter == b'\\'
                || delimiter == b'.'
                || delimiter.is_ascii_lowercase()
                || delimiter.is_ascii_digit())
        {
            return invalid(&format!("COPY delimiter cannot be \"{}\"", delimiter as char));
        }
        let quote = single_byte(&options.quote, b'"', "quote")?;
        let escape = single_byte(&options.escape, quote, "escape")?;
        if csv && delimiter == quote {
            return invalid("COPY delimiter and quote must be different");
        }
        let null = options
            .null
            .clone()
            .unwrap_or_else(|| if csv { String::new() } else { "\\N".to_owned() });
        if null.contains(['\n', '\r']) {
            return invalid("COPY null representation cannot use newline or carriage return");
        }
        let unsupported = |message: &str| Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message));
        if null.as_bytes().contains(&delimiter) {
            return unsupported("COPY delimiter must not appear in the NULL specification");
        }
        if csv && null.as_bytes().contains(&quote) {
            return unsupported("CSV quote character must not appear in the NULL specification");
        }
        let names = |list: &[crate::parse::ast::Name]| list.iter().map(|name| name.text.clone()).collect();
        Ok(CopyFormat {
            csv,
            delimiter,
            null,
            header: options.header,
            quote,
            escape,
            force_quote_all: options.force_quote_all,
            force_quote: names(&options.force_quote),
            force_null: names(&options.force_null),
            force_not_null: names(&options.force_not_null),
        })
    }
}
