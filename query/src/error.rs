//! Errors as PostgreSQL reports them: SQLSTATE, message, hint, position.

use datafusion::arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use model::ErrorKind;

/// An error of a statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// PostgreSQL's code of five characters.
    pub sqlstate: &'static str,
    /// Names the object; no full stop.
    pub message: String,
    /// What may help.
    pub hint: Option<String>,
    /// Where in the statement's text, in characters from 1.
    pub position: Option<usize>,
}

/// Shorthand of a result of a statement.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Returns whether it says that an object is not there.
    pub(crate) fn names_unknown(&self) -> bool {
        matches!(self.sqlstate, "42P01" | "42703" | "42704" | "3D000" | "3F000")
    }

    /// Makes an error.
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { sqlstate, message: message.into(), hint: None, position: None }
    }

    /// Returns whether an error is of some of the rows that were written, so that others may be taken: not
    /// where who writes may not, or where there is no table for any of them.
    pub fn is_of_rows(&self) -> bool {
        let is_of_rows = self.sqlstate.starts_with("22") || self.sqlstate.starts_with("42");
        is_of_rows && !["42501", "42P01"].contains(&self.sqlstate)
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn syntax(message: impl Into<String>) -> Self {
        Self::new("42601", message)
    }

    pub(crate) fn unsupported(what: impl std::fmt::Display) -> Self {
        Self::new("0A000", format!("{what} is not supported"))
    }

    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        Self::new("XX000", format!("internal error: {error}"))
    }

    /// Turns a parser's error into a syntax error with its position in `text`.
    pub(crate) fn parser(error: &ParserError, text: &str) -> Self {
        let message = match error {
            ParserError::ParserError(message) | ParserError::TokenizerError(message) => message,
            ParserError::RecursionLimitExceeded => {
                return Self::new("54001", "statement is nested too deeply");
            }
        };
        let (message, place) = match message.rsplit_once(" at Line: ") {
            Some((message, place)) => (message, place.split_once(", Column: ")),
            None => (message.as_str(), None),
        };
        // What stands in quotes may be a password.
        let message = match message.split_once("found: ") {
            Some((expected, found)) if found.contains('\'') || found.starts_with('$') => {
                format!("{expected}found: a text in quotes")
            }
            _ => message.to_owned(),
        };
        let place =
            place.and_then(|(line, column)| Some((line.parse().ok()?, column.parse().ok()?)));
        let position = place.and_then(|(line, column)| position(text, line, column));
        Self { position, ..Self::syntax(format!("syntax error: {message}")) }
    }
}

/// Returns the character, from 1, at a line and column, from 1.
fn position(text: &str, line: usize, column: usize) -> Option<usize> {
    let before: usize =
        text.split_inclusive('\n').take(line.checked_sub(1)?).map(|l| l.chars().count()).sum();
    Some(before + column)
}

impl From<meta::Error> for Error {
    fn from(error: meta::Error) -> Self {
        let message = error.to_string();
        let (sqlstate, message) = match error {
            meta::Error::Refused { kind, message } => (refused(kind, &message), message),
            meta::Error::Unavailable(_) => ("57P03", message),
            meta::Error::Unknown(_) => ("40003", message),
            meta::Error::Corrupt(_) => ("XX001", message),
        };
        Self::new(sqlstate, message)
    }
}

/// Returns the code of a refusal of the catalog; its messages begin with the kind of object.
fn refused(kind: ErrorKind, message: &str) -> &'static str {
    let object = message.split(' ').next().unwrap_or_default();
    match (kind, object) {
        (ErrorKind::NotFound, "tenant") => "3D000",
        (ErrorKind::NotFound, "database") => "3F000",
        (ErrorKind::NotFound, "table") => "42P01",
        (ErrorKind::NotFound, "column") => "42703",
        (ErrorKind::NotFound, _) => "42704",
        (ErrorKind::AlreadyExists, "tenant") => "42P04",
        (ErrorKind::AlreadyExists, "database") => "42P06",
        (ErrorKind::AlreadyExists, "table") => "42P07",
        (ErrorKind::AlreadyExists, "column") => "42701",
        (ErrorKind::AlreadyExists, _) => "42710",
        (ErrorKind::LimitReached, "REPLICA") => "53000",
        (kind, _) => of_kind(kind),
    }
}

