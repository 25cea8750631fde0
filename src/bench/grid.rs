//! The grid: prompt length × answer length × depth × concurrency, each point warmed up and repeated.

use serde_json::{Map, Value};

use super::row::{Measures, Row};
use super::stats::Ratio;
use super::system::{CpuTime, GpuWatch, resident_bytes};
use super::target::{Ask, Target, random_ids};
use super::trace::Trace;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Grid {
    /// Tokens of a prompt.
    pub prompts: Vec<usize>,
    /// Tokens of an answer, 2 or more.
    pub answers: Vec<usize>,
    /// Tokens before the prompt that an earlier request had too.
    pub depths: Vec<usize>,
    /// Requests at a time.
    pub concurrencies: Vec<usize>,
    /// Measurements of each point.
    pub reps: usize,
    /// Runs of each point before them.
    pub warm_up: usize,
    /// Makes other prompts.
    pub seed: u64,
}

/// One point of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens of the answer.
    pub answer: usize,
    /// Tokens before the prompt that an earlier request had too.
    pub depth: usize,
    /// Requests at a time.
    pub concurrency: usize,
}

impl Point {
    /// Tokens of a whole request.
    pub fn tokens(&self) -> usize {
        let whole = self.prompt.saturating_add(self.answer);
        whole.saturating_add(self.depth)
    }
}

impl Grid {
    /// All points, the streams growing slowest.
    pub fn points(&self) -> Vec<Point> {
        let mut points = Vec::new();
        for &concurrency in &self.concurrencies {
            for &depth in &self.depths {
                for &prompt in &self.prompts {
                    let point = |&answer| Point {
                        prompt,
                        answer,
                        depth,
                        concurrency,
                    };
                    points.extend(self.answers.iter().map(point));
                }
            }
        }
        points
    }

    /// Runs one point on `target`: its warm-up, then its repetitions.
    ///
    /// # Errors
    /// What a request said that failed.
    pub async fn run(&self, target: &Target, point: Point) -> Result<Row, String> {
        let gpu = GpuWatch::start();
        let mut measures = Measures::default();
        let mut course = Course::new(self, target, point, &mut measures).await?;
        for _ in 0..self.warm_up {
            course.run(target, None).await?;
        }
        // What was seen so far is not of the measurements.
        let _ = gpu.as_ref().map(GpuWatch::take);
        for _ in 0..self.reps {
            course.run(target, Some(&mut measures)).await?;
        }
        Ok(Row {
            point,
            reps: self.reps,
            target: target.facts().clone(),
            measures,
            gpu: gpu.and_then(|gpu| gpu.take()),
            resident: resident_bytes().filter(|_| target.is_here()),
            versus: None,
        })
    }

    /// Runs one point on both, in turn, A B A B. The first row has the ratios of medians, first over
    /// second, with their ranges.
    ///
    /// # Errors
    /// What a request said that failed.
    pub async fn versus(&self, a: &Target, b: &Target, point: Point) -> Result<[Row; 2], String> {
        let targets = [a, b];
        let mut measures = [Measures::default(), Measures::default()];
        let [ours, theirs] = &mut measures;
        let mut courses = [
            Course::new(self, a, point, ours).await?,
            Course::new(self, b, point, theirs).await?,
        ];
        for rep in 0..self.warm_up + self.reps {
            for ((course, target), measures) in courses.iter_mut().zip(targets).zip(&mut measures) {
                course
                    .run(target, (rep >= self.warm_up).then_some(measures))
                    .await?;
            }
        }
        let [ours, theirs] = &measures;
        let ratios = ours.named().into_iter().zip(theirs.named());
        let ratios = ratios
            .filter_map(|((name, a), (_, b))| Some((name.to_owned(), Ratio::of(a, b)?.json())));
        let mut versus: Option<Map<String, Value>> = Some(ratios.collect());
        let mut row = |target: &Target, measures| Row {
            point,
            reps: self.reps,
            target: target.facts().clone(),
            measures,
            // Of both, so of neither.
            gpu: None,
            resident: None,
            versus: versus.take(),
        };
        let [ours, theirs] = measures;
        Ok([row(a, ours), row(b, theirs)])
    }
}

/// A point being run: every run has prompts that no run before had.
pub struct Course {
    point: Point,
    seed: u64,
    prefixes: Vec<Vec<u32>>,
    runs: u64,
}

impl Course {
    /// Prepares a point: measures first tokens of prompts of which nothing is known, at their first use
    /// of the kernels that they need; then what lies before the prompts is computed once.
    ///
    /// # Errors
    /// What a request said that failed.
    pub async fn new(
        grid: &Grid,
        target: &Target,
        point: Point,
        measures: &mut Measures,
    ) -> Result<Self, String> {
        // Of this point alone, so that no other has left it in a cache.
        let place = [point.prompt, point.answer, point.depth, point.concurrency];
        let seed = place.iter().fold(grid.seed, |seed, &n| {
            seed.wrapping_mul(1_000_003).wrapping_add(n as u64)
        });
        let mut course = Self {
            point,
            seed,
            prefixes: vec![Vec::new(); point.concurrency],
            runs: 0,
        };
        let vocab = target.vocab();
        let cold = (0..point.concurrency).map(|i| {
            let seed = seed.wrapping_add(u64::MAX / 4 + i as u64);
            Ask::new(random_ids(point.depth + point.prompt, vocab, seed), 1)
        });
        let cold = target.together(cold.collect()).await?;
        let firsts = cold.iter().filter_map(Trace::first);
        measures.ttft_cold_ms.extend(firsts.map(|s| 1e3 * s));
        if point.depth > 0 {
            for (i, prefix) in course.prefixes.iter_mut().enumerate() {
                let seed = seed.wrapping_add(u64::MAX / 2 + i as u64);
                *prefix = random_ids(point.depth, vocab, seed);
            }
            let asks = course
                .prefixes
                .iter()
                .map(|prefix| Ask::new(prefix.clone(), 1));
            target.together(asks.collect()).await?;
        }
        Ok(course)
    }

    /// Runs once, and adds what was seen to `measures`.
    ///
    /// # Errors
    /// What a request said that failed.
    pub async fn run(
        &mut self,
        target: &Target,
        measures: Option<&mut Measures>,
    ) -> Result<(), String> {
        self.runs += 1;
        let (runs, vocab) = (self.runs, target.vocab());
        let asks = self.prefixes.iter().enumerate().map(|(i, prefix)| {
            let seed = self.seed ^ (runs << 32) ^ ((i as u64) << 16);
            let mut prompt = prefix.clone();
            prompt.extend(random_ids(self.point.prompt, vocab, seed));
            Ask {
                known: self.point.depth,
                ..Ask::new(prompt, self.point.answer)
            }
        });
        let asks = asks.collect();
        let before = CpuTime::now();
        let traces = target.together(asks).await?;
        let used = CpuTime::now().since(before);
        if let Some(measures) = measures {
            measures.add(&self.point, &traces, target.is_here().then_some(used));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_every_point_once() {
        let grid = Grid {
            prompts: vec![1, 2, 3],
            answers: vec![4, 5],
            depths: vec![0, 9],
            concurrencies: vec![1, 8],
            reps: 1,
            warm_up: 0,
            seed: 0,
        };
        let points = grid.points();
        assert_eq!(points.len(), 24);
        let mut unique = points.clone();
        unique.dedup();
        assert_eq!(unique.len(), 24);
        assert_eq!(points[0].tokens(), 5);
        assert_eq!(points[23].concurrency, 8);
        assert_eq!(points[23].tokens(), 3 + 5 + 9);
    }
}
