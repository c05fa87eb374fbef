//! A parallel-for with parked workers.
//!
//! An inference is some twenty parallel loops in a row, so a loop must start and end within microseconds, yet a waiting
//! thread must not burn a core that the camera needs. Workers spin for some 20 µs after their last task (the next layer
//! is usually here by then), then sleep in the kernel.
//!
//! A worker that is late, because the machine is busy, never delays a loop: the caller works too, and when no task is left
//! it closes the gate, so that whoever has not come in yet stays out. It then waits for those inside only.

use std::{
    any::Any,
    cell::UnsafeCell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    thread::JoinHandle,
};

use super::cores;

/// Turns of the waiting loop before a thread goes to sleep: 10 to 40 µs by CPU.
const SPINS: u32 = 400;
/// The bit of `gate` that lets workers in; the bits below count those inside.
const OPEN: u32 = 1 << 31;

/// A fixed set of threads for loops over independent tasks.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held by the thread whose loop the workers serve.
    turn: Mutex<()>,
}

/// The loop body with its type erased. The pointer is valid while the gate is open or somebody is inside.
#[derive(Clone, Copy)]
struct Job {
    body: *const (),
    call: unsafe fn(*const (), usize, usize),
    tasks: usize,
}

/// A counter on a cache line of its own.
#[repr(align(128))]
struct Share(AtomicUsize);

struct Shared {
    job: UnsafeCell<Job>,
    /// `OPEN` and the number of workers inside.
    gate: AtomicU32,
    /// Changes with each loop: what a waiting worker looks at.
    epoch: AtomicU32,
    /// For each thread, the next task of its share that nobody has claimed.
    next: Vec<Share>,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleep: Mutex<()>,
    /// Workers in, or on their way into, `wake.wait`.
    sleepers: AtomicU32,
    wake: Condvar,
    /// The caller is in, or on its way into, `done.wait`.
    caller_sleeps: AtomicBool,
    done: Condvar,
}

