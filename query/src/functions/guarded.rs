//! A scalar function whose arguments are looked at, and may be changed, before it is called.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// What looks at the arguments of a function.
pub(super) trait Guard: Debug + PartialEq + Eq + Hash + Send + Sync + 'static {
    /// Refuses arguments, or changes them.
    ///
    /// # Errors
    /// Why the function is not called.
    fn look(&self, name: &str, args: &mut ScalarFunctionArgs) -> Result<()>;
}

/// A function behind a guard; in all else it is as it was.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Guarded<G> {
    inner: Arc<ScalarUDF>,
    guard: G,
}

/// Puts a function behind a guard.
pub(super) fn guarded<G: Guard>(inner: Arc<ScalarUDF>, guard: G) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(Guarded { inner, guard }))
}

impl<G: Guard> ScalarUDFImpl for Guarded<G> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.guard.look(self.name(), &mut args)?;
        self.inner.invoke_with_args(args)
    }
}
