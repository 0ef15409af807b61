//! The connection: statements out, rows and errors back.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, CancelToken, Config, NoTls, SimpleQueryMessage};

use crate::progress::Progress;

/// Notices that may wait to be printed; more are dropped.
const NOTICES_MAX: usize = 1_024;
/// How often one looks how far a COPY INTO is.
const WATCH_PAUSE: Duration = Duration::from_millis(300);
/// Rows are read from a file in pieces of so many bytes.
const COPY_BYTES: usize = 64 << 10;

/// An open connection and what it was opened with.
pub(crate) struct Client {
    client: tokio_postgres::Client,
    notices: mpsc::Receiver<String>,
    host: String,
    port: u16,
    user: String,
    password: Option<String>,
    pub(crate) dbname: String,
    pub(crate) version: String,
}

/// What a statement gave.
pub(crate) enum Answer {
    /// Columns and rows.
    Rows(Vec<String>, Vec<Vec<Option<String>>>),
    /// Rows it changed.
    Done(u64),
}

/// Writes an error as psql does.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else { return error.to_string() };
    let mut text = format!("{}:  {}: {}", db.severity(), db.code().code(), db.message());
    if let Some(detail) = db.detail() {
        text.push_str(&format!("\nDETAIL:  {detail}"));
    }
    if let Some(hint) = db.hint() {
        text.push_str(&format!("\nHINT:  {hint}"));
    }
    text
}

