//! Placement policies: on which nodes replicas may be.

use meta::{Catalog, Command, PlacementPolicy, PlacementTerms};

use crate::access::Need;
use crate::error::{Error, Result, nearest};
use crate::output::Output;
use crate::session::Session;

/// Columns of SHOW PLACEMENT POLICIES, as the original's system table has them.
pub(crate) const COLUMNS: [&str; 5] = ["name", "type", "dc", "rack", "in_use_dbs"];

/// Returns a placement policy by its name.
pub(crate) fn policy_of<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a PlacementPolicy> {
    catalog.policy(name).map(AsRef::as_ref).ok_or_else(|| {
        let error = Error::new("42704", format!("placement policy \"{name}\" does not exist"));
        match nearest(name, catalog.policies().map(|policy| policy.name.as_str())) {
            Some(near) => error.hint(format!("perhaps you meant {near}")),
            None => error,
        }
    })
}

/// Returns a policy in the words of [`COLUMNS`].
pub(crate) fn in_words(catalog: &Catalog, policy: &PlacementPolicy) -> Vec<String> {
    let users = catalog.all_databases().filter(|one| one.options.placement == Some(policy.id));
    let users = users.filter_map(|database| {
        let tenant = catalog.tenant_by_id(database.tenant)?;
        Some(format!("{}.{}", tenant.name, database.name))
    });
    let terms = &policy.terms;
    vec![
        policy.name.clone(),
        terms.rule.sql().to_owned(),
        terms.data_centers.join(","),
        terms.racks.join(","),
        users.collect::<Vec<_>>().join(","),
    ]
}

impl Session {
    pub(crate) fn policy_lines(&self) -> Result<Vec<Vec<String>>> {
        self.check(Need::Administer)?;
        let catalog = self.database().catalog();
        Ok(catalog.policies().map(|policy| in_words(&catalog, policy)).collect())
    }

    pub(crate) async fn create_policy(
        &self,
        name: &str,
        if_not_exists: bool,
        terms: &PlacementTerms,
    ) -> Result<Output> {
        const TAG: &str = "CREATE PLACEMENT POLICY";
        if if_not_exists && self.database().catalog().policy(name).is_some() {
            return Ok(self.skip("placement policy", name, "already exists", TAG));
        }
        let command = Command::CreatePolicy { name: name.to_owned(), terms: terms.clone() };
        self.submit(command, TAG).await
    }

    pub(crate) async fn alter_policy(
        &self,
        name: &str,
        if_exists: bool,
        terms: &PlacementTerms,
    ) -> Result<Output> {
        const TAG: &str = "ALTER PLACEMENT POLICY";
        let found = policy_of(&self.database().catalog(), name).map(|policy| policy.id);
        match found {
            Ok(policy) => {
                self.submit(Command::AlterPolicy { policy, terms: terms.clone() }, TAG).await
            }
            Err(_) if if_exists => Ok(self.skip("placement policy", name, "does not exist", TAG)),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn drop_policy(&self, name: &str, if_exists: bool) -> Result<Output> {
        const TAG: &str = "DROP PLACEMENT POLICY";
        let found = policy_of(&self.database().catalog(), name).map(|policy| policy.id);
        match found {
            Ok(policy) => self.submit(Command::DropPolicy { policy }, TAG).await,
            Err(_) if if_exists => Ok(self.skip("placement policy", name, "does not exist", TAG)),
            Err(error) => Err(error),
        }
    }
}
