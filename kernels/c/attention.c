/* Attention by tiles of some queries and COLUMNS keys, whose scores never leave the nearest cache. A row of a tile is one
   query head of one token; heads that share a key head stand together, so that a key is read once for all of them. Tiles that
   lie wholly in the future, or outside the window, are passed over.

   Each row keeps the largest score so far, the sum of the exponentials relative to it, and the values weighted by them; when a
   larger score comes, the latter two are scaled down (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv
   2205.14135). Tiles and spans begin at fixed keys and each number is summed in the order of the keys. So what a row gives
   depends neither on the rows beside it, nor on who else is in the pass, nor on the number of threads, bit for bit. */
#include "attention.h"

enum { ROWS_AHEAD = 8 };

/* Queries of one sequence and of a team of heads that share a key head; row i * team + h is head h of token i. */
struct queries {
    int64_t b, token, tokens, position, head, team, group;
};

/* What rows have gathered over some keys. */
struct gathered {
    float *y; /* (rows, width) */
    float top[MOST_ROWS];
    lanes total[MOST_ROWS]; /* to be added up */
};

static void forget(struct gathered *of, int64_t rows, int64_t width) {
    memset(of->y, 0, rows * width * sizeof *of->y);
    for (int64_t i = 0; i < rows; i++) of->top[i] = -INFINITY, of->total[i] = all(0);
}

static void scale_row(float *y, float factor, int64_t width) {
    for (int64_t l = 0; l < width; l++) y[l] *= factor;
}

/* Add to row i what it gathered over later keys. */
static void add_row(struct gathered *to, int64_t i, const float *y, float top, lanes total, int64_t width) {
    float highest = larger(top, to->top[i]), shift = highest == -INFINITY ? 0 : highest, *mine = to->y + i * width;
    float my_share = exponential(to->top[i] - shift), its_share = exponential(top - shift);
    for (int64_t l = 0; l < width; l++) mine[l] = mine[l] * my_share + y[l] * its_share;
    to->total[i] = to->total[i] * my_share + total * its_share;
    to->top[i] = highest;
}

/* Ask for n numbers of a later row: the heads of a token lie side by side, and rows so far apart come late by themselves. */
static inline void fetch_ahead(const float *x, int64_t row, int64_t n) {
    for (int64_t l = 0; l < n; l += 16) __builtin_prefetch(x + ROWS_AHEAD * row + l);
}

/* Finish token r of the pack in head h, which is row i. */
static void deliver(const struct attention_task *a, int64_t r, int64_t h, const struct gathered *from, int64_t i) {
    float total = sum_of_lanes(from->total[i]), share = total == 0 ? 1 : 1 / total;
    float *to = a->y + (r * a->h + h) * a->width;
    fetch_ahead(to, a->h * a->width, a->width);
    for (int64_t l = 0; l < a->width; l++) to[l] = from->y[i * a->width + l] * share;
    if (a->logsumexp) a->logsumexp[(r / a->t * a->h + h) * a->t + r % a->t] = logf(total) + (total == 0 ? 0 : from->top[i]);
}

/* Where token r of the pack in head h keeps what it gathered over a span: its y, its total and its top. */
static float *part(const struct attention_task *a, int64_t r, int64_t h, int64_t span) {
    return a->parts + ((r * a->h + h) * a->spans + span) * (a->width + PART);
}

/* Turn a row's scores of n keys into exponentials relative to the largest so far, 0 behind the n up to a full register, and
   scale down what it has gathered when a larger one comes. A score that is not a number makes all that is gathered none. */
static inline void weigh(float *p, int64_t n, int64_t columns, struct gathered *got, int64_t r, int64_t width) {
    for (int64_t j = n; j < columns; j++) p[j] = -INFINITY;
    lanes most = load(p);
    for (int64_t j = LANES; j < columns; j += LANES) most = larger_lanes(load(p + j), most);
    float highest = largest_lane(most, got->top[r]), shift = highest == -INFINITY ? 0 : highest;
    if (highest != got->top[r]) {
        if (got->top[r] != -INFINITY) {
            float shrink = exponential(got->top[r] - shift);
            got->total[r] *= shrink;
            scale_row(got->y + r * width, shrink, width);
        }
        got->top[r] = highest;
    }
    lanes sum = got->total[r]; /* in the order of the keys, whatever n is */
    for (int64_t j = 0; j < columns; j += LANES) {
        lanes weight = exponential_lanes(load(p + j) - shift);
        store(p + j, weight);
        sum += weight;
    }
    got->total[r] = sum;
}

