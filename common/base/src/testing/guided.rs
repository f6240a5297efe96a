//! [`Guided`]: a fuzzer whose cases come from somebody else, byte strings that are chosen by what they reach.
//!
//! A fuzzer is a plain function that sets up what it needs and calls [`super::fuzz`]. Here it runs on a thread of its own, where that call
//! takes one input after the other instead of seeds; so the setting up is done once.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;

thread_local! {
    static INPUTS: RefCell<Option<Inputs>> = const { RefCell::new(None) };
}

/// The fuzzer's ends of the two channels.
struct Inputs {
    next: Receiver<Vec<u8>>,
    done: SyncSender<()>,
}

/// A fuzzer that waits for its next input.
#[derive(Debug)]
pub struct Guided {
    ends: Mutex<(SyncSender<Vec<u8>>, Receiver<()>)>,
}

impl Guided {
    /// Starts the fuzzer on a thread. It ends when this value is dropped.
    pub fn start(fuzzer: fn()) -> Guided {
        let (inputs, next) = sync_channel(1);
        let (done, ended) = sync_channel(1);
        std::thread::spawn(move || {
            INPUTS.set(Some(Inputs { next, done }));
            fuzzer();
        });
        Guided {
            ends: Mutex::new((inputs, ended)),
        }
    }

    /// Runs the case of this input to its end.
    ///
    /// # Panics
    /// When the fuzzer has found something, now or before: it has said what.
    pub fn run(&self, input: &[u8]) {
        let ends = self.ends.lock();
        let sent = ends.0.send(input.to_vec()).is_ok();
        assert!(sent && ends.1.recv().is_ok(), "the fuzzer has failed");
    }
}

/// Runs a case for each input, where this thread is that of a [`Guided`]; false where it is not.
pub(super) fn serve(mut case: impl FnMut(&[u8])) -> bool {
    let Some(inputs) = INPUTS.take() else {
        return false;
    };
    while let Ok(input) = inputs.next.recv() {
        case(&input);
        if inputs.done.send(()).is_err() {
            break;
        }
    }
    true
}
