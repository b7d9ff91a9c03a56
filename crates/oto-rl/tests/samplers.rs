//! Samplers: which transitions they choose, how often, and with which weights; what a checkpoint keeps; that no batch allocates.

use crate::allocations::allocations;
use oto_env::rng::Rng;
use oto_rl::replay::{
    Batch, Columns, Combined, Prioritised, Replay, ReplayConfig, Request, Sampler, SamplerName, Shares,
    SumTree, Uniform,
};
use oto_rl::schedule::Linear;
use proptest::prelude::*;

/// Stores a transition whose observation is its number.
fn push(replay: &mut Replay) {
    let number = replay.stored() as f32;
    replay.push(&[number], &[0.0], 1.0, &[number + 1.0], false, false, |_, _| {});
}

/// A buffer of this capacity after so many transitions.
fn buffer(capacity: usize, stored: usize) -> Replay {
    let mut replay = Replay::new(capacity, [1, 1], 0, 1, 0.9);
    (0..stored).for_each(|_| push(&mut replay));
    replay
}

fn request<'a>(buffers: &'a [&'a Replay], size: usize, update: u64) -> Request<'a> {
    Request { buffers, size, update, step: 0 }
}

fn sampled(sampler: &mut dyn Sampler, buffers: &[&Replay], size: usize, update: u64, rng: &mut Rng) -> Batch {
    let mut batch = Batch::default();
    sampler.sample(&request(buffers, size, update), rng, &mut batch);
    assert_eq!(
        [batch.observation.len(), batch.weights.len(), batch.perm.len(), batch.reward.len()],
        [size; 4]
    );
    batch
}

/// The chi-square statistic of counts beside what was expected, over its degrees of freedom: near 1 where they agree.
fn chi_square(counts: &[u64], expected: &[f64]) -> f64 {
    let total = counts.iter().sum::<u64>() as f64;
    let whole = expected.iter().sum::<f64>();
    let term = |(count, share): (&u64, &f64)| {
        let mean = total * share / whole;
        (*count as f64 - mean).powi(2) / mean
    };
    counts.iter().zip(expected).map(term).sum::<f64>() / (counts.len() - 1) as f64
}

/// How often each place was chosen, in so many batches of these rows.
fn counts(places: usize, batches: &[Batch], rows: impl Fn(&Batch) -> &[usize]) -> Vec<u64> {
    let mut counts = vec![0; places];
    batches.iter().flat_map(|batch| rows(batch).to_vec()).for_each(|place| counts[place] += 1);
    counts
}

#[test]
fn uniform_batches_are_the_draws_of_the_generator_and_uniform() {
    let replay = buffer(40, 70);
    let (rng, alike) = (&mut Rng::new(5), &mut Rng::new(5));
    let mut batches = Vec::new();
    for update in 1..=400 {
        let batch = sampled(&mut Uniform, &[&replay], 64, update, rng);
        let expected = (0..64).map(|_| alike.below(40) as usize).collect::<Vec<_>>();
        let mut order = (0..64).map(|i| i as f32).collect::<Vec<_>>();
        alike.shuffle(&mut order);
        assert_eq!((&batch.slots, &batch.perm), (&expected, &order));
        assert!(batch.weights.iter().all(|w| *w == 1.0));
        batches.push(batch);
    }
    let spread = chi_square(&counts(40, &batches, |b| &b.slots), &[1.0; 40]);
    assert!((0.4..2.0).contains(&spread), "{spread}");
    // Two buffers are one.
    let more = buffer(20, 20);
    let batches = (1..=400).map(|u| sampled(&mut Uniform, &[&replay, &more], 64, u, rng)).collect::<Vec<_>>();
    let old = |b: &Batch| b.observation.iter().filter(|x| **x >= 30.0).count();
    let share = batches.iter().map(old).sum::<usize>() as f64 / (400.0 * 64.0);
    assert!((share - 40.0 / 60.0).abs() < 0.01, "{share}");
}

#[test]
fn the_newest_transition_is_in_every_combined_batch() {
    for capacity in [1, 7, 40] {
        let (mut replay, rng) = (buffer(capacity, 0), &mut Rng::new(1));
        let mut batches = Vec::new();
        for step in 0..300 {
            push(&mut replay);
            for size in [1, 16] {
                let batch = sampled(&mut Combined, &[&replay], size, step, rng);
                assert_eq!(batch.observation[size - 1], step as f32, "capacity {capacity}, batch of {size}");
                if size == 16 && step >= 100 {
                    batches.push(batch);
                }
            }
        }
        if capacity == 40 {
            let others = counts(40, &batches, |b| &b.slots[..15]);
            let spread = chi_square(&others, &[1.0; 40]);
            assert!((0.4..2.0).contains(&spread), "{spread}");
        }
    }
    let (empty, other) = (buffer(4, 0), buffer(4, 4));
    assert_eq!(sampled(&mut Combined, &[&empty, &other], 8, 1, &mut Rng::new(1)).slots.len(), 8);
}

#[test]
fn shares_of_two_buffers_are_exact() {
    let (mut own, mut recorded, empty) = (buffer(30, 50), buffer(10, 10), buffer(5, 0));
    own.set_source(1.0);
    recorded.set_source(2.0);
    let rng = &mut Rng::new(3);
    let from_recorded = |batch: &Batch| batch.source.iter().filter(|s| **s == 2.0).count();
    for (share, size, rows) in
        [(0.0, 8, 0), (0.5, 8, 4), (0.5, 5, 3), (0.25, 8, 2), (1.0, 8, 8), (0.5, 1, 1), (2.0, 4, 4)]
    {
        let batch = sampled(&mut Shares::new(share), &[&own, &recorded], size, 1, rng);
        assert_eq!(from_recorded(&batch), rows, "{share} of {size}");
        let own_rows = batch.source.iter().zip(&batch.observation).filter(|(source, _)| **source == 1.0);
        assert!(own_rows.map(|(_, x)| *x).all(|x| x >= 20.0), "the oldest were overwritten");
    }
    assert_eq!(from_recorded(&sampled(&mut Shares::new(0.5), &[&own, &empty], 8, 1, rng)), 0);
    assert_eq!(from_recorded(&sampled(&mut Shares::new(0.5), &[&own], 8, 1, rng)), 0);
    assert_eq!(from_recorded(&sampled(&mut Shares::new(0.5), &[&empty, &recorded], 8, 1, rng)), 8);
    let batches =
        (1..=400).map(|u| sampled(&mut Shares::new(0.5), &[&own, &recorded], 32, u, rng)).collect::<Vec<_>>();
    let spread = [
        chi_square(&counts(30, &batches, |b| &b.slots[..16]), &[1.0; 30]),
        chi_square(&counts(10, &batches, |b| &b.slots[16..]), &[1.0; 10]),
    ];
    assert!(spread.iter().all(|s| (0.2..2.2).contains(s)), "{spread:?}");
}

/// Labels and other buffers: rows of a buffer without teachers have none.
#[test]
fn rows_without_teachers_have_no_labels() {
    let mut own = Replay::new(4, [1, 1], 2, 1, 0.9);
    (0..4).for_each(|_| push(&mut own));
    (0..4).for_each(|slot| assert!(own.label(slot, 1, &[slot as f32], 1)));
    let batch = sampled(&mut Shares::new(0.5), &[&own, &buffer(4, 4)], 8, 1, &mut Rng::new(3));
    assert_eq!((batch.mask.len(), batch.teacher_action.len()), (16, 16));
    let (first, second) = batch.mask.split_at(8);
    assert!(first.iter().all(|m| *m == 0.0));
    assert_eq!(second, [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    for row in 0..4 {
        assert_eq!(batch.teacher_action[8 + row], batch.slots[row] as f32);
    }
}

fn prioritised(alpha: f64) -> Prioritised {
    Prioritised::new(alpha, Linear::constant(0.5), 0.01)
}

/// Samples a batch of all places and gives each place's error back.
fn learn_all(
    sampler: &mut Prioritised,
    replay: &Replay,
    update: u64,
    rng: &mut Rng,
    error: impl Fn(usize) -> f32,
) {
    let places = replay.len();
    let mut seen = vec![false; places];
    for round in 0.. {
        let number = update + round;
        let batch = sampled(sampler, &[replay], 4 * places, number, rng);
        batch.slots.iter().for_each(|place| seen[*place] = true);
        let errors = batch.slots.iter().map(|place| error(*place)).collect::<Vec<_>>();
        sampler.learned(number, &errors);
        if seen.iter().all(|seen| *seen) {
            return;
        }
    }
}

#[test]
fn transitions_are_sampled_by_the_power_of_their_priority_and_weighed_against_it() {
    let replay = buffer(24, 60);
    for alpha in [0.0, 0.6, 1.0] {
        let (mut sampler, rng) = (prioritised(alpha), &mut Rng::new(9));
        let error = |place: usize| if place.is_multiple_of(2) { place as f32 } else { -(place as f32) };
        learn_all(&mut sampler, &replay, 1, rng, error);
        let expected = (0..24).map(|place| (place as f64 + 0.01).powf(alpha)).collect::<Vec<_>>();
        let batches =
            (0..600).map(|u| sampled(&mut sampler, &[&replay], 32, 1000 + u, rng)).collect::<Vec<_>>();
        // One part of the sum each: the counts spread less than those of independent draws.
        let spread = chi_square(&counts(24, &batches, |b| &b.slots)[1..], &expected[1..]);
        assert!(spread < 1.6, "alpha {alpha}: {spread}");
        let total = expected.iter().sum::<f64>();
        for batch in &batches[..20] {
            let weight = |place: &usize| (24.0 * expected[*place] / total).powf(-0.5);
            let largest = batch.slots.iter().map(weight).fold(0.0, f64::max);
            for (place, w) in batch.slots.iter().zip(&batch.weights) {
                assert!((f64::from(*w) - weight(place) / largest).abs() < 1e-5, "alpha {alpha}");
            }
        }
    }
}

#[test]
fn beta_follows_the_steps() {
    let (replay, rng) = (buffer(8, 8), &mut Rng::new(2));
    let mut sampler = Prioritised::new(1.0, Linear { start: 0.0, end: 1.0, steps: 10 }, 0.01);
    learn_all(&mut sampler, &replay, 1, rng, |place| 1.0 + place as f32);
    let mut at = |step| {
        let mut batch = Batch::default();
        sampler.sample(&Request { buffers: &[&replay], size: 64, update: 99, step }, rng, &mut batch);
        batch.weights.iter().copied().fold(1.0, f32::min)
    };
    let least = [at(0), at(5), at(10), at(1000)];
    assert!(
        least[0] == 1.0 && least[0] > least[1] && least[1] > least[2] && least[2] == least[3],
        "{least:?}"
    );
    assert!((least[3] - 1.01 / 8.01).abs() < 1e-4, "{least:?}");
}

#[test]
fn new_transitions_have_the_largest_priority_and_old_errors_do_not_reach_them() {
    let (mut replay, rng) = (buffer(8, 8), &mut Rng::new(4));
    let mut sampler = prioritised(1.0);
    learn_all(&mut sampler, &replay, 1, rng, |_| 3.0);
    let waiting = sampled(&mut sampler, &[&replay], 64, 500, rng);
    (0..4).for_each(|_| push(&mut replay));
    let share = |sampler: &mut Prioritised, replay: &Replay, update, rng: &mut Rng| {
        let batch = sampled(sampler, &[replay], 4096, update, rng);
        batch.slots.iter().filter(|place| **place < 4).count() as f64 / 4096.0
    };
    // Both halves have an error of 3 by now; the errors below are of transitions that half the places no longer hold.
    sampled(&mut sampler, &[&replay], 8, 501, rng);
    let errors = waiting.slots.iter().map(|place| if *place < 4 { 1e6 } else { 0.0 }).collect::<Vec<_>>();
    sampler.learned(500, &errors);
    let found = share(&mut sampler, &replay, 502, rng);
    assert!(found > 0.99, "the new ones have 3.01, the others 0.01: {found}");
    let (_, arrays) = (0, sampler.save(&replay));
    assert!(arrays[0].1[..4].iter().all(|p| (*p - 3.01).abs() < 1e-4), "{arrays:?}");
}

#[test]
fn errors_that_are_no_numbers_and_errors_without_bounds_ruin_nothing() {
    let (replay, rng) = (buffer(6, 6), &mut Rng::new(4));
    let mut sampler = prioritised(0.7);
    learn_all(&mut sampler, &replay, 1, rng, |place| 1.0 + place as f32);
    let before = sampler.save(&replay);
    learn_all(&mut sampler, &replay, 100, rng, |_| f32::NAN);
    assert_eq!(sampler.save(&replay), before, "NaN leaves priorities as they are");
    learn_all(&mut sampler, &replay, 200, rng, |place| {
        [f32::INFINITY, f32::NEG_INFINITY, f32::MAX][place % 3]
    });
    for update in 300..400 {
        let batch = sampled(&mut sampler, &[&replay], 32, update, rng);
        assert!(batch.weights.iter().all(|w| (0.0..=1.0).contains(w)), "{:?}", batch.weights);
        sampler.learned(update, &batch.weights.iter().map(|_| 0.0).collect::<Vec<_>>());
    }
    let spread =
        chi_square(&counts(6, &[sampled(&mut sampler, &[&replay], 6000, 400, rng)], |b| &b.slots), &[1.0; 6]);
    assert!(spread < 2.0, "all have an error of 0 now: {spread}");
    // Errors of no batch, too few of them, and too many.
    sampler.learned(7, &[1.0]);
    sampled(&mut sampler, &[&replay], 4, 401, rng);
    sampler.learned(401, &[]);
    sampled(&mut sampler, &[&replay], 4, 402, rng);
    sampler.learned(402, &[1.0; 99]);
}

#[test]
fn a_buffer_of_one_transition_and_an_empty_one_can_be_sampled() {
    let (mut replay, rng) = (buffer(1, 0), &mut Rng::new(4));
    let mut samplers =
        [SamplerName::Uniform, SamplerName::Combined, SamplerName::Shares, SamplerName::Prioritised]
            .map(|sampler| ReplayConfig { sampler, ..ReplayConfig::default() }.make());
    let other = buffer(3, 3);
    for sampler in &mut samplers {
        assert_eq!(sampled(&mut **sampler, &[&replay, &other], 8, 1, rng).observation.len(), 8);
    }
    for step in 0..20 {
        push(&mut replay);
        for (index, sampler) in samplers.iter_mut().enumerate() {
            let batch = sampled(&mut **sampler, &[&replay], 8, 2 + step, rng);
            assert!(batch.observation.iter().all(|x| *x == step as f32), "sampler {index}");
            assert!(batch.weights.iter().all(|w| *w == 1.0));
            sampler.learned(2 + step, &[step as f32; 8]);
        }
    }
}

/// A device reports the errors of some updates, late; updates after a lost device are made again.
#[test]
fn errors_may_come_late_or_never() {
    let (replay, rng) = (buffer(8, 8), &mut Rng::new(4));
    let mut sampler = prioritised(1.0);
    let batches = (1..=5).map(|u| sampled(&mut sampler, &[&replay], 2, u, rng)).collect::<Vec<_>>();
    sampler.learned(3, &[5.0, 5.0]);
    let priorities = |sampler: &Prioritised| sampler.save(&replay)[0].1.clone();
    let expected =
        (0..8).map(|place| if batches[2].slots.contains(&place) { 5.01 } else { 1.0 }).collect::<Vec<_>>();
    assert_eq!(priorities(&sampler), expected);
    sampler.learned(2, &[9.0, 9.0]);
    assert_eq!(priorities(&sampler), expected, "an update before the last one reported");
    let again = sampled(&mut sampler, &[&replay], 2, 4, rng);
    sampler.learned(5, &[9.0, 9.0]);
    assert_eq!(priorities(&sampler), expected, "update 5 is to be made again");
    let _ = again;
    for update in 10..5000 {
        sampled(&mut sampler, &[&replay], 2, update, rng);
    }
    sampler.learned(4999, &[2.0, 2.0]);
    assert!(priorities(&sampler).iter().any(|p| (*p - 2.01).abs() < 1e-6));
}

#[test]
fn a_restored_sampler_goes_on_as_the_one_that_was_saved() {
    let (mut replay, rng) = (buffer(20, 33), &mut Rng::new(8));
    let mut sampler = prioritised(0.6);
    learn_all(&mut sampler, &replay, 1, rng, |place| place as f32);
    // Not sampled yet: they have no priority of their own.
    (0..3).for_each(|_| push(&mut replay));
    let arrays = sampler.save(&replay);
    let array = |name: &str| arrays.iter().find(|(n, _)| *n == name).map(|(_, a)| a.clone());
    let mut back = prioritised(0.6);
    assert!(back.restore(&replay, &mut |name| array(name)));
    let mut alike = rng.clone();
    for update in 1000..1100 {
        let (a, b) = (
            sampled(&mut sampler, &[&replay], 16, update, rng),
            sampled(&mut back, &[&replay], 16, update, &mut alike),
        );
        assert_eq!((&a.slots, &a.weights, &a.perm), (&b.slots, &b.weights, &b.perm));
        let errors = a.slots.iter().map(|place| (place * 7 % 5) as f32).collect::<Vec<_>>();
        sampler.learned(update, &errors);
        back.learned(update, &errors);
        push(&mut replay);
    }
    let saved = |sampler: &Prioritised| sampler.save(&replay);
    assert_eq!(saved(&sampler), saved(&back));
    for bad in [f32::NAN, f32::INFINITY, 0.0, -1.0] {
        for name in ["sampler.priority", "sampler.largest_priority"] {
            let mut damaged = |wanted: &str| {
                array(wanted).map(|mut values| {
                    if wanted == name {
                        values[0] = bad;
                    }
                    values
                })
            };
            assert!(!back.restore(&replay, &mut damaged), "{name}: {bad}");
        }
    }
    assert!(!back.restore(&replay, &mut |_| None));
    assert!(!back.restore(&buffer(20, 3), &mut |name| array(name)));
    assert_eq!(saved(&sampler), saved(&back), "nothing changed");
}

#[test]
fn no_batch_allocates() {
    let (mut replay, rng) = (Replay::new(64, [3, 2], 1, 2, 0.9), &mut Rng::new(8));
    let columns = Columns { return_to_go: true, source: true };
    let mut recorded = Replay::new(64, [3, 2], 0, 2, 0.9).with_columns(columns);
    replay = replay.with_columns(columns);
    for buffer in [&mut replay, &mut recorded] {
        (0..200)
            .for_each(|i| buffer.push(&[0.5; 3], &[0.0; 2], 1.0, &[0.5; 3], i % 9 == 0, false, |_, _| {}));
    }
    for sampler in
        [SamplerName::Uniform, SamplerName::Combined, SamplerName::Shares, SamplerName::Prioritised]
    {
        let mut sampler = ReplayConfig { sampler, ..ReplayConfig::default() }.make();
        let mut batch = Batch::default();
        let mut round = |update: u64, replay: &mut Replay| {
            replay.push(&[0.5; 3], &[0.0; 2], 1.0, &[0.5; 3], update.is_multiple_of(7), false, |_, _| {});
            sampler.make_room(replay).unwrap();
            sampler.sample(&request(&[replay, &recorded], 32, update), rng, &mut batch);
            sampler.learned(update, &batch.weights);
        };
        // A uniform batch of two buffers may need more runs than those before: the first ones find the most.
        (0..2000).for_each(|update| round(update, &mut replay));
        let before = allocations();
        (2000..2100).for_each(|update| round(update, &mut replay));
        assert_eq!(allocations(), before);
    }
}

/// The return of every transition, computed from the whole history.
#[test]
fn returns_to_go_are_those_of_whole_episodes() {
    let rng = &mut Rng::new(12);
    for (capacity, n_step) in [(1, 1), (7, 1), (40, 1), (40, 3), (9, 4)] {
        let mut replay = Replay::new(capacity, [1, 1], 0, n_step, 0.9)
            .with_columns(Columns { return_to_go: true, source: true });
        // (reward, episode) of every step; the end of each episode is how it ended, if it has.
        let (mut steps, mut ended): (Vec<(f32, usize)>, Vec<bool>) = (Vec::new(), vec![false]);
        for step in 0..400 {
            let reward = rng.normal() as f32;
            let (terminated, truncated) = (rng.below(12) == 0, rng.below(15) == 0);
            replay.set_source(step as f32);
            steps.push((reward, ended.len() - 1));
            replay.push(&[step as f32], &[0.0], reward, &[0.0], terminated, truncated, |_, _| {});
            if terminated || truncated {
                *ended.last_mut().unwrap() = true;
                ended.push(false);
            } else if n_step == 1 && rng.below(40) == 0 {
                // The environment is reset early: the episode goes no further.
                replay.forget_pending();
                *ended.last_mut().unwrap() = true;
                ended.push(false);
            }
            if replay.is_empty() {
                continue;
            }
            let batch = sampled(&mut Uniform, &[&replay], 64, 1, rng);
            for row in 0..64 {
                let number = batch.observation[row] as usize;
                let (_, episode) = steps[number];
                let later = steps[number..].iter().take_while(|(_, e)| *e == episode);
                let expected =
                    later.enumerate().map(|(k, (r, _))| f64::from(*r) * 0.9f64.powi(k as i32)).sum::<f64>();
                let (got, known) = (batch.return_to_go[row], batch.return_known[row]);
                assert_eq!(known == 1.0, ended[episode], "step {step}, row of step {number}");
                let expected = if ended[episode] { expected } else { 0.0 };
                assert!((f64::from(got) - expected).abs() < 1e-4, "{got}, {expected}");
                assert!(batch.source[row] >= number as f32 && batch.source[row] < (number + n_step) as f32);
            }
            if step % 50 == 49 {
                let (counters, arrays) = replay.save();
                let array = |name: &str| arrays.iter().find(|(n, _)| *n == name).map(|(_, a)| a.clone());
                let mut back = replay.empty();
                assert!(back.restore(&counters, array));
                assert_eq!(back.save(), (counters.clone(), arrays.clone()));
                let without = |name: &str| array(name).filter(|_| name != "replay.return_to_go");
                assert!(!back.restore(&counters, without));
                replay = back;
            }
        }
    }
}

/// A buffer without columns stores, saves and costs what it did.
#[test]
fn columns_cost_only_where_they_are_read() {
    let (plain, both) = (buffer(10, 10), Replay::new(10, [1, 1], 0, 1, 0.9));
    let both = both.with_columns(Columns { return_to_go: true, source: true });
    assert_eq!(both.bytes(true) - plain.bytes(true), 10 * 8);
    let names = plain.save().1.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert!(!names.iter().any(|name| ["replay.return_to_go", "replay.source"].contains(name)), "{names:?}");
    assert_eq!(plain.save().0.open, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The tree beside a plain list: totals, weights, and the place of every mass.
    #[test]
    fn a_sum_tree_is_a_list_with_running_sums(
        rooms in prop::collection::vec(1usize..70, 1..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0u32..50), 1..120),
        masses in prop::collection::vec(0.0..1.0f64, 1..40),
    ) {
        let (mut tree, mut list) = (SumTree::default(), vec![0.0; 1]);
        let mut rooms = rooms.into_iter();
        for (i, (place, weight)) in changes.into_iter().enumerate() {
            if i % 40 == 0 && let Some(room) = rooms.next() {
                tree.make_room(room).unwrap();
                prop_assert!(tree.room() >= room.max(list.len()));
                list.resize(tree.room(), 0.0);
            }
            let place = place.index(list.len());
            tree.set(place, f64::from(weight));
            list[place] = f64::from(weight);
        }
        // Whole numbers: sums are exact.
        let total = list.iter().sum::<f64>();
        prop_assert_eq!(tree.total(), total);
        list.iter().enumerate().for_each(|(place, weight)| assert_eq!(tree.get(place), *weight));
        for mass in masses {
            let mass = mass * total;
            let mut left = mass;
            let expected = list.iter().position(|weight| {
                left -= weight;
                left < 0.0
            });
            let found = tree.find(mass);
            match expected {
                Some(expected) => prop_assert_eq!(found, expected),
                None => prop_assert!(total == 0.0),
            }
            prop_assert!(total == 0.0 || list[found] > 0.0);
        }
        prop_assert!(total == 0.0 || list[tree.find(total)] > 0.0);
        prop_assert!(total == 0.0 || list[tree.find(f64::INFINITY)] > 0.0);
    }
}
