//! Calls and parts of instants that PostgreSQL knows, written as others.
//!
//! | written                                  | planned                                              |
//! |------------------------------------------|------------------------------------------------------|
//! | `array_remove(a, x)`, `array_replace(…)` | those of DataFusion that take all                    |
//! | `array_length(a, 1)`, `array_ndims(a)`   | NULL of an empty array                               |
//! | `cardinality(a)`, `array_position(a, x)` … | an integer                                         |
//! | `trim_array(a, n)`, `array_fill(x, ARRAY[n])` | a slice, a repetition                           |
//! | `date_trunc('decade', t)` and longer     | the year, less the years since the decade began      |
//! | `date_trunc(unit, t, zone)`              | cut where that zone's clocks show it                 |
//! | `extract(century FROM t)`, `date_part('julian', t)` … | what the year or the epoch tells        |
//! | `make_timestamp(…)`, `make_time(…)`      | a date and a span                                    |
//! | `regexp_substr(s, p)`, `substring(s FROM p)` | parts of `regexp_match`                          |
//! | `mode() WITHIN GROUP (ORDER BY x)`       | `mode(x)`                                            |
//! | `percentile_disc(p) WITHIN GROUP (…)`, `percentile_cont` | elements of the values in order      |
//! | `encode(b, 'base64')`                    | with the signs that fill it up                       |
//! | `x LIKE p ESCAPE e`                      | the pattern with backslashes                         |

use datafusion::sql::sqlparser::ast::{self, ArrayElemTypeDef, BinaryOperator, DataType, Expr};

use super::operators::{binary, case};
use super::{call, fraction, function, literal_text, number, text};
use crate::functions::EPOCH_OF;
use crate::sql::cast_to;
use crate::zones::TIMEZONE;

const INTEGER: DataType = DataType::Integer(None);

/// Returns what a call is planned as.
pub(super) fn respelt(written: &ast::Function) -> Option<Expr> {
    if let Some(ordered) = within_group(written) {
        return Some(ordered);
    }
    let (name, args) = call(written)?;
    let args: Vec<Expr> = args.into_iter().cloned().collect();
    let of = |name: &str| Some(function(name, args.clone()));
    match (name.as_str(), args.as_slice()) {
        ("array_remove", [_, _]) => of("array_remove_all"),
        ("array_replace", [_, _, _]) => of("array_replace_all"),
        ("array_length", [array, one]) if is_one(one) => {
            let length = function(&name, vec![array.clone()]);
            Some(integer(function("nullif", vec![length, number(0)])))
        }
        ("array_length" | "array_position" | "cardinality", _) => Some(integer(of(&name)?)),
        ("array_positions", _) => {
            let of_integers = ArrayElemTypeDef::SquareBracket(Box::new(INTEGER), None);
            Some(cast_to(of(&name)?, DataType::Array(of_integers)))
        }
        ("array_ndims", [array]) => Some(of_elements(array, integer(of(&name)?))),
        ("array_dims", [array]) => {
            let lengths = vec![of(&name)?, text("][1:")];
            let parts = vec![text("[1:"), function("array_to_string", lengths), text("]")];
            Some(of_elements(array, function("concat", parts)))
        }
        ("trim_array", [array, count]) => {
            let length = function("cardinality", vec![array.clone()]);
            let length = cast_to(length, DataType::BigInt(None));
            let end = binary(length, BinaryOperator::Minus, nested(count));
            Some(function("array_slice", vec![array.clone(), number(1), end]))
        }
        ("array_fill", [value, Expr::Array(lengths)]) => match lengths.elem.as_slice() {
            [length] => Some(function("array_repeat", vec![value.clone(), length.clone()])),
            _ => None,
        },
        ("date_trunc", [unit, instant]) => truncated(literal_text(unit)?, instant),
        ("date_trunc", [unit, instant, zone]) => {
            let unit = literal_text(unit)?;
            let wall = function(TIMEZONE, vec![zone.clone(), instant.clone()]);
            let cut = truncated(unit, &wall);
            let cut = cut.unwrap_or_else(|| function("date_trunc", vec![text(unit), wall]));
            Some(function(TIMEZONE, vec![zone.clone(), cut]))
        }
        ("date_part", [field, instant]) => part(literal_text(field)?, instant),
        ("make_timestamp", [date @ .., hour, minute, second]) if date.len() == 3 => {
            Some(moment(date, [hour, minute, second]))
        }
        ("make_timestamptz", [date @ .., hour, minute, second]) if date.len() == 3 => {
            let instant = DataType::Timestamp(None, ast::TimezoneInfo::Tz);
            Some(cast_to(moment(date, [hour, minute, second]), instant))
        }
        ("make_time", [hour, minute, second]) => {
            let day = [number(1970), number(1), number(1)];
            let time = DataType::Time(None, ast::TimezoneInfo::None);
            Some(cast_to(moment(&day, [hour, minute, second]), time))
        }
        ("regexp_substr", [of, pattern]) => {
            let whole = function("concat", vec![text("("), pattern.clone(), text(")")]);
            Some(first_match(of.clone(), whole))
        }
        ("encode", [bytes, form]) if literal_text(form) == Some("base64") => {
            Some(function("encode", vec![bytes.clone(), text("base64pad")]))
        }
        ("isfinite", [time]) => {
            Some(Expr::Nested(Box::new(binary(nested(time), BinaryOperator::Eq, nested(time)))))
        }
        _ => None,
    }
}

