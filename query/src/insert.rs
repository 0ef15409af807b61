//! INSERT: literal rows go straight to columns, everything else through the planner.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::DateTime;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, TimestampNanosecondArray, new_null_array,
};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampNanosecondType};
use datafusion::arrow::util::display::FormatOptions;
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use model::points::array_bytes;
use model::schema::TIME_ZONE;
use model::{Column, ColumnKind};

use crate::access::Need;
use crate::error::{Error, Result};
use crate::exact_numbers::round_double;
use crate::gathered::gathered;
use crate::ingest::{Cell, Intake, RowsBuilder, Target, store};
use crate::instants::parse_instant;
use crate::session::Session;

/// The most rows of one INSERT ... SELECT, as it is checked whole before its first row is stored.
pub(crate) const SELECTED_ROWS_MAX: usize = 10_000_000;
/// The most bytes of them.
pub(crate) const SELECTED_BYTES_MAX: usize = 1 << 30;

impl Session {
    /// Runs an INSERT. Returns the number of rows.
    pub(crate) async fn insert(
        self: &Arc<Self>,
        insert: &ast::Insert,
        params: &[ScalarValue],
    ) -> Result<u64> {
        let target = self.insert_target(insert)?;
        self.check(Need::Write(target.object()))?;
        let source = insert.source.as_ref().ok_or_else(|| Error::unsupported("DEFAULT VALUES"))?;
        let literal = match source.body.as_ref() {
            ast::SetExpr::Values(values) if is_plain(source) => {
                self.literal_rows(&target, values, params)?
            }
            _ => None,
        };
        let (rows, points) = match literal {
            Some(found) => found,
            None => self.selected_rows(&target, source, params).await?,
        };
        self.note_write();
        store(self.database(), &target, points).await?;
        Ok(rows)
    }

    /// Returns what the INSERT names.
    pub(crate) fn insert_target(&self, insert: &ast::Insert) -> Result<Target> {
        if insert.returning.is_some() {
            return Err(Error::unsupported("RETURNING"));
        }
        let ast::TableObject::TableName(name) = &insert.table else {
            return Err(Error::unsupported("INSERT into an expression"));
        };
        let (database, table) = self.user_table(&crate::planning::parts(name)?)?;
        let names = insert.columns.iter().map(|column| {
            let parts = crate::planning::parts(column)?;
            parts.last().cloned().ok_or_else(|| Error::syntax("column name expected"))
        });
        let names = names.collect::<Result<Vec<_>>>()?;
        let target = Target::new(database, table, &names, Intake::of(self))?;
        if let Some(on) = &insert.on {
            check_upsert(on, &target)?;
        }
        Ok(target)
    }

    /// Reads rows of literals and parameters; `None` where one is an expression.
    fn literal_rows(
        &self,
        target: &Target,
        values: &ast::Values,
        params: &[ScalarValue],
    ) -> Result<Option<(u64, Vec<model::Points>)>> {
        let mut builder = RowsBuilder::new(target.clone());
        for row in &values.rows {
            check_width(row.content.len(), target)?;
            for (at, expression) in row.content.iter().enumerate() {
                let Some(literal) = literal(expression, params)? else { return Ok(None) };
                let cell = match literal {
                    Literal::Wall(ns) => {
                        let wall = DateTime::from_timestamp_nanos(ns).naive_utc();
                        let instant = target.intake.zone.instant(&wall);
                        Cell::Time(
                            instant.ok_or_else(|| Error::new("22008", "timestamp out of range"))?,
                        )
                    }
                    ref other => other.cell(),
                };
                let pushed = builder.push(at, cell);
                pushed.map_err(|error| in_column(error, &target.columns[at]))?;
            }
            for at in row.content.len()..target.columns.len() {
                builder.push(at, Cell::Null)?;
            }
            builder.end_row();
        }
        let rows = builder.rows() as u64;
        Ok(Some((rows, builder.finish(self.now_ns())?)))
    }

