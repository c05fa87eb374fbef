//! Which cores do the work where they are not alike (big.LITTLE: RK3588, Jetson Orin's siblings, phones' chips).
//!
//! The kernel gives each core's capacity, 1024 for the fastest (Linux, Documentation/devicetree/bindings/cpu/cpu-capacity.txt; arm64
//! has `/sys/devices/system/cpu/cpuN/cpu_capacity`). A loop's end waits for its slowest thread, so a core of less than half the
//! largest capacity costs more than it gives. Where the file is missing, as on x86-64, all cores are alike.

use std::path::Path;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where the system describes its cores.
const SYSFS: &str = "/sys/devices/system/cpu";

/// Capacities are shares of this.
const FULL: u32 = 1024;

/// The number of threads that suits this process: one for each core that it may run on and that has at least half the largest
/// capacity; 1 at least.
pub fn suitable_threads() -> usize {
    // A control group's share of the processors counts as well, which the affinity does not tell.
    let parallel = std::thread::available_parallelism().map_or(1, usize::from);
    big(&allowed(Path::new(SYSFS))).len().clamp(1, parallel)
}

/// Keeps the calling thread, one of `threads`, to the largest cores that are needed for so many. Does nothing where all cores are
/// alike, or where the system does not allow it.
pub(super) fn keep_to_largest(threads: usize) {
    let Some(cores) = largest(allowed(Path::new(SYSFS)), threads) else { return };
    let mut set = CpuSet::new();
    cores.iter().for_each(|&core| set.set(core));
    if let Err(error) = sched_setaffinity(None, &set) {
        log::debug!("a kernel thread stays on any core: {error}");
    }
}

/// The cores that this thread may run on, and their capacities.
fn allowed(sysfs: &Path) -> Vec<(usize, u32)> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    let cores = (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core));
    cores.map(|core| (core, capacity(sysfs, core))).collect()
}

fn capacity(sysfs: &Path, core: usize) -> u32 {
    let text = std::fs::read_to_string(sysfs.join(format!("cpu{core}/cpu_capacity")));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(FULL)
}

/// Those of at least half the largest capacity.
fn big(cores: &[(usize, u32)]) -> Vec<usize> {
    let most = cores.iter().map(|&(_, capacity)| capacity).max().unwrap_or(FULL);
    cores.iter().filter(|(_, capacity)| capacity * 2 >= most).map(|&(core, _)| core).collect()
}

/// The `count` cores of the largest capacities, and those that equal the last of them; `None` if that is all of them.
fn largest(mut cores: Vec<(usize, u32)>, count: usize) -> Option<Vec<usize>> {
    cores.sort_by_key(|&(_, capacity)| std::cmp::Reverse(capacity));
    let (_, least) = *cores.get(count.max(1) - 1)?;
    let chosen: Vec<usize> = cores.iter().filter(|(_, capacity)| *capacity >= least).map(|&(core, _)| core).collect();
    (chosen.len() < cores.len()).then_some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An RK3588: four Cortex-A55, four Cortex-A76.
    fn rk3588() -> Vec<(usize, u32)> {
        (0..8).map(|core| (core, if core < 4 { 414 } else { 1024 })).collect()
    }

    #[test]
    fn threads_are_for_big_cores() {
        assert_eq!(big(&rk3588()), [4, 5, 6, 7]);
        assert_eq!(big(&[(0, 1024), (1, 1024)]), [0, 1]);
        // Cores of one kind whose clocks differ a little are all big.
        assert_eq!(big(&[(0, 980), (1, 1024), (2, 512)]), [0, 1, 2]);
        assert!(big(&[]).is_empty());
        assert!(suitable_threads() >= 1);
    }

    #[test]
    fn few_threads_stay_on_the_largest_cores() {
        assert_eq!(largest(rk3588(), 2), Some(vec![4, 5, 6, 7]));
        assert_eq!(largest(rk3588(), 4), Some(vec![4, 5, 6, 7]));
        // Whoever asks for more threads than there are big cores gets all of them.
        assert_eq!(largest(rk3588(), 5), None);
        assert_eq!(largest(rk3588(), 9), None);
        assert_eq!(largest(vec![(0, 1024), (1, 1024)], 1), None);
        // A prime core, three big ones, four small ones.
        let three = (0..8).map(|core| (core, [300, 300, 300, 300, 800, 800, 800, 1024][core])).collect();
        assert_eq!(largest(three, 1), Some(vec![7]));
    }

    #[test]
    fn capacities_come_from_sysfs() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("cpu3")).unwrap();
        std::fs::write(folder.path().join("cpu3/cpu_capacity"), "446\n").unwrap();
        assert_eq!(capacity(folder.path(), 3), 446);
        assert_eq!(capacity(folder.path(), 4), FULL);
        assert!(allowed(folder.path()).iter().all(|&(core, capacity)| capacity == if core == 3 { 446 } else { FULL }));
    }

    /// In a thread of its own: what it may run on afterwards is its own affair.
    #[test]
    fn a_thread_keeps_to_a_core() {
        std::thread::spawn(|| {
            let before = allowed(Path::new("/nowhere"));
            let (core, _) = before[before.len() - 1];
            let mut set = CpuSet::new();
            set.set(core);
            sched_setaffinity(None, &set).unwrap();
            assert_eq!(allowed(Path::new("/nowhere")), [(core, FULL)]);
            // One core is all that there is: nothing to choose.
            keep_to_largest(1);
            assert_eq!(allowed(Path::new("/nowhere")), [(core, FULL)]);
        })
        .join()
        .unwrap();
    }
}
