//! Each kind of cache: what it shows, what it gives back, what it weighs.

use super::buffer::STEP;
use super::{Batch, Growth, KvMask, LayerCache, Reach, RecurrentCache};
use crate::mlx::{Array, Device, Dtype, Runtime};

/// One key for each position, whose one feature is the position: `[1, 1, L, 1]`.
fn entries(from: usize, to: usize) -> Array {
    let places: Vec<f32> = (from..to).map(|p| p as f32).collect();
    Array::from_slice(&places, &[1, 1, places.len() as i32, 1]).unwrap()
}

fn batch(from: usize, to: usize) -> Batch {
    Batch::single(&vec![0; to - from], from).unwrap()
}

/// Which positions each query of `from..to` sees, by the view's keys and mask.
fn seen(cache: &mut LayerCache, from: usize, to: usize) -> Vec<Vec<usize>> {
    let k = entries(from, to);
    let view = cache.update(&k, &k, &batch(from, to)).unwrap();
    let view = view.shared().unwrap().clone();
    let keys = view.k.contiguous().unwrap().to_vec::<f32>().unwrap();
    let (l, s) = (to - from, keys.len());
    let visible = match view.mask {
        KvMask::None => vec![1.0; l * s],
        KvMask::Causal => {
            let all = Array::full(&[l as i32, s as i32], 1.0, Dtype::Float32).unwrap();
            all.tril(s as i32 - l as i32).unwrap().to_vec().unwrap()
        }
        KvMask::Array(mask) => mask.astype(Dtype::Float32).unwrap().to_vec().unwrap(),
    };
    let row = |i: usize| {
        (0..s)
            .filter(|j| visible[i * s + j] != 0.0)
            .map(|j| keys[j] as usize)
            .collect()
    };
    (0..l).map(row).collect()
}

fn expected(reach: Option<Reach>, from: usize, to: usize) -> Vec<Vec<usize>> {
    let first = |p| reach.map_or(0, |reach| reach.first(p));
    (from..to).map(|p| (first(p)..=p).collect()).collect()
}

#[test]
fn every_query_sees_what_it_should_however_the_tokens_come() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let kinds = [
        (LayerCache::full(), None),
        (LayerCache::sliding(1), Some(Reach::Sliding(1))),
        (LayerCache::sliding(7), Some(Reach::Sliding(7))),
        (LayerCache::sliding(300), Some(Reach::Sliding(300))),
        (LayerCache::chunked(1), Some(Reach::Chunked(1))),
        (LayerCache::chunked(5), Some(Reach::Chunked(5))),
        (LayerCache::chunked(400), Some(Reach::Chunked(400))),
    ];
    for (empty, reach) in kinds {
        for lengths in [
            &[1; 20][..],
            &[9, 1, 1, 30, 2],
            &[600, 1, 1, 5],
            &[3, 255, 1, 256, 1, 300, 1],
        ] {
            let mut cache = empty.fork().unwrap();
            let mut from = 0;
            for length in lengths {
                let to = from + length;
                let seen = seen(&mut cache, from, to);
                assert_eq!(seen, expected(reach, from, to), "{reach:?} {from}..{to}");
                from = to;
            }
            assert_eq!(cache.len(), from);
        }
    }
}

#[test]
fn a_window_takes_bounded_room() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let mut cache = LayerCache::sliding(100);
    for p in 0..2000 {
        seen(&mut cache, p, p + 1);
        // Two buffers of float32: the window, a step of slack, rounded up to a step.
        assert!(cache.nbytes() <= 2 * 4 * 512, "{} at {p}", cache.nbytes());
    }
}

#[test]
fn a_full_cache_weighs_its_buffers() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let mut cache = LayerCache::full();
    assert_eq!(cache.nbytes(), 0);
    seen(&mut cache, 0, 1);
    assert_eq!(cache.nbytes(), 2 * 4 * 256);
    seen(&mut cache, 1, 257);
    assert_eq!(cache.nbytes(), 2 * 4 * 512);
    assert_eq!(cache.snapshot().unwrap().nbytes(), 2 * 4 * 257);
}

#[test]
fn rewind_and_replay_shows_the_new_entries() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    for (mut cache, reach) in [
        (LayerCache::full(), None),
        (LayerCache::sliding(8), Some(Reach::Sliding(8))),
        (LayerCache::chunked(8), Some(Reach::Chunked(8))),
    ] {
        seen(&mut cache, 0, 40);
        cache.rewind(13).unwrap();
        assert_eq!(cache.len(), 13);
        assert_eq!(seen(&mut cache, 13, 20), expected(reach, 13, 20));
        assert!(cache.rewind(21).is_err());
        cache.rewind(0).unwrap();
        assert_eq!(seen(&mut cache, 0, 3), expected(reach, 0, 3));
    }
}

