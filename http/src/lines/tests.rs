//! Line protocol as InfluxDB describes it, beside another parser of it, and under random bytes.
#![allow(clippy::indexing_slicing, reason = "a test stops where it is wrong")]

use super::*;
use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use influxdb_line_protocol::FieldValue;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn ok(text: &str) -> Vec<RowBatch> {
    let parsed = parse(text.as_bytes(), Precision::Ns, 99, 1);
    assert!(parsed.bad.is_empty(), "{text}: {:?}", parsed.bad);
    parsed.batches.into_iter().map(|(batch, _)| batch).collect()
}

fn reasons(text: &str) -> Vec<(usize, String)> {
    let parsed = parse(text.as_bytes(), Precision::Ns, 99, 1);
    parsed.bad.into_iter().map(|bad| (bad.number, bad.reason)).collect()
}

#[test]
fn all_types_escapes_and_times_are_read() {
    let text = "my\\ table,tag\\,a=x\\ y,b=\\= f=1.5,i=-3i,u=7u,t=T,s=\"a \\\"q\\\", \\\\ z\" 17\n";
    let batches = ok(text);
    let [batch] = batches.as_slice() else { panic!("{batches:?}") };
    assert_eq!(batch.table, "my table");
    let tags = [("tag,a", "x y"), ("b", "=")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(batch.series, [tags.to_vec()]);
    assert_eq!(batch.times, [17]);
    let field = |at: usize| &batch.fields[at].1;
    assert_eq!(field(0).as_primitive::<Float64Type>().value(0), 1.5);
    assert_eq!(field(1).as_primitive::<Int64Type>().value(0), -3);
    assert_eq!(field(2).as_primitive::<UInt64Type>().value(0), 7);
    assert!(field(3).as_boolean().value(0));
    assert_eq!(field(4).as_string::<i32>().value(0), "a \"q\", \\ z");
}

#[test]
fn rows_are_grouped_by_table_and_fields() {
    let batches = ok("m,h=a x=1 1\nm,h=b x=2 2\r\n\n# said\nm,h=a x=3 3\nm,h=a x=1i 4\nn y=t\n");
    let rows: Vec<usize> = batches.iter().map(|batch| batch.times.len()).collect();
    assert_eq!(rows, [3, 1, 1]);
    assert_eq!(batches[0].row_series, [0, 1, 0]);
    assert_eq!(batches[2].times, [99], "without a time it is now");
    let two = ok("m s=\"one\ntwo\" 1\nm s=\"three\" 2");
    assert_eq!(two[0].fields[0].1.as_string::<i32>().value(0), "one\ntwo");
    assert_eq!(two[0].times, [1, 2]);
}

#[test]
fn a_body_in_pieces_says_what_it_says_whole() {
    let row = |at: usize| match at % 97 {
        0 => "m broken\n".to_owned(),
        1 => format!("m,h=a s=\"two\nlines {at}\" {at}\n"),
        2 => format!("# m x={at}\n\n"),
        _ => format!("m,h=h{} x={at},y={}i {at}\n", at % 7, at * 3),
    };
    let mut body: String = (0..60_000).map(row).collect();
    for ending in ["", "m s=\"open 1\n"] {
        body.push_str(ending);
        body.extend((0..30_000).map(row));
        let whole = parse(body.as_bytes(), Precision::Ns, 0, 1);
        for threads in [2, 3, 8] {
            let parts = pieces::cut(body.as_bytes(), threads);
            assert!(parts.len() > 1);
            let joined: Vec<u8> = parts.iter().flat_map(|part| part.bytes).copied().collect();
            assert_eq!(joined, body.as_bytes());
            let parsed = parse(body.as_bytes(), Precision::Ns, 0, threads);
            assert_eq!((parsed.good_count, parsed.bad_count), (whole.good_count, whole.bad_count));
            assert_eq!(parsed.bad, whole.bad);
            let rows = |parsed: &Parsed| {
                let times = parsed.batches.iter().map(|(batch, _)| &batch.times);
                let lines = parsed.batches.iter().map(|(_, lines)| lines);
                let mut rows: Vec<(u32, i64)> =
                    lines.flatten().copied().zip(times.flatten().copied()).collect();
                rows.sort_unstable();
                rows
            };
            assert_eq!(rows(&parsed), rows(&whole));
        }
    }
}

#[test]
fn bad_lines_are_named_and_the_others_kept() {
    let text = "m\nm f\nm f=\nm f=1x\nm,a f=1\nm,a= f=1\nm f=1 x\nm f=1 9223372036854775808\n\
                m f=\"open\nm,a=1,a=2 f=1\nm f=1,f=2\n,a=1 f=1\nm time=1\nm f=NaN\nm f=1,,g=2\nm good=1 1\n";
    let bad = reasons(text);
    let numbers: Vec<usize> = bad.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=15).collect::<Vec<_>>(), "{bad:?}");
    assert_eq!(parse(text.as_bytes(), Precision::Ns, 0, 1).good_count, 1);
    let late = parse(b"m f=1 9300000000", Precision::S, 0, 1);
    assert_eq!(late.bad_count, 1, "a time beyond the range of nanoseconds");
    assert_eq!(parse(b"m f=1 2", Precision::Ms, 0, 1).batches[0].0.times, [2_000_000]);
}

