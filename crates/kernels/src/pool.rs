//! A thread pool for thousands of short parallel regions per second.
//!
//! A region is *n* tasks of one closure. The calling thread takes part. Workers spin for a while
//! between regions, then park. Threads claim tasks from a counter, so timing decides which thread
//! runs a task. It does not decide what a task computes: tasks write disjoint outputs and read
//! nothing that another task of the region writes.
#![expect(unsafe_code, reason = "a region lends its closure to threads that outlive it")]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, Thread};

/// How often a worker polls for the next region before it parks: about 50 µs, longer than the
/// serial gaps of a decode step and shorter than anything a person or another process notices.
const SPIN_LIMIT: u32 = 20_000;

/// The flag of the gate; the lower bits count workers.
const OPEN: usize = 1 << 31;

/// The smallest chunk of [`Pool::run_chunked`] is this fraction of a thread's part: small enough
/// that threads end together, large enough that claiming a chunk costs little.
const LEAST_SHARE: usize = 16;

/// Threads that run regions. Regions of one pool run one after the other.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// Held during a region, because the pool runs one at a time.
    region: Mutex<()>,
}

struct Worker {
    handle: Option<JoinHandle<()>>,
    thread: Thread,
}

struct Shared {
    /// Number of regions so far; a change tells workers that `job` is new.
    epoch: AtomicU64,
    /// The region's closure, valid while the gate is open or a worker is inside.
    job: Mutex<Option<Job>>,
    next: AtomicUsize,
    /// [`OPEN`] while workers may enter the region, plus the number of workers inside. The caller
    /// waits only for workers inside, so a worker that wakes up late does not delay the region.
    gate: AtomicUsize,
    parked: Vec<AtomicBool>,
    stop: AtomicBool,
    /// A task panicked on a worker.
    panicked: AtomicBool,
}

#[derive(Clone, Copy)]
struct Job {
    tasks: usize,
    run: *const (dyn Fn(usize) + Sync),
}

// SAFETY: the closure is `Sync`, and `Pool::run` keeps it alive until every worker is done with it.
unsafe impl Send for Job {}

impl Pool {
    /// A pool of `threads` threads, one of which is the caller of [`Pool::run`].
    ///
    /// # Panics
    /// If `threads` is 0, or a thread cannot be started.
    pub fn new(threads: usize) -> Self {
        assert!(threads > 0, "a pool needs a thread");
        let shared = Arc::new(Shared {
            epoch: AtomicU64::new(0),
            job: Mutex::new(None),
            next: AtomicUsize::new(0),
            gate: AtomicUsize::new(0),
            parked: (1..threads).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        });
        let workers = (0..threads - 1)
            .map(|index| {
                let shared = Arc::clone(&shared);
                let handle = thread::Builder::new()
                    .name(format!("compute-{}", index + 1))
                    .spawn(move || shared.work(index))
                    .expect("the system gives a thread");
                Worker {
                    thread: handle.thread().clone(),
                    handle: Some(handle),
                }
            })
            .collect();
        Self {
            shared,
            workers,
            region: Mutex::new(()),
        }
    }

    /// Number of threads, including the caller.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(0)`, …, `task(tasks - 1)`, each once, and returns when all are done.
    ///
    /// # Panics
    /// If a task panics; the others of the region still end first.
    pub fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        if tasks <= 1 || self.workers.is_empty() {
            return (0..tasks).for_each(task);
        }
        let one_at_a_time = self
            .region
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let task: &(dyn Fn(usize) + Sync) = &task;
        // SAFETY: only the lifetime changes; workers use the closure until they leave the region,
        // and `Finish::drop` below waits for that before the closure's frame ends, also if a task
        // panics here.
        let run: *const (dyn Fn(usize) + Sync + 'static) =
            unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync), _>(task) };
        *self.shared.lock_job() = Some(Job { tasks, run });
        // If the caller's own task panicked in the last region, a worker's panic may be unreported.
        self.shared.panicked.store(false, Ordering::Relaxed);
        self.shared.next.store(0, Ordering::Relaxed);
        self.shared.gate.store(OPEN, Ordering::Release);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for (worker, parked) in self.workers.iter().zip(&self.shared.parked) {
            if parked.load(Ordering::SeqCst) {
                worker.thread.unpark();
            }
        }
        let finish = Finish(&self.shared);
        self.shared.claim(tasks, task);
        drop(finish);
        drop(one_at_a_time);
        assert!(
            !self.shared.panicked.swap(false, Ordering::Relaxed),
            "a task of a parallel region panicked"
        );
    }

    /// As [`Pool::run`], for many small tasks, which threads claim in chunks of neighbours.
    pub fn run_chunked(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        self.run_ranges(tasks, |range| range.for_each(&task));
    }

    /// As [`Pool::run_chunked`], but `task` gets a whole chunk, because neighbouring tasks share
    /// work.
    pub fn run_ranges(&self, tasks: usize, task: impl Fn(std::ops::Range<usize>) + Sync) {
        let bounds = chunks(tasks, self.threads());
        self.run(bounds.len() - 1, |c| task(bounds[c]..bounds[c + 1]));
    }
}

