// The browser of samples: filters, pages, and an address for each choice (#samples&outcome=wrong&…).

const PER_PAGE = 25;
// A factor with more values than this is an id, which the search finds.
const MOST_VALUES = 100;
const ADDRESS = "#samples&";
const NAMES = ["suite", "checkpoint", "outcome", "against", "change", "factor", "text"];

async function showSamples(section) {
  const form = section.querySelector("form");
  const status = section.querySelector("[role=status]");
  if (typeof DecompressionStream === "undefined") {
    status.textContent = "This browser is too old to unpack the samples; each trials.jsonl of the run has them.";
    return;
  }
  status.textContent = "Unpacking the samples …";
  const packed = [...section.querySelectorAll("script")].map((element) => element.textContent);
  const samples = await unpackSamples(packed[0], packed.slice(1));
  const several = samples.suites.length > 1;
  const sampled = samples.answers.some((answer) => answer.sample > 0);
  const number = new Intl.NumberFormat("en").format;
  let chosen = [];
  let page = 0;

  fillForm(form, samples, sampled);

  const filters = () => {
    const values = Object.fromEntries(NAMES.map((name) => [name, form.elements[name].value]));
    return { ...values, text: values.text.trim() };
  };

  const showPage = () => {
    const last = Math.max(0, Math.ceil(chosen.length / PER_PAGE) - 1);
    page = Math.min(Math.max(page, 0), last);
    const start = page * PER_PAGE;
    const shown = chosen.slice(start, start + PER_PAGE);
    const items = shown.map((answer) => itemOf(answer, filters(), { several, sampled }));
    section.querySelector("ol").replaceChildren(...items);
    const [back, on] = section.querySelectorAll("nav button");
    back.disabled = page === 0;
    on.disabled = page === last;
    section.querySelector("nav").hidden = last === 0;
    const range = `${number(start + 1)}–${number(start + items.length)}`;
    section.querySelector("nav span").textContent = `${range} of ${number(chosen.length)}`;
  };

  const update = () => {
    const now = filters();
    const found = choose(samples.answers, now);
    chosen = found.chosen;
    page = 0;
    const problems = new Set(chosen.map((answer) => answer.problem)).size;
    const answers = `${number(chosen.length)} of ${number(samples.answers.length)} answers`;
    status.textContent = `${answers}, to ${number(problems)} ${problems === 1 ? "problem" : "problems"}`;
    form.elements.change.disabled = !now.against;
    countOutcomes(form, found.counts, number);
    showPage();
  };

  const changed = () => {
    update();
    history.replaceState(null, "", addressOf(form));
  };
  let waiting = 0;
  form.addEventListener("input", (event) => {
    clearTimeout(waiting);
    if (event.target.name === "text") waiting = setTimeout(changed, 150);
    else changed();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(changed));
  section.querySelector("nav").addEventListener("click", (event) => {
    if (event.target.tagName !== "BUTTON") return;
    page += Number(event.target.value);
    showPage();
    section.querySelector("ol").scrollIntoView({ block: "start" });
  });
  addEventListener("hashchange", () => {
    if (readAddress(form)) {
      update();
      section.scrollIntoView();
    }
  });

  const asked = readAddress(form);
  form.hidden = false;
  update();
  linkCounts();
  if (asked) section.scrollIntoView();
}

// A sample in the list. What is inside is made when it is opened.
function itemOf(answer, filters, context) {
  const details = make("details", {}, summaryOf(answer, context));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(detailOf(answer, filters));
  });
  return make("li", {}, details);
}

function fillForm(form, samples, sampled) {
  const option = (value, text = value) => make("option", { value }, text);
  form.elements.suite.append(...samples.suites.map((suite) => option(suite.key, suite.title)));
  for (const name of ["checkpoint", "against"]) {
    form.elements[name].append(...samples.checkpoints.map((each) => option(each)));
  }
  form.elements.against.append(...samples.bases.map((each) => option(each)));
  const values = new Map();
  for (const { factors } of samples.answers) {
    for (const [key, value] of Object.entries(factors)) values.set(key, (values.get(key) ?? new Set()).add(value));
  }
  for (const [key, found] of values) {
    if (found.size > MOST_VALUES) continue;
    const sorted = [...found].sort(new Intl.Collator("en", { numeric: true }).compare);
    const options = sorted.map((value) => option(`${key}=${value}`, value));
    form.elements.factor.append(make("optgroup", { label: key }, ...options));
  }
  const [, , better, worse] = form.elements.change.options;
  better.text = sampled ? "right more often" : "wrong → right";
  worse.text = sampled ? "right less often" : "right → wrong";
  // A filter with nothing to choose is not there.
  const alone = samples.checkpoints.length < 2;
  const single = alone && !samples.bases.length;
  const hidden = { checkpoint: alone, against: single, change: single };
  hidden.suite = samples.suites.length < 2;
  hidden.factor = form.elements.factor.options.length < 2;
  for (const [name, gone] of Object.entries(hidden)) form.elements[name].closest("label").hidden = gone;
}

// Beside each outcome, how many answers choosing it would show.
function countOutcomes(form, counts, number) {
  const all = [...counts.values()].reduce((sum, count) => sum + count, 0);
  for (const radio of form.elements.outcome) {
    const count = radio.value ? (counts.get(radio.value) ?? 0) : all;
    radio.parentElement.querySelector("small").textContent = number(count);
    radio.parentElement.classList.toggle("none", !count);
  }
}

function addressOf(form) {
  const given = NAMES.map((name) => [name, form.elements[name].value]).filter(([, value]) => value);
  return given.length ? ADDRESS + new URLSearchParams(given) : "#samples";
}

// Sets the filters that an address names; what it does not name, or what does not exist, is not filtered.
function readAddress(form) {
  if (!location.hash.startsWith(ADDRESS)) return false;
  const given = new URLSearchParams(location.hash.slice(ADDRESS.length));
  for (const name of NAMES) {
    const control = form.elements[name];
    const value = given.get(name) ?? "";
    if (control instanceof RadioNodeList) {
      const radios = [...control];
      (radios.find((radio) => radio.value === value) ?? radios[0]).checked = true; // its own setter skips ""
    } else {
      control.value = value;
      if (control.selectedIndex === -1) control.value = "";
    }
  }
  return true;
}

// Counts in the tables lead to the answers that they count.
function linkCounts() {
  for (const element of document.querySelectorAll("[data-samples]")) {
    if (!/[1-9]/.test(element.textContent)) continue;
    const link = make("a", { href: ADDRESS + element.dataset.samples });
    link.append(...element.childNodes);
    // The address stays the same when a link is followed twice; the filters may have been cleared in between.
    link.addEventListener("click", () => {
      if (location.hash === link.hash) dispatchEvent(new HashChangeEvent("hashchange"));
    });
    element.append(link);
  }
}

{
  const section = document.getElementById("samples");
  showSamples(section).catch((error) => {
    section.querySelector("[role=status]").textContent = `The samples cannot be shown: ${error.message}`;
  });
}
