#include "sparse.h"

#include "tile.h"

/* ---- stored values, float or packed ---- */

struct values {
    struct run run;
    float room[RUN + BLOCK];
};

static void prepare_values(struct values *v, const struct sparse_task *t) {
    if (!t->floats) prepare(&v->run, &t->packed);
}

/* `count` values of row o, at most RUN, from value `first` on. */
static inline const float *values_of(
    const struct sparse_task *t, struct values *v, int64_t o, int64_t first, int64_t count) {
    if (t->floats) return t->floats + o * t->n_values + first;
    const int64_t begin = first / BLOCK * BLOCK; /* where a byte begins, and perhaps a group */
    for (int64_t i = begin; i < first + count; i += RUN) {
        open_run(&v->run, &t->packed, o, i, smaller(i + RUN, first + count), DIRECT);
        decode_run(&v->run, v->room + (i - begin));
    }
    return v->room + (first - begin);
}

/* Remember that the index of row o lies. */
static inline void note_bad(const struct sparse_task *t, int64_t o) {
    __atomic_store_n(t->bad, o + 1, __ATOMIC_RELAXED);
}

/* The range of a row in the stream; false, and noted, if it does not lie there. */
static inline int stream_range(const struct sparse_task *t, int64_t o, int64_t *first, int64_t *last) {
    *first = t->starts[o], *last = t->starts[o + 1];
    if (0 <= *first && *first <= *last && *last <= t->n_values) return 1;
    note_bad(t, o);
    return 0;
}

/* ---- bitmaps ---- */

/* Put the first values into the lanes whose bits are set, zeros into the others; only so many values are read. */
static inline lanes expanded(const float *values, unsigned bits) {
#if LANES == 16
    return (lanes)_mm512_maskz_expandloadu_ps((__mmask16)bits, values);
#elif LANES == 8
    const uint64_t set = spread(bits, 1), before = set * UINT64_C(0x0101010101010101) - set; /* how many are below */
    const __m256i from = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)before));
    const __m256i used = _mm256_cvtepi8_epi32(_mm_cvtsi64_si128((int64_t)(set * 255)));
    const __m256i order = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0), count = _mm256_set1_epi32(__builtin_popcount(bits));
    const __m256 stored = _mm256_maskload_ps(values, _mm256_cmpgt_epi32(count, order));
    return (lanes)_mm256_and_ps(_mm256_permutevar8x32_ps(stored, from), _mm256_castsi256_ps(used));
#else
    lanes out = all(0);
    for (int l = 0; l < LANES; l++)
        if (bits >> l & 1) out[l] = *values++;
    return out;
#endif
}

/* The bits of inputs [i, i + LANES) of a row's mask; those beyond the last byte are 0. */
static inline unsigned lane_bits(const struct sparse_task *t, const uint8_t *mask, int64_t i) {
    unsigned bits = mask[i / 8] >> i % 8;
    if (LANES == 16 && i / 8 + 1 < t->row_bytes) bits |= mask[i / 8 + 1] << 8;
    return bits & ((1 << LANES) - 1);
}

/* Count the set bits of the mask of inputs [i, i + inputs), of which whole bytes are there. */
static inline int64_t set_bits(const struct sparse_task *t, const uint8_t *mask, int64_t i, int64_t inputs) {
    int64_t count = 0, byte = i / 8;
    const int64_t end = smaller(byte + inputs / 8, t->row_bytes);
    for (; byte + 8 <= end; byte += 8) {
        uint64_t word;
        memcpy(&word, mask + byte, 8);
        count += __builtin_popcountll(word);
    }
    for (; byte < end; byte++) count += __builtin_popcount(mask[byte]);
    return count;
}

/* LANES numbers, of which only so many are there. */
static inline lanes load_up_to(const float *x, int64_t n) {
    if (n >= LANES) return load(x);
    float some[LANES] = {0};
    memcpy(some, x, n * sizeof *x);
    return load(some);
}

