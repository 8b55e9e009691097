//! The threads that bring files from elsewhere, so that no slow server holds up what is to be
//! loaded from the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use multigraft_peft::WEIGHTS_FILE;
use multigraft_sources::Fetcher;

use super::task::{Job, Task, failed};
use super::{Inner, LoadError, Progress};
use crate::parts::ADAPTER_FILES;

/// How many downloads may be under way at once.
const FETCHERS: usize = 4;

/// Between two words about how far a download has come.
const PAUSE: Duration = Duration::from_millis(100);

/// Starts the threads that take jobs from `orders` and hand them on to the loaders. They end when
/// the registry does.
pub(super) fn start(registry: &Arc<Inner>, orders: Receiver<Job>) -> std::io::Result<()> {
    let orders = Arc::new(Mutex::new(orders));
    for index in 0..FETCHERS {
        let (registry, orders) = (Arc::downgrade(registry), Arc::clone(&orders));
        let builder = thread::Builder::new().name(format!("fetcher-{index}"));
        builder.spawn(move || serve(&registry, &orders))?;
    }
    Ok(())
}

fn serve(registry: &Weak<Inner>, orders: &Mutex<Receiver<Job>>) {
    loop {
        let job = orders.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut job) = job else { return };
        // Not held while files arrive: the registry may end meanwhile, and nobody waits for them
        // then.
        let Some(fetcher) = registry.upgrade().map(|registry| registry.begin_fetch(&job)) else {
            return;
        };
        let told = Mutex::new(Instant::now());
        let progress = |name: &str, done: u64, total: u64| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            // The other files are small.
            if name == WEIGHTS_FILE
                && told.elapsed() >= PAUSE
                && let Some(registry) = registry.upgrade()
            {
                *told = Instant::now();
                registry.fetches(&job, Some(Progress { done, total }));
            }
        };
        let fetch =
            || fetcher.fetch_with_progress(&job.at, job.revision.as_deref(), &ADAPTER_FILES, &progress);
        let fetched = catch_unwind(AssertUnwindSafe(fetch));
        let Some(registry) = registry.upgrade() else {
            return;
        };
        match fetched {
            Ok(Ok(files)) => {
                registry.fetches(&job, None);
                job.folder = Some(files.folder);
                job.revision = files.revision;
                // Loaders live as long as the registry.
                let _ = registry.jobs.send(Task::Load(job));
            }
            Ok(Err(error)) => registry.settle(job, Err(failed(error.into()))),
            Err(_) => registry.settle(job, Err(LoadError::Panicked)),
        }
    }
}

impl Inner {
    fn begin_fetch(&self, job: &Job) -> Arc<Fetcher> {
        if let Some(named) = self.lock().names.get_mut(&job.name) {
            named.activity.begins(job.id);
        }
        self.fetches(job, Some(Progress::default()));
        Arc::clone(&self.options.fetcher)
    }

    /// Writes down how far the files of a job have come; `None`: they are here.
    fn fetches(&self, job: &Job, progress: Option<Progress>) {
        if let Some(named) = self.lock().names.get_mut(&job.name) {
            named.activity.fetches(job.id, progress);
        }
        self.changed();
    }
}