/* Gather over the keys [keys.first, keys.last), no more than COLUMNS, whose first stands at a multiple of COLUMNS. `room` is
   for as many keys, across, and once more. */
static void gather(const struct attention_task *a, const struct queries *u, const float *q, struct range keys, float *room,
                   struct gathered *got) {
    const int64_t width = a->width, rows = u->tokens * u->team, n_keys = keys.last - keys.first;
    const int64_t start = (a->firsts[u->b] + keys.first) * a->g + u->group;
    float strip[STRIP * COLUMNS] __attribute__((aligned(64))), unused[COLUMNS];
    float *keys_across = room, *wide = room + COLUMNS * width;
    int64_t k_row = a->g * width, v_row = k_row;
    const float *k = widened_rows(&a->k, start * width, n_keys, &k_row, width, wide);
    transpose(k, k_row, n_keys, width, keys_across, COLUMNS);
    const float *v = widened_rows(&a->v, start * width, n_keys, &v_row, width, wide);
    if (rows > STRIP && v != wide) { /* rows that lie far apart have few places in the nearest cache, and are read again */
        for (int64_t j = 0; j < n_keys; j++) memcpy(wide + j * width, v + j * v_row, width * sizeof *v);
        v = wide, v_row = width;
    }
    for (int64_t i = 0, end; i < rows; i = end) { /* strips of rows, so that none meets many keys in vain */
        end = smaller(i + STRIP, rows);
        const int64_t token = i / u->team, tokens = (end - 1) / u->team + 1 - token;
        const struct range seen = visible(&a->scoring, u->position + token, tokens, keys.last);
        const int64_t n = seen.last - keys.first, columns = (n + LANES - 1) / LANES * LANES;
        if (n <= 0 || seen.first >= keys.last) continue;
        set_product(end - i, columns, width, (struct strided){q + i * width, width, 1}, keys_across, COLUMNS, strip, COLUMNS);
        for (int64_t r = i; r < end; r++) {
            float *p = strip + (r - i) * COLUMNS;
            score(&a->scoring, u->head + r % u->team, u->position + r / u->team, (struct range){keys.first, seen.last},
                  a->lengths[u->b], a->key_mask ? a->key_mask + a->firsts[u->b] : 0, p, unused);
            weigh(p, n, columns, got, r, width);
        }
        add_product(end - i, width, n, (struct strided){strip, COLUMNS, 1}, v, v_row, got->y + i * width, width);
    }
}

#include "attention_bytes.h"

/* Do one unit's part of one sequence. */
static void attend(const struct attention_task *a, const struct queries *u, int64_t share) {
    const int64_t width = a->width, rows = u->tokens * u->team, most = a->tile * width;
    const int64_t columns = a->k.scales ? BYTE_COLUMNS : COLUMNS;
    float q[most] __attribute__((aligned(64))), room[2 * COLUMNS * (width + 16)] __attribute__((aligned(64)));
    float y[most] __attribute__((aligned(64))), span_y[most] __attribute__((aligned(64)));
    struct gathered whole = {.y = y}, span = {.y = span_y};
    const struct range seen = visible(&a->scoring, u->position, u->tokens, a->lengths[u->b]);
    for (int64_t i = 0; i < u->tokens; i++) {
        const float *from = a->q + ((u->token + i) * a->h + u->head) * width;
        fetch_ahead(from, a->h * width, u->team * width);
        for (int64_t l = 0; l < u->team * width; l++) q[i * u->team * width + l] = from[l] * a->scoring.scale;
    }
    uint8_t codes[a->tile * (width + 3)];
    struct byte_rows bytes = {.codes = codes};
    if (a->k.scales) round_queries(a, q, rows, &bytes);
    forget(&whole, rows, width); /* even where no key is seen */
    int64_t number = a->shares == 1 ? seen.first / SPAN : share;
    for (struct gathered *got = &whole; number * SPAN < seen.last; number += a->shares, got = &span) {
        const int64_t end = smaller((number + 1) * SPAN, seen.last);
        int64_t j = number * SPAN < seen.first ? seen.first / columns * columns : number * SPAN;
        if (got == &span) forget(got, rows, width);
        for (; j < end; j += columns) {
            const struct range keys = {j, smaller(j + columns, end)};
            if (a->k.scales) gather_bytes(a, u, &bytes, keys, (int32_t *)room, got);
            else gather(a, u, q, keys, room, got);
        }
        for (int64_t i = 0; i < rows; i++) {
            if (a->shares > 1) {
                float *to = part(a, u->token + i / u->team, u->head + i % u->team, number);
                memcpy(to, got->y + i * width, width * sizeof *to);
                store(to + width, got->total[i]);
                to[width + LANES] = got->top[i];
            } else if (got == &span) {
                add_row(&whole, i, span.y + i * width, span.top[i], span.total[i], width);
            }
        }
    }
    for (int64_t i = 0; i < rows && a->shares == 1; i++) deliver(a, u->token + i / u->team, u->head + i % u->team, &whole, i);
}

