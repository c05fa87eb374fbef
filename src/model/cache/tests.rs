use std::fs;
use std::path::{Path, PathBuf};

use crate::kernels::Kernel;
use crate::model::{CacheUse, LoadOptions, Memory, Model};
use crate::preprocess::{InputTensor, TensorFormat};

/// A folder with a model (its own copy, so that its time may change) and a cache.
struct Home {
    _folder: tempfile::TempDir,
    model: PathBuf,
    cache: PathBuf,
}

const MODEL: &str = "dense.onnx";

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models")
}

impl Home {
    fn new() -> Home {
        Home::of(&models().join(MODEL))
    }

    fn of(original: &Path) -> Home {
        let folder = tempfile::tempdir().unwrap();
        let (model, cache) = (folder.path().join("model.onnx"), folder.path().join("deep/cache"));
        for ending in ["onnx", "toml"] {
            fs::copy(original.with_extension(ending), model.with_extension(ending)).unwrap();
        }
        Home { _folder: folder, model, cache }
    }

    /// Loads, waits for the file, and gives what the cache did and the scores of one picture.
    fn load(&self, change: impl FnOnce(&mut LoadOptions)) -> (CacheUse, Vec<f32>) {
        let mut options = LoadOptions { threads: Some(1), cache: Some(self.cache.clone()), ..LoadOptions::default() };
        change(&mut options);
        let mut model = Model::load(&self.model, &options).unwrap();
        model.wait_until_kept();
        let input = model.input();
        let input = match input.format {
            TensorFormat::U8Nhwc { channels, .. } => {
                InputTensor::U8((0..input.height * input.width * channels).map(|i| (i * 7 % 251) as u8).collect())
            }
            TensorFormat::F32Nchw => {
                InputTensor::F32((0..input.height * input.width * 3).map(|i| (i % 97) as f32).collect())
            }
        };
        (model.load_report().cache, model.run(&input).unwrap())
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(&self.cache).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files
    }

    fn file(&self) -> PathBuf {
        let files = self.files();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }
}

#[test]
fn the_second_load_reads_what_the_first_wrote_and_gives_the_same_scores() {
    let home = Home::new();
    let (written, scores) = home.load(|_| ());
    assert_eq!(written, CacheUse::Written);
    assert_eq!(home.load(|_| ()), (CacheUse::Read, scores.clone()));
    assert_eq!(home.load(|o| o.cache = None), (CacheUse::None, scores.clone()));
    assert_eq!(home.load(|o| o.engine = Some("tract".into())).0, CacheUse::None);
    // another kernel has a file of its own
    assert_eq!(home.load(|o| o.engine = Some("generic".into())), (CacheUse::Written, scores.clone()));
    assert_eq!(home.load(|o| o.engine = Some("generic".into())), (CacheUse::Read, scores));
    assert_eq!(home.files().len(), 2);
    // and so has another choice of algorithms
    let prefer = |o: &mut LoadOptions| o.layers = vec!["3x3=direct".parse().unwrap()];
    assert_eq!(home.load(prefer).0, CacheUse::Written);
    assert_eq!(home.load(prefer).0, CacheUse::Read);
}

/// Every form of quantised ONNX that is lowered, on every kernel: kept and read back bit for bit, or not kept at all.
#[test]
fn every_model_comes_back_as_it_was_or_is_not_kept() {
    let (mut kept, mut others) = (0, Vec::new());
    for folder in [models(), models().join("import")] {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        for model in files.filter(|path| path.extension().is_some_and(|e| e == "onnx")) {
            let name = model.file_stem().unwrap().to_string_lossy().into_owned();
            for (kernel, memory) in
                Kernel::available().into_iter().zip([Memory::Fast, Memory::Compact].into_iter().cycle())
            {
                let home = Home::of(&model);
                let options = |o: &mut LoadOptions| (o.engine, o.memory) = (Some(kernel.to_string()), memory);
                let (first, scores) = home.load(options);
                let expected = if first == CacheUse::Written { CacheUse::Read } else { CacheUse::None };
                assert_eq!(home.load(options), (expected, scores), "{name} on {kernel}");
                match first {
                    CacheUse::Written => kept += 1,
                    _ => others.push(name.clone()),
                }
            }
        }
    }
    others.dedup();
    others.sort();
    // parts of these run on tract's ops
    assert_eq!(others, ["dynamic", "floating", "gemm", "integers", "islands"]);
    assert!(kept > 0);
}