#[test]
fn a_window_that_moved_on_refuses_to_go_back_and_stays_whole() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let mut cache = LayerCache::sliding(8);
    for p in 0..600 {
        seen(&mut cache, p, p + 1);
    }
    assert!(cache.rewind(100).is_err());
    assert_eq!(
        seen(&mut cache, 600, 601),
        expected(Some(Reach::Sliding(8)), 600, 601)
    );
}

#[test]
fn a_snapshot_outlives_what_comes_after() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    for (mut cache, reach) in [
        (LayerCache::full(), None),
        (LayerCache::sliding(8), Some(Reach::Sliding(8))),
        (LayerCache::chunked(16), Some(Reach::Chunked(16))),
    ] {
        seen(&mut cache, 0, 20);
        let kept = cache.snapshot().unwrap();
        seen(&mut cache, 20, 300);
        for _ in 0..2 {
            let mut back = kept.fork().unwrap();
            assert_eq!(back.len(), 20);
            assert_eq!(seen(&mut back, 20, 25), expected(reach, 20, 25));
        }
    }
}

/// A pass of a layer that takes its state from end to end: `part` answers the tokens of a range and
/// moves the state behind them.
fn scan(
    cache: &mut RecurrentCache,
    batch: &Batch,
    mut part: impl FnMut(std::ops::Range<i32>, &mut Option<Array>) -> crate::mlx::Result<Array>,
) -> crate::mlx::Result<Array> {
    cache.pass(batch, |ends, mut state| {
        let (mut answers, mut states, mut start) = (Vec::new(), Vec::new(), 0);
        for &end in ends {
            answers.push(part(start..end, &mut state)?);
            states.extend(state.clone());
            start = end;
        }
        let answers = Array::concatenate(&answers.iter().collect::<Vec<_>>(), 1)?;
        Ok((answers, states))
    })
}

/// What is kept at a mark is what a pass that ends there leaves.
#[test]
fn a_marked_pass_leaves_what_shorter_ones_leave() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let inputs = |from: usize, to: usize| entries(from, to).reshape(&[1, -1, 1]).unwrap();
    // The state is the sum of all inputs, and so is the answer to the last of a part.
    let pass = |cache: &mut LayerCache, from: usize, to: usize| -> Vec<f32> {
        let cache = cache.as_recurrent().unwrap();
        let x = inputs(from, to);
        cache.conv_window(&x, 3).unwrap();
        let answers = scan(cache, &batch(from, to), |part, state| {
            let x = x.slice_axis(1, part.start, part.end)?;
            let sums = x.cumsum(1, false, true)?;
            let sums = match state {
                Some(before) => sums.add(before)?,
                None => sums,
            };
            let l = part.end - part.start;
            *state = Some(sums.slice_axis(1, l - 1, l)?);
            Ok(sums)
        });
        answers.unwrap().to_vec().unwrap()
    };
    let parts = |cache: &LayerCache, at: usize| -> Vec<Vec<f32>> {
        let LayerCache::Recurrent(cache) = cache else {
            panic!("it is recurrent")
        };
        let parts = cache.parts(at).into_iter().flatten();
        let row_major = parts.map(|part| part.contiguous().unwrap().to_vec().unwrap());
        row_major.collect()
    };
    let (mut marked, mut plain) = (LayerCache::recurrent(), LayerCache::recurrent());
    let before = pass(&mut marked, 0, 4);
    assert_eq!(before, pass(&mut plain, 0, 4));
    marked.mark(&[5, 9]);
    let answers = pass(&mut marked, 4, 12);
    let mut in_parts = Vec::new();
    for (from, to) in [(4, 5), (5, 9), (9, 12)] {
        in_parts.extend(pass(&mut plain, from, to));
        assert_eq!(parts(&marked, to), parts(&plain, to), "{to}");
    }
    assert_eq!(answers, in_parts);
    let LayerCache::Recurrent(cache) = &mut marked else {
        panic!("it is recurrent")
    };
    assert_eq!(
        [5, 6, 9, 12].map(|at| cache.reaches(at)),
        [true, false, true, true]
    );
    cache.mark(&[]);
    assert_eq!([5, 9, 12].map(|at| cache.reaches(at)), [false, false, true]);
}