/* Go to the sequence of u->token, `behind` being the token behind the last one of sequence u->b. */
static void find_sequence(const struct attention_task *a, struct queries *u, int64_t *behind) {
    while (*behind <= u->token) *behind += a->counts[++u->b];
    const int64_t first = *behind - a->counts[u->b];
    u->position = u->token - first + (a->positions ? a->positions[u->b] : a->lengths[u->b] - a->counts[u->b]);
}

/* Teams of all heads. */
static int64_t teams(const struct attention_task *a) {
    const int64_t shared = a->h / a->g, team = attention_team(a);
    return a->g * ((shared + team - 1) / team);
}

/* Team t of the heads, for the tokens from u->token to before `end`, `most` at a time. */
static void attend_team(const struct attention_task *a, struct queries u, int64_t behind, int64_t t, int64_t end, int64_t most,
                        int64_t share) {
    const int64_t shared = a->h / a->g, teams_of_group = teams(a) / a->g;
    u.group = t / teams_of_group;
    u.head = u.group * shared + t % teams_of_group * attention_team(a);
    u.team = smaller(attention_team(a), (u.group + 1) * shared - u.head);
    for (; u.token < end; u.token += u.tokens) {
        find_sequence(a, &u, &behind);
        u.tokens = smaller(smaller(behind, end) - u.token, most);
        attend(a, &u, share);
    }
}

static void attention(const void *task, int64_t first, int64_t last) {
    const struct attention_task *a = task;
    const int64_t tokens = attention_tokens(a), tiles = (a->rows + tokens - 1) / tokens, units = attention_units(a) / a->shares;
    for (int64_t unit = first; unit < last; unit++) {
        const int64_t start = unit % units % tiles * tokens, end = smaller(start + tokens, a->rows);
        attend_team(a, (struct queries){.b = -1, .token = start}, 0, unit % units / tiles, end, tokens, unit / units);
    }
}

/* Rows of whole sequences. */
static void attention_by_rows(const void *task, int64_t first, int64_t last) {
    const struct attention_task *a = task;
    struct queries u = {.b = -1, .token = first};
    int64_t behind = 0;
    if (first < last) find_sequence(a, &u, &behind);
    for (int64_t t = 0; t < teams(a); t++) attend_team(a, u, behind, t, last, attention_tokens(a), 0);
}

static void attention_joined(const void *task, int64_t first, int64_t last) {
    const struct attention_task *a = task;
    const int64_t width = a->width;
    struct queries u = {.b = -1};
    int64_t behind = 0;
    float y[width];
    struct gathered whole = {.y = y};
    for (int64_t unit = first; unit < last; unit++) {
        u.token = unit / a->h;
        find_sequence(a, &u, &behind);
        const struct range seen = visible(&a->scoring, u.position, 1, a->lengths[u.b]);
        forget(&whole, 1, width);
        for (int64_t number = 0; number * SPAN < seen.last; number++) {
            const float *more = part(a, u.token, unit % a->h, number);
            add_row(&whole, 0, more, more[width + LANES], load(more + width), width);
        }
        deliver(a, u.token, unit % a->h, &whole, 0);
    }
}

const struct attention_kernels PER_SET(attention_kernels) = {
    .attention = attention,
    .attention_by_rows = attention_by_rows,
    .attention_joined = attention_joined,
};
