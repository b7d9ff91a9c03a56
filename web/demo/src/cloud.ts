// The page of the edge: the pendulum on its rail acts in this tab, and the server beside it learns. The actor is a module of its own, which
// only this page loads.

import '@fontsource-variable/bricolage-grotesque/wght.css';
import '@fontsource-variable/jetbrains-mono/wght.css';
import './style.css';
import { Actor, type ActorMetrics, type Scene } from 'oto-student/actor';
import { showFigures } from './figures';
import { bytes, count, score } from './format';
import { attempt, failed, reason, tell, withdraw } from './notices';
import { setUpTheme } from './theme';
import { picture } from './views/pen';
import { placeAt, swingUp } from './views/swing-up';

/** Frames of the picture come at this distance at least, in milliseconds. */
const FRAME = 30;
/** What a push changes the cart's speed by in a second, in m/s: at most, and for each metre from the cart. */
const PUSH = { most: 6, perMetre: 12 };
/** The bandwidth slider's ends, in Mbit/s. */
const BANDWIDTH = { least: 0.06, most: 50 };

const byId = <E extends HTMLElement>(id: string) => document.querySelector<E>(`#${id}`)!;
const value = (name: string) => document.querySelector<HTMLElement>(`[data-value=${name}]`)!;
const [controls, canvas, start] = [byId<HTMLFormElement>('controls'), byId<HTMLCanvasElement>('picture'), byId<HTMLButtonElement>('start')];
const [friction, delay, bandwidth, line] = ['friction', 'delay', 'bandwidth', 'line'].map((id) => byId<HTMLInputElement>(id)) as [HTMLInputElement, HTMLInputElement, HTMLInputElement, HTMLInputElement];

let actor: Actor | undefined;
let phase: 'idle' | 'starting' | 'running' | 'paused' = 'idle';
let scene: Scene | undefined;
let best = 0;
/** Where the pointer is, in pixels from the picture's left; or the direction of an arrow key. */
let push: { at: number } | { direction: number } | undefined;

/** The environment at the friction of the slider. */
const environment = () => `CartPoleSwingUp-v0?voltage_max=12&upright=0.5&k_f=${friction.value}` as const;

/** The bandwidth of the slider: its positions are shares of the way on a logarithmic scale. */
const megabits = () => BANDWIDTH.least * (BANDWIDTH.most / BANDWIDTH.least) ** (bandwidth.valueAsNumber / 100);

function showSliders(): void {
  byId('friction-value').textContent = `${friction.value} N s/m`;
  byId('delay-value').textContent = `${delay.value} ms`;
  byId('bandwidth-value').textContent = `${Number(megabits().toPrecision(2))} Mbit/s`;
}

function enter(next: typeof phase): void {
  phase = next;
  start.textContent = { idle: 'Start', starting: 'Starting', running: 'Pause', paused: 'Resume' }[phase];
  start.disabled = phase === 'starting';
}

/** Acts until the page is left, or the learner refuses. */
async function begin(): Promise<void> {
  enter('starting');
  withdraw('The actor');
  try {
    actor = await Actor.create({ cloud: '/', policy: 'swing_up', env: environment(), name: 'demo', seed: Date.now() % 2 ** 31 });
    await Promise.all([setLine(), line.checked ? undefined : actor.disconnect()]);
    enter('running');
    requestAnimationFrame(frame);
    for await (const metrics of actor.run({ interval: 200 })) attempt('The numbers', () => show(metrics));
  } catch (error) {
    tell('The actor', `The actor stopped: ${reason(error)}`);
  } finally {
    actor?.dispose();
    actor = undefined;
    value('link').textContent = 'stopped';
    enter('idle');
  }
}

const microseconds = (time: number) => (time < 1000 ? `${time.toFixed(0)} µs` : `${(time / 1000).toFixed(1)} ms`);

