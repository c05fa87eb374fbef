//! Every path, and what stands before all of them: the host's name, the time limit, the headers that keep a browser careful.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Form, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::access::{self, Login};
use super::{Shared, acting, metrics};
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

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// What the page is made of: its place, its media type, its content. Public: it says nothing of this board.
const ASSETS: [(&str, &str, &str); 4] = [
    ("/style.css", "text/css; charset=utf-8", include_str!("assets/style.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("assets/page.js")),
    ("/draw.js", "text/javascript; charset=utf-8", include_str!("assets/draw.js")),
    ("/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];

pub(super) fn routes(shared: Arc<Shared>) -> Router {
    let reading = Router::new()
        .route("/", get(|| async { content(HTML, include_str!("assets/index.html")) }))
        .route("/api/live", get(live))
        .route("/api/state", get(state))
        .route("/api/configuration", get(configuration))
        .route("/camera/{name}", get(picture))
        .route("/event/{id}", get(event))
        .route("/metrics", get(scrape))
        .layer(middleware::from_fn_with_state(shared.clone(), readers));
    let mut all = reading
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/login", get(login_form).post(log_in))
        .route("/logout", post(log_out))
        .route("/api/arm", post(acting::arm))
        .route("/api/test", post(acting::test))
        .route("/api/reload", post(acting::reload))
        .route("/api/photo", post(acting::photo));
    for (path, kind, text) in ASSETS {
        all = all.route(path, get(move || async move { content(kind, text) }));
    }
    all.layer(DefaultBodyLimit::max(BODY_SIZE))
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

fn content(kind: &'static str, text: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, kind)], text.into()).into_response()
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
    match shared.board.cameras().iter().any(|camera| camera.age(now).is_some_and(lately)) {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no frame has been classified lately\n"),
    }
}

/// Who may not read is sent to the form, or, if it is a program, told what is missing.
async fn readers(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if shared.access.may_read(request.headers()) {
        return next.run(request).await;
    }
    if request.uri().path() == "/" {
        return Redirect::to("/login").into_response();
    }
    (StatusCode::UNAUTHORIZED, "the token is needed: Authorization: Bearer …, or sign in at /login\n").into_response()
}

async fn scrape(State(shared): State<Arc<Shared>>) -> Response {
    content(metrics::MEDIA_TYPE, metrics::exposition(&shared.board, &shared.control))
}

async fn state(State(shared): State<Arc<Shared>>) -> Response {
    content(JSON, shared.live.state().to_string())
}

async fn configuration(State(shared): State<Arc<Shared>>) -> Response {
    content(JSON, shared.configuration.load().to_string())
}

async fn picture(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Response {
    match shared.live.picture(&name) {
        Some(bytes) => content("image/jpeg", bytes),
        None => (StatusCode::NOT_FOUND, "no picture: no such camera, or nobody looks at the page\n").into_response(),
    }
}

async fn event(State(shared): State<Arc<Shared>>, Path(id): Path<u64>) -> Response {
    match shared.live.event(id) {
        Some(bytes) => content("image/jpeg", bytes),
        None => (StatusCode::NOT_FOUND, "no picture of that event: the last few are kept\n").into_response(),
    }
}

/// Server-sent events: first who is asking, then the state as it changes. A viewer that is slow misses messages and not the last.
async fn live(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let viewer = shared.board.watch();
    let receiver = shared.live.join();
    let acts = shared.access.has_session(&headers);
    let (token, photos) = (shared.access.has_token(), shared.photos.is_some());
    let hello = format!("event: hello\ndata: {{\"acts\":{acts},\"token\":{token},\"photos\":{photos}}}\n\n");
    let messages =
        futures_util::stream::unfold((Some(hello), receiver, viewer), |(hello, mut receiver, viewer)| async {
            if let Some(hello) = hello {
                return Some((Ok::<_, std::convert::Infallible>(Bytes::from(hello)), (None, receiver, viewer)));
            }
            receiver.changed().await.ok()?;
            let message = receiver.borrow_and_update().clone();
            Some((Ok(message), (None, receiver, viewer)))
        });
    content("text/event-stream", Body::from_stream(messages))
}

#[derive(Deserialize)]
struct Credentials {
    token: String,
}

async fn login_form(State(shared): State<Arc<Shared>>) -> Response {
    match shared.access.has_token() {
        true => content(HTML, login_page("")),
        false => Redirect::to("/").into_response(),
    }
}

/// The form, with a sentence on what was wrong. The sentence is ours: nothing of a request is in it.
fn login_page(problem: &'static str) -> String {
    include_str!("assets/login.html").replace("{problem}", problem)
}

async fn log_in(State(shared): State<Arc<Shared>>, headers: HeaderMap, Form(form): Form<Credentials>) -> Response {
    if !access::is_from_our_page(&headers) {
        return (StatusCode::FORBIDDEN, "the form is not from this page\n").into_response();
    }
    // Behind a reverse proxy that speaks TLS the cookie never travels without it.
    let secure = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    match shared.access.log_in(&form.token) {
        Login::Session(session) => {
            let secure = if secure { "; Secure" } else { "" };
            let cookie = format!("spotter={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200{secure}");
            ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
        }
        Login::Wrong => (StatusCode::UNAUTHORIZED, content(HTML, login_page("That is not the token."))).into_response(),
        Login::Wait => {
            let page = login_page("Too many wrong tokens. Wait a moment, then try again.");
            (StatusCode::TOO_MANY_REQUESTS, content(HTML, page)).into_response()
        }
    }
}

async fn log_out(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if !access::is_from_our_page(&headers) {
        return (StatusCode::FORBIDDEN, "the form is not from this page\n").into_response();
    }
    shared.access.log_out(&headers);
    let cookie = "spotter=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0";
    ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
}