    async fn selected_rows(
        self: &Arc<Self>,
        target: &Target,
        source: &ast::Query,
        params: &[ScalarValue],
    ) -> Result<(u64, Vec<model::Points>)> {
        let mut source = source.clone();
        without_defaults(&mut source);
        let query = crate::sql::of_query(Box::new(source));
        let stream = self.query(&query, params).await?;
        check_width(stream.schema().fields().len(), target)?;
        let mut stream = gathered(stream);
        let mut points = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            rows += batch.num_rows();
            if rows > SELECTED_ROWS_MAX {
                let message = format!("INSERT ... SELECT of more than {SELECTED_ROWS_MAX} rows");
                return Err(Error::new("54000", message).hint("split it by time"));
            }
            let arrays = target.columns.iter().enumerate().map(|(at, column)| {
                match batch.columns().get(at) {
                    Some(array) => {
                        convert(array, column, target).map_err(|error| in_column(error, column))
                    }
                    // Left out on the right: NULL, as in VALUES.
                    None => Ok(new_null_array(column.arrow().data_type(), batch.num_rows())),
                }
            });
            let arrays = arrays.collect::<Result<Vec<_>>>()?;
            bytes += arrays.iter().map(array_bytes).sum::<usize>();
            if bytes > SELECTED_BYTES_MAX {
                let message = "INSERT ... SELECT of more than 1 GiB of rows";
                return Err(Error::new("54000", message).hint("split it by time"));
            }
            points.extend(target.new_points(&arrays, self.now_ns())?);
        }
        Ok((rows as u64, points))
    }
}

/// Lets ON CONFLICT pass where it asks for what happens anyway: the row with the same tags and time gets
/// the values of this one.
fn check_upsert(on: &ast::OnInsert, target: &Target) -> Result<()> {
    let refused = |what: &str| {
        let hint = "a row with the same tags and time is updated: write nothing, or ON CONFLICT \
                    (time, tags) DO UPDATE SET each field = EXCLUDED.field";
        Err(Error::unsupported(what).hint(hint))
    };
    let ast::OnInsert::OnConflict(conflict) = on else {
        return refused("ON DUPLICATE KEY UPDATE");
    };
    if let Some(ast::ConflictTarget::Columns(columns)) = &conflict.conflict_target {
        let key = |column: &&Column| !matches!(column.kind, ColumnKind::Field(_));
        let mut wanted: Vec<&str> =
            target.table.columns.iter().filter(key).map(|column| column.name.as_str()).collect();
        let mut named: Vec<String> = columns.iter().map(crate::sql::fold).collect();
        wanted.sort_unstable();
        named.sort_unstable();
        if wanted != named {
            let message = "there is no unique constraint matching the ON CONFLICT specification";
            return Err(Error::new("42P10", message).hint(format!("it is ({})", wanted.join(", "))));
        }
    } else if conflict.conflict_target.is_some() {
        return refused("ON CONFLICT ON CONSTRAINT");
    }
    let ast::OnConflictAction::DoUpdate(update) = &conflict.action else {
        return refused("ON CONFLICT DO NOTHING");
    };
    if update.selection.is_some() {
        return refused("ON CONFLICT DO UPDATE ... WHERE");
    }
    let mut set = Vec::with_capacity(update.assignments.len());
    for assignment in &update.assignments {
        let ast::AssignmentTarget::ColumnName(name) = &assignment.target else {
            return refused("ON CONFLICT DO UPDATE of a row of columns");
        };
        let column = crate::planning::parts(name)?.pop().unwrap_or_default();
        let is_excluded = matches!(&assignment.value, ast::Expr::CompoundIdentifier(parts)
            if matches!(parts.as_slice(), [table, of]
                if crate::sql::fold(table) == "excluded" && crate::sql::fold(of) == column));
        if !is_excluded {
            return refused("ON CONFLICT DO UPDATE with another value than EXCLUDED's");
        }
        set.push(column);
    }
    let is_field = |column: &&Column| matches!(column.kind, ColumnKind::Field(_));
    match target.columns.iter().filter(is_field).find(|column| !set.contains(&column.name)) {
        Some(_) => refused("ON CONFLICT DO UPDATE of some of the fields that are inserted"),
        None => Ok(()),
    }
}

