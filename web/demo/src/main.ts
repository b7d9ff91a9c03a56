// The page: two students, one experiment.

import '@fontsource-variable/bricolage-grotesque/wght.css';
import '@fontsource-variable/jetbrains-mono/wght.css';
import './style.css';
import { Student } from 'oto-student';
import { Chart, type LaneName } from './chart';
import { count } from './format';
import { Lane } from './lane';
import { EvaluationTable } from './table';
import { fetchPolicies, teacherOptions, teachersOf, type Policy, type ServedPolicy } from './teachers';
import { setUpTheme } from './theme';
import { toAddress, world, worldOfAddress, type World, type WorldName } from './worlds';

type Phase = 'idle' | 'running' | 'paused' | 'ended';

const byId = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const controls = byId<HTMLFormElement>('controls');
const startButton = byId<HTMLButtonElement>('start');
const resetButton = byId<HTMLButtonElement>('reset');
const seedInput = byId<HTMLInputElement>('seed');
const backendSelect = byId<HTMLSelectElement>('backend');
const teacherSelect = byId<HTMLSelectElement>('teacher');
const animateSwitch = byId<HTMLInputElement>('animate');
const alertLine = byId('alert');
const verdict = byId('verdict');
const worldChoices = [...document.querySelectorAll<HTMLInputElement>('#worlds input')];

let chosen: World = world(worldOfAddress());
const table = new EvaluationTable(byId<HTMLTableElement>('table'));
const chart = new Chart(byId('chart'), chosen);
const students = new Map<LaneName, Student>();
const lanes = [...document.querySelectorAll<HTMLElement>('.lane')].map(
  (root) => new Lane(root, chosen, (connected) => void switchCable(root.dataset['lane'] as LaneName, connected)),
);
/** What the server offers; nothing until it has answered. */
let served: ServedPolicy[] | undefined;
let policies: Policy[] = [];
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
  verdict.textContent = 'Both students start from the same seed.';
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
  const backend = backendSelect.value as 'cpu' | 'webgpu' | 'auto';
  const student = await Student.create({ ...chosen.student, seed: seedInput.valueAsNumber, teachers, backend });
  if (current !== experiment) return student.dispose();
  students.set(lane.name, student);
  lane.begin(student);
  if (phase === 'paused') await student.pause();
  for await (const metrics of student.train()) {
    if (current !== experiment) return;
    chart.add(lane.name, metrics);
    for (const evaluation of metrics.newEvaluations) table.add(lane.name, evaluation);
    if (lane.update(metrics)) announce();
  }
  lane.end('finished');
}

function fail(lane: Lane, error: unknown): void {
  lane.end('stopped');
  alertLine.hidden = false;
  alertLine.textContent = `The student ${lane.name} stopped: ${error instanceof Error ? error.message : error}`;
}

function reset(): void {
  experiment += 1;
  for (const student of students.values()) student.dispose();
  students.clear();
  lanes.forEach((lane) => lane.clear());
  chart.clear(chosen);
  table.clear();
  alertLine.hidden = true;
  verdict.textContent = chosen.invitation;
  enter('idle');
}

/** Shows a world; an experiment in the old one ends, and one that was running starts again in the new one. */
function enterWorld(name: WorldName): void {
  const running = phase === 'running';
  chosen = world(name);
  document.documentElement.dataset['world'] = name;
  for (const choice of worldChoices) choice.checked = choice.value === name;
  byId('title').textContent = chosen.title;
  byId('pitch').textContent = chosen.pitch;
  byId('notes').textContent = chosen.notes;
  showKey();
  lanes.forEach((lane) => lane.setUp(chosen));
  reset();
  offerTeachers();
  if (running) void begin();
  else void rehearse();
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

/** Puts into words who has solved the task, and by how much the teacher helped. */
function announce(): void {
  const done = (name: LaneName) => lanes.find((lane) => lane.name === name)?.doneAt;
  const [alone, taught] = [done('alone'), done('taught')];
  if (alone !== undefined && taught !== undefined) {
    const ratio = (alone / taught).toFixed(1);
    verdict.textContent = `Taught: ${count(taught)} steps. Alone: ${count(alone)} steps, ${ratio} times as many.`;
  } else if (taught !== undefined) {
    verdict.textContent = `The taught student ${chosen.does} after ${count(taught)} steps. The other is still at it.`;
  } else if (alone !== undefined) {
    verdict.textContent = `The student alone ${chosen.does} after ${count(alone)} steps, before the taught one.`;
  }
}

/** Lists who can teach in this world; before the server has answered there is nobody to list. */
function offerTeachers(): void {
  if (served === undefined) return;
  policies = teachersOf(chosen, served);
  teacherSelect.replaceChildren(...policies.map(({ title, name }) => new Option(title, name)));
}

async function loadTeachers(): Promise<void> {
  try {
    served = await fetchPolicies();
    offerTeachers();
  } catch (error) {
    teacherSelect.replaceChildren(new Option('No teacher here'));
    alertLine.hidden = false;
    alertLine.textContent = `The server's teachers could not be listed (${error instanceof Error ? error.message : error}). Both students will learn alone.`;
  }
  teacherSelect.disabled = phase === 'running' || phase === 'paused';
}

controls.addEventListener('submit', (event) => {
  event.preventDefault();
  void (phase === 'running' || phase === 'paused' ? pauseOrResume() : begin());
});
resetButton.addEventListener('click', reset);
animateSwitch.checked = !matchMedia('(prefers-reduced-motion: reduce)').matches;
const animate = () => {
  document.documentElement.dataset['motion'] = animateSwitch.checked ? 'on' : 'off';
  lanes.forEach((lane) => lane.showcase.animate(animateSwitch.checked));
};
animateSwitch.addEventListener('change', animate);
animate();
setUpTheme(byId<HTMLButtonElement>('theme'), () => {
  chart.restyle();
  lanes.forEach((lane) => lane.showcase.draw());
});
for (const choice of worldChoices) {
  choice.addEventListener('change', () => {
    toAddress(choice.value as WorldName);
    enterWorld(choice.value as WorldName);
  });
}
enterWorld(worldOfAddress());
void loadTeachers();
