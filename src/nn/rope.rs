//! Rotary position embeddings, with the scalings that stretch a context.
//!
//! A table holds wavelengths over 2π: feature pair i turns by `position / table[i]` (Su et al.,
//! 2021; llama3: Meta's Llama 3.1 reference; yarn: Peng et al., 2023; longrope: Ding et al., 2024;
//! proportional: Gemma 4, 2026). Setting names and defaults
//! are those of Hugging Face's configurations as mlx-lm's `rope_utils` reads them.

use std::f32::consts::PI;

use crate::cache::Batch;
use crate::checkpoint::{Config, LoadError, LoadResult};
use crate::mlx::{self, Array, RopeFreqs};

/// What a rotary embedding needs to know beside the scaling.
#[derive(Clone, Copy, Debug)]
pub struct RopeShape {
    /// Features of a head that turn.
    pub dims: usize,
    /// The base of the wavelengths where the configuration names none.
    pub default_theta: Option<f32>,
    /// Whether neighbouring features form pairs, instead of i and i + dims/2.
    pub traditional: bool,
}

/// A rotary embedding.
#[derive(Clone, Debug)]
pub struct Rope {
    dims: i32,
    traditional: bool,
    freqs: RopeFreqs,
    /// Positions are multiplied by it.
    scale: f32,
    /// Queries and keys are multiplied by it first (yarn's and longrope's attention temperature).
    mscale: f32,
}

impl Rope {
    /// Without scaling.
    pub fn plain(dims: usize, theta: f32, traditional: bool) -> Self {
        Self {
            dims: dims as i32,
            traditional,
            freqs: RopeFreqs::Base(theta),
            scale: 1.0,
            mscale: 1.0,
        }
    }

    /// From `rope_theta` with `rope_scaling`, or from `rope_parameters`, which has both.
    ///
    /// # Errors
    /// If the type is unknown, or a setting is missing or of the wrong kind.
    pub fn load(config: &Config, shape: RopeShape) -> LoadResult<Self> {
        let parameters = config.object("rope_parameters")?;
        let nested = parameters
            .as_ref()
            .map(|p| p.f32_opt("rope_theta"))
            .transpose()?;
        let theta = config.f32_opt("rope_theta")?.or(nested.flatten());
        let Some(theta) = theta.or(shape.default_theta) else {
            return Err(config
                .invalid("rope_theta", "the base of the rotary embedding")
                .into());
        };
        let plain = Self::plain(shape.dims, theta, shape.traditional);
        match config.object("rope_scaling")?.or(parameters) {
            None => Ok(plain),
            Some(scaling) => plain.scaled(config, &scaling),
        }
    }

    /// With the scaling that an object of `config` asks for, whose `type` or `rope_type` says which.
    ///
    /// # Errors
    /// If the type is unknown, or a setting is missing or of the wrong kind.
    pub fn scaled(mut self, config: &Config, scaling: &Config) -> LoadResult<Self> {
        let kind = match scaling.str_opt("type")? {
            Some(kind) => kind,
            None => scaling.str_or("rope_type", "default")?,
        };
        let dims = self.dims as usize;
        let RopeFreqs::Base(theta) = self.freqs else {
            return Ok(self);
        };
        match kind {
            // Sections of mrope differ for images only; the positions of text are the same in all.
            "default" | "mrope" => {}
            "linear" => self.scale = 1.0 / scaling.f32("factor")?,
            "llama3" => self.freqs = table(&llama3(scaling, dims, theta)?)?,
            "yarn" | "deepseek_yarn" | "telechat3-yarn" => {
                let (wavelengths, mscale) = yarn(scaling, dims, theta)?;
                self.freqs = table(&wavelengths)?;
                self.mscale = mscale;
            }
            "longrope" | "su" => {
                let (wavelengths, mscale) = longrope(config, scaling, dims, theta)?;
                self.freqs = table(&wavelengths)?;
                self.mscale = mscale;
            }
            "proportional" => self.freqs = table(&proportional(scaling, dims, theta)?)?,
            other => {
                return Err(LoadError::Unsupported(format!(
                    "{}: {} is {other:?}; supported are default, linear, llama3, yarn, longrope, \
                     proportional and mrope",
                    config.file(),
                    scaling.path_of("rope_type")
                )));
            }
        }
        Ok(self)
    }

    /// Turns `x [B, H, L, D]` by the batch's positions.
    pub fn forward(&self, x: &Array, batch: &Batch) -> mlx::Result<Array> {
        let scaled;
        let x = if self.mscale == 1.0 {
            x
        } else {
            scaled = self.scale_turning(x)?;
            &scaled
        };
        let (dims, traditional, freqs) = (self.dims, self.traditional, &self.freqs);
        match batch.offset() {
            Some(offset) => mlx::rope(x, dims, traditional, freqs, self.scale, offset as i32),
            None => {
                let positions = batch.positions()?;
                mlx::rope_rows(x, dims, traditional, freqs, self.scale, positions)
            }
        }
    }

    /// Multiplies the features that turn, and only those, by `mscale`.
    fn scale_turning(&self, x: &Array) -> mlx::Result<Array> {
        let d = x.dim(-1)?;
        let factor = x.scalar_like(self.mscale)?;
        if d == self.dims {
            return x.multiply(&factor);
        }
        let turning = x.slice_axis(-1, 0, self.dims)?.multiply(&factor)?;
        Array::concatenate(&[&turning, &x.slice_axis(-1, self.dims, d)?], -1)
    }
}

