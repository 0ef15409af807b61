//! `cnosdb-cli`: a REPL and one-shot client over the PostgreSQL wire.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a client prints")]

mod client;
mod commands;
mod completion;
mod help;
mod progress;
mod render;
mod repl;

use std::io::Read;
use std::process::ExitCode;

use clap::Parser;
use client::Client;
use commands::Shell;
use render::Format;

/// A client of CnosDB.
#[derive(Parser)]
#[command(name = "cnosdb-cli", version, disable_help_flag = true)]
struct Arguments {
    /// Host of the server.
    #[arg(short = 'h', long, env = "PGHOST", default_value = "127.0.0.1")]
    host: String,
    /// Port of the server.
    #[arg(short, long, env = "PGPORT", default_value_t = 5432)]
    port: u16,
    /// User.
    #[arg(short = 'U', long, env = "PGUSER", default_value = "root")]
    user: String,
    /// Tenant, tenant.database, or database of the default tenant.
    #[arg(short, long, env = "PGDATABASE", default_value = "cnosdb")]
    dbname: String,
    /// Asks for the password; without it PGPASSWORD is taken.
    #[arg(short = 'W', long)]
    password: bool,
    /// Runs this and ends. May be given several times.
    #[arg(short, long)]
    command: Vec<String>,
    /// Runs the statements of this file and ends; `-` is standard input.
    #[arg(short, long)]
    file: Vec<String>,
    /// Form of the answers.
    #[arg(long, default_value = "table")]
    format: Format,
    #[command(subcommand)]
    task: Option<Task>,
    /// Prints help.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// What can be done besides running statements.
#[derive(clap::Subcommand)]
enum Task {
    /// Prints the statements that make tenants, users, roles, databases, tables and views as they are.
    DumpDdl {
        /// Of this tenant only. May be given several times.
        #[arg(short, long)]
        tenant: Vec<String>,
    },
    /// Runs what dump-ddl printed.
    RestoreDumpDdl {
        /// Files, run one after another.
        #[arg(required = true)]
        files: Vec<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("cnosdb-cli: {error}");
                return ExitCode::from(2);
            }
        };
    // 0: all went well; 1: a statement failed; 2: no connection. As psql with ON_ERROR_STOP.
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> ExitCode {
    let password = if arguments.password {
        match repl::ask_password(&arguments.user) {
            Some(password) => Some(password),
            None => return ExitCode::from(2),
        }
    } else {
        std::env::var("PGPASSWORD").ok()
    };
    let Arguments { host, port, user, dbname, command, file, format, task, .. } = arguments;
    let client = match Client::connect(host, port, user, dbname, password).await {
        Ok(client) => client,
        Err(message) => {
            eprintln!("cnosdb-cli: {message}");
            return ExitCode::from(2);
        }
    };
    let mut shell = Shell::new(client, format);
    let mut well = true;
    match task {
        Some(Task::DumpDdl { tenant }) => return done(shell.dump_ddl(&tenant).await),
        Some(Task::RestoreDumpDdl { files }) => {
            for path in &files {
                well = well && run_file(&mut shell, path).await;
            }
            return if well { ExitCode::SUCCESS } else { ExitCode::from(1) };
        }
        None => {}
    }
    for text in &command {
        well = well && shell.run_text(text).await;
    }
    for path in &file {
        well = well && run_file(&mut shell, path).await;
    }
    if command.is_empty() && file.is_empty() {
        use std::io::IsTerminal;
        if std::io::stdin().is_terminal() {
            repl::run(&mut shell).await;
        } else {
            well = run_file(&mut shell, "-").await;
        }
    }
    if well { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn done(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(1)
        }
    }
}

async fn run_file(shell: &mut Shell, path: &str) -> bool {
    let mut text = String::new();
    let read = if path == "-" {
        std::io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(path).map(|read| text = read)
    };
    if let Err(error) = read {
        eprintln!("{path}: {error}");
        return false;
    }
    shell.run_text(&text).await
}
