//! Casts of literals to types the planner does not know, or reads otherwise than PostgreSQL.
//!
//! | written                  | planned                                                     |
//! |--------------------------|-------------------------------------------------------------|
//! | `'{1,2}'::bigint[]`      | `ARRAY[1::bigint, 2::bigint]`                                |
//! | `'\x00ff'::bytea`        | `decode('00ff', 'hex')`                                      |
//! | `12.50::numeric(9, 2)`   | `'12.50'::numeric(9, 2)`: by way of no double                |
//! | `x::json`                | x, once it is known to be JSON                               |
//! | `'air'::regclass`        | the name, which stands for its table                         |

use datafusion::sql::sqlparser::ast::{self, DataType, Expr, Value};

use super::{function, literal_text, text};
use crate::arrays::parse_array;
use crate::error::{Error, Result};
use crate::functions::json;

/// Rewrites a cast.
pub(super) fn cast(expr: &mut Expr) -> Result<()> {
    let Expr::Cast { expr: inner, data_type, .. } = expr else { return Ok(()) };
    let rewritten = match data_type {
        DataType::JSON | DataType::JSONB => function(json::CHECKED, vec![inner.as_ref().clone()]),
        DataType::Array(element) => {
            let (Some(literal), Some(element)) = (literal_text(inner), element_type(element))
            else {
                return Ok(());
            };
            array(literal, element)?
        }
        DataType::Bytea => match literal_text(inner).and_then(|text| text.strip_prefix("\\x")) {
            Some(hex) if hex.len().is_multiple_of(2) && hex.bytes().all(is_hex) => {
                function("decode", vec![text(hex), text("hex")])
            }
            Some(hex) => {
                let message = format!("invalid hexadecimal data: \"{hex}\"");
                return Err(Error::new("22P02", message));
            }
            None => return Ok(()),
        },
        DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_) => {
            return exact(inner);
        }
        DataType::Regclass => match literal_text(inner) {
            Some(name) => text(name),
            None => return Ok(()),
        },
        _ => return Ok(()),
    };
    *expr = rewritten;
    Ok(())
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

fn element_type(element: &ast::ArrayElemTypeDef) -> Option<&DataType> {
    match element {
        ast::ArrayElemTypeDef::SquareBracket(element, _)
        | ast::ArrayElemTypeDef::AngleBracket(element)
        | ast::ArrayElemTypeDef::Parenthesis(element) => Some(element),
        ast::ArrayElemTypeDef::None => None,
    }
}

fn array(literal: &str, element_type: &DataType) -> Result<Expr> {
    let malformed = || Error::new("22P02", format!("malformed array literal: \"{literal}\""));
    let elements = parse_array(literal).ok_or_else(malformed)?;
    let element =
        |element: Option<String>| Expr::Cast {
            kind: ast::CastKind::Cast,
            expr: Box::new(element.map_or_else(
                || Expr::Value(Value::Null.with_empty_span()),
                |element| text(&element),
            )),
            data_type: element_type.clone(),
            array: false,
            format: None,
        };
    let elem = elements.into_iter().map(element).collect();
    Ok(Expr::Array(ast::Array { elem, named: true }))
}

/// Makes a text of a number with a fraction, or of more digits than a whole number has.
fn exact(inner: &mut Expr) -> Result<()> {
    let number = match &*inner {
        Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => plain_number(expr, "-"),
        other => plain_number(other, ""),
    };
    if let Some(number) = number {
        *inner = text(&number);
    }
    Ok(())
}

fn plain_number(expr: &Expr, sign: &str) -> Option<String> {
    let Expr::Value(value) = expr else { return None };
    let Value::Number(number, _) = &value.value else { return None };
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_plain.then(|| format!("{sign}{number}"))
}
