//! The names of a model's classes.

use std::path::{Path, PathBuf};

use globset::GlobBuilder;

use super::error::ModelError;
use super::files::read_limited;

/// A labels file is small; anything larger is not one.
const MAX_BYTES: u64 = 4 << 20;
/// ImageNet-21k has 21,843 classes.
const MAX_LABELS: usize = 200_000;
/// The longest name.
const MAX_LABEL: usize = 1000;

/// Names by class index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    names: Vec<String>,
    /// Lower case, for comparing.
    folded: Vec<String>,
    file: Option<PathBuf>,
}

impl Labels {
    /// Reads one label a line: line 1 is class 0. Empty lines at the end are dropped; others are errors, because they shift
    /// every class after them.
    pub fn load(path: &Path) -> Result<Labels, ModelError> {
        let remedy = "check [output] labels in the model's manifest: the path is relative to the manifest";
        let bytes = read_limited("labels file", path, MAX_BYTES, remedy, "a labels file has one short name a line")?;
        let text = String::from_utf8(bytes).map_err(|e| ModelError::Labels {
            path: path.into(),
            line: Some(e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1),
            problem: "is not UTF-8 text".into(),
            remedy: "save it as UTF-8",
        })?;
        let names = parse(&text).map_err(|(line, problem)| ModelError::Labels {
            path: path.into(),
            line,
            problem,
            remedy: "write one label a line, in the order of the model's outputs",
        })?;
        Ok(Labels { file: Some(path.into()), ..Labels::from_names(names) })
    }

    /// Labels given in memory.
    pub fn from_names(names: Vec<String>) -> Labels {
        let folded = names.iter().map(|n| n.to_lowercase()).collect();
        Labels { names, folded, file: None }
    }

    /// Classes named by their index, for a model without labels.
    pub fn numbered(classes: usize) -> Labels {
        Labels::from_names((0..classes).map(|i| i.to_string()).collect())
    }

    /// The number of classes.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no class.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name of a class.
    pub fn get(&self, index: usize) -> Option<&str> {
        self.names.get(index).map(String::as_str)
    }

    /// All names, by index.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The file that they came from.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The classes that a pattern of the configuration means, ascending: a label as it stands, in any case; else an index; else a glob
    /// (`*cat*`, `{dog,wolf}`). Labels may occur twice (ImageNet has two cranes): then both are meant.
    pub fn resolve(&self, pattern: &str) -> Result<Vec<usize>, ModelError> {
        let wanted = pattern.trim().to_lowercase();
        let exact = self.matching(|name| name == wanted);
        if !exact.is_empty() {
            return Ok(exact);
        }
        if let Ok(index) = wanted.parse::<usize>() {
            if index < self.len() {
                return Ok(vec![index]);
            }
            return Err(self.unknown(pattern, "an index counts from 0 and is below the number of the model's classes"));
        }
        if !wanted.contains(['*', '?', '[', '{']) {
            return Err(self.unknown(pattern, "write a label, an index, or a glob such as `*cat*`"));
        }
        let glob = GlobBuilder::new(&wanted).literal_separator(false).build();
        let Ok(glob) = glob.map(|g| g.compile_matcher()) else {
            return Err(self.unknown(pattern, "the glob cannot be read: check its brackets"));
        };
        let found = self.matching(|name| glob.is_match(name));
        if found.is_empty() {
            return Err(self.unknown(pattern, "the glob matches no label; look at the model's labels file"));
        }
        Ok(found)
    }

    fn matching(&self, test: impl Fn(&str) -> bool) -> Vec<usize> {
        self.folded.iter().enumerate().filter(|(_, name)| test(name)).map(|(index, _)| index).collect()
    }

    fn unknown(&self, pattern: &str, remedy: &'static str) -> ModelError {
        ModelError::UnknownClass { pattern: pattern.into(), near: self.near_misses(pattern), remedy }
    }

