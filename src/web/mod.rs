//! The page in a browser, the metrics and the health checks: one thread with a runtime of its own.
//!
//! It reads the [`Board`] and asks through [`Control`]; nothing here is waited for by a camera, the inference loop or an action. It listens
//! only where `[page]` is configured: a daemon that drives pins opens no port that nobody asked for.
//!
//! | path | what | needs |
//! |---|---|---|
//! | `/` | the page | reading |
//! | `/api/live` | its state as it changes: server-sent events | reading |
//! | `/api/state` | the same once, for scripts | reading |
//! | `/api/configuration` | the configuration in force, without secrets | reading |
//! | `/event/ID` | the frame of one of the last events | reading |
//! | `/camera/NAME` | the latest picture while somebody looks | reading |
//! | `/metrics` | Prometheus's text format | reading |
//! | `/healthz` | 200: the process runs | nothing |
//! | `/readyz` | 200: a frame was classified lately; 503 otherwise | nothing |
//! | `POST /login`, `/logout` | the token for a session | the token |
//! | `POST /api/arm`, `/api/test`, `/api/reload`, `/api/photo` | what can be done here | acting |

mod access;
mod acting;
mod configuration;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod live;
pub mod metrics;
mod routes;
mod server;

#[cfg(any(test, fuzzing))]
pub(crate) use fuzz::answer as fuzz;

use std::path::PathBuf;
use std::sync::Arc;

use access::Access;
use arc_swap::ArcSwap;
use live::Live;

use crate::config::Plan;
use crate::control::Control;
use crate::priority::Priority;
use crate::telemetry::board::Board;

/// What every request sees.
struct Shared {
    board: Arc<Board>,
    control: Arc<Control>,
    access: Access,
    live: Live,
    /// As JSON text.
    configuration: ArcSwap<String>,
    photos: Option<PathBuf>,
}

/// The page's thread; it ends when this is dropped.
pub struct Page {
    shared: Arc<Shared>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Starts the page, if the plan has one.
///
/// # Errors
/// The system gives no thread or no event queue. An address that is taken is no error: it is tried again.
pub fn start(plan: &Plan, board: Arc<Board>, control: Arc<Control>) -> std::io::Result<Option<Page>> {
    let Some(page) = &plan.page else { return Ok(None) };
    let shared = Arc::new(Shared {
        live: Live::new(board.clone()),
        board,
        control,
        access: Access::new(page),
        configuration: ArcSwap::from_pointee(configuration::describe(plan).to_string()),
        photos: page.photos.clone(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let (address, theirs) = (page.listen, shared.clone());
    let thread = std::thread::Builder::new().name("page".into()).spawn(move || {
        Priority::Onlooker.take();
        runtime.block_on(async {
            tokio::select! {
                () = server::serve(address, routes::routes(theirs.clone())) => {}
                () = theirs.live.run() => {}
                _ = stopped => {}
            }
        });
        runtime.shutdown_background();
    })?;
    Ok(Some(Page { shared, stop: Some(stop), thread: Some(thread) }))
}

impl Page {
    /// The configuration in force is another one.
    pub fn show(&self, plan: &Plan) {
        self.shared.configuration.store(Arc::new(configuration::describe(plan).to_string()));
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it has ended the process already.
            let _ = thread.join();
        }
    }
}
