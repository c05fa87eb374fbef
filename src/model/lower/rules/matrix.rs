//! The weights of fully connected layers.

use std::sync::Arc;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::einsum::EinSum;

use super::{Graph, is_codes};
use crate::model::lower::graph::height_width_channels;

/// Weights less their zero point.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::model::lower) enum Weights {
    /// All fit 8 bits.
    Narrow(Vec<i8>),
    /// Some do not.
    Wide(Vec<i16>),
}

/// The weights of an 8-bit fully connected layer as they lie in the graph. They are read when the layer is packed, so that no copy waits for that:
/// VGG16's first have 103 MB.
#[derive(Clone, Debug)]
pub(in crate::model::lower) struct Matrix {
    tensor: Arc<Tensor>,
    shape: MatrixShape,
    /// One an output.
    zero_points: Vec<i32>,
    /// The shape of the tensor that is multiplied, in the graph.
    source: Vec<usize>,
}

impl Matrix {
    /// `None` where the parts do not fit together, or the weights are not 8-bit.
    pub(super) fn new(
        tensor: Arc<Tensor>,
        shape: MatrixShape,
        zero_points: Vec<i32>,
        source: Vec<usize>,
    ) -> Option<Matrix> {
        let sizes = shape.inputs * shape.outputs == tensor.len() && zero_points.len() == shape.outputs;
        let flat = source.iter().product::<usize>() == shape.inputs;
        (sizes && flat && is_codes(tensor.datum_type())).then_some(Matrix { tensor, shape, zero_points, source })
    }

    /// `[out][in]`, less the zero point, in the order of the NHWC input. Millions of them: in 8 bits wherever they fit.
    pub(in crate::model::lower) fn by_output(&self) -> Option<Weights> {
        let tensor = self.tensor.try_as_plain_ram().ok()?;
        match self.tensor.datum_type() {
            DatumType::I8 => self.read(tensor.as_slice::<i8>().ok()?),
            _ => self.read(tensor.as_slice::<u8>().ok()?),
        }
    }

    fn read<T: Copy + Into<i32>>(&self, matrix: &[T]) -> Option<Weights> {
        let narrow = self.gather(matrix, |weight| weight as i8).map(Weights::Narrow);
        narrow.or_else(|| self.gather(matrix, |weight| weight as i16).map(Weights::Wide))
    }

    /// `cut` takes the low bits; `None` where that changes a weight.
    fn gather<T, W>(&self, matrix: &[T], cut: impl Fn(i32) -> W) -> Option<Vec<W>>
    where
        T: Copy + Into<i32>,
        W: Copy + Default + Into<i32>,
    {
        /// Outputs at once: a cache line of a matrix that lies by inputs.
        const BLOCK: usize = 64;
        let MatrixShape { inputs, outputs, by_rows } = self.shape;
        let [height, width, channels] = height_width_channels(&self.source);
        let pixels = height * width;
        let (across, down) = if by_rows { (inputs, 1) } else { (1, outputs) };
        let mut gathered = vec![W::default(); matrix.len()];
        let mut fits = true;
        for (first, rows) in gathered.chunks_mut((inputs * BLOCK).max(1)).enumerate().map(|(i, rows)| (i * BLOCK, rows))
        {
            for to in 0..inputs {
                let from = (to % channels * pixels + to / channels) * down;
                for (output, row) in rows.chunks_exact_mut(inputs.max(1)).enumerate().map(|(o, row)| (first + o, row)) {
                    let weight = matrix[from + output * across].into() - self.zero_points[output];
                    row[to] = cut(weight);
                    fits &= row[to].into() == weight;
                }
            }
        }
        fits.then_some(gathered)
    }
}

/// A vector times a constant matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct MatrixShape {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// The matrix is `[outputs][inputs]`.
    pub(super) by_rows: bool,
}

impl MatrixShape {
    pub(super) fn of(graph: Graph, node: &TypedNode, op: &EinSum) -> Option<MatrixShape> {
        let (_, vector) = graph.tensor(node.inputs[0])?;
        let matrix = graph.constant(node.inputs[1])?;
        let (&[1, inputs], &[rows, columns]) = (vector.as_slice(), matrix.shape()) else { return None };
        // the axis of the result that the matrix provides
        let axis = op.axes.axis((InOut::Out(0), 1)).ok()?;
        let place = *axis.inputs.get(1)?.first()?;
        let by_rows = place == 0;
        let outputs = if by_rows { rows } else { columns };
        (inputs * outputs == matrix.len()).then_some(MatrixShape { inputs, outputs, by_rows })
    }

    pub(super) fn by_output<T: Copy>(&self, matrix: &[T]) -> Vec<T> {
        let MatrixShape { inputs, outputs, by_rows } = *self;
        let place = |i: usize| if by_rows { i } else { i % inputs * outputs + i / inputs };
        (0..matrix.len()).map(|i| matrix[place(i)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two outputs of two channels by three pixels, both ways round in the constant.
    fn matrix(by_rows: bool, weights: [i8; 12], zero_points: [i32; 2]) -> Matrix {
        let tensor = if by_rows {
            Tensor::from_shape(&[2, 6], &weights)
        } else {
            let across: Vec<i8> = (0..12).map(|i| weights[i % 2 * 6 + i / 2]).collect();
            Tensor::from_shape(&[6, 2], &across)
        };
        let shape = MatrixShape { inputs: 6, outputs: 2, by_rows };
        Matrix::new(tensor.unwrap().into(), shape, zero_points.into(), vec![1, 2, 1, 3]).unwrap()
    }

    #[test]
    fn weights_are_by_output_and_channels_last() {
        let weights = [1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, -128];
        for by_rows in [false, true] {
            let narrow = matrix(by_rows, weights, [0, -3]).by_output();
            assert_eq!(narrow, Some(Weights::Narrow(vec![1, 4, 2, 5, 3, 6, 14, 17, 15, 18, 16, -125])));
            let wide = matrix(by_rows, weights, [1, 2]).by_output();
            assert_eq!(wide, Some(Weights::Wide(vec![0, 3, 1, 4, 2, 5, 9, 12, 10, 13, 11, -130])));
        }
    }

    #[test]
    fn what_does_not_fit_together_is_no_matrix() {
        let tensor: Arc<Tensor> = Tensor::from_shape(&[2, 6], &[0i8; 12]).unwrap().into();
        let shape = MatrixShape { inputs: 6, outputs: 2, by_rows: true };
        let new = |shape, zeros: usize, source: &[usize]| {
            Matrix::new(Arc::clone(&tensor), shape, vec![0; zeros], source.into()).is_some()
        };
        assert!(new(shape, 2, &[1, 6]));
        assert!(!new(shape, 1, &[1, 6]));
        assert!(!new(shape, 2, &[1, 5]));
        assert!(!new(MatrixShape { inputs: 5, ..shape }, 2, &[1, 5]));
        let floats: Arc<Tensor> = Tensor::from_shape(&[2, 6], &[0f32; 12]).unwrap().into();
        assert!(Matrix::new(floats, shape, vec![0; 2], vec![1, 6]).is_none());
    }
}
