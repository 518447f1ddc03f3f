/* The thread pool: helpers that share the stages of a pass, spin for a moment after it, and sleep. And CPU detection.

   One number, the ticket, says where a pass is: its upper bits count stages, over all passes, and its lower bits say how
   many chunks of the stage nobody has taken. Who lowers it by one has a chunk, and until he has done it the stage stays,
   so that what describes the pass can be read without a lock. Who does the last chunk of a stage begins the next one.
   A caller never waits for a helper that has not come, only for chunks that were taken: a busy machine makes it slower,
   never stuck. */
#define _GNU_SOURCE
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST_HELPERS = 255, CHUNKS_PER_THREAD = 4, CHUNK_BITS = 16, UNTAKEN = (1 << CHUNK_BITS) - 1 };
enum { SPIN_NS = 100000, LOOKS = 32 }; /* about twice what waking a helper takes; looks at the ticket between two at the clock */

static pthread_mutex_t callers = PTHREAD_MUTEX_INITIALIZER; /* held by the one caller whose pass is shared */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;    /* of those who go to sleep and those who wake them */
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;     /* the ticket has */
static pthread_cond_t hired = PTHREAD_COND_INITIALIZER;     /* more helpers are wanted */
static _Atomic int sleepers;                                /* waiting for `moved` */
static _Atomic int wanted;                                  /* the helpers 0 .. wanted - 1 take part */
static _Atomic int may_spin;                                /* no more threads work than there are processors */
static int n_helpers, n_processors;                         /* threads started so far */

static struct {
    const struct stage *stages;
    uint64_t first, end; /* what the ticket counts for its first stage, and for the one after its last */
    int threads;
} pass;
static _Alignas(64) _Atomic uint64_t ticket;
static _Alignas(64) _Atomic int64_t unfinished; /* chunks of the stage that are not done */

static _Atomic int64_t n_shared;

int64_t tasks_shared(void) { return n_shared; }

static void pause_briefly(void) {
#if defined __x86_64__ || defined __i386__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("isb");
#endif
}

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Wait until the ticket counts another stage than it did in `seen`. */
static void await_move(uint64_t seen) {
    if (atomic_load(&may_spin)) {
        int64_t until = nanoseconds() + SPIN_NS;
        do {
            for (int i = 0; i < LOOKS; i++, pause_briefly())
                if (atomic_load(&ticket) != seen) return;
        } while (nanoseconds() < until);
    }
    pthread_mutex_lock(&lock);
    atomic_fetch_add(&sleepers, 1);
    while (atomic_load(&ticket) == seen) pthread_cond_wait(&moved, &lock);
    atomic_fetch_sub(&sleepers, 1);
    pthread_mutex_unlock(&lock);
}

static void wake_sleepers(void) {
    if (!atomic_load(&sleepers)) return;
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
}

/* In how many chunks a stage is done; one that is too small to share is not divided. */
static int64_t chunks(const struct stage *stage, int threads) {
    int64_t worth = stage->n / (stage->grain < 1 ? 1 : stage->grain), most = threads * CHUNKS_PER_THREAD;
    return threads < 2 || worth < 2 ? 1 : worth < most ? worth : most;
}

static void run_alone(const struct stage *stage) {
    if (stage->n > 0) stage->work(stage->task, 0, stage->n);
}

/* Go on with a stage: do it and those that follow as long as they are too small to share, then offer the next one. */
static void begin(uint64_t number, int caller) {
    int64_t n = 0;
    for (; number < pass.end; number++) {
        const struct stage *stage = pass.stages + (number - pass.first);
        if ((n = chunks(stage, pass.threads)) > 1) break;
        run_alone(stage);
    }
    int over = number == pass.end;
    if (!over) n_shared++;
    atomic_store(&unfinished, n);
    atomic_store(&ticket, number << CHUNK_BITS | (uint64_t)(over ? 0 : n)); /* from here on, if over, `pass` may be another */
    if (!over || !caller) wake_sleepers();
}

/* Take chunks until none is left; return the ticket that said so. */
static uint64_t take_chunks(int caller) {
    uint64_t now = atomic_load(&ticket);
    while (now & UNTAKEN) {
        if (!atomic_compare_exchange_weak(&ticket, &now, now - 1)) continue;
        const struct stage *stage = pass.stages + ((now >> CHUNK_BITS) - pass.first);
        int64_t n = chunks(stage, pass.threads), chunk = n - (int64_t)(now & UNTAKEN);
        stage->work(stage->task, stage->n * chunk / n, stage->n * (chunk + 1) / n);
        if (atomic_fetch_sub(&unfinished, 1) == 1) begin((now >> CHUNK_BITS) + 1, caller);
        now = atomic_load(&ticket);
    }
    return now;
}

