// The page: two students, one experiment.

import '@fontsource-variable/bricolage-grotesque/wght.css';
import '@fontsource-variable/jetbrains-mono/wght.css';
import './style.css';
import { Student } from 'oto-student';
import { Chart, type LaneName } from './chart';
import { count, score } from './format';
import { Lane } from './lane';
import { fetchTeachers, teacherOptions, type Policy } from './teachers';
import { setUpTheme } from './theme';

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
const table = byId<HTMLTableSectionElement>('table');

const chart = new Chart(byId('chart'));
const students = new Map<LaneName, Student>();
const lanes = [...document.querySelectorAll<HTMLElement>('.lane')].map(
  (root) => new Lane(root, (connected) => void switchCable(root.dataset['lane'] as LaneName, connected)),
);
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
  const student = await Student.create({ env: 'CartPole-v1', seed: seedInput.valueAsNumber, teachers, backend });
  if (current !== experiment) return student.dispose();
  students.set(lane.name, student);
  lane.begin(student);
  if (phase === 'paused') await student.pause();
  for await (const metrics of student.train()) {
    if (current !== experiment) return;
    chart.add(lane.name, metrics);
    for (const { step, mean } of metrics.newEvaluations) addRow(lane.name, step, mean);
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
  chart.clear();
  table.replaceChildren();
  alertLine.hidden = true;
  verdict.textContent = 'Press Start, and watch who balances first.';
  enter('idle');
}

async function pauseOrResume(): Promise<void> {
  const resume = phase === 'paused';
  enter(resume ? 'running' : 'paused');
  await Promise.all([...students.values()].map((student) => (resume ? student.resume() : student.pause())));
}

async function switchCable(lane: LaneName, connected: boolean): Promise<void> {
  const student = students.get(lane);
  await (connected ? student?.connectTeachers() : student?.disconnectTeachers());
}

/** Puts into words who has solved the task, and by how much the teacher helped. */
function announce(): void {
  const solved = (name: LaneName) => lanes.find((lane) => lane.name === name)?.solvedAt;
  const [alone, taught] = [solved('alone'), solved('taught')];
  if (alone !== undefined && taught !== undefined) {
    const ratio = (alone / taught).toFixed(1);
    verdict.textContent = `Taught: ${count(taught)} steps. Alone: ${count(alone)} steps, ${ratio} times as many.`;
  } else if (taught !== undefined) {
    verdict.textContent = `The taught student balances after ${count(taught)} steps. The other is still at it.`;
  } else if (alone !== undefined) {
    verdict.textContent = `The student alone balances after ${count(alone)} steps, before the taught one.`;
  }
}

/** Enters one evaluation into the table, which is ordered by steps. */
function addRow(lane: LaneName, step: number, mean: number): void {
  const rows = [...table.rows];
  let row = rows.find((candidate) => candidate.dataset['step'] === String(step));
  if (row === undefined) {
    row = document.createElement('tr');
    row.dataset['step'] = String(step);
    row.innerHTML = '<th scope="row"></th><td>–</td><td>–</td>';
    row.cells[0]!.textContent = count(step);
    table.insertBefore(row, rows.find((candidate) => Number(candidate.dataset['step']) > step) ?? null);
  }
  row.cells[lane === 'alone' ? 1 : 2]!.textContent = score(mean);
}

async function loadTeachers(): Promise<void> {
  try {
    policies = await fetchTeachers();
    teacherSelect.replaceChildren(...policies.map(({ title, name }) => new Option(title, name)));
  } catch (error) {
    teacherSelect.replaceChildren(new Option('No teacher here'));
    alertLine.hidden = false;
    alertLine.textContent = `The server's teachers could not be listed (${error instanceof Error ? error.message : error}). Both students will learn alone.`;
  }
  teacherSelect.disabled = false;
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
enter('idle');
void loadTeachers();
