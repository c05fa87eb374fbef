//! A head of one's own on frozen features, and what a classifier is worth.
//!
//! | file | what |
//! |---|---|
//! | [`collect`], [`gallery`], [`likeness`] | photos from a camera, without those that are nearly the same |
//! | [`photos`] | labelled photos: a folder of folders, or a list |
//! | [`features`], [`cache`] | from photos to the trunk's features, kept for the next time |
//! | [`train`] | the head, its penalty, its temperature and its "none", by cross-validation |
//! | [`logistic`] | logistic regression by L-BFGS |
//! | [`novelty`] | "none of these" by distance |
//! | [`export`] | one ONNX of standard operators, manifest, labels |
//! | [`judgement`] | top-k, confusions, precision and recall, calibration error |
//! | [`progress`] | how far a long command is |

pub mod cache;
pub mod collect;
pub mod export;
pub mod features;
pub mod gallery;
pub mod judgement;
pub mod likeness;
pub mod logistic;
pub mod novelty;
pub mod photos;
pub mod progress;
pub mod train;