/// Returns whether a value is DEFAULT, which is NULL: no column has another.
fn is_default(expression: &ast::Expr) -> bool {
    matches!(expression, ast::Expr::Identifier(name)
        if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default"))
}

fn without_defaults(source: &mut ast::Query) {
    let ast::SetExpr::Values(values) = source.body.as_mut() else { return };
    for value in values.rows.iter_mut().flat_map(|row| &mut row.content) {
        if is_default(value) {
            *value = ast::Expr::Value(ast::Value::Null.with_empty_span());
        }
    }
}

fn is_plain(query: &ast::Query) -> bool {
    query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
}

fn check_width(width: usize, target: &Target) -> Result<()> {
    if width > target.columns.len() {
        return Err(Error::syntax("INSERT has more expressions than target columns"));
    }
    // The time comes first unless columns were named: what is left out on the right is NULL.
    let named = target.columns.len() != target.table.columns.len();
    if width < target.columns.len() && named {
        return Err(Error::syntax("INSERT has more target columns than expressions"));
    }
    Ok(())
}

pub(crate) fn in_column(mut error: Error, column: &Column) -> Error {
    if !error.message.contains("column \"") {
        error.message = format!("{} (column \"{}\")", error.message, column.name);
    }
    error
}

/// Casts an array to the type rows of a column are held in; integers are times in the precision.
pub(crate) fn convert(array: &ArrayRef, column: &Column, target: &Target) -> Result<ArrayRef> {
    let wanted = column.arrow().data_type().clone();
    if array.data_type() == &wanted {
        return Ok(Arc::clone(array));
    }
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    if column.kind == ColumnKind::Time && array.data_type().is_integer() {
        let numbers = cast_with_options(array, &DataType::Int64, &options)?;
        let numbers = numbers.as_primitive::<Int64Type>();
        let scaled = numbers.try_unary::<_, Int64Type, _>(|number| {
            number.checked_mul(target.database.options.precision.ns()).ok_or_else(|| {
                datafusion::arrow::error::ArrowError::ArithmeticOverflow(
                    "time out of range".to_owned(),
                )
            })
        })?;
        return Ok(cast_with_options(&scaled, &wanted, &options)?);
    }
    if column.kind == ColumnKind::Time && *array.data_type() != DataType::Null {
        return time_array(array, &target.intake);
    }
    if array.data_type() == &DataType::Null {
        return Ok(new_null_array(&wanted, array.len()));
    }
    if wanted.is_integer() && array.data_type().is_floating() {
        return Ok(cast_with_options(&round_double(array), &wanted, &options)?);
    }
    Ok(cast_with_options(array, &wanted, &options)?)
}

/// Makes instants: what has no zone is meant in the session's.
fn time_array(array: &ArrayRef, clock: &Intake) -> Result<ArrayRef> {
    let invalid = |text: &str| {
        let message = format!("invalid input syntax for type timestamp with time zone: \"{text}\"");
        Error::new("22007", message)
    };
    let read = |text: Option<&str>| {
        let instant =
            |text| parse_instant(text, &clock.zone, clock.now_ns).ok_or_else(|| invalid(text));
        text.map(instant).transpose()
    };
    let times: TimestampNanosecondArray = match array.as_string_opt::<i32>() {
        Some(texts) => texts.iter().map(read).collect::<Result<_>>()?,
        None => {
            let zoned = DataType::Timestamp(TimeUnit::Nanosecond, Some(clock.zone.arrow().into()));
            let options = CastOptions { safe: false, format_options: FormatOptions::default() };
            let zoned = cast_with_options(array, &zoned, &options)?;
            zoned.as_primitive::<TimestampNanosecondType>().clone()
        }
    };
    Ok(Arc::new(times.with_timezone(TIME_ZONE)))
}

/// A literal of VALUES, or the value of a parameter.
enum Literal<'a> {
    Null,
    Text(Cow<'a, str>),
    Number(Cow<'a, str>),
    Bool(bool),
    I64(i64),
    F64(f64),
    Time(i64),
    /// What clocks show, nanoseconds since they showed the epoch.
    Wall(i64),
}

impl Literal<'_> {
    fn cell(&self) -> Cell<'_> {
        match self {
            Self::Null => Cell::Null,
            Self::Text(text) => Cell::Text(text),
            Self::Number(text) => Cell::Number(text),
            Self::Bool(value) => Cell::Bool(*value),
            Self::I64(value) => Cell::I64(*value),
            Self::F64(value) => Cell::F64(*value),
            Self::Time(ns) | Self::Wall(ns) => Cell::Time(*ns),
        }
    }
}

