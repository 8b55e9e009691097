//! The threads that download files. They are apart from the loaders, so that a slow server does not
//! delay loads from disk.

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

/// Number of concurrent downloads.
const FETCHERS: usize = 4;

/// Time between two progress reports of a download.
const PAUSE: Duration = Duration::from_millis(100);

/// Starts the threads that download the files of jobs from `queue` and pass the jobs on to the
/// loaders. The threads end with the registry.
pub(super) fn start(registry: &Arc<Inner>, queue: Receiver<Job>) -> std::io::Result<()> {
    let queue = Arc::new(Mutex::new(queue));
    for index in 0..FETCHERS {
        let (registry, queue) = (Arc::downgrade(registry), Arc::clone(&queue));
        let builder = thread::Builder::new().name(format!("fetcher-{index}"));
        builder.spawn(move || serve(&registry, &queue))?;
    }
    Ok(())
}

fn serve(registry: &Weak<Inner>, queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut job) = job else { return };
        // The registry is not held during the download. If it is dropped meanwhile, nobody waits
        // for the files.
        let Some(fetcher) = registry.upgrade().map(|registry| registry.begin_fetch(&job)) else {
            return;
        };
        let last_report = Mutex::new(Instant::now());
        let progress = |name: &str, done: u64, total: u64| {
            let mut last_report = last_report.lock().unwrap_or_else(PoisonError::into_inner);
            // All other files are small.
            if name == WEIGHTS_FILE
                && last_report.elapsed() >= PAUSE
                && let Some(registry) = registry.upgrade()
            {
                *last_report = Instant::now();
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
                // The loaders run as long as the registry exists.
                let _ = registry.jobs.send(Task::Load(job));
            }
            Ok(Err(error)) => registry.complete(job, Err(failed(error.into()))),
            Err(_) => registry.complete(job, Err(LoadError::Panicked)),
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

    /// Records the progress of a job's download; `None` means that it is complete.
    fn fetches(&self, job: &Job, progress: Option<Progress>) {
        if let Some(named) = self.lock().names.get_mut(&job.name) {
            named.activity.fetches(job.id, progress);
        }
        self.changed();
    }
}
