//! An analyzer rule: what is cast to text reads as clients are sent it, not as Arrow writes it.

use std::sync::Arc;

use bytes::BytesMut;
use datafusion::arrow::array::{ArrayRef, StringBuilder};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use crate::error::Error;
use crate::instants::Zone;
use crate::plan_expressions::{columns_read, rewrite_expressions};
use crate::value_text::typed_column;

/// Puts PostgreSQL's text in the places of casts to text.
#[derive(Debug)]
pub(crate) struct TextCasts;

impl AnalyzerRule for TextCasts {
    fn analyze(&self, plan: LogicalPlan, options: &ConfigOptions) -> Result<LogicalPlan> {
        let zone = options.execution.time_zone.as_deref().and_then(Zone::named);
        let zone = zone.unwrap_or_default();
        let rewritten = plan.transform_up_with_subqueries(|plan| {
            let schema = columns_read(&plan)?;
            rewrite_expressions(plan, |expr| {
                let Expr::Cast(Cast { expr: inner, field }) = expr else {
                    return Ok(Transformed::no(expr));
                };
                let reads_otherwise = *field.data_type() == DataType::Utf8
                    && inner.get_type(&schema).is_ok_and(|from| differs(&from));
                if !reads_otherwise {
                    return Ok(Transformed::no(Expr::Cast(Cast { expr: inner, field })));
                }
                let func = Arc::new(ScalarUDF::from(TextOf::new()));
                let zone = Expr::Literal(ScalarValue::from(zone.name()), None);
                let args = vec![zone, *inner];
                Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })))
            })
        });
        rewritten.data()
    }

    fn name(&self) -> &'static str {
        "text_casts"
    }
}

/// Returns whether PostgreSQL writes values of a type otherwise than Arrow does.
fn differs(from: &DataType) -> bool {
    matches!(
        from,
        DataType::Float16
            | DataType::Float32
            | DataType::Float64
            | DataType::Timestamp(..)
            | DataType::Date32
            | DataType::Interval(_)
            | DataType::Duration(_)
            | DataType::List(_)
            | DataType::Binary
    )
}

/// `text_of_value(zone, x)`: x as text, instants in it as the zone's clocks show them.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TextOf {
    signature: Signature,
}

impl TextOf {
    fn new() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for TextOf {
    fn name(&self) -> &'static str {
        "text_of_value"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [ColumnarValue::Scalar(zone), value] = args.args.as_slice() else {
            return Err(Error::internal("a zone and a value").into());
        };
        let zone = zone.try_as_str().flatten().and_then(Zone::named).unwrap_or_default();
        match value {
            ColumnarValue::Scalar(value) => {
                let texts = texts(&value.to_array()?, &zone)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&texts, 0)?))
            }
            ColumnarValue::Array(values) => Ok(ColumnarValue::Array(texts(values, &zone)?)),
        }
    }
}

fn texts(values: &ArrayRef, zone: &Zone) -> Result<ArrayRef> {
    let column = typed_column(values, zone)?;
    let mut texts = StringBuilder::new();
    let mut text = BytesMut::new();
    for row in 0..values.len() {
        text.clear();
        if column.put_text(row, &mut text)? {
            texts.append_value(std::str::from_utf8(&text).map_err(Error::internal)?);
        } else {
            texts.append_null();
        }
    }
    Ok(Arc::new(texts.finish()))
}
