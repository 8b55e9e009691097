//! The peak rates of this processor, which benchmarks are compared with.
//!
//! Read bandwidth, of memory and of the last-level cache, bounds how fast weights arrive.
//! Multiply-add rates bound how fast they are used. Both are measured instead of looked up, because
//! a virtual machine has neighbours and the clock frequency depends on the instruction set. Each
//! figure is the best of several short runs, so that a disturbed run does not lower it.
#![cfg_attr(
    any(target_arch = "x86_64", target_arch = "aarch64"),
    expect(unsafe_code, reason = "peak rates are those of intrinsics")
)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86;

mod portable;

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// Duration of one run of a figure: many thousand times the resolution of the clock.
const RUN: Duration = Duration::from_millis(10);
/// Runs per figure, of which the best counts.
const RUNS: usize = 25;
/// Bytes that are read to measure memory: far more than any last-level cache holds for one process.
const MEMORY_BYTES: usize = 768 << 20;
/// Bytes that are read to measure the last-level cache: more than private caches hold, less than a
/// shared one.
const CACHE_BYTES: usize = 12 << 20;
/// Bytes that are read between two readings of the clock.
const PIECE_BYTES: usize = 1 << 20;

/// The peak rates of this machine, measured with several threads at once.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Number of threads.
    pub threads: usize,
    /// Read bandwidth of memory, in bytes per second.
    pub memory: f64,
    /// Read bandwidth of the last-level cache, in bytes per second. All threads read the same 12
    /// MiB.
    pub cache: f64,
    /// Products of 8-bit integers, summed in 32 bits.
    pub int8: Peak,
    /// Products of brain floats, summed in float32; `None` if the processor has no instruction for
    /// it that kernels use. (They do not use aarch64's `bfdot`, which rounds differently from all
    /// other instruction sets.)
    pub bf16: Option<Peak>,
    /// Products of float32, as fused multiply-adds where the processor has them.
    pub f32: Peak,
}

/// A peak rate of arithmetic, and the instruction that reached it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// The instruction, or `portable` for compiled plain code, whose rate is only a lower bound.
    pub instruction: &'static str,
    /// Operations per second; a multiply-add counts as two.
    pub rate: f64,
}

impl Machine {
    /// Measures with `threads` threads at once, which takes a few seconds and 768 MiB of memory.
    ///
    /// # Panics
    /// If `threads` is 0, or a thread cannot be started.
    pub fn measure(threads: usize) -> Self {
        assert!(threads > 0, "a measurement needs a thread");
        // Written, so that each page has memory of its own.
        let numbers: Vec<u64> = (0..MEMORY_BYTES as u64 / 8).collect();
        let reader = reader();
        let memory = best(
            threads,
            Stream {
                reader,
                numbers: &numbers,
                threads,
            },
        );
        let cached = &numbers[..CACHE_BYTES / 8];
        let cache = best(
            threads,
            Shared {
                reader,
                numbers: cached,
                threads,
            },
        );
        drop(numbers);
        let peaks = Arithmetic::of_this_processor();
        let peak = |kind: Kind| Peak {
            instruction: kind.instruction,
            rate: best(threads, kind),
        };
        Self {
            threads,
            memory,
            cache,
            int8: peak(peaks.int8),
            bf16: peaks.bf16.map(peak),
            f32: peak(peaks.f32),
        }
    }

    /// The better of two measurements in each figure, such as one before and one after a benchmark.
    pub fn or_better(&self, other: &Self) -> Self {
        let better = |one: Peak, other: Peak| if other.rate > one.rate { other } else { one };
        Self {
            threads: self.threads,
            memory: self.memory.max(other.memory),
            cache: self.cache.max(other.cache),
            int8: better(self.int8, other.int8),
            bf16: self.bf16.zip(other.bf16).map(|(one, other)| better(one, other)),
            f32: better(self.f32, other.f32),
        }
    }
}

/// Work that is repeated until the time is up.
trait Work: Copy + Send + Sync {
    /// Does piece `round` of thread `thread`, and returns its amount in bytes or operations.
    fn piece(self, thread: usize, round: usize) -> f64;
}

/// The best rate of all threads together, per second.
fn best(threads: usize, work: impl Work) -> f64 {
    (0..RUNS).map(|_| run(threads, work)).fold(0.0, f64::max)
}

fn run(threads: usize, work: impl Work) -> f64 {
    let together = Barrier::new(threads);
    let one = |thread: usize| {
        together.wait();
        let begin = Instant::now();
        let mut done = 0.0;
        for round in 0.. {
            done += work.piece(thread, round);
            if begin.elapsed() >= RUN {
                break;
            }
        }
        done / begin.elapsed().as_secs_f64()
    };
    thread::scope(|scope| {
        let one = &one;
        let workers: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || one(thread)))
            .collect();
        let rates = workers
            .into_iter()
            .map(|worker| worker.join().expect("a measurement does not panic"));
        rates.sum()
    })
}

/// Reads numbers, and returns a value that depends on all of them.
type Reader = fn(&[u64]) -> u64;

fn reader() -> Reader {
    #[cfg(target_arch = "x86_64")]
    if let Some(reader) = x86::reader() {
        return reader;
    }
    portable::read
}

/// Each thread reads its own part, over and over.
#[derive(Clone, Copy)]
struct Stream<'a> {
    reader: Reader,
    numbers: &'a [u64],
    threads: usize,
}

impl Work for Stream<'_> {
    fn piece(self, thread: usize, round: usize) -> f64 {
        let part = self.numbers.len() / self.threads;
        let own = &self.numbers[thread * part..][..part];
        read_piece(self.reader, own, round)
    }
}

/// All threads read the same numbers, each from a different start.
#[derive(Clone, Copy)]
struct Shared<'a> {
    reader: Reader,
    numbers: &'a [u64],
    threads: usize,
}

impl Work for Shared<'_> {
    fn piece(self, thread: usize, round: usize) -> f64 {
        let pieces = self.numbers.len() / (PIECE_BYTES / 8);
        read_piece(self.reader, self.numbers, thread * pieces / self.threads + round)
    }
}

fn read_piece(reader: Reader, numbers: &[u64], round: usize) -> f64 {
    let length = PIECE_BYTES / 8;
    let pieces = (numbers.len() / length).max(1);
    let piece = numbers.chunks(length).nth(round % pieces).unwrap_or_default();
    std::hint::black_box(reader(piece));
    size_of_val(piece) as f64
}

/// A loop of multiply-adds in registers.
#[derive(Clone, Copy)]
struct Kind {
    instruction: &'static str,
    /// Runs the loop body `rounds` times, and returns the number of operations.
    run: fn(usize) -> f64,
}

/// Loop bodies between two readings of the clock: about ten microseconds.
const BODIES: usize = 4096;

impl Work for Kind {
    fn piece(self, _: usize, _: usize) -> f64 {
        (self.run)(BODIES)
    }
}

/// The best loop of each kind that this processor runs.
struct Arithmetic {
    int8: Kind,
    bf16: Option<Kind>,
    f32: Kind,
}

impl Arithmetic {
    fn of_this_processor() -> Self {
        #[cfg(target_arch = "x86_64")]
        let (int8, bf16, f32) = (x86::int8(), x86::bf16(), x86::f32());
        #[cfg(target_arch = "aarch64")]
        let (int8, bf16, f32) = (aarch64::int8(), None, aarch64::f32());
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let (int8, bf16, f32) = (None, None, None);
        Self {
            int8: int8.unwrap_or(portable::INT8),
            bf16,
            f32: f32.unwrap_or(portable::F32),
        }
    }
}