/// Returns what is planned where a part of an instant or a span is taken, `None` where the planner knows it.
pub(super) fn part(field: &str, of: &Expr) -> Option<Expr> {
    let year = || function("date_part", vec![text("year"), of.clone()]);
    let years = |before: u64, count: u64| {
        let shifted = Expr::Nested(Box::new(binary(year(), BinaryOperator::Plus, number(before))));
        Expr::Nested(Box::new(binary(shifted, BinaryOperator::Divide, number(count))))
    };
    let epoch = || function(EPOCH_OF, vec![of.clone()]);
    Some(match field.to_ascii_lowercase().as_str() {
        "second" | "seconds" => fraction(of.clone(), "1e9"),
        "millisecond" | "milliseconds" => fraction(of.clone(), "1e6"),
        "microsecond" | "microseconds" => fraction(of.clone(), "1e3"),
        "epoch" => epoch(),
        "decade" | "decades" => years(0, 10),
        "century" | "centuries" => years(99, 100),
        "millennium" | "millennia" => years(999, 1000),
        // The Julian day that begins at midnight.
        "julian" => {
            let days = binary(epoch(), BinaryOperator::Divide, number(86_400));
            Expr::Nested(Box::new(binary(days, BinaryOperator::Plus, number(2_440_588))))
        }
        _ => return None,
    })
}

/// Returns `substring(text FROM pattern)` as what it matches.
pub(super) fn substring(expr: &Expr) -> Option<Expr> {
    let Expr::Substring { expr: of, substring_from: Some(from), substring_for: None, .. } = expr
    else {
        return None;
    };
    literal_text(from)?;
    Some(first_match(of.as_ref().clone(), from.as_ref().clone()))
}

/// Writes a pattern that has another escape than a backslash with backslashes.
pub(super) fn escaped(expr: &mut Expr) {
    let (Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. }) = expr
    else {
        return;
    };
    let (Some(literal), Some(escape)) = (literal_text(pattern), escape_char.as_ref()) else {
        return;
    };
    let escape = super::quoted(&escape.value).and_then(|escape| escape.chars().next());
    if escape == Some('\\') {
        return;
    }
    let mut written = String::new();
    let mut rest = literal.chars();
    while let Some(c) = rest.next() {
        match c {
            c if Some(c) == escape => {
                written.push('\\');
                written.extend(rest.next());
            }
            '\\' => written.push_str("\\\\"),
            c => written.push(c),
        }
    }
    **pattern = text(&written);
    *escape_char = None;
}

/// Makes PostgreSQL's integer of a count, which has no sign in DataFusion.
fn integer(count: Expr) -> Expr {
    cast_to(count, INTEGER)
}

fn nested(expr: &Expr) -> Expr {
    Expr::Nested(Box::new(expr.clone()))
}

fn is_one(expr: &Expr) -> bool {
    expr.to_string() == "1"
}

/// Returns NULL where an array has no elements.
fn of_elements(array: &Expr, value: Expr) -> Expr {
    let count = function("cardinality", vec![array.clone()]);
    let is_empty = binary(count, BinaryOperator::Eq, number(0));
    let null = Expr::Value(ast::Value::Null.with_empty_span());
    case(vec![(is_empty, null)], value)
}

/// The first group of the first match, or the match.
fn first_match(of: Expr, pattern: Expr) -> Expr {
    function("array_element", vec![function("regexp_match", vec![of, pattern]), number(1)])
}

/// Cuts an instant where DataFusion does not know the unit, or knows it by another name.
fn truncated(unit: &str, instant: &Expr) -> Option<Expr> {
    let unit = unit.to_ascii_lowercase();
    let cut = |unit: &str| function("date_trunc", vec![text(unit), instant.clone()]);
    let year = || function("date_part", vec![text("year"), instant.clone()]);
    // How many years it is since the decade, the century, the millennium began.
    let since = |first: u64, length: u64| {
        let years = Expr::Nested(Box::new(binary(year(), BinaryOperator::Minus, number(first))));
        let years = binary(years, BinaryOperator::Modulo, number(length));
        let span = function("make_interval", vec![years]);
        Expr::Nested(Box::new(binary(cut("year"), BinaryOperator::Minus, span)))
    };
    Some(match unit.as_str() {
        "milliseconds" | "microseconds" | "seconds" | "minutes" | "hours" | "days" | "weeks"
        | "months" | "quarters" | "years" => cut(unit.trim_end_matches('s')),
        "decade" | "decades" => since(0, 10),
        "century" | "centuries" => since(1, 100),
        "millennium" | "millennia" => since(1, 1000),
        _ => return None,
    })
}

