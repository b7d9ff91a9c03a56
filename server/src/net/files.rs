//! Open files: a connection is one, and without one left nothing else of the process works either.

/// How many connections there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// That are served.
    pub connections: usize,
    /// Beside them, that are only told whether the process lives.
    pub probes: usize,
}

impl Room {
    /// Room for at most so many connections in this process, as it is now.
    pub fn of(connections: usize) -> Self {
        limit_and_open().map_or(Room { connections, probes: PROBES }, |(limit, open)| {
            Room::within(connections, limit, open)
        })
    }

    /// Some files are left for stores, logs, models and operators.
    fn within(connections: usize, limit: usize, open: usize) -> Self {
        let left = limit.saturating_sub(open);
        let (probes, spare) = ((left / 8).clamp(1, PROBES), (left / 4).clamp(8, SPARE));
        Room { connections: connections.min(left.saturating_sub(probes + spare).max(1)), probes }
    }
}

const PROBES: usize = 32;
const SPARE: usize = 128;

/// How many files this process may have open, and how many are.
fn limit_and_open() -> Option<(usize, usize)> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, getrlimit};
        let limit = usize::try_from(getrlimit(Resource::Nofile).current?).ok()?;
        Some((limit, std::fs::read_dir("/proc/self/fd").map_or(16, Iterator::count)))
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Lets this process have as many files and sockets open as its system allows, where it may choose; often a soft limit
/// of 1,024 stands before that.
pub fn raise_open_files() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// How much memory peers may have the server hold, if `wanted` is not more than there is: a quarter of what the process may still
/// map, and of what its container may have.
pub fn affordable(wanted: usize) -> usize {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, getrlimit};
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let mapped = read("/proc/self/statm").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let room = getrlimit(Resource::As).current.map(|all| all.saturating_sub(mapped.unwrap_or(0) * 4096));
        let container = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse::<u64>().ok());
        let least = room.into_iter().chain(container).min().map_or(wanted as u64, |least| least / 4);
        wanted.min(usize::try_from(least).unwrap_or(usize::MAX))
    }
    #[cfg(not(target_os = "linux"))]
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_stay_below_the_limit_of_open_files() {
        for limit in 1..5000 {
            let Room { connections, probes } = Room::within(usize::MAX, limit, 14);
            assert!(connections >= 1 && probes >= 1);
            // Six files at least are left, where there are as many.
            assert!(
                limit < 40 || connections + probes + 14 + 6 <= limit,
                "{limit}: {connections} and {probes}"
            );
        }
        assert_eq!(Room::within(4096, 1 << 20, 14), Room { connections: 4096, probes: PROBES });
        assert_eq!(Room::within(4096, 64, 14), Room { connections: 32, probes: 6 });
    }
}
