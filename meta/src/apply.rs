//! The pure state machine: what a command changes in the catalog, and what it answers.
//! Each module below holds what concerns one kind of object; `nodes` the vnodes on them too.
//! Invariant: either all changes of a command are returned, or a refusal and none.

mod buckets;
mod databases;
mod nodes;
mod policies;
mod roles;
mod tables;
mod tenants;
mod users;
mod views;

use std::collections::BTreeMap;

use model::ErrorKind;
use model::schema::NAME_BYTES_MAX;

use crate::catalog::{Catalog, Change, Counters, Entity, GrantObject, Key};
use crate::command::{COMMANDS_MAX, Command, NewUser, Reply};
use crate::error::{Error, Result};
use crate::limits::{ObjectLimits, Rates};
use buckets::{begin_end, create_bucket, end_bucket, reset_replica_set};
pub(crate) use databases::default_options;
use databases::{define_database, new_database};
pub use nodes::cluster_number;
use nodes::{
    add_vnode, alter_node, give_up_vnode, leave_vnode, prefer_vnode, rebuild_vnode, register_node,
    remove_node, remove_vnode, vnode_joined,
};
use policies::define_policy;
use roles::forget_object;
use tables::{alter_table, create_table, table_of};
use tenants::{define_tenant, new_tenant};
use users::{alter_user, create_user, drop_user};
use views::{NewView, create_view};

/// The tenant that every installation begins with, and its user.
pub const FIRST_TENANT: &str = "cnosdb";
/// The database that every tenant begins with.
pub const FIRST_DATABASE: &str = "public";
const FIRST_USER: &str = "root";

const MINUTE_NS: i64 = 60_000_000_000;

struct Changes {
    counters: Counters,
    list: Vec<Change>,
}

impl Changes {
    fn put(&mut self, entity: Entity) {
        self.list.push(Change::Put(Box::new(entity)));
    }

    fn delete(&mut self, key: Key) {
        self.list.push(Change::Delete(key));
    }
}

/// Returns what `command` does to `catalog`.
pub(crate) fn apply(catalog: &Catalog, command: Command) -> Result<(Vec<Change>, Reply)> {
    if let Command::All(commands) = command {
        return apply_all(catalog, commands);
    }
    let mut changes = Changes { counters: catalog.counters, list: Vec::new() };
    let reply = dispatch(catalog, command, &mut changes)?;
    if changes.counters != catalog.counters {
        changes.put(Entity::Counters(changes.counters));
    }
    Ok((changes.list, reply))
}

/// Applies commands to a copy of the catalog one after another: a later one sees what earlier ones do.
fn apply_all(catalog: &Catalog, commands: Vec<Command>) -> Result<(Vec<Change>, Reply)> {
    if commands.len() > COMMANDS_MAX {
        let message = format!("at most {COMMANDS_MAX} objects are changed by one statement");
        return Err(Error::refused(ErrorKind::LimitReached, message));
    }
    let (mut copy, mut last) = (catalog.clone(), BTreeMap::new());
    for command in commands {
        if matches!(command, Command::All(_)) {
            let message = "commands that are done together are single ones";
            return Err(Error::refused(ErrorKind::InvalidInput, message));
        }
        let (changes, _) = apply(&copy, command)?;
        changes.iter().for_each(|change| copy.absorb(change));
        // Of an object that several change, what comes of it: all that lay between would fill memory and log.
        last.extend(changes.into_iter().map(|change| (change.key(), change)));
    }
    Ok((last.into_values().collect(), Reply::Done))
}

