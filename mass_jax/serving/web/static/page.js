"use strict";

// Texts of the model and of other people are untrusted: they are only ever assigned to textContent.

const PHASES = {
  answer: "answering without adaptation",
  examples: "writing synthetic examples",
  gates: "checking the examples",
  update: "adapting",
  second_answer: "answering again",
};

const find = (id) => document.getElementById(id);

// Spells out characters that are invisible or reorder a line; the log's page does the same.
function visible(text) {
  return String(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) =>
    c === "\n" ? c : "\\u{" + c.codePointAt(0).toString(16) + "}");
}

// A text of an event, which is a keyed hash with --log_text=hash.
function stored(value) {
  if (value === null || value === undefined) return "none";
  return typeof value === "object" ? "hash " + String(value.hmac_sha256).slice(0, 16) : visible(value);
}

function show(id, text) {
  find(id).textContent = text;
}

function report(text, bad = false) {
  show("status", text);
  find("status").classList.toggle("bad", bad);
}

function cell(row, tag, text, name = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (name) made.className = name;
  row.append(made);
}

function verdict(row, judged) {
  const reason = judged.passed ? "" : stored(judged.reason);
  cell(row, "td", judged.passed ? "pass" : "fail: " + reason, judged.passed ? "" : "bad");
}

function showExamples(examples) {
  const table = find("examples");
  table.replaceChildren();
  const head = table.insertRow();
  const gates = examples.length ? Object.keys(examples[0].verdicts) : [];
  for (const title of ["example", ...gates, "used"]) cell(head, "th", title);
  for (const example of examples) {
    const row = table.insertRow();
    cell(row, "td", stored(example.text), "text");
    for (const gate of gates) verdict(row, example.verdicts[gate]);
    cell(row, "td", example.used ? "yes" : "no");
  }
}

async function showAnswer(answer) {
  show("before", stored(answer.before));
  show("answer", stored(answer.text));
  show("decision", answer.decision + (answer.reason ? ": " + visible(answer.reason) : ""));
  show("event", answer.event);
  const response = await fetch("v1/events/" + encodeURIComponent(answer.event));
  const event = await response.json();
  if (!response.ok) throw new Error(event.error);
  showExamples(event.examples);
  find("result").hidden = false;
  report("done");
}

async function handle(name, data) {
  if (name === "accepted") report(data.ahead ? data.ahead + " questions are waiting before yours" : "waiting");
  else if (name === "progress") report(PHASES[data.phase] || visible(data.phase));
  else if (name === "error") throw new Error(data.error);
  else if (name === "answer") await showAnswer(data);
}

// Server-sent events of a response; EventSource cannot send a question.
async function read(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
    const parts = (rest + chunk.value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split("\n").map((line) => [line.split(": ", 1)[0], line.slice(line.indexOf(": ") + 2)]));
      if (fields.data) await handle(fields.event, JSON.parse(fields.data));
    }
  }
}

async function ask(event) {
  event.preventDefault();
  find("send").disabled = true;
  find("result").hidden = true;
  report("sending");
  try {
    const response = await fetch("v1/answers", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ problem: find("problem").value }),
    });
    if (!response.ok) throw new Error((await response.json()).error);
    await read(response);
    if (find("result").hidden) throw new Error("the server closed the connection; try again");
  } catch (error) {
    report(visible(error.message), true);
  } finally {
    find("send").disabled = false;
  }
}

find("ask").addEventListener("submit", ask);
