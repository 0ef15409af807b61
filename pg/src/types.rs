//! Arrow's types and PostgreSQL's.

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use pgwire::api::Type;
use pgwire::api::results::{FieldFormat, FieldInfo};

/// Metadata that marks integers which PostgreSQL's catalogs call oid and the like.
const OID_ALIAS: &str = "pg.oid_alias";

/// Returns the type a column has on the wire; what has none there goes as text.
pub(crate) fn wire_type(field: &Field) -> Type {
    match (field.data_type(), field.metadata().get(OID_ALIAS).map(String::as_str)) {
        (DataType::Int32, Some("oid")) => Type::OID,
        (data_type, _) => of(data_type),
    }
}

fn of(data_type: &DataType) -> Type {
    match data_type {
        DataType::Boolean => Type::BOOL,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => Type::INT2,
        DataType::Int32 | DataType::UInt16 => Type::INT4,
        DataType::Int64 | DataType::UInt32 => Type::INT8,
        DataType::UInt64 | DataType::Decimal128(..) => Type::NUMERIC,
        DataType::Float16 | DataType::Float32 => Type::FLOAT4,
        DataType::Float64 => Type::FLOAT8,
        DataType::Timestamp(_, Some(_)) => Type::TIMESTAMPTZ,
        DataType::Timestamp(_, None) => Type::TIMESTAMP,
        DataType::Date32 | DataType::Date64 => Type::DATE,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Type::BYTEA,
        DataType::Interval(_) | DataType::Duration(_) => Type::INTERVAL,
        DataType::Dictionary(_, value) => of(value),
        // PostgreSQL has one type for any number of dimensions.
        DataType::List(item) if matches!(item.data_type(), DataType::List(_)) => {
            of(item.data_type())
        }
        DataType::List(item) | DataType::LargeList(item) => match of(item.data_type()) {
            Type::BOOL => Type::BOOL_ARRAY,
            Type::INT2 => Type::INT2_ARRAY,
            Type::INT4 => Type::INT4_ARRAY,
            Type::INT8 => Type::INT8_ARRAY,
            Type::FLOAT4 => Type::FLOAT4_ARRAY,
            Type::FLOAT8 => Type::FLOAT8_ARRAY,
            Type::TIMESTAMPTZ => Type::TIMESTAMPTZ_ARRAY,
            Type::TIMESTAMP => Type::TIMESTAMP_ARRAY,
            Type::DATE => Type::DATE_ARRAY,
            Type::NUMERIC => Type::NUMERIC_ARRAY,
            Type::INTERVAL => Type::INTERVAL_ARRAY,
            Type::BYTEA => Type::BYTEA_ARRAY,
            _ => Type::TEXT_ARRAY,
        },
        _ => Type::TEXT,
    }
}

/// Returns the Arrow type a parameter of a declared type is read as.
pub(crate) fn arrow_type(declared: &Type) -> Option<DataType> {
    Some(match *declared {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 | Type::OID => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 | Type::NUMERIC => DataType::Float64,
        Type::TEXT
        | Type::VARCHAR
        | Type::BPCHAR
        | Type::NAME
        | Type::UUID
        | Type::JSON
        | Type::JSONB
        | Type::TIME => DataType::Utf8,
        Type::BYTEA => DataType::Binary,
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())),
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Nanosecond, None),
        Type::DATE => DataType::Date32,
        Type::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        Type::BOOL_ARRAY => DataType::new_list(DataType::Boolean, true),
        Type::INT2_ARRAY => DataType::new_list(DataType::Int16, true),
        Type::INT4_ARRAY => DataType::new_list(DataType::Int32, true),
        Type::INT8_ARRAY => DataType::new_list(DataType::Int64, true),
        Type::FLOAT4_ARRAY => DataType::new_list(DataType::Float32, true),
        Type::FLOAT8_ARRAY | Type::NUMERIC_ARRAY => DataType::new_list(DataType::Float64, true),
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY | Type::NAME_ARRAY => {
            DataType::new_list(DataType::Utf8, true)
        }
        Type::TIMESTAMPTZ_ARRAY => {
            let zone = Some("+00:00".into());
            DataType::new_list(DataType::Timestamp(TimeUnit::Nanosecond, zone), true)
        }
        Type::TIMESTAMP_ARRAY => {
            DataType::new_list(DataType::Timestamp(TimeUnit::Nanosecond, None), true)
        }
        Type::DATE_ARRAY => DataType::new_list(DataType::Date32, true),
        _ => return None,
    })
}

/// Returns the wire's length of a type: bytes, or -1 where it varies.
fn length(wire: &Type) -> i16 {
    match *wire {
        Type::BOOL => 1,
        Type::INT2 => 2,
        Type::INT4 | Type::FLOAT4 | Type::DATE | Type::OID => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIMESTAMP | Type::TIMESTAMPTZ => 8,
        Type::INTERVAL => 16,
        _ => -1,
    }
}

/// Describes a column.
pub(crate) fn field_info(field: &Field, format: FieldFormat) -> FieldInfo {
    let wire = wire_type(field);
    let length = length(&wire);
    // A zero byte would end the name early on the wire.
    let name = field.name().replace('\0', "");
    FieldInfo::new(name, None, None, wire, format).with_type_size(length).with_type_modifier(-1)
}
