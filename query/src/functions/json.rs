//! JSON in texts: PostgreSQL's operators and functions on `json` and `jsonb`, which here are texts.
//!
//! A document is read by `serde_json`; what is taken out of it is written without blanks, keys sorted. What is no JSON
//! is 22P02. A path or key that is not there gives NULL, as in PostgreSQL 15 (functions-json).

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int32Array, StringArray, StructArray};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use serde_json::{Map, Value};

use super::{no_such_call, scalar_if};
use crate::arrays::parse_array;
use crate::error::Error;

/// `a -> b`, `a ->> b`, `a #> b`, `a #>> b` and `a::json` are calls of these.
pub(crate) const GET: &str = "__json_get";
pub(crate) const GET_TEXT: &str = "__json_get_text";
pub(crate) const AT_PATH: &str = "__json_at_path";
pub(crate) const AT_PATH_TEXT: &str = "__json_at_path_text";
pub(crate) const CHECKED: &str = "__json";
/// Marks an argument of `json_build_object` and its like that is JSON itself.
pub(crate) const AS_VALUE: &str = "__json_value";
/// The longest document that is made.
const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// What `@>` between texts calls.
pub(super) fn containment() -> Arc<ScalarUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    let (name, aliases) = ("__json_contains", Vec::new());
    Arc::new(ScalarUDF::from(Json { kind: Kind::Contains, name, aliases, signature }))
}

/// Returns whether a function of this name gives JSON.
pub(crate) fn gives_json(name: &str) -> bool {
    const NAMES: [&str; 16] = [
        GET,
        AT_PATH,
        CHECKED,
        "json_agg",
        "jsonb_agg",
        "json_extract_path",
        "jsonb_extract_path",
        "json_strip_nulls",
        "jsonb_strip_nulls",
        "to_json",
        "to_jsonb",
        "json_build_object",
        "jsonb_build_object",
        "json_build_array",
        "jsonb_build_array",
        "row_to_json",
    ];
    NAMES.contains(&name)
}

/// The type of a text that is JSON.
fn marked() -> DataType {
    DataType::Struct(vec![Field::new(AS_VALUE, DataType::Utf8, true)].into())
}

pub(super) fn scalar() -> Vec<Arc<ScalarUDF>> {
    let all = [
        (Kind::Get, GET, &[][..]),
        (Kind::GetText, GET_TEXT, &[]),
        (Kind::AtPath, AT_PATH, &[]),
        (Kind::AtPathText, AT_PATH_TEXT, &[]),
        (Kind::Checked, CHECKED, &[]),
        (Kind::AsValue, AS_VALUE, &[]),
        (Kind::ExtractPath, "json_extract_path", &["jsonb_extract_path"]),
        (Kind::ExtractPathText, "json_extract_path_text", &["jsonb_extract_path_text"]),
        (Kind::ArrayLength, "json_array_length", &["jsonb_array_length"]),
        (Kind::Typeof, "json_typeof", &["jsonb_typeof"]),
        (Kind::StripNulls, "json_strip_nulls", &["jsonb_strip_nulls"]),
        (Kind::Pretty, "jsonb_pretty", &[]),
        (Kind::ToJson, "to_json", &["to_jsonb"]),
        (Kind::BuildObject, "json_build_object", &["jsonb_build_object"]),
        (Kind::BuildArray, "json_build_array", &["jsonb_build_array"]),
    ];
    let make = |(kind, name, aliases): (Kind, &'static str, &[&'static str])| {
        let signature = Signature::user_defined(Volatility::Immutable);
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        Arc::new(ScalarUDF::from(Json { kind, name, aliases, signature }))
    };
    all.into_iter().map(make).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Get,
    GetText,
    AtPath,
    AtPathText,
    Contains,
    Checked,
    /// A text that is JSON, so that it is told from a text.
    AsValue,
    ExtractPath,
    ExtractPathText,
    ArrayLength,
    Typeof,
    StripNulls,
    Pretty,
    ToJson,
    BuildObject,
    BuildArray,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Json {
    kind: Kind,
    name: &'static str,
    aliases: Vec<String>,
    signature: Signature,
}

