//! Which algorithm computes which convolution: one table of defaults by CPU and shape, and what a user prefers to it.
//!
//! The bytes are the same whatever is chosen.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{ConvSpec, Kernel, KernelError};

/// What the table looks at in a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// One or two inputs an output, each group an output of its own.
    Depthwise,
    /// 3x3 of stride 1, with at least 32 inputs and outputs.
    Square,
    /// 3x3 of stride 1, with fewer.
    NarrowSquare,
    /// Anything else: other kernels and strides, dilation, groups.
    Other,
}

/// An algorithm, apart from the instructions that it is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `generic`, in plain code.
    Plain,
    /// A kernel for depthwise convolutions.
    Depthwise,
    /// Every product is computed (implicit GEMM).
    Direct,
    /// A quarter of the products, where the layer's sums are recovered exactly, else directly.
    Winograd,
}

/// How a convolution is computed, where there is a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// By the table.
    #[default]
    Auto,
    /// As `Auto`, but no layer's packed weights may take a multiple of the weights' own size.
    Compact,
    /// Every product is computed.
    Direct,
    /// Winograd's algorithm wherever it is exact and written for the kernel, else directly.
    Winograd,
}

/// Fewer inputs or outputs than this, and on x86-64 the transforms cost more than the multiplications they save.
const WIDE: usize = 32;

/// The defaults: a row a kernel, a column a [`Kind`]. On a core with two `sdot` a cycle Winograd cannot win (docs/kernels.md has the figures).
const DEFAULTS: [(Kernel, [Method; 4]); 6] = [
    //                 depthwise          3x3               3x3-narrow        other
    (Kernel::Generic, [Method::Plain, Method::Plain, Method::Plain, Method::Plain]),
    (Kernel::Neon, [Method::Depthwise, Method::Winograd, Method::Winograd, Method::Direct]),
    (Kernel::DotProd, [Method::Depthwise, Method::Direct, Method::Direct, Method::Direct]),
    (Kernel::I8mm, [Method::Depthwise, Method::Direct, Method::Direct, Method::Direct]),
    (Kernel::Avx2, [Method::Depthwise, Method::Winograd, Method::Direct, Method::Direct]),
    (Kernel::Vnni, [Method::Depthwise, Method::Winograd, Method::Direct, Method::Direct]),
];

impl Kind {
    /// All of them, in the order of the table's columns.
    pub const ALL: [Self; 4] = [Self::Depthwise, Self::Square, Self::NarrowSquare, Self::Other];

    /// The kind of a convolution.
    pub fn of(spec: &ConvSpec) -> Self {
        let ConvSpec { in_channels, out_channels, groups, .. } = *spec;
        let square = spec.kernel == [3; 2] && spec.stride == [1; 2] && spec.dilation == [1; 2] && groups == 1;
        match square {
            true if in_channels.min(out_channels) >= WIDE => Self::Square,
            true => Self::NarrowSquare,
            false if groups > 1 && out_channels == groups && in_channels <= 2 * groups && !spec.pool => Self::Depthwise,
            false => Self::Other,
        }
    }

    /// Its name, as a [`Preference`] has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Depthwise => "depthwise",
            Self::Square => "3x3",
            Self::NarrowSquare => "3x3-narrow",
            Self::Other => "other",
        }
    }
}

impl Method {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "generic",
            Self::Depthwise => "depthwise",
            Self::Direct => "direct",
            Self::Winograd => "winograd",
        }
    }

    /// The method for convolutions of a kind: what the table says, but for the strategy's wishes.
    pub fn of(kernel: Kernel, strategy: Strategy, kind: Kind) -> Self {
        let row = DEFAULTS.iter().find(|row| row.0 == kernel).map_or([Self::Plain; 4], |row| row.1);
        let default = row[kind as usize];
        // Arm's Winograd keeps its transformed weights; x86-64's makes large ones anew in each inference, so it is compact as it is.
        let large = kernel == Kernel::Neon;
        let square = matches!(kind, Kind::Square | Kind::NarrowSquare);
        match strategy {
            Strategy::Direct if default == Self::Winograd => Self::Direct,
            Strategy::Compact if default == Self::Winograd && large => Self::Direct,
            Strategy::Winograd if square => row[Kind::Square as usize],
            _ => default,
        }
    }
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Compact, Self::Direct, Self::Winograd];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Compact => "compact",
            Self::Direct => "direct",
            Self::Winograd => "winograd",
        }
    }
}

