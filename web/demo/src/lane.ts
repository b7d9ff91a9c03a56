// One student's half of the stage: its picture, its numbers, and the cable to its teacher.

import type { Metrics, Scene, Student, TeacherMetrics } from 'oto-student';
import type { LaneName } from './chart';
import { BEGINNING, after, laneText, solved } from './claims';
import { showFigures } from './figures';
import { backend, backendTitle, bytes, count, rate, score } from './format';
import { Showcase } from './showcase';
import type { DemoEnvironment } from './environments';

/** Ends of episodes that are kept. */
const ENDINGS = 4;
/** A teacher answers as long as its last label is no older, in milliseconds. */
const ANSWERING_MS = 1_000;
const CONNECTED = 'Connected';

const TITLES: Record<LaneName, string> = { alone: 'Alone', taught: 'Taught' };

/** A lane's elements, and what they show. */
export class Lane {
  /** What may be claimed of the student. */
  standing = BEGINNING;
  readonly name: LaneName;
  readonly showcase: Showcase;
  readonly #root: HTMLElement;
  readonly #canvas: HTMLCanvasElement;
  readonly #switch: HTMLInputElement;
  #environment: DemoEnvironment;
  #labels = 0;
  /** When labels came last, by the page's clock. */
  #labelledAt = -Infinity;