impl ScalarUDFImpl for Json {
    fn name(&self) -> &'static str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        use DataType::{Int64, Utf8};
        match (self.kind, found) {
            (Kind::Get | Kind::GetText, [_, key]) if key.is_integer() => Ok(vec![Utf8, Int64]),
            (
                Kind::Get | Kind::GetText | Kind::AtPath | Kind::AtPathText | Kind::Contains,
                [_, _],
            ) => Ok(vec![Utf8, Utf8]),
            (
                Kind::Checked
                | Kind::AsValue
                | Kind::ArrayLength
                | Kind::Typeof
                | Kind::StripNulls
                | Kind::Pretty,
                [_],
            ) => Ok(vec![Utf8]),
            (Kind::ExtractPath | Kind::ExtractPathText, [_, _, ..]) => Ok(vec![Utf8; found.len()]),
            (Kind::ToJson, [_]) | (Kind::BuildArray, _) => Ok(found.to_vec()),
            (Kind::BuildObject, _) if found.len().is_multiple_of(2) => Ok(found.to_vec()),
            _ => no_such_call(self.name, found, self.usage()),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Contains => DataType::Boolean,
            Kind::ArrayLength => DataType::Int32,
            Kind::AsValue => marked(),
            _ => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        if args.args.is_empty() {
            let empty = if self.kind == Kind::BuildObject { "{}" } else { "[]" };
            return Ok(ColumnarValue::Scalar(ScalarValue::from(empty)));
        }
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { rows };
        let arrays = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let made: ArrayRef = match self.kind {
            Kind::Contains => {
                let row = |row| self.contains(&arrays, row);
                let found = (0..rows).map(row).collect::<Result<Vec<Option<bool>>>>()?;
                Arc::new(datafusion::arrow::array::BooleanArray::from(found))
            }
            Kind::AsValue => {
                let DataType::Struct(fields) = marked() else { return exec_err!("a struct") };
                let nulls = arrays[0].nulls().cloned();
                Arc::new(StructArray::try_new(fields, vec![Arc::clone(&arrays[0])], nulls)?)
            }
            Kind::ArrayLength => {
                let row = |row| array_length(&arrays, row);
                Arc::new((0..rows).map(row).collect::<Result<Int32Array>>()?)
            }
            _ => {
                let row = |row| self.text(&arrays, row);
                Arc::new((0..rows).map(row).collect::<Result<StringArray>>()?)
            }
        };
        scalar_if(&args.args, made)
    }
}

