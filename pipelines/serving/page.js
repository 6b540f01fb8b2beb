"use strict";
// Everything that a run or a model wrote becomes text, by textContent; nothing becomes markup.

const PERIOD = 2000;
const PATIENCE = 20000;
const at = (id) => document.getElementById(id);

function make(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (value) => String(value).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

const count = (value) => value.toLocaleString("en").replaceAll(",", "\u202f");
const few = (value) => Number(value.toPrecision(3)).toString();

function facts(live) {
  const found = [];
  const work = live.work;
  const running = live.state === "running";
  if (work) {
    found.push([work.what, `${count(work.done)} of ${count(work.total)}`, work.unit]);
    if (running && work.per_second) found.push([`${work.unit} per second`, few(work.per_second)]);
  }
  if (running && live.tokens_per_second) found.push(["tokens per second", count(Math.round(live.tokens_per_second))]);
  if (running && work && work.left !== null) found.push(["left of this stage", duration(work.left)]);
  if (live.workers) found.push(["workers", `${live.workers[0]} of ${live.workers[1]}`, "alive"]);
  if (running && live.memory.run !== undefined) {
    const machine = `machine ${count(live.memory.machine)} of ${count(live.memory.machine_total)}`;
    found.push(["memory, MiB", count(live.memory.run), machine]);
  }
  for (const gpu of running ? live.gpus : [])
    found.push([`GPU ${gpu.gpu}, MiB`, `${count(gpu.used)} of ${count(gpu.total)}`, `${gpu.busy} % busy`]);
  for (const [name, value] of Object.entries(live.numbers)) found.push([name, few(value)]);
  return found;
}

function showLive(live) {
  document.title = `${live.run} – ${live.state === "none" ? "Trivium" : live.state}`;
  at("run").textContent = live.run;
  const where = live.stage || "between two stages";
  const heard = live.state === "running" || live.age === null ? "" : `, last heard of ${duration(live.age)} ago`;
  at("state").textContent =
    live.state === "none" ? "No process is at work on this run." : `${live.state}: ${where} (${live.place}${heard})`;
  at("end").hidden = !live.why;
  at("why").textContent = live.why || "";
  at("resume").hidden = !live.command || live.state === "running";
  at("command").textContent = live.command || "";
  at("folder").textContent = live.folder || "";
  at("report").hidden = !live.report;
  at("bar").hidden = !live.work;
  if (live.work) {
    at("bar").max = live.work.total;
    at("bar").value = live.work.done;
  }
  at("facts").replaceChildren(
    ...facts(live).map(([name, value, more]) => {
      const box = make("div");
      box.append(make("dt", name), make("dd", value));
      if (more) box.append(make("dd", more, "sub"));
      return box;
    }),
  );
  at("stages").replaceChildren(
    ...live.stages.map((stage) => {
      const row = make("tr", null, stage.name === live.stage ? "current" : "");
      const name = make("th", stage.name);
      name.scope = "row";
      row.append(name, make("td", stage.state));
      row.append(make("td", stage.rows === null ? "" : count(stage.rows), "n"));
      row.append(make("td", stage.seconds === null ? "" : stage.seconds.toFixed(1), "n"));
      return row;
    }),
  );
}

function card(item) {
  const box = make("li", null, `triad ${["kept", "correct"].includes(item.verdict) ? "kept" : "dropped"}`);
  const image = make("div", null, "image");
  if (item.image) {
    const picture = make("img");
    picture.src = item.image;
    picture.alt = `The image of ${item.id}`;
    image.append(picture);
  } else image.append(make("span", "no image to show", "noimage"));
  const list = make("dl");
  for (const [name, text] of item.lines) list.append(make("dt", name), make("dd", text));
  const foot = make("footer");
  if (item.verdict) foot.append(make("b", item.verdict));
  foot.append(make("span", item.id));
  box.append(image, list, foot);
  return box;
}

let shown = "";

function showNewest(groups, text) {
  if (text === shown || !groups.length) return; // what somebody reads is not moved without need
  shown = text;
  at("newest").replaceChildren(
    ...groups.flatMap((group) => {
      const list = make("ul", null, "gallery");
      list.append(...group.items.map(card));
      return [make("h2", `The newest ${group.what} of ${group.stage}`), list];
    }),
  );
}

function choose(name) {
  for (const each of ["now", "newest"]) {
    at(each).hidden = each !== name;
    at(`tab-${each}`).setAttribute("aria-selected", String(each === name));
    at(`tab-${each}`).tabIndex = each === name ? 0 : -1;
  }
}

for (const [name, other] of [["now", "newest"], ["newest", "now"]]) {
  at(`tab-${name}`).addEventListener("click", () => choose(name));
  at(`tab-${name}`).addEventListener("keydown", (event) => {
    if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    choose(other);
    at(`tab-${other}`).focus();
  });
}

class Refused extends Error {} // the server's own line says why

async function read(place) {
  const answer = await fetch(place, { signal: AbortSignal.timeout(PATIENCE) });
  const text = await answer.text();
  if (!answer.ok) throw new Refused(text);
  return text;
}

async function refresh() {
  try {
    showLive(JSON.parse(await read("/live.json")));
    if (!at("newest").hidden) {
      const text = await read("/newest.json");
      showNewest(JSON.parse(text), text);
    }
  } catch (error) {
    at("state").textContent =
      error instanceof Refused
        ? error.message
        : "This page's own server does not answer; start `trivium serve` again.";
  }
  setTimeout(refresh, PERIOD);
}

at("tab-newest").addEventListener("click", async () => {
  try {
    const text = await read("/newest.json");
    showNewest(JSON.parse(text), text);
  } catch {
    return; // the next refresh says so
  }
});
refresh();
