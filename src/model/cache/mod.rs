//! Loaded models kept in files: the program and its packed weights, mapped and used in place at the next start.
//!
//! A model whose whole graph runs on our kernels is one [`Program`]. It is written to one file when it was first loaded; as long as nothing that
//! went into it has changed (see [`Key`]), the next start needs neither the ONNX file's weights nor tract's optimiser. A file that is missing,
//! old, another's, cut short or damaged is not used, and is written again. The folder holds nothing else and may be emptied at any time.

mod file;
mod key;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::ops::source::TypedSource;

use super::load::Layout;
use super::lower::Image;
use super::program::{Export, Program, Run, Saved, Slot, Step};
use crate::kernels::{Part, Pool};
pub(super) use key::Key;

/// Where models are kept when nothing else is said: systemd's cache folder of the service, else the user's.
pub fn default_folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // systemd gives several folders with colons between them
    let service = variable("CACHE_DIRECTORY").map(|all| {
        let all = all.to_string_lossy().into_owned();
        PathBuf::from(all.split(':').next().unwrap_or_default())
    });
    let user = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    service.or_else(|| Some(user()?.join("spotter"))).filter(|folder| folder.is_absolute())
}

/// What is kept beside the packed arrays. `S` is a [`Step`], borrowed when it is written.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept<S> {
    /// The program's input.
    source: Source,
    /// Which of the program's results is the model's.
    result: usize,
    /// How preprocessing writes the input, when it is the picture's codes.
    image: Option<Image>,
    layout: Layout,
    outputs: usize,
    program: Saved<S>,
}

/// The tensor that a program takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Source {
    element: Element,
    shape: Vec<usize>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Element {
    U8,
    I8,
    F32,
}

impl Element {
    fn of(datum_type: DatumType) -> Option<Element> {
        match datum_type {
            DatumType::U8 => Some(Element::U8),
            DatumType::I8 => Some(Element::I8),
            DatumType::F32 => Some(Element::F32),
            _ => None,
        }
    }

    fn fact(self, shape: &[usize]) -> TypedFact {
        match self {
            Element::U8 => u8::fact(shape),
            Element::I8 => i8::fact(shape),
            Element::F32 => f32::fact(shape),
        }
    }
}

/// A model out of a file.
pub(super) struct Restored {
    pub(super) plan: Arc<TypedSimplePlan>,
    pub(super) program: Arc<Program>,
    pub(super) image: Option<Image>,
    pub(super) layout: Layout,
    pub(super) outputs: usize,
}

/// The model kept for `key` in `folder`, when there is one that is whole.
pub(super) fn restore(folder: &Path, key: &Key, threads: usize) -> Option<Restored> {
    let path = folder.join(key.file_name());
    match read(&path, key, threads) {
        Ok(restored) => Some(restored),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            log::info!("the packed model in {} is not used, and will be written again: {error}", path.display());
            None
        }
    }
}

fn read(path: &Path, key: &Key, threads: usize) -> io::Result<Restored> {
    let (kept, arrays): (Kept<Step>, Vec<Part>) = file::read(path, key)?;
    let program = Program::restore(kept.program, arrays, Arc::new(Pool::new(threads))).map_err(io::Error::other)?;
    let program = Arc::new(program);
    let plan = plan(&program, &kept.source, kept.result).map_err(io::Error::other)?;
    Ok(Restored { plan, program, image: kept.image, layout: kept.layout, outputs: kept.outputs })
}

/// tract's plan of one node.
fn plan(program: &Arc<Program>, source: &Source, result: usize) -> TractResult<Arc<TypedSimplePlan>> {
    let mut model = TypedModel::default();
    let input = model.add_source("input", source.element.fact(&source.shape))?;
    let facts = program.exports.iter().map(|export| export_fact(program, export)).collect();
    let results = model.wire_node("network", Run { program: Arc::clone(program), facts }, &[input])?;
    let result = results.get(result).ok_or_else(|| TractError::msg("the program has fewer results"))?;
    model.select_output_outlets(&[*result])?;
    TypedSimplePlan::new(model)
}

fn export_fact(program: &Program, export: &Export) -> TypedFact {
    let element = match program.values[export.value].slot {
        Slot::Floats(_) => Element::F32,
        Slot::Codes(_) if export.signed => Element::I8,
        Slot::Codes(_) => Element::U8,
    };
    element.fact(&export.shape)
}

/// Writes a loaded model to its file, on a thread of its own: on a slow card that takes seconds, and the model is ready already.
///
/// `None` for a model of which a part runs on tract's ops: its graph is needed at the next start too.
pub(super) fn keep(
    folder: &Path,
    key: Key,
    plan: &TypedSimplePlan,
    image: Option<Image>,
    layout: Layout,
    outputs: usize,
) -> Option<Writing> {
    let (program, source, result) = whole(plan.model())?;
    let (saved, arrays) = program.save();
    let kept = serde_json::to_value(Kept { source, result, image, layout, outputs, program: saved });
    let path = folder.join(key.file_name());
    let write = move || {
        let written = kept.map_err(io::Error::other).and_then(|kept| file::write(&path, &key, kept, &arrays));
        match written {
            Ok(()) => log::debug!("the packed model is kept in {}", path.display()),
            Err(error) => log::warn!("the packed model is not kept, so the next start packs it again: {error}"),
        }
    };
    let thread = std::thread::Builder::new().name("model-cache".into()).spawn(write);
    match thread {
        Ok(thread) => Some(Writing(Some(thread))),
        Err(error) => {
            log::warn!("the packed model is not kept, so the next start packs it again: no thread: {error}");
            None
        }
    }
}

/// The one program that the model is, its input, and which of its results is the model's.
fn whole(model: &TypedModel) -> Option<(Arc<Program>, Source, usize)> {
    let mut nodes = model.nodes().iter().filter(|n| !n.op_is::<TypedSource>() && !n.op_is::<Const>());
    let (node, None) = (nodes.next()?, nodes.next()) else { return None };
    let run = node.op_as::<Run>()?;
    let ([input], [output]) = (model.inputs.as_slice(), model.outputs.as_slice()) else { return None };
    if node.inputs.as_slice() != [*input] || output.node != node.id {
        return None;
    }
    let fact = model.outlet_fact(*input).ok()?;
    let source = Source { element: Element::of(fact.datum_type)?, shape: fact.shape.as_concrete()?.to_vec() };
    Some((Arc::clone(&run.program), source, output.slot))
}

/// A file that is being written; waits for its end when dropped.
pub(super) struct Writing(Option<JoinHandle<()>>);

impl Drop for Writing {
    fn drop(&mut self) {
        if self.0.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("keeping the packed model ended in a panic");
        }
    }
}

#[cfg(test)]
mod tests;
