//! Which instruction set the kernels use.

use super::KernelError;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::OnceLock};

/// The environment variable that forces a kernel: one of the names of [`Kernel`].
const OVERRIDE: &str = "SPOTTER_KERNEL";
/// The environment variable that hides instruction sets: names of [`Kernel`] with commas between them, as if this CPU had them not. For tests.
const MASK: &str = "SPOTTER_CPU_MASK";

/// An instruction set that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kernel {
    /// Plain scalar Rust: slow, and the definition of what is right.
    Generic,
    /// aarch64's baseline (Cortex-A53, A57, A72).
    Neon,
    /// ARMv8.2 dot product, `sdot` (Cortex-A55, A76, Carmel).
    DotProd,
    /// ARMv8.6 8-bit matrix multiplication, `smmla` (Neoverse V1, Cortex-A78C and newer).
    I8mm,
    /// x86-64 with AVX2, `vpmaddwd`.
    Avx2,
    /// x86-64 with AVX-512 VNNI, `vpdpbusd` and `vpdpwssd` on 512 bits.
    Vnni,
}

impl Kernel {
    /// Every kernel, the slowest first.
    pub const ALL: [Self; 6] = [Self::Generic, Self::Neon, Self::Avx2, Self::DotProd, Self::I8mm, Self::Vnni];

    /// The kernel for this process, chosen once: `SPOTTER_KERNEL` where it names one that runs here, else the fastest available.
    ///
    /// A name that is unknown or does not run here is reported once through `log` and otherwise ignored.
    pub fn best() -> Self {
        static BEST: OnceLock<Kernel> = OnceLock::new();
        *BEST.get_or_init(|| {
            let fastest = Self::ALL.into_iter().rev().find(|k| k.is_available()).unwrap_or(Self::Generic);
            let Ok(name) = std::env::var(OVERRIDE) else { return fastest };
            match name.parse::<Self>().and_then(Self::check) {
                Ok(kernel) => kernel,
                Err(error) => {
                    log::warn!("{OVERRIDE}={name} is ignored, `{fastest}` is used: {error}");
                    fastest
                }
            }
        })
    }

    /// The kernels that run on this CPU, the slowest first.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|k| k.is_available()).collect()
    }

    /// Whether this CPU has the instructions and `SPOTTER_CPU_MASK` does not hide them.
    pub fn is_available(self) -> bool {
        static MASKED: OnceLock<Vec<Kernel>> = OnceLock::new();
        let masked = MASKED.get_or_init(|| masked(&std::env::var(MASK).unwrap_or_default()));
        self.is_detected() && !masked.contains(&self)
    }

    /// Asks the CPU or the kernel's auxiliary vector, not `/proc/cpuinfo`, which a sandbox may hide.
    fn is_detected(self) -> bool {
        match self {
            Self::Generic => true,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Self::DotProd => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "aarch64")]
            Self::I8mm => {
                std::arch::is_aarch64_feature_detected!("i8mm") && std::arch::is_aarch64_feature_detected!("dotprod")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => {
                std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vnni")
                    && Self::Avx2.is_detected()
            }
            _ => false,
        }
    }

    /// Itself where it is available, else the error that says what is.
    pub(crate) fn check(self) -> Result<Self, KernelError> {
        if self.is_available() {
            return Ok(self);
        }
        let names: Vec<String> = Self::available().iter().map(Self::to_string).collect();
        Err(KernelError::Unavailable(self, names.join(", ")))
    }
}

/// The kernels that a mask names. `generic` needs no instruction set and stays.
fn masked(mask: &str) -> Vec<Kernel> {
    let names = mask.split(',').map(str::trim).filter(|name| !name.is_empty());
    let kernels = names.filter_map(|name| match name.parse() {
        Ok(Kernel::Generic) => None,
        Ok(kernel) => Some(kernel),
        Err(error) => {
            log::warn!("{MASK}: {error}");
            None
        }
    });
    kernels.collect()
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Generic => "generic",
            Self::Neon => "neon",
            Self::DotProd => "dotprod",
            Self::I8mm => "i8mm",
            Self::Avx2 => "avx2",
            Self::Vnni => "vnni",
        })
    }
}

impl FromStr for Kernel {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        Self::ALL.into_iter().find(|k| k.to_string() == name).ok_or_else(|| KernelError::Unknown(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for kernel in Kernel::ALL {
            assert_eq!(kernel.to_string().parse(), Ok(kernel));
        }
        assert_eq!("sse9".parse::<Kernel>(), Err(KernelError::Unknown("sse9".into())));
    }

    #[test]
    fn a_mask_hides_what_it_names() {
        assert_eq!(masked(""), []);
        assert_eq!(masked("vnni, avx2,"), [Kernel::Vnni, Kernel::Avx2]);
        assert_eq!(masked("generic,sse9,i8mm"), [Kernel::I8mm]);
    }

    #[test]
    fn generic_is_always_there_and_a_foreign_kernel_says_what_is() {
        assert!(Kernel::available().contains(&Kernel::Generic));
        let foreign = if cfg!(target_arch = "aarch64") { Kernel::Avx2 } else { Kernel::Neon };
        let text = foreign.check().unwrap_err().to_string();
        assert!(text.contains("generic") && text.contains(&foreign.to_string()), "{text}");
    }
}
