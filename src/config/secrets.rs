//! Secrets that the configuration names: written in it, in a file, or in a systemd credential.

use std::io::Read;
use std::path::Path;

use super::reader::Table;

/// A secret's file larger than this is something else.
const LARGEST: u64 = 4096;

/// Where systemd puts a unit's credentials (`LoadCredential=`, `SetCredentialEncrypted=`): systemd.exec(5).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The secret of `table`: the value of `key`, or the first line of the file that `file_key` names, or of the systemd
/// credential that `credential_key` names. More than one of them is a problem.
pub(super) fn read(table: &Table<'_>, key: &str, file_key: &str, credential_key: Option<&str>) -> Option<String> {
    let given: Vec<&str> = [Some(key), Some(file_key), credential_key].into_iter().flatten().collect();
    let mut given = given.into_iter().filter(|key| table.has(key));
    if let Some(first) = given.next() {
        given.for_each(|other| {
            table.problem(other, format!("says the {key} a second time beside `{first}`; keep one of them"));
        });
    }
    let noted = |key: &str, read: Result<String, String>| read.map_err(|problem| table.problem(key, problem)).ok();
    let from_file = table.path(file_key).and_then(|path| noted(file_key, first_line(&path)));
    let from_credential =
        credential_key.and_then(|key| table.text(key).and_then(|name| noted(key, credential(table, &name))));
    table.string(key).or(from_file).or(from_credential)
}

/// The first line of a systemd credential.
fn credential(table: &Table<'_>, name: &str) -> Result<String, String> {
    if name.contains('/') || name.starts_with('.') {
        return Err(format!("{name:?} is no credential's name; write the ID that LoadCredential= has"));
    }
    let folder = table.variable(CREDENTIALS).ok_or_else(|| {
        format!(
            "there are no credentials ({CREDENTIALS} is not set); run under systemd, with LoadCredential={name}:FILE"
        )
    })?;
    let path = Path::new(&folder).join(name);
    match path.exists() {
        true => first_line(&path),
        false => Err(format!("the unit has no credential {name:?}; add LoadCredential={name}:FILE to it")),
    }
}

/// The first line of a file.
fn first_line(path: &Path) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| {
        format!("cannot read {}: {error}; the daemon's user must be able to read it", path.display())
    };
    // A pipe or a device could block, or never end.
    let metadata = std::fs::metadata(path).map_err(|error| failed(&error))?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(format!("{} is no file of at most {LARGEST} bytes", path.display()));
    }
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    file.take(LARGEST).read_to_string(&mut text).map_err(|error| failed(&error))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(format!("the first line of {} is empty, and should be the secret", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::parse;
    use crate::config::plan::ActionKind;

    /// The password that `line` gives, or the problems; with the credentials in `folder`, if there are any.
    fn password(line: &str, folder: Option<&Path>) -> Result<String, String> {
        let text = format!(
            "[model]\npath = \"m\"\n[[camera]]\nname = \"c\"\ndevice = \"d\"\n\
             [action.a]\ntype = \"mqtt\"\nurl = \"mqtts://joe@h\"\n{line}\n"
        );
        let variables =
            |name: &str| folder.filter(|_| name == "CREDENTIALS_DIRECTORY").map(|it| it.display().to_string());
        let plan = parse(&text, Path::new("/etc/spotter.toml"), &variables).map_err(|problems| problems.to_string())?;
        match &plan.actions[0].kind {
            ActionKind::Mqtt(mqtt) => Ok(mqtt.credentials.as_ref().expect("a user").1.reveal().to_owned()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_systemd_credential_is_read_and_a_missing_one_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("broker"), "s3cret\nmore\n").unwrap();
        assert_eq!(password("credential = \"broker\"", Some(folder.path())), Ok("s3cret".into()));
        for (line, folder, words) in [
            ("credential = \"other\"", Some(folder.path()), "add LoadCredential=other:FILE"),
            ("credential = \"broker\"", None, "CREDENTIALS_DIRECTORY is not set"),
            ("credential = \"../broker\"", Some(folder.path()), "no credential's name"),
            ("credential = \"broker\"\npassword = \"x\"", Some(folder.path()), "a second time beside `password`"),
        ] {
            let error = password(line, folder).expect_err(line);
            assert!(error.contains(words) && !error.contains("s3cret"), "{line}: {error}");
        }
    }
}
