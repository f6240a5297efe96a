//! What the system knows of processes.

/// CPU seconds of a process, of its children, and of those that it has waited for.
pub fn cpu_seconds(pid: u32) -> f64 {
    let mut total = ticks(pid).map_or(0.0, |(_, seconds)| seconds);
    for child in children(pid) {
        total += ticks(child).map_or(0.0, |(_, seconds)| seconds);
    }
    total
}

/// The processes that this one has started, and that are there.
pub fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        if ticks(child).is_some_and(|(parent, _)| parent == pid) {
            found.push(child);
        }
    }
    found
}

/// The parent, and the CPU seconds.
fn ticks(pid: u32) -> Option<(u32, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    // utime, stime, cutime, cstime are the fields 14 to 17 of the line, in ticks of 10 ms.
    let sum = fields
        .get(11..15)?
        .iter()
        .filter_map(|f| f.parse::<f64>().ok())
        .sum::<f64>();
    Some((parent, sum / 100.0))
}
