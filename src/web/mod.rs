//! The page in a browser, the metrics and the health checks: one thread with a runtime of its own.
//!
//! It reads the [`Board`] and asks through [`Control`]; nothing here is waited for by a camera, the inference loop or an action. It listens
//! only where `[page]` is configured: a daemon that drives pins opens no port that nobody asked for.
//!
//! | path | what | needs |
//! |---|---|---|
//! | `/healthz` | 200: the process runs | nothing |
//! | `/readyz` | 200: a frame was classified lately; 503 otherwise | nothing |
//! | `/metrics` | Prometheus's text format | reading |

mod access;
pub mod metrics;
mod routes;
mod server;

use std::sync::Arc;

use access::Access;

use crate::config::plan::PagePlan;
use crate::control::Control;
use crate::telemetry::board::Board;

/// What every request sees.
struct Shared {
    board: Arc<Board>,
    control: Arc<Control>,
    access: Access,
}

/// The page's thread; it ends when this is dropped.
pub struct Page {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Starts the page.
///
/// # Errors
/// The system gives no thread or no event queue. An address that is taken is no error: it is tried again.
pub fn start(plan: &PagePlan, board: Arc<Board>, control: Arc<Control>) -> std::io::Result<Page> {
    let shared = Arc::new(Shared { board, control, access: Access::new(plan) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let address = plan.listen;
    let thread = std::thread::Builder::new().name("page".into()).spawn(move || {
        // Behind everything that watches: a thread's own niceness (setpriority(2), NOTES).
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 10);
        runtime.block_on(async {
            tokio::select! {
                () = server::serve(address, routes::routes(shared)) => {}
                _ = stopped => {}
            }
        });
        runtime.shutdown_background();
    })?;
    Ok(Page { stop: Some(stop), thread: Some(thread) })
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
