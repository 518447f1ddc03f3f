#include "joined.h"

#include <stdlib.h>

/* Rows of a block, at most; fewest rows of a thread; bytes, for each row of a thread, that may be read anew for every block. */
enum { BLOCK_ROWS = 96, LEAST_ROWS = 8, ANEW_PER_ROW = 16384 };

/* Blocks of sequences for each thread, at least, so that none waits long for another at the end; and bytes that may be read
   anew for each of them: matrices of so many stay in the last cache. */
enum { BLOCKS_OF_A_THREAD = 4, ANEW_OF_A_CHAIN = 8 << 20 };

struct links {
    const int64_t *counts; /* rows of each sequence, or null */
    int64_t n;
    struct stage stages[];
};

static void go_through(const struct links *links, int64_t first, int64_t last) {
    for (int64_t i = 0; i < links->n; i++) links->stages[i].by_rows(links->stages[i].task, first, last);
}

static void by_blocks(const void *task, int64_t first, int64_t last) {
    const int64_t rows = last - first, blocks = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    for (int64_t b = 0; b < blocks; b++) go_through(task, first + rows * b / blocks, first + rows * (b + 1) / blocks);
}

/* Units are sequences. */
static void by_sequences(const void *task, int64_t first, int64_t last) {
    const struct links *links = task;
    int64_t row = 0;
    for (int64_t i = 0; i < first; i++) row += links->counts[i];
    for (int64_t i = first, end = row; i < last; row = end) {
        do end += links->counts[i++];
        while (i < last && end - row + links->counts[i] <= BLOCK_ROWS);
        go_through(links, row, end);
    }
}

static int is_joined(const struct stage *stage) { return stage->work == by_blocks || stage->work == by_sequences; }

int joinable(const struct stage *stage, int threads) {
    const int64_t rows = stage->rows / threads;
    return stage->by_rows && !stage->counts && rows >= LEAST_ROWS && stage->anew <= rows * ANEW_PER_ROW;
}

/* One stage of n others; what it does, and on how many units, is for the caller to say. */
static struct stage linked(const struct stage *stages, int64_t n) {
    struct links *links = malloc(sizeof *links + (size_t)n * sizeof *stages);
    struct stage whole = {.task = links, .rows = stages->rows};
    if (!links) return whole;
    links->n = n, links->counts = 0;
    for (int64_t i = 0; i < n; i++) {
        links->stages[i] = stages[i];
        whole.anew += stages[i].anew;
        if (stages[i].counts) whole.sequences = stages[i].sequences, links->counts = stages[i].counts;
    }
    return whole;
}

struct stage joined(const struct stage *stages, int64_t n, int threads) {
    struct stage whole = linked(stages, n);
    whole.work = whole.by_rows = by_blocks, whole.n = whole.rows, whole.grain = BLOCK_ROWS;
    double worth = 0; /* as often as all of it would be shared out */
    for (int64_t i = 0; i < n; i++) worth += (double)stages[i].n / (double)stages[i].grain;
    const int64_t share = (whole.rows + threads - 1) / threads;
    if (share < 2 * BLOCK_ROWS) whole.grain = share;
    if (worth < 2) whole.grain = whole.rows;
    return whole;
}

int64_t chainable(const struct stage *stages, int64_t n, int threads) {
    int64_t anew = 0, i = 0;
    const struct stage *of = 0;
    for (; i < n && stages[i].by_rows && stages[i].rows == stages->rows; i++) {
        if ((anew += stages[i].anew) > ANEW_OF_A_CHAIN) break;
        if (!stages[i].counts) continue;
        const int64_t block = stages[i].longest > BLOCK_ROWS ? stages[i].longest : BLOCK_ROWS;
        if (stages[i].rows < BLOCKS_OF_A_THREAD * threads * block || (of && of->counts != stages[i].counts)) break;
        of = stages + i;
    }
    return of ? i : 0;
}

struct stage chained(const struct stage *stages, int64_t n) {
    struct stage whole = linked(stages, n);
    whole.work = by_sequences, whole.n = whole.sequences;
    whole.grain = (BLOCK_ROWS * whole.sequences + whole.rows - 1) / whole.rows;
    return whole;
}

int64_t tasks_of(const struct stage *stage) {
    if (!is_joined(stage)) return 1;
    const struct links *links = stage->task;
    int64_t tasks = 0;
    for (int64_t i = 0; i < links->n; i++) tasks += tasks_of(links->stages + i);
    return tasks;
}

void part(const struct stage *stage) {
    if (!is_joined(stage)) return;
    const struct links *links = stage->task;
    for (int64_t i = 0; i < links->n; i++) part(links->stages + i);
    free((void *)links);
}
