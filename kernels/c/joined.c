#include "joined.h"

#include <stdlib.h>

/* Rows of a block; fewest rows of a thread; bytes, for each row of a thread, that may be read anew for every block. */
enum { BLOCK_ROWS = 96, LEAST_ROWS = 8, ANEW_PER_ROW = 16384 };

struct links {
    int64_t n;
    struct stage stages[];
};

static void follow(const void *task, int64_t first, int64_t last) {
    const struct links *links = task;
    for (int64_t row = first, end; row < last; row = end) {
        end = row + BLOCK_ROWS < last ? row + BLOCK_ROWS : last;
        for (int64_t i = 0; i < links->n; i++) links->stages[i].by_rows(links->stages[i].task, row, end);
    }
}

int joinable(const struct stage *stage, int threads) {
    const int64_t rows = stage->rows / threads;
    return stage->by_rows && rows >= LEAST_ROWS && stage->anew <= rows * ANEW_PER_ROW;
}

struct stage joined(const struct stage *stages, int64_t n, int threads) {
    struct links *links = malloc(sizeof *links + (size_t)n * sizeof *stages);
    struct stage whole = {follow, links, stages->rows, BLOCK_ROWS, follow, stages->rows, 0};
    if (!links) return whole;
    double worth = 0; /* as often as all of it would be shared out */
    links->n = n;
    for (int64_t i = 0; i < n; i++) {
        links->stages[i] = stages[i];
        worth += (double)stages[i].n / (double)stages[i].grain;
    }
    const int64_t share = (whole.rows + threads - 1) / threads;
    if (share < 2 * BLOCK_ROWS) whole.grain = share;
    if (worth < 2) whole.grain = whole.rows;
    return whole;
}

int64_t tasks_of(const struct stage *stage) {
    return stage->work == follow ? ((const struct links *)stage->task)->n : 1;
}

void part(const struct stage *stage) {
    if (stage->work == follow) free((void *)stage->task);
}