fn dispatch(catalog: &Catalog, command: Command, changes: &mut Changes) -> Result<Reply> {
    match command {
        // Taken apart before.
        Command::All(_) => {}
        Command::Bootstrap { verifier } => bootstrap(catalog, verifier, changes)?,
        Command::NewSession => {
            changes.counters.session += 1;
            return Ok(Reply::Session(changes.counters.session));
        }
        Command::CreateTenant { .. }
        | Command::AlterTenant { .. }
        | Command::DropTenant { .. }
        | Command::HideTenant { .. }
        | Command::DropHiddenTenant { .. }
        | Command::RecoverTenant { .. } => define_tenant(catalog, command, changes)?,
        Command::CreateUser(user) => create_user(catalog, user, changes)?,
        Command::AlterUser { user, change } => alter_user(catalog, user, change, changes)?,
        Command::DropUser { user } => drop_user(catalog, user, changes)?,
        Command::CreateDatabase { .. }
        | Command::AlterDatabase { .. }
        | Command::DropDatabase { .. }
        | Command::HideDatabase { .. }
        | Command::DropHiddenDatabase { .. }
        | Command::RecoverDatabase { .. } => define_database(catalog, command, changes)?,
        Command::CreateTable { database, name, columns } => {
            create_table(catalog, database, name, &columns, changes)?;
        }
        Command::AlterTable { table, change } => alter_table(catalog, table, change, changes)?,
        Command::DropTable { table } => {
            let table = table_of(catalog, table)?;
            changes.delete(Key::Table(table.id));
            forget_object(catalog, GrantObject::Table(table.id), changes);
        }
        Command::CreateView { database, name, columns, definition, replace, external } => {
            let view = NewView { database, name, columns, definition, external };
            create_view(catalog, view, replace, changes)?;
        }
        Command::DropView { view } => changes.delete(Key::View(view)),
        Command::CreateBucket { database, time, nodes, now } => {
            return create_bucket(catalog, database, (time, now), &nodes, changes);
        }
        Command::ResetReplicaSet { replica_set, nodes } => {
            reset_replica_set(catalog, replica_set, &nodes, changes)?;
        }
        Command::BeginEnd { bucket, until } => begin_end(catalog, bucket, until, changes)?,
        Command::EndBucket { bucket, until, told } => {
            end_bucket(catalog, bucket, (until, &told), changes)?;
        }
        Command::DropBucket { bucket } => changes.delete(Key::Bucket(bucket)),
        Command::CreatePolicy { .. } | Command::AlterPolicy { .. } | Command::DropPolicy { .. } => {
            define_policy(catalog, command, changes)?;
        }
        Command::GiveUpVnode { vnode } => give_up_vnode(catalog, vnode, changes)?,
        Command::RegisterNode(node) => return register_node(catalog, node, changes),
        Command::AlterNode { node, change } => alter_node(catalog, node, change, changes)?,
        Command::RemoveNode { node } => remove_node(catalog, node, changes)?,
        Command::AddVnode { replica_set, node, replaces } => {
            return add_vnode(catalog, (replica_set, replaces), node, changes);
        }
        Command::VnodeJoined { vnode } => vnode_joined(catalog, vnode, changes)?,
        Command::LeaveVnode { vnode } => leave_vnode(catalog, vnode, changes)?,
        Command::RebuildVnode { vnode } => rebuild_vnode(catalog, vnode, changes)?,
        Command::PreferVnode { vnode } => prefer_vnode(catalog, vnode, changes)?,
        Command::RemoveVnode { vnode } => remove_vnode(catalog, vnode, changes)?,
    }
    Ok(Reply::Done)
}

/// Refuses a name that something has, also what waits to be dropped.
fn check_free(what: &str, name: &str, taken: Option<Option<i64>>) -> Result<()> {
    match taken {
        None => Ok(()),
        Some(None) => Err(Error::exists(what, name)),
        Some(Some(_)) => {
            let message = format!(
                "{what} \"{name}\" waits to be dropped: RECOVER {} {name} brings it back",
                what.to_uppercase()
            );
            Err(Error::refused(ErrorKind::AlreadyExists, message))
        }
    }
}

fn check_limit(limit: &str, most: Option<u32>, wanted: usize) -> Result<()> {
    match most {
        Some(most) if wanted > most as usize => {
            let message = format!("the tenant's limit {limit} is {most}");
            Err(Error::refused(ErrorKind::LimitReached, message))
        }
        _ => Ok(()),
    }
}

fn check_name(what: &str, name: &str) -> Result<()> {
    let wrong = if name.trim().is_empty() {
        "must not be blank"
    } else if name.contains('/') {
        "must not contain \"/\""
    } else if name.contains('\0') {
        "must not contain a zero byte"
    } else if name.len() > NAME_BYTES_MAX {
        "is too long"
    } else {
        return Ok(());
    };
    let message = format!("{what} name \"{name}\" {wrong}");
    Err(Error::refused(ErrorKind::InvalidInput, message))
}

