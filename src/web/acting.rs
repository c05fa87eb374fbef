//! What can be done on the page. Each is asked of the inference loop and answered at once; none changes the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::{Shared, live};
use crate::control::Command;
use crate::files::write_atomically;
use crate::telemetry::board::{CameraBoard, Picture};

/// How long a photo waits for the camera's next frame.
const NEXT_FRAME: Duration = Duration::from_secs(5);
/// For a picture that a head is taught with: no artefacts that it could learn.
const PHOTO_QUALITY: u8 = 95;

/// The answer, for the line at the foot of the page.
type Answer = (StatusCode, String);

#[derive(Deserialize)]
pub(super) struct Arm {
    rule: String,
    armed: bool,
}

#[derive(Deserialize)]
pub(super) struct Test {
    action: String,
}

#[derive(Deserialize)]
pub(super) struct Photo {
    camera: String,
    label: String,
}

impl Shared {
    fn refusal(&self, headers: &HeaderMap) -> Option<Answer> {
        let reason = match self.access.has_token() {
            _ if self.access.may_act(headers) => return None,
            true => (StatusCode::UNAUTHORIZED, "sign in with the token first"),
            false => (StatusCode::FORBIDDEN, "nothing can be done here: the configuration has no `token` in [page]"),
        };
        Some((reason.0, reason.1.to_owned()))
    }

    fn ask(&self, command: Command, done: String) -> Answer {
        log::info!("page: asked for {command:?}");
        match self.control.send(command) {
            Ok(()) => (StatusCode::ACCEPTED, done),
            Err(full) => (StatusCode::SERVICE_UNAVAILABLE, full.to_string()),
        }
    }
}

pub(super) async fn arm(State(shared): State<Arc<Shared>>, headers: HeaderMap, Form(form): Form<Arm>) -> Answer {
    if let Some(refusal) = shared.refusal(&headers) {
        return refusal;
    }
    let rules = shared.board.rules();
    let Some(rule) = rules.iter().find(|rule| *rule.name == *form.rule) else {
        return (StatusCode::NOT_FOUND, format!("there is no rule {:?}", form.rule));
    };
    if rule.armed.load().is_none() {
        let text = format!("rule {} has no `armed_by`, and is always armed", rule.name);
        return (StatusCode::CONFLICT, text);
    }
    let (rule, armed) = (rule.name.clone(), form.armed);
    let done = format!("rule {rule} is being {}", if armed { "armed" } else { "disarmed" });
    shared.ask(Command::Arm { rule, armed }, done)
}

pub(super) async fn test(State(shared): State<Arc<Shared>>, headers: HeaderMap, Form(form): Form<Test>) -> Answer {
    if let Some(refusal) = shared.refusal(&headers) {
        return refusal;
    }
    let actions = shared.board.actions();
    let Some(action) = actions.iter().find(|action| *action.name == *form.action && action.kind == "gpio") else {
        return (StatusCode::NOT_FOUND, format!("there is no pin {:?}", form.action));
    };
    if action.health != "ready" {
        return (StatusCode::CONFLICT, format!("pin {} is {}: {}", action.name, action.health, action.detail));
    }
    let done = format!("pin {} is tested", action.name);
    shared.ask(Command::TestPin { action: action.name.clone() }, done)
}

pub(super) async fn reload(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Answer {
    match shared.refusal(&headers) {
        Some(refusal) => refusal,
        None => shared.ask(Command::Reload, "the configuration is read again; the journal says what came of it".into()),
    }
}

pub(super) async fn photo(State(shared): State<Arc<Shared>>, headers: HeaderMap, Form(form): Form<Photo>) -> Answer {
    if let Some(refusal) = shared.refusal(&headers) {
        return refusal;
    }
    let Some(folder) = shared.photos.clone() else {
        return (StatusCode::CONFLICT, "the configuration names no folder: `photos` in [page]".into());
    };
    if !is_label(&form.label) {
        return (StatusCode::BAD_REQUEST, "a label has 1 to 64 letters, digits, - and _".into());
    }
    let Some(camera) = shared.board.camera(&form.camera) else {
        return (StatusCode::NOT_FOUND, format!("there is no camera {:?}", form.camera));
    };
    let Some(picture) = next_picture(&camera).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("camera {} delivers no frame", camera.name));
    };
    let (name, label) = (camera.name.clone(), form.label);
    // A card may take a second for it, and viewers shall not wait.
    let written = tokio::task::spawn_blocking(move || write(&folder, &label, &name, &picture)).await;
    match written {
        Ok(Ok(path)) => (StatusCode::CREATED, format!("written: {}", path.display())),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn is_label(label: &str) -> bool {
    (1..=64).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// The camera's next frame; older ones are not taken for it.
async fn next_picture(camera: &CameraBoard) -> Option<Arc<Picture>> {
    camera.photo.take();
    let next = async {
        loop {
            camera.photo.want();
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let Some(picture) = camera.photo.take() {
                return picture;
            }
        }
    };
    tokio::time::timeout(NEXT_FRAME, next).await.ok()
}

/// `FOLDER/LABEL/CAMERA-TIME.jpg`, as `spotter teach` reads them.
fn write(folder: &Path, label: &str, camera: &str, picture: &Picture) -> std::io::Result<PathBuf> {
    let folder = folder.join(label);
    std::fs::create_dir_all(&folder).map_err(|error| {
        std::io::Error::new(error.kind(), format!("making the folder {}: {error}", folder.display()))
    })?;
    let bytes = live::jpeg(picture, PHOTO_QUALITY).ok_or_else(|| std::io::Error::other("the frame is no picture"))?;
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let path = folder.join(format!("{camera}-{time}.jpg"));
    write_atomically(&path, &bytes)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Monotonic;

    #[test]
    fn a_label_never_leaves_its_folder() {
        for (label, is) in
            [("cat", true), ("wild_cat-2", true), ("", false), ("..", false), ("a/b", false), ("ä", false)]
        {
            assert_eq!(is_label(label), is, "{label}");
        }
        assert!(!is_label(&"x".repeat(65)));
    }

    #[test]
    fn a_photo_lies_under_its_label() {
        let folder = tempfile::tempdir().unwrap();
        let picture = Picture { width: 2, height: 1, data: vec![0; 6], sequence: 1, at: Monotonic::default() };
        let path = write(folder.path(), "cat", "feeder", &picture).unwrap();
        assert!(path.starts_with(folder.path().join("cat")));
        assert!(std::fs::read(&path).unwrap().starts_with(&[0xff, 0xd8]));
        let error = write(&path, "cat", "feeder", &picture).unwrap_err().to_string();
        assert!(error.contains("making the folder"), "{error}");
    }
}