impl Json {
    fn usage(&self) -> &'static str {
        match self.kind {
            Kind::ExtractPath | Kind::ExtractPathText => "(document, key, …)",
            Kind::BuildObject => "(key, value, …), a value for every key",
            Kind::BuildArray => "(value, …)",
            Kind::Get | Kind::GetText => ": document -> key or number",
            Kind::AtPath | Kind::AtPathText => ": document #> '{key,number}'",
            Kind::Contains => ": document @> document",
            _ => "(document)",
        }
    }

    fn contains(&self, arrays: &[ArrayRef], row: usize) -> Result<Option<bool>> {
        let (Some(whole), Some(part)) = (text(&arrays[0], row), text(&arrays[1], row)) else {
            return Ok(None);
        };
        Ok(Some(contains(&parse(whole)?, &parse(part)?)))
    }

    /// Returns the text that the function makes of a row.
    fn text(&self, arrays: &[ArrayRef], row: usize) -> Result<Option<String>> {
        match self.kind {
            Kind::ToJson if arrays[0].is_null(row) => return Ok(None),
            Kind::ToJson => return written(&value_of(&arrays[0], row)?),
            Kind::BuildArray => {
                let values = arrays.iter().map(|array| value_of(array, row));
                return written(&Value::Array(values.collect::<Result<_>>()?));
            }
            Kind::BuildObject => return written(&built_object(arrays, row)?),
            _ => {}
        }
        if arrays.iter().any(|array| array.is_null(row)) {
            return Ok(None);
        }
        let document = parse(text(&arrays[0], row).unwrap_or_default())?;
        let found = match self.kind {
            Kind::Get | Kind::GetText => match arrays[1].as_primitive_opt::<Int64Type>() {
                Some(numbers) => element(&document, numbers.value(row)),
                None => document.get(text(&arrays[1], row).unwrap_or_default()),
            },
            Kind::AtPath | Kind::AtPathText => {
                let path = text(&arrays[1], row).unwrap_or_default();
                let malformed =
                    || Error::new("22P02", format!("malformed array literal: \"{path}\""));
                let keys = parse_array(path).ok_or_else(malformed)?;
                let keys: Option<Vec<String>> = keys.into_iter().collect();
                keys.and_then(|keys| at_path(&document, keys.iter().map(String::as_str)))
            }
            Kind::ExtractPath | Kind::ExtractPathText => {
                at_path(&document, arrays[1..].iter().filter_map(|array| text(array, row)))
            }
            Kind::Typeof => return Ok(Some(type_of(&document).to_owned())),
            Kind::StripNulls => return written(&without_nulls(document)),
            Kind::Pretty => return Ok(Some(pretty(&document))),
            // As it was written.
            Kind::Checked => return Ok(text(&arrays[0], row).map(str::to_owned)),
            _ => Some(&document),
        };
        match (found, self.kind) {
            (None, _) => Ok(None),
            (Some(Value::Null), Kind::GetText | Kind::AtPathText | Kind::ExtractPathText) => {
                Ok(None)
            }
            (
                Some(Value::String(text)),
                Kind::GetText | Kind::AtPathText | Kind::ExtractPathText,
            ) => Ok(Some(text.clone())),
            (Some(found), _) => written(found),
        }
    }
}

fn text(array: &ArrayRef, row: usize) -> Option<&str> {
    let texts = array.as_string::<i32>();
    texts.is_valid(row).then(|| texts.value(row))
}

fn parse(text: &str) -> Result<Value> {
    let invalid = |error: serde_json::Error| {
        let message = format!("invalid input syntax for type json: {error}");
        Error::new("22P02", message).into()
    };
    serde_json::from_str(text).map_err(invalid)
}

fn written(value: &Value) -> Result<Option<String>> {
    let text = value.to_string();
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(Error::new("54000", "a JSON document of more than 16 MiB").into());
    }
    Ok(Some(text))
}

/// Returns an element of an array, counted from its end where the number is negative.
fn element(document: &Value, number: i64) -> Option<&Value> {
    let elements = document.as_array()?;
    let at = if number < 0 { number.checked_add_unsigned(elements.len() as u64)? } else { number };
    elements.get(usize::try_from(at).ok()?)
}

fn at_path<'a, 'b>(
    document: &'a Value,
    mut keys: impl Iterator<Item = &'b str>,
) -> Option<&'a Value> {
    keys.try_fold(document, |inner, key| match inner {
        Value::Array(_) => element(inner, key.parse().ok()?),
        inner => inner.get(key),
    })
}

/// Returns whether a document holds another one, as `@>` defines it: an array holds a plain value that is
/// one of its elements, but only where the two stand alone.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Array(elements), part) if !part.is_array() && !part.is_object() => {
            elements.iter().any(|element| is_same(element, part))
        }
        _ => holds(whole, part),
    }
}

fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|found| holds(found, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            part.iter().all(|value| whole.iter().any(|found| holds(found, value)))
        }
        (whole, part) => is_same(whole, part),
    }
}

/// Numbers are the same where their values are.
fn is_same(one: &Value, other: &Value) -> bool {
    one == other
        || matches!((one, other), (Value::Number(one), Value::Number(other))
            if (one.is_f64() || other.is_f64()) && one.as_f64() == other.as_f64())
}