fn bootstrap(catalog: &Catalog, verifier: Option<String>, changes: &mut Changes) -> Result<()> {
    if catalog.tenants().next().is_some() {
        return Ok(());
    }
    let tenant = new_tenant(
        FIRST_TENANT.to_owned(),
        "system tenant".to_owned(),
        (None, ObjectLimits::default(), Rates::new()),
        changes,
    );
    new_database(tenant, FIRST_DATABASE.to_owned(), default_options(), changes);
    let comment = "system admin".to_owned();
    create_user(
        catalog,
        NewUser {
            name: FIRST_USER.to_owned(),
            verifier,
            admin: true,
            comment,
            must_change_password: false,
            rsa_public_key: None,
        },
        changes,
    )
}

#[cfg(test)]
mod tests {
    use model::schema::COLUMNS_MAX;
    use model::{Codec, ColumnId, ColumnKind, DatabaseId, NodeId, TableId, TimeRange};

    use super::*;
    use crate::catalog::NodeRoles;
    use crate::command::{
        AlterTable, DatabaseChange, NewColumn, NewNode, TenantChange, UserChange,
    };

    struct TestCatalog(Catalog);

    impl TestCatalog {
        fn new() -> Self {
            let mut catalog = Self(Catalog::default());
            catalog.run(Command::Bootstrap { verifier: None }).unwrap();
            let node = NewNode {
                identity: "0".repeat(32),
                known_as: None,
                addr: String::new(),
                name: "one".to_owned(),
                zone: String::new(),
                roles: NodeRoles { meta: true, data: true, query: true },
            };
            catalog.run(Command::RegisterNode(node)).unwrap();
            catalog
        }

        fn run(&mut self, command: Command) -> Result<Reply> {
            let (changes, reply) = apply(&self.0, command)?;
            changes.iter().for_each(|change| self.0.absorb(change));
            Ok(reply)
        }

        fn public(&self) -> DatabaseId {
            let tenant = self.0.tenant(FIRST_TENANT).unwrap().id;
            self.0.database(tenant, FIRST_DATABASE).unwrap().id
        }

        fn bucket(&mut self, time: i64, now: i64) -> Result<Reply> {
            let nodes = vec![NodeId(1)];
            self.run(Command::CreateBucket { database: self.public(), time, nodes, now })
        }
    }

    fn field(name: &str) -> NewColumn {
        let kind = ColumnKind::Field(model::ValueType::F64);
        NewColumn {
            name: name.to_owned(),
            kind,
            not_null: false,
            codec: Codec::Default,
            shape: None,
        }
    }

    #[test]
    fn a_dropped_and_recreated_table_has_another_id_and_columns_keep_theirs() {
        let mut catalog = TestCatalog::new();
        let database = catalog.public();
        let create = || Command::CreateTable {
            database,
            name: "t".to_owned(),
            columns: vec![field("a"), field("b")],
        };
        catalog.run(create()).unwrap();
        assert!(catalog.run(create()).is_err());
        let table = catalog.0.table(database, "t").unwrap().id;
        let alter = |change| Command::AlterTable { table, change };
        catalog.run(alter(AlterTable::Drop("a".to_owned()))).unwrap();
        assert!(catalog.run(alter(AlterTable::Drop("b".to_owned()))).is_err());
        catalog.run(alter(AlterTable::Add(field("a")))).unwrap();
        let schema = catalog.0.table_by_id(table).unwrap();
        assert_eq!(schema.column("a").unwrap().id, ColumnId(3));
        assert_eq!(schema.version, 3);
        catalog.run(Command::DropTable { table }).unwrap();
        catalog.run(create()).unwrap();
        assert!(catalog.0.table(database, "t").unwrap().id > table);
    }