fn of_kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "42704",
        ErrorKind::AlreadyExists => "42710",
        ErrorKind::InvalidInput => "22023",
        ErrorKind::Denied => "42501",
        ErrorKind::Conflict => "55006",
        ErrorKind::LimitReached => "53400",
        ErrorKind::Unavailable => "57P03",
        ErrorKind::Corrupt => "XX001",
        ErrorKind::Internal => "XX000",
    }
}

/// A change that must begin anew, as nothing of it is in: `serialization_failure`.
pub(crate) const LOCK_LOST: &str = "40001";

impl From<cluster::Error> for Error {
    fn from(error: cluster::Error) -> Self {
        let sqlstate = match &error {
            cluster::Error::Meta(meta) => return meta.clone().into(),
            cluster::Error::Partial { .. } => "40003",
            cluster::Error::Overloaded { .. } => "53200",
            cluster::Error::Locked { .. } => "55P03",
            cluster::Error::LockLost => LOCK_LOST,
            cluster::Error::TooLarge { .. } => "54000",
            cluster::Error::Storage(_) if error.kind() == ErrorKind::LimitReached => "53100",
            other => of_kind(other.kind()),
        };
        Self::new(sqlstate, error.to_string())
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::External(inner) => match inner.downcast_ref::<Self>() {
                Some(own) => own.clone(),
                None => expression(&inner.to_string()),
            },
            DataFusionError::ArrowError(inner, _) => arrow(inner),
            DataFusionError::SQL(inner, _) => Self::parser(inner, ""),
            DataFusionError::SchemaError(inner, _) => schema(inner),
            DataFusionError::Plan(message) => Self::new(plan(message), first_line(message)),
            DataFusionError::NotImplemented(message) => Self::new("0A000", first_line(message)),
            DataFusionError::ResourcesExhausted(message) => {
                let hint = "raise [query] memory_bytes, or let the query touch fewer rows";
                Self::new("53200", out_of_memory(message)).hint(hint)
            }
            DataFusionError::Execution(message) => {
                Self::new(execution(message), first_line(message))
            }
            DataFusionError::IoError(inner) if inner.to_string().contains("spilling process") => {
                let hint = "raise [query] spill_bytes, or let the query touch fewer rows";
                Self::new("53100", "what queries spill to disk has reached its limit").hint(hint)
            }
            DataFusionError::IoError(inner) => Self::new("58030", inner.to_string()),
            other => Self::new("XX000", first_line(&other.strip_backtrace())),
        }
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        arrow(&error)
    }
}

/// Returns the error of a regular expression that is none, or an unknown one.
fn expression(text: &str) -> Error {
    // Drawn over several lines, the reason on the last.
    match text.rsplit_once("error: ") {
        Some((drawn, reason)) if drawn.starts_with("regex parse error") => {
            Error::new("2201B", format!("invalid regular expression: {}", first_line(reason)))
        }
        _ => Error::new("XX000", text),
    }
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}

/// Returns who asked for memory in vain; who holds how much stands before it, over several lines.
fn out_of_memory(message: &str) -> String {
    match message.rsplit_once("\nError: ") {
        Some((_, cause)) => format!("out of memory: {}", first_line(cause)),
        None => first_line(message),
    }
}

