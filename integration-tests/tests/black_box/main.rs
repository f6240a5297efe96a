//! The black-box tests: real processes, PostgreSQL's own programs, kills. Each test is named as a behaviour.
#![allow(clippy::unwrap_used)]

mod compose;
mod faults;
mod kills;
mod large;
mod login;
mod mixed;
mod oracles;
mod pgbench;
mod psql;
mod recovery;
mod refusals;
mod schedules;
mod sessions;
mod streaming;
mod up;
mod vacuum;

use libtest_mimic::{Arguments, Failed, Trial};
use towline_integration_tests::tools;

/// A test, and the programs that it needs.
pub(crate) struct Case {
    name: &'static str,
    needs: &'static [&'static str],
    run: fn(),
}

impl Case {
    pub(crate) const fn new(name: &'static str, needs: &'static [&'static str], run: fn()) -> Case {
        Case { name, needs, run }
    }

    fn trial(self) -> Trial {
        let missing = tools::missing(self.needs);
        let run = self.run;
        if missing.is_empty() {
            return Trial::test(self.name, move || {
                run();
                Ok(())
            });
        }
        let reason = format!("needs {}", missing.join(", "));
        if tools::required() {
            return Trial::test(self.name, move || {
                Err(Failed::from(format!("TOWLINE_REQUIRE_TOOLS=1: {reason}")))
            });
        }
        Trial::test(self.name, || Ok(()))
            .with_kind(reason)
            .with_ignored_flag(true)
    }
}

fn main() {
    let mut arguments = Arguments::from_args();
    // Each case starts servers of its own; two cores carry two of them at a time.
    arguments.test_threads.get_or_insert(2);
    let cases = [
        streaming::CASES,
        recovery::CASES,
        up::CASES,
        faults::CASES,
        pgbench::CASES,
        oracles::CASES,
        psql::CASES,
        login::CASES,
        sessions::CASES,
        refusals::CASES,
        schedules::CASES,
        kills::CASES,
        vacuum::CASES,
        large::CASES,
        compose::CASES,
    ];
    let trials = cases
        .into_iter()
        .flat_map(|group| group())
        .map(Case::trial)
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}