fn literal<'a>(
    expression: &'a ast::Expr,
    params: &'a [ScalarValue],
) -> Result<Option<Literal<'a>>> {
    Ok(match expression {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Null => Some(Literal::Null),
            ast::Value::Boolean(value) => Some(Literal::Bool(*value)),
            ast::Value::Number(text, _) => Some(Literal::Number(text.as_str().into())),
            ast::Value::SingleQuotedString(text) | ast::Value::EscapedStringLiteral(text) => {
                Some(Literal::Text(text.as_str().into()))
            }
            ast::Value::Placeholder(name) => Some(parameter(name, params)?),
            _ => None,
        },
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => match expr.as_ref() {
            ast::Expr::Value(ast::ValueWithSpan { value: ast::Value::Number(text, _), .. }) => {
                Some(Literal::Number(format!("-{text}").into()))
            }
            _ => None,
        },
        ast::Expr::Nested(inner) => literal(inner, params)?,
        expression if is_default(expression) => Some(Literal::Null),
        ast::Expr::TypedString(typed)
            if matches!(typed.data_type, ast::DataType::Timestamp(..)) =>
        {
            match &typed.value.value {
                ast::Value::SingleQuotedString(text) => Some(Literal::Text(text.as_str().into())),
                _ => None,
            }
        }
        _ => None,
    })
}

fn parameter<'a>(name: &str, params: &'a [ScalarValue]) -> Result<Literal<'a>> {
    let number = name.strip_prefix('$').and_then(|number| number.parse::<usize>().ok());
    let value = number.and_then(|number| params.get(number.checked_sub(1)?));
    let value =
        value.ok_or_else(|| Error::new("08P01", format!("there is no parameter {name}")))?;
    Ok(match value {
        value if value.is_null() => Literal::Null,
        ScalarValue::Utf8(Some(text)) => Literal::Text(text.as_str().into()),
        ScalarValue::Boolean(Some(value)) => Literal::Bool(*value),
        ScalarValue::Int16(Some(value)) => Literal::I64(i64::from(*value)),
        ScalarValue::Int32(Some(value)) => Literal::I64(i64::from(*value)),
        ScalarValue::Int64(Some(value)) => Literal::I64(*value),
        ScalarValue::Float32(Some(value)) => Literal::F64(f64::from(*value)),
        ScalarValue::Float64(Some(value)) => Literal::F64(*value),
        ScalarValue::TimestampNanosecond(Some(ns), Some(_)) => Literal::Time(*ns),
        ScalarValue::TimestampNanosecond(Some(ns), None) => Literal::Wall(*ns),
        ScalarValue::Date32(Some(days)) => Literal::Wall(i64::from(*days) * 86_400_000_000_000),
        other => Literal::Number(other.to_string().into()),
    })
}

/// Returns the columns that parameters standing alone in VALUES are for, by parameter number.
pub(crate) fn parameter_columns<'a>(
    insert: &ast::Insert,
    target: &'a Target,
) -> Vec<Option<&'a Column>> {
    let mut columns: Vec<Option<&Column>> = Vec::new();
    let Some(source) = &insert.source else { return columns };
    let ast::SetExpr::Values(values) = source.body.as_ref() else { return columns };
    for row in &values.rows {
        for (expression, column) in row.content.iter().zip(&target.columns) {
            if let ast::Expr::Value(value) = expression
                && let ast::Value::Placeholder(name) = &value.value
                && let Some(number) = name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok())
                && (1..=crate::planning::PARAMETERS_MAX).contains(&number)
            {
                if columns.len() < number {
                    columns.resize(number, None);
                }
                columns[number - 1].get_or_insert(column);
            }
        }
    }
    columns
}
