//! The planner.

super::settings_table! {
    begins at super::replication::END;

    enable_bitmapscan: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses bitmap scans.";
    enable_hashagg: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses hashed aggregation.";
    enable_hashjoin: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses hash joins.";
    enable_indexscan: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses index scans.";
    enable_indexonlyscan: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses index-only scans.";
    enable_material: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses materialization.";
    enable_mergejoin: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses merge joins.";
    enable_nestloop: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses nested loops.";
    enable_seqscan: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses sequential scans.";
    enable_sort: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses explicit sorts.";
    enable_tidscan: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses scans by tuple address.";
    enable_gathermerge: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses gather-merge plans.";
    enable_incremental_sort: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses incremental sorts.";
    enable_memoize: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses memoization.";
    enable_parallel_append: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses parallel append plans.";
    enable_parallel_hash: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses parallel hash plans.";
    enable_partition_pruning: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses partition pruning.";
    enable_async_append: bool = "on", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner uses asynchronous append plans.";
    enable_partitionwise_join: bool = "off", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner joins partition by partition.";
    enable_partitionwise_aggregate: bool = "off", Bool, Plain, User,
        "Query Tuning / Planner Method Configuration",
        "Whether the planner aggregates partition by partition.";
    seq_page_cost: f64 = "1", Real { min: 0.0, max: f64::MAX }, Plain, User,
        "Query Tuning / Planner Cost Constants",
        "Cost of a page read in sequence.";
    random_page_cost: f64 = "4", Real { min: 0.0, max: f64::MAX }, Plain, User,
        "Query Tuning / Planner Cost Constants",
        "Cost of a page read out of sequence.";
    cpu_tuple_cost: f64 = "0.01", Real { min: 0.0, max: f64::MAX }, Plain, User,
        "Query Tuning / Planner Cost Constants",
        "Cost of handling a row.";
    cpu_index_tuple_cost: f64 = "0.005", Real { min: 0.0, max: f64::MAX }, Plain, User,
        "Query Tuning / Planner Cost Constants",
        "Cost of handling an index entry.";
    cpu_operator_cost: f64 = "0.0025", Real { min: 0.0, max: f64::MAX }, Plain, User,
        "Query Tuning / Planner Cost Constants",
        "Cost of one operator.";
    effective_cache_size: i64 = "4GB", Int { min: 1, max: 2147483647 }, Blocks, User,
        "Query Tuning / Planner Cost Constants",
        "What the planner assumes is cached.";
    jit: bool = "off", Bool, Plain, User,
        "Query Tuning / Planner Cost Constants",
        "Whether expressions are compiled; never.";
    default_statistics_target: i64 = "100", Int { min: 1, max: 10000 }, Plain, User,
        "Query Tuning / Other Planner Options",
        "How fine ANALYZE samples.";
    plan_cache_mode: &'static str = "auto", Enum(&["auto", "force_generic_plan", "force_custom_plan"]), Plain, User,
        "Query Tuning / Other Planner Options",
        "Which kind of plan prepared statements get.";
    from_collapse_limit: i64 = "8", Int { min: 1, max: 2147483647 }, Plain, User,
        "Query Tuning / Other Planner Options",
        "FROM items beyond which subqueries stay apart.";
    join_collapse_limit: i64 = "8", Int { min: 1, max: 2147483647 }, Plain, User,
        "Query Tuning / Other Planner Options",
        "FROM items beyond which explicit joins keep their order.";
    geqo: bool = "on", Bool, Plain, User,
        "Query Tuning / Other Planner Options",
        "Kept for clients that ask.";
    constraint_exclusion: &'static str = "partition", Enum(&["partition", "on", "off"]), Plain, User,
        "Query Tuning / Other Planner Options",
        "Kept for clients that ask.";
}
