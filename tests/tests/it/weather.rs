//! The quick start of the README: real observations are loaded, three questions are answered.
//! The expected figures were computed by PostgreSQL 15 from the same file (docs/testing.md).

use std::process::Command;

use tests::{Server, binary};

#[test]
fn the_quick_start_answers_as_postgresql_does() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let run = |arguments: &[&str]| {
        let output = Command::new(binary("cnosdb-cli"))
            .current_dir("..")
            .args(["-p", &server.port.to_string(), "--format", "csv"])
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let loaded = run(&["-f", "docs/guide/data/load.sql"]);
    assert!(loaded.contains("COPY 26115"), "{loaded}");
    let answers = run(&["-f", "docs/guide/data/questions.sql"]);
    let expected = std::fs::read_to_string("../docs/guide/data/answers.csv").unwrap();
    assert_eq!(answers, expected);
}
