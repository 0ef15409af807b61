//! `LATEST ON time PARTITION BY tags`: the newest row of each series, as QuestDB writes it.
//!
//! The parser does not know it, so that the tokens are put in another order before: a `SELECT … LATEST ON
//! t PARTITION BY k` becomes `SELECT * FROM (SELECT DISTINCT ON (k) … ORDER BY k, t DESC) AS latest`.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

use crate::error::{Error, Result};

fn is_word(token: &TokenWithSpan, wanted: &str) -> bool {
    matches!(&token.token, Token::Word(word)
        if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted))
}

/// Rewrites all such clauses of a text.
///
/// # Errors
/// 42601 for a clause that is not whole.
pub(super) fn rewrite(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    if !tokens.iter().any(|token| is_word(token, "latest")) {
        return Ok(tokens);
    }
    let mut tokens: Vec<TokenWithSpan> =
        tokens.into_iter().filter(|token| !matches!(&token.token, Token::Whitespace(_))).collect();
    // From the end, so that what is inside is found after what is around it has moved.
    let mut at = tokens.len();
    while at > 0 {
        at -= 1;
        if is_word(&tokens[at], "latest") && is_clause(&tokens[at + 1..]) {
            tokens = rewrite_one(tokens, at)?;
            // What is inside has moved.
            at = tokens.len();
        }
    }
    Ok(tokens)
}

/// Returns whether `ON name [.name …] PARTITION` follows: a join with an alias goes on otherwise.
fn is_clause(rest: &[TokenWithSpan]) -> bool {
    if !rest.first().is_some_and(|token| is_word(token, "on")) {
        return false;
    }
    let end = end_of_name(rest, 1);
    end > 1 && rest.get(end).is_none_or(|token| is_word(token, "partition") || ends(token))
}

fn ends(token: &TokenWithSpan) -> bool {
    matches!(token.token, Token::EOF | Token::SemiColon | Token::RParen)
}

/// Returns where a dotted name ends.
fn end_of_name(tokens: &[TokenWithSpan], start: usize) -> usize {
    let is_name = |at: usize| matches!(tokens.get(at).map(|t| &t.token), Some(Token::Word(_)));
    let mut end = start;
    if is_name(end) {
        end += 1;
        while tokens.get(end).is_some_and(|t| t.token == Token::Period) && is_name(end + 1) {
            end += 2;
        }
    }
    end
}

fn rewrite_one(tokens: Vec<TokenWithSpan>, at: usize) -> Result<Vec<TokenWithSpan>> {
    let incomplete = || Error::syntax("write LATEST ON time PARTITION BY tag, …");
    let select = select_of(&tokens, at).ok_or_else(incomplete)?;
    let partition = end_of_name(&tokens, at + 2);
    if !tokens.get(partition).is_some_and(|token| is_word(token, "partition")) {
        return Err(incomplete());
    }
    if !tokens.get(partition + 1).is_some_and(|token| is_word(token, "by")) {
        return Err(incomplete());
    }
    let end = end_of_list(&tokens, partition + 2);
    let (time, keys) = (&tokens[at + 2..partition], &tokens[partition + 2..end]);
    if keys.is_empty() {
        return Err(incomplete());
    }
    let span = tokens[at].span;
    let make = |token: Token| TokenWithSpan { token, span };
    let word = |text: &str| make(Token::make_word(text, None));
    let mut made = tokens[..select].to_vec();
    made.extend([word("SELECT"), make(Token::Mul), word("FROM"), make(Token::LParen)]);
    made.extend([word("SELECT"), word("DISTINCT"), word("ON"), make(Token::LParen)]);
    made.extend_from_slice(keys);
    made.push(make(Token::RParen));
    made.extend_from_slice(&tokens[select + 1..at]);
    made.extend([word("ORDER"), word("BY")]);
    made.extend_from_slice(keys);
    made.push(make(Token::Comma));
    made.extend_from_slice(time);
    made.extend([word("DESC"), make(Token::RParen), word("AS"), word("latest")]);
    made.extend_from_slice(&tokens[end..]);
    debug_assert!(!made.iter().any(|t| t.token == Token::Whitespace(Whitespace::Space)));
    Ok(made)
}

/// Returns the SELECT that a clause belongs to: the last one before it in the same parentheses.
fn select_of(tokens: &[TokenWithSpan], at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for n in (0..at).rev() {
        match &tokens[n].token {
            Token::RParen => depth += 1,
            Token::LParen => depth = depth.checked_sub(1)?,
            _ if depth == 0 && is_word(&tokens[n], "select") => return Some(n),
            _ => {}
        }
    }
    None
}

/// Returns where a list of columns ends.
fn end_of_list(tokens: &[TokenWithSpan], start: usize) -> usize {
    let mut end = end_of_name(tokens, start);
    while tokens.get(end).is_some_and(|token| token.token == Token::Comma) {
        let next = end_of_name(tokens, end + 1);
        if next == end + 1 {
            break;
        }
        end = next;
    }
    end
}
