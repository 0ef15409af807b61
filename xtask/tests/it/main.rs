//! The shape of the repository: arrows between crates, headers, sizes, barred words, licences, majors.

#![allow(clippy::unwrap_used, reason = "tests stop where they do not get what they want")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// Crate → the crates of ours it may name (dev-dependencies too).
const ARROWS: [(&str, &[&str]); 13] = [
    ("model", &[]),
    ("tskv", &["model"]),
    ("replication", &["model"]),
    ("meta", &["model", "replication"]),
    ("cluster", &["model", "tskv", "replication", "meta"]),
    ("query", &["model", "meta", "cluster"]),
    ("pg", &["model", "query"]),
    ("cnosdb-http", &["model", "query"]),
    ("server", &["model", "tskv", "replication", "meta", "cluster", "query", "pg", "cnosdb-http"]),
    ("cli", &[]),
    ("slt", &[]),
    ("tests", &["model", "cluster", "server"]),
    ("xtask", &[]),
];

const LICENSES: [&str; 15] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "MPL-2.0",
    "BSL-1.0",
    "bzip2-1.0.6",
    "Unlicense",
];

/// Libraries of which one major version only may be in the graph.
const SINGLE: [&str; 8] =
    ["arrow", "datafusion", "tokio", "prost", "openraft", "pgwire", "rustls", "sqlparser"];

/// Words that name nothing, as parts of names of files, modules, types and functions.
const BARRED: [&str; 7] =
    ["Manager", "Helper", "Processor", "tsfamily", "kvcore", "_util", "engine2"];

fn root() -> PathBuf {
    // Tests run in the folder of their package.
    std::env::current_dir().unwrap().parent().unwrap().to_path_buf()
}

fn metadata() -> Value {
    // This platform's crates alone: a fresh machine has fetched no others.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", &platform])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn sources() -> Vec<(PathBuf, String)> {
    let output =
        Command::new("git").current_dir(root()).args(["ls-files", "*.rs"]).output().unwrap();
    let names = String::from_utf8(output.stdout).unwrap();
    let read =
        |name: &str| (PathBuf::from(name), std::fs::read_to_string(root().join(name)).unwrap());
    names.lines().map(read).collect()
}

#[test]
fn crates_name_only_those_below_them() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let metadata = metadata();
    let members: BTreeSet<String> =
        metadata["workspace_members"].as_array().unwrap().iter().map(Value::to_string).collect();
    for package in metadata["packages"].as_array().unwrap() {
        if !members.contains(&package["id"].to_string()) {
            continue;
        }
        let name = text(package, "name");
        let allowed = allowed.get(name.as_str());
        let allowed = allowed.unwrap_or_else(|| unreachable!("crate {name} has no row in ARROWS"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let below = text(dependency, "name");
            let ours = ARROWS.iter().any(|(ours, _)| *ours == below);
            assert!(!ours || allowed.contains(&below.as_str()), "{name} may not name {below}");
        }
    }
}

#[test]
fn storage_and_cluster_build_without_datafusion() {
    for (name, text) in ["tskv", "replication", "meta", "cluster"]
        .map(|name| (name, std::fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap()))
    {
        assert!(!text.contains("datafusion"), "{name} names datafusion");
    }
}

#[test]
fn every_file_says_what_it_is_and_is_one_idea_long() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{} has no header", path.display());
        assert!(!path.ends_with("mod.rs"), "{}: write foo.rs beside foo/", path.display());
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = product.lines().count();
        assert!(lines <= 800, "{} has {lines} lines", path.display());
    }
}

#[test]
fn names_say_something() {
    for (path, text) in sources() {
        if path.starts_with("xtask") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let declares = ["struct ", "enum ", "trait ", "fn ", "mod "]
                .iter()
                .any(|word| line.contains(word));
            let barred = BARRED.iter().find(|word| declares && line.contains(**word));
            assert!(barred.is_none(), "{}:{}: {barred:?}", path.display(), number + 1);
        }
    }
}

#[test]
fn licences_are_allowed() {
    for package in metadata()["packages"].as_array().unwrap() {
        let license = text(package, "license").replace('/', " OR ");
        let one_of = license.split(" OR ").any(|choice| {
            choice
                .trim_matches(['(', ')', ' '])
                .split(" AND ")
                .all(|part| LICENSES.contains(&part.trim_matches(['(', ')', ' '])))
        });
        let named = license.is_empty() && !text(package, "license_file").is_empty();
        assert!(
            one_of || named,
            "{} {}: {license}",
            text(package, "name"),
            text(package, "version")
        );
    }
}

#[test]
fn majors_are_single_and_aws_lc_is_absent() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata()["packages"].as_array().unwrap() {
        versions.entry(text(package, "name")).or_default().insert(text(package, "version"));
    }
    for name in SINGLE {
        let found = versions.get(name).map_or(0, BTreeSet::len);
        assert!(found <= 1, "{name}: {:?}", versions.get(name));
    }
    assert!(!versions.contains_key("openssl-sys"), "rustls only");
}

#[test]
fn formats_have_their_pages() {
    for (path, text) in sources() {
        for line in text.lines().filter_map(|line| line.trim().strip_prefix("// FORMAT: ")) {
            let page = line.split(',').next().unwrap_or_default();
            assert!(root().join(page).is_file(), "{} names {page}", path.display());
        }
    }
}
