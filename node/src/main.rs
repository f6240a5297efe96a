//! The `towline` binary: composes the crates into nodes and tools. This file only chooses the command.

mod backend;
mod checksums;
mod cli;
mod cluster;
mod config;
mod controldata;
mod data_dir;
mod engine_config;
mod health;
mod identify;
mod init;
mod launch;
mod logging;
mod pagedump;
mod primary;
mod process;
mod refusal;
mod serve;
mod sql_client;
mod standby;
mod standby_service;
mod status;
mod up;
mod waldump;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Command::Up(args) => up::run(args),
        Command::Primary(args) => primary::run(args),
        Command::Standby(args) => standby::run(args),
        Command::Init(args) => init::run(args),
        Command::Status(args) => status::run(args),
        Command::Waldump(args) => waldump::run(args),
        Command::Pagedump(args) => pagedump::run(args),
        Command::Controldata(args) => controldata::run(args),
        Command::Checksums(args) => checksums::run(args),
        Command::Health(args) => health::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            // Nobody may be there to read it; the exit code tells too.
            let _ = writeln!(io::stderr(), "towline: {refusal}");
            refusal.exit_code()
        }
    }
}
