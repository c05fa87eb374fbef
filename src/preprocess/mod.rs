//! From a frame's pixels to the model's input: regions, orientation, crop, resize, colour order, normalisation.
//!
//! The order is fixed: the frame is oriented, the region cut out of it, fitted to the input's size ([`Fit`]) with Pillow's
//! arithmetic, and each 8-bit value mapped to the tensor through a table. What [`Preprocessor::view`] returns
//! is therefore exactly what the model sees.
//!
//! Which [`Fit`] sees most was measured (`tests/reference/fit_experiment.py`): top-1 in % of the shipped model, 60 test photos pasted
//! into scenes of 1280x720 at 35 to 100 % of their height, 300 scenes a row:
//!
//! | | crop | pad | stretch |
//! |---|---|---|---|
//! | the photo alone, as a tight region gives it | 88 | 85 | 80 |
//! | in a scene, in the middle | 65 | 26 | 38 |
//! | in a scene, anywhere | 57 | 27 | 39 |
//!
//! So crop is the default. It sees the middle 43 % of a 16:9 frame, and the object must still fill
//! about 70 % of the height for it to be right in 3 of 4 scenes: what is smaller or aside needs a region.

mod geometry;
mod resample;
pub mod spec;
mod table;

#[cfg(test)]
mod tests;

pub use geometry::{Rect, area_in_frame, oriented, oriented_size};
pub use spec::{ChannelOrder, Filter, InputSpec, InputTensor, PreprocessSpec, Resize, TensorFormat};

use crate::capture::Rgb;
use crate::config::plan::{Area, Fit, Orientation};
use geometry::Walk;
use resample::{Resampler, View};
use table::Table;

/// The bars of [`Fit::Pad`], and of a model whose resize is smaller than its crop.
const GREY: u8 = 128;

/// Turns frames into one model's input, for one camera.
///
/// Buffers and filter weights are kept from one frame to the next: after the first frame of each size nothing is allocated.
#[derive(Clone, Debug)]
pub struct Preprocessor {
    input: InputSpec,
    fit: Fit,
    orientation: Orientation,
    table: Table,
    resampler: Resampler,
    /// `[height][width][3]`, RGB: what the model sees.
    picture: Vec<u8>,
}

impl Preprocessor {
    /// `input` has at least one pixel. For frames that are oriented by `orientation` and whose regions (or wholes) meet the model's input by `fit`.
    pub fn new(input: &InputSpec, fit: Fit, orientation: Orientation) -> Self {
        Self {
            table: Table::new(input),
            input: input.clone(),
            fit,
            orientation,
            resampler: Resampler::default(),
            picture: Vec::new(),
        }
    }

    /// Fills `out` with `area` (the whole frame when absent) of `rgb`. `area` is in the oriented frame. `out` is made
    /// what the model's [`TensorFormat`] asks for, whatever it was.
    ///
    /// # Errors
    /// The area is not within the frame, or the frame holds no pixels.
    pub fn fill(&mut self, rgb: &Rgb, area: Option<&Area>, out: &mut InputTensor) -> Result<(), PreprocessError> {
        self.see(rgb, area)?;
        self.table.fill(&self.picture, out);
        Ok(())
    }

    /// The picture that [`fill`](Self::fill) makes its tensor from: of the input's size, in RGB, before normalisation.
    ///
    /// # Errors
    /// As [`fill`](Self::fill).
    pub fn view(&mut self, rgb: &Rgb, area: Option<&Area>) -> Result<Rgb, PreprocessError> {
        self.see(rgb, area)?;
        let (width, height) = (self.input.width as u32, self.input.height as u32);
        Ok(Rgb { width, height, data: self.picture.clone() })
    }

    fn see(&mut self, rgb: &Rgb, area: Option<&Area>) -> Result<(), PreprocessError> {
        let (width, height) = (rgb.width, rgb.height);
        if rgb.data.is_empty() || rgb.data.len() as u128 != u128::from(width) * u128::from(height) * 3 {
            return Err(PreprocessError::EmptyFrame { width, height, bytes: rgb.data.len() });
        }
        let (oriented_width, oriented_height) = oriented_size(self.orientation, width, height);
        let rect = area_in_frame(area, oriented_width, oriented_height)?;
        let walk = Walk::new(self.orientation, rect, width, height);
        let (across, down) = geometry::fit(&self.input, self.fit, rect.width, rect.height);
        let (input_width, input_height) = (self.input.width, self.input.height);
        self.picture.resize(input_width * input_height * 3, GREY);
        if across.window.len() < input_width || down.window.len() < input_height {
            self.picture.fill(GREY);
        }
        let view = View { data: &rgb.data, walk, width: rect.width, height: rect.height };
        self.resampler.resize(view, (&across, &down), self.input.preprocess.filter, &mut self.picture, input_width);
        Ok(())
    }
}

/// Why a frame could not become a tensor.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum PreprocessError {
    /// The region is not within the frame.
    #[error(
        "cutting the region {area} out of a frame of {width}x{height}: it reaches outside of the frame; left + width must be \
         at most {width} (or 1.0) and top + height at most {height} (or 1.0), counted after rotation"
    )]
    Outside {
        /// As configured.
        area: String,
        /// Of the oriented frame.
        width: u32,
        /// Of the oriented frame.
        height: u32,
    },
    /// The region is smaller than a pixel.
    #[error(
        "cutting the region {area} out of a frame of {width}x{height}: it holds no pixel; make its width and height larger"
    )]
    EmptyArea {
        /// As configured.
        area: String,
        /// Of the oriented frame.
        width: u32,
        /// Of the oriented frame.
        height: u32,
    },
    /// The frame's bytes are not `width * height * 3`, or none.
    #[error(
        "reading a frame of {width}x{height} in RGB: it has {bytes} bytes, which is not width * height * 3 or is nothing"
    )]
    EmptyFrame {
        /// Of the frame.
        width: u32,
        /// Of the frame.
        height: u32,
        /// The data's length.
        bytes: usize,
    },
}
