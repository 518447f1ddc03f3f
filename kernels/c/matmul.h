/* Products of float32 matrices: of two that lie anywhere, and of rows with panels. */
#ifndef MINISLM_MATMUL_H
#define MINISLM_MATMUL_H
#include "tile.h"

/* A unit of `product` is a part of the result, cut so that DEPTH numbers of its rows stay in the second cache while all its
   panels are filled and multiplied, and that there are about UNITS units where there are numbers enough. */
struct product_parts {
    int64_t rows, columns, down, across;
};

struct product_task {
    struct left a;
    struct right b;
    float *c; /* (m, n) */
    int64_t m, n, k;
    struct product_parts parts;
};

enum stored { FLOAT32, FLOAT16, BFLOAT16 };

struct panel_product_task {
    const float *x;     /* (m, k) */
    const void *panels; /* (panels, k, PANEL) */
    const float *bias;  /* (n,) or null */
    float *y;           /* (m, n) */
    int64_t m, n, k;
    enum stored stored;
};

enum { UNITS = 16, LEAST_ROWS = 96, MOST_ROWS = 192, UNIT_ROWS = 96, FEW = 3 };

static inline int64_t panels_of(int64_t columns) { return (columns + PANEL - 1) / PANEL; }

static inline int64_t parts_of(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

static inline struct product_parts product_parts(int64_t m, int64_t n) {
    const int64_t panels = panels_of(n) + !n;
    const int64_t wanted = smaller(parts_of(UNITS, panels), parts_of(m, LEAST_ROWS));
    const int64_t least = parts_of(m, MOST_ROWS), down = (wanted > least ? wanted : least) + !m;
    struct product_parts parts;
    parts.rows = parts_of(parts_of(m, down), TILE_ROWS) * TILE_ROWS + !m;
    parts.down = parts_of(m, parts.rows);
    parts.columns = parts_of(panels, smaller(panels, parts_of(UNITS, parts.down + !m))) * PANEL;
    parts.across = parts_of(n, parts.columns);
    return parts;
}

/* A unit of `panel_product` is UNIT_ROWS rows of one panel, or few rows of two panels. */
static inline int64_t together(const struct panel_product_task *t) { return t->m <= FEW ? 2 : 1; }
static inline int64_t panel_groups(const struct panel_product_task *t) {
    return parts_of(panels_of(t->n), together(t));
}
static inline int64_t panel_product_units(const struct panel_product_task *t) {
    return parts_of(t->m, UNIT_ROWS) * panel_groups(t);
}

struct matmul_kernels {
    kernel *product, *panel_product, *panel_product_by_rows;
};
FAMILY(matmul_kernels)
#endif
