// The page: what the daemon says by server-sent events, drawn. Elements are made once and then changed, so that focus and scrolling stay.
"use strict";

const at = (id) => document.getElementById(id);
const parts = new Map();
let state = null;
let acts = false;
let photos = false;
let run = null;

/** The element of `key` within `parent`, made by `build` the first time. */
function part(parent, key, build) {
  let element = parts.get(key);
  if (!element) {
    element = build();
    parts.set(key, element);
    parent.append(element.root);
  }
  element.drawn = state;
  return element;
}

/** What this state has no more: another configuration is in force. */
function removeOthers() {
  for (const [key, element] of parts) if (element.drawn !== state) { element.root.remove(); parts.delete(key); }
}

function say(text) {
  at("said").textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { at("said").textContent = ""; }, 6000);
}

/** Asks the daemon to do something. The header is what a form of a stranger cannot send. */
async function ask(path, fields) {
  try {
    const answer = await fetch(path, { method: "POST", headers: { "X-Spotter": "1" }, body: new URLSearchParams(fields) });
    say(await answer.text());
  } catch {
    say("The daemon does not answer.");
  }
}

/** Opens a dialog; the promise is what its button says. */
function dialog(id) {
  const box = at(id);
  box.returnValue = "no";
  box.showModal();
  return new Promise((done) => box.addEventListener("close", () => done(box.returnValue === "yes"), { once: true }));
}

async function testPin(name) {
  at("confirm-text").textContent = `“${name}” becomes active for about a second. Whatever hangs on it moves. Is nobody in its way?`;
  if (await dialog("confirm")) await ask("/api/test", { action: name });
}

async function takePhoto(camera) {
  if ((await dialog("photo")) && at("label").value) await ask("/api/photo", { camera, label: at("label").value });
}

const HEALTH = { streaming: "good", ready: "good", opening: "", starting: "", ended: "", degraded: "warn", rejected: "bad" };

function chip(element, text) {
  setText(element, text);
  element.className = `chip ${HEALTH[text] ?? ""}`;
}

function buildCamera(camera) {
  const image = make("img");
  image.alt = `Camera ${camera.name}, latest frame`;
  image.hidden = true;
  image.addEventListener("load", () => { image.hidden = false; image.nextSibling.hidden = true; image.busy = false; });
  image.addEventListener("error", () => { image.busy = false; });
  const reason = make("p", "", "waiting for a frame"), badge = make("span", "chip");
  const figures = make("p", "figures"), slower = make("p", "why"), classes = make("div");
  const photo = make("button", "", "Training photo");
  photo.addEventListener("click", () => takePhoto(camera.name));
  const row = make("div", "row", null, photo);
  const body = make("div", "body", null, make("div", "head", null, make("h3", "", camera.name), badge), figures, slower, classes, row);
  const root = make("article", "card camera", null, make("div", "picture", null, image, reason), body);
  root.id = `camera-${camera.name}`;
  return { root, image, reason, badge, figures, slower, classes, row };
}

const HELD_BACK = { still: "still", rate: "over the rate", heat: "spared by heat" };

function drawCamera(camera) {
  const it = part(at("cameras"), `camera ${camera.name}`, () => buildCamera(camera));
  chip(it.badge, camera.state);
  it.row.hidden = !(acts && photos);
  if (camera.picture !== null && camera.picture !== it.picture && !it.image.busy) {
    it.picture = camera.picture;
    it.image.busy = true;
    it.image.src = `/camera/${encodeURIComponent(camera.name)}?n=${camera.picture}`;
  }
  if (camera.reason) { setText(it.reason, camera.reason); it.reason.hidden = false; it.image.hidden = true; }
  const rate = camera.fps === null ? "…" : camera.fps.toFixed(1);
  const figure = (value, words) => make("span", "", null, make("b", "", value), ` ${words}`);
  const held = Object.entries(camera.held_back).filter(([, count]) => count > 0).map(([cause, count]) => figure(String(count), HELD_BACK[cause]));
  it.figures.replaceChildren(figure(rate, "frames/s"), figure(ago(camera.age), "since the last"), figure(String(camera.dropped), "dropped"), ...held);
  setText(it.slower, camera.slower ?? "");
  for (const view of state.views.filter((view) => view.name === camera.name || view.name.startsWith(`${camera.name}/`))) drawView(it.classes, view);
}

function buildView(view) {
  const list = make("ol", "classes");
  list.setAttribute("aria-label", `What ${view.name} is taken for`);
  const rows = Array.from({ length: 5 }, () => {
    const name = make("span", "name"), share = make("span", "percent"), fill = make("i"), meter = make("span", "meter", null, fill);
    meter.setAttribute("aria-hidden", "true");
    list.append(make("li", "", null, name, meter, share));
    return { name, share, fill, meter };
  });
  const title = view.name.includes("/") ? [make("p", "region", view.name.split("/")[1])] : [];
  return { root: make("div", "", null, ...title, list), rows };
}

