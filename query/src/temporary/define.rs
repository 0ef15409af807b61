//! What a definition of a temporary table means: the types of its columns, and what its rows must obey.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::sql::sqlparser::ast;

use super::table::Constraints;
use crate::error::{Error, Result};
use crate::sql::fold;

/// Returns the columns as they are kept: each may be NULL, what is nothing but NULL is text.
pub(super) fn nullable(schema: &Schema) -> Result<Arc<Schema>> {
    let mut fields: Vec<Field> = Vec::new();
    for field in schema.fields() {
        if fields.iter().any(|other| other.name() == field.name()) {
            let message = format!("column \"{}\" specified more than once", field.name());
            return Err(Error::new("42701", message));
        }
        let data_type = match field.data_type() {
            DataType::Null => DataType::Utf8,
            other => other.clone(),
        };
        fields.push(Field::new(field.name(), data_type, true));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Returns the SQL type that values are cast to; `None` where a cast of SQL could not name it.
pub(crate) fn sql_type_of(data_type: &DataType) -> Option<ast::DataType> {
    use ast::DataType as Sql;
    if let Some(known) = crate::types::sql_type(data_type) {
        return Some(known);
    }
    Some(match data_type {
        DataType::UInt64 => Sql::BigIntUnsigned(None),
        DataType::Date32 => Sql::Date,
        DataType::Timestamp(_, None) => Sql::Timestamp(None, ast::TimezoneInfo::None),
        DataType::Timestamp(_, Some(_)) => Sql::Timestamp(None, ast::TimezoneInfo::Tz),
        DataType::Time64(_) => Sql::Time(None, ast::TimezoneInfo::None),
        DataType::Decimal128(precision, scale) => Sql::Decimal(
            ast::ExactNumberInfo::PrecisionAndScale(u64::from(*precision), i64::from(*scale)),
        ),
        DataType::Interval(_) => Sql::Interval { fields: None, precision: None },
        DataType::Binary => Sql::Bytea,
        _ => return None,
    })
}

/// Returns how many characters a type of text holds at most; refuses types whose values would be taken for
/// text.
fn length_of(data_type: &ast::DataType) -> Result<Option<usize>> {
    use ast::DataType as Sql;
    Ok(match data_type {
        Sql::Varchar(Some(ast::CharacterLength::IntegerLength { length, .. }))
        | Sql::CharacterVarying(Some(ast::CharacterLength::IntegerLength { length, .. }))
        | Sql::Char(Some(ast::CharacterLength::IntegerLength { length, .. }))
        | Sql::Character(Some(ast::CharacterLength::IntegerLength { length, .. })) => {
            Some(usize::try_from(*length).unwrap_or(usize::MAX))
        }
        Sql::Uuid | Sql::JSON | Sql::JSONB | Sql::Bytea | Sql::Array(_) => {
            let error = Error::unsupported(format!("a column of type {data_type}"));
            return Err(error.hint("use TEXT"));
        }
        _ => None,
    })
}

/// Reads what rows must obey out of a definition.
pub(super) fn constraints_of(
    columns: &[ast::ColumnDef],
    of_table: &[ast::TableConstraint],
    schema: &Schema,
) -> Result<Constraints> {
    let mut read = Constraints::default();
    for (at, column) in columns.iter().enumerate() {
        read.lengths.extend(length_of(&column.data_type)?.map(|most| (at, most)));
        for option in &column.options {
            match &option.option {
                ast::ColumnOption::Null => {}
                ast::ColumnOption::NotNull => read.not_null.push(at),
                ast::ColumnOption::PrimaryKey(_) => {
                    read.not_null.push(at);
                    read.unique.push(vec![at]);
                }
                ast::ColumnOption::Unique(_) => read.unique.push(vec![at]),
                other => {
                    let message = format!("{other} of a column of a temporary table");
                    return Err(Error::unsupported(message));
                }
            }
        }
    }
    let places = |columns: &[ast::IndexColumn]| {
        let place = |column: &ast::IndexColumn| match &column.column.expr {
            ast::Expr::Identifier(name) => schema.index_of(&fold(name)).ok(),
            _ => None,
        };
        let places = columns.iter().map(place).collect::<Option<Vec<_>>>();
        places.ok_or_else(|| Error::new("42703", "a column of a key does not exist"))
    };
    for constraint in of_table {
        match constraint {
            ast::TableConstraint::PrimaryKey(key) => {
                let places = places(&key.columns)?;
                read.not_null.extend(&places);
                read.unique.push(places);
            }
            ast::TableConstraint::Unique(key) => read.unique.push(places(&key.columns)?),
            other => {
                return Err(Error::unsupported(format!("{other} of a temporary table")));
            }
        }
    }
    Ok(read)
}
