//! Statements about nodes, vnodes and replica sets.

use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use meta::{NodeState, PlacementRule, PlacementTerms};

use super::{Parsed, count, expect, name, skip, take, take_all};
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

/// Reads `REPLICA ADD | REMOVE | PROMOTE REPLICA_ID r NODE_ID n` and `REPLICA DESTROY | REPAIR REPLICA_ID r`.
pub(super) fn replica(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    let word = name(p)?;
    let statement = match word.as_str() {
        "add" => NodeStatement::Add,
        "remove" => NodeStatement::RemoveReplica,
        "promote" => NodeStatement::Promote,
        "destroy" | "destory" => return whole_set(p, NodeStatement::Destroy),
        "repair" => return whole_set(p, NodeStatement::Repair),
        other => {
            let message =
                format!("REPLICA knows ADD, REMOVE, PROMOTE, REPAIR and DESTROY, not {other}");
            return Err(Error::syntax(message).into());
        }
    };
    expect(p, "REPLICA_ID")?;
    let set = count(p, "REPLICA_ID")?;
    expect(p, "NODE_ID")?;
    Ok(Statement::Nodes(statement(set, u64::from(count(p, "NODE_ID")?))))
}

fn whole_set(p: &mut Parser<'_>, statement: fn(u32) -> NodeStatement) -> Parsed<Statement> {
    expect(p, "REPLICA_ID")?;
    Ok(Statement::Nodes(statement(count(p, "REPLICA_ID")?)))
}

/// Reads `CHECKSUM GROUP r`.
pub(super) fn checksum(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    expect(p, "GROUP")?;
    Ok(Statement::Nodes(NodeStatement::Checksum(count(p, "GROUP")?)))
}

/// Reads `TRUNCATE SHARDS [OF DATABASE d]`. A table of that name is `TRUNCATE TABLE shards`.
pub(super) fn truncate_shards(p: &mut Parser<'_>) -> Parsed<Statement> {
    take_all(p, &["TRUNCATE", "SHARDS"]);
    let database = take_all(p, &["OF", "DATABASE"]).then(|| name(p)).transpose()?;
    Ok(Statement::Nodes(NodeStatement::TruncateShards(database)))
}

/// Reads `KILL JOB 'name'`.
pub(super) fn kill_job(p: &mut Parser<'_>) -> Parsed<Statement> {
    take_all(p, &["KILL", "JOB"]);
    Ok(Statement::Nodes(NodeStatement::KillJob(p.parse_literal_string()?)))
}

/// Reads `CREATE | ALTER | DROP PLACEMENT POLICY [IF [NOT] EXISTS] p [WITH rule r [dc '…'] [rack '…']]`.
pub(super) fn policy(p: &mut Parser<'_>) -> Parsed<Statement> {
    let (creates, alters) = (take(p, "CREATE"), take(p, "ALTER"));
    if !creates && !alters {
        p.advance_token();
    }
    if !take(p, "PLACEMENT_POLICY") && !take_all(p, &["PLACEMENT", "POLICY"]) {
        let found = p.peek_token();
        return Err(p.expected::<()>("PLACEMENT POLICY", found).into());
    }
    let checked = if creates {
        take_all(p, &["IF", "NOT", "EXISTS"])
    } else {
        take_all(p, &["IF", "EXISTS"])
    };
    let name = name(p)?;
    if !creates && !alters {
        let statement = NodeStatement::DropPolicy { name, if_exists: checked };
        return Ok(Statement::Nodes(statement));
    }
    let terms = terms(p)?;
    Ok(Statement::Nodes(if creates {
        NodeStatement::CreatePolicy { name, if_not_exists: checked, terms }
    } else {
        NodeStatement::AlterPolicy { name, if_exists: checked, terms }
    }))
}

fn terms(p: &mut Parser<'_>) -> Parsed<PlacementTerms> {
    expect(p, "WITH")?;
    let mut terms = PlacementTerms::default();
    while !matches!(p.peek_token_ref().token, Token::EOF | Token::SemiColon) {
        let option = name(p)?;
        skip(p, &Token::Eq);
        match option.as_str() {
            "rule" => {
                let rule = name(p)?;
                let all = [PlacementRule::Simple, PlacementRule::RackAware, PlacementRule::DcAware];
                let found = all.into_iter().find(|one| one.sql() == rule);
                terms.rule = found.ok_or_else(|| {
                    let message =
                        format!("rule \"{rule}\" is none of simple, rack_aware, dc_aware");
                    Error::new("22023", message)
                })?;
            }
            "dc" => terms.data_centers = names(&p.parse_literal_string()?),
            "rack" => terms.racks = names(&p.parse_literal_string()?),
            other => {
                let message = format!("a placement policy has rule, dc and rack, not {other}");
                return Err(Error::syntax(message).into());
            }
        }
        skip(p, &Token::Comma);
    }
    Ok(terms)
}

/// Reads names with commas between them.
fn names(text: &str) -> Vec<String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}