  /** Fills `root` from the page's template; `onSwitch` is told when the visitor cuts or mends the cable. */
  constructor(root: HTMLElement, environment: DemoEnvironment, onSwitch: (connected: boolean) => void) {
    this.name = root.dataset['lane'] as LaneName;
    this.#root = root;
    this.#environment = environment;
    const template = document.querySelector<HTMLTemplateElement>('#lane')!;
    root.append(template.content.cloneNode(true));
    const title = root.querySelector('h2')!;
    title.id = `${this.name}-title`;
    title.textContent = TITLES[this.name];
    this.#canvas = root.querySelector('canvas')!;
    const moment = root.querySelector('.moment')!;
    moment.id = `${this.name}-moment`;
    this.#canvas.setAttribute('aria-describedby', moment.id);
    this.showcase = new Showcase(this.#canvas, environment.view, (episode) => this.#showMoment(episode), (last) => this.#showEnding(last));
    this.#switch = root.querySelector<HTMLInputElement>('.cable input')!;
    this.#switch.addEventListener('change', () => onSwitch(this.#switch.checked));
    if (this.name === 'alone') this.#switch.closest('label')!.remove();
    this.setUp(environment);
  }

  /** Puts a student on the stage. */
  begin(student: Student): void {
    this.#switch.disabled = false;
    this.showcase.show((seed) => student.watch(seed));
  }

  /** Shows the first moment of the first episode. */
  async rehearse(student: Student): Promise<void> {
    await this.showcase.rehearse((seed) => student.watch(seed));
  }

  /** Sets the stage up for an environment. */
  setUp(environment: DemoEnvironment): void {
    this.#environment = environment;
    this.#canvas.setAttribute('aria-label', `The ${environment.view.name} of the student ${this.name === 'taught' ? 'with a teacher' : 'alone'}`);
    this.showcase.setUp(environment.view);
    this.clear();
  }

  /** Empties the stage; the picture stays. */
  clear(): void {
    this.standing = BEGINNING;
    this.#root.querySelector('.endings')!.replaceChildren();
    this.#labels = 0;
    this.#labelledAt = -Infinity;
    this.#switch.checked = true;
    this.#switch.disabled = true;
    this.showcase.show(undefined);
    const empty = { score: '–', compared: '', done: this.#environment.before, stage: 'waiting', step: '0', stepsPerSecond: '0', updatesPerSecond: '0', learningRate: '–', backend: '–' };
    const wire = { labels: '0', bytesUp: '0 B', bytesDown: '0 B', version: '–', reconnects: '–' };
    for (const [key, text] of Object.entries({ ...empty, ...wire })) this.#set(key, text);
    this.#showLink('off', this.name === 'alone' ? 'No teacher' : 'Teacher not asked yet');
    delete this.#root.dataset['done'];
  }

  /** Shows what a student reported. */
  update(metrics: Metrics): void {
    this.#set('stage', metrics.stage);
    this.#set('step', count(metrics.step));
    this.#set('stepsPerSecond', count(metrics.stepsPerSecond));
    this.#set('updatesPerSecond', count(metrics.updatesPerSecond));
    this.#set('learningRate', rate(metrics.learningRate));
    this.#set('backend', backend(metrics.backend), backendTitle(metrics.backend));
    this.#set('labels', count(metrics.labels));
    const teacher = metrics.teachers[0];
    if (metrics.labels > this.#labels) this.#labelledAt = performance.now();
    if (teacher !== undefined) this.#showTeacher(teacher, metrics.labels > this.#labels);
    this.#labels = metrics.labels;
    const latest = metrics.newEvaluations.at(-1);
    if (latest !== undefined) {
      this.#set('score', score(latest.mean));
      this.#set('compared', latest.baselines.map(({ name, mean }) => `${name} ${score(mean)}`).join(' · '));
      this.showcase.evaluated();
    }
    const judged = metrics.newEvaluations.map((evaluation) => ({ step: evaluation.step, reached: this.#environment.reached(evaluation) }));
    this.standing = after(this.standing, judged, metrics.labels);
    this.#set('done', laneText(this.standing, this.#environment));
    this.#root.toggleAttribute('data-done', solved(this.standing) !== undefined);
  }

  /** Says that training has ended, and how. */
  end(how: string): void {
    this.#switch.disabled = true;
    if (this.#root.dataset['link'] === 'flowing') this.#showLink('ready', CONNECTED);
    this.#set('stage', how);
    this.#set('stepsPerSecond', '0');
    this.#set('updatesPerSecond', '0');
  }

  /** The moment that the picture shows, in numbers. */
  #showMoment(episode: Scene[]): void {
    const list = this.#root.querySelector('.moment')!;
    const last = episode.at(-1);
    const figures = last === undefined ? [] : [['Step', `${last.step} of ${last.limit}`], ['Policy', `at ${count(last.trained ?? 0)}`], ...this.#environment.view.figures(episode)];
    showFigures(list, figures);
  }

  /** The end of an episode that was shown stays readable, beside the ends before it. */
  #showEnding(last: Scene): void {
    const { text, failed } = this.#environment.view.ending(last);
    const entry = document.createElement('li');
    entry.textContent = `policy at ${count(last.trained ?? 0)}: ${text}`;
    entry.toggleAttribute('data-failed', failed);
    const list = this.#root.querySelector('.endings')!;
    if (list.lastElementChild?.textContent === entry.textContent) return;
    list.append(entry);
    while (list.children.length > ENDINGS) list.firstElementChild!.remove();
  }

  #showTeacher(teacher: TeacherMetrics, flowing: boolean): void {
    this.#set('bytesUp', bytes(teacher.stats.bytesUp));
    this.#set('bytesDown', bytes(teacher.stats.bytesDown));
    this.#set('version', teacher.version === 0 ? '–' : String(teacher.version));
    this.#set('reconnects', count(teacher.stats.reconnects));
    this.#showLink(flowing && teacher.state === 'ready' ? 'flowing' : teacher.state, linkText(teacher, this.#switch.checked, performance.now() - this.#labelledAt < ANSWERING_MS));
  }

  #showLink(state: string, text: string): void {
    this.#root.dataset['link'] = state;
    this.#set('link', text);
  }

  #set(key: string, text: string, title = ''): void {
    const element = this.#root.querySelector<HTMLElement>(`[data-value="${key}"]`)!;
    if (element.textContent !== text) element.textContent = text;
    if (element.title !== title) element.title = title;
  }
}

function linkText({ state, retryInMs, problem, waiting }: TeacherMetrics, connected: boolean, answers: boolean): string {
  const retry = `next try in ${((retryInMs ?? 0) / 1000).toFixed(1)} s`;
  switch (state) {
    case 'connecting':
    case 'greeting':
      return 'Connecting…';
    case 'ready':
      if (answers) return 'Teacher answers';
      return waiting > 0 ? 'Waiting for the teacher' : CONNECTED;
    case 'waiting':
      return connected ? `Connection lost; ${retry}` : `Cable cut; ${retry}`;
    case 'failed':
      return `Refused: ${problem ?? 'the server gave no reason'}`;
    case 'off':
      return 'Switched off';
  }
}