    /// At most three labels that look like `pattern`, the nearest first.
    fn near_misses(&self, pattern: &str) -> Vec<String> {
        let wanted: String = pattern.to_lowercase().chars().filter(|c| !"*?[]{}".contains(*c)).take(100).collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        let limit = (wanted.chars().count() / 3).max(2);
        let mut found: Vec<(usize, usize)> = self
            .folded
            .iter()
            .enumerate()
            .filter_map(|(index, name)| {
                let distance = if name.contains(&wanted) { 1 } else { edit_distance(&wanted, name) };
                (distance <= limit).then_some((distance, index))
            })
            .collect();
        found.sort_unstable();
        found.into_iter().take(3).map(|(_, index)| self.names[index].clone()).collect()
    }
}

fn parse(text: &str) -> Result<Vec<String>, (Option<usize>, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end();
    if text.is_empty() {
        return Err((None, "is empty".into()));
    }
    let names: Vec<String> = text.lines().map(|l| l.trim().to_string()).collect();
    if names.len() > MAX_LABELS {
        return Err((None, format!("has {} lines, above the limit of {MAX_LABELS}", names.len())));
    }
    for (index, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err((Some(index + 1), "is empty".into()));
        }
        if name.len() > MAX_LABEL || name.contains(char::is_control) {
            return Err((Some(index + 1), "is no label (too long, or with control characters)".into()));
        }
    }
    Ok(names)
}

/// Levenshtein's distance in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        Labels::from_names(
            ["Faces", "wild_cat", "cougar_body", "cougar_face", "crane", "crane", "7"].map(String::from).into(),
        )
    }

    #[track_caller]
    fn check(pattern: &str, expected: &[usize]) {
        assert_eq!(labels().resolve(pattern).unwrap(), expected, "{pattern}");
    }

    #[test]
    fn patterns_mean_labels_then_indices_then_globs() {
        check("wild_cat", &[1]);
        check("FACES", &[0]);
        check(" faces ", &[0]);
        check("crane", &[4, 5]);
        check("3", &[3]);
        check("7", &[6]); // a label before an index
        check("*c*", &[0, 1, 2, 3, 4, 5]);
        check("cougar_*", &[2, 3]);
        check("{faces,wild_cat}", &[0, 1]);
    }

    #[test]
    fn what_matches_nothing_says_what_is_near() {
        for (pattern, near) in
            [("wildcat", "wild_cat"), ("cougar_bod", "cougar_body"), ("face", "Faces"), ("*wild-cat*", "wild_cat")]
        {
            match labels().resolve(pattern) {
                Err(ModelError::UnknownClass { near: found, .. }) => {
                    assert!(found.iter().any(|n| n == near), "{pattern}: {found:?}")
                }
                other => panic!("{pattern}: {other:?}"),
            }
        }
        for pattern in ["zebra", "99", "[", "*zebra*"] {
            let message = labels().resolve(pattern).unwrap_err().to_string();
            assert!(message.contains(pattern), "{message}");
        }
    }

    #[test]
    fn files_are_one_label_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l.txt");
        let load = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Labels::load(&path).map(|l| l.iter().map(String::from).collect::<Vec<_>>()).map_err(|e| e.to_string())
        };
        assert_eq!(load(b"a\r\nb c\n\n\n").unwrap(), ["a", "b c"]);
        assert_eq!(load("\u{feff}ä\n".as_bytes()).unwrap(), ["ä"]);
        assert!(load(b"a\n\nb\n").unwrap_err().contains("line 2"));
        assert!(load(b"a\nb\n\xff").unwrap_err().contains("line 3"));
        assert!(load(b"\n\n").unwrap_err().contains("is empty"));
        assert!(load(b"a\nb\0c\n").unwrap_err().contains("line 2"));
        assert!(load(&[b"a\n".as_slice(), &[b'x'; 1001]].concat()).unwrap_err().contains("too long"));
        assert!(load(&b"a\n".repeat(200_001)).unwrap_err().contains("200001 lines"));
        assert!(load(&[0x89, b'P', b'N', b'G', 0, 0xff]).unwrap_err().contains("not UTF-8"));
        assert!(load(&vec![b'a'; 5 << 20]).unwrap_err().contains("above the limit"));
        assert!(Labels::load(&folder.path().join("none.txt")).unwrap_err().to_string().contains("none.txt"));
    }
}
