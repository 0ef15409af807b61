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
        let next = tokens.get(at + 1).is_some_and(|token| is_word(token, "on"));
        if next && is_word(&tokens[at], "latest") {
            tokens = rewrite_one(tokens, at)?;
        }
    }
    Ok(tokens)
}

fn rewrite_one(tokens: Vec<TokenWithSpan>, at: usize) -> Result<Vec<TokenWithSpan>> {
    let incomplete = || Error::syntax("write LATEST ON time PARTITION BY tag, …");
    let select = select_of(&tokens, at).ok_or_else(incomplete)?;
    let partition = (at..tokens.len()).find(|n| is_word(&tokens[*n], "partition"));
    let partition = partition.filter(|n| *n > at + 2).ok_or_else(incomplete)?;
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
    let mut end = start;
    let is_name = |token: &TokenWithSpan| matches!(&token.token, Token::Word(_));
    while end < tokens.len() && is_name(&tokens[end]) {
        end += 1;
        while end + 1 < tokens.len() && tokens[end].token == Token::Period {
            end += 2;
        }
        if end >= tokens.len() || tokens[end].token != Token::Comma {
            break;
        }
        end += 1;
    }
    end
}