static void *helper(void *number) {
    for (;;) {
        if ((intptr_t)number >= atomic_load(&wanted)) {
            pthread_mutex_lock(&lock);
            while ((intptr_t)number >= atomic_load(&wanted)) pthread_cond_wait(&hired, &lock);
            pthread_mutex_unlock(&lock);
        }
        await_move(take_chunks(0));
    }
    return 0;
}

/* A forked child has no helpers, and must not inherit a lock that some other thread held or the pass that it ran. */
static void forget_helpers(void) {
    n_helpers = wanted = sleepers = 0;
    ticket = ((ticket >> CHUNK_BITS) + 1) << CHUNK_BITS;
    pthread_mutex_init(&callers, 0);
    pthread_mutex_init(&lock, 0);
    pthread_cond_init(&moved, 0);
    pthread_cond_init(&hired, 0);
}

static void watch_forks(void) { pthread_atfork(0, 0, forget_helpers); }

static int processors(void) {
#ifdef __linux__
    cpu_set_t mine;
    if (!sched_getaffinity(0, sizeof mine, &mine)) return CPU_COUNT(&mine);
#endif
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

/* Start helpers until there are enough; fewer if the system gives no more. Signals stay with Python's own threads. */
static void start_helpers(int enough) {
    static pthread_once_t watched = PTHREAD_ONCE_INIT;
    pthread_once(&watched, watch_forks);
    n_processors = processors();
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (n_helpers < enough) {
        pthread_t thread;
        if (pthread_create(&thread, 0, helper, (void *)(intptr_t)n_helpers)) break;
        pthread_detach(thread);
        n_helpers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, 0);
}

/* Let as many helpers as this pass wants take part. */
static void hire(int threads) {
    if (n_helpers < threads - 1) start_helpers(threads - 1);
    atomic_store(&may_spin, threads <= n_processors);
    if (atomic_exchange(&wanted, threads - 1) >= threads - 1) return;
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(&hired);
    pthread_mutex_unlock(&lock);
}

void run_stages(const struct stage *stages, int64_t n_stages, int threads) {
    const struct stage *end = stages + n_stages;
    if (threads > MOST_HELPERS + 1) threads = MOST_HELPERS + 1;
    for (; stages < end && chunks(stages, threads) < 2; stages++) run_alone(stages);
    if (stages == end) return;
    if (pthread_mutex_trylock(&callers)) { /* the helpers serve somebody else */
        for (; stages < end; stages++) run_alone(stages);
        return;
    }
    hire(threads);
    pass.stages = stages, pass.threads = threads;
    pass.first = (atomic_load(&ticket) >> CHUNK_BITS) + 1, pass.end = pass.first + (uint64_t)(end - stages);
    begin(pass.first, 1);
    for (;;) {
        uint64_t now = take_chunks(1);
        if (now >> CHUNK_BITS == pass.end) break;
        await_move(now);
    }
    pthread_mutex_unlock(&callers);
}

static _Thread_local struct recording *recording;

struct recording *record(struct recording *where) {
    struct recording *before = recording;
    recording = where;
    return before;
}

struct recording *recorder(void) { return recording; }

/* Write down a stage with a copy of its task. */
static void note(struct recording *to, const struct stage *stage, size_t size) {
    void *copy = malloc(size);
    if (copy && to->n == to->room) {
        int64_t room = 2 * to->room + 16;
        struct stage *wider = realloc(to->stages, (size_t)room * sizeof *wider);
        if (wider) to->stages = wider, to->room = room;
    }
    if (!copy || to->n == to->room) {
        free(copy);
        to->failed = 1;
        return;
    }
    to->stages[to->n] = *stage;
    to->stages[to->n++].task = memcpy(copy, stage->task, size);
}

void forget_stages(struct recording *recorded, int64_t kept) {
    while (recorded->n > kept) free((void *)recorded->stages[--recorded->n].task);
    if (recorded->n) return;
    free(recorded->stages);
    recorded->stages = 0, recorded->room = 0;
}

void run_stage(const struct stage *stage, size_t size, int threads) {
    if (recording) note(recording, stage, size);
    else run_stages(stage, 1, threads);
}
