//! Kernels for 64-bit Arm.

mod dense;
mod direct;
mod dotprod;
mod finish;
mod i8mm;
mod neon;
mod tile;
mod winograd;
#[cfg(test)]
mod tests;
