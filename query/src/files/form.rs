//! How rows are written in files: FILE_FORMAT, or what a file's name says.

use std::str::FromStr;

use datafusion::datasource::file_format::file_compression_type::FileCompressionType;

use crate::error::{Error, Result};
use crate::rows::{RowFormat, TextForm, TextStyle};
use crate::sql::FileOptions;

/// How rows lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Parquet,
    Avro,
    Csv {
        delimiter: u8,
        /// Whether the first line names the columns.
        header: bool,
    },
    /// Lines of JSON objects.
    NdJson,
}

/// How a file is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileForm {
    pub(super) kind: FileKind,
    /// How it is compressed; `None` where its name says it.
    compression: Option<FileCompressionType>,
}

impl FileForm {
    /// Reads FILE_FORMAT; what it leaves open is told by the end of the URL.
    pub(super) fn of(options: &FileOptions, url: &str) -> Result<Self> {
        let (mut named, mut delimiter, mut header) = (None, b',', true);
        let mut compression = None;
        for (name, value) in options {
            let invalid = |wanted: &str| {
                Error::new("22023", format!("{name} must be {wanted}, not \"{value}\""))
            };
            match name.as_str() {
                "type" => named = Some(value.to_ascii_lowercase()),
                "delimiter" => match value.as_bytes() {
                    [one] if one.is_ascii() && !matches!(one, b'"' | b'\n' | b'\r') => {
                        delimiter = *one;
                    }
                    _ => return Err(invalid("one character")),
                },
                "with_header" => header = value.parse().map_err(|_| invalid("true or false"))?,
                "file_compression_type" => {
                    let known = FileCompressionType::from_str(value);
                    let wanted = "'', gzip, bzip2, xz or zstd";
                    compression = Some(known.map_err(|_| invalid(wanted))?);
                }
                _ => {
                    let error =
                        Error::new("22023", format!("unknown option of FILE_FORMAT: {name}"));
                    let hint = "options are type, delimiter, with_header, file_compression_type";
                    return Err(error.hint(hint));
                }
            }
        }
        let (stem, packed) = by_name(url);
        let kind = match named.as_deref().or(stem) {
            Some("parquet") => FileKind::Parquet,
            Some("avro") => FileKind::Avro,
            Some("csv") => FileKind::Csv { delimiter, header },
            Some("json" | "ndjson" | "jsonl") => FileKind::NdJson,
            Some(other) => {
                let message = format!("files of type {other}");
                return Err(Error::unsupported(message).hint("PARQUET, CSV, JSON, AVRO"));
            }
            None => {
                let error = Error::new("22023", "it is not known what type the files are of");
                return Err(
                    error.hint("FILE_FORMAT = (type = 'PARQUET' | 'CSV' | 'JSON' | 'AVRO')")
                );
            }
        };
        let compression = compression.or(packed.is_compressed().then_some(packed));
        if compression.is_some_and(|one| one.is_compressed())
            && matches!(kind, FileKind::Parquet | FileKind::Avro)
        {
            let hint = "such files are compressed inside";
            return Err(Error::unsupported("file_compression_type of these files").hint(hint));
        }
        Ok(Self { kind, compression })
    }

    /// Returns whether a URL means one file: it ends as files do.
    pub(super) fn names_file(url: &str) -> bool {
        by_name(url).0.is_some()
    }

    /// Returns how a file of this name is compressed.
    pub(super) fn compression(self, name: &str) -> FileCompressionType {
        self.compression.unwrap_or_else(|| by_name(name).1)
    }

    /// Returns how rows are to be written.
    pub(super) fn rows(self) -> Result<RowFormat> {
        Ok(match self.kind {
            FileKind::Parquet => RowFormat::Parquet,
            FileKind::Csv { delimiter, header } => {
                let form = TextForm::Lines { separator: char::from(delimiter), header };
                RowFormat::Text(TextStyle { form, zoned: true })
            }
            FileKind::NdJson => RowFormat::Text(TextStyle { form: TextForm::NdJson, zoned: true }),
            FileKind::Avro => return Err(Error::unsupported("files of Avro, written")),
        })
    }

    /// Returns how the name of such a file ends.
    pub(super) fn ending(self) -> String {
        let kind = match self.kind {
            FileKind::Parquet => "parquet",
            FileKind::Avro => "avro",
            FileKind::Csv { .. } => "csv",
            FileKind::NdJson => "json",
        };
        let packed = self.compression("").get_variant().to_string().to_ascii_lowercase();
        let packed = match packed.as_str() {
            "" | "uncompressed" => "",
            "gzip" | "gz" => ".gz",
            "bzip2" | "bz2" => ".bz2",
            "xz" => ".xz",
            _ => ".zst",
        };
        format!("{kind}{packed}")
    }
}

/// Returns what the end of a name says: of what type, and how compressed.
fn by_name(url: &str) -> (Option<&'static str>, FileCompressionType) {
    let name = url.to_ascii_lowercase();
    let packings = [
        (".gz", FileCompressionType::GZIP),
        (".bz2", FileCompressionType::BZIP2),
        (".xz", FileCompressionType::XZ),
        (".zst", FileCompressionType::ZSTD),
    ];
    let packed = packings
        .into_iter()
        .find_map(|(end, packing)| name.strip_suffix(end).map(|stem| (stem.to_owned(), packing)));
    let (stem, packing) = packed.unwrap_or((name, FileCompressionType::UNCOMPRESSED));
    let types = ["parquet", "avro", "csv", "json", "ndjson", "jsonl"];
    let known = types
        .into_iter()
        .find(|known| stem.strip_suffix(known).is_some_and(|stem| stem.ends_with('.')));
    (known, packing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_told_by_the_name() {
        let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let form = FileForm::of(&vec![], "s3://b/x.csv.gz").unwrap();
        assert_eq!(form.kind, FileKind::Csv { delimiter: b',', header: true });
        assert_eq!(form.ending(), "csv.gz");
        let form = FileForm::of(&vec![option("type", "Json")], "d").unwrap();
        assert_eq!((form.kind, form.ending().as_str()), (FileKind::NdJson, "json"));
        for wrong in [vec![], vec![option("typ", "csv")], vec![option("type", "xml")]] {
            assert!(FileForm::of(&wrong, "d").is_err(), "{wrong:?}");
        }
        let gzip = vec![option("type", "parquet"), option("file_compression_type", "gzip")];
        assert!(FileForm::of(&gzip, "d").is_err());
    }
}