fn table(wavelengths: &[f32]) -> LoadResult<RopeFreqs> {
    let shape = [wavelengths.len() as i32];
    Ok(RopeFreqs::Table(Array::from_slice(wavelengths, &shape)?))
}

/// `theta^(2i / dims)`: wavelengths over 2π, without scaling.
fn plain(dims: usize, theta: f32) -> Vec<f32> {
    (0..dims)
        .step_by(2)
        .map(|i| theta.powf(i as f32 / dims as f32))
        .collect()
}

/// Long wavelengths are stretched by `factor`, short ones kept, with a smooth passage between.
fn llama3(scaling: &Config, dims: usize, theta: f32) -> LoadResult<Vec<f32>> {
    let factor = scaling.f32("factor")?;
    let low = scaling.f32_or("low_freq_factor", 1.0)?;
    let high = scaling.f32_or("high_freq_factor", 4.0)?;
    let context = scaling.f32_or("original_max_position_embeddings", 8192.0)?;
    let stretch = |f: f32| {
        let wavelength = 2.0 * PI * f;
        if wavelength > context / low {
            f * factor
        } else if wavelength > context / high && wavelength < context / low {
            let smooth = (context / wavelength - low) / (high - low);
            f / ((1.0 - smooth) / factor + smooth)
        } else {
            f
        }
    };
    Ok(plain(dims, theta).into_iter().map(stretch).collect())
}

/// Wavelengths, and the factor for queries and keys.
fn yarn(scaling: &Config, dims: usize, theta: f32) -> LoadResult<(Vec<f32>, f32)> {
    let factor = scaling.f32("factor")?;
    let context = scaling.f32_or("original_max_position_embeddings", 4096.0)?;
    let beta_fast = scaling.f32_or("beta_fast", 32.0)?;
    let beta_slow = scaling.f32_or("beta_slow", 1.0)?;
    let mscale = scaling.f32_or("mscale", 1.0)?;
    let mscale_all_dim = scaling.f32_or("mscale_all_dim", 0.0)?;

    // The feature whose wave turns this many times within the original context.
    let feature =
        |turns: f32| dims as f32 * (context / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let low = feature(beta_fast).floor().max(0.0);
    let mut high = feature(beta_slow).ceil().min(dims as f32 - 1.0);
    if low == high {
        high += 0.001; // As the reference does, so that the ramp has a slope.
    }
    let wavelengths = plain(dims, theta)
        .into_iter()
        .enumerate()
        .map(|(i, kept)| {
            let ramp = ((i as f32 - low) / (high - low)).clamp(0.0, 1.0);
            let (stretched, mask) = (factor * kept, 1.0 - ramp);
            stretched * kept / (stretched * mask + kept * (1.0 - mask))
        })
        .collect();
    let temperature = |mscale: f32| match factor {
        f if f <= 1.0 => 1.0,
        f => 0.1 * mscale * f.ln() + 1.0,
    };
    Ok((
        wavelengths,
        temperature(mscale) / temperature(mscale_all_dim),
    ))
}

/// Each wavelength has a stretch of its own, and queries and keys a factor. As in mlx-lm the long
/// factors serve every length: a cache filled under one set cannot be read under the other.
fn longrope(
    config: &Config,
    scaling: &Config,
    dims: usize,
    theta: f32,
) -> LoadResult<(Vec<f32>, f32)> {
    let key = "original_max_position_embeddings";
    let original = match scaling.f32_opt(key)? {
        Some(original) => original,
        None => config.f32_or(key, 4096.0)?,
    };
    let longest = config.f32_or("max_position_embeddings", 131_072.0)?;
    let factors = match scaling.f32_list("long_factor")? {
        Some(factors) if factors.len() == dims / 2 => factors,
        _ => {
            let expected = format!("a list of {} numbers", dims / 2);
            return Err(scaling.invalid("long_factor", expected).into());
        }
    };
    let factor = longest / original;
    let mscale = match factor <= 1.0 {
        true => 1.0,
        false => (1.0 + factor.ln() / original.ln()).sqrt(),
    };
    let stretched = plain(dims, theta).into_iter().zip(factors);
    Ok((stretched.map(|(f, factor)| f * factor).collect(), mscale))
}

/// Wavelengths spread over all features of a head, of which the longest do not turn at all.
fn proportional(scaling: &Config, dims: usize, theta: f32) -> LoadResult<Vec<f32>> {
    let part = scaling.f32_or("partial_rotary_factor", 1.0)?;
    if !(0.0..=1.0).contains(&part) {
        return Err(scaling
            .invalid("partial_rotary_factor", "from 0 to 1")
            .into());
    }
    let factor = scaling.f32_or("factor", 1.0)?;
    let turning = ((dims as f32 * part) as usize).div_ceil(2);
    let stretch = |(i, f): (usize, f32)| match i < turning {
        true => factor * f,
        false => f32::INFINITY,
    };
    Ok(plain(dims, theta)
        .into_iter()
        .enumerate()
        .map(stretch)
        .collect())
}