impl Client {
    pub(crate) async fn connect(
        host: String,
        port: u16,
        user: String,
        dbname: String,
        password: Option<String>,
    ) -> Result<Self, String> {
        let mut config = Config::new();
        config.host(&host).port(port).user(&user).dbname(&dbname).application_name("cnosdb-cli");
        if let Some(password) = &password {
            config.password(password);
        }
        let connected = config.connect(NoTls).await;
        let (client, mut connection) = connected.map_err(|error| match error.as_db_error() {
            Some(_) => describe(&error),
            None => format!("connect to {host}:{port}: {error}"),
        })?;
        let version = connection.parameter("server_version").unwrap_or_default().to_owned();
        let (sender, notices) = mpsc::channel(NOTICES_MAX);
        tokio::spawn(async move {
            let mut messages =
                futures::stream::poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notice(notice) = message {
                    let line = format!("{}:  {}", notice.severity(), notice.message());
                    drop(sender.try_send(line));
                }
            }
        });
        Ok(Self { client, notices, host, port, user, password, dbname, version })
    }

    /// Connects anew, to another database.
    pub(crate) async fn reconnect(&self, dbname: &str) -> Result<Self, String> {
        let (host, user) = (self.host.clone(), self.user.clone());
        Self::connect(host, self.port, user, dbname.to_owned(), self.password.clone()).await
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn cancel_token(&self) -> CancelToken {
        self.client.cancel_token()
    }

    /// Returns what the server said besides.
    pub(crate) fn notices(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.notices.try_recv().ok()).collect()
    }

    /// Runs one statement.
    pub(crate) async fn run(&self, statement: &str) -> Result<Answer, String> {
        let messages = self.client.simple_query(statement).await;
        let messages = messages.map_err(|error| describe(&error))?;
        let (mut columns, mut rows, mut changed) = (None, Vec::new(), 0);
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(described) => {
                    columns =
                        Some(described.iter().map(|column| column.name().to_owned()).collect());
                }
                SimpleQueryMessage::Row(row) => {
                    rows.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
                }
                SimpleQueryMessage::CommandComplete(count) => changed = count,
                _ => {}
            }
        }
        Ok(columns.map_or(Answer::Done(changed), |columns| Answer::Rows(columns, rows)))
    }

    /// Runs a COPY INTO, and shows how far it is.
    pub(crate) async fn run_copy(&self, statement: &str) -> Result<Answer, String> {
        let mut progress = Progress::new(None);
        if !progress.is_seen() {
            return self.run(statement).await;
        }
        // Who cannot be watched is run all the same.
        let Ok(watcher) = self.reconnect(&self.dbname).await else {
            return self.run(statement).await;
        };
        let mut run = std::pin::pin!(self.run(statement));
        let done = loop {
            tokio::select! {
                done = &mut run => break done,
                () = tokio::time::sleep(WATCH_PAUSE) => {
                    let seen = tokio::time::timeout(WATCH_PAUSE, watcher.copied()).await;
                    if let Ok(Some((bytes, total))) = seen {
                        progress.of(total);
                        progress.moved(bytes);
                    }
                }
            }
        };
        progress.end();
        done
    }

    /// Returns the bytes that the user's newest copy has moved, and those there are.
    async fn copied(&self) -> Option<(u64, u64)> {
        let query = "SELECT bytes_processed, bytes_total FROM pg_stat_progress_copy \
                     WHERE type = 'FILE' ORDER BY pid DESC LIMIT 1";
        let Ok(Answer::Rows(_, rows)) = self.run(query).await else { return None };
        let number = |at: usize| rows.first()?.get(at)?.as_ref()?.parse().ok();
        Some((number(0)?, number(1)?))
    }

    /// Sends a file's bytes to a COPY FROM STDIN.
    pub(crate) async fn copy_in(&self, statement: &str, path: &str) -> Result<u64, String> {
        use futures::SinkExt;
        use tokio::io::AsyncReadExt;
        let file = tokio::fs::File::open(path).await.map_err(|error| format!("{path}: {error}"))?;
        let total = file.metadata().await.ok().map(|metadata| metadata.len());
        let mut progress = Progress::new(total);
        let mut moved = 0;
        let mut file = tokio::io::BufReader::new(file);
        let sink = self.client.copy_in::<_, bytes::Bytes>(statement).await;
        let sink = sink.map_err(|error| describe(&error))?;
        let mut sink = std::pin::pin!(sink);
        loop {
            let mut piece = vec![0; COPY_BYTES];
            let read = file.read(&mut piece).await.map_err(|error| format!("{path}: {error}"))?;
            if read == 0 {
                break;
            }
            piece.truncate(read);
            moved += read as u64;
            progress.moved(moved);
            // A refused row closes the sink: the reason comes with `finish`.
            if sink.send(piece.into()).await.is_err() {
                break;
            }
        }
        progress.end();
        sink.as_mut().finish().await.map_err(|error| describe(&error))
    }

    /// Writes the bytes of a COPY TO STDOUT to a file, or to standard output.
    pub(crate) async fn copy_out(
        &self,
        statement: &str,
        path: Option<&str>,
    ) -> Result<u64, String> {
        let stream = self.client.copy_out(statement).await.map_err(|error| describe(&error))?;
        let mut stream = std::pin::pin!(stream);
        let mut out: Box<dyn tokio::io::AsyncWrite + Unpin> = match path {
            Some(path) => {
                let file = tokio::fs::File::create(path).await;
                Box::new(file.map_err(|error| format!("{path}: {error}"))?)
            }
            None => Box::new(tokio::io::stdout()),
        };
        let mut bytes = 0;
        let mut progress = Progress::new(None);
        while let Some(piece) = stream.try_next().await.map_err(|error| describe(&error))? {
            bytes += piece.len() as u64;
            if path.is_some() {
                progress.moved(bytes);
            }
            out.write_all(&piece).await.map_err(|error| error.to_string())?;
        }
        progress.end();
        out.flush().await.map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

/// Ends a running statement when Ctrl-C is pressed.
pub(crate) async fn until_interrupted<T>(token: CancelToken, work: impl Future<Output = T>) -> T {
    let token = Arc::new(token);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            pressed = tokio::signal::ctrl_c() => {
                if pressed.is_ok()
                    && let Err(error) = token.cancel_query(NoTls).await
                {
                    eprintln!("cancel: {error}");
                }
            }
        }
    }
}