    /// Definitions that are all refused where `database` and `table` are there, and why.
    fn refused(database: DatabaseId, table: TableId) -> Vec<Command> {
        let (name, tenant) = (String::new, model::TenantId(1));
        let options = default_options();
        let (nowhere, nothing) = (DatabaseId(99), TableId(99));
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let alter = |change| Command::AlterTable { table, change };
        let column =
            |to: &str| AlterTable::RenameColumn { from: "a".to_owned(), to: to.to_owned() };
        let wide = (0..=COLUMNS_MAX).map(|at| field(&format!("c{at}"))).collect();
        let user = || NewUser {
            name: FIRST_USER.to_owned(),
            verifier: None,
            admin: false,
            comment: name(),
            must_change_password: false,
            rsa_public_key: None,
        };
        let rename = UserChange::Rename("other".to_owned());
        let drop_role = TenantChange::DropRole("no role".to_owned());
        vec![
            Command::CreateDatabase { tenant, name: FIRST_DATABASE.to_owned(), options },
            Command::CreateDatabase { tenant, name: long.clone(), options },
            Command::AlterDatabase { database, change: DatabaseChange::Shards(0) },
            Command::DropDatabase { database },
            Command::DropDatabase { database: nowhere },
            Command::CreateTable { database, name: "t".to_owned(), columns: vec![field("a")] },
            Command::CreateTable { database, name: "u".to_owned(), columns: vec![] },
            Command::CreateTable { database, name: "w".to_owned(), columns: wide },
            Command::CreateTable { database, name: name(), columns: vec![field("a")] },
            Command::CreateTable { database: nowhere, name: long, columns: vec![field("a")] },
            Command::AlterTable { table: nothing, change: AlterTable::Drop("a".to_owned()) },
            alter(AlterTable::Add(field("a"))),
            alter(AlterTable::Drop("time".to_owned())),
            alter(AlterTable::Drop("nothing".to_owned())),
            alter(column("b")),
            alter(column("")),
            Command::DropTable { table: nothing },
            Command::CreateUser(user()),
            Command::AlterUser { user: model::UserId(1), change: rename },
            Command::DropUser { user: model::UserId(1) },
            Command::AlterTenant { tenant, change: drop_role },
            Command::DropTenant { tenant },
            Command::All(vec![Command::All(Vec::new())]),
        ]
    }

    #[test]
    fn a_definition_that_is_refused_at_any_step_changes_nothing() {
        let mut catalog = TestCatalog::new();
        let database = catalog.public();
        let columns = vec![field("a"), field("b")];
        catalog.run(Command::CreateTable { database, name: "t".to_owned(), columns }).unwrap();
        let table = catalog.0.table(database, "t").unwrap().id;
        let before = catalog.0.clone();
        let good = |at: usize| {
            let name = format!("new{at}");
            Command::CreateTable { database, name, columns: vec![field("a")] }
        };
        for bad in refused(database, table) {
            assert!(catalog.run(bad.clone()).is_err(), "{bad:?}");
            for at in 0..3 {
                let mut all: Vec<Command> = (0..3).map(good).collect();
                all.insert(at, bad.clone());
                assert!(catalog.run(Command::All(all)).is_err(), "{bad:?}");
            }
            assert_eq!(catalog.0, before, "{bad:?}");
        }
        // A later one sees what the ones before it do.
        let id = TableId(table.0 + 1);
        let alter = Command::AlterTable { table: id, change: AlterTable::Add(field("b")) };
        catalog.run(Command::All(vec![good(0), alter, Command::DropTable { table }])).unwrap();
        assert_eq!(catalog.0.table_by_id(id).unwrap().fields().count(), 2);
        assert!(catalog.0.table_by_id(table).is_none());
    }

    #[test]
    fn buckets_never_overlap_whatever_the_duration_becomes() {
        let mut catalog = TestCatalog::new();
        let database = catalog.public();
        let day = 86_400 * 1_000_000_000;
        for (step, duration) in [3, 2, 7, 1, 5].into_iter().enumerate() {
            let change = DatabaseChange::VnodeDuration(duration * day);
            catalog.run(Command::AlterDatabase { database, change }).unwrap();
            for at in 0..6_i64 {
                let time = (at * 37 + step as i64 * 11) % 100 * day;
                catalog.bucket(time, 0).unwrap();
                assert!(catalog.0.bucket_of(database, time).unwrap().times.contains(time));
            }
        }
        let buckets = catalog.0.buckets(database, TimeRange::ALL);
        assert!(buckets.windows(2).all(|pair| pair[0].times.max < pair[1].times.min));
    }

