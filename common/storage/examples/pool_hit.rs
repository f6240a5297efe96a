//! Measures what it costs to pin and read a page that is in the pool: `cargo run --release --example pool_hit [threads] [pages] [rounds]`.

use std::sync::Arc;
use std::time::Instant;

use towline_base::{ForkKind, Lsn, LsnWatch, OsVfs, PageId};
use towline_storage::smgr::relation;
use towline_storage::{BufferPool, Smgr};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>());
    let threads = args.next().transpose()?.unwrap_or(1);
    let pages = args.next().transpose()?.unwrap_or(8192);
    let rounds = args.next().transpose()?.unwrap_or(20_000_000);
    let dir = tempfile::tempdir()?;
    let smgr = Arc::new(Smgr::new(Arc::new(OsVfs), dir.path(), 100));
    smgr.create_directories()?;
    let rel = relation(16384);
    smgr.create(rel, ForkKind::Main)?;
    smgr.extend(rel, ForkKind::Main, pages as u32)?;
    let (_publisher, quorum) = LsnWatch::new(Lsn::MAX);
    let pool = BufferPool::new(16_384, smgr, quorum, true);
    for block in 0..pages as u32 {
        pool.pin(PageId::main(rel, block))?;
    }
    for (name, latch) in [
        ("pin and unpin", false),
        ("pin, latch, look, unlatch, unpin", true),
    ] {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let pool = &pool;
                scope.spawn(move || run(pool, thread, (pages, rounds), latch));
            }
        });
        let nanos = start.elapsed().as_nanos() as f64 / rounds as f64;
        println!("{name}: {nanos:.1} ns each, {threads} threads, {pages} pages");
    }
    Ok(())
}

fn run(pool: &BufferPool, thread: u64, (pages, rounds): (u64, u64), latch: bool) {
    let rel = relation(16384);
    let mut state = thread.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut seen = 0usize;
    for _ in 0..rounds {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let block = ((u128::from(state) * u128::from(pages)) >> 64) as u32;
        let Ok(pin) = pool.pin(PageId::main(rel, block)) else {
            return;
        };
        if latch {
            seen += pin.read().lower();
        }
    }
    std::hint::black_box(seen);
}