#[test]
fn a_quote_that_never_ends_spoils_its_line_alone() {
    let lines = "m f=\"a\"\\\n".repeat(200_000);
    let parsed = parse(format!("{lines}m f=\"open\n{lines}").as_bytes(), Precision::Ns, 0, 1);
    assert_eq!((parsed.good_count, parsed.bad_count), (0, 400_001));
    assert_eq!(ok("m f=\"a\\\"\nb\" 1\nm f=\"c\" 2")[0].times, [1, 2]);
    let letters = "# 5\" disk\nm,t=5\" f=1 1\n# 3\" disk\nm,t=3\" f=1 2\n";
    assert_eq!(ok(letters)[0].times, [1, 2], "quotes in comments and tags are letters");
    let mixed = "m,\" f=\"\n".repeat(50_001);
    assert_eq!(parse(mixed.as_bytes(), Precision::Ns, 0, 1).good_count, 0);
}

#[test]
fn a_body_may_name_so_much_and_no_more() {
    let many = |part: &dyn Fn(usize) -> String, count| (0..count).map(part).collect::<String>();
    let groups = many(&|n| format!("m f{n}=1 1\n"), GROUPS_MAX + 1);
    assert_eq!(parse(groups.as_bytes(), Precision::Ns, 0, 1).bad_count, 1);
    let tags = format!("m{} f=1 1", many(&|n| format!(",t{n}=x"), TAGS_MAX + 1));
    assert_eq!(parse(tags.as_bytes(), Precision::Ns, 0, 1).bad_count, 1);
    let fields = format!("m {}g=1 1", many(&|n| format!("f{n}=1,"), FIELDS_MAX));
    assert_eq!(parse(fields.as_bytes(), Precision::Ns, 0, 1).bad_count, 1);
    let zeros = "m a=1,b=1 1\nm a\0\x01b=2 2\nm a=3,b=3 3";
    for (batch, lines) in parse(zeros.as_bytes(), Precision::Ns, 0, 1).batches {
        assert!(batch.fields.iter().all(|(_, values)| values.len() == lines.len()));
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let seed = b"cpu,host=a\\ b,dc=x f=1.5,i=3i,s=\"a\\\"b\",t=true 1700000000\nm x=1u\n";
    let mut state = 88_172_645_463_325_252_u64;
    for _ in 0..200_000 {
        let mut bytes = seed.to_vec();
        for _ in 0..4 {
            // Marsaglia's xorshift: the same bytes in every run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = (state as usize >> 8) % bytes.len();
            match state % 3 {
                0 => bytes[at] = (state >> 40) as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b" ,=\\\"\n\xffi"[(state >> 50) as usize % 8]),
            }
        }
        let parsed = parse(&bytes, Precision::Ns, 0, 1);
        for (batch, lines) in parsed.batches {
            assert_eq!(batch.times.len(), lines.len());
            assert!(batch.fields.iter().all(|(_, array)| array.len() == lines.len()));
        }
    }
}

