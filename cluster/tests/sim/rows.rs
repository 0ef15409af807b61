//! The rows that clients write, as commands and as read back.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampNanosecondType};
use bytes::Bytes;
use model::points::{PointsColumn, SeriesDictionary};
use model::{ColumnId, Points, SeriesKey, TableId, TimeRange, ValueType};
use tskv::{
    ScanColumn, ScanRequest, SeriesFilter, Vnode, WriteId, encode_delete_matching,
    encode_delete_rows, encode_end, encode_write,
};

const TABLE: TableId = TableId(9);
const TAG: ColumnId = ColumnId(1);
const FIELD: ColumnId = ColumnId(2);
/// The series with a row of every value that was put.
const ALL: &str = "all";

/// (tag, time) → value.
pub(crate) type Rows = BTreeMap<(String, i64), i64>;

/// What a client wants changed. Every value is put once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A register gets a value, and a row tells of it.
    Put { register: u64, value: i64 },
    /// That row goes again.
    Delete { value: i64 },
    /// Values beyond this are refused from now on.
    End { until: i64 },
}

impl Change {
    /// Returns the command of a change.
    pub(crate) fn command(self, id: WriteId) -> Bytes {
        match self {
            Self::Put { register, value } => {
                let register = format!("r{register}");
                encode_write(id, 0, &[points(&[(&register, 0), (ALL, value)], Some(value))])
            }
            Self::Delete { value } if value % 2 == 0 => {
                encode_delete_rows(id, 0, &points(&[(ALL, value)], None))
            }
            Self::Delete { value } => {
                let terms = vec![(TAG, vec![Some(ALL.to_owned())])];
                let filter = SeriesFilter { terms, ..SeriesFilter::default() };
                let times = TimeRange { min: value, max: value };
                encode_delete_matching(id, 0, TABLE, (&filter, times))
            }
            Self::End { until } => encode_end(id, 0, until),
        }
    }

    /// Does to a map what the command does to a vnode.
    pub(crate) fn apply_to(self, rows: &mut Rows) {
        match self {
            Self::Put { register, value } => {
                rows.insert((format!("r{register}"), 0), value);
                rows.insert((ALL.to_owned(), value), value);
            }
            Self::Delete { value } => drop(rows.remove(&(ALL.to_owned(), value))),
            Self::End { .. } => {}
        }
    }
}

fn points(rows: &[(&str, i64)], value: Option<i64>) -> Points {
    let mut series = SeriesDictionary::default();
    let number = |(tag, _): &(&str, i64)| {
        series.number(SeriesKey::encode(TABLE, [(TAG, Some(*tag))].into_iter()).as_bytes())
    };
    let row_series = rows.iter().map(number).collect();
    let fields = value.map(|value| PointsColumn {
        id: FIELD,
        value_type: ValueType::I64,
        values: Arc::new(Int64Array::from(vec![value; rows.len()])),
    });
    Points {
        table: TABLE,
        series: series.into_keys(),
        row_series,
        times: rows.iter().map(|row| row.1).collect(),
        fields: fields.into_iter().collect(),
    }
}

/// Reads all rows of a vnode.
pub(crate) fn read(vnode: &Vnode) -> tskv::Result<Rows> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("time", model::schema::time_type(), false),
        Field::new("tag", DataType::Utf8, true),
        Field::new("value", DataType::Int64, true),
    ]));
    let columns =
        vec![ScanColumn::Time, ScanColumn::Tag(TAG), ScanColumn::Field(FIELD, ValueType::I64)];
    let (filter, times) = (SeriesFilter::default(), TimeRange::ALL);
    let request = ScanRequest {
        table: TABLE,
        columns,
        schema,
        times,
        filter,
        values: Vec::new(),
        order: vec![TAG],
    };
    let mut scan = vnode.scan(request)?;
    let mut rows = Rows::new();
    while let Some(batch) = scan.next_batch()? {
        let times = batch.column(0).as_primitive::<TimestampNanosecondType>();
        let tags = batch.column(1).as_string::<i32>();
        let values = batch.column(2).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let key = (tags.value(row).to_owned(), times.value(row));
            assert!(rows.insert(key, values.value(row)).is_none(), "a row twice");
        }
    }
    Ok(rows)
}
