/* Stages whose rows do not depend on each other, joined: a block of rows goes through all of them, while what is written
   about it stays in the nearest caches and nobody waits for anybody, and then comes the next block. Where rows depend on
   those of their own sequence alone, and there are many sequences, these are the blocks. */
#ifndef MINISLM_JOINED_H
#define MINISLM_JOINED_H
#include "threads.h"

/* Whether a pass on so many threads gains by joining this stage to others. */
int joinable(const struct stage *stage, int threads);

/* One stage that does n of them, which have the same rows. Its task is NULL if there is no memory. */
struct stage joined(const struct stage *stages, int64_t n, int threads);

/* How many of n stages, from the first on, sequences may go through one after the other; 0: a pass on so many threads does
   not gain by it. */
int64_t chainable(const struct stage *stages, int64_t n, int threads);

/* One stage that does n of them, some of which know the sequences. Its task is NULL if there is no memory. */
struct stage chained(const struct stage *stages, int64_t n);

/* How many stages are joined in one. */
int64_t tasks_of(const struct stage *stage);

/* Free the task of a stage if it was made here, and those of the stages in it. */
void part(const struct stage *stage);

#endif
