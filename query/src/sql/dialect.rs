//! The dialect texts are read in: the parser's PostgreSQL, without what makes it slow or strange.

use std::any::TypeId;

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect as Base;
use datafusion::sql::sqlparser::dialect::{Dialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

/// The dialect of every text.
pub(crate) const DIALECT: Postgres = Postgres;

/// PostgreSQL. Two things are said otherwise than the parser's own dialect does.
///
/// The name of a named argument is an identifier: where it may be any expression, each argument is read
/// twice, and nested calls take a time that doubles with every level. And literals of text on several lines
/// are one literal.
#[derive(Debug)]
pub(crate) struct Postgres;

/// Answers as the parser's own dialect does.
macro_rules! as_base {
    ($($question:ident),+ $(,)?) => {
        $(fn $question(&self) -> bool {
            Base {}.$question()
        })+
    };
}

impl Dialect for Postgres {
    /// The parser asks some things of the type alone.
    fn dialect(&self) -> TypeId {
        Base {}.dialect()
    }

    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        false
    }

    fn supports_string_literal_concatenation_with_newline(&self) -> bool {
        true
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        Base {}.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        Base {}.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        Base {}.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        Base {}.is_identifier_part(ch)
    }

    fn is_reserved_for_identifier(&self, kw: Keyword) -> bool {
        Base {}.is_reserved_for_identifier(kw)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        Base {}.is_custom_operator_part(ch)
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        Base {}.get_next_precedence(parser)
    }

    fn prec_value(&self, prec: Precedence) -> u8 {
        Base {}.prec_value(prec)
    }

    as_base!(
        supports_unicode_string_literal,
        supports_filter_during_aggregation,
        supports_group_by_expr,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_create_index_with_clause,
        supports_explain_with_utility_options,
        supports_listen_notify,
        supports_factorial_operator,
        supports_bitwise_shift_operators,
        supports_comment_on,
        supports_load_extension,
        supports_named_fn_args_with_colon_operator,
        supports_empty_projections,
        supports_nested_comments,
        supports_string_escape_constant,
        supports_numeric_literal_underscores,
        supports_array_typedef_with_brackets,
        supports_geometric_types,
        supports_set_names,
        supports_alter_column_type_using,
        supports_notnull_operator,
        supports_interval_options,
        supports_insert_table_alias,
        supports_create_table_like_parenthesized,
        supports_select_wildcard_with_alias,
        supports_comma_separated_trim,
        supports_xml_expressions,
        supports_comment_optimizer_hint,
    );
}