fn array_length(arrays: &[ArrayRef], row: usize) -> Result<Option<i32>> {
    let Some(document) = text(&arrays[0], row) else { return Ok(None) };
    match parse(document)? {
        Value::Array(elements) => Ok(i32::try_from(elements.len()).ok()),
        other => {
            let message = format!("cannot get array length of a {}", type_of(&other));
            Err(Error::new("22023", message).into())
        }
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Writes a document over lines, four blanks a level, as `jsonb_pretty` does.
fn pretty(document: &Value) -> String {
    let mut bytes = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, format);
    match serde::Serialize::serialize(document, &mut writer) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => document.to_string(),
    }
}

/// Takes fields that are null out of all objects.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(elements) => Value::Array(elements.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

fn built_object(arrays: &[ArrayRef], row: usize) -> Result<Value> {
    let mut fields = Map::new();
    for pair in arrays.chunks(2) {
        let key = match value_of(&pair[0], row)? {
            Value::Null => {
                return Err(Error::new("22004", "null value not allowed for object key").into());
            }
            Value::String(key) => key,
            other => other.to_string(),
        };
        fields.insert(key, value_of(&pair[1], row)?);
    }
    Ok(Value::Object(fields))
}

/// Returns the JSON of a value: numbers, booleans, lists and structs as such, the rest as text.
fn value_of(array: &ArrayRef, row: usize) -> Result<Value> {
    if *array.data_type() == DataType::Null || array.is_null(row) {
        return Ok(Value::Null);
    }
    Ok(match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        found if found.is_numeric() => {
            let text = as_text(array, row)?;
            // NaN and infinity are no numbers there.
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        }
        found if *found == marked() => {
            let texts = array.as_struct().column(0);
            parse(text(texts, row).unwrap_or("null"))?
        }
        DataType::Binary => {
            let bytes = array.as_binary::<i32>().value(row);
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            Value::String(format!("\\x{hex}"))
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            let values = (0..items.len()).map(|item| value_of(&items, item));
            Value::Array(values.collect::<Result<_>>()?)
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let values = fields
                .iter()
                .zip(columns)
                .map(|(field, column)| Ok((field.name().clone(), value_of(column, row)?)));
            Value::Object(values.collect::<Result<_>>()?)
        }
        _ => Value::String(as_text(array, row)?),
    })
}

fn as_text(array: &ArrayRef, row: usize) -> Result<String> {
    let one = datafusion::arrow::compute::cast(&array.slice(row, 1), &DataType::Utf8)?;
    Ok(one.as_string::<i32>().value(0).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_walked_as_postgresql_walks_them() {
        let document = parse(r#"{"a":[1,{"b":null}],"c":"x"}"#).unwrap();
        let at = |keys: &[&str]| at_path(&document, keys.iter().copied()).map(Value::to_string);
        assert_eq!(at(&["a", "0"]).as_deref(), Some("1"));
        assert_eq!(at(&["a", "-1", "b"]).as_deref(), Some("null"));
        assert_eq!(at(&["c"]).as_deref(), Some("\"x\""));
        assert_eq!(at(&["c", "0"]), None);
        assert!(parse("{a:1}").is_err());
    }

    #[test]
    fn a_document_contains_another_by_parts() {
        let holds = |whole, part| contains(&parse(whole).unwrap(), &parse(part).unwrap());
        assert!(holds(r#"{"a":{"b":[1,2,3]},"c":1}"#, r#"{"a":{"b":[3,1]}}"#));
        assert!(holds("[1,2]", "2"));
        assert!(holds("1.0", "1"));
        assert!(!holds(r#"{"a":1}"#, r#"{"a":2}"#));
        assert!(!holds(r#"[{"a":1}]"#, r#"{"a":1}"#));
        assert!(!holds("[[1,2]]", "[1]"));
        assert!(!holds(r#"{"a":[1]}"#, r#"{"a":1}"#));
        assert!(holds("[1.0]", "1"));
        assert!(!holds("9007199254740993", "9007199254740992"));
    }
}
