//! A head of one's own on frozen features, and what a classifier is worth.
//!
//! | file | what |
//! |---|---|
//! | [`photos`] | labelled photos: a folder of folders, or a list |
//! | [`features`], [`cache`] | from photos to the trunk's features, kept for the next time |
//! | [`train`] | the head, its penalty, its temperature and its "none", by cross-validation |
//! | [`logistic`] | logistic regression by L-BFGS |
//! | [`novelty`] | "none of these" by distance |
//! | [`export`] | one ONNX of standard operators, manifest, labels |
//! | [`judgement`] | top-k, confusions, precision and recall, calibration error |
//! | [`progress`] | how far a long command is |

pub mod cache;
pub mod export;
pub mod features;
pub mod judgement;
pub mod logistic;
pub mod novelty;
pub mod photos;
pub mod progress;
pub mod train;
