// The page: the form, the key, the history and the sums of a session.

import { draw } from "./chart.js";
import { Exchange, made, money, time } from "./exchange.js";
import { ask, Failure } from "./stream.js";

const KEY = "playground-key";
/** As in the style sheet: what is asked and what was asked are side by side. */
const WIDE = matchMedia("(min-width: 66.01rem)");
const find = (id) => document.getElementById(id);
const [form, question, stop, history] = ["form", "question", "stop", "history"].map(find);
const [keyDialog, keyInput, keyKeep] = ["key-dialog", "key", "key-keep"].map(find);

const models = { drafter: "drafter", verifier: "verifier" };
const exchanges = [];
let running = null;
let key = kept() ?? "";
/** What to ask again once there is a key. */
let pending = "";

// --- asking ---

form.addEventListener("submit", (event) => {
  event.preventDefault();
  run(question.value);
});
stop.addEventListener("click", () => running.abort());
for (const chip of document.querySelectorAll("[data-question]")) {
  chip.addEventListener("click", () => askFor(chip.dataset.question));
}

function askFor(text) {
  question.value = text;
  form.requestSubmit();
}

async function run(text) {
  if (running) return;
  const exchange = new Exchange(text, models, say);
  remember(exchange);
  running = new AbortController();
  busy(true);
  const clock = setInterval(() => exchange.tick(), 100);
  try {
    for await (const event of ask(body(text), key, running.signal)) exchange.take(event);
  } catch (error) {
    if (running.signal.aborted) exchange.stop();
    else fail(exchange, failure(error));
  } finally {
    clearInterval(clock);
    running = null;
    busy(false);
    settle(exchange);
  }
}

function body(text) {
  return {
    query: text,
    max_tokens: find("max-tokens").valueAsNumber,
    temperature: find("temperature").valueAsNumber,
    force_direct: find("direct").checked,
    mode: find("buffered").checked ? "buffered" : "live",
  };
}

function failure(error) {
  if (error instanceof Failure) return error;
  console.error(error);
  return new Failure({ title: "This page failed", detail: String(error) });
}

function fail(exchange, told) {
  const { status, detail } = told.problem;
  const ask = () => askFor(exchange.question);
  const enter = () => openKey(detail, exchange.question);
  exchange.fail(told, status === 401 ? enter : ask);
  if (status === 401) enter();
}

function busy(is) {
  const focused = document.activeElement === stop;
  find("ask").setAttribute("aria-disabled", is);
  stop.hidden = !is;
  if (focused) question.focus();
}

function say(text) {
  find("status").textContent = text;
}

// --- history ---

function remember(exchange) {
  const item = made("past-template");
  const button = item.firstElementChild;
  exchanges.push(exchange);
  exchange.past = button;
  button.querySelector(".asked").textContent = exchange.question;
  button.addEventListener("focus", () => show(exchange));
  button.addEventListener("click", () => {
    show(exchange);
    find("stage").scrollIntoView({ block: WIDE.matches ? "nearest" : "start" });
  });
  find("history-empty").hidden = true;
  history.prepend(item);
  describe(exchange);
  show(exchange);
  find("stage").scrollIntoView({ block: "nearest" });
}

function describe(exchange) {
  const { past, outcome, result } = exchange;
  const meta = [exchange.label, ...(result ? [money(result.cost), time(result.latency_ms)] : [])];
  past.dataset.outcome = outcome;
  past.querySelector(".meta").textContent = meta.join(" · ");
}

function show(exchange) {
  for (const { past } of exchanges) {
    const shown = past === exchange.past;
    past.tabIndex = shown ? 0 : -1;
    if (shown) past.setAttribute("aria-current", "true");
    else past.removeAttribute("aria-current");
  }
  if (exchange.article.parentElement) return;
  find("stage").replaceChildren(exchange.article);
}

history.addEventListener("keydown", (event) => {
  const buttons = [...history.querySelectorAll("button")];
  const at = buttons.indexOf(document.activeElement);
  const to = { ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: buttons.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  buttons[to]?.focus();
});

// --- sums ---

function settle(exchange) {
  describe(exchange);
  const answered = exchanges.filter((each) => each.result);
  const rates = [];
  const savings = [];
  let [accepted, saved, alone] = [0, 0, 0];
  for (const { outcome, result } of answered) {
    saved += result.saved;
    alone += result.baseline_cost;
    savings.push({ value: saved, outcome });
    if (outcome === "direct") continue;
    accepted += outcome === "accepted";
    rates.push({ value: accepted / (rates.length + 1), outcome });
  }
  if (rates.length) showRate(rates, accepted);
  if (savings.length) showSaved(savings, saved, alone);
}

function showRate(points, accepted) {
  const percent = (value) => `${Math.round(value * 100)} %`;
  find("rate").textContent = percent(points.at(-1).value);
  find("rate-of").textContent = `${accepted} of ${points.length}`;
  const label = `Drafts accepted, after each: ${points.map((each) => percent(each.value)).join(", ")}`;
  draw(find("rate-chart"), points, { least: 0, most: 1, base: 0, label });
}

function showSaved(points, saved, alone) {
  const values = points.map((each) => each.value);
  find("saved").textContent = money(saved);
  find("saved-of").textContent = alone
    ? `${Math.round((100 * saved) / alone)} % of ${money(alone)} for the verifier alone`
    : "";
  const label = `Saved in all, after each: ${values.map(money).join(", ")}`;
  const [least, most] = [Math.min(0, ...values), Math.max(0, ...values)];
  draw(find("saved-chart"), points, { least, most, base: 0, label });
}

// --- the key ---

function openKey(why = "", question = "") {
  pending = question;
  find("key-why").textContent = why;
  keyInput.value = key;
  keyKeep.checked = kept() !== null;
  if (!keyDialog.open) keyDialog.showModal();
  keyInput.select();
}

function useKey(given) {
  key = given;
  keep(given && keyKeep.checked ? given : null);
  keyInput.value = "";
  showKey();
  keyDialog.close();
}

function kept() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    // The browser is told to store nothing.
    return null;
  }
}

function keep(given) {
  try {
    if (given) sessionStorage.setItem(KEY, given);
    else sessionStorage.removeItem(KEY);
  } catch {
    // The same: the key lasts as long as the page.
  }
}

function showKey() {
  find("key-open").textContent = key ? "API key ✓" : "API key";
}

find("key-open").addEventListener("click", () => openKey());
find("key-cancel").addEventListener("click", () => keyDialog.close());
find("key-forget").addEventListener("click", () => useKey(""));
find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(keyInput.value);
  if (pending && key) askFor(pending);
});

// --- the keyboard ---

document.addEventListener("keydown", (event) => {
  if (keyDialog.open) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  else if (event.key === "Escape") running?.abort();
  else if (event.key === "/" && event.target !== question) {
    event.preventDefault();
    question.focus();
  }
});

// --- what runs here ---

async function look() {
  try {
    const response = await fetch("health", { cache: "no-store", credentials: "omit" });
    if (!response.ok) throw new Error(String(response.status));
    const health = await response.json();
    for (const role of ["drafter", "verifier"]) {
      models[role] = health[role];
      find(role).textContent = health[role];
    }
    find("source").textContent = health.simulated ? "simulator" : "live";
    find("faults").hidden = !health.simulated;
  } catch {
    find("source").textContent = "not ready";
    setTimeout(look, 3000);
  }
}

showKey();
look();
// On a phone it would open the keyboard.
if (WIDE.matches) question.focus();