#[test]
fn a_recurrent_cache_goes_back_to_the_start_or_a_snapshot() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let mut cache = LayerCache::recurrent();
    let inputs = |from: usize, to: usize| entries(from, to).reshape(&[1, -1, 1]).unwrap();
    let step = |cache: &mut LayerCache, from, to| -> Vec<f32> {
        let cache = cache.as_recurrent().unwrap();
        let window = cache.conv_window(&inputs(from, to), 3).unwrap();
        scan(cache, &batch(from, to), |part, state| {
            let end = from + part.end as usize;
            *state = Some(inputs(end, end + 1));
            Ok(inputs(from + part.start as usize, end))
        })
        .unwrap();
        window.to_vec().unwrap()
    };
    assert_eq!(step(&mut cache, 0, 1), [0.0, 0.0, 0.0]);
    assert_eq!(step(&mut cache, 1, 4), [0.0, 0.0, 1.0, 2.0, 3.0]);
    let kept = cache.snapshot().unwrap();
    assert_eq!(step(&mut cache, 4, 5), [2.0, 3.0, 4.0]);
    assert!(cache.rewind(4).is_err());
    assert_eq!(cache.nbytes(), 3 * 4);
    let mut back = kept.fork().unwrap();
    assert_eq!(step(&mut back, 4, 5), [2.0, 3.0, 4.0]);
    cache.rewind(0).unwrap();
    assert!(cache.is_empty() && cache.nbytes() == 0);
    assert!(
        cache
            .update(&entries(0, 1), &entries(0, 1), &batch(0, 1))
            .is_err()
    );
}

#[test]
fn latents_are_keys_and_their_front_is_values() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let mut cache = LayerCache::latent();
    let latents = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[1, 1, 2, 3]).unwrap();
    let view = cache.update_latent(&latents, 2, &batch(0, 2)).unwrap();
    let view = view.shared().unwrap();
    assert_eq!(view.k.shape(), [1, 1, 2, 3]);
    assert_eq!(view.v.to_vec::<f32>().unwrap(), [1.0, 2.0, 4.0, 5.0]);
    assert_eq!(cache.nbytes(), 4 * 3 * 256);
    assert!(cache.update_latent(&latents, 2, &batch(3, 5)).is_err());
}

/// Rows of a common store and rows by themselves see the same, whoever comes and goes.
#[test]
fn a_common_store_shows_what_single_caches_show() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let entry = |row: usize, from: usize, to: usize| {
        // Two heads of four features, all different.
        let n = to - from;
        let number = |i: usize| (row * 100_000 + from * 8 + i) as f32;
        let numbers: Vec<f32> = (0..n * 8).map(number).collect();
        let array = Array::from_slice(&numbers, &[1, n as i32, 2, 4]).unwrap();
        array.swapaxes(1, 2).unwrap()
    };
    let kinds = [
        LayerCache::full(),
        LayerCache::sliding(1),
        LayerCache::sliding(40),
        LayerCache::sliding(300),
        LayerCache::chunked(100),
        LayerCache::latent(),
    ];
    for empty in kinds {
        let start = |row: usize, len: usize| {
            let mut cache = empty.fork().unwrap();
            put(&mut cache, &entry(row, 0, len), &batch(0, len));
            cache
        };
        let mut single: Vec<(usize, LayerCache)> = Vec::new();
        for (row, len) in [5, 256, 300, 1].into_iter().enumerate() {
            single.push((row, start(row, len)));
        }
        let rows: Vec<LayerCache> = single.iter().map(|(_, c)| c.fork().unwrap()).collect();
        let mut all = LayerCache::Arena(super::ArenaCache::of(&rows).unwrap().unwrap());
        for step in 0..600 {
            match step {
                90 => {
                    single = [3, 0, 2]
                        .map(|i| (single[i].0, single[i].1.fork().unwrap()))
                        .into();
                    all.keep(&[3, 0, 2]).unwrap();
                }
                120 | 121 => {
                    let cache = start(step, 700);
                    all.push(cache.fork().unwrap()).unwrap();
                    single.push((step, cache));
                }
                _ => {}
            }
            let lens: Vec<usize> = single.iter().map(|(_, cache)| cache.len()).collect();
            let entries: Vec<Array> = single
                .iter()
                .map(|(row, cache)| entry(*row, cache.len(), cache.len() + 1))
                .collect();
            let k = Array::concatenate(&entries.iter().collect::<Vec<_>>(), 0).unwrap();
            let tokens = Array::from_slice(&vec![0u32; lens.len()], &[lens.len() as i32, 1]);
            let together = Batch::new(tokens.unwrap(), lens.clone()).unwrap();
            let found = attended(&put(&mut all, &k, &together), lens.len());
            for (i, (_, cache)) in single.iter_mut().enumerate() {
                let view = put(cache, &entries[i], &batch(lens[i], lens[i] + 1));
                if step % 29 == 0 || step > 590 {
                    assert_eq!(attended(&view, 1)[0], found[i], "row {i} of step {step}");
                }
            }
            if step == 400 {
                // Taken out, a row goes on as it would have.
                let (row, cache) = &mut single[1];
                let mut alone = all.row(1).unwrap();
                assert_eq!(alone.len(), cache.len());
                let n = cache.len();
                let next = entry(*row, n, n + 1);
                let view = put(&mut alone, &next, &batch(n, n + 1));
                let view = attended(&view, 1);
                let mut other = cache.fork().unwrap();
                let expected = attended(&put(&mut other, &next, &batch(n, n + 1)), 1);
                assert_eq!(view, expected);
            }
        }
        assert_eq!(all.n_rows(), 5);
    }
}

