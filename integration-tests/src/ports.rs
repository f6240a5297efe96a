//! Hands out loopback ports. No two calls of one process get the same port, and none lies in the kernel's range of
//! ephemeral ports (32768 and up), from which an outgoing connection might take it before its server listens.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::Mutex;

/// Single ports are taken from here.
const SINGLE: Range<u16> = 10_000..20_000;
/// Blocks of SQL ports are taken from here; the gRPC ports of `towline up` lie [`GRPC_OFFSET`] above.
const BLOCKS: Range<u16> = 20_000..22_000;
/// How far `towline up` puts gRPC above SQL.
const GRPC_OFFSET: u16 = 2_000;
/// SQL ports of a block.
const BLOCK: u16 = 4;

/// A cyclic walk over a range, which starts at a place that depends on the process, so that two test runs on one
/// machine seldom meet.
struct Walk {
    range: Range<u16>,
    step: u16,
    next: Option<u16>,
}

impl Walk {
    const fn new(range: Range<u16>, step: u16) -> Self {
        Self {
            range,
            step,
            next: None,
        }
    }

    fn take(&mut self, free: impl Fn(u16) -> bool) -> u16 {
        let steps = self.range.len() as u32 / u32::from(self.step);
        for _ in 0..steps {
            let index = match self.next {
                Some(next) => u32::from(next),
                None => std::process::id().wrapping_mul(61) % steps,
            };
            self.next = Some(((index + 1) % steps) as u16);
            let port = self.range.start + index as u16 * self.step;
            if free(port) {
                return port;
            }
        }
        panic!("no free port in {:?}", self.range);
    }
}

static SINGLES: Mutex<Walk> = Mutex::new(Walk::new(SINGLE, 1));
static BLOCK_WALK: Mutex<Walk> = Mutex::new(Walk::new(BLOCKS, BLOCK));

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// A free loopback port that no other call of this process has got.
pub fn free_port() -> u16 {
    SINGLES.lock().unwrap().take(is_free)
}

/// The first of four consecutive free ports, whose gRPC ports are free as well; no two calls of this process share any.
pub fn free_block() -> u16 {
    BLOCK_WALK
        .lock()
        .unwrap()
        .take(|base| (base..base + BLOCK).all(|port| is_free(port) && is_free(port + GRPC_OFFSET)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two tests of one run once got the same block, and the second `up` found its port taken.
    #[test]
    fn no_two_calls_share_a_port() {
        let blocks: Vec<u16> = (0..20).map(|_| free_block()).collect();
        let singles: Vec<u16> = (0..200).map(|_| free_port()).collect();
        for ports in [blocks, singles] {
            let distinct: std::collections::HashSet<_> = ports.iter().collect();
            assert_eq!(distinct.len(), ports.len(), "{ports:?}");
        }
    }
}
