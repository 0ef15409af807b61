//! Limits on statements, checked on tokens: DataFusion and the parser build trees whose depth these
//! bound, and a tree too deep ends the process when it is dropped.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Error, Result};

/// The longest statement, in bytes; COPY data and parameters do not count.
pub(crate) const SQL_BYTES_MAX: usize = 1 << 20;
/// The longest INSERT, in bytes.
pub(crate) const INSERT_BYTES_MAX: usize = 64 << 20;
/// The deepest nesting of parentheses.
const DEPTH_MAX: usize = 128;
/// The longest chain of operators, set operations or joins on one level.
const CHAIN_MAX: usize = 500;
/// The most elements of a list; longer ones belong into a table.
const LIST_MAX: usize = 100_000;

/// Checks the tokens of one statement.
pub(crate) fn check(tokens: &[TokenWithSpan]) -> Result<()> {
    let is_insert = tokens.iter().find_map(|token| match &token.token {
        Token::Word(word) => Some(word.keyword == Keyword::INSERT),
        Token::Whitespace(_) => None,
        _ => Some(false),
    });
    let is_insert = is_insert.unwrap_or(false);
    let (mut chains, mut lists) = (vec![0_usize], vec![0_usize]);
    // Whether the commas of a level join relations: each is a level of the plan.
    let mut relations = vec![false];
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket => {
                chains.push(0);
                lists.push(0);
                relations.push(false);
                if chains.len() > DEPTH_MAX {
                    return Err(Error::new("54001", "statement is nested too deeply"));
                }
            }
            Token::RParen | Token::RBracket if chains.len() > 1 => {
                chains.pop();
                lists.pop();
                relations.pop();
            }
            Token::Comma if relations.last() == Some(&true) => {
                bump(&mut chains);
                check_chain(&chains)?;
            }
            Token::Comma => {
                bump(&mut lists);
                if let Some(chain) = chains.last_mut() {
                    *chain = 0;
                }
                if !is_insert && lists.last().is_some_and(|length| *length > LIST_MAX) {
                    return Err(Error::new(
                        "54000",
                        format!("a list has more than {LIST_MAX} elements"),
                    ));
                }
            }
            token if links(token) => {
                bump(&mut chains);
                check_chain(&chains)?;
            }
            Token::Word(word) => {
                if let Some(relations) = relations.last_mut() {
                    *relations = match word.keyword {
                        Keyword::FROM => true,
                        Keyword::SELECT
                        | Keyword::WHERE
                        | Keyword::GROUP
                        | Keyword::ORDER
                        | Keyword::HAVING
                        | Keyword::VALUES => false,
                        _ => *relations,
                    };
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_chain(chains: &[usize]) -> Result<()> {
    if chains.last().is_none_or(|length| *length <= CHAIN_MAX) {
        return Ok(());
    }
    let message = format!("an expression has more than {CHAIN_MAX} operators");
    let hint = "use IN, = ANY(...) or a join with a table instead";
    Err(Error::new("54001", message).hint(hint))
}

fn bump(counts: &mut [usize]) {
    if let Some(count) = counts.last_mut() {
        *count += 1;
    }
}

/// Returns whether the token may make a tree one level deeper.
fn links(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::UNION
                | Keyword::INTERSECT
                | Keyword::EXCEPT
                | Keyword::JOIN
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::CASE
                | Keyword::WHEN
        ),
        Token::Plus
        | Token::Minus
        | Token::Mul
        | Token::Div
        | Token::Mod
        | Token::StringConcat
        | Token::DoubleColon
        | Token::Eq
        | Token::Neq
        | Token::Lt
        | Token::Gt
        | Token::LtEq
        | Token::GtEq => true,
        _ => false,
    }
}