/// Lines of random parts, good and bad ones.
fn random_line(random: &mut StdRng) -> String {
    let parts =
        |random: &mut StdRng, from: &[&str]| from[random.random_range(0..from.len())].to_owned();
    let mut line = parts(random, &["m", "my\\ table", "a\\,b", "é", "m=x"]);
    for _ in 0..random.random_range(0..3) {
        line += ",";
        line += &parts(random, &["t", "tag\\=x", "u\\ v", "t2", "time"]);
        line += &parts(random, &["=", "=", "=", "=", ""]);
        line += &parts(random, &["a", "b\\,c", "d\\ e", "f\\=g", "\"q\"", "é", "h\\i"]);
    }
    line += &parts(random, &[" ", " ", " ", "  ", ","]);
    for at in 0..random.random_range(1..4) {
        if at > 0 {
            line += &parts(random, &[",", ",", ",", ", "]);
        }
        line += &parts(random, &["f", "g\\ h", "i\\,j", "k\\=l", "time"]);
        line += &parts(random, &["=", "=", "=", ""]);
        let values = [
            "1.5",
            "-3i",
            "7u",
            "t",
            "FALSE",
            "\"x y\"",
            "\"a\\\"b\"",
            "1e5",
            "-0",
            "",
            "x",
            "\"\\\\\"",
        ];
        line += &parts(random, &values);
    }
    line += &parts(random, &["", " 17", " -17", " 1x", "  5", " "]);
    line
}

type Row = (String, Vec<(String, String)>, Vec<(String, String)>, i64);

fn ours(line: &str) -> Result<Row, String> {
    let mut parsed = parse(line.as_bytes(), Precision::Ns, 99, 1);
    if let Some(bad) = parsed.bad.pop() {
        return Err(bad.reason);
    }
    let Some((batch, _)) = parsed.batches.pop() else { return Err("nothing".to_owned()) };
    let options = FormatOptions::default();
    let fields = batch.fields.iter().map(|(name, values)| {
        let text = ArrayFormatter::try_new(values, &options).unwrap().value(0).to_string();
        (name.clone(), format!("{} {text}", values.data_type()))
    });
    Ok((batch.table.clone(), batch.series[0].clone(), fields.collect(), batch.times[0]))
}

fn theirs(line: &str) -> Result<Row, String> {
    let line = influxdb_line_protocol::parse_lines(line).next().ok_or("nothing")?;
    let line = line.map_err(|error| error.to_string())?;
    let tags = line.series.tag_set.iter().flatten();
    let fields = line.field_set.iter().map(|(name, value)| {
        let text = match value {
            FieldValue::I64(value) => format!("Int64 {value}"),
            FieldValue::U64(value) => format!("UInt64 {value}"),
            FieldValue::F64(value) => format!("Float64 {value:?}"),
            FieldValue::String(value) => format!("Utf8 {value}"),
            FieldValue::Boolean(value) => format!("Boolean {value}"),
        };
        (name.to_string(), text)
    });
    Ok((
        line.series.measurement.to_string(),
        tags.map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        fields.collect(),
        line.timestamp.unwrap_or(99),
    ))
}

#[test]
fn what_another_parser_takes_is_taken_alike_or_refused_for_a_reason_of_ours() {
    // What a table cannot hold, and names with a comma or a blank that nothing escapes.
    let reasons = ["twice", "may not be called \"time\"", "without a value"];
    let mut random = StdRng::seed_from_u64(7);
    let mut both = 0;
    for _ in 0..50_000 {
        let line = random_line(&mut random);
        match (ours(&line), theirs(&line)) {
            (Ok(ours), Ok(theirs)) => {
                assert_eq!(ours, theirs, "{line}");
                both += 1;
            }
            (Err(reason), Ok(theirs)) => {
                let known = reasons.iter().any(|known| reason.contains(known));
                assert!(known, "{line}: {reason}: {theirs:?}");
            }
            // Blanks at the end of a line are nothing to us.
            (Ok(_), Err(_)) if line.ends_with(' ') => {}
            (Ok(ours), Err(reason)) => panic!("{line}: {ours:?}: {reason}"),
            (Err(_), Err(_)) => {}
        }
    }
    assert!(both > 3_000, "{both}");
}
