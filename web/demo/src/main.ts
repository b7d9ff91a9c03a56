// The page: two students, one experiment.

import '@fontsource-variable/bricolage-grotesque/wght.css';
import '@fontsource-variable/jetbrains-mono/wght.css';
import './style.css';
import { Student, type Metrics } from 'oto-student';
import { fromQuery, seedOf, toQuery, type BackendChoice, type Settings } from './address';
import type { Chart, LaneName } from './chart';
import { verdict } from './claims';
import { Lane } from './lane';
import { attempt, failed, reason, tell, withdraw } from './notices';
import { EvaluationTable } from './table';
import { aboutTeacher, fetchPolicies, teacherOptions, teachersOf, type Policy, type ServedPolicy } from './teachers';
import { setUpTheme } from './theme';
import { ENVIRONMENTS, environment, type DemoEnvironment, type EnvironmentName } from './environments';

type Phase = 'idle' | 'running' | 'paused' | 'ended';

const byId = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const controls = byId<HTMLFormElement>('controls');
const startButton = byId<HTMLButtonElement>('start');
const resetButton = byId<HTMLButtonElement>('reset');
const seedInput = byId<HTMLInputElement>('seed');
const backendSelect = byId<HTMLSelectElement>('backend');
const teacherSelect = byId<HTMLSelectElement>('teacher');
const animateSwitch = byId<HTMLInputElement>('animate');
const verdictLine = byId('verdict');
const environmentChoices = [...document.querySelectorAll<HTMLInputElement>('#environments input')];
const environmentNames = Object.keys(ENVIRONMENTS);

/** What the visitor has chosen; the page's address says the same. */
let settings: Settings = fromQuery(location.search, environmentNames);
let chosen: DemoEnvironment = environment(settings.environment as EnvironmentName);
const table = new EvaluationTable(byId<HTMLTableElement>('table'));
const students = new Map<LaneName, Student>();
const lanes = [...document.querySelectorAll<HTMLElement>('.lane')].map(
  (root) => new Lane(root, chosen, (connected) => void switchCable(root.dataset['lane'] as LaneName, connected)),
);
const [alone, taught] = (['alone', 'taught'] as const).map((name) => lanes.find((lane) => lane.name === name)!) as [Lane, Lane];
/** The learning curves, once their library is there, and what it will have missed until then. */
let chart: Chart | undefined;
let missed: [LaneName, Metrics][] = [];
/** What the server offers; nothing until it has answered. */
let served: ServedPolicy[] | undefined;
let policies: Policy[] = [];
/** Whether the server could not be asked. */
let unlisted = false;
let phase: Phase = 'idle';
/** Counts experiments, so that what an old one still says is not shown in a new one. */
let experiment = 0;

function enter(next: Phase): void {
  phase = next;
  startButton.textContent = { idle: 'Start', running: 'Pause', paused: 'Resume', ended: 'Start again' }[phase];
  resetButton.disabled = phase === 'idle';
  seedInput.disabled = teacherSelect.disabled = backendSelect.disabled = phase === 'running' || phase === 'paused';
}

async function begin(): Promise<void> {
  reset();
  enter('running');
  const current = experiment;
  announce();
  const ends = lanes.map(async (lane) => {
    try {
      await play(lane, current);
    } catch (error) {
      if (current === experiment) fail(lane, error);
    }
  });
  await Promise.all(ends);
  if (current === experiment) enter('ended');
}

/** Creates a lane's student, trains it to the end of its run and shows everything it reports. */
async function play(lane: Lane, current: number): Promise<void> {
  const policy = policies[teacherSelect.selectedIndex];
  const teachers = lane.name === 'taught' && policy !== undefined ? [teacherOptions(policy)] : [];
  const { seed, backend } = settings;
  const student = await Student.create({ ...chosen.student, seed, teachers, backend });
  if (current !== experiment) return student.dispose();
  students.set(lane.name, student);
  lane.begin(student);
  if (phase === 'paused') await student.pause();
  for await (const metrics of student.train()) {
    if (current !== experiment) return;
    attempt('The learning curves', () => addToChart(lane.name, metrics));
    attempt('The table of evaluations', () => metrics.newEvaluations.forEach((evaluation) => table.add(lane.name, evaluation)));
    attempt('A student’s numbers', () => lane.update(metrics));
    announce();
  }
  lane.end('finished');
}

