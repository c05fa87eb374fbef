//! What a manifest says of a model's preprocessing, and the tensor that its first layer takes.

/// How RGB pixels become the numbers that a network was trained on.
#[derive(Clone, Debug, PartialEq)]
pub struct PreprocessSpec {
    /// How the region becomes `crop`-sized.
    pub resize: Resize,
    /// The interpolation of the resize.
    pub filter: Filter,
    /// The channels' order in the tensor.
    pub order: ChannelOrder,
    /// `value = (pixel * scale - mean[c]) / std[c]`, with `pixel` in 0..=255 and `c` counted in `order`.
    pub scale: f32,
    /// See `scale`.
    pub mean: [f32; 3],
    /// See `scale`.
    pub std: [f32; 3],
}

/// The geometry of the resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// The shorter side to this many pixels, the longer to `trunc(shorter * long / short)`, then a centre crop of the
    /// input's size at `round((side - crop) / 2)` (torchvision; Python's rounding, half to even).
    ShorterSide(u32),
    /// The whole picture to the input's size, whatever its aspect (Keras).
    Stretch,
}

/// The interpolation of the resize, as Pillow defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Pillow's antialiased triangle filter.
    Bilinear,
    /// Pillow's nearest neighbour.
    Nearest,
}

/// The order of the colour channels in the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelOrder {
    /// Red first (torchvision).
    Rgb,
    /// Blue first (Keras's "caffe" mode).
    Bgr,
}

/// The element type and layout of a model's input, batch 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TensorFormat {
    /// 32-bit floats, `[3][height][width]`.
    F32Nchw,
    /// `q = clamp(round_ties_even(value / scale) + zero_point)`, `[height][width][channels]` with `channels` 3, or 4 with
    /// the fourth always `zero_point` (a convolution kernel then reads a pixel in one load).
    U8Nhwc {
        /// The quantisation step.
        scale: f32,
        /// The code of the value 0.
        zero_point: u8,
        /// 3 or 4.
        channels: usize,
    },
}

/// The input of a model: what it takes, and how pixels get there.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSpec {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Layout and element type.
    pub format: TensorFormat,
    /// From pixels to values.
    pub preprocess: PreprocessSpec,
}

/// A filled input, in the layout of its [`TensorFormat`].
#[derive(Clone, Debug, PartialEq)]
pub enum InputTensor {
    /// For [`TensorFormat::F32Nchw`].
    F32(Vec<f32>),
    /// For [`TensorFormat::U8Nhwc`].
    U8(Vec<u8>),
}
