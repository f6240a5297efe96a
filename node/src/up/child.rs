//! One node's process: started, watched, started again with growing pauses, stopped.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::plan::{Plan, PlannedNode};
use crate::data_dir::{self, Contents};
use crate::process;
use crate::refusal::{Outcome, REFUSED, Refusal};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A process that served this long has earned a short pause again.
const STEADY: Duration = Duration::from_secs(60);
/// Lines of a child's last words that are kept.
const LAST_WORDS: usize = 5;

/// How a child is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// End the sessions and stop.
    Fast,
    /// At once.
    Kill,
}

/// A node's process, present or to come.
pub(crate) struct Child {
    name: String,
    arguments: Vec<OsString>,
    dir: PathBuf,
    primary: bool,
    process: Option<std::process::Child>,
    words: Arc<Mutex<VecDeque<String>>>,
    started: Instant,
    has_served: bool,
    pause: Duration,
    start_at: Instant,
}

impl Child {
    /// The child of a planned node; [`Child::tend`] starts it.
    pub(crate) fn new(plan: &Plan, node: &PlannedNode) -> Self {
        let primary = plan.nodes.first() == Some(node);
        let dir = plan.node_dir(node);
        // Any path is one, whatever bytes and first letter it has.
        let mut data_dir = OsString::from("--data-dir=");
        data_dir.push(&dir);
        let mut arguments: Vec<OsString> = vec![
            if primary { "primary" } else { "standby" }.into(),
            data_dir,
            format!("--sql-listen={}", node.sql).into(),
            format!("--grpc-listen={}", node.grpc).into(),
            format!("--parent={}", std::process::id()).into(),
        ];
        if let (false, Some(upstream)) = (primary, plan.nodes.first()) {
            arguments.push(format!("--upstream=http://{}", upstream.grpc).into());
            arguments.push(format!("--name={}", node.name).into());
        }
        let settings = if primary {
            plan.primary_settings()
        } else {
            plan.settings.clone()
        };
        for set in settings {
            arguments.push(format!("--set={}={}", set.name, set.value).into());
        }
        Self {
            name: node.name.clone(),
            arguments,
            dir,
            primary,
            process: None,
            words: Arc::default(),
            started: Instant::now(),
            has_served: false,
            pause: FIRST_PAUSE,
            start_at: Instant::now(),
        }
    }

    /// Starts the process when it is time, notices its end. The text is for the user; an error ends `up`.
    pub(crate) fn tend(&mut self) -> Outcome<Option<String>> {
        let Some(process) = &mut self.process else {
            if Instant::now() >= self.start_at {
                self.start()?;
            }
            return Ok(None);
        };
        let Ok(Some(status)) = process.try_wait() else {
            return Ok(None);
        };
        self.process = None;
        let said = self.last_words();
        // What a child refuses before it ever served will be refused again.
        if !self.has_served && status.code() == Some(i32::from(REFUSED)) {
            return Err(Refusal::new(
                said.unwrap_or_else(|| format!("{} refused to start.", self.name)),
            ));
        }
        if self.started.elapsed() >= STEADY {
            self.pause = FIRST_PAUSE;
        }
        self.start_at = Instant::now() + self.pause;
        let event = format!(
            "{} ended ({status}); starting it again in {:.1} s.{}",
            self.name,
            self.pause.as_secs_f32(),
            said.map(|said| format!(" It said: {said}")).unwrap_or_default()
        );
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(Some(event))
    }

    fn start(&mut self) -> Outcome {
        let failed = |error: std::io::Error| Refusal::failed(format!("could not start towline: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        // A kill during the first init, or during a removal, is no reason to stop here.
        if self.primary
            && matches!(
                data_dir::look(&self.dir)?,
                Contents::Nothing | Contents::Unfinished
            )
        {
            crate::init::make(&self.dir, &self.name, None, None, towline_base::Xid::FIRST_NORMAL)?;
        }
        let mut command = Command::new(program);
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // A group of its own: the terminal's Ctrl-C goes to us alone.
        command.process_group(0);
        let mut process = command.spawn().map_err(failed)?;
        if let Some(stderr) = process.stderr.take() {
            listen(stderr, Arc::clone(&self.words)).map_err(failed)?;
        }
        self.process = Some(process);
        self.started = Instant::now();
        Ok(())
    }

    /// The node answers.
    pub(crate) fn serves(&mut self) {
        self.has_served = true;
    }

    /// Whether there is a process.
    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Asks the process to end.
    pub(crate) fn stop(&mut self, how: Stopping) {
        if let Some(process) = &mut self.process {
            match how {
                Stopping::Fast => process::send(process.id(), Signal::INT),
                Stopping::Kill => drop(process.kill()),
            }
        }
    }

    /// Whether there is no process any more.
    pub(crate) fn has_ended(&mut self) -> bool {
        match &mut self.process {
            None => true,
            Some(process) => match process.try_wait() {
                Ok(None) => false,
                Ok(Some(_)) | Err(_) => {
                    self.process = None;
                    true
                }
            },
        }
    }

    /// The last line that the process wrote to standard error.
    fn last_words(&self) -> Option<String> {
        self.words
            .lock()
            .ok()
            .and_then(|mut words| words.drain(..).next_back())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Keeps the last lines; all of them are in the node's own log.
fn listen(stderr: ChildStderr, words: Arc<Mutex<VecDeque<String>>>) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("child-stderr".to_owned())
        .spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Ok(mut words) = words.lock() {
                    if words.len() == LAST_WORDS {
                        words.pop_front();
                    }
                    words.push_back(line);
                }
            }
        })?;
    Ok(())
}