/* Multiply a run from input i by `rows` rows of x from `first` on, and add to their sums. */
INLINE void bitmap_multiply(
    const struct sparse_task *t, const uint8_t *mask, const float *values, int64_t i, int64_t first, lanes *sums,
    const int rows) {
    const float *x = t->x + first * t->x_stride;
    lanes sum[FEWEST];
    for (int n = 0; n < rows; n++) sum[n] = sums[first + n];
    for (const int64_t end = smaller(i + RUN, t->inputs); i < end; i += LANES) {
        const unsigned bits = lane_bits(t, mask, i);
        const lanes w = expanded(values, bits);
        values += __builtin_popcount(bits);
        for (int n = 0; n < rows; n++) sum[n] += w * load_up_to(x + n * t->x_stride + i, t->inputs - i);
    }
    for (int n = 0; n < rows; n++) sums[first + n] = sum[n];
}

/* Multiply row o in runs. */
static void bitmap_row(const struct sparse_task *t, struct values *room, int64_t o, lanes *sums) {
    const uint8_t *mask = t->bits + o * t->row_bytes;
    int64_t at, end;
    if (!stream_range(t, o, &at, &end)) return;
    for (int64_t i = 0; i < t->inputs; i += RUN) {
        const int64_t count = set_bits(t, mask, i, RUN);
        if (count > end - at) return note_bad(t, o);
        const float *values = values_of(t, room, 0, at, count);
        int64_t n = 0;
        for (; n + FEWEST <= t->rows; n += FEWEST) bitmap_multiply(t, mask, values, i, n, sums, FEWEST);
        for (; n < t->rows; n++) bitmap_multiply(t, mask, values, i, n, sums, 1);
        at += count;
    }
    if (at != end) note_bad(t, o);
}

static void bitmap(const void *task, int64_t first, int64_t last) {
    const struct sparse_task *t = task;
    struct values room;
    prepare_values(&room, t);
    for (int64_t o = first; o < last; o++) {
        lanes sums[SPARSE_FEW];
        for (int64_t n = 0; n < t->rows; n++) sums[n] = all(0);
        bitmap_row(t, &room, o, sums);
        for (int64_t n = 0; n < t->rows; n++) t->y[n * t->outputs + o] = sum_of_lanes(sums[n]);
    }
}

/* Where a unit of the kernels for many rows begins in x and in the matrix, and how far it goes. */
struct unit {
    int64_t row, rows, output, outputs;
};

static inline struct unit unit_of(const struct sparse_task *t, int64_t unit) {
    const int64_t across = (t->outputs + PANEL - 1) / PANEL, row = unit / across * UNIT_ROWS, output = unit % across * PANEL;
    return (struct unit){row, smaller(UNIT_ROWS, t->rows - row), output, smaller(PANEL, t->outputs - output)};
}

/* Multiply the unit's rows by inputs [l, l + k) of its outputs, which stand in a panel of floats. */
static inline void multiply_panel(
    const struct sparse_task *t, const struct unit *unit, const float *panel, int64_t l, int64_t k) {
    const struct left x = {t->x + unit->row * t->x_stride + l, t->x_stride, 1};
    float *y = t->y + unit->row * t->outputs + unit->output;
    matmul_panel(x, panel, y, t->outputs, unit->rows, k, l > 0, unit->outputs);
}