/// A date and a time of day.
fn moment(date: &[Expr], [hour, minute, second]: [&Expr; 3]) -> Expr {
    let wall = DataType::Timestamp(None, ast::TimezoneInfo::None);
    let day = cast_to(function("make_date", date.to_vec()), wall);
    let zero = || number(0);
    let parts = vec![zero(), zero(), zero(), zero(), hour.clone(), minute.clone(), second.clone()];
    let span = function("make_interval", parts);
    Expr::Nested(Box::new(binary(day, BinaryOperator::Plus, span)))
}

/// Writes aggregates of values in order that DataFusion does not know so.
fn within_group(written: &ast::Function) -> Option<Expr> {
    let [ordered] = written.within_group.as_slice() else { return None };
    let ast::FunctionArguments::List(list) = &written.args else { return None };
    let value = &ordered.expr;
    let name = written.name.to_string().to_lowercase();
    let mut plain = written.clone();
    plain.within_group = Vec::new();
    let unnamed = |expr: &Expr| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr.clone()));
    let called = |plain: &ast::Function, name: &str| {
        let mut called = plain.clone();
        called.name = ast::ObjectName::from(vec![ast::Ident::new(name)]);
        called
    };
    match (name.as_str(), list.args.as_slice()) {
        ("mode", []) => {
            plain.args = ast::FunctionArguments::List(ast::FunctionArgumentList {
                args: vec![unnamed(value)],
                ..list.clone()
            });
            Some(Expr::Function(plain))
        }
        (
            "percentile_disc" | "percentile_cont",
            [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(share))],
        ) if !matches!(share, Expr::Array(_)) => {
            let known = Expr::IsNotNull(Box::new(nested(value)));
            let filter = match plain.filter.take() {
                Some(filter) => binary(nested(&filter), BinaryOperator::And, known),
                None => known,
            };
            plain.filter = Some(Box::new(filter));
            plain.args = ast::FunctionArguments::List(ast::FunctionArgumentList {
                args: vec![unnamed(value)],
                ..list.clone()
            });
            let count = Expr::Function(called(&plain, "count"));
            if let ast::FunctionArguments::List(list) = &mut plain.args {
                list.clauses = vec![ast::FunctionArgumentClause::OrderBy(vec![ordered.clone()])];
            }
            let values = Expr::Function(called(&plain, "array_agg"));
            let found = match name.as_str() {
                "percentile_disc" => element_at(share, values, count),
                _ => between_elements(share, &values, count),
            };
            let inside = Expr::Between {
                expr: Box::new(nested(share)),
                negated: false,
                low: Box::new(number(0)),
                high: Box::new(number(1)),
            };
            let null = Expr::Value(ast::Value::Null.with_empty_span());
            Some(case(vec![(inside, found)], null))
        }
        _ => None,
    }
}

/// The first value that at least a share of all does not exceed.
fn element_at(share: &Expr, values: Expr, count: Expr) -> Expr {
    let place = function("ceil", vec![binary(nested(share), BinaryOperator::Multiply, count)]);
    let place = cast_to(place, DataType::BigInt(None));
    function("array_element", vec![values, function("greatest", vec![number(1), place])])
}

/// What lies at a share of the way from the first value to the last, between two of them in proportion.
/// DataFusion's `percentile_cont` rounds the proportion to six digits.
fn between_elements(share: &Expr, values: &Expr, count: Expr) -> Expr {
    use BinaryOperator::{Minus, Multiply, Plus};
    let way = |left, op, right| Expr::Nested(Box::new(binary(left, op, right)));
    let place = way(nested(share), Multiply, way(count, Minus, number(1)));
    let place = cast_to(place, DataType::DoublePrecision);
    let rounded = |how: &str| function(how, vec![place.clone()]);
    let element = |how: &str| {
        let at = way(cast_to(rounded(how), DataType::BigInt(None)), Plus, number(1));
        let found = function("array_element", vec![values.clone(), at]);
        cast_to(found, DataType::DoublePrecision)
    };
    let proportion = way(place.clone(), Minus, rounded("floor"));
    let step = way(way(element("ceil"), Minus, element("floor")), Multiply, proportion);
    way(element("floor"), Plus, step)
}
