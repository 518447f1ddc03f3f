/* Stages whose rows do not depend on each other, joined: a block of rows goes through all of them, while what is written
   about it stays in the nearest caches and nobody waits for anybody, and then comes the next block. */
#ifndef MINISLM_JOINED_H
#define MINISLM_JOINED_H
#include "threads.h"

/* Whether a pass on so many threads gains by joining this stage to others. */
int joinable(const struct stage *stage, int threads);

/* One stage that does n of them, which have the same rows. Its task is NULL if there is no memory. */
struct stage joined(const struct stage *stages, int64_t n, int threads);

/* How many stages are joined in one. */
int64_t tasks_of(const struct stage *stage);

/* Free the task of a stage if it was made here. */
void part(const struct stage *stage);

#endif
