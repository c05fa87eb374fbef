//! A head of one's own on frozen features, and what a classifier is worth.
//!
//! | file | what |
//! |---|---|
//! | [`photos`] | labelled photos: a folder of folders, or a list |
//! | [`judgement`] | top-k, confusions, precision and recall, calibration error |
//! | [`progress`] | how far a long command is |

pub mod judgement;
pub mod photos;
pub mod progress;