function drawView(parent, view) {
  const it = part(parent, `view ${view.name}`, () => buildView(view));
  (view.top ?? []).forEach(([label, share], index) => {
    const row = it.rows[index];
    setText(row.name, label);
    row.name.title = label;
    setText(row.share, percent(share));
    row.fill.style.width = `${share * 100}%`;
    // The thresholds of the rules that look at this class here just now.
    const rules = state.rules.filter((rule) => (rule.views ?? []).some((own) => own.view === view.name && own.label === label));
    const wanted = rules.map((rule) => `${rule.name} ${rule.thresholds}`).join();
    if (row.marks === wanted) return;
    row.marks = wanted;
    row.meter.querySelectorAll("s").forEach((mark) => mark.remove());
    for (const rule of rules) rule.thresholds.forEach((threshold, off) => {
      const mark = make("s", off ? "off" : "");
      mark.style.left = `${threshold * 100}%`;
      mark.title = `${rule.name}: ${off ? "off" : "on"} at ${percent(threshold)}`;
      row.meter.append(mark);
    });
  });
}

function buildRule(rule) {
  const badge = make("span", "chip"), views = make("div"), why = make("p", "why");
  const arm = make("button");
  arm.addEventListener("click", () => {
    const now = state.rules.find((own) => own.name === rule.name);
    ask("/api/arm", { rule: rule.name, armed: String(!now.armed) });
  });
  const row = make("div", "row", null, arm);
  const root = make("article", "card", null, make("div", "head", null, make("h3", "", rule.name), badge), why, views, row);
  root.id = `rule-${rule.name}`;
  return { root, badge, why, views, arm, row };
}

function drawRule(rule) {
  const it = part(at("rules"), `rule ${rule.name}`, () => buildRule(rule));
  it.root.classList.toggle("on", rule.on);
  const word = rule.armed === false ? "disarmed" : rule.on ? "on" : "off";
  setText(it.badge, word);
  it.badge.className = `chip ${rule.on ? "good" : rule.armed === false ? "warn" : ""}`;
  it.row.hidden = !(acts && rule.armed !== null);
  setText(it.arm, rule.armed ? "Disarm" : "Arm");
  setText(it.why, rule.why ?? "");
  for (const view of rule.views ?? []) {
    const own = part(it.views, `rule ${rule.name} ${view.view}`, () => {
      const words = make("p", "quiet"), svg = shape("svg", { class: "plot", role: "img" });
      return { root: make("div", "", null, words, svg), words, svg };
    });
    const last = view.dots.at(-1) ?? 0;
    const words = `${view.view}: ${view.label} ${percent(last)}, ${view.hits} of ${view.window} frames count, ${view.needed} needed`;
    setText(own.words, words);
    own.svg.setAttribute("aria-label", words);
    drawDots(own.svg, view.dots, rule.thresholds);
  }
}

function buildAction(action) {
  const badge = make("span", "chip"), detail = make("p", "quiet"), level = make("p", "figures");
  const svg = shape("svg", { class: "plot", role: "img" }), test = make("button", "", "Test the pin");
  test.addEventListener("click", () => testPin(action.name));
  const row = make("div", "row", null, test);
  const pin = action.kind === "gpio" ? [svg, row] : [];
  const root = make("article", "card", null, make("div", "head", null, make("h3", "", action.name), badge), detail, level, ...pin);
  root.id = `action-${action.name}`;
  return { root, badge, detail, level, svg, row };
}

function drawAction(action) {
  const it = part(at("actions"), `action ${action.name}`, () => buildAction(action));
  chip(it.badge, action.health);
  setText(it.detail, action.detail);
  it.row.hidden = !acts;
  const figures = [`${action.depth} waiting`, `${action.dropped} dropped`];
  if (action.kind === "gpio") {
    const edges = state.edges.filter((edge) => edge.action === action.name);
    const high = edges.length > 0 && edges.at(-1).high;
    figures.unshift(high ? "high" : "low");
    it.root.dataset.edges = edges.length;
    it.root.classList.toggle("on", high);
    it.svg.setAttribute("aria-label", `Level over the last minute: now ${high ? "high" : "low"}`);
    drawLevels(it.svg, edges);
  }
  setText(it.level, figures.join(" · "));
}