    #[test]
    fn a_bucket_ends_at_the_last_time_noted_and_what_follows_gets_another() {
        let mut catalog = TestCatalog::new();
        let Ok(Reply::Bucket(bucket)) = catalog.bucket(0, 0) else { panic!("no bucket") };
        let whole = catalog.0.bucket(bucket).unwrap().times;
        let ending = |catalog: &TestCatalog| catalog.0.bucket(bucket).unwrap().ending;
        let end = |catalog: &TestCatalog, bucket, until| {
            let sets = &catalog.0.bucket(bucket).unwrap().replica_sets;
            Command::EndBucket { bucket, until, told: sets.iter().map(|set| set.id).collect() }
        };
        catalog.run(Command::BeginEnd { bucket, until: 9 }).unwrap();
        catalog.run(Command::BeginEnd { bucket, until: 5 }).unwrap();
        assert_eq!(ending(&catalog), Some(9));
        catalog.run(end(&catalog, bucket, 5)).unwrap();
        assert_eq!(catalog.0.bucket(bucket).unwrap().times, whole, "somebody noted another time");
        catalog.run(Command::BeginEnd { bucket, until: i64::MAX }).unwrap();
        assert_eq!(ending(&catalog), Some(whole.max), "it ends there anyway");
        catalog.run(end(&catalog, bucket, whole.max)).unwrap();
        assert_eq!((ending(&catalog), catalog.0.bucket(bucket).unwrap().times), (None, whole));
        catalog.run(Command::BeginEnd { bucket, until: 7 }).unwrap();
        let told = Vec::new();
        catalog.run(Command::EndBucket { bucket, until: 7, told }).unwrap();
        assert_eq!(ending(&catalog), Some(7), "a replica set was not told");
        catalog.run(end(&catalog, bucket, 7)).unwrap();
        catalog.run(end(&catalog, bucket, 7)).unwrap();
        assert_eq!(catalog.0.bucket(bucket).unwrap().times, TimeRange { max: 7, ..whole });
        let Ok(Reply::Bucket(next)) = catalog.bucket(8, 0) else { panic!("no bucket") };
        assert_eq!(catalog.0.bucket(next).unwrap().times, TimeRange { min: 8, ..whole });
        assert_eq!(catalog.0.bucket_of(catalog.public(), 7).unwrap().id, bucket);
        catalog.run(Command::BeginEnd { bucket: next, until: 7 }).unwrap();
        catalog.run(end(&catalog, next, 7)).unwrap();
        assert!(catalog.0.bucket(next).is_none(), "it ended before it began");
        assert!(catalog.run(Command::BeginEnd { bucket: next, until: 7 }).is_err());
    }

    #[test]
    fn wild_timestamps_cannot_make_buckets_without_end() {
        let mut catalog = TestCatalog::new();
        let year = 366 * 86_400 * 1_000_000_000;
        for at in 0..200 {
            catalog.bucket((at - 100) * year, 5).unwrap();
        }
        assert!(catalog.bucket(101 * year, 5).is_err());
        assert!(catalog.bucket(99 * year, 5).is_ok(), "one that is there is no new one");
        assert!(catalog.bucket(101 * year, 5 + MINUTE_NS).is_ok());
    }

    #[test]
    fn dropping_a_tenant_drops_all_it_holds() {
        let mut catalog = TestCatalog::new();
        let comment = String::new();
        catalog
            .run(Command::CreateTenant {
                name: "t".to_owned(),
                comment,
                drop_after_ns: None,
                limits: ObjectLimits::default(),
                rates: Rates::new(),
            })
            .unwrap();
        let tenant = catalog.0.tenant("t").unwrap().id;
        let database = catalog.0.database(tenant, "public").unwrap().id;
        let columns = vec![field("a")];
        catalog.run(Command::CreateTable { database, name: "x".to_owned(), columns }).unwrap();
        let table = catalog.0.table(database, "x").unwrap().id;
        catalog.run(Command::DropTenant { tenant }).unwrap();
        assert!(catalog.0.database_by_id(database).is_none());
        assert!(catalog.0.table_by_id(table).is_none());
        let first = catalog.0.tenant(FIRST_TENANT).unwrap().id;
        assert!(catalog.run(Command::DropTenant { tenant: first }).is_err());
    }
}