/// Every byte counts, or is padding: a change is noticed or changes nothing, and the file is whole again afterwards.
#[test]
fn a_damaged_file_is_written_again() {
    let home = Home::new();
    let (_, scores) = home.load(|_| ());
    let whole = fs::read(home.file()).unwrap();
    let index = u64::from_le_bytes(whole[16..24].try_into().unwrap()) as usize;
    let middle = index + (whole.len() - index) / 2;
    let (mut noticed, mut places) = (0, vec![0, 9, 13, 17, 25, 33, index, middle, whole.len() - 1]);
    // an odd step, to meet every array: each large one has many of these
    places.extend((64..index).step_by(3001));
    for at in places {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(home.file(), &damaged).unwrap();
        let (cache, found) = home.load(|_| ());
        assert_eq!(found, scores, "byte {at}");
        noticed += usize::from(cache == CacheUse::Written);
        let padding = (64..index).contains(&at) && whole[at] == 0;
        assert!(cache == CacheUse::Written || padding, "byte {at}");
        if cache == CacheUse::Written {
            assert!(fs::read(home.file()).unwrap() == whole, "byte {at}");
        }
    }
    assert!(noticed > 9);
}

#[test]
fn a_file_that_is_cut_short_or_another_is_written_again() {
    let home = Home::new();
    let (_, scores) = home.load(|_| ());
    let whole = fs::read(home.file()).unwrap();
    let mut contents: Vec<Vec<u8>> =
        [0, 1, 31, 63, 64, 5000, whole.len() / 2, whole.len() - 1].map(|len| whole[..len].to_vec()).into();
    contents.push(b"something else altogether".repeat(1000));
    contents.push([whole.as_slice(), b"!"].concat());
    for content in contents {
        fs::write(home.file(), &content).unwrap();
        assert_eq!(home.load(|_| ()), (CacheUse::Written, scores.clone()), "{} bytes", content.len());
        assert!(fs::read(home.file()).unwrap() == whole);
    }
    // the file of another kernel under this one's name
    let ours = home.file();
    home.load(|o| o.engine = Some("generic".into()));
    let other = home.files().into_iter().find(|file| *file != ours).unwrap();
    fs::copy(other, &ours).unwrap();
    assert_eq!(home.load(|_| ()), (CacheUse::Written, scores));
}

#[test]
fn a_model_or_manifest_that_changes_is_packed_again() {
    let home = Home::new();
    home.load(|_| ());
    // the same bytes, put in its place with the same time: still another file
    let copy = home.model.with_extension("copy");
    fs::copy(&home.model, &copy).unwrap();
    let time = fs::metadata(&home.model).unwrap().modified().unwrap();
    fs::File::options().write(true).open(&copy).unwrap().set_modified(time).unwrap();
    fs::rename(&copy, &home.model).unwrap();
    assert_eq!(home.load(|_| ()).0, CacheUse::Written);
    let manifest = home.model.with_extension("toml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, format!("{text}\n# a remark\n")).unwrap();
    assert_eq!(home.load(|_| ()).0, CacheUse::Written);
    assert_eq!(home.load(|_| ()).0, CacheUse::Read);
    home.file();
}

/// What is left of models that are gone, and of writers that died.
#[test]
fn the_folder_is_kept_tidy() {
    let home = Home::new();
    home.load(|_| ());
    let old = home.file();
    let renamed = home.model.with_file_name("renamed.onnx");
    fs::rename(&home.model, &renamed).unwrap();
    fs::copy(home.model.with_extension("toml"), renamed.with_extension("toml")).unwrap();
    fs::write(home.cache.join(".x.packed.9999999.0.tmp"), b"half").unwrap();
    fs::write(home.cache.join("notes.packed"), b"somebody else's").unwrap();
    let home = Home { model: renamed, ..home };
    assert_eq!(home.load(|_| ()).0, CacheUse::Written);
    let files = home.files();
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(!files.contains(&old));
}

#[test]
fn a_folder_that_cannot_be_written_costs_the_cache_and_not_the_model() {
    let home = Home::new();
    fs::create_dir_all(home.cache.parent().unwrap()).unwrap();
    fs::write(&home.cache, b"a file where the folder should be").unwrap();
    let (first, scores) = home.load(|_| ());
    assert_eq!(home.load(|_| ()), (first, scores));
}
