// A page with an environment of its own, and teachers that are away, silent, slow, refuse it, talk nonsense, or die and come back:
// the student goes on, whatever becomes of them.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startGarbage } from './garbage.mjs';
import { ADAPTED, SMALL, launch, openPlainPage, startPlainSite, startServer, teachUrl } from './harness.mjs';
import { MODES, startProxy } from './proxy.mjs';

const STEPS = 400;

let browser, site, server, page;

before(async () => {
  [browser, site] = await Promise.all([launch(), startPlainSite()]);
  server = await startServer({ origins: [site.origin] });
  page = await openPlainPage(browser, site);
  await page.evaluate((small) => {
    // A cart in JavaScript, as wide as CartPole, with answers that come at once or later.
    window.cart = (asynchronous) => () => {
      let state = [0, 0, 0, 0];
      let steps = 0;
      const answer = (value) => (asynchronous ? new Promise((resolve) => setTimeout(resolve, 0, value)) : value);
      return {
        observationSpace: oto.spaces.box(null, null, 4),
        actionSpace: oto.spaces.discrete(2),
        reset: () => ((steps = 0), answer((state = [0, 0, 0.01, 0]))),
        step(action) {
          state = state.map((number, i) => 0.9 * number + (action - 0.5) / (5 + i));
          return answer({ observation: state, reward: 1, terminated: false, truncated: ++steps % 20 === 0 });
        },
      };
    };
    // Trains until a report satisfies `enough`.
    window.until = async (student, enough) => {
      for await (const m of student.train({ interval: 20 })) if (enough(m)) return m;
      throw new Error('the run ended before');
    };
    window.made = (options) => oto.Student.create({ ...small, seed: 3, steps: 1e9, stages: { transfer: {} }, evaluation: { every: 100, episodes: 1 }, ...options });
  }, SMALL);
});

after(async () => {
  const faults = page?.faults;
  await browser?.close();
  await Promise.all([site?.stop(), server?.stop()]);
  assert.deepEqual(faults, []);
});

test('whatever a teacher does, alone or beside a good one, a student in the page’s environment takes its steps', async () => {
  const stranger = await startServer({ origins: ['http://another.example'] });
  const garbage = await startGarbage((count) => (count % 2 ? '{"type":"welcome"' : new Uint8Array([9, 9, 9])));
  const proxies = await Promise.all(MODES.map((mode) => startProxy(server.port, mode)));
  const bad = { absent: 'ws://127.0.0.1:9/v1/teach', stranger: teachUrl(stranger), garbage: garbage.url };
  MODES.forEach((mode, i) => (bad[mode] = proxies[i].url));
  // The connections of all proxies break again and again, too.
  const cutting = setInterval(() => proxies.forEach((proxy) => Math.random() < 0.3 && proxy.cut()), 200);
  const good = { url: teachUrl(server), ...ADAPTED };
  const cases = Object.entries(bad).flatMap(([name, url]) =>
    ['lockstep', 'async'].flatMap((clock, i) => [
      { name: `${name}, ${clock}`, clock, asynchronous: i === 1, teachers: [{ ...good, url }] },
      { name: `${name} beside a good one, ${clock}`, clock, asynchronous: i === 0, teachers: [{ ...good, url }, good] },
    ]),
  );
  const told = await page.evaluate(async ({ cases, steps }) => {
    const tell = async ({ name, clock, asynchronous, teachers }) => {
      const student = await made({ env: cart(asynchronous), clock, teachers });
      try {
        // By the asynchronous clock a quick student may be there before the first label.
        const taught = (m) => !name.includes('good') || m.labels > 0 || m.step > 100 * steps;
        const { step, labels, lastEvaluation } = await until(student, (m) => m.step >= steps && m.lastEvaluation !== null && taught(m));
        return { name, step, labels, lastEvaluation };
      } catch (error) {
        return { name, error: `${error.name}: ${error.message}` };
      } finally {
        student.dispose();
      }
    };
    return Promise.all(cases.map(tell));
  }, { cases, steps: STEPS });
  clearInterval(cutting);
  await Promise.all([stranger.stop(), garbage.stop(), ...proxies.map((proxy) => proxy.stop())]);
  assert.equal(told.length, 32);
  for (const { name, error, step, labels, lastEvaluation } of told) {
    assert.equal(error, undefined, name);
    assert.ok(step >= STEPS, `${name}: ${step} steps`);
    assert.equal(lastEvaluation, 20, name);
    if (name.includes('good')) assert.ok(labels > 0, `${name}: ${labels} labels`);
  }
});

test('one of two teachers is killed and comes back, three times', async () => {
  let mortal = await startServer({ origins: [site.origin] });
  const { port } = mortal;
  const teachers = [{ url: teachUrl(mortal), ...ADAPTED }, { url: teachUrl(server), ...ADAPTED }];
  const received = (m) => m.teachers.map(({ stats }) => stats.labelsReceived);
  await page.evaluate(async (teachers) => {
    window.student = await made({ env: cart(false), teachers });
    await until(student, (m) => m.teachers.every(({ stats }) => stats.labelsReceived > 30));
  }, teachers);
  try {
    for (let round = 0; round < 3; round++) {
      // It dies while the student trains.
      const training = page.evaluate(() => until(student, (m) => m.teachers[0].state === 'waiting' && m.teachers[0].stats.connects > 1));
      await mortal.kill();
      const alone = await training;
      const later = await page.evaluate((step) => until(student, (m) => m.step > step + 300), alone.step);
      assert.equal(received(later)[0], received(alone)[0]);
      assert.ok(received(later)[1] > received(alone)[1], 'the other one goes on teaching');
      mortal = await startServer({ port, origins: [site.origin] });
      const back = await page.evaluate((labels) => until(student, (m) => m.teachers[0].stats.labelsReceived > labels + 20), received(later)[0]);
      assert.equal(back.teachers[0].state, 'ready');
    }
  } finally {
    await page.evaluate(() => student.dispose());
    await mortal.stop();
  }
});

test('a student is stopped, paused, weighed, evaluated, saved and loaded while its connections break', async () => {
  const proxy = await startProxy(server.port, 'flap');
  const result = await page.evaluate(async (teacher) => {
    const student = await made({ env: cart(true), teachers: [teacher, teacher], evaluation: { every: 50, episodes: 1 } });
    const end = performance.now() + 6_000;
    let rounds = 0;
    while (performance.now() < end) {
      const stopping = setTimeout(() => student.stop(), 150 * Math.random());
      const training = (async () => {
        for await (const m of student.train({ interval: 5_000 })) window.last = m;
      })();
      const things = [
        () => student.pause().then(() => student.resume()),
        () => student.setTeacherWeight(rounds % 2, rounds % 3),
        () => student.evaluate({ episodes: 1 }),
        () => student.save({ replay: true }).then((file) => student.load(file)),
        () => student.disconnectTeachers().then(() => student.connectTeachers()),
        () => student.watch(rounds).then(() => student.watch()),
        () => student.act([0, 0, 0, 0]),
      ];
      await things[rounds % things.length]();
      await training;
      clearTimeout(stopping);
      rounds += 1;
    }
    const before = await student.metrics();
    const after = await until(student, (m) => m.step >= before.step + 200);
    student.dispose();
    return { rounds, before: before.step, after: after.step };
  }, { ...ADAPTED, url: proxy.url });
  await proxy.stop();
  assert.ok(result.rounds > 10, `${result.rounds} rounds`);
  assert.ok(result.after >= result.before + 200);
});
