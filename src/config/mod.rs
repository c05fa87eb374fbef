//! From a TOML file to a [`Plan`] that is valid by type, or to a list of every problem in it.

pub mod plan;
pub(crate) mod similar;

pub use plan::Plan;
