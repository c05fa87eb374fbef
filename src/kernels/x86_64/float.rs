//! Register tiles for products of `f32` matrices that lie as they are: no packing.

use crate::kernels::{Kernel, float::Sides};
use std::arch::x86_64::*;

/// Two matrices and their product, at the tile's first elements.
#[derive(Clone, Copy)]
struct Place {
    a: *const f32,
    /// Elements from row to row of `a`.
    inner: usize,
    b: *const f32,
    /// Elements from row to row of `b`.
    columns: usize,
    c: *mut f32,
    /// Elements from row to row of `c`.
    stride: usize,
}

/// `c = a b`; `false` where `kernel` has no tile. See [`crate::kernels::float::multiply`].
///
/// # Safety
/// The CPU has the kernel's instructions; `a`, `b` and `c` are matrices of these sides, `c` of rows `stride` apart, and may be written.
pub(crate) unsafe fn multiply_floats(
    kernel: Kernel,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    sides: Sides,
    stride: usize,
) -> bool {
    let [rows, inner, columns] = sides;
    let whole = Place { a, inner, b, columns, c, stride };
    // SAFETY: the caller's promise.
    unsafe {
        match kernel {
            Kernel::Vnni => by_tiles(whole, rows, wide::COLUMNS, wide::rows),
            Kernel::Avx2 => by_tiles(whole, rows, narrow::COLUMNS, narrow::rows),
            _ => return false,
        }
    }
    true
}

/// Strips of columns, so that a strip of `b` stays near while all rows of `a` pass. `tile` does at most so many rows and columns, and says how many rows.
///
/// # Safety
/// As [`multiply_floats`]; `tile` is the kernel's.
unsafe fn by_tiles(whole: Place, rows: usize, width: usize, tile: unsafe fn(Place, usize, usize) -> usize) {
    for column in (0..whole.columns).step_by(width) {
        let across = width.min(whole.columns - column);
        let mut row = 0;
        while row < rows {
            // SAFETY: the tile begins within the matrices, and is told how much of them is left.
            row += unsafe {
                let (a, b) = (whole.a.add(row * whole.inner), whole.b.add(column));
                tile(Place { a, b, c: whole.c.add(row * whole.stride + column), ..whole }, rows - row, across)
            };
        }
    }
}

/// 512 bits: 8 rows of 32 columns are 16 accumulators.
mod wide {
    use super::*;

    pub(super) const COLUMNS: usize = 32;

    /// # Safety
    /// AVX-512F is available; `left` rows and `columns` (at most [`COLUMNS`]) columns are there.
    pub(super) unsafe fn rows(place: Place, left: usize, columns: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe {
            match (left, columns) {
                (8.., ..=16) => tile::<8, 1>(place, columns),
                (8.., _) => tile::<8, 2>(place, columns),
                (4..8, _) => tile::<4, 2>(place, columns),
                _ => tile::<1, 2>(place, columns),
            }
        }
    }

    /// # Safety
    /// AVX-512F is available; `ROWS` rows and `columns` columns are there, which `VECTORS` vectors hold.
    #[target_feature(enable = "avx512f")]
    unsafe fn tile<const ROWS: usize, const VECTORS: usize>(place: Place, columns: usize) -> usize {
        let mut masks = [0; VECTORS];
        for (vector, mask) in masks.iter_mut().enumerate() {
            *mask = ((1u32 << columns.saturating_sub(16 * vector).min(16)) - 1) as __mmask16;
        }
        let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
        for k in 0..place.inner {
            // SAFETY: a masked lane is not read; the others, and the rows of `a`, are there by the caller's promise.
            unsafe {
                let mut b = [_mm512_setzero_ps(); VECTORS];
                for (vector, b) in b.iter_mut().enumerate() {
                    let from = place.b.add(k * place.columns).wrapping_add(16 * vector);
                    *b = _mm512_maskz_loadu_ps(masks[vector], from);
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = _mm512_set1_ps(*place.a.add(row * place.inner + k));
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = _mm512_fmadd_ps(a, b, *sum);
                    }
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (vector, sum) in sums.iter().enumerate() {
                // SAFETY: as above, and a masked lane is not written.
                unsafe {
                    let to = place.c.add(row * place.stride).wrapping_add(16 * vector);
                    _mm512_mask_storeu_ps(to, masks[vector], *sum);
                }
            }
        }
        ROWS
    }
}

/// 256 bits: 6 rows of 16 columns are 12 accumulators.
mod narrow {
    use super::*;

    pub(super) const COLUMNS: usize = 16;

    /// # Safety
    /// AVX2 and FMA are available; `left` rows and `columns` (at most [`COLUMNS`]) columns are there.
    pub(super) unsafe fn rows(place: Place, left: usize, columns: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe {
            match left {
                6.. => tile::<6>(place, columns),
                4..6 => tile::<4>(place, columns),
                2..4 => tile::<2>(place, columns),
                _ => tile::<1>(place, columns),
            }
        }
    }

    /// # Safety
    /// AVX2 and FMA are available; `ROWS` rows and `columns` columns are there.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile<const ROWS: usize>(place: Place, columns: usize) -> usize {
        if columns == COLUMNS {
            // SAFETY: the caller's promise; all lanes are there.
            unsafe { masked::<ROWS, true>(place, [_mm256_setzero_si256(); 2]) };
        } else {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let mask = |first: i32| _mm256_cmpgt_epi32(_mm256_set1_epi32(columns as i32 - first), lanes);
            // SAFETY: the caller's promise; the masks hold what is there.
            unsafe { masked::<ROWS, false>(place, [mask(0), mask(8)]) };
        }
        ROWS
    }

    /// # Safety
    /// As [`tile`]; the lanes of the masks are there, all where `ALL`.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn masked<const ROWS: usize, const ALL: bool>(place: Place, masks: [__m256i; 2]) {
        let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
        for k in 0..place.inner {
            // SAFETY: a masked lane is not read; the others, and the rows of `a`, are there by the caller's promise.
            unsafe {
                let from = place.b.add(k * place.columns);
                let b = if ALL {
                    [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))]
                } else {
                    [_mm256_maskload_ps(from, masks[0]), _mm256_maskload_ps(from.wrapping_add(8), masks[1])]
                };
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = _mm256_set1_ps(*place.a.add(row * place.inner + k));
                    sums[0] = _mm256_fmadd_ps(a, b[0], sums[0]);
                    sums[1] = _mm256_fmadd_ps(a, b[1], sums[1]);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            // SAFETY: as above, and a masked lane is not written.
            unsafe {
                let to = place.c.add(row * place.stride);
                if ALL {
                    _mm256_storeu_ps(to, sums[0]);
                    _mm256_storeu_ps(to.add(8), sums[1]);
                } else {
                    _mm256_maskstore_ps(to, masks[0], sums[0]);
                    _mm256_maskstore_ps(to.wrapping_add(8), masks[1], sums[1]);
                }
            }
        }
    }
}
