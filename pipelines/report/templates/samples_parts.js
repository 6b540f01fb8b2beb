// What a sample looks like. Text of models and data becomes text nodes, never HTML.

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const SIGNS = { correct: "✓", wrong: "✗", unparsed: "?", truncated: "…", ungraded: "–" };
const VERDICTS = { pass: "✓", fail: "✗", na: "–" };

function outcomeBadge(outcome) {
  return make("span", { className: `outcome ${outcome}` }, `${SIGNS[outcome]} ${outcome}`);
}

// One line: how the answer fell out, what was said, what was asked, who said it.
function summaryOf(answer, { several, sampled }) {
  const said = answer.strict ?? answer.flexible;
  const gold = answer.problem.gold;
  const asked = answer.problem.prompt.findLast((turn) => turn[0] === "user") ?? answer.problem.prompt.at(-1);
  const names = [answer.checkpoint];
  if (sampled) names.push(`answer ${answer.sample + 1}`);
  if (several) names.push(answer.problem.suite.title);
  return make(
    "summary",
    {},
    outcomeBadge(answer.outcome),
    make("span", { className: "asked" }, short(asked ? asked[1] : answer.problem.id)),
    make(
      "span",
      { className: "said" },
      make("b", {}, said === null ? "no answer" : short(said, 60)),
      answer.outcome === "correct" || gold === null ? null : ` instead of ${short(gold, 60)}`,
    ),
    make("span", { className: "who" }, names.join(" · ")),
  );
}

function short(text, most = 200) {
  const line = text.slice(0, 4 * most).replace(/\s+/g, " ").trim();
  return line.length > most ? `${line.slice(0, most - 1)}…` : line;
}

// All that is known of an answer, and the other answers to its problem; that of `against` is open.
function detailOf(answer, filters) {
  const { problem } = answer;
  const others = problem.answers.filter((each) => each !== answer);
  return make(
    "div",
    { className: "sample" },
    ...problem.prompt.flatMap(([role, content]) => [make("h4", {}, role), textBox(content, filters.text)]),
    pictureBox(problem),
    make("h4", {}, `${answer.checkpoint} answers`, make("small", {}, endOf(answer))),
    textBox(answer.completion, filters.text),
    factsOf(answer),
    others.length ? make("h4", {}, `Other answers to this problem: ${others.length}`) : null,
    ...others.map((each) => otherAnswer(each, filters)),
  );
}

function endOf(answer) {
  const [finish] = answer.end;
  const ends = { stop: "", length: ", up to the limit", error: ", ended by an error" };
  return `${answer.tokens === null ? "" : `${answer.tokens} tokens`}${ends[finish]}`;
}

function textBox(text, query) {
  // Reachable by Tab, so that long texts can be scrolled by keys.
  return make("pre", { tabIndex: 0, dir: "auto" }, ...(text ? marked(text, query) : [make("i", {}, "empty")]));
}

// The text, with what was searched for in <mark>.
function marked(text, query) {
  if (!query) return [text];
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(patternOf(query, "giu"))) {
    parts.push(text.slice(end, found.index), make("mark", {}, found[0]));
    end = found.index + found[0].length;
  }
  return [...parts, text.slice(end)];
}

function pictureBox(problem) {
  const { picture } = problem;
  if (picture === null) return null;
  if (picture.uri) return make("img", { src: picture.uri, alt: `The picture of problem ${problem.id}` });
  const reasons = {
    "left out": "The picture is not in this page, which holds no more of them.",
    unreadable: "The file of the picture could not be read.",
  };
  return make("p", { className: "note" }, reasons[picture.missing]);
}

function factsOf(answer) {
  const { problem, rewards } = answer;
  const shown = (value) => (value === null ? "none" : String(value));
  const checks = answer.checks.map(([name, , verdict]) => `${name} ${VERDICTS[verdict]}`).join(" · ");
  const facts = [
    ["outcome", outcomeBadge(answer.outcome), answer.end[1] ? ` ${answer.end[1]}` : null],
    ["gold answer", shown(problem.gold)],
    ["extracted, strict", shown(answer.strict), make("small", {}, ` reward ${shown(rewards[0])}`)],
    ["extracted, any form", shown(answer.flexible), make("small", {}, ` reward ${shown(rewards[1])}`)],
    ...answer.scores.map(([name, value, state]) => [name, shown(value), state ? make("small", {}, ` ${state}`) : null]),
    checks ? ["checks", checks] : null,
    ...Object.entries(answer.factors),
    ["problem", problem.id, problem.cluster === null ? null : make("small", {}, ` in ${problem.cluster}`)],
  ];
  const rows = facts.filter(Boolean);
  return make("dl", {}, ...rows.flatMap(([name, ...values]) => [make("dt", {}, name), make("dd", {}, ...values)]));
}

function otherAnswer(answer, filters) {
  const open = answer.checkpoint === filters.against;
  const said = answer.strict ?? answer.flexible;
  return make(
    "details",
    { open },
    make(
      "summary",
      {},
      outcomeBadge(answer.outcome),
      make("span", { className: "said" }, make("b", {}, said === null ? "no answer" : short(said, 60))),
      make("span", { className: "who" }, `${answer.checkpoint} · answer ${answer.sample + 1}`),
    ),
    textBox(answer.completion, filters.text),
  );
}