impl FromStr for Strategy {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        Self::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| KernelError::UnknownStrategy(name.to_owned()))
    }
}

/// What a user prefers for some convolutions, written `LAYER=STRATEGY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preference {
    /// A layer's name, or a [`Kind`]'s.
    pub layer: String,
    /// How it is computed.
    pub strategy: Strategy,
}

impl FromStr for Preference {
    type Err = KernelError;

    fn from_str(text: &str) -> Result<Self, KernelError> {
        match text.rsplit_once('=') {
            Some((layer, strategy)) if !layer.is_empty() => {
                Ok(Self { layer: layer.into(), strategy: strategy.parse()? })
            }
            _ => Err(KernelError::Preference(text.into())),
        }
    }
}

impl fmt::Display for Preference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.layer, self.strategy.name())
    }
}

/// How a model's convolutions are computed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Where no preference says otherwise.
    pub strategy: Strategy,
    /// A layer's own goes before its kind's; among equals the last one counts.
    pub preferences: Vec<Preference>,
}

impl Choice {
    /// The strategy for one layer.
    pub fn strategy_of(&self, layer: &str, spec: &ConvSpec) -> Strategy {
        let of = |name: &str| self.preferences.iter().rev().find(|p| p.layer == name);
        of(layer).or_else(|| of(Kind::of(spec).name())).map_or(self.strategy, |p| p.strategy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(channels: usize, kernel: usize, stride: usize, groups: usize) -> ConvSpec {
        ConvSpec {
            in_channels: channels,
            out_channels: channels,
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1; 2],
            padding: [1; 4],
            groups,
            input_zero_point: 0,
            pool: false,
        }
    }

    #[test]
    fn every_kernel_has_a_row_and_every_shape_a_kind() {
        assert!(Kernel::ALL.iter().all(|kernel| DEFAULTS.iter().filter(|row| row.0 == *kernel).count() == 1));
        assert_eq!(Kind::of(&spec(64, 3, 1, 64)), Kind::Depthwise);
        assert_eq!(Kind::of(&spec(64, 3, 1, 1)), Kind::Square);
        assert_eq!(Kind::of(&spec(16, 3, 1, 1)), Kind::NarrowSquare);
        for other in [spec(64, 3, 2, 1), spec(64, 1, 1, 1), spec(64, 3, 1, 2)] {
            assert_eq!(Kind::of(&other), Kind::Other);
        }
    }

    #[test]
    fn strategies_change_only_what_they_are_about() {
        let of = |kernel, strategy| Kind::ALL.map(|kind| Method::of(kernel, strategy, kind));
        use Method::{Depthwise, Direct, Plain, Winograd};
        assert_eq!(of(Kernel::Vnni, Strategy::Auto), [Depthwise, Winograd, Direct, Direct]);
        assert_eq!(of(Kernel::Vnni, Strategy::Compact), of(Kernel::Vnni, Strategy::Auto));
        assert_eq!(of(Kernel::Neon, Strategy::Compact), [Depthwise, Direct, Direct, Direct]);
        assert_eq!(of(Kernel::Vnni, Strategy::Winograd), [Depthwise, Winograd, Winograd, Direct]);
        assert_eq!(of(Kernel::Avx2, Strategy::Direct), [Depthwise, Direct, Direct, Direct]);
        assert_eq!(of(Kernel::DotProd, Strategy::Winograd), [Depthwise, Direct, Direct, Direct]);
        assert_eq!(of(Kernel::Generic, Strategy::Winograd), [Plain; 4]);
    }

    #[test]
    fn a_layer_goes_before_its_kind_and_the_last_word_counts() {
        let preferences = ["3x3=direct", "a=b=winograd", "other=winograd", "other=auto"].map(|p| p.parse().unwrap());
        let choice = Choice { strategy: Strategy::Compact, preferences: preferences.into() };
        assert_eq!(choice.strategy_of("conv", &spec(64, 3, 1, 1)), Strategy::Direct);
        assert_eq!(choice.strategy_of("a=b", &spec(64, 3, 1, 1)), Strategy::Winograd);
        assert_eq!(choice.strategy_of("conv", &spec(64, 1, 1, 1)), Strategy::Auto);
        assert_eq!(choice.strategy_of("conv", &spec(8, 3, 1, 1)), Strategy::Compact);
        assert_eq!(choice.preferences[1].to_string(), "a=b=winograd");
        for wrong in ["conv", "=direct", "conv=fast", ""] {
            assert!(wrong.parse::<Preference>().is_err(), "{wrong}");
        }
    }
}
