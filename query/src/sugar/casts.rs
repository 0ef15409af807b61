//! Casts of literals to types the planner does not know, or reads otherwise than PostgreSQL.
//!
//! | written                  | planned                                                     |
//! |--------------------------|-------------------------------------------------------------|
//! | `'{1,2}'::bigint[]`      | `ARRAY[1::bigint, 2::bigint]`                                |
//! | `'\x00ff'::bytea`        | `decode('00ff', 'hex')`                                      |
//! | `12.50::numeric(9, 2)`   | `'12.50'::numeric(9, 2)`: by way of no double                |
//! | `1e-3::numeric`          | `'0.001'::numeric(4, 3)`                                     |
//! | `x::varchar(2)`, `x::char(2)` | `left(x::text, 2)`                                           |
//! | `'…'::uuid`              | the text, once it is known to be one                         |
//! | `x::json`                | x, once it is known to be JSON                               |
//! | `'air'::regclass`        | the name, which stands for its table                         |

use datafusion::sql::sqlparser::ast::{self, DataType, Expr, Value};

use super::{function, literal_text, text};
use crate::arrays::parse_array;
use crate::error::{Error, Result};
use crate::functions::json;
use crate::sql::cast_to;

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
            None => match literal_text(inner) {
                Some(text) if text.contains('\\') => bytes_of(text)?,
                _ => return Ok(()),
            },
        },
        DataType::Char(None) | DataType::Character(None) => function(
            "left",
            vec![cast_to(inner.as_ref().clone(), DataType::Text), super::number(1)],
        ),
        DataType::Char(length)
        | DataType::Character(length)
        | DataType::Varchar(length)
        | DataType::CharacterVarying(length)
        | DataType::CharVarying(length) => {
            let Some(ast::CharacterLength::IntegerLength { length, .. }) = length else {
                return Ok(());
            };
            let whole = cast_to(inner.as_ref().clone(), DataType::Text);
            function("left", vec![whole, super::number(*length)])
        }
        DataType::Uuid => {
            return match literal_text(inner) {
                Some(text) => {
                    **inner = super::text(&uuid(text)?);
                    Ok(())
                }
                None => Ok(()),
            };
        }
        DataType::Numeric(digits) | DataType::Decimal(digits) | DataType::Dec(digits) => {
            exact(inner)?;
            if let (ast::ExactNumberInfo::None, Some((all, behind))) = (&*digits, digits_of(inner))
            {
                *digits = ast::ExactNumberInfo::PrecisionAndScale(all, behind);
            }
            return Ok(());
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

/// Returns the type of the elements that an array is declared of.
pub(crate) fn element_type(element: &ast::ArrayElemTypeDef) -> Option<&DataType> {
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
    let element = |element: Option<String>| {
        cast_to(
            element.map_or_else(
                || Expr::Value(Value::Null.with_empty_span()),
                |element| text(&element),
            ),
            element_type.clone(),
        )
    };
    let elem = elements.into_iter().map(element).collect();
    Ok(Expr::Array(ast::Array { elem, named: true }))
}

/// Makes bytes of a text with escapes: `\\` and three octal digits.
fn bytes_of(literal: &str) -> Result<Expr> {
    let malformed = || Error::new("22P02", "invalid input syntax for type bytea");
    let (mut hex, mut left) = (String::new(), literal.as_bytes());
    while let Some((first, rest)) = left.split_first() {
        let byte = match (first, rest) {
            (b'\\', [b'\\', after @ ..]) => {
                left = after;
                b'\\'
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                left = after;
                (a - b'0') * 64 + (b - b'0') * 8 + (c - b'0')
            }
            (b'\\', _) => return Err(malformed()),
            (byte, after) => {
                left = after;
                *byte
            }
        };
        hex.push_str(&format!("{byte:02x}"));
    }
    Ok(function("decode", vec![text(&hex), text("hex")]))
}

/// Returns a UUID as PostgreSQL writes it: small letters, five groups.
///
/// # Errors
/// A text that is none.
pub fn uuid(literal: &str) -> Result<String> {
    let bare = literal.trim().trim_start_matches('{').trim_end_matches('}').replace('-', "");
    if bare.len() != 32 || !bare.bytes().all(is_hex) {
        let message = format!("invalid input syntax for type uuid: \"{literal}\"");
        return Err(Error::new("22P02", message));
    }
    let bare = bare.to_ascii_lowercase();
    Ok([&bare[..8], &bare[8..12], &bare[12..16], &bare[16..20], &bare[20..]].join("-"))
}

/// Makes a text of a number with a fraction, or of more digits than a whole number has.
fn exact(inner: &mut Expr) -> Result<()> {
    let number = match &*inner {
        Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => plain_number(expr, "-"),
        other => plain_number(other, ""),
    };
    let written = literal_text(inner).and_then(without_exponent);
    if let Some(number) = number.or(written) {
        *inner = text(&number);
    }
    Ok(())
}

/// Writes a number with an exponent without one; `None` where it has none, or none that fits.
fn without_exponent(literal: &str) -> Option<String> {
    let (mantissa, exponent) = literal.trim().split_once(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok().filter(|exponent| (-76..=76).contains(exponent))?;
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + behind.len() == 0
        || !(whole.bytes().chain(behind.bytes())).all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let digits = format!("{whole}{behind}");
    let point = whole.len() as i32 + exponent;
    Some(if point <= 0 {
        format!("{sign}0.{}{digits}", "0".repeat(point.unsigned_abs() as usize))
    } else if point as usize >= digits.len() {
        format!("{sign}{digits}{}", "0".repeat(point as usize - digits.len()))
    } else {
        format!("{sign}{}.{}", &digits[..point as usize], &digits[point as usize..])
    })
}

/// Returns how many digits a number in quotes has, and how many of them behind the point.
fn digits_of(literal: &Expr) -> Option<(u64, i64)> {
    let digits = literal_text(literal)?.trim().trim_start_matches(['+', '-']);
    let (whole, behind) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number =
        !digits.is_empty() && whole.bytes().chain(behind.bytes()).all(|byte| byte.is_ascii_digit());
    let all = (whole.len() + behind.len()).max(1);
    (is_number && all <= 38).then_some((all as u64, behind.len() as i64))
}

fn plain_number(expr: &Expr, sign: &str) -> Option<String> {
    let Expr::Value(value) = expr else { return None };
    let Value::Number(number, _) = &value.value else { return None };
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_plain.then(|| format!("{sign}{number}"))
}
