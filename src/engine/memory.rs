//! One budget for all that takes memory, and who may have how much of it. Numbers only.
//!
//! The budget covers the weights, a step's passing arrays (or the buffers that MLX keeps for them
//! between steps), the caches of running sequences, and the prefix cache, which gives way to them.
//!
//! Invariants: what is reserved for running sequences is never more than the budget leaves beside
//! the rest when it is taken, and a [`Claim`] gives back what it holds when it is dropped, so
//! nothing has to be released by hand.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::footprint::Footprint;

/// Of the budget one part in so many is kept for a step's passing arrays, or more if a step was
/// seen to take more. MLX may keep as much in buffers for the next step.
const STEP_SHARE: usize = 16;
/// Requests may wait that need the memory for sequences so many times over, together.
const WAITING_TURNS: usize = 16;
/// Tokens for which an answer that goes on beyond what was reserved gets memory at a time.
const BLOCK: usize = 1024;

/// A number of bytes, for people: `1.5 GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        match self.0 {
            0..10_000 => write!(f, "{} bytes", self.0),
            10_000..10_000_000 => write!(f, "{:.0} kB", bytes / 1e3),
            10_000_000..1_000_000_000 => write!(f, "{:.0} MB", bytes / 1e6),
            _ => write!(f, "{:.2} GB", bytes / 1e9),
        }
    }
}

/// Why a request gets no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It needs more than there is, even alone.
    TooLarge {
        /// Bytes it needs.
        needed: usize,
        /// Bytes there are for sequences.
        available: usize,
    },
    /// Too much waits already.
    Crowded {
        /// Bytes it needs.
        needed: usize,
        /// Bytes that the waiting requests need.
        waiting: usize,
        /// What they may need together.
        limit: usize,
    },
}

/// Where the memory is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryParts {
    /// What all of it together may take.
    pub budget: usize,
    /// The model's weights.
    pub weights: usize,
    /// The caches of running sequences, as far as they have come.
    pub kv: usize,
    /// What is reserved for them, up to the ends of their answers.
    pub kv_reserved: usize,
    /// What sequences can have in all.
    pub kv_capacity: usize,
    /// What waiting requests will need.
    pub waiting: usize,
    /// Kept beginnings of earlier prompts.
    pub prefix_cache: usize,
    /// Buffers that MLX keeps for reuse.
    pub pool: usize,
    /// All other arrays: what a step computes with, passing.
    pub other: usize,
    /// What a step's passing arrays are expected to take at most.
    pub step_reserved: usize,
    /// The most that arrays took at a time since the model was loaded.
    pub peak: usize,
}

/// What was last seen of the allocator, by the thread that computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bytes of arrays that are alive.
    pub active: usize,
    /// Bytes of buffers kept for reuse.
    pub pool: usize,
    /// The most that was alive at a time.
    pub peak: usize,
    /// Bytes of the running sequences' caches.
    pub kv: usize,
}

/// The memory that one model and its sequences may take.
#[derive(Debug)]
pub struct Budget {
    total: usize,
    weights: usize,
    footprint: Footprint,
    /// Tokens of an answer that memory is reserved for beforehand, at most.
    answer_reserve: usize,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// What a step's passing arrays are expected to take.
    step: usize,
    reserved: usize,
    waiting: usize,
    prefix: usize,
    seen: Seen,
}