/// The starts of chunks of tasks, and the end of the last. Large chunks come first, each half of a
/// thread's share of the remaining tasks, so that there are few chunks and threads still end
/// together (Polychronopoulos and Kuck 1987, guided self-scheduling).
fn chunks(tasks: usize, threads: usize) -> smallvec::SmallVec<[usize; 64]> {
    let least = (tasks / (threads * LEAST_SHARE)).max(1);
    let mut bounds = smallvec::smallvec![0];
    let mut start = 0;
    while start < tasks {
        let left = tasks - start;
        start += (left / (2 * threads)).max(least).min(left);
        bounds.push(start);
    }
    bounds
}

/// Closes the region's gate and waits until every worker inside has left.
struct Finish<'a>(&'a Shared);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0u32;
        while self.0.gate.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < SPIN_LIMIT {
                std::hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

impl Shared {
    fn lock_job(&self) -> std::sync::MutexGuard<'_, Option<Job>> {
        self.job.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn claim(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= tasks {
                return;
            }
            task(index);
        }
    }

    /// The loop of a worker: waits for a region and runs tasks of it.
    fn work(&self, worker: usize) {
        let mut seen = 0;
        loop {
            seen = self.await_region(worker, seen);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if !self.enter() {
                continue;
            }
            let job = self
                .lock_job()
                .expect("a region sets its job before it opens its gate");
            // SAFETY: this worker is inside the gate, so the closure lives until the decrement
            // below.
            let task = unsafe { &*job.run };
            let outcome =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.claim(job.tasks, task)));
            if outcome.is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.gate.fetch_sub(1, Ordering::Release);
        }
    }

    /// Counts a worker as inside, unless the region is over.
    fn enter(&self) -> bool {
        let count_in = |gate: usize| (gate & OPEN != 0).then_some(gate + 1);
        self.gate
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, count_in)
            .is_ok()
    }

    /// Waits for an epoch other than `seen`, and returns it.
    fn await_region(&self, worker: usize, seen: u64) -> u64 {
        for _ in 0..SPIN_LIMIT {
            let epoch = self.epoch.load(Ordering::Acquire);
            if epoch != seen {
                return epoch;
            }
            std::hint::spin_loop();
        }
        loop {
            self.parked[worker].store(true, Ordering::SeqCst);
            let epoch = self.epoch.load(Ordering::SeqCst);
            if epoch == seen {
                thread::park();
            }
            self.parked[worker].store(false, Ordering::SeqCst);
            if epoch != seen {
                return epoch;
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for worker in &mut self.workers {
            worker.thread.unpark();
            if let Some(handle) = worker.handle.take() {
                // Joining cannot fail, because a worker catches the panics of its tasks.
                let _ = handle.join();
            }
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in 1..5 {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 3, 7, 100, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, |i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                pool.run_chunked(tasks, |i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(
                    counts.iter().all(|c| c.load(Ordering::Relaxed) == 2),
                    "{threads} threads, {tasks} tasks"
                );
            }
        }
    }

    #[test]
    fn chunks_cover_all_tasks_and_become_smaller() {
        for (tasks, threads) in [(0, 2), (1, 2), (7, 3), (96, 2), (1000, 8)] {
            let bounds = chunks(tasks, threads);
            assert_eq!((bounds[0], bounds[bounds.len() - 1]), (0, tasks));
            let sizes: Vec<usize> = bounds.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
            assert!(sizes.iter().all(|size| *size > 0), "{sizes:?}");
        }
    }

    #[test]
    fn regions_follow_each_other_after_parking() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        for round in 0..200 {
            if round % 50 == 0 {
                thread::sleep(std::time::Duration::from_millis(20));
            }
            pool.run(8, |i| {
                total.fetch_add(i, Ordering::Relaxed);
            });
        }
        assert_eq!(total.load(Ordering::Relaxed), 200 * 28);
    }

    #[test]
    fn a_panicking_task_panics_the_caller_and_leaves_the_pool_usable() {
        let pool = Pool::new(3);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(64, |i| assert!(i != 13, "on purpose"));
        }));
        assert!(outcome.is_err());
        let sum = AtomicUsize::new(0);
        pool.run(10, |i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.load(Ordering::Relaxed), 45);
    }
}
