//! SQL's names of types, ours, and Arrow's.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast;
use datafusion_pg_catalog::pg_catalog::oid_type_planner::PgOidTypePlanner;
use model::{Shape, ValueType};

use crate::error::{Error, Result};

/// What a column definition's type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColumnType {
    /// The time of the row.
    Time,
    /// A value; true where it is held in a wider type than was asked for.
    Value(ValueType, bool),
    /// A text that is such a shape.
    Shape(Shape),
}

/// Reads the type of a column definition.
pub(crate) fn column_type(data_type: &ast::DataType) -> Result<ColumnType> {
    use ast::DataType as Sql;
    let value = |value_type| Ok(ColumnType::Value(value_type, false));
    let widened = |value_type| Ok(ColumnType::Value(value_type, true));
    match data_type {
        Sql::BigInt(_) | Sql::Int8(_) => value(ValueType::I64),
        Sql::BigIntUnsigned(_) => value(ValueType::U64),
        Sql::SmallInt(_) | Sql::Int2(_) | Sql::Int(_) | Sql::Integer(_) | Sql::Int4(_) => {
            widened(ValueType::I64)
        }
        Sql::Double(_) | Sql::DoublePrecision | Sql::Float8 | Sql::Float(_) => {
            value(ValueType::F64)
        }
        Sql::Real | Sql::Float4 => widened(ValueType::F64),
        Sql::Boolean | Sql::Bool => value(ValueType::Bool),
        Sql::String(_) | Sql::Text | Sql::Varchar(None) | Sql::CharacterVarying(None) => {
            value(ValueType::Str)
        }
        Sql::Varchar(_) | Sql::CharacterVarying(_) | Sql::Char(_) | Sql::Character(_) => {
            widened(ValueType::Str)
        }
        Sql::Timestamp(..) => Ok(ColumnType::Time),
        Sql::Custom(name, arguments) if name.to_string().eq_ignore_ascii_case("geometry") => {
            shape(arguments).map(ColumnType::Shape)
        }
        other => {
            let hint = "use BIGINT, BIGINT UNSIGNED, DOUBLE, BOOLEAN, STRING or GEOMETRY";
            Err(Error::unsupported(format!("type {other}")).hint(hint))
        }
    }
}

/// Reads the shape and the reference system of `GEOMETRY(shape, 0)`: shapes lie in a plane.
fn shape(arguments: &[String]) -> Result<Shape> {
    let (name, system) = match arguments {
        [name] => (name, "0"),
        [name, system] => (name, system.as_str()),
        _ => return Err(Error::syntax("GEOMETRY needs its shape: GEOMETRY(POINT, 0)")),
    };
    if system != "0" {
        let message = format!("spatial reference system {system}");
        return Err(Error::unsupported(message).hint("shapes lie in a plane: system 0"));
    }
    Shape::named(name).ok_or_else(|| {
        let known = Shape::ALL.map(Shape::name).join(", ");
        Error::new("22023", format!("no shape \"{name}\"")).hint(format!("there are {known}"))
    })
}

/// Returns the name PostgreSQL's clients know a type by.
pub(crate) fn pg_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "boolean",
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint",
        DataType::Int32 | DataType::UInt16 => "integer",
        DataType::Int64 | DataType::UInt32 => "bigint",
        DataType::UInt64 | DataType::Decimal128(..) => "numeric",
        DataType::Float16 | DataType::Float32 => "real",
        DataType::Float64 => "double precision",
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone",
        DataType::Timestamp(_, None) => "timestamp without time zone",
        DataType::Date32 | DataType::Date64 => "date",
        _ => "text",
    }
}

/// Returns the name PostgreSQL's catalog has for a type that is written so.
pub(crate) fn short_name(written: &str) -> &str {
    match written {
        "int" | "integer" => "int4",
        "bigint" => "int8",
        "smallint" => "int2",
        "real" => "float4",
        "double precision" | "double" | "float" => "float8",
        "boolean" => "bool",
        "decimal" | "dec" => "numeric",
        "character varying" | "char varying" => "varchar",
        "char" | "character" => "bpchar",
        "timestamp without time zone" => "timestamp",
        "timestamp with time zone" => "timestamptz",
        "time without time zone" => "time",
        other => other,
    }
}

/// Returns the SQL type that a parameter of an Arrow type is cast to, `None` where it is left to
/// inference.
pub(crate) fn sql_type(data_type: &DataType) -> Option<ast::DataType> {
    use ast::DataType as Sql;
    Some(match data_type {
        DataType::Boolean => Sql::Boolean,
        DataType::Int16 => Sql::SmallInt(None),
        DataType::Int32 => Sql::Int(None),
        DataType::Int64 => Sql::BigInt(None),
        DataType::Float32 => Sql::Real,
        DataType::Float64 => Sql::DoublePrecision,
        DataType::Utf8 => Sql::Text,
        DataType::Date32 => Sql::Date,
        DataType::Timestamp(TimeUnit::Nanosecond, Some(_)) => {
            Sql::Timestamp(None, ast::TimezoneInfo::Tz)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, None) => {
            Sql::Timestamp(None, ast::TimezoneInfo::None)
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            Sql::Interval { fields: None, precision: None }
        }
        _ => return None,
    })
}

/// Returns the Arrow type of a SQL type that [`sql_type`] may give, by any of its names.
pub(crate) fn arrow_type(sql_type: &ast::DataType) -> Option<DataType> {
    let written = sql_type.to_string().to_lowercase();
    Some(match short_name(&written) {
        "bool" => DataType::Boolean,
        "int2" => DataType::Int16,
        "int4" => DataType::Int32,
        "int8" => DataType::Int64,
        "float4" => DataType::Float32,
        "float8" => DataType::Float64,
        "text" | "varchar" | "uuid" => DataType::Utf8,
        "date" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Nanosecond, None),
        "timestamptz" => DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())),
        _ => return None,
    })
}

/// SQL types that DataFusion does not know by itself.
#[derive(Debug)]
pub(crate) struct PgTypes;

impl TypePlanner for PgTypes {
    fn plan_type_field(
        &self,
        sql_type: &ast::DataType,
    ) -> datafusion::common::Result<Option<FieldRef>> {
        use ast::DataType as Sql;
        let found = match sql_type {
            Sql::CharacterVarying(_) | Sql::Character(_) | Sql::Uuid | Sql::JSON | Sql::JSONB => {
                DataType::Utf8
            }
            // Without a length FLOAT is PostgreSQL's float8.
            Sql::Float(ast::ExactNumberInfo::None) => DataType::Float64,
            other => return PgOidTypePlanner.plan_type_field(other),
        };
        Ok(Some(Arc::new(Field::new("", found, true))))
    }
}