impl Budget {
    /// `total` bytes, of which the weights take some; a sequence takes what `footprint` says.
    /// Memory is reserved for `answer_reserve` tokens of an answer beforehand, for those behind them
    /// when it comes to them.
    pub fn new(
        total: usize,
        weights: usize,
        footprint: Footprint,
        answer_reserve: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            total,
            weights,
            footprint,
            answer_reserve,
            state: Mutex::new(State {
                step: total / STEP_SHARE,
                ..State::default()
            }),
        })
    }

    /// One that refuses nothing.
    pub fn unlimited() -> Arc<Self> {
        Self::new(usize::MAX, 0, Footprint::default(), usize::MAX)
    }

    /// The bytes that MLX may keep in buffers for reuse, of a budget of `total`.
    pub fn pool_limit(total: usize) -> usize {
        total / STEP_SHARE
    }

    /// What sequences can have in all, in bytes.
    pub fn capacity(&self) -> usize {
        self.capacity_beside(self.state().step)
    }

    fn capacity_beside(&self, step: usize) -> usize {
        let taken = self.weights.saturating_add(step);
        self.total.saturating_sub(taken)
    }

    /// The most positions that a sequence can have alone; at most `limit`.
    pub fn positions(&self, limit: usize) -> usize {
        self.footprint.positions(self.capacity(), limit)
    }

    /// Bytes that a sequence's caches take up to `positions` positions.
    pub fn bytes(&self, positions: usize) -> usize {
        self.footprint.bytes(positions)
    }

    /// A place among the waiting for a request of `prompt` tokens whose answer has `answer` at most.
    /// An `open` one, which named no length, does with memory for a shorter answer if there is no
    /// more.
    ///
    /// # Errors
    /// If it can never have what it needs, or too much waits before it.
    pub fn claim(
        self: &Arc<Self>,
        prompt: usize,
        answer: usize,
        open: bool,
    ) -> Result<Claim, Refusal> {
        let mut positions = prompt.saturating_add(answer.min(self.answer_reserve));
        let mut state = self.state();
        let available = self.capacity_beside(state.step);
        if open {
            let least = prompt.saturating_add(answer.min(1));
            let most = self.footprint.positions(available, positions);
            positions = most.max(least);
        }
        let needed = self.footprint.bytes(positions);
        if needed > available {
            return Err(Refusal::TooLarge { needed, available });
        }
        let limit = available.saturating_mul(WAITING_TURNS);
        let waiting = state.waiting.saturating_add(needed);
        if waiting > limit {
            return Err(Refusal::Crowded {
                needed,
                waiting: state.waiting,
                limit,
            });
        }
        state.waiting = waiting;
        drop(state);
        Ok(Claim {
            budget: self.clone(),
            positions,
            bytes: needed,
            admitted: false,
        })
    }

    /// Notes how much the prefix cache holds now.
    pub fn set_prefix(&self, bytes: usize) {
        self.state().prefix = bytes;
    }

    /// Bytes that the prefix cache may add without taking any from sequences.
    pub fn prefix_room(&self) -> usize {
        let state = self.state();
        let taken = state.reserved.saturating_add(state.prefix);
        self.capacity_beside(state.step).saturating_sub(taken)
    }

    /// Notes what the allocator holds.
    pub fn set_seen(&self, seen: Seen) {
        self.state().seen = seen;
    }

    /// Notes that a step took so many bytes in passing; if it is more than expected, so many are
    /// kept free from now on. True if that changed anything.
    pub fn set_step(&self, bytes: usize) -> bool {
        let mut state = self.state();
        let more = bytes > state.step;
        if more {
            state.step = bytes;
        }
        more
    }

    /// Where the memory is.
    pub fn parts(&self) -> MemoryParts {
        let state = *self.state();
        let Seen {
            active,
            pool,
            peak,
            kv,
        } = state.seen;
        let known = [self.weights, kv, state.prefix];
        let known = known.into_iter().fold(0, usize::saturating_add);
        MemoryParts {
            budget: self.total,
            weights: self.weights,
            kv,
            kv_reserved: state.reserved,
            kv_capacity: self.capacity_beside(state.step),
            waiting: state.waiting,
            prefix_cache: state.prefix,
            pool,
            other: active.saturating_sub(known),
            step_reserved: state.step,
            peak,
        }
    }

    /// Every change is whole before anything can panic, so a poisoned lock holds good numbers.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `bytes` more for sequences if there are so many, of which the prefix cache gives up what
    /// it must.
    fn reserve(&self, bytes: usize, evict: &mut dyn FnMut(usize)) -> bool {
        let fits = |state: &State| {
            let free = self.capacity_beside(state.step);
            free.checked_sub(state.reserved)?.checked_sub(bytes)
        };
        let state = *self.state();
        let Some(beside) = fits(&state) else {
            return false;
        };
        if state.prefix > beside {
            // Not under the lock: it tells this budget what it holds afterwards.
            evict(state.prefix - beside);
        }
        let mut state = self.state();
        match fits(&state) {
            Some(beside) if state.prefix <= beside => {
                state.reserved += bytes;
                true
            }
            _ => false,
        }
    }
}

/// Whether a request may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It has its memory.
    Granted,
    /// Others have to end first.
    Wait,
    /// It cannot have it any more, even alone: more is taken than when it came.
    Never {
        /// Bytes it needs.
        needed: usize,
        /// Bytes there are for sequences.
        available: usize,
    },
}

/// A request's memory: what it will need while it waits, what it holds once it runs. Dropping it gives
/// all back.
#[derive(Debug)]
pub struct Claim {
    budget: Arc<Budget>,
    /// Positions that it is good for.
    positions: usize,
    bytes: usize,
    admitted: bool,
}

