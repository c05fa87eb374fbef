//! serde of floats as their bits, where they must come back exactly as they were: JSON's decimals may lose the last one.

use serde::{Deserialize, Deserializer, Serializer};

/// As a whole number.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(float: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(float.to_bits())
}

/// From a whole number.
///
/// # Errors
/// It is none, or has more than 32 bits.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    u32::deserialize(deserializer).map(f32::from_bits)
}

/// The same of a list.
pub mod many {
    use serde::{Deserialize, Deserializer, Serializer};

    /// As whole numbers.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(floats: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(floats.iter().map(|float| float.to_bits()))
    }

    /// From whole numbers.
    ///
    /// # Errors
    /// One is none, or has more than 32 bits.
    pub fn deserialize<'de, D: Deserializer<'de>, T: FromIterator<f32>>(deserializer: D) -> Result<T, D::Error> {
        Ok(Vec::<u32>::deserialize(deserializer)?.into_iter().map(f32::from_bits).collect())
    }
}
