//! The binary `cnosdb`: reads its settings, starts a node, stops it when told to.

mod catalog;
mod config;
mod membership;
mod memory;
mod node;
mod tools;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use config::{Config, Flags};
use tokio::runtime::{Handle, Runtime};
use tracing_subscriber::EnvFilter;

/// How long what runs off the async threads may take once everything else has stopped.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// Threads that plan and run queries need room for deep plans.
const STACK_BYTES: usize = 16 << 20;

/// A time-series SQL database that speaks PostgreSQL.
#[derive(Parser)]
#[command(name = "cnosdb", version)]
struct Arguments {
    #[command(subcommand)]
    command: CommandKind,
}

#[derive(Subcommand)]
enum CommandKind {
    /// Runs the database until it is told to stop.
    Run(Box<Flags>),
    /// Prints the default settings, with what each means.
    Config,
    /// Checks a file of settings, and says what is wrong with it.
    Check {
        /// The file.
        file: std::path::PathBuf,
    },
    /// Looks into the files of a stopped node.
    Inspect(tools::Inspect),
    /// Repairs the damaged files of a stopped node.
    Repair(tools::Repair),
    /// Writes the catalog of a stopped node out, or makes one of what was written out.
    Catalog(catalog::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        CommandKind::Config => {
            #[allow(clippy::print_stdout, reason = "this command is there to print")]
            {
                print!("{}", config::DEFAULTS);
            }
            Ok(())
        }
        CommandKind::Check { file } => config::check(&file),
        CommandKind::Inspect(arguments) => tools::inspect(&arguments),
        CommandKind::Repair(arguments) => tools::mend(&arguments),
        CommandKind::Catalog(arguments) => catalog::run(&arguments),
        CommandKind::Run(flags) => config::load(&flags).and_then(|config| {
            if config.memory.bytes != 0 {
                memory::bound_allocator();
            }
            run(config)
        }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            #[allow(clippy::print_stderr, reason = "the one clear line before the process ends")]
            {
                eprintln!("cnosdb: {message}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> Result<(), String> {
    start_log(&config);
    // A connection that panics ends alone; one line of it is enough.
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a task panicked")));
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return Err("another TLS provider is installed".to_owned());
    }
    // Queries have threads of their own: one that computes for long holds up no connection.
    let (runtime, queries) = (threads("cnosdb")?, threads("query")?);
    let outcome = runtime.block_on(serve(config, queries.handle().clone()));
    queries.shutdown_background();
    // What RocksDB still does must end before the process does: its own end would pull the ground away.
    runtime.shutdown_timeout(STOP_PATIENCE);
    outcome
}

fn threads(name: &str) -> Result<Runtime, String> {
    let built = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name(name)
        .thread_stack_size(STACK_BYTES)
        .build();
    built.map_err(|error| format!("start threads: {error}"))
}

async fn serve(config: Config, queries: Handle) -> Result<(), String> {
    // Before anything listens, so that no signal is missed.
    let stop = stop_signal()?;
    tokio::pin!(stop);
    // A node of a cluster may wait for others while it starts.
    let node = tokio::select! {
        started = node::Node::start(config, queries) => started?,
        () = &mut stop => return Ok(()),
    };
    node.announce();
    stop.await;
    tracing::info!("stopping");
    node.stop().await;
    Ok(())
}

fn stop_signal() -> Result<impl Future<Output = ()>, String> {
    use tokio::signal::unix::{SignalKind, signal};
    let at = |error: std::io::Error| format!("listen to signals: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(at)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(at)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn start_log(config: &Config) {
    let filter = EnvFilter::try_new(&config.log.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let log = log.with_ansi(std::io::stderr().is_terminal());
    match config.log.format {
        config::LogFormat::Text => log.init(),
        config::LogFormat::Json => log.json().init(),
    }
}