function show(m: ActorMetrics): void {
  const texts = {
    link: m.connected ? 'learner answers' : 'no connection',
    steps: count(m.steps),
    return: m.return === null ? '–' : score(m.return),
    jitter50: microseconds(m.jitterUs.p50),
    jitter999: microseconds(m.jitterUs.p999),
    jitterMax: microseconds(m.jitterUs.max),
    missed: count(m.missed),
    staleness: m.version === 0 ? '–' : `${count(m.staleness.p50)} (largest ${count(m.staleness.max)})`,
    backlog: `${count(m.backlog)} updates`,
    held: count(m.held),
    acknowledged: count(m.acknowledged),
    version: m.version === 0 ? 'none yet' : count(m.version),
    pushes: count(m.link.weights),
    bytesUp: bytes(m.link.bytesUp),
    bytesDown: bytes(m.link.bytesDown),
  };
  for (const [name, text] of Object.entries(texts)) value(name).textContent = text;
  const verdict = m.connected || m.problem === null ? 'The server trains, this tab acts. Push the cart with the mouse, or with the arrow keys.' : `The tab acts alone: ${m.problem}`;
  if (byId('verdict').textContent !== verdict) byId('verdict').textContent = verdict;
}

/** Asks for the moment, draws it, and pushes the cart if someone does. */
async function frame(): Promise<void> {
  const began = performance.now();
  if (actor === undefined) return;
  try {
    scene = await actor.scene();
    draw();
    await shove(FRAME / 1000);
  } catch (error) {
    if (actor !== undefined) failed('The picture', error);
    return;
  }
  setTimeout(() => requestAnimationFrame(frame), Math.max(0, FRAME - (performance.now() - began)));
}

function draw(): void {
  const moment = scene;
  if (moment === undefined) return;
  attempt('The picture', () => {
    const drawn = picture(canvas);
    if (drawn !== undefined) swingUp.draw(drawn, [moment]);
    showFigures(byId('moment'), swingUp.figures([moment]));
    const onTarget = moment.state[4] ?? 0;
    best = Math.max(best, onTarget);
    value('onTarget').textContent = count(onTarget);
    value('best').textContent = best === 0 ? '' : `most so far: ${count(best)}`;
  });
}

/** Changes the cart's speed for so many seconds of a push. */
async function shove(seconds: number): Promise<void> {
  if (push === undefined || scene === undefined || phase !== 'running') return;
  const position = scene.state[0] ?? 0;
  const metres = 'direction' in push ? push.direction : placeAt(push.at, canvas) - position;
  const speed = Math.max(-PUSH.most, Math.min(PUSH.most, PUSH.perMetre * metres)) * seconds;
  await actor?.disturb([0, speed]);
}

async function setLine(): Promise<void> {
  await actor?.setLine({ delay: delay.valueAsNumber, bandwidth: megabits() });
}

/** Carries a change out; one that fails is told. */
function change(work: () => Promise<unknown> | undefined): void {
  showSliders();
  work()?.catch((error) => actor !== undefined && failed('A change', error));
}

controls.addEventListener('submit', (event) => {
  event.preventDefault();
  if (phase === 'idle') return void begin();
  const pause = phase === 'running';
  enter(pause ? 'paused' : 'running');
  change(() => (pause ? actor?.pause() : actor?.resume()));
});
friction.addEventListener('change', () => change(() => actor?.setEnvironment(environment())));
friction.addEventListener('input', showSliders);
for (const slider of [delay, bandwidth]) slider.addEventListener('input', () => change(setLine));
line.addEventListener('change', () => change(() => (line.checked ? actor?.connect() : actor?.disconnect())));
const pointer = (event: PointerEvent) => (push = { at: event.offsetX });
canvas.addEventListener('pointerdown', (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointer(event);
});
canvas.addEventListener('pointermove', (event) => push !== undefined && 'at' in push && pointer(event));
for (const end of ['pointerup', 'pointercancel', 'blur', 'keyup']) canvas.addEventListener(end, () => (push = undefined));
canvas.addEventListener('keydown', (event) => {
  const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (direction === undefined) return;
  event.preventDefault();
  push = { direction };
});
addEventListener('resize', draw);
// What nobody caught is told too, so that the page does not stand still without a word.
addEventListener('error', ({ error }) => error && failed('Something', error));
addEventListener('unhandledrejection', (event) => failed('Something', event.reason));
attempt('The theme', () => setUpTheme(byId<HTMLButtonElement>('theme'), draw));
showSliders();