fn arrow(error: &ArrowError) -> Error {
    let sqlstate = match error {
        ArrowError::DivideByZero => return Error::new("22012", "division by zero"),
        ArrowError::ArithmeticOverflow(_) => "22003",
        ArrowError::CastError(message)
            if message.starts_with("Can't cast value") || message.contains("out of range") =>
        {
            "22003"
        }
        ArrowError::CastError(message) if message.contains("string '") => text_cast(message),
        ArrowError::CastError(message) if message.contains("to value of Boolean") => "22P02",
        ArrowError::CastError(_) => "42846",
        ArrowError::ParseError(message)
            if message.contains("timestamp") || message.contains("type interval") =>
        {
            "22007"
        }
        ArrowError::ParseError(_) => "22P02",
        ArrowError::InvalidArgumentError(_) => "22003",
        ArrowError::MemoryError(_) | ArrowError::OffsetOverflowError(_) => "53200",
        ArrowError::ExternalError(inner) => {
            if let Some(own) = inner.downcast_ref::<Error>() {
                return own.clone();
            }
            if let Some(inner) = inner.downcast_ref::<DataFusionError>() {
                return Error::new("XX000", first_line(&inner.strip_backtrace()));
            }
            "XX000"
        }
        _ => "22000",
    };
    Error::new(sqlstate, first_line(&error.to_string()))
}

/// Returns what is wrong with a text that is to be a value: none of that type, or one out of its range.
fn text_cast(message: &str) -> &'static str {
    let text = message.split_once("string '").and_then(|(_, rest)| rest.split_once('\''));
    let Some((text, to)) = text else { return "22P02" };
    let begins_with_digit = text.trim().starts_with(|c: char| c.is_ascii_digit());
    if to.contains("Int") && text.trim().parse::<i128>().is_ok() {
        "22003"
    } else if to.contains("Date") || to.contains("Time") {
        if begins_with_digit { "22008" } else { "22007" }
    } else if to.contains("Interval") {
        "22007"
    } else {
        "22P02"
    }
}

fn schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names = valid_fields.iter().map(|column| column.name.as_str());
            let missing = Error::new("42703", format!("column \"{}\" does not exist", field.name));
            match nearest(&field.name, names) {
                Some(name) => missing.hint(format!("perhaps you meant \"{name}\"")),
                None => missing,
            }
        }
        SchemaError::AmbiguousReference { field } => {
            Error::new("42702", format!("column reference \"{}\" is ambiguous", field.name))
        }
        other => Error::new("42701", first_line(&other.to_string())),
    }
}

fn plan(message: &str) -> &'static str {
    let has = |part: &str| message.contains(part);
    if message.starts_with("table '") || message.starts_with("table \"") {
        "42P01"
    } else if has("Invalid function") || has("No function matches") || has("failed to match any") {
        "42883"
    } else if has("must be in GROUP BY") || has("must appear in the GROUP BY") {
        "42803"
    } else if has("No value found for placeholder") {
        "08P01"
    } else if has("Cannot infer common argument type") || has("Cannot coerce") {
        "42804"
    } else {
        "42601"
    }
}

fn execution(message: &str) -> &'static str {
    // The message of a library, and what PostgreSQL calls it.
    const KNOWN: [(&str, &str); 13] = [
        ("timestamp", "22007"),
        ("square root of a negative", "2201F"),
        ("placeholder", "08P01"),
        ("Placeholder", "08P01"),
        ("negative count not allowed", "22011"),
        ("field position must not be zero", "22023"),
        ("invalid Unicode scalar value", "22023"),
        ("Unable to parse date from", "22008"),
        ("Unsupported date_trunc granularity", "22023"),
        ("more than one row", "21000"),
        ("NTILE requires", "22014"),
        ("Failed to decode", "22023"),
        ("Date part '", "22023"),
    ];
    let known = KNOWN.iter().find(|(part, _)| message.contains(part));
    known.map_or("22000", |(_, sqlstate)| sqlstate)
}

/// Returns the name nearest to `wanted`, if it is near enough to be a slip.
pub(crate) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = names.map(|name| (distance(wanted, name), name)).min()?;
    (near.0 <= 1 + wanted.len() / 4).then_some(near.1)
}

/// Levenshtein's distance, over characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let change = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_finds_its_name() {
        let names = || ["temperature", "humidity"].into_iter();
        assert_eq!(nearest("temprature", names()), Some("temperature"));
        assert_eq!(nearest("pressure", names()), None);
    }

    #[test]
    fn positions_count_characters_over_lines() {
        assert_eq!(position("SELECT\n ä FROM", 2, 2), Some(9));
    }
}
