// The evaluations as a table: the chart in numbers, ordered by steps.

import type { Evaluation } from 'oto-student';
import type { LaneName } from './chart';
import { count, score } from './format';

/** A table whose columns are the lanes, and whatever the evaluations are compared with. */
export class EvaluationTable {
  #head: HTMLTableRowElement;
  #body: HTMLTableSectionElement;
  #columns: string[] = [];

  constructor(table: HTMLTableElement) {
    this.#head = table.createTHead().insertRow();
    this.#body = table.createTBody();
    this.clear();
  }

  clear(): void {
    this.#body.replaceChildren();
    this.#head.replaceChildren();
    this.#columns = [];
    for (const title of ['Environment steps', 'Alone', 'Taught']) this.#addColumn(title);
  }

  /** Enters one evaluation. */
  add(lane: LaneName, { step, mean, baselines }: Evaluation): void {
    this.#enter(step, lane === 'alone' ? 'Alone' : 'Taught', mean);
    for (const { name, mean } of baselines) this.#enter(step, name, mean);
  }

  #enter(step: number, column: string, value: number): void {
    if (!this.#columns.includes(column)) this.#addColumn(column);
    this.#row(step).cells[this.#columns.indexOf(column)]!.textContent = score(value);
  }

  #addColumn(title: string): void {
    this.#columns.push(title);
    const cell = document.createElement('th');
    cell.scope = 'col';
    cell.textContent = title[0]!.toUpperCase() + title.slice(1);
    this.#head.append(cell);
    for (const row of this.#body.rows) row.insertCell().textContent = '–';
  }

  #row(step: number): HTMLTableRowElement {
    const rows = [...this.#body.rows];
    const found = rows.find((candidate) => candidate.dataset['step'] === String(step));
    if (found !== undefined) return found;
    const row = document.createElement('tr');
    row.dataset['step'] = String(step);
    const head = document.createElement('th');
    head.scope = 'row';
    head.textContent = count(step);
    row.append(head);
    for (let column = 1; column < this.#columns.length; column++) row.insertCell().textContent = '–';
    this.#body.insertBefore(row, rows.find((candidate) => Number(candidate.dataset['step']) > step) ?? null);
    return row;
  }
}
