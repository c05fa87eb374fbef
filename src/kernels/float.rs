//! Products of `f32` matrices, and loops over `f32` compiled for wide vectors: for a float network, which runs only to be calibrated.

use super::Kernel;

/// Loops in plain Rust that gain by wide vectors. What they call must be `inline(always)` too, or it stays narrow.
pub trait Loops {
    /// What they end in.
    type Output;

    /// Runs them. To be marked `inline(always)`.
    fn run(self) -> Self::Output;
}

/// Runs loops, compiled for the instruction set of `kernel`.
pub fn vectorized<L: Loops>(kernel: Kernel, loops: L) -> L::Output {
    #[cfg(target_arch = "x86_64")]
    {
        /// Compiled for 512 bits.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
        fn wide<L: Loops>(loops: L) -> L::Output {
            loops.run()
        }
        /// Compiled for 256 bits.
        #[target_feature(enable = "avx2,fma")]
        fn narrow<L: Loops>(loops: L) -> L::Output {
            loops.run()
        }
        match kernel {
            // SAFETY: the CPU has what the kernel needs, which includes these.
            Kernel::Vnni if kernel.is_available() => return unsafe { wide(loops) },
            // SAFETY: as above.
            Kernel::Avx2 if kernel.is_available() => return unsafe { narrow(loops) },
            _ => {}
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = kernel;
    loops.run()
}

/// Rows, inner length and columns of a product of two matrices.
pub type Sides = [usize; 3];

/// `c = a b` for `a` of `[rows][inner]`, `b` of `[inner][columns]` and `c` of `[rows][columns]`, where a row of `c` begins `stride` elements
/// after the one before. Whether there is a tile for `kernel`; where there is none, `c` is as it was.
///
/// # Panics
/// A slice is shorter than its matrix, or `stride` than a row.
pub fn multiply(kernel: Kernel, a: &[f32], b: &[f32], c: &mut [f32], sides: Sides, stride: usize) -> bool {
    let [rows, inner, columns] = sides;
    if rows == 0 || columns == 0 {
        return true;
    }
    assert!(a.len() >= rows * inner && b.len() >= inner * columns, "a factor is too short for {sides:?}");
    assert!(stride >= columns && c.len() >= (rows - 1) * stride + columns, "the product is too short for {sides:?}");
    #[cfg(target_arch = "x86_64")]
    if kernel.is_available() {
        // SAFETY: the lengths were checked, and so was the CPU.
        return unsafe {
            super::x86_64::multiply_floats(kernel, a.as_ptr(), b.as_ptr(), c.as_mut_ptr(), sides, stride)
        };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = kernel;
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_all_sizes() {
        let value = |i: usize| (i * 37 % 101) as f32 / 50.0 - 1.0;
        for (rows, inner, columns) in
            [(1, 1, 1), (8, 5, 32), (6, 3, 16), (17, 9, 49), (23, 64, 33), (5, 7, 15), (13, 2, 70), (4, 0, 5)]
        {
            let a: Vec<f32> = (0..rows * inner).map(value).collect();
            let b: Vec<f32> = (0..inner * columns).map(|i| value(i + 7)).collect();
            let stride = columns + 3;
            for kernel in Kernel::available() {
                let mut c = vec![9.0; rows * stride];
                if !multiply(kernel, &a, &b, &mut c, [rows, inner, columns], stride) {
                    continue;
                }
                for (index, found) in c.iter().enumerate() {
                    let (row, column) = (index / stride, index % stride);
                    let product = |k: usize| a[row * inner + k] * b[k * columns + column];
                    let expected = if column < columns { (0..inner).map(product).sum() } else { 9.0 };
                    assert!(
                        (found - expected).abs() < 1e-4,
                        "{kernel} {rows}x{inner}x{columns}: {found}, not {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn loops_give_the_same_on_every_kernel() {
        struct Doubled<'a>(&'a mut [f32]);
        impl Loops for Doubled<'_> {
            type Output = f32;

            #[inline(always)]
            fn run(self) -> f32 {
                self.0.iter_mut().for_each(|v| *v *= 2.0);
                self.0[3]
            }
        }
        for kernel in Kernel::available() {
            let mut values: Vec<f32> = (0..37u8).map(f32::from).collect();
            assert_eq!(vectorized(kernel, Doubled(&mut values)), 6.0, "{kernel}");
            assert!(values.iter().enumerate().all(|(i, v)| *v == 2.0 * i as f32), "{kernel}");
        }
    }

    #[test]
    #[should_panic(expected = "too short")]
    fn a_short_factor_is_no_product() {
        multiply(Kernel::best(), &[0.0; 5], &[0.0; 6], &mut [0.0; 4], [2, 3, 2], 2);
    }
}
