// A worker that learns nothing: it answers the demo as a student's worker would, from a script, so that a test says what a student
// reports and when.

/** What every report has that the script does not say. */
const REPORT = {
  step: 0, steps: 50_000, updates: 0, episodes: 0, stage: 'online', rounds: 0, done: false, epsilon: 0, learningRate: 0.001,
  lastEvaluation: null, loss: null, backend: { name: 'cpu', tried: [], lost: null }, labels: 0, transitionsSent: 0,
  transitionsKept: 0, stepsPerSecond: 0, updatesPerSecond: 0, newEpisodes: [], newEvaluations: [], teachers: [],
};

/**
 * The worker's source. `script` has the reports of the student `alone` and of the one `taught`, each `{ labels, means }`: all labels by
 * then, and the returns of evaluations, which are 500 steps apart. After the last report there is no news. An episode ends after `length`
 * steps.
 */
export function scriptedWorker(script, length = 3) {
  return `(${worker})(${JSON.stringify({ script, length, report: REPORT })});`;
}

function worker({ script, length, report }) {
  let reports = [];
  let evaluations = 0;
  let now = report;
  let scene;
  const calls = {
    create(config) {
      reports = [...script[config.teachers.length > 0 ? 'taught' : 'alone']];
      return { observationSpace: { kind: 'box', low: [0, 0, 0, 0], high: [1, 1, 1, 1] }, actionSpace: { kind: 'discrete', n: 2 } };
    },
    next() {
      const told = reports.shift();
      if (told === undefined) return new Promise(() => {});
      const newEvaluations = told.means.map((mean) => ({ step: (evaluations += 1) * 500, mean, min: mean, max: mean, episodes: 10, baselines: [] }));
      now = { ...report, labels: told.labels, step: evaluations * 500, newEvaluations };
      return new Promise((resolve) => setTimeout(resolve, 30, { metrics: now, over: false }));
    },
    watch(seed) {
      if (seed !== null) scene = { state: [0, 0, 0, 0], step: 0, limit: 500, trained: now.step, action: [], reward: 0, return: 0, over: false, map: null };
      else if (scene.over) throw new Error('the episode is over');
      else scene = { ...scene, step: scene.step + 1, action: [1], reward: 1, return: scene.return + 1, over: scene.step + 1 === length };
      return scene;
    },
  };
  onmessage = async ({ data: { id, name, args } }) => {
    try {
      postMessage({ type: 'answer', id, value: await calls[name]?.(...args) });
    } catch (error) {
      postMessage({ type: 'error', id, error: { kind: 'environment', message: error.message, field: null } });
    }
  };
}
