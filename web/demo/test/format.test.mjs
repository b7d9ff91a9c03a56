// Numbers as the demo writes them, in a browser that has number formats, lacks a language, or lacks all.

import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { load } from './load.mjs';

const { NumberFormat } = Intl;

afterEach(() => {
  Intl.NumberFormat = NumberFormat;
});

const COUNTS = [[0, '0'], [7, '7'], [999, '999'], [1000, '1,000'], [123456, '123,456'], [1234567.4, '1,234,567']];

for (const [what, format] of [
  ['every format', NumberFormat],
  ['the default locale alone', function (locale, options) {
    if (locale !== undefined) throw new RangeError(`invalid language tag: ${locale}`);
    return new NumberFormat('en', options);
  }],
  ['no format', function () {
    throw new RangeError('there is none');
  }],
]) {
  test(`counts with ${what}`, async () => {
    Intl.NumberFormat = format;
    const { count } = await load('format.ts');
    for (const [value, text] of COUNTS) assert.equal(count(value), text);
  });
}

test('learning rates have two digits that count', async () => {
  const { rate } = await load('format.ts');
  for (const [value, text] of [[0.003, '0.003'], [0.0029345, '0.0029'], [0.0002, '0.0002'], [0.00001, '0.00001'], [0.00000123, '0.0000012'], [0, '0']]) {
    assert.equal(rate(value), text);
  }
});