fn put(cache: &mut LayerCache, k: &Array, batch: &Batch) -> super::KvView {
    match cache {
        LayerCache::Latent(_) => {
            let heads = k.slice_axis(1, 0, 1).unwrap();
            cache.update_latent(&heads, 4, batch).unwrap()
        }
        LayerCache::Arena(_) if is_latent(cache) => {
            let heads = k.slice_axis(1, 0, 1).unwrap();
            cache.update_latent(&heads, 4, batch).unwrap()
        }
        _ => cache.update(k, k, batch).unwrap(),
    }
}

fn is_latent(cache: &LayerCache) -> bool {
    matches!(cache.row(0).unwrap(), LayerCache::Latent(_))
}

/// What queries of no preference find: the mean of the values that each row sees.
fn attended(view: &super::KvView, rows: usize) -> Vec<Vec<f32>> {
    let queries = Array::zeros(&[rows as i32, 2, 1, 4], Dtype::Float32).unwrap();
    let found = view.attend(&queries, super::Attend::scaled(1.0)).unwrap();
    let found = found.contiguous().unwrap().to_vec::<f32>().unwrap();
    found
        .chunks(found.len() / rows)
        .map(<[f32]>::to_vec)
        .collect()
}

/// What is foretold from one token on is what caches weigh at any length, however the tokens come.
#[test]
fn growth_foretells_bytes() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let entry =
        |l: usize, d: usize| Array::zeros(&[1, 3, l as i32, d as i32], Dtype::Float16).unwrap();
    let feed = |cache: &mut LayerCache, from: usize, to: usize| {
        let (l, batch) = (to - from, batch(from, to));
        match cache {
            LayerCache::Latent(_) => {
                let latents = entry(l, 5);
                cache.update_latent(&latents, 4, &batch).unwrap();
            }
            LayerCache::Recurrent(recurrent) => {
                let x = Array::zeros(&[1, l as i32, 7], Dtype::Float32).unwrap();
                recurrent.conv_window(&x, 4).unwrap();
                let answered = recurrent.pass(&batch, |_, _| {
                    let state = Array::zeros(&[1, 2, 9], Dtype::Float32)?;
                    Ok((x.clone(), vec![state]))
                });
                answered.unwrap();
            }
            _ => {
                // Keys and values of different width, as latent attention unpacked has them.
                cache.update(&entry(l, 6), &entry(l, 4), &batch).unwrap();
            }
        }
    };
    let kinds = [
        LayerCache::full(),
        LayerCache::latent(),
        LayerCache::recurrent(),
        LayerCache::sliding(1),
        LayerCache::sliding(100),
        LayerCache::sliding(700),
        LayerCache::chunked(300),
    ];
    for empty in kinds {
        let mut probe = empty.fork().unwrap();
        feed(&mut probe, 0, 1);
        let growth = probe.growth();
        assert_eq!(growth.bytes_at(0, 1), 0);
        let step = match growth {
            Growth::Window { bytes, .. } => bytes * STEP,
            Growth::Positions(_) | Growth::Fixed(_) => 0,
        };
        for chunk in [1, 37, 512] {
            let mut cache = empty.fork().unwrap();
            let mut len = 0;
            while len < 2100 {
                // The last tokens come one by one, as an answer's do.
                let to = if len < 1800 { len + chunk } else { len + 1 };
                feed(&mut cache, len, to);
                len = to;
                let (real, foretold) = (cache.nbytes(), growth.bytes_at(len, chunk));
                assert!(
                    real <= foretold,
                    "{empty:?} at {len} by {chunk}: {real} > {foretold}"
                );
                // A chunk of a window's room may be left over from earlier, larger ones.
                if step == 0 {
                    assert_eq!(real, foretold, "{empty:?} at {len} by {chunk}");
                }
            }
            if step > 0 {
                let (real, foretold) = (cache.nbytes(), growth.bytes_at(len, chunk));
                assert!(
                    foretold <= real + 2 * step + step * chunk.div_ceil(STEP),
                    "{empty:?} by {chunk}: {real}, foretold {foretold}"
                );
            }
        }
    }
    assert_eq!(Growth::Positions(3).bytes_at(usize::MAX, 512), usize::MAX);
}
