// One question and what becomes of it: its steps as they happen, its cost and its time.

const OUTCOMES = {
  running: "Asking…",
  accepted: "Draft accepted",
  rejected: "Draft rejected",
  direct: "Verifier at once",
  failed: "No answer",
  stopped: "Stopped",
};
const CURES = {
  401: "Enter an API key that this service knows.",
  402: "The budget is in the service's settings; a shorter question, or fewer tokens, cost less.",
  413: "Shorten the question.",
  421: "Open this page by a name that the service answers to.",
  422: "Change the question or the options.",
  429: "Others may ask meanwhile: each client has a limit of its own.",
  502: "A model failed, not your question. If it lasts, the service's log says more.",
  503: "This passes: ask again in a moment.",
  504: "Ask again, or for fewer tokens.",
};
const ASK_AGAIN = "Ask again";

/** US dollars, to three digits that count. */
export function money(dollars) {
  const style = { style: "currency", currency: "USD" };
  const digits = dollars === 0 ? {} : { maximumSignificantDigits: 3 };
  return new Intl.NumberFormat("en-US", { ...style, ...digits }).format(dollars);
}

/** Milliseconds as people say them. */
export function time(milliseconds) {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A copy of the first element in a `<template>`. */
export function made(template) {
  const { content } = document.getElementById(template);
  return content.firstElementChild.cloneNode(true);
}

export class Exchange {
  outcome = "running";
  /** The `result` of `complete`. */
  result = null;
  /** Its button in the history. */
  past = null;
  #began = performance.now();
  #article = made("exchange-template");
  /** The text that is being written: its element, and its text node. */
  #step = null;
  #text = null;
  #verdict = null;
  #firstWords = null;

  /** `models` has the names of drafter and verifier; `say` tells those who listen. */
  constructor(question, models, say) {
    this.question = question;
    this.models = models;
    this.say = say;
    this.#find("h2").textContent = question;
    this.#told();
    this.tick();
  }

  get article() {
    return this.#article;
  }

  get label() {
    if (this.result?.degraded) return "Rejected draft kept";
    if (this.outcome === "rejected" && this.#verdict?.score === null) return "Drafter failed";
    return OUTCOMES[this.outcome];
  }

  /** In milliseconds: what the service says, or what has gone by here. */
  get elapsed() {
    return this.result?.latency_ms ?? performance.now() - this.#began;
  }

  tick() {
    this.#find(".clock").textContent = time(this.elapsed);
  }

  take({ type, content, data }) {
    switch (type) {
      case "routing":
        this.#fact("Question", data.complexity);
        if (data.strategy === "direct") this.#write("verifier", this.models.verifier);
        else this.#write("draft", this.models.drafter);
        break;
      case "chunk":
        this.#read(content, data);
        break;
      case "draft_decision":
        this.#judge(data);
        break;
      case "switch":
        this.#withdraw(data);
        break;
      case "complete":
        this.#complete(data.result);
    }
  }

  /** There is no answer; `act` is what the button does once it may. */
  fail({ problem, retryAfter }, act) {
    this.#end("failed", "no answer");
    const step = made("problem-template");
    step.querySelector("h3").textContent = problem.title;
    step.querySelector(".detail").textContent = problem.detail;
    step.querySelector(".cure").textContent = CURES[problem.status] ?? "";
    for (const { field, message } of problem.errors ?? []) {
      const item = document.createElement("li");
      item.textContent = `${field}: ${message}`;
      step.querySelector("ul").append(item);
    }
    const button = step.querySelector("button");
    button.textContent = problem.status === 401 ? "Enter a key" : ASK_AGAIN;
    button.addEventListener("click", act);
    if (retryAfter) this.#countDown(button, retryAfter);
    this.#find(".steps").append(step);
    this.say(`${problem.title}. ${problem.detail}`);
  }

  stop() {
    this.#end("stopped", "no answer");
    this.say("Stopped.");
  }

  #find(selector) {
    return this.#article.querySelector(selector);
  }

  #write(phase, model) {
    this.#step = made("text-template");
    this.#text = document.createTextNode("");
    this.#step.querySelector(".text").append(this.#text);
    this.#name(phase, model);
    this.#mark("writing", "writing…");
    this.#find(".steps").append(this.#step);
    this.say(`${model} writes.`);
  }

  #name(phase, model) {
    const draft = phase === "draft";
    this.#step.classList.toggle("draft", draft);
    this.#step.classList.toggle("verifier", !draft);
    this.#step.querySelector(".role").textContent = draft ? "Draft" : "Verifier";
    this.#step.querySelector(".model").textContent = model;
  }

  #mark(state, label) {
    this.#step.dataset.state = state;
    this.#step.querySelector(".state").textContent = label;
  }

  #read(content, { phase, model }) {
    if (this.#firstWords === null) {
      this.#firstWords = performance.now() - this.#began;
      this.#fact("First words", time(this.#firstWords));
    }
    this.#name(phase, model);
    this.#text.appendData(content);
  }

  #judge(verdict) {
    this.#verdict = verdict;
    const { accepted, score, confidence, reason } = verdict;
    const judged = accepted ? "accepted" : "rejected";
    const step = made("verdict-template");
    step.dataset.state = judged;
    step.querySelector(".judged").textContent = score === null ? "no draft" : judged;
    step.querySelector(".reason").textContent = reason;
    if (score === null) step.querySelector(".meters").remove();
    else {
      const values = [score, confidence];
      for (const [index, line] of step.querySelectorAll(".meters p").entries()) {
        line.querySelector(".gauge span").style.width = `${100 * values[index]}%`;
        line.querySelector("b").textContent = values[index].toFixed(2);
      }
    }
    if (accepted) this.#mark("stands", "stands");
    else if (!this.#text.data) this.#mark("none", score === null ? "did not come" : "held back");
    this.#find(".steps").append(step);
    this.say(score === null ? reason : `Draft ${judged}, score ${score.toFixed(2)}.`);
  }

  #withdraw({ to_model: model, discard }) {
    if (discard) this.#strike();
    const phase = model === this.models.drafter ? "draft" : "verifier";
    this.#write(phase, model);
  }

  #strike() {
    const struck = document.createElement("del");
    this.#text.replaceWith(struck);
    struck.append(this.#text);
    this.#mark("withdrawn", "withdrawn");
  }

  #complete(result) {
    this.result = result;
    this.#text.data = result.content;
    let outcome = "direct";
    if (result.cascaded) outcome = result.draft_accepted ? "accepted" : "rejected";
    if (result.degraded) this.#end(outcome, "rejected, but all there is", "kept");
    else this.#end(outcome, "the answer", "stands");
    const { usage, finish_reason: finish } = result;
    this.#fact("Time", time(result.latency_ms));
    this.#fact("Tokens", `${usage.input_tokens} in, ${usage.output_tokens} out`);
    this.#fact("Answered by", result.model_used);
    if (finish === "length") this.#fact("Cut off", "at the most tokens allowed");
    this.#cost(result);
    this.say(`${this.label}. ${result.model_used}: ${result.content}`);
  }

  #cost({ cost, baseline_cost: alone, saved }) {
    const most = Math.max(cost, alone) || 1;
    this.#find(".cost").textContent = money(cost);
    this.#find("b.alone").textContent = money(alone);
    this.#find(".bar.paid").style.width = `${(100 * cost) / most}%`;
    this.#find(".bar.alone").style.width = `${(100 * alone) / most}%`;
    const share = alone ? ` (${Math.abs((100 * saved) / alone).toFixed(0)} %)` : "";
    const saving = this.#find(".saving");
    saving.dataset.sign = Math.sign(saved);
    saving.textContent =
      saved === 0 ? "nothing saved" : `${money(Math.abs(saved))}${share} ${saved > 0 ? "saved" : "lost"}`;
    this.#find(".costs").hidden = false;
  }

  #end(outcome, label, state = "broken") {
    this.outcome = outcome;
    if (this.#step && this.#step.dataset.state !== "none") this.#mark(state, label);
    this.#told();
    this.tick();
  }

  #told() {
    this.#article.dataset.outcome = this.outcome;
    this.#find(".outcome b").textContent = this.label;
  }

  #fact(name, value) {
    const term = document.createElement("dt");
    const told = document.createElement("dd");
    term.textContent = name;
    told.textContent = value;
    this.#find("dl").append(term, told);
  }

  #countDown(button, seconds) {
    const end = performance.now() + seconds * 1000;
    const show = () => {
      const left = Math.ceil((end - performance.now()) / 1000);
      button.disabled = left > 0;
      const wait = left < 60 ? `${left} s` : time(left * 1000);
      button.textContent = left > 0 ? `${ASK_AGAIN} in ${wait}` : ASK_AGAIN;
      if (left > 0) return;
      clearInterval(timer);
      this.say("You can ask again.");
    };
    const timer = setInterval(show, 250);
    show();
  }
}