function fail(lane: Lane, error: unknown): void {
  lane.end('stopped');
  tell(lane.name, `The student ${lane.name} stopped: ${reason(error)}`);
}

function reset(): void {
  experiment += 1;
  for (const student of students.values()) student.dispose();
  students.clear();
  lanes.forEach((lane) => lane.clear());
  missed = [];
  attempt('The learning curves', () => chart?.clear(chosen));
  attempt('The table of evaluations', () => table.clear());
  lanes.forEach((lane) => withdraw(lane.name));
  verdictLine.textContent = chosen.invitation;
  enter('idle');
}

/** Shows an environment; an experiment in the old one ends, and one that was running starts again in the new one. */
function enterEnvironment(name: EnvironmentName): void {
  const running = phase === 'running';
  chosen = environment(name);
  document.documentElement.dataset['environment'] = name;
  for (const choice of environmentChoices) choice.checked = choice.value === name;
  byId('title').textContent = chosen.title;
  showPitch();
  byId('notes').textContent = chosen.notes;
  showKey();
  lanes.forEach((lane) => lane.setUp(chosen));
  reset();
  offerTeachers();
  if (running) void begin();
  else void rehearse();
}

/** What is learnt here, and who teaches it; of the teacher only once the server has said who there is. */
function showPitch(): void {
  const teacher = served === undefined && !unlisted ? '' : ` ${aboutTeacher(chosen, policies[teacherSelect.selectedIndex])}`;
  byId('pitch').textContent = chosen.pitch + teacher;
}

/** What the marks of the pictures mean. */
function showKey(): void {
  const entries = chosen.key.map(([mark, text]) => {
    const entry = document.createElement('li');
    entry.className = mark;
    entry.textContent = text;
    return entry;
  });
  const key = byId('key');
  key.replaceChildren(...entries);
  key.hidden = entries.length === 0;
}

/** Shows the first moment of the first episode, by a student that nobody trains; it also fetches what Start needs. */
async function rehearse(): Promise<void> {
  try {
    const student = await Student.create(chosen.student);
    await Promise.all(lanes.map((lane) => lane.rehearse(student)));
    student.dispose();
  } catch {
    // Start meets the same failure, and reports it.
  }
}

async function pauseOrResume(): Promise<void> {
  const resume = phase === 'paused';
  enter(resume ? 'running' : 'paused');
  await whileItLasts(Promise.all([...students.values()].map((student) => (resume ? student.resume() : student.pause()))));
}

async function switchCable(lane: LaneName, connected: boolean): Promise<void> {
  const student = students.get(lane);
  await whileItLasts(connected ? student?.connectTeachers() : student?.disconnectTeachers());
}

/** Waits for what students were asked to do; what an experiment that ends meanwhile says of it concerns nobody. */
async function whileItLasts(asked: Promise<unknown> | undefined): Promise<void> {
  const current = experiment;
  try {
    await asked;
  } catch (error) {
    if (current === experiment) throw error;
  }
}

/** Puts into words who has solved the task, and by how much the teacher helped, as far as that may be claimed. */
function announce(): void {
  const text = verdict(alone.standing, taught.standing, chosen) ?? 'Both students start from the same seed.';
  if (verdictLine.textContent !== text) verdictLine.textContent = text;
}

/** Adds what a student reported to the learning curves, now or once they are there. */
function addToChart(lane: LaneName, metrics: Metrics): void {
  if (chart === undefined) missed.push([lane, metrics]);
  else chart.add(lane, metrics);
}

/** Draws the learning curves from when their library is there; without it the numbers are in the table. */
async function loadChart(): Promise<void> {
  try {
    const { Chart } = await import('./chart');
    chart = new Chart(byId('chart'), chosen);
    for (const [lane, metrics] of missed) chart.add(lane, metrics);
  } catch (error) {
    failed('The learning curves', error);
  }
}

