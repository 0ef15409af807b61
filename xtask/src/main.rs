//! `cargo xtask …`: the habits of development. `cargo xtask long` runs the long forms of tests.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command prints")]

use std::process::{Command, ExitCode};

const USAGE: &str = "usage: cargo xtask ci | long\n\
  ci     what CI runs\n\
  long   crash enumeration, kill -9 and power cuts in their long forms; write the results into docs/testing.md";

fn run(program: &str, arguments: &[&str], envs: &[(&str, &str)]) -> bool {
    println!("$ {program} {}", arguments.join(" "));
    let status = Command::new(program).args(arguments).envs(envs.iter().copied()).status();
    status.is_ok_and(|status| status.success())
}

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let done = match task.as_str() {
        "ci" => run(".ci/run", &[], &[]),
        "long" => {
            let test = |name: &str, envs: &[(&str, &str)]| {
                let arguments = ["test", "--workspace", "--test", "*", name, "--", "--nocapture"];
                run("cargo", &arguments, envs)
            };
            run("cargo", &["build", "--workspace", "--all-targets"], &[])
                && test("no_crash_loses", &[("CNOSDB_CRASH_SEEDS", "200")])
                && test("kill_9_loses", &[("CNOSDB_KILL_CYCLES", "200")])
                && test("no_seed_breaks", &[("CNOSDB_SIM_SEEDS", "5000")])
                && test("killed_nodes_lose", &[("CNOSDB_NODE_KILLS", "60")])
                && test("every_history_of_registers", &[("CNOSDB_HISTORIES", "200")])
                && test("power_cuts_lose", &[("CNOSDB_POWER_CUTS", "100")])
                && test("random_queries_answer", &[("CNOSDB_RANDOM_QUERIES", "2000")])
                && test("hostile_bodies", &[("CNOSDB_HOSTILE_BODIES", "10000")])
        }
        _ => {
            eprintln!("{USAGE}");
            false
        }
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
