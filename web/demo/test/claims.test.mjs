// What the demo claims: from tables of what two students may go through.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load } from './load.mjs';

const { BEGINNING, after, laneText, solved, verdict } = await load('claims.ts');

const WORDS = { does: 'balances', before: 'not solved yet', done: 'solved' };

/**
 * A run in short: for each report its evaluations, `+` reached and `-` not, then the labels by then. Evaluations are 500 steps
 * apart: `'+:8 +-:16'` are two reports.
 */
function run(text) {
  let step = 0;
  return text.split(' ').filter(Boolean).reduce((standing, report) => {
    const [marks, labels] = report.split(':');
    const evaluations = [...marks].map((mark) => ({ step: (step += 500), reached: mark === '+' }));
    return after(standing, evaluations, Number(labels));
  }, BEGINNING);
}

test('a student has solved its task from the first of two good evaluations until one is bad', () => {
  for (const [text, since, says] of [
    ['', undefined, 'not solved yet'],
    ['-:0', undefined, 'not solved yet'],
    ['+:0', undefined, 'once, at step 500'],
    ['+:0 -:0', undefined, 'not solved yet'],
    ['+:0 +:0', 500, 'solved after 500 steps'],
    ['++:0', 500, 'solved after 500 steps'],
    ['-:0 ++:0 :0', 1000, 'solved after 1,000 steps'],
    ['++-:0', undefined, 'lost at step 1,500'],
    ['++--:0', undefined, 'lost at step 1,500'],
    ['++-+:0', undefined, 'once, at step 2,000'],
    ['++-++:0', 2000, 'solved after 2,000 steps'],
    ['+-+-+-+:0', undefined, 'once, at step 3,500'],
    ['++-++-:0', undefined, 'lost at step 3,000'],
  ]) {
    const standing = run(text);
    assert.equal(solved(standing), since, text);
    assert.equal(laneText(standing, WORDS), says, text);
  }
});

const NOBODY = 'No teacher has answered yet: both students learn alone, and nothing is compared.';
const BEFORE = 'The taught student balances after 500 steps, before its first label: nothing is compared.';

test('a teacher is credited with nothing that came before its labels', () => {
  for (const [alone, taught, says] of [
    ['', '', undefined],
    ['', ':0', undefined],
    ['-:0', '-:0', NOBODY],
    // The network was off: 1,000 steps against 10,500 without a label are nobody's doing.
    [`${'-'.repeat(20)}++:0`, '-++:0', NOBODY],
    ['++:0', '-:0', NOBODY],
    ['-:0', '++:0', NOBODY],
    // Labels that came after it had solved the task, or with the very report that says so.
    ['---++:0', '++:0 +:300', BEFORE],
    ['---++:0', '++:300', BEFORE],
    ['-:0', '++:300', BEFORE],
  ]) {
    assert.equal(verdict(run(alone), run(taught), WORDS), says, `${alone} beside ${taught}`);
  }
});

test('what is compared has the labels and the ratio', () => {
  for (const [alone, taught, says] of [
    ['----++:0', '-:900 ++:1800', 'Taught: 1,000 steps, with 900 labels. Alone: 2,500 steps, 2.5 times as many.'],
    ['++:0', '-:1 ++:1800', 'Taught: 1,000 steps, with 1 label. Alone: 500 steps, 0.5 times as many.'],
    ['-:0', '-:900 ++:1800', 'The taught student balances after 1,000 steps and 900 labels. The other is still at it.'],
    ['++-:0', '-:900 ++:1800', 'The taught student balances after 1,000 steps and 900 labels. The other did, and lost it at step 1,500.'],
    ['++:0', '-:900', 'The student alone balances after 500 steps. The taught one is still at it.'],
    ['-++:0', ':9 ++-:900', 'The student alone balances after 1,000 steps. The taught one did, and lost it at step 1,500.'],
    ['-:0', '-:900 +:1800', undefined],
    // One that was solved and is lost is compared with nothing any more.
    ['-:0', ':900 ++-:1800', 'The student taught had solved the task, and lost it at step 1,500.'],
    ['++-:0', ':900 ++-:1800', 'The student taught had solved the task, and lost it at step 1,500. The student alone had solved the task, and lost it at step 1,500.'],
  ]) {
    assert.equal(verdict(run(alone), run(taught), WORDS), says, `${alone} beside ${taught}`);
  }
  const besides = 'Their learning rates differ.';
  assert.match(verdict(run('++:0'), run(':9 ++:90'), { ...WORDS, besides }), /Their learning rates differ\.$/);
});

test('whatever happens, a comparison needs two tasks that are solved now and labels before', () => {
  // Every run of up to five evaluations beside some, with labels from each of its evaluations on: before it, 8 more.
  const holds = (marks) => /\+\+$/.test(marks);
  let comparisons = 0;
  for (let length = 1; length <= 5; length += 1) {
    for (let bits = 0; bits < 2 ** length; bits += 1) {
      const marks = bits.toString(2).padStart(length, '0').replaceAll('0', '-').replaceAll('1', '+');
      for (let labelled = 0; labelled <= length; labelled += 1) {
        const labels = (i) => 8 * Math.max(0, i - labelled + 1);
        const taught = [...marks].map((mark, i) => `:${labels(i)} ${mark}:${labels(i)}`).join(' ');
        for (const alone of ['-', '++', '++-', '+', '-+-++']) {
          const says = verdict(run(`${alone}:0`), run(taught), WORDS) ?? '';
          const credited = marks.search(/\++$/) >= labelled;
          assert.equal(says.includes('times as many'), holds(marks) && holds(alone) && credited, `${alone} beside ${taught}: ${says}`);
          comparisons += Number(says.includes('times as many'));
        }
      }
    }
  }
  assert.ok(comparisons > 50, `${comparisons} comparisons`);
});
