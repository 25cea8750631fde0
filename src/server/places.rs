//! Who has a place among the connections, and who has to leave when there is none.
//!
//! A connection without a request under way keeps its place only until somebody else wants it, the
//! one that has been idle longest first. So connections that do nothing, however many, cannot keep
//! others out, and their number never passes the limit by more than the one that was just accepted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// One connection's place; it is free again when the last clone is dropped.
#[derive(Clone)]
pub struct Place(Arc<Inner>);

struct Inner {
    number: usize,
    places: Arc<Shared>,
    state: Mutex<State>,
    leave: Notify,
    _permit: OwnedSemaphorePermit,
}

struct State {
    /// Requests whose answers are not all sent.
    busy: usize,
    idle_since: Instant,
    told: bool,
}

struct Shared {
    taken: Mutex<HashMap<usize, std::sync::Weak<Inner>>>,
    next: AtomicUsize,
}

/// All places.
#[derive(Clone)]
pub struct Places {
    shared: Arc<Shared>,
    free: Arc<Semaphore>,
}

impl Places {
    /// So many places, at least one.
    pub fn new(count: usize) -> Self {
        let shared = Shared {
            taken: Mutex::default(),
            next: AtomicUsize::new(0),
        };
        Self {
            shared: Arc::new(shared),
            free: Arc::new(Semaphore::new(count.max(1))),
        }
    }

    /// A place, as soon as there is one.
    pub async fn take(&self) -> Option<Place> {
        let permit = match self.free.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.send_one_away();
                self.free.clone().acquire_owned().await.ok()?
            }
        };
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let state = State {
            busy: 0,
            idle_since: Instant::now(),
            told: false,
        };
        let inner = Arc::new(Inner {
            number,
            places: self.shared.clone(),
            state: Mutex::new(state),
            leave: Notify::new(),
            _permit: permit,
        });
        if let Ok(mut taken) = self.shared.taken.lock() {
            taken.insert(number, Arc::downgrade(&inner));
        }
        Some(Place(inner))
    }

    /// Tells the connection that has been idle longest to end.
    fn send_one_away(&self) {
        let Ok(taken) = self.shared.taken.lock() else {
            return;
        };
        let all: Vec<Arc<Inner>> = taken.values().filter_map(|inner| inner.upgrade()).collect();
        // Places that are dropped below ask for the lock themselves.
        drop(taken);
        let since = |inner: &&Arc<Inner>| {
            let state = inner.state.lock().ok()?;
            (state.busy == 0 && !state.told).then_some(state.idle_since)
        };
        let idle = all.iter().filter_map(|inner| Some((since(&inner)?, inner)));
        if let Some((_, longest)) = idle.min_by_key(|(since, _)| *since) {
            if let Ok(mut state) = longest.state.lock() {
                state.told = true;
            }
            longest.leave.notify_one();
        }
    }
}

impl Place {
    /// Completes when the connection is to end.
    pub async fn to_leave(&self) {
        self.0.leave.notified().await;
    }

    /// Marks a request as under way until the mark is dropped.
    pub fn busy(&self) -> Busy {
        self.change(|state| state.busy += 1);
        Busy(self.clone())
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        if let Ok(mut state) = self.0.state.lock() {
            change(&mut state);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Ok(mut taken) = self.places.taken.lock() {
            taken.remove(&self.number);
        }
    }
}

/// A request under way.
pub struct Busy(Place);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.busy = state.busy.saturating_sub(1);
            state.idle_since = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn soon<T>(future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(Duration::from_millis(50), future)
            .await
            .ok()
    }

    #[tokio::test]
    async fn the_one_that_is_idle_longest_has_to_leave() {
        let places = Places::new(3);
        let first = places.take().await.unwrap();
        let second = places.take().await.unwrap();
        let third = places.take().await.unwrap();
        let work = first.busy();
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.take().await.unwrap() }
        });
        assert!(soon(second.to_leave()).await.is_some());
        assert!(soon(first.to_leave()).await.is_none(), "it is at work");
        assert!(soon(third.to_leave()).await.is_none(), "it came later");
        assert!(!waiting.is_finished());
        drop(second);
        let fourth = soon(waiting).await.unwrap().unwrap();
        drop(work);
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.take().await.unwrap() }
        });
        assert!(
            soon(third.to_leave()).await.is_some(),
            "the first was at work after it came"
        );
        drop(third);
        assert!(soon(waiting).await.is_some());
        drop((first, fourth));
        assert!(places.shared.taken.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn nobody_at_work_has_to_leave() {
        let places = Places::new(1);
        let only = places.take().await.unwrap();
        let work = only.busy();
        assert!(soon(places.take()).await.is_none());
        assert!(soon(only.to_leave()).await.is_none());
        drop((work, only));
        assert!(soon(places.take()).await.is_some());
    }
}
