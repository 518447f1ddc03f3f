/* The shapes that every kernel has in common, and the thread pool that runs them. */
#ifndef MINISLM_THREADS_H
#define MINISLM_THREADS_H

#include <stdint.h>

/* Do the units [first, last) of a task. A unit is whatever can be done by itself: a row, a head, a block of numbers.
   What a unit computes must not depend on first and last: only so is the result the same for every thread count. */
typedef void kernel(const void *task, int64_t first, int64_t last);

/* Do the units [0, n) of a task on at most `threads` threads, the caller being one of them; return when all are done.
   A thread takes at least `grain` units at a time: as many as are worth some 20 microseconds. */
typedef void parallel_runner(kernel *work, const void *task, int64_t n, int64_t grain, int threads);

parallel_runner parallel;

/* How many tasks `parallel` has shared so far, which tests and the curious ask: the others ran on their caller alone. */
int64_t tasks_shared(void);

/* Instruction sets, slowest first. Each kernel file is compiled once for each of them that the compiler knows. */
enum instruction_set { BASELINE, AVX2, AVX512, N_INSTRUCTION_SETS };

/* The best instruction set that this processor and its operating system can run. */
enum instruction_set best_instruction_set(void);

/* What every border module gets from runtime_cython: the one pool and the instruction set in use. */
struct runtime {
    enum instruction_set chosen;
    parallel_runner *parallel;
};

#endif
