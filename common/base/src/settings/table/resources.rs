//! Memory, files, and the background writer.

super::settings_table! {
    begins at super::connections::END;

    shared_buffers: i64 = "128MB", Int { min: 16, max: 1073741823 }, Blocks, Postmaster,
        "Resource Usage / Memory",
        "Size of the buffer pool.";
    work_mem: i64 = "4MB", Int { min: 64, max: 2147483647 }, Kilobytes, User,
        "Resource Usage / Memory",
        "Memory that one sort or hash may use.";
    hash_mem_multiplier: f64 = "2", Real { min: 1.0, max: 1000.0 }, Plain, User,
        "Resource Usage / Memory",
        "How much more than work_mem a hash may use.";
    maintenance_work_mem: i64 = "64MB", Int { min: 1024, max: 2147483647 }, Kilobytes, User,
        "Resource Usage / Memory",
        "Memory that an index build or a vacuum may use.";
    autovacuum_work_mem: i64 = "-1", Int { min: -1, max: 2147483647 }, Kilobytes, Sighup,
        "Resource Usage / Memory",
        "Memory of an autovacuum worker; -1 takes maintenance_work_mem.";
    temp_buffers: i64 = "8MB", Int { min: 100, max: 1073741823 }, Blocks, User,
        "Resource Usage / Memory",
        "Buffers for temporary tables of a session.";
    max_stack_depth: i64 = "2MB", Int { min: 100, max: 2147483647 }, Kilobytes, Superuser,
        "Resource Usage / Memory",
        "How deep a statement may nest, as stack.";
    huge_pages: &'static str = "off", Enum(&["off", "on", "try"]), Plain, Postmaster,
        "Resource Usage / Memory",
        "Whether huge pages hold the buffer pool.";
    max_files_per_process: i64 = "1000", Int { min: 64, max: 2147483647 }, Plain, Postmaster,
        "Resource Usage / Memory",
        "Most relation files kept open.";
    effective_io_concurrency: i64 = "1", Int { min: 0, max: 1000 }, Plain, User,
        "Resource Usage / Memory",
        "Reads that the disk serves well at a time.";
    maintenance_io_concurrency: i64 = "10", Int { min: 0, max: 1000 }, Plain, User,
        "Resource Usage / Memory",
        "The same for maintenance work.";
    max_worker_processes: i64 = "8", Int { min: 0, max: 262143 }, Plain, Postmaster,
        "Resource Usage / Memory",
        "Most background workers; kept for clients that ask.";
    max_parallel_workers: i64 = "8", Int { min: 0, max: 1024 }, Plain, User,
        "Resource Usage / Memory",
        "Most parallel workers; kept for clients that ask.";
    max_parallel_workers_per_gather: i64 = "2", Int { min: 0, max: 1024 }, Plain, User,
        "Resource Usage / Memory",
        "Most parallel workers of a plan node; kept for clients that ask.";
    bgwriter_delay: i64 = "200ms", Int { min: 10, max: 10000 }, Millis, Sighup,
        "Resource Usage / Background Writer",
        "Pause of the background writer between rounds.";
    bgwriter_lru_maxpages: i64 = "100", Int { min: 0, max: 1073741823 }, Plain, Sighup,
        "Resource Usage / Background Writer",
        "Most pages that the background writer writes per round.";
    bgwriter_lru_multiplier: f64 = "2", Real { min: 0.0, max: 10.0 }, Plain, Sighup,
        "Resource Usage / Background Writer",
        "Pages cleaned ahead, as a multiple of the recent need.";
    bgwriter_flush_after: i64 = "512kB", Int { min: 0, max: 256 }, Blocks, Sighup,
        "Resource Usage / Background Writer",
        "Pages after which the background writer asks the system to write back.";
    backend_flush_after: i64 = "0", Int { min: 0, max: 256 }, Blocks, User,
        "Resource Usage / Background Writer",
        "Pages after which a session asks the system to write back.";
}
