//! What an instruction set brings to the [direct](super::direct) method: a register tile of 8 pixels by 8 channels.

use super::finish::Sums;
use crate::kernels::scratch::Plain;

/// A register tile and the order in which it reads its operands.
///
/// Both operands are read strictly forward, 64 bytes an instruction (`ld1` of four registers), so a step of `STEP` inputs costs four loads beside its
/// multiplications. That asks for operands that lie in the tile's own order: weights are brought into it once, at load; pixels are
/// packed into a *panel* of eight, as the panel is made from the image, which costs about 1 % of the multiplications.
pub(super) trait Tile: Send + Sync + 'static {
    /// As [`Conv::algorithm`](crate::kernels::Conv::algorithm) shows it.
    const NAME: &'static str;
    /// An activation as the instruction reads it.
    type Activation: Plain;
    /// A weight as the instruction reads it.
    type Weight: Plain;
    /// Inputs to a step.
    const STEP: usize;
    /// What is subtracted from each activation when it is packed.
    const OFFSET: i32;

    /// Puts the weight of input `input` (below `STEP`) and channel `channel` (below 8) of a step at its place among the step's `8 * STEP`.
    fn place(input: usize, channel: usize) -> usize;

    /// A weight as the instruction reads it.
    fn weight(weight: i8) -> Self::Weight;

    /// Packs `inputs` adjacent inputs (a multiple of `STEP`) of eight pixels, `offset` bytes after the starts of `rows`.
    ///
    /// # Safety
    /// Each of `rows` is readable for `inputs` bytes from `offset` on; `panel` has room for `8 * inputs` activations.
    unsafe fn pack(rows: &[*const u8; 8], offset: usize, inputs: usize, panel: *mut Self::Activation);

    /// Multiplies and sums.
    ///
    /// # Safety
    /// The CPU has the instructions. `steps` is at least 1; `panel` holds `8 * STEP * steps` activations and `weights` as many weights, `bias` 8 values.
    unsafe fn multiply(
        steps: usize,
        panel: *const Self::Activation,
        weights: *const Self::Weight,
        bias: *const i32,
    ) -> Sums;
}
