//! Statements about nodes, vnodes and replica sets.

use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use meta::NodeState;

use super::{Parsed, count, expect, name, take, take_all};
use crate::error::Error;
use crate::sql::{NodeStatement, Statement};

/// Reads `ALTER NODE n CORDON | UNCORDON | DRAIN | ADDRESS 'host:port'`.
pub(super) fn alter(p: &mut Parser<'_>) -> Parsed<Statement> {
    take_all(p, &["ALTER", "NODE"]);
    let node = u64::from(count(p, "NODE")?);
    take(p, "SET");
    let statement = if take(p, "CORDON") {
        NodeStatement::State(node, NodeState::Cordoned)
    } else if take(p, "UNCORDON") {
        NodeStatement::State(node, NodeState::Ready)
    } else if take(p, "DRAIN") {
        NodeStatement::State(node, NodeState::Draining)
    } else if take(p, "ADDRESS") {
        match p.next_token().token {
            Token::SingleQuotedString(addr) => NodeStatement::Address(node, addr),
            other => return Err(Error::syntax(format!("ADDRESS needs a text, not {other}")).into()),
        }
    } else {
        let found = p.peek_token();
        return Err(p.expected::<()>("CORDON, UNCORDON, DRAIN or ADDRESS", found).into());
    };
    Ok(Statement::Nodes(statement))
}

/// Reads `REMOVE NODE n`.
pub(super) fn remove(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    expect(p, "NODE")?;
    Ok(Statement::Nodes(NodeStatement::Remove(u64::from(count(p, "NODE")?))))
}

/// Reads `MOVE VNODE v TO NODE n`, `COPY VNODE v TO NODE n` and `DROP VNODE v`.
pub(super) fn vnode(p: &mut Parser<'_>) -> Parsed<Statement> {
    let (moves, copies) = (take(p, "MOVE"), take(p, "COPY"));
    if !moves && !copies {
        p.advance_token();
    }
    expect(p, "VNODE")?;
    let vnode = u64::from(count(p, "VNODE")?);
    if !moves && !copies {
        return Ok(Statement::Nodes(NodeStatement::Drop(vnode)));
    }
    expect(p, "TO")?;
    expect(p, "NODE")?;
    let node = u64::from(count(p, "NODE")?);
    let statement = if moves { NodeStatement::Move } else { NodeStatement::Copy };
    Ok(Statement::Nodes(statement(vnode, node)))
}

/// Reads `REPLICA ADD | REMOVE | PROMOTE REPLICA_ID r NODE_ID n`.
pub(super) fn replica(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    let word = name(p)?;
    let statement = match word.as_str() {
        "add" => NodeStatement::Add,
        "remove" => NodeStatement::RemoveReplica,
        "promote" => NodeStatement::Promote,
        other => {
            let message = format!("REPLICA knows ADD, REMOVE and PROMOTE, not {other}");
            return Err(Error::syntax(message).into());
        }
    };
    expect(p, "REPLICA_ID")?;
    let set = count(p, "REPLICA_ID")?;
    expect(p, "NODE_ID")?;
    Ok(Statement::Nodes(statement(set, u64::from(count(p, "NODE_ID")?))))
}

/// Reads `CHECKSUM GROUP r`.
pub(super) fn checksum(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    expect(p, "GROUP")?;
    Ok(Statement::Nodes(NodeStatement::Checksum(count(p, "GROUP")?)))
}