/** Lists who can teach in this environment; before the server has answered there is nobody to list. */
function offerTeachers(): void {
  if (served === undefined) return;
  policies = teachersOf(chosen, served);
  teacherSelect.replaceChildren(...policies.map(({ title, name }) => new Option(title, name)));
  const { teacher } = settings;
  const index = teacher === undefined ? 0 : policies.findIndex(({ name }) => name === teacher);
  teacherSelect.selectedIndex = Math.max(0, index);
  showPitch();
  if (index >= 0) return withdraw('teacher');
  tell('teacher', `No teacher here is called ${teacher}; ${policies[0]!.name} is chosen.`);
}

async function loadTeachers(): Promise<void> {
  try {
    served = await fetchPolicies();
    offerTeachers();
  } catch (error) {
    teacherSelect.replaceChildren(new Option('No teacher here'));
    unlisted = true;
    showPitch();
    tell('teachers', `The server's teachers could not be listed (${reason(error)}). Both students will learn alone.`);
  }
  teacherSelect.disabled = phase === 'running' || phase === 'paused';
}

/** Takes over a choice, and puts it into the address: a step that Back takes back. */
function choose(choice: Partial<Settings>): void {
  settings = { ...settings, ...choice };
  const query = toQuery(settings, location.search, environmentNames);
  if (query !== location.search) history.pushState(null, '', location.pathname + query + location.hash);
}

/** Shows the settings of the address; an experiment that runs starts again with them. */
function followAddress(): void {
  const before = settings;
  settings = fromQuery(location.search, environmentNames);
  correctAddress();
  showSettings();
  // Whether the picture moves is no part of the experiment.
  const same = (['environment', 'seed', 'teacher', 'backend'] as const).every((key) => settings[key] === before[key]);
  if (!same) enterEnvironment(settings.environment as EnvironmentName);
}

/** Makes the address say what the page does: what it asks for wrongly is left out. */
function correctAddress(): void {
  const query = toQuery(settings, location.search, environmentNames);
  const asked = (text: string) => new URLSearchParams(text).toString();
  if (asked(query) !== asked(location.search)) history.replaceState(null, '', location.pathname + query + location.hash);
}

function showSettings(): void {
  seedInput.value = String(settings.seed);
  backendSelect.value = settings.backend;
  animateSwitch.checked = settings.animate ?? !matchMedia('(prefers-reduced-motion: reduce)').matches;
  document.documentElement.dataset['motion'] = animateSwitch.checked ? 'on' : 'off';
  lanes.forEach((lane) => lane.showcase.animate(animateSwitch.checked));
}

/** What nobody caught is told too, so that the page does not stand still without a word. */
addEventListener('error', ({ error }) => error && failed('Something', error));
addEventListener('unhandledrejection', (event) => failed('Something', event.reason));
addEventListener('popstate', followAddress);
controls.addEventListener('submit', (event) => {
  event.preventDefault();
  if (phase === 'running' || phase === 'paused') return void pauseOrResume();
  // The form is valid by now; the field may not have told of its change yet.
  choose({ seed: seedInput.valueAsNumber });
  void begin();
});
resetButton.addEventListener('click', reset);
seedInput.addEventListener('change', () => {
  const seed = seedOf(seedInput.value);
  if (seed !== undefined) choose({ seed });
});
teacherSelect.addEventListener('change', () => {
  const { selectedIndex } = teacherSelect;
  choose({ teacher: selectedIndex === 0 ? undefined : policies[selectedIndex]?.name });
  showPitch();
});
backendSelect.addEventListener('change', () => choose({ backend: backendSelect.value as BackendChoice }));
animateSwitch.addEventListener('change', () => {
  choose({ animate: animateSwitch.checked });
  showSettings();
});
attempt('The theme', () =>
  setUpTheme(byId<HTMLButtonElement>('theme'), () => {
    attempt('The learning curves', () => chart?.restyle());
    lanes.forEach((lane) => lane.showcase.draw());
  }),
);
for (const choice of environmentChoices) {
  choice.addEventListener('change', () => {
    // Another environment has other teachers.
    choose({ environment: choice.value, teacher: undefined });
    enterEnvironment(choice.value as EnvironmentName);
  });
}
attempt('The settings', showSettings);
correctAddress();
enterEnvironment(settings.environment as EnvironmentName);
void loadChart();
void loadTeachers();
