//! Dumps WAL: `cargo run -p towline-wal --example waldump -- PATH [--stats|--stats=record] [START [END]]`.

use std::io::{BufWriter, Write};
use std::path::Path;

use towline_base::OsVfs;
use towline_wal::waldump::{DumpOptions, Stats, dump};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = DumpOptions::default();
    let mut positional = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--stats" => options.stats = Stats::PerRmgr,
            "--stats=record" => options.stats = Stats::PerRecord,
            _ => positional.push(argument),
        }
    }
    let path = positional
        .first()
        .ok_or("usage: waldump PATH [--stats] [START [END]]")?;
    options.start = positional.get(1).map(|text| text.parse()).transpose()?;
    options.end = positional.get(2).map(|text| text.parse()).transpose()?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let dumped = dump(&OsVfs::shared(), Path::new(path), &options, &mut out)?;
    out.flush()?;
    if let Some(end) = dumped.end {
        eprintln!("waldump: {end}");
    }
    Ok(())
}