impl Claim {
    /// Takes the memory if it is free. `evict` is asked to free so many bytes of the prefix cache if
    /// that makes room, and has [`Budget::set_prefix`] told what is left.
    pub fn admit(&mut self, evict: &mut dyn FnMut(usize)) -> Admission {
        if self.admitted {
            return Admission::Granted;
        }
        if self.bytes > self.budget.capacity() {
            return self.refused();
        }
        if !self.budget.reserve(self.bytes, evict) {
            return Admission::Wait;
        }
        self.budget.state().waiting -= self.bytes;
        self.admitted = true;
        Admission::Granted
    }

    /// That it cannot have its memory, with the numbers.
    pub fn refused(&self) -> Admission {
        let parts = self.budget.parts();
        let available = parts.kv_capacity.saturating_sub(parts.kv_reserved);
        let needed = self.bytes;
        Admission::Never { needed, available }
    }

    /// Makes it good for `positions` positions if it is not, and then for a block more, up to `most`.
    /// False if there is no memory for that.
    pub fn cover(&mut self, positions: usize, most: usize, evict: &mut dyn FnMut(usize)) -> bool {
        if positions <= self.positions {
            return true;
        }
        let goal = positions.saturating_add(BLOCK).min(most).max(positions);
        let bytes = self.budget.footprint.bytes(goal).max(self.bytes);
        if !self.budget.reserve(bytes - self.bytes, evict) {
            return false;
        }
        (self.positions, self.bytes) = (goal, bytes);
        true
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        match self.admitted {
            true => state.reserved -= self.bytes,
            false => state.waiting -= self.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Growth;
    use proptest::prelude::*;

    fn nothing(_: usize) {}

    /// `total` bytes in all, one byte a position, 100 of weights.
    fn budget(total: usize, answer_reserve: usize) -> Arc<Budget> {
        let footprint = Footprint::new([Growth::Positions(1)], 512);
        Budget::new(total, 100, footprint, answer_reserve)
    }

    #[test]
    fn what_cannot_fit_is_refused_with_the_numbers() {
        let budget = budget(16_000, 4096);
        // A sixteenth is for steps.
        assert_eq!(budget.capacity(), 16_000 - 1000 - 100);
        assert_eq!(
            budget.claim(15_000, 10, false).err(),
            Some(Refusal::TooLarge {
                needed: 15_104,
                available: 14_900
            })
        );
        // Of a long answer only the beginning is reserved.
        assert!(budget.claim(10_000, usize::MAX, false).is_ok());
        assert!(budget.claim(usize::MAX, 1, false).is_err());
        // One that names no length takes what there is, if that is any at all.
        assert!(budget.claim(14_000, 2000, false).is_err());
        let mut open = budget.claim(14_000, 2000, true).unwrap();
        assert_eq!(open.admit(&mut nothing), Admission::Granted);
        assert_eq!(budget.parts().kv_reserved, 14_848);
        drop(open);
        assert!(budget.claim(14_847, 2000, true).is_ok());
        assert!(budget.claim(14_848, 2000, true).is_err());
        assert_eq!(budget.positions(1 << 20), 14_848);
        assert_eq!(budget.parts().waiting, 0, "dropped claims wait no more");
    }

    #[test]
    fn too_much_waiting_is_refused_with_the_numbers() {
        let budget = budget(16_000, 4096);
        let limit = 16 * 14_900;
        let claims: Vec<_> = std::iter::from_fn(|| budget.claim(14_848, 0, false).ok()).collect();
        let waiting = claims.len() * 14_848;
        assert!(waiting <= limit && waiting + 14_848 > limit);
        let needed = 14_848;
        assert_eq!(
            budget.claim(14_848, 0, false).err(),
            Some(Refusal::Crowded {
                needed,
                waiting,
                limit
            })
        );
        drop(claims);
        assert!(budget.claim(14_848, 0, false).is_ok());
    }

    #[test]
    fn the_prefix_cache_gives_way_as_far_as_it_must() {
        let budget = budget(16_000, 4096);
        budget.set_prefix(14_000);
        assert_eq!(budget.prefix_room(), 900);
        let mut first = budget.claim(500, 100, false).unwrap();
        let mut asked = Vec::new();
        assert_eq!(
            first.admit(&mut |bytes| asked.push(bytes)),
            Admission::Granted
        );
        assert!(asked.is_empty(), "it fits beside");
        let mut second = budget.claim(1000, 0, false).unwrap();
        let mut evict = |bytes| {
            asked.push(bytes);
            budget.set_prefix(14_000 - bytes);
        };
        assert_eq!(second.admit(&mut evict), Admission::Granted);
        // 14 900 less 768 and 1024.
        assert_eq!(asked, [892]);
        // What is in use stays, and then the request waits.
        let mut third = budget.claim(1000, 0, false).unwrap();
        assert_eq!(third.admit(&mut nothing), Admission::Wait);
        assert_eq!(budget.parts().kv_reserved, 768 + 1024);
        assert_eq!(budget.parts().waiting, 1024);
    }

    #[test]
    fn an_answer_that_goes_on_gets_more_while_there_is_some() {
        let budget = budget(16_000, 1000);
        let mut claim = budget.claim(500, 30_000, false).unwrap();
        assert_eq!(claim.admit(&mut nothing), Admission::Granted);
        assert_eq!(budget.parts().kv_reserved, 1536);
        assert!(claim.cover(1500, 30_500, &mut nothing));
        assert_eq!(budget.parts().kv_reserved, 1536, "it is good for so many");
        assert!(claim.cover(1501, 30_500, &mut nothing));
        assert_eq!(budget.parts().kv_reserved, 2560);
        let mut position = 1501;
        while claim.cover(position, 30_500, &mut nothing) {
            position += 1;
        }
        assert!(budget.parts().kv_reserved <= 14_900);
        assert!(position > 13_000, "{position}");
        drop(claim);
        assert_eq!(budget.parts().kv_reserved, 0);
    }

    #[test]
    fn a_step_that_takes_more_leaves_less() {
        let budget = budget(16_000, 4096);
        let mut claim = budget.claim(14_000, 0, false).unwrap();
        assert!(!budget.set_step(500));
        assert!(budget.set_step(5000));
        assert_eq!(budget.capacity(), 10_900);
        let never = Admission::Never {
            needed: 14_080,
            available: 10_900,
        };
        assert_eq!(claim.admit(&mut nothing), never);
    }

    #[test]
    fn bytes_read_well() {
        let text = |bytes| Bytes(bytes).to_string();
        assert_eq!(text(900), "900 bytes");
        assert_eq!(text(23_456_789), "23 MB");
        assert_eq!(text(1_510_000_000), "1.51 GB");
    }

    proptest! {
        /// Whatever is claimed, admitted, lengthened, evicted and dropped in whatever order: never
        /// over the budget, and in the end everything is back.
        #[test]
        fn never_over_the_budget_and_all_comes_back(
            total in 2000usize..40_000,
            moves in prop::collection::vec((0usize..6, 0usize..20_000, any::<prop::sample::Index>()), 1..200),
        ) {
            let budget = budget(total, 700);
            let mut claims: Vec<Claim> = Vec::new();
            for (kind, number, which) in moves {
                let capacity = budget.capacity();
                // A prefix cache part of which is in use.
                let evict = &mut |bytes: usize| {
                    let held = budget.parts().prefix_cache;
                    budget.set_prefix(held - bytes.min(held - held.min(number % 3000)));
                };
                match kind {
                    0 | 1 => claims.extend(budget.claim(number / 4, number % 2000, false)),
                    2 if !claims.is_empty() => {
                        let claim = which.get_mut(&mut claims);
                        let before = budget.parts();
                        match claim.admit(evict) {
                            Admission::Granted => {
                                let parts = budget.parts();
                                if parts.kv_reserved > before.kv_reserved {
                                    prop_assert!(parts.kv_reserved + parts.prefix_cache <= capacity);
                                }
                            }
                            Admission::Wait => {
                                let parts = budget.parts();
                                prop_assert!(parts.kv_reserved + claim.bytes + parts.prefix_cache > capacity);
                            }
                            Admission::Never { needed, available } => prop_assert!(needed > available),
                        }
                    }
                    3 if !claims.is_empty() => {
                        let claim = which.get_mut(&mut claims);
                        if claim.admitted {
                            let before = budget.parts().kv_reserved;
                            let positions = claim.positions + number % 500;
                            let covered = claim.cover(positions, usize::MAX, evict);
                            let parts = budget.parts();
                            prop_assert_eq!(covered, claim.positions >= positions);
                            prop_assert!(budget.bytes(claim.positions) <= claim.bytes);
                            if parts.kv_reserved > before {
                                prop_assert!(parts.kv_reserved + parts.prefix_cache <= capacity);
                            }
                        }
                    }
                    4 if !claims.is_empty() => drop(claims.swap_remove(which.index(claims.len()))),
                    5 => budget.set_prefix(budget.parts().prefix_cache + number.min(budget.prefix_room())),
                    _ => {}
                }
                let held = |admitted| claims.iter().filter(|c| c.admitted == admitted).map(|c| c.bytes).sum::<usize>();
                prop_assert_eq!(budget.parts().kv_reserved, held(true));
                prop_assert_eq!(budget.parts().waiting, held(false));
            }
            drop(claims);
            prop_assert_eq!((budget.parts().kv_reserved, budget.parts().waiting), (0, 0));
        }
    }
}
