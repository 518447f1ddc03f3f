/* Nothing is sorted: the least likely token that is left is found by halving the range of what its logit may be. */
#include "sampling.h"
#include "functions.h"

/* Whole numbers in the order of the numbers that they stand for, both zeros being one. */
static inline lanes_of_bits ranks(lanes x) {
    const lanes_of_bits bits = (lanes_of_bits)(x + all(0));
    return bits ^ (bits >> 31 & 0x7fffffff);
}
static inline int32_t rank(float x) {
    int32_t bits;
    x += 0;
    memcpy(&bits, &x, sizeof bits);
    return bits ^ (bits >> 31 & 0x7fffffff);
}

/* How many of n tokens have logits of a rank or above. */
static int64_t count_from(const float *x, int32_t least, int64_t n) {
    lanes_of_bits a = {0}, b = {0};
    int64_t i = 0, count = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) a -= ranks(load(x + i)) >= least, b -= ranks(load(x + i + LANES)) >= least;
    a += b;
    for (int lane = 0; lane < LANES; lane++) count += a[lane];
    for (; i < n; i++) count += rank(x[i]) >= least;
    return count;
}

/* How likely they are together. */
static float mass_from(const float *x, const float *e, int32_t least, int64_t n) {
    lanes a = all(0), b = a;
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        a += (lanes)((ranks(load(x + i)) >= least) & (lanes_of_bits)load(e + i));
        b += (lanes)((ranks(load(x + i + LANES)) >= least) & (lanes_of_bits)load(e + i + LANES));
    }
    float rest = 0;
    for (; i < n; i++) rest += rank(x[i]) >= least ? e[i] : 0;
    return sum_of_lanes(a + b) + rest;
}

/* The highest rank from which on there are k tokens, where `e` is null, or a mass. */
static int32_t threshold(const float *x, const float *e, int64_t k, float mass, float top, int64_t n) {
    int64_t low = rank(-INFINITY), high = rank(top);
    while (low < high) {
        const int64_t middle = low + (high - low + 1) / 2;
        const int enough = e ? mass_from(x, e, (int32_t)middle, n) >= mass : count_from(x, (int32_t)middle, n) >= k;
        if (enough) low = middle;
        else high = middle - 1;
    }
    return (int32_t)low;
}

static void keep_top_k(const float *x, float *e, int64_t k, float top, int64_t n) {
    const int32_t least = threshold(x, NULL, k, 0, top, n);
    for (int64_t i = 0; i < n; i++) e[i] = rank(x[i]) >= least ? e[i] : 0;
}

static void keep_top_p(const float *x, float *e, float p, float top, int64_t n) {
    const float mass = p * mass_from(x, e, rank(-INFINITY), n);
    const int32_t least = threshold(x, e, 0, mass, top, n);
    float before = least < rank(top) ? mass_from(x, e, least + 1, n) : 0;
    for (int64_t i = 0; i < n; i++) {
        const int32_t own = rank(x[i]);
        if (own > least) continue;
        if (own < least || before >= mass) e[i] = 0; /* of equals the first are left */
        else before += e[i];
    }
}

static void token_probabilities(const void *task, int64_t first, int64_t last) {
    const struct sampling_task *t = task;
    const int64_t v = t->v;
    for (int64_t n = first; n < last; n++) {
        const float *x = t->logits + n * v, top = largest(x, v);
        float *restrict e = t->p + n * v;
        if (!(top > -INFINITY && top < INFINITY)) {
            for (int64_t i = 0; i < v; i++) e[i] = top == -INFINITY ? 0 : NAN;
            continue;
        }
        for (int64_t i = 0; i < v; i++) e[i] = exponential((x[i] - top) / t->temperature);
        if (t->top_k < v) keep_top_k(x, e, t->top_k, top, v);
        if (t->top_p < 1) keep_top_p(x, e, t->top_p, top, v);
        if (t->min_p > 0)
            for (int64_t i = 0; i < v; i++) e[i] = e[i] < t->min_p ? 0 : e[i];
        const float share = 1 / sum(e, v);
        for (int64_t i = 0; i < v; i++) e[i] *= share;
    }
}

const struct sampling_kernels PER_SET(sampling_kernels) = {.token_probabilities = token_probabilities};
