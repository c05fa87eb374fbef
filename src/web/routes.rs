//! Every path, and what stands before all of them: the host's name, the time limit, the headers that keep a browser careful.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{Shared, metrics};
use crate::clock::Monotonic;

/// No form of ours is larger.
const BODY_SIZE: usize = 4096;
/// For a body to arrive and an answer to begin.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// A daemon whose every camera has been silent for this long is not ready: well above the slowest board's time for a frame.
const READY: Duration = Duration::from_secs(30);

/// Nothing from elsewhere, no script or style within the page, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(super) fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .layer(DefaultBodyLimit::max(BODY_SIZE))
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if !shared.access.is_called_rightly(request.headers()) {
        let text =
            "this page is not known by that name; call it by its address, or add the name to `hosts` in [page]\n";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    let mut response = match tokio::time::timeout(ANSWER_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Not `no-referrer`: with it a browser sends the form's Origin as `null`.
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    let now = Monotonic::now();
    let lately = |age: Duration| age < READY;
    match shared.board.cameras.iter().any(|camera| camera.age(now).is_some_and(lately)) {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no frame has been classified lately\n"),
    }
}

async fn scrape(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if !shared.access.may_read(&headers) {
        return (StatusCode::UNAUTHORIZED, "the token is needed: Authorization: Bearer …\n").into_response();
    }
    ([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], metrics::exposition(&shared.board)).into_response()
}