static void bitmap_many(const void *task, int64_t first, int64_t last) {
    const struct sparse_task *t = task;
    struct values room;
    prepare_values(&room, t);
    float rows[PANEL * DEPTH], panel[DEPTH * PANEL] __attribute__((aligned(64)));
    for (int64_t u = first; u < last; u++) {
        const struct unit unit = unit_of(t, u);
        int64_t at[PANEL], end[PANEL];
        for (int64_t j = 0; j < unit.outputs; j++)
            if (!stream_range(t, unit.output + j, at + j, end + j)) return;
        for (int64_t l = 0; l == 0 || l < t->inputs; l += DEPTH) {
            const int64_t k = smaller(DEPTH, t->inputs - l);
            for (int64_t j = 0; j < unit.outputs; j++) {
                const uint8_t *mask = t->bits + (unit.output + j) * t->row_bytes;
                const int64_t count = set_bits(t, mask, l, DEPTH);
                if (count > end[j] - at[j]) return note_bad(t, unit.output + j);
                const float *values = values_of(t, &room, 0, at[j], count);
                at[j] += count;
                for (int64_t i = 0; i < k; i += LANES) {
                    const unsigned bits = lane_bits(t, mask, l + i);
                    store(rows + j * DEPTH + i, expanded(values, bits));
                    values += __builtin_popcount(bits);
                }
            }
            fill_panel(&(struct right){rows, 1, DEPTH}, k, unit.outputs, panel);
            multiply_panel(t, &unit, panel, l, k);
        }
        for (int64_t j = 0; j < unit.outputs; j++)
            if (at[j] != end[j]) return note_bad(t, unit.output + j);
    }
}

/* ---- compressed rows ---- */

/* `count` values of row o from `at` on; null, and noted, if one of their columns does not lie in the matrix. */
static inline const float *csr_values(
    const struct sparse_task *t, struct values *room, int64_t o, int64_t at, int64_t count) {
    uint32_t most = 0; /* a negative column is a very large one */
    for (int64_t k = at; k < at + count; k++) most = (uint32_t)t->columns[k] > most ? (uint32_t)t->columns[k] : most;
    if (most < t->inputs) return values_of(t, room, 0, at, count);
    note_bad(t, o);
    return NULL;
}

static void csr(const void *task, int64_t first, int64_t last) {
    const struct sparse_task *t = task;
    struct values room;
    prepare_values(&room, t);
    float gathered[RUN];
    for (int64_t o = first; o < last; o++) {
        float sums[SPARSE_FEW] = {0};
        int64_t at, end;
        for (int ok = stream_range(t, o, &at, &end); ok && at < end; at = smaller(at + RUN, end)) {
            const int64_t count = smaller(RUN, end - at);
            const float *values = csr_values(t, &room, o, at, count);
            if (!values) break;
            for (int64_t n = 0; n < t->rows; n++) {
                for (int64_t k = 0; k < count; k++) gathered[k] = t->x[n * t->x_stride + t->columns[at + k]];
                sums[n] += dot(values, gathered, count);
            }
        }
        for (int64_t n = 0; n < t->rows; n++) t->y[n * t->outputs + o] = sums[n];
    }
}

static void csr_many(const void *task, int64_t first, int64_t last) {
    const struct sparse_task *t = task;
    struct values room;
    prepare_values(&room, t);
    for (int64_t o = first; o < last; o++) {
        lanes sums[MANY / LANES];
        for (int l = 0; l < MANY / LANES; l++) sums[l] = all(0);
        int64_t at, end;
        for (int ok = stream_range(t, o, &at, &end); ok && at < end; at = smaller(at + RUN, end)) {
            const int64_t count = smaller(RUN, end - at);
            const float *values = csr_values(t, &room, o, at, count);
            if (!values) break;
            for (int64_t k = 0; k < count; k++)
                for (int l = 0; l < MANY / LANES; l++)
                    sums[l] += values[k] * load(t->x + (int64_t)t->columns[at + k] * MANY + l * LANES);
        }
        float out[MANY];
        for (int l = 0; l < MANY / LANES; l++) store(out + l * LANES, sums[l]);
        for (int64_t n = 0; n < t->rows; n++) t->y[n * t->outputs + o] = out[n];
    }
}

const struct sparse_kernels PER_SET(sparse_kernels) = {
    .bitmap = bitmap,
    .csr = csr,
    .csr_many = csr_many,
    .bitmap_many = bitmap_many,
};
