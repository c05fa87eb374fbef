//! How hot the board is, and whether it slows itself down: `/sys/class/thermal`, and the Raspberry Pi firmware's flags.

use std::path::Path;

/// The board's thermal state.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Thermal {
    /// The hottest zone in degrees Celsius; `None` where the kernel knows none.
    pub celsius: Option<f64>,
    /// The processor runs slower than it could, by heat or by a weak supply; `None` where nobody knows.
    pub throttled: Option<bool>,
}

/// Reads the state under `sys` (`/sys`).
pub fn read(sys: &Path) -> Thermal {
    let class = sys.join("class/thermal");
    let entries = || std::fs::read_dir(&class).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = |path: &Path, start: &str| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(start));
    let number = |path: &Path, file: &str| std::fs::read_to_string(path.join(file)).ok()?.trim().parse::<i64>().ok();
    let zones = entries().filter(|path| named(path, "thermal_zone")).filter_map(|path| number(&path, "temp"));
    let is_cpu = |path: &Path| {
        std::fs::read_to_string(path.join("type")).is_ok_and(|kind| kind.contains("cpu") || kind.contains("Processor"))
    };
    let coolers = entries().filter(|path| named(path, "cooling_device") && is_cpu(path));
    let cooled = coolers.filter_map(|path| number(&path, "cur_state")).map(|state| state > 0).reduce(|a, b| a || b);
    Thermal { celsius: zones.max().map(|milli| milli as f64 / 1000.0), throttled: firmware(sys).or(cooled) }
}

/// Bits 0 to 3 of the firmware's word: under-voltage, frequency capped, throttled, soft temperature limit
/// (<https://www.raspberrypi.com/documentation/computers/os.html#get_throttled>).
fn firmware(sys: &Path) -> Option<bool> {
    let word = std::fs::read_to_string(sys.join("devices/platform/soc/soc:firmware/get_throttled")).ok()?;
    let word = u32::from_str_radix(word.trim().trim_start_matches("0x"), 16).ok()?;
    Some(word & 0xf != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_hottest_zone_and_the_flags() {
        let sys = tempfile::tempdir().unwrap();
        assert_eq!(read(sys.path()), Thermal::default());
        let write = |path: &str, text: &str| {
            let path = sys.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("class/thermal/thermal_zone0/temp", "48312\n");
        write("class/thermal/thermal_zone1/temp", "61000\n");
        write("class/thermal/cooling_device0/type", "cpufreq-cpu0\n");
        write("class/thermal/cooling_device0/cur_state", "1\n");
        assert_eq!(read(sys.path()), Thermal { celsius: Some(61.0), throttled: Some(true) });
        for (word, throttled) in [("50000\n", false), ("0x50005\n", true)] {
            write("devices/platform/soc/soc:firmware/get_throttled", word);
            assert_eq!(read(sys.path()).throttled, Some(throttled), "{word}");
        }
    }
}