// SAFETY: `job` is written by the holder of `turn` while the gate is closed and empty, and read only by that thread and by
// workers inside of the gate; the gate's sequentially consistent operations order the two. The body behind it is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of `threads` threads, the caller's included (so 1 starts none; 0 counts as 1).
    ///
    /// Its own threads keep to the largest cores that so many need; the caller's goes where the system puts a busy thread, which is a large
    /// core as well. Where the system refuses a thread the pool is smaller: [`Pool::threads`] tells.
    pub fn new(threads: usize) -> Self {
        unsafe fn nothing(_: *const (), _: usize, _: usize) {}
        let shared = Arc::new(Shared {
            job: UnsafeCell::new(Job { body: std::ptr::null(), call: nothing, tasks: 0 }),
            gate: AtomicU32::new(0),
            epoch: AtomicU32::new(0),
            next: (0..threads.max(1)).map(|_| Share(AtomicUsize::new(0))).collect(),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
            sleep: Mutex::new(()),
            sleepers: AtomicU32::new(0),
            wake: Condvar::new(),
            caller_sleeps: AtomicBool::new(false),
            done: Condvar::new(),
        });
        let mut workers = Vec::new();
        for index in 1..threads {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("kernel-{index}"));
            let work = move || {
                cores::keep_to_largest(threads);
                shared.work(index);
            };
            match thread.spawn(work) {
                Ok(handle) => workers.push(handle),
                Err(error) => {
                    log::warn!(
                        "kernels run on {index} threads instead of {threads}: a thread could not be started: {error}"
                    );
                    break;
                }
            }
        }
        Self { shared, workers, turn: Mutex::new(()) }
    }

    /// How many threads work in a loop, the caller's included; worker indices are below it.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body(task, worker)` once for each task below `tasks`, in any order, on all threads; returns when all are done.
    ///
    /// Two calls at the same time never have the same `worker`, which is below [`Pool::threads`], so `worker` may name a thread's own memory.
    /// Nothing is allocated. When another thread (or a task of this loop) already has the workers, the caller does all tasks
    /// alone as worker 0.
    ///
    /// # Panics
    /// With the first panic of a task, after the loop has ended; the remaining tasks may be left out. The pool stays usable.
    pub fn run<F: Fn(usize, usize) + Sync>(&self, tasks: usize, body: F) {
        let alone = self.workers.is_empty() || tasks <= 1;
        let turn = if alone { None } else { self.turn.try_lock().ok() };
        if turn.is_none() {
            return (0..tasks).for_each(|task| body(task, 0));
        }
        /// # Safety
        /// `body` points to an `F` that lives.
        unsafe fn call<F: Fn(usize, usize)>(body: *const (), task: usize, worker: usize) {
            // SAFETY: the caller's promise.
            (unsafe { &*body.cast::<F>() })(task, worker);
        }
        let shared = &*self.shared;
        let job = Job { body: (&raw const body).cast(), call: call::<F>, tasks };
        // SAFETY: we hold `turn` and the previous holder left the gate closed and empty, so nobody else looks.
        unsafe { *shared.job.get() = job };
        for (worker, share) in shared.next.iter().enumerate() {
            share.0.store(shared.share(tasks, worker), SeqCst);
        }
        shared.gate.store(OPEN, SeqCst);
        shared.epoch.fetch_add(1, SeqCst);
        if shared.sleepers.load(SeqCst) > 0 {
            drop(lock(&shared.sleep));
            shared.wake.notify_all();
        }
        // SAFETY: `body` lives until the end of this function, and `close` below returns only when nobody uses it.
        unsafe { shared.tasks(job, 0) };
        shared.close();
        let panic = lock(&shared.panic).take();
        drop(turn);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.shared.epoch.fetch_add(1, SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches every panic of a task, so this cannot be one.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// A worker's life.
    fn work(&self, worker: usize) {
        let mut seen = 0;
        loop {
            seen = self.wait_for_epoch(seen);
            if self.stop.load(SeqCst) {
                return;
            }
            if self.enter() {
                // SAFETY: we are inside of the gate, so the job stays as it is and its body lives.
                unsafe { self.tasks(*self.job.get(), worker) };
                self.leave();
            }
        }
    }

    fn wait_for_epoch(&self, seen: u32) -> u32 {
        for _ in 0..SPINS {
            let epoch = self.epoch.load(SeqCst);
            if epoch != seen {
                return epoch;
            }
            relax();
        }
        let mut guard = lock(&self.sleep);
        self.sleepers.fetch_add(1, SeqCst);
        // Counted before the look, while `run` looks at the count after the change: one of the two sees the other.
        let epoch = loop {
            let epoch = self.epoch.load(SeqCst);
            if epoch != seen {
                break epoch;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.sleepers.fetch_sub(1, SeqCst);
        epoch
    }

    /// Goes in, if the gate is open.
    fn enter(&self) -> bool {
        self.gate.fetch_update(SeqCst, SeqCst, |gate| (gate & OPEN != 0).then_some(gate + 1)).is_ok()
    }

    fn leave(&self) {
        if self.gate.fetch_sub(1, SeqCst) == 1 && self.caller_sleeps.load(SeqCst) {
            drop(lock(&self.sleep));
            self.done.notify_all();
        }
    }

    /// Shuts the gate and waits until nobody is inside.
    fn close(&self) {
        self.gate.fetch_and(!OPEN, SeqCst);
        for _ in 0..SPINS {
            if self.gate.load(SeqCst) == 0 {
                return;
            }
            relax();
        }
        let mut guard = lock(&self.sleep);
        // Told before the look, while `leave` looks after it has left: one of the two sees the other. An exchange and not a store, because
        // qemu's translation to x86 lets a load overtake a sequentially consistent store (seen once under `make test-arm`: nobody woke the caller).
        self.caller_sleeps.swap(true, SeqCst);
        while self.gate.load(SeqCst) != 0 {
            guard = self.done.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.caller_sleeps.store(false, SeqCst);
    }

    /// The first task of a thread's share; that of the thread after the last is the number of tasks.
    fn share(&self, tasks: usize, worker: usize) -> usize {
        worker * tasks / self.next.len()
    }

    /// Claims and does tasks until none is left: those of the own share first, so that a thread meets in each layer the rows whose inputs it wrote
    /// itself, then those of slower threads. After a panic nobody claims any more.
    ///
    /// # Safety
    /// The job's body lives for the length of this call.
    unsafe fn tasks(&self, job: Job, worker: usize) {
        let threads = self.next.len();
        for owner in (worker..threads).chain(0..worker) {
            let end = self.share(job.tasks, owner + 1);
            loop {
                let task = self.next[owner].0.fetch_add(1, SeqCst);
                if task >= end {
                    break;
                }
                // SAFETY: the caller's promise.
                let result = catch_unwind(AssertUnwindSafe(|| unsafe { (job.call)(job.body, task, worker) }));
                if let Err(panic) = result {
                    self.next.iter().for_each(|share| share.0.store(job.tasks, SeqCst));
                    lock(&self.panic).get_or_insert(panic);
                }
            }
        }
    }
}

/// A few dozen nanoseconds in which the sibling hardware thread has the core.
fn relax() {
    for _ in 0..8 {
        std::hint::spin_loop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each guarded value is valid at every moment, so a poisoned lock is as good as any.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// Each task once, whatever the number of threads, in many loops in a row.
    #[test]
    fn every_task_runs_once() {
        for threads in [0, 1, 2, 3, 8] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads.max(1));
            for tasks in [0, 1, 2, 7, 64] {
                for _ in 0..20 {
                    let counts: Vec<AtomicU64> = (0..tasks).map(|_| AtomicU64::new(0)).collect();
                    pool.run(tasks, |task, worker| {
                        assert!(worker < pool.threads());
                        counts[task].fetch_add(1, SeqCst);
                    });
                    assert!(counts.iter().all(|c| c.load(SeqCst) == 1));
                }
            }
        }
    }

    #[test]
    fn no_two_threads_share_a_worker_index() {
        let pool = Pool::new(4);
        let busy: Vec<AtomicBool> = (0..4).map(|_| AtomicBool::new(false)).collect();
        pool.run(200, |_, worker| {
            assert!(!busy[worker].swap(true, SeqCst));
            std::thread::yield_now();
            busy[worker].store(false, SeqCst);
        });
    }

    #[test]
    fn workers_wake_from_sleep() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let both = std::sync::Barrier::new(2);
            // Passes only when two threads are inside at once.
            pool.run(2, |_, _| {
                both.wait();
            });
        }
    }

    /// The caller goes to sleep in the very moment in which the last worker leaves: whoever loses that race must still be woken.
    #[test]
    fn a_caller_that_falls_asleep_as_the_last_worker_leaves_is_woken() {
        // Miri tries other orders of the threads by itself, and takes minutes for as many turns
        const TURNS: usize = if cfg!(miri) { 8 } else { 4000 };
        let pool = Pool::new(2);
        for turn in 0..TURNS {
            let both = std::sync::Barrier::new(2);
            pool.run(2, |_, worker| {
                both.wait();
                // The worker outlasts the caller's spinning by a little more or less from turn to turn.
                (0..worker * (SPINS as usize + turn % 64)).for_each(|_| relax());
            });
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        for task in [0, 5, 31] {
            let panic = catch_unwind(AssertUnwindSafe(|| pool.run(32, |t, _| assert!(t != task, "task {t} failed"))));
            let text = *panic.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(text, format!("task {task} failed"));
            let count = AtomicU64::new(0);
            pool.run(10, |_, _| {
                count.fetch_add(1, SeqCst);
            });
            assert_eq!(count.load(SeqCst), 10);
        }
    }

    #[test]
    fn a_loop_within_a_loop_and_two_callers_at_once_complete() {
        let pool = Pool::new(3);
        let count = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        pool.run(4, |_, _| {
                            pool.run(3, |_, _| {
                                count.fetch_add(1, SeqCst);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(count.load(SeqCst), 3 * 50 * 4 * 3);
    }
}
