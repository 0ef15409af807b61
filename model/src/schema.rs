//! Columns and tables. A table has `time`, tags and fields; columns are told apart by stable ids.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::ids::{ColumnId, DatabaseId, TableId};
use crate::shape::Shape;

/// The most columns a table may have, dropped ones not counted.
pub const COLUMNS_MAX: usize = 4_096;
/// The most tags a table may have.
pub const TAGS_MAX: usize = 256;
/// The zone that times are held in, as Arrow spells it.
pub const TIME_ZONE: &str = "+00:00";
/// The longest name of an object, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// The type of a field's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ValueType {
    /// 64-bit signed integer, SQL `BIGINT`.
    I64,
    /// 64-bit unsigned integer, SQL `BIGINT UNSIGNED`.
    U64,
    /// IEEE 754 double, SQL `DOUBLE`.
    F64,
    /// SQL `BOOLEAN`.
    Bool,
    /// UTF-8 text, SQL `STRING`.
    Str,
}

impl ValueType {
    /// Returns the Arrow type values of this type are held in.
    pub fn arrow(self) -> DataType {
        match self {
            Self::I64 => DataType::Int64,
            Self::U64 => DataType::UInt64,
            Self::F64 => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Str => DataType::Utf8,
        }
    }

    /// Returns the number that stands for this type in files and messages.
    // FORMAT: docs/formats/points.md, v1
    pub fn code(self) -> u8 {
        match self {
            Self::I64 => 1,
            Self::U64 => 2,
            Self::F64 => 3,
            Self::Bool => 4,
            Self::Str => 5,
        }
    }

    /// Returns the type a number stands for.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::I64, Self::U64, Self::F64, Self::Bool, Self::Str]
            .into_iter()
            .find(|t| t.code() == code)
    }

    /// Returns the type as SQL spells it.
    pub fn sql(self) -> &'static str {
        match self {
            Self::I64 => "BIGINT",
            Self::U64 => "BIGINT UNSIGNED",
            Self::F64 => "DOUBLE",
            Self::Bool => "BOOLEAN",
            Self::Str => "STRING",
        }
    }
}

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColumnKind {
    /// The instant of a row.
    Time,
    /// A part of the series key; text.
    Tag,
    /// A value.
    Field(ValueType),
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Stable over renames.
    pub id: ColumnId,
    /// The present name.
    pub name: String,
    /// What the column is for.
    pub kind: ColumnKind,
    /// Whether NULL is refused; only for tags.
    #[serde(default)]
    pub not_null: bool,
    /// Which encodings its pages may have.
    #[serde(default)]
    pub codec: Codec,
    /// What shapes its texts are; `None`: texts of any kind.
    #[serde(default)]
    pub shape: Option<Shape>,
}

/// A table's schema at one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    /// The table.
    pub id: TableId,
    /// The database the table is in.
    pub database: DatabaseId,
    /// The present name.
    pub name: String,
    /// Grows by one with each change.
    pub version: u32,
    /// The next column id to hand out.
    pub next_column: u32,
    /// `time` first, then tags and fields in the order they were added.
    pub columns: Vec<Column>,
}

impl TableSchema {
    /// Returns the column of a name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Returns the tags in order.
    pub fn tags(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.kind == ColumnKind::Tag)
    }

    /// Returns the fields in order, each with its type.
    pub fn fields(&self) -> impl Iterator<Item = (&Column, ValueType)> {
        self.columns.iter().filter_map(|column| match column.kind {
            ColumnKind::Field(value_type) => Some((column, value_type)),
            ColumnKind::Time | ColumnKind::Tag => None,
        })
    }

    /// Returns the Arrow schema of `SELECT *`.
    pub fn arrow(&self) -> SchemaRef {
        let fields: Vec<Field> = self.columns.iter().map(Column::arrow).collect();
        SchemaRef::new(Schema::new(fields))
    }
}

impl Column {
    /// Returns the type as SQL spells it.
    pub fn sql(&self) -> String {
        match (self.kind, self.shape) {
            (_, Some(shape)) => format!("GEOMETRY({}, 0)", shape.name()),
            (ColumnKind::Time, None) => "TIMESTAMP".to_owned(),
            (ColumnKind::Tag, None) => "STRING".to_owned(),
            (ColumnKind::Field(value_type), None) => value_type.sql().to_owned(),
        }
    }

    /// Returns the Arrow field rows of this column are held in.
    pub fn arrow(&self) -> Field {
        match self.kind {
            ColumnKind::Time => Field::new(&self.name, time_type(), false),
            ColumnKind::Tag => Field::new(&self.name, DataType::Utf8, !self.not_null),
            ColumnKind::Field(value_type) => Field::new(&self.name, value_type.arrow(), true),
        }
    }
}

/// Returns the Arrow type of `time`: an instant in UTC, to the nanosecond.
pub fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some(TIME_ZONE.into()))
}
