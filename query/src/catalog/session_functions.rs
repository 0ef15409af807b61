//! Functions that answer of the session or of the server: settings, sizes, names of objects.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use parking_lot::Mutex;

use crate::functions::{no_such_call, scalar_if};
use crate::settings::Settings;

/// Returns the functions of a session.
pub(super) fn all(settings: &Arc<Mutex<Settings>>) -> Vec<ScalarUDF> {
    [
        Kind::CurrentSetting,
        Kind::SetConfig,
        Kind::SizePretty,
        Kind::IsInRecovery,
        Kind::ObjectDescription,
        Kind::ColumnDescription,
        Kind::ServerPort,
        Kind::ServerAddress,
    ]
    .map(|kind| {
        let signature = Signature::user_defined(kind.volatility());
        let settings = Shared(Arc::clone(settings));
        let function = SessionFunction { kind, signature, settings };
        ScalarUDF::from(function).with_aliases([kind.qualified()])
    })
    .into()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    CurrentSetting,
    SetConfig,
    SizePretty,
    IsInRecovery,
    ObjectDescription,
    ColumnDescription,
    ServerPort,
    ServerAddress,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::CurrentSetting => "current_setting",
            Self::SetConfig => "set_config",
            Self::SizePretty => "pg_size_pretty",
            Self::IsInRecovery => "pg_is_in_recovery",
            Self::ObjectDescription => "obj_description",
            Self::ColumnDescription => "col_description",
            Self::ServerPort => "inet_server_port",
            Self::ServerAddress => "inet_server_addr",
        }
    }

    fn qualified(self) -> &'static str {
        match self {
            Self::CurrentSetting => "pg_catalog.current_setting",
            Self::SetConfig => "pg_catalog.set_config",
            Self::SizePretty => "pg_catalog.pg_size_pretty",
            Self::IsInRecovery => "pg_catalog.pg_is_in_recovery",
            Self::ObjectDescription => "pg_catalog.obj_description",
            Self::ColumnDescription => "pg_catalog.col_description",
            Self::ServerPort => "pg_catalog.inet_server_port",
            Self::ServerAddress => "pg_catalog.inet_server_addr",
        }
    }

    fn volatility(self) -> Volatility {
        match self {
            Self::SetConfig => Volatility::Volatile,
            Self::SizePretty => Volatility::Immutable,
            _ => Volatility::Stable,
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::CurrentSetting => "(name[, missing_ok])",
            Self::SetConfig => "(name, value, is_local)",
            Self::SizePretty => "(bytes)",
            Self::ObjectDescription => "(object[, catalog])",
            Self::ColumnDescription => "(table, column)",
            Self::IsInRecovery | Self::ServerPort | Self::ServerAddress => "()",
        }
    }
}

/// Settings, compared by being the same ones.
#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Settings>>);

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Shared {}

impl std::hash::Hash for Shared {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SessionFunction {
    kind: Kind,
    signature: Signature,
    settings: Shared,
}

impl ScalarUDFImpl for SessionFunction {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        use DataType::{Boolean, Int64, Utf8};
        match (self.kind, found.len()) {
            (Kind::CurrentSetting, 1) => Ok(vec![Utf8]),
            (Kind::CurrentSetting, 2) => Ok(vec![Utf8, Boolean]),
            (Kind::SetConfig, 3) => Ok(vec![Utf8, Utf8, Boolean]),
            (Kind::SizePretty, 1) => Ok(vec![Int64]),
            (Kind::ObjectDescription, 1 | 2) | (Kind::ColumnDescription, 2) => Ok(found.to_vec()),
            (Kind::IsInRecovery | Kind::ServerPort | Kind::ServerAddress, 0) => Ok(Vec::new()),
            _ => no_such_call(self.name(), found, self.kind.usage()),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::IsInRecovery => DataType::Boolean,
            Kind::ServerPort => DataType::Int32,
            _ => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let null_text = || ColumnarValue::Scalar(ScalarValue::Utf8(None));
        Ok(match self.kind {
            Kind::IsInRecovery => ColumnarValue::Scalar(ScalarValue::Boolean(Some(false))),
            // As over a Unix socket: what the server listens on is no client's concern.
            Kind::ServerPort => ColumnarValue::Scalar(ScalarValue::Int32(None)),
            Kind::ServerAddress | Kind::ObjectDescription | Kind::ColumnDescription => null_text(),
            Kind::SizePretty => {
                let arrays = ColumnarValue::values_to_arrays(&args.args)?;
                let sizes = arrays[0].as_primitive::<Int64Type>();
                let pretty: StringArray = sizes.iter().map(|size| size.map(size_pretty)).collect();
                return scalar_if(&args.args, Arc::new(pretty) as ArrayRef);
            }
            Kind::CurrentSetting | Kind::SetConfig => {
                let arrays = ColumnarValue::values_to_arrays(&args.args)?;
                let rows = (0..arrays[0].len()).map(|row| self.setting(&arrays, row));
                let answers = rows.collect::<Result<StringArray>>()?;
                return scalar_if(&args.args, Arc::new(answers) as ArrayRef);
            }
        })
    }
}

impl SessionFunction {
    fn setting(&self, arrays: &[ArrayRef], row: usize) -> Result<Option<String>> {
        let text = |at: usize| {
            let texts = arrays[at].as_string::<i32>();
            texts.is_valid(row).then(|| texts.value(row))
        };
        let Some(name) = text(0) else { return Ok(None) };
        let mut settings = self.settings.0.lock();
        if self.kind == Kind::SetConfig {
            let value = text(1).unwrap_or_default();
            settings.set(name, (!value.is_empty()).then_some(value))?;
        }
        let missing_ok = self.kind == Kind::CurrentSetting
            && arrays.len() == 2
            && arrays[1].as_boolean().value(row);
        match settings.get(name) {
            Ok(value) => Ok(Some(value)),
            Err(_) if missing_ok => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes a number of bytes in the unit PostgreSQL would: the next one from 10,240 on, rounded to half.
fn size_pretty(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    if bytes.unsigned_abs() < 10 * 1_024 {
        return format!("{bytes} bytes");
    }
    // One bit is kept to round by.
    let (mut size, mut unit) = (bytes / 512, 1);
    while size.unsigned_abs() >= 20 * 1_024 - 1 && unit + 1 < UNITS.len() {
        (size, unit) = (size / 1_024, unit + 1);
    }
    let rounded = if size < 0 { (size - 1) / 2 } else { (size + 1) / 2 };
    format!("{rounded} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_unit_postgresql_gives_them() {
        let cases = [
            (0, "0 bytes"),
            (10_239, "10239 bytes"),
            (10_240, "10 kB"),
            (1_000_000, "977 kB"),
            (10_485_760, "10 MB"),
            (-20_480, "-20 kB"),
            (1_000_000_000_000, "931 GB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(size_pretty(bytes), expected);
        }
    }
}
