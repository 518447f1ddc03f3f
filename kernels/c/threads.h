/* The shapes that every kernel has in common, the thread pool that runs them, and recordings of what it ran. */
#ifndef MINISLM_THREADS_H
#define MINISLM_THREADS_H

#include <stddef.h>
#include <stdint.h>

/* Do the units [first, last) of a task. A unit is whatever can be done by itself: a row, a head, a block of numbers.
   What a unit computes must not depend on first and last: only so is the result the same for every thread count. */
typedef void kernel(const void *task, int64_t first, int64_t last);

/* A task of n units, of which a thread takes at least `grain` at a time: as many as are worth some 20 microseconds. */
struct stage {
    kernel *work;
    const void *task;
    int64_t n, grain;
    /* Where a row of results needs no other row than the same one of other stages: what does rows [first, last), of how
       many, and the bytes, of a matrix, that it reads for every call. */
    kernel *by_rows;
    int64_t rows, anew;
    /* Where it needs the rows of its own sequence, too, so that by_rows must be given whole ones: how many rows each of the
       sequences has, in order, and how many one may have at most. Else null. */
    const int64_t *counts;
    int64_t sequences, longest;
};

/* Do stages one after the other, each on at most `threads` threads, the caller being one of them; return when all are
   done. The helpers are woken once for all of them. */
void run_stages(const struct stage *stages, int64_t n_stages, int threads);

/* Do one stage, whose task has `size` bytes, or write it down if this thread is recording. */
typedef void stage_runner(const struct stage *stage, size_t size, int threads);

stage_runner run_stage;

/* The stages that a thread gave to `run_stage` while it recorded, with copies of their tasks, for `run_stages`. What the tasks
   point to must stay where it was. */
struct recording {
    struct stage *stages;
    int64_t n, room;
    int failed;  /* there was no memory for a stage */
    void *owner; /* whoever keeps what the tasks point to */
};

/* Write down this thread's tasks from now on; NULL: no more. Return where they were written down before. */
struct recording *record(struct recording *where);

/* Where this thread's tasks are written down; NULL: nowhere. */
struct recording *recorder(void);

/* Forget all stages but the first `kept`. */
void forget_stages(struct recording *recorded, int64_t kept);

/* How many tasks have been shared so far, which tests and the curious ask: the others ran on one thread alone. */
int64_t tasks_shared(void);

/* Instruction sets, slowest first; DOTPROD is of aarch64, whose baseline has NEON. Each kernel file is compiled once for each
   of them that the compiler knows and that the family gains from. */
enum instruction_set { BASELINE, AVX2, AVX2VNNI, AVX512, AVX512VBMI2, AMX, DOTPROD, N_INSTRUCTION_SETS };

/* Whether this processor and its operating system can run an instruction set. */
int can_run(enum instruction_set set);

/* What a task does with an array that it points to; a fixed one nobody writes, ever. */
enum touch { FIXED, READ, WRITTEN };

/* What every border module gets from runtime_cython: the one pool, the instruction set in use, and whom to tell of each
   array that a task points to (-1: a Python error is set). */
struct runtime {
    enum instruction_set chosen;
    stage_runner *run_stage;
    int (*touched)(void *array, const void *start, int64_t size, enum touch how);
};

#endif
