//! Texts taken apart by regular expressions: `regexp_matches`, `regexp_split_to_array`.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, ListBuilder, StringBuilder};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use regex::{Regex, RegexBuilder};

use super::{no_such_call, scalar_if};
use crate::error::Error;

/// The most parts one text is split into.
const PARTS_MAX: usize = 100_000;

pub(super) fn scalar() -> Vec<Arc<ScalarUDF>> {
    let make = |kind| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(Matches { kind, signature }))
    };
    [Kind::First, Kind::Split].map(make).to_vec()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// The groups of the first match, or the match where there are none.
    First,
    /// What stands between matches.
    Split,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Matches {
    kind: Kind,
    signature: Signature,
}

impl ScalarUDFImpl for Matches {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::First => "regexp_matches",
            Kind::Split => "regexp_split_to_array",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        if matches!(found.len(), 2 | 3) {
            return Ok(vec![DataType::Utf8; found.len()]);
        }
        no_such_call(self.name(), found, "(text, pattern[, flags])")
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::new_list(DataType::Utf8, true))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let (texts, patterns) = (arrays[0].as_string::<i32>(), arrays[1].as_string::<i32>());
        let flags = arrays.get(2).map(|array| array.as_string::<i32>());
        let mut rows = ListBuilder::new(StringBuilder::new());
        let mut last: Option<(String, Regex)> = None;
        for row in 0..texts.len() {
            let flag =
                flags.map_or(Some(""), |flags| flags.is_valid(row).then(|| flags.value(row)));
            let (Some(flag), true, true) = (flag, texts.is_valid(row), patterns.is_valid(row))
            else {
                rows.append_null();
                continue;
            };
            if flag.contains('g') && self.kind == Kind::First {
                let error = Error::unsupported("regexp_matches with flag g, which makes rows");
                return Err(error.hint("unnest(regexp_split_to_array(…)) makes rows").into());
            }
            let key = format!("{flag}/{}", patterns.value(row));
            if last.as_ref().is_none_or(|(known, _)| *known != key) {
                last = Some((key, compiled(patterns.value(row), flag)?));
            }
            let Some((_, regex)) = &last else { continue };
            if !self.append(regex, texts.value(row), &mut rows)? {
                rows.append_null();
            }
        }
        scalar_if(&args.args, Arc::new(rows.finish()) as ArrayRef)
    }
}

impl Matches {
    /// Appends a row; false where there is none.
    fn append(
        &self,
        regex: &Regex,
        text: &str,
        rows: &mut ListBuilder<StringBuilder>,
    ) -> Result<bool> {
        match self.kind {
            Kind::First => {
                let Some(found) = regex.captures(text) else { return Ok(false) };
                let from = usize::from(found.len() > 1);
                for at in from..found.len() {
                    rows.values().append_option(found.get(at).map(|group| group.as_str()));
                }
            }
            Kind::Split => {
                let parts = split(regex, text);
                if parts.len() > PARTS_MAX {
                    let message = format!("a text of more than {PARTS_MAX} parts");
                    return Err(Error::new("54000", message).into());
                }
                parts.iter().for_each(|part| rows.values().append_value(part));
            }
        }
        rows.append(true);
        Ok(true)
    }
}

/// Splits where a pattern matches. A match of nothing counts between two letters only, not at an end of the
/// text or right behind a match, as PostgreSQL has it.
fn split<'a>(regex: &Regex, text: &'a str) -> Vec<&'a str> {
    let (mut parts, mut from) = (Vec::new(), 0);
    for found in regex.find_iter(text) {
        let of_nothing = found.is_empty();
        if of_nothing && (found.start() == from || found.start() == text.len()) {
            continue;
        }
        parts.push(&text[from..found.start()]);
        from = found.end();
    }
    parts.push(&text[from..]);
    parts
}

fn compiled(pattern: &str, flags: &str) -> Result<Regex> {
    let mut builder = RegexBuilder::new(pattern);
    for flag in flags.chars() {
        match flag {
            'i' => builder.case_insensitive(true),
            'c' | 'g' => &mut builder,
            'n' | 'm' => builder.multi_line(true),
            's' => builder.dot_matches_new_line(true),
            'x' => builder.ignore_whitespace(true),
            other => {
                let message = format!("invalid regular expression option: \"{other}\"");
                return Err(Error::new("22023", message).into());
            }
        };
    }
    builder
        .build()
        .map_err(|error| Error::new("2201B", format!("invalid regular expression: {error}")).into())
}
