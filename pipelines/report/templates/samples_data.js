// The samples of a page: unpacked, and chosen by filters. No part of the page is touched here.

// A packed block: gzipped JSON in base64.
async function unpack(text) {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

// All answers of all blocks, in the order of suites, problems, checkpoints and samples.
async function unpackSamples(head, texts) {
  const { outcomes, checkpoints, suites, elsewhere, pictures, pictured } = await unpack(head);
  const answers = [];
  const flips = flipsOf(elsewhere);
  for (const [number, text] of texts.entries()) {
    const block = await unpack(text);
    const problems = block.ids.map((id, row) => ({
      suite: suites[block.suite],
      order: block.suite,
      place: block.places[row],
      id,
      cluster: block.clusters[row],
      prompt: block.prompts[row],
      picture: pictureOf(pictured[number][row], pictures),
      gold: block.golds[row],
      answers: [],
      graded: new Map(), // checkpoint -> [right answers, graded answers]
      flips: flips.get(`${block.suite} ${id}`) ?? [], // [checkpoint, base elsewhere, change]
    }));
    for (const answer of answersOf(block, problems, outcomes)) answers.push(answer);
  }
  const rank = new Map(checkpoints.map((label, place) => [label, place]));
  answers.sort(
    (a, b) =>
      a.problem.order - b.problem.order ||
      a.problem.place - b.problem.place ||
      rank.get(a.checkpoint) - rank.get(b.checkpoint) ||
      a.sample - b.sample,
  );
  const bases = [...new Set(elsewhere.map(([, , base]) => base))];
  return { outcomes, checkpoints, bases, suites, answers };
}

// Suite and problem -> how its answers compare with those of bases that are not on this page.
function flipsOf(elsewhere) {
  const flips = new Map();
  for (const [suite, checkpoint, base, gained, lost] of elsewhere) {
    for (const [change, ids] of [["better", gained], ["worse", lost]]) {
      for (const id of ids) {
        const key = `${suite} ${id}`;
        flips.set(key, [...(flips.get(key) ?? []), [checkpoint, base, change]]);
      }
    }
  }
  return flips;
}

// What stands for a picture: none, a reason why it is not here, or its data URI.
function pictureOf(found, pictures) {
  if (found === null) return null;
  return typeof found === "number" ? { uri: pictures[found] } : { missing: found };
}

function* answersOf(block, problems, outcomes) {
  const columns = block.answers;
  for (let row = 0; row < columns.problem.length; row++) {
    const state = (name) => block.states[columns[name][row]];
    const problem = problems[columns.problem[row]];
    const checkpoint = columns.checkpoint[row];
    const outcome = outcomes[columns.outcome[row]];
    const answer = {
      problem,
      checkpoint,
      outcome,
      sample: columns.sample[row],
      completion: columns.completion[row],
      tokens: columns.tokens[row],
      strict: columns.strict[row],
      flexible: columns.flexible[row],
      rewards: state("rewards"),
      end: state("end"),
      scores: state("scores"),
      checks: state("checks"),
      factors: state("factors"),
    };
    problem.answers.push(answer);
    const count = problem.graded.get(checkpoint) ?? [0, 0];
    if (outcome !== "ungraded") {
      count[0] += outcome === "correct" ? 1 : 0;
      count[1] += 1;
    }
    problem.graded.set(checkpoint, count);
    yield answer;
  }
}

// Whether a checkpoint gets a problem right more often than another ("better"), or less often ("worse"): as the
// comparisons of the report count it. Null where it is the same, or one side could not be graded.
function changeOf(problem, checkpoint, against) {
  const flip = problem.flips.find(([a, b]) => a === checkpoint && b === against);
  if (flip) return flip[2];
  const [own, other] = [problem.graded.get(checkpoint), problem.graded.get(against)];
  if (!own || !other || !own[1] || !other[1]) return null;
  const difference = own[0] * other[1] - other[0] * own[1];
  return difference > 0 ? "better" : difference < 0 ? "worse" : null;
}

// The answers that all filters let through, and how many outcomes of each kind all filters but that of the outcome do.
function choose(answers, filters) {
  const counts = new Map();
  const contains = finder(filters.text);
  const chosen = answers.filter((answer) => {
    if (!passes(answer, filters) || !contains(answer)) return false;
    counts.set(answer.outcome, (counts.get(answer.outcome) ?? 0) + 1);
    return !filters.outcome || answer.outcome === filters.outcome;
  });
  return { chosen, counts };
}

function passes(answer, { suite, checkpoint, factor, against, change }) {
  if (suite && answer.problem.suite.key !== suite) return false;
  if (checkpoint && answer.checkpoint !== checkpoint) return false;
  if (factor && !Object.entries(answer.factors).some(([key, value]) => `${key}=${value}` === factor)) return false;
  if (!against || !change) return true;
  const found = changeOf(answer.problem, answer.checkpoint, against);
  return change === "any" ? found !== null : found === change;
}

// A test of an answer for a text, upper or lower case: in its problem, which is read once, and in what was written.
function finder(text) {
  if (!text) return () => true;
  const pattern = patternOf(text);
  const known = new Map();
  const inProblem = (problem) => {
    if (!known.has(problem)) {
      const texts = [problem.id, problem.gold ?? "", ...problem.prompt.map((turn) => turn[1])];
      known.set(problem, texts.some((each) => pattern.test(each)));
    }
    return known.get(problem);
  };
  return (answer) => inProblem(answer.problem) || pattern.test(answer.completion);
}

function patternOf(text, flags = "iu") {
  return new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), flags);
}
