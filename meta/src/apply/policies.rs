//! What concerns placement policies.

use model::{ErrorKind, PolicyId};

use super::{Changes, check_name};
use crate::catalog::{Catalog, Entity, Key, PlacementPolicy, PlacementTerms};
use crate::command::Command;
use crate::error::{Error, Result};

/// The most placement policies.
const POLICIES_MAX: usize = 1_000;
/// The most data centers, or racks, that one names.
const NAMES_MAX: usize = 100;

/// Makes, changes and drops placement policies; other commands change nothing.
pub(super) fn define_policy(
    catalog: &Catalog,
    command: Command,
    changes: &mut Changes,
) -> Result<()> {
    match command {
        Command::CreatePolicy { name, terms } => {
            check_name("placement policy", &name)?;
            check_terms(&terms)?;
            if catalog.policy(&name).is_some() {
                return Err(Error::exists("placement policy", &name));
            }
            if catalog.policies().count() >= POLICIES_MAX {
                let message = format!("there are {POLICIES_MAX} placement policies");
                return Err(Error::refused(ErrorKind::LimitReached, message));
            }
            changes.counters.policy += 1;
            let id = PolicyId(changes.counters.policy);
            changes.put(Entity::Policy(PlacementPolicy { id, name, terms }));
        }
        Command::AlterPolicy { policy, terms } => {
            check_terms(&terms)?;
            let mut policy = policy_of(catalog, policy)?.clone();
            policy.terms = terms;
            changes.put(Entity::Policy(policy));
        }
        Command::DropPolicy { policy } => {
            let policy = policy_of(catalog, policy)?;
            let mut databases = catalog.all_databases();
            if let Some(user) = databases.find(|one| one.options.placement == Some(policy.id)) {
                let message = format!(
                    "placement policy \"{}\" is the one of database \"{}\"",
                    policy.name, user.name
                );
                return Err(Error::refused(ErrorKind::Conflict, message));
            }
            changes.delete(Key::Policy(policy.id));
        }
        _ => {}
    }
    Ok(())
}

fn check_terms(terms: &PlacementTerms) -> Result<()> {
    if terms.data_centers.len().max(terms.racks.len()) > NAMES_MAX {
        let message = format!("a placement policy names at most {NAMES_MAX} of each");
        return Err(Error::refused(ErrorKind::LimitReached, message));
    }
    Ok(())
}

/// Returns a placement policy by id.
pub(super) fn policy_of(catalog: &Catalog, id: PolicyId) -> Result<&PlacementPolicy> {
    let found = catalog.policy_by_id(id).map(AsRef::as_ref);
    found.ok_or_else(|| Error::not_found("placement policy", &id.to_string()))
}
