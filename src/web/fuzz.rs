//! A connection's bytes for the fuzzer: through hyper and every route, without a socket.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Runtime;

use super::{Access, Live, Shared, routes, server};
use crate::config::plan::{PagePlan, Secret};
use crate::control::Control;
use crate::telemetry::board::Board;

/// In some of the seeds, so that what stands behind it is reached as well.
const TOKEN: &str = "0123456789abcdef";

/// Everything has come, and nothing is waited for: an answer takes a fraction of this.
const LONGEST: Duration = Duration::from_millis(50);

/// Answers what a client writes before it hangs up. Only who knows the token has asked the daemon for anything then.
pub(crate) fn answer(request: &[u8]) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime of its own")
    });
    let control = Control::new(|| ());
    let routes = routes::routes(Arc::new(shared(control.clone())));
    let mut answer = Vec::new();
    // A request that is none is refused, or the connection ends. Only a stream of events with more requests behind it goes on.
    let connection = server::connection(tokio::io::join(request, &mut answer), routes);
    let _ = runtime.block_on(async { tokio::time::timeout(LONGEST, connection).await });
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
    let knows = request.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
    assert!(knows || control.next().is_none(), "a stranger was obeyed");
}

fn shared(control: Arc<Control>) -> Shared {
    let board = Arc::new(Board::new("garden".into()));
    board.lay_out(&["feeder".into()], &["feeder".into()], &[("cat".into(), 0.6, 0.4)]);
    board.set_armed("cat", true);
    let plan = PagePlan {
        listen: "127.0.0.1:0".parse().expect("an address"),
        token: Some(Secret::new(TOKEN.into())),
        private: false,
        hosts: vec![],
        photos: None,
    };
    let access = Access::new(&plan);
    Shared {
        live: Live::new(board.clone()),
        board,
        control,
        access,
        configuration: ArcSwap::from_pointee("[]".into()),
        photos: None,
    }
}
