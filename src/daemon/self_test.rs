//! Before a model is trusted with pins: the photo that its manifest names must get the class that it promises.

use super::DaemonError;
use crate::capture::decode::decode_file;
use crate::config::plan::{Fit, Orientation};
use crate::model::Model;
use crate::model::manifest::SelfTest;
use crate::preprocess::{InputTensor, Preprocessor};

/// Runs the self-test of `model`, if its manifest has one.
///
/// # Errors
/// The photo cannot be read, or the top class is another one.
pub(super) fn run(model: &mut Model) -> Result<(), DaemonError> {
    let Some(test) = model.manifest().source.self_test.clone() else { return Ok(()) };
    let expected = model.labels().resolve(&test.class)?;
    let seen = match look(model, &test) {
        Ok(Some(class)) if expected.contains(&class) => return Ok(()),
        Ok(class) => class.and_then(|c| model.labels().get(c)).unwrap_or("nothing").to_owned(),
        Err(problem) => format!("nothing ({problem})"),
    };
    let model = model.manifest().path.with_extension("onnx").display().to_string();
    Err(DaemonError::SelfTest { model, photo: test.photo.display().to_string(), seen, expected: test.class })
}

/// The class with the highest score.
fn look(model: &mut Model, test: &SelfTest) -> Result<Option<usize>, String> {
    let rgb = decode_file(&test.photo).map_err(|e| e.to_string())?;
    let mut input = InputTensor::U8(Vec::new());
    let mut preprocessor = Preprocessor::new(model.input(), Fit::Crop, Orientation::default());
    preprocessor.fill(&rgb, None, &mut input).map_err(|e| e.to_string())?;
    let scores = model.run(&input).map_err(|e| e.to_string())?;
    if scores.iter().any(|s| !s.is_finite()) {
        return Err("scores that are not finite numbers".into());
    }
    Ok(scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(class, _)| class))
}