function buildEvent(event) {
  const time = new Date(Date.now() - event.ago * 1000).toLocaleTimeString();
  const seen = `${event.label} ${percent(event.probability)}`;
  const picture = make("td", "thumb");
  if (event.picture) {
    const image = make("img"), button = make("button", "look", null, image);
    image.alt = `${seen} at ${event.view}, ${time}: show it large`;
    image.src = `/event/${event.id}`;
    button.addEventListener("click", () => showPicture(image.src, `${event.rule} on: ${seen} at ${event.view}, ${time}`));
    // The board keeps the last few only.
    image.addEventListener("error", () => button.remove());
    picture.append(button);
  }
  return make("tr", "", null,
    make("td", "", time),
    make("td", "", null, make("span", `chip ${event.on ? "good" : ""}`, `${event.rule} ${event.on ? "on" : "off"}`)),
    make("td", "", seen),
    make("td", "", event.view),
    picture);
}

const events = new Map();

/** Newest first. Rows stay as they are: a picture that is loaded anew with each message would flicker. */
function drawEvents() {
  at("no-events").hidden = state.events.length > 0;
  const shown = new Set(state.events.map((event) => event.id));
  for (const [id, row] of events) if (!shown.has(id)) { row.remove(); events.delete(id); }
  for (const event of [...state.events].reverse()) {
    if (events.has(event.id)) continue;
    const row = buildEvent(event);
    events.set(event.id, row);
    at("events").prepend(row);
  }
}

function showPicture(source, words) {
  at("snapshot-image").src = source;
  at("snapshot-image").alt = words;
  setText(at("snapshot-title"), words);
  dialog("snapshot");
}

const TRENDS = [["inference_ms", "Inference", "ms"], ["pin_ms", "Capture to pin", "ms"], ["celsius", "Temperature", "°C"]];

function drawHealth() {
  for (const [key, title, unit] of TRENDS) {
    const it = part(at("health"), `trend ${key}`, () => {
      const value = make("b"), svg = shape("svg", { class: "plot", role: "img" });
      const root = make("div", "card", null, make("div", "trend", null, make("h3", "", title), value), svg);
      return { root, value, svg };
    });
    const now = state.now[key];
    const throttled = key === "celsius" && state.now.throttled ? ", slowed down" : "";
    const words = now === null ? "not known here" : `${now.toFixed(now < 10 ? 2 : 1)} ${unit}${throttled}`;
    setText(it.value, words);
    it.svg.setAttribute("aria-label", `${title} over the last hour; now ${words}`);
    drawCurve(it.svg, state.hour[key]);
  }
}

function draw() {
  setText(at("device"), state.device);
  document.title = `${state.device} · Spotter`;
  const model = state.model ? `${state.model.file} on ${state.model.kernel}, ${state.model.threads} thread${state.model.threads === 1 ? "" : "s"}` : "loading the model";
  setText(at("facts"), `Spotter ${state.version} · ${model} · up ${ago(state.uptime)}`);
  at("refusal").hidden = state.refusal === null;
  setText(at("refusal"), state.refusal === null ? "" : `The configuration that was read last is not in force: ${state.refusal}`);
  state.cameras.forEach(drawCamera);
  state.rules.forEach(drawRule);
  state.actions.forEach(drawAction);
  drawEvents();
  drawHealth();
  removeOthers();
}

function link(text, className) {
  setText(at("link"), text);
  at("link").className = `chip ${className}`;
}

function listen() {
  const source = new EventSource("/api/live");
  source.addEventListener("hello", (message) => {
    const hello = JSON.parse(message.data);
    acts = hello.acts;
    photos = hello.photos;
    at("sign-in").hidden = acts || !hello.token;
    at("sign-out").hidden = at("reload").hidden = !acts;
    link("live", "good");
  });
  source.addEventListener("message", (message) => {
    state = JSON.parse(message.data);
    // Another daemon counts its events anew.
    if (state.run !== run) { run = state.run; events.forEach((row) => row.remove()); events.clear(); }
    draw();
  });
  // The browser connects again by itself.
  source.addEventListener("error", () => link("no connection", "bad"));
  return source;
}

// Nobody looks at a tab in the background: it costs the board nothing.
let source = listen();
document.addEventListener("visibilitychange", () => {
  source.close();
  if (!document.hidden) source = listen();
});

at("reload").addEventListener("click", () => ask("/api/reload", {}));
at("configuration").addEventListener("toggle", async () => {
  if (!at("configuration").open || at("sections").childElementCount) return;
  const sections = await (await fetch("/api/configuration")).json();
  at("sections").replaceChildren(...sections.map(({ heading, rows }) => {
    const list = make("dl");
    for (const [key, value] of rows) list.append(make("dt", "", key), make("dd", "", value));
    return make("article", "card", null, make("div", "head", null, make("h3", "", heading)), list);
  }));
});
