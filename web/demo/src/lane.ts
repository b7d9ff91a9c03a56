// One student's half of the stage: its cart, its numbers, and the cable to its teacher.

import type { Metrics, Student, TeacherMetrics } from 'oto-student';
import { SOLVED, type LaneName } from './chart';
import { backend, backendTitle, bytes, count, score } from './format';
import { Showcase } from './showcase';

const TITLES: Record<LaneName, string> = { alone: 'Alone', taught: 'Taught' };

/** A lane's elements, and what they show. */
export class Lane {
  /** The step of the first evaluation that counts as solved. */
  solvedAt: number | undefined;
  readonly name: LaneName;
  readonly showcase: Showcase;
  readonly #root: HTMLElement;
  readonly #switch: HTMLInputElement;
  #labels = 0;

  /** Fills `root` from the page's template; `onSwitch` is told when the visitor cuts or mends the cable. */
  constructor(root: HTMLElement, onSwitch: (connected: boolean) => void) {
    this.name = root.dataset['lane'] as LaneName;
    this.#root = root;
    const template = document.querySelector<HTMLTemplateElement>('#lane')!;
    root.append(template.content.cloneNode(true));
    const title = root.querySelector('h2')!;
    title.id = `${this.name}-title`;
    title.textContent = TITLES[this.name];
    const canvas = root.querySelector('canvas')!;
    canvas.setAttribute('aria-label', `The cart of the student ${this.name === 'taught' ? 'with a teacher' : 'alone'}`);
    this.showcase = new Showcase(canvas);
    this.#switch = root.querySelector<HTMLInputElement>('.cable input')!;
    this.#switch.addEventListener('change', () => onSwitch(this.#switch.checked));
    if (this.name === 'alone') this.#switch.closest('label')!.remove();
    this.clear();
  }

  /** Puts a student on the stage. */
  begin(student: Student): void {
    this.#switch.disabled = false;
    this.showcase.show(async (observation) => (await student.act(observation)) as number);
  }

  /** Empties the stage. */
  clear(): void {
    this.solvedAt = undefined;
    this.#labels = 0;
    this.#switch.checked = true;
    this.#switch.disabled = true;
    this.showcase.show(undefined);
    const empty = { score: '–', solved: 'not solved yet', stage: 'waiting', step: '0', stepsPerSecond: '0', updatesPerSecond: '0', backend: '–' };
    const wire = { labels: '0', bytesUp: '0 B', bytesDown: '0 B', version: '–', reconnects: '–' };
    for (const [key, text] of Object.entries({ ...empty, ...wire })) this.#set(key, text);
    this.#showLink('off', this.name === 'alone' ? 'No teacher' : 'Teacher not asked yet');
    delete this.#root.dataset['solved'];
  }

  /** Shows what a student reported; true when this report is the one that solves the task. */
  update(metrics: Metrics): boolean {
    this.#set('stage', metrics.stage);
    this.#set('step', count(metrics.step));
    this.#set('stepsPerSecond', count(metrics.stepsPerSecond));
    this.#set('updatesPerSecond', count(metrics.updatesPerSecond));
    this.#set('backend', backend(metrics.backend), backendTitle(metrics.backend));
    this.#set('labels', count(metrics.labels));
    const teacher = metrics.teachers[0];
    if (teacher !== undefined) this.#showTeacher(teacher, metrics.labels > this.#labels);
    this.#labels = metrics.labels;
    const latest = metrics.newEvaluations.at(-1);
    if (latest !== undefined) this.#set('score', score(latest.mean));
    const first = metrics.newEvaluations.find((evaluation) => evaluation.mean >= SOLVED);
    if (first === undefined || this.solvedAt !== undefined) return false;
    this.solvedAt = first.step;
    this.#set('solved', `solved after ${count(first.step)} steps`);
    this.#root.dataset['solved'] = '';
    return true;
  }

  /** Says that training has ended, and how. */
  end(how: string): void {
    this.#switch.disabled = true;
    if (this.#root.dataset['link'] === 'flowing') this.#root.dataset['link'] = 'ready';
    this.#set('stage', how);
    this.#set('stepsPerSecond', '0');
    this.#set('updatesPerSecond', '0');
  }

  #showTeacher(teacher: TeacherMetrics, flowing: boolean): void {
    this.#set('bytesUp', bytes(teacher.stats.bytesUp));
    this.#set('bytesDown', bytes(teacher.stats.bytesDown));
    this.#set('version', teacher.version === 0 ? '–' : String(teacher.version));
    this.#set('reconnects', count(teacher.stats.reconnects));
    this.#showLink(flowing && teacher.state === 'ready' ? 'flowing' : teacher.state, linkText(teacher, this.#switch.checked));
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

function linkText({ state, retryInMs, problem }: TeacherMetrics, connected: boolean): string {
  const retry = `next try in ${((retryInMs ?? 0) / 1000).toFixed(1)} s`;
  switch (state) {
    case 'connecting':
    case 'greeting':
      return 'Connecting…';
    case 'ready':
      return 'Teacher answers';
    case 'waiting':
      return connected ? `Connection lost; ${retry}` : `Cable cut; ${retry}`;
    case 'failed':
      return `Refused: ${problem ?? 'the server gave no reason'}`;
    case 'off':
      return 'Switched off';
  }
}
