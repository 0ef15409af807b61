//! The prompt: line editing, history, statements over several lines.

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use crate::commands::{Shell, statement_end};
use crate::completion::Names;

/// Lines the history keeps.
const HISTORY_LINES: usize = 5_000;

/// What the editor asks while a line is typed.
struct Statements(Names);

impl Helper for Statements {}
impl Highlighter for Statements {}

impl Hinter for Statements {
    type Hint = String;
}

impl Completer for Statements {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.0.offer(line, cursor))
    }
}

impl Validator for Statements {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input().trim();
        let whole =
            text.is_empty() || text.starts_with('\\') || statement_end(text) == Some(text.len());
        Ok(if whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

/// Asks for a password without showing it.
pub(crate) fn ask_password(user: &str) -> Option<String> {
    let quiet = std::process::Command::new("stty").arg("-echo").status();
    eprint!("Password for user {user}: ");
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    if quiet.is_ok() && std::process::Command::new("stty").arg("echo").status().is_err() {
        eprintln!("the terminal may still hide what is typed");
    }
    eprintln!();
    read.ok().map(|_| line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Reads and runs until the user leaves.
pub(crate) async fn run(shell: &mut Shell) {
    println!("cnosdb-cli, server {}. \\? for help, \\q to quit.", shell.client.version);
    let builder = Config::builder().completion_type(CompletionType::List);
    let config = builder.max_history_size(HISTORY_LINES).map(rustyline::config::Builder::build);
    let editor: rustyline::Result<Editor<Statements, DefaultHistory>> =
        config.and_then(Editor::with_config);
    let mut editor = match editor {
        Ok(editor) => editor,
        Err(error) => return eprintln!("{error}"),
    };
    let names = Names::default();
    editor.set_helper(Some(Statements(names.clone())));
    let history = std::env::home_dir().map(|home| home.join(".cnosdb_history"));
    if let Some(path) = &history
        && let Err(error) = editor.load_history(path)
        && !matches!(error, ReadlineError::Io(_))
    {
        eprintln!("{}: {error}", path.display());
    }
    while !shell.quit {
        if std::mem::take(&mut shell.names_changed) {
            names.refresh(&shell.client).await;
        }
        let prompt = format!("{}=> ", shell.client.dbname);
        // Reading blocks; nothing else has to run meanwhile.
        match tokio::task::block_in_place(|| editor.readline(&prompt)) {
            Ok(text) => {
                let added = editor.add_history_entry(text.as_str());
                if let (Ok(true), Some(path)) = (added, &history)
                    && let Err(error) = editor.append_history(path)
                {
                    eprintln!("{}: {error}", path.display());
                }
                shell.run_text(&text).await;
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return,
            Err(error) => return eprintln!("{error}"),
        }
    }
}
