/* The thread pool: helpers that sleep until there is work, share it in chunks, and sleep again. And CPU detection.

   A caller never waits for a helper that has not come: it takes chunks itself until none is left, and then waits only for
   those helpers that are inside. So a busy machine makes it slower, never stuck. */
#include "threads.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

enum { MOST_HELPERS = 255, CHUNKS_PER_THREAD = 4 };

static pthread_mutex_t callers = PTHREAD_MUTEX_INITIALIZER; /* held by the one caller whose task is shared */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;    /* guards all that follows, except `next` */
static pthread_cond_t work_came = PTHREAD_COND_INITIALIZER;
static pthread_cond_t all_left = PTHREAD_COND_INITIALIZER;
static int n_helpers; /* threads started so far */
static int places;    /* helpers that may still join the task */
static int inside;    /* helpers that are working on it */

static struct {
    kernel *work;
    const void *task;
    int64_t n, chunk;
} job;
static _Atomic int64_t next; /* first unit that nobody has taken */

static _Atomic int64_t n_shared;

int64_t tasks_shared(void) { return n_shared; }

static void take_chunks(void) {
    for (;;) {
        int64_t first = atomic_fetch_add(&next, job.chunk);
        if (first >= job.n) return;
        int64_t last = first + job.chunk;
        job.work(job.task, first, last < job.n ? last : job.n);
    }
}

static void *helper(void *unused) {
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!places) pthread_cond_wait(&work_came, &lock);
        places--, inside++;
        pthread_mutex_unlock(&lock);
        take_chunks();
        pthread_mutex_lock(&lock);
        if (!--inside) pthread_cond_signal(&all_left);
    }
    return unused;
}

/* A forked child has no helpers and must not inherit a lock that some other thread held. */
static void forget_helpers(void) {
    n_helpers = places = inside = 0;
    pthread_mutex_init(&callers, 0);
    pthread_mutex_init(&lock, 0);
    pthread_cond_init(&work_came, 0);
    pthread_cond_init(&all_left, 0);
}

static void watch_forks(void) { pthread_atfork(0, 0, forget_helpers); }

/* Start helpers until there are `wanted`; fewer if the system gives no more. Signals stay with Python's own threads. */
static void start_helpers(int wanted) {
    static pthread_once_t watched = PTHREAD_ONCE_INIT;
    pthread_once(&watched, watch_forks);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (n_helpers < wanted) {
        pthread_t thread;
        if (pthread_create(&thread, 0, helper, 0)) break;
        pthread_detach(thread);
        n_helpers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, 0);
}

void parallel(kernel *work, const void *task, int64_t n, int64_t grain, int threads) {
    if (grain < 1) grain = 1;
    if (threads > MOST_HELPERS + 1) threads = MOST_HELPERS + 1;
    if (threads > n / grain) threads = (int)(n / grain);
    if (threads <= 1 || pthread_mutex_trylock(&callers)) { /* too small, or the helpers serve somebody else */
        if (n > 0) work(task, 0, n);
        return;
    }
    pthread_mutex_lock(&lock);
    if (n_helpers < threads - 1) start_helpers(threads - 1);
    int64_t even = n / (threads * CHUNKS_PER_THREAD);
    job.work = work, job.task = task, job.n = n, job.chunk = even > grain ? even : grain;
    atomic_store(&next, 0);
    places = threads - 1;
    n_shared++;
    pthread_cond_broadcast(&work_came);
    pthread_mutex_unlock(&lock);
    take_chunks();
    pthread_mutex_lock(&lock);
    places = 0;
    while (inside) pthread_cond_wait(&all_left, &lock);
    pthread_mutex_unlock(&lock);
    pthread_mutex_unlock(&callers);
}

enum instruction_set best_instruction_set(void) {
#if defined __x86_64__ || defined __i386__
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("bmi2"))
        return AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return AVX2;
#endif
    return BASELINE;
}
