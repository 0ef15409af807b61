//! sqllogictest over the PostgreSQL wire: the runner is `tests/it`, the cases are `cases/**/*.slt`.
