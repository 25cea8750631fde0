//! Randomness that depends on a seed, a step and a token, and on nothing else.
//!
//! MLX draws random numbers from one key for a whole array, so a row's numbers would depend on the
//! batch around it. Here each number is a hash of the row's own key and the token's id, computed for
//! all rows at once.

use crate::mlx::{Array, Dtype, Result, fused};

/// What is drawn in a step apart from the token; each needs numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Which token comes.
    Token,
    /// Whether XTC acts.
    Xtc,
}

/// The 64 random bits of one step of one sequence: splitmix64 (Steele et al., 2014), so that
/// neighbouring seeds and steps are unrelated.
pub fn step_bits(seed: u64, step: u64, purpose: Purpose) -> u64 {
    let seed = match purpose {
        Purpose::Token => seed,
        Purpose::Xtc => mix(seed ^ 0x5854_435f_6163_7473),
    };
    mix(seed.wrapping_add(step.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number from 0 (included) to 1 (excluded) from the upper bits.
pub fn unit(bits: u64) -> f32 {
    (bits >> 40) as f32 / (1u32 << 24) as f32
}

/// Noise of the Gumbel distribution, float32 `[B, n]`, a row for each key. The index of the largest
/// sum of log-probability and noise is a draw from the distribution (Gumbel, 1954; Maddison et al.,
/// 2014).
pub fn gumbel(keys: &[u64], n: i32) -> Result<Array> {
    let halves = |half: fn(u64) -> u32| {
        let words: Vec<u32> = keys.iter().map(|key| half(*key)).collect();
        Array::from_slice(&words, &[words.len() as i32, 1])
    };
    let low = halves(|key| key as u32)?;
    let high = halves(|key| (key >> 32) as u32)?;
    let index = Array::arange(0, n, Dtype::Uint32)?.reshape(&[1, n])?;
    let [noise] = fused(from_hash, &[&low, &high, &index])?;
    Ok(noise)
}

fn from_hash(inputs: &[&Array]) -> Result<[Array; 1]> {
    Ok([from_bits(&pcg3d(inputs[0], inputs[1], inputs[2])?)?])
}

/// Noise from uniform bits (uint32); finite for all of them.
fn from_bits(bits: &Array) -> Result<Array> {
    // The winner's noise is large, which is a number near 0 here; there floats are densest.
    let share = bits
        .astype(Dtype::Float32)?
        .add(&Array::from_f32(0.5)?)?
        .multiply(&Array::from_f32((-32f32).exp2())?)?
        .minimum(&Array::from_f32(1.0 - (-24f32).exp2())?)?;
    share.negative()?.log1p()?.negative()?.log()?.negative()
}

/// 32 bits of `x`, `y` and `z` (uint32, broadcast): the hash `pcg3d` of Jarzynski and Olano, "Hash
/// functions for GPU rendering", Journal of Computer Graphics Techniques 9(3), 2020; its third word.
fn pcg3d(x: &Array, y: &Array, z: &Array) -> Result<Array> {
    let constant = |value: u32| Array::from_slice(&[value], &[]);
    let (factor, increment, half) = (
        constant(1_664_525)?,
        constant(1_013_904_223)?,
        constant(16)?,
    );
    let spread = |v: &Array| v.multiply(&factor)?.add(&increment);
    let fold = |v: &Array| v.bitwise_xor(&v.right_shift(&half)?);
    let round = |x: &Array, y: &Array, z: &Array| -> Result<[Array; 3]> {
        let x = x.add(&y.multiply(z)?)?;
        let y = y.add(&z.multiply(&x)?)?;
        let z = z.add(&x.multiply(&y)?)?;
        Ok([x, y, z])
    };
    let [x, y, z] = round(&spread(x)?, &spread(y)?, &spread(z)?)?;
    let [_, _, z] = round(&fold(&x)?, &fold(&y)?, &fold(&z)?)?;
    Ok(z)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlx::{Device, Runtime, compile_everywhere};

    /// The same in scalars, as the paper's listing has it.
    fn scalar([mut x, mut y, mut z]: [u32; 3]) -> u32 {
        for v in [&mut x, &mut y, &mut z] {
            *v = v.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        }
        for last in [false, true] {
            x = x.wrapping_add(y.wrapping_mul(z));
            y = y.wrapping_add(z.wrapping_mul(x));
            z = z.wrapping_add(x.wrapping_mul(y));
            if !last {
                (x, y, z) = (x ^ (x >> 16), y ^ (y >> 16), z ^ (z >> 16));
            }
        }
        z
    }

    fn bits(keys: &[u64], n: i32) -> Vec<u32> {
        let column = |shift: u32| {
            let words: Vec<u32> = keys.iter().map(|key| (key >> shift) as u32).collect();
            Array::from_slice(&words, &[keys.len() as i32, 1]).unwrap()
        };
        let index = Array::arange(0, n, Dtype::Uint32).unwrap();
        let bits = pcg3d(&column(0), &column(32), &index).unwrap();
        bits.to_vec().unwrap()
    }

    fn keys(n: u64) -> Vec<u64> {
        (0..n)
            .map(|step| step_bits(step % 3, step, Purpose::Token))
            .collect()
    }

    #[test]
    fn the_hash_is_the_papers() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let keys = keys(4);
        let expected = keys
            .iter()
            .flat_map(|key| (0..50).map(move |i| scalar([*key as u32, (key >> 32) as u32, i])));
        assert_eq!(bits(&keys, 50), expected.collect::<Vec<_>>());
    }

    /// The statistic of Pearson's test, in standard deviations from its mean.
    fn deviation(counts: &[u32]) -> f64 {
        let n: u32 = counts.iter().sum();
        let expected = f64::from(n) / counts.len() as f64;
        let squares = counts.iter().map(|c| (f64::from(*c) - expected).powi(2));
        let freedom = (counts.len() - 1) as f64;
        (squares.sum::<f64>() / expected - freedom) / (2.0 * freedom).sqrt()
    }

    #[test]
    fn bits_are_uniform_along_tokens_and_along_steps() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let (rows, n) = (64, 4096);
        let keys = keys(rows);
        let bits = bits(&keys, n);
        let at = |row: usize, i: usize| bits[row * n as usize + i];
        for shift in [0, 8, 16, 24] {
            // One byte of all, of one row, of one token over the steps, and of neighbours together.
            let byte = |x: u32| (x >> shift) as usize & 255;
            let mut counts = vec![[0; 256]; 4];
            for row in 0..rows as usize {
                for i in 0..n as usize {
                    counts[0][byte(at(row, i))] += 1;
                    let next = at(row, (i + 1) % n as usize);
                    counts[1][byte(at(row, i) ^ next)] += 1;
                    let below = at((row + 1) % rows as usize, i);
                    counts[2][byte(at(row, i) ^ below)] += 1;
                    counts[3][byte(at(row, i).wrapping_add(next))] += 1;
                }
            }
            for (i, counts) in counts.iter().enumerate() {
                let deviation = deviation(counts);
                assert!(
                    deviation.abs() < 4.5,
                    "shift {shift}, count {i}: {deviation}"
                );
            }
        }
        let distinct: std::collections::BTreeSet<u32> = bits.iter().copied().collect();
        // Of 2^18 values of 32 bits 8 pairs fall together on average.
        assert!(
            bits.len() - distinct.len() < 30,
            "{}",
            bits.len() - distinct.len()
        );
    }

    #[test]
    fn steps_of_one_token_are_uniform() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        for seed in [0, 1, u64::MAX] {
            let keys: Vec<u64> = (0..20_000)
                .map(|step| step_bits(seed, step, Purpose::Token))
                .collect();
            let bits = bits(&keys, 2);
            for token in 0..2 {
                let mut counts = [0; 64];
                bits.iter()
                    .skip(token)
                    .step_by(2)
                    .for_each(|x| counts[(x >> 26) as usize] += 1);
                assert!(deviation(&counts).abs() < 4.5);
            }
        }
    }

    #[test]
    fn noise_is_of_the_gumbel_distribution_and_finite() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let noise = gumbel(&keys(16), 8192).unwrap();
        assert_eq!(noise.shape(), [16, 8192]);
        let noise = noise.to_vec::<f32>().unwrap();
        assert!(noise.iter().all(|x| x.is_finite()));
        // Its distribution function is exp(-exp(-x)), which makes it uniform.
        let mut counts = [0; 200];
        for x in &noise {
            counts[((-(-f64::from(*x)).exp()).exp() * 200.0) as usize] += 1;
        }
        assert!(deviation(&counts).abs() < 4.5, "{}", deviation(&counts));
    }

    #[test]
    fn the_extremes_of_the_hash_are_finite_noise() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let bits = Array::from_slice(&[0, u32::MAX], &[2]).unwrap();
        let noise = from_bits(&bits).unwrap().to_vec::<f32>().unwrap();
        for (noise, expected) in noise.iter().zip([22.87, -2.81]) {
            assert!((noise - expected).abs() < 0.01, "{noise}");
        }
    }

    #[test]
    fn a_rows_noise_is_its_own() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let keys = keys(8);
        let together = gumbel(&keys, 1000).unwrap().to_vec::<f32>().unwrap();
        for (i, key) in keys.iter().enumerate() {
            let alone = gumbel(&[*key], 1000).unwrap().to_vec::<f32>().unwrap();
            assert_eq!(together[i * 1000..(i + 1) * 1000], alone[..]);
        }
    }

    /// A GPU runs the compiled function; the compiler must not change a bit of the hash, and little of
    /// the noise.
    #[test]
    #[ignore = "MLX calls a C++ compiler, for minutes on a busy machine"]
    fn the_compiled_noise_is_the_same_for_every_shape() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        for (rows, n) in [(1, 10), (3, 1000), (8, 77), (1, 10)] {
            let keys = keys(rows);
            let column = |shift: u32| {
                let words: Vec<u32> = keys.iter().map(|key| (key >> shift) as u32).collect();
                Array::from_slice(&words, &[keys.len() as i32, 1]).unwrap()
            };
            let index = Array::arange(0, n, Dtype::Uint32).unwrap();
            let index = index.reshape(&[1, n]).unwrap();
            compile_everywhere(true);
            let [ours] = fused(from_hash, &[&column(0), &column(32), &index]).unwrap();
            compile_everywhere(false);
            let plain = gumbel(&keys, n).unwrap();
            assert_eq!(ours.shape(), [rows as i32, n]);
            assert!(ours.max_difference(&plain).unwrap() < 1e-4);
        }
    }

    #[test]
    fn purposes_are_unrelated_and_units_below_one() {
        assert_ne!(
            step_bits(1, 2, Purpose::Token),
            step_bits(1, 2, Purpose::Xtc)
        );
        assert!(unit(u64::MAX) < 1.0);
        assert_eq!(unit(0), 0.0);
    }
}
