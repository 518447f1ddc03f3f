#include "matmul.h"

#include "codes.h"

static void product(const void *task, int64_t first, int64_t last) {
    const struct product_task *t = task;
    const struct product_parts parts = t->parts;
    float panel[DEPTH * PANEL] __attribute__((aligned(64)));
    for (int64_t unit = first; unit < last; unit++) {
        const int64_t i = unit / parts.across * parts.rows, rows = smaller(parts.rows, t->m - i);
        const int64_t start = unit % parts.across * parts.columns, end = smaller(start + parts.columns, t->n);
        for (int64_t l = 0; l == 0 || l < t->k; l += DEPTH) {
            const int64_t k = smaller(DEPTH, t->k - l);
            const struct left left = {t->a.a + i * t->a.row + l * t->a.column, t->a.row, t->a.column};
            for (int64_t j = start; j < end; j += PANEL) {
                const struct right right = {t->b.b + l * t->b.row + j * t->b.column, t->b.row, t->b.column};
                fill_panel(&right, k, smaller(PANEL, end - j), panel);
                matmul_panel(left, panel, t->c + i * t->n + j, t->n, rows, k, l > 0, smaller(PANEL, end - j));
            }
        }
    }
}

/* A few rows meet TOGETHER panels at once, because one panel would leave the registers waiting for each other. */
#define FEW_ROWS(rows)                                                                                                \
    case rows: matmul_tile(left, b, panel, c, c_row, k, more, rows, MOST_REGISTERS, 1); break;

static void few_rows(struct left left, const float *b, int64_t panel, float *c, int64_t c_row, int64_t m, int64_t k, int more) {
    switch (m) {
        FEW_ROWS(1)
        FEW_ROWS(2)
        FEW_ROWS(3)
    }
}

static void widen(const uint16_t *in, int64_t n, int stored, float *out) {
    if (stored == FLOAT16)
        for (int64_t i = 0; i < n; i++) out[i] = widened(in[i]);
    else
        for (int64_t i = 0; i < n; i++) {
            const uint32_t bits = (uint32_t)in[i] << 16;
            memcpy(out + i, &bits, sizeof bits);
        }
}

/* Some rows from i on, UNIT_ROWS at most, by groups [first, last) of panels. */
static void rows_by_panels(const struct panel_product_task *t, int64_t i, int64_t rows, int64_t first, int64_t last) {
    const int64_t width = together(t) * PANEL, size = t->k * PANEL;
    const int few = t->m <= FEW;
    float wide[DEPTH * PANEL] __attribute__((aligned(64)));
    for (int64_t group = first; group < last; group++) {
        const int64_t start = group * width, end = smaller(start + width, t->n);
        const struct left left = {t->x + i * t->k, t->k, 1};
        float *c = t->y + i * t->n;
        for (int64_t j = start; j < end;) {
            const int64_t at_once = few && t->stored == FLOAT32 && end - j >= MOST_REGISTERS * LANES
                                        ? MOST_REGISTERS * LANES
                                        : PANEL; /* columns */
            const int64_t columns = smaller(at_once, end - j);
            for (int64_t l = 0; l == 0 || l < t->k; l += DEPTH) {
                const int64_t k = smaller(DEPTH, t->k - l), place = j / PANEL * size + l * PANEL + j % PANEL;
                const struct left part = {left.a + l, t->k, 1};
                const float *b = (const float *)t->panels + place;
                if (t->stored != FLOAT32) {
                    widen((const uint16_t *)t->panels + place, k * PANEL, t->stored, wide);
                    b = wide;
                }
                if (columns == MOST_REGISTERS * LANES && few)
                    few_rows(part, b, size, c + j, t->n, rows, k, l > 0);
                else
                    matmul_panel(part, b, c + j, t->n, rows, k, l > 0, columns);
            }
            j += columns;
        }
        if (t->bias)
            for (int64_t r = 0; r < rows; r++)
#pragma GCC ivdep
                for (int64_t j = start; j < end; j++) c[r * t->n + j] += t->bias[j];
    }
}

static void panel_product(const void *task, int64_t first, int64_t last) {
    const struct panel_product_task *t = task;
    const int64_t groups = panel_groups(t);
    for (int64_t unit = first; unit < last; unit++) {
        const int64_t i = unit / groups * UNIT_ROWS, group = unit % groups;
        rows_by_panels(t, i, smaller(UNIT_ROWS, t->m - i), group, group + 1);
    }
}

static void panel_product_by_rows(const void *task, int64_t first, int64_t last) {
    const struct panel_product_task *t = task;
    for (int64_t i = first; i < last; i += UNIT_ROWS)
        rows_by_panels(t, i, smaller(UNIT_ROWS, last - i), 0, panel_groups(t));
}

const struct matmul_kernels PER_SET(matmul_kernels) = {
    .product = product,
    .panel_product = panel_product,
    .panel_product_by_rows = panel_product_by_rows,
};
