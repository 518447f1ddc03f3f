/* Quantized matrices in panels, as `minislm.ops.panels` lays them out, and the rows that were rounded for them. */
#ifndef MINISLM_PANELS_H
#define MINISLM_PANELS_H
#include "kernel.h"

enum { OUTPUTS = 16, BLOCK_INPUTS = 32, QUADS = 8, LINE_BYTES = 64 };
enum { PIECE_BLOCKS = 16 }; /* whose codes are unpacked at a time, into the first cache */
enum { SLACK = 64 }; /* numbers that may be read behind the last value of masked panels */

/* What masked panels store, as `minislm.ops.masked_panels` lays it out. */
struct masks {
    const uint16_t *bits;  /* (panels, inputs): which of the outputs store an input; null: all of them */
    const int64_t *starts; /* (panels + 1,): where the values of a panel begin and end */
    int64_t n_values;      /* floats, or bytes of codes; SLACK more are there */
    int64_t *bad;          /* becomes the number, from 1, of a panel whose masks and values do not fit */
};

struct panels {
    const uint8_t *lines; /* (panels, blocks, bits, LINE_BYTES); of masked panels the values */
    struct masks masks;
    const int32_t *columns; /* of each block in `lines`, where only some of a panel's are there, its place; or null */
    const void *scales;   /* (panels, groups, OUTPUTS), float16 or float32 */
    const uint8_t *zeros; /* (panels, groups, OUTPUTS), or null: `zero` everywhere */
    int tabled;           /* whether codes, of 4 bits, are numbers of bytes in `table`, whose zero is `zero` */
    uint8_t table[16];
    int64_t outputs, inputs, blocks, groups;
    int64_t group_blocks; /* blocks that share a scale; 0: all of them */
    int bits, zero, half_scales;
    int absent; /* the code of zero as it is stored: `zero`, or its number in the table */
    /* Of two levels, or null: steps of `scales`, which are bytes here, and of `zeros`, (panels, supers_of_panel, OUTPUTS),
       float16. With `zeros`, value = super * scale * code - next super * zero, for every block; without, value =
       super * (scale - 128) * (code - 32), with a scale for every half of a block. */
    const uint16_t *supers;
    int64_t supers_of_panel;
};

/* Rounded rows: codes of `blocks` blocks, then a float scale of every block, then an int16 sum of every half of one. */
struct rounded {
    const int8_t *rows;
    int64_t n, stride, blocks;
};

struct panel_task {
    struct panels w;
    struct rounded x;
    const float *bias;      /* (outputs,) or null */
    float *y;               /* (n, outputs) */
    int64_t segment_blocks; /* blocks that share both scales, of which PIECE_BLOCKS are a multiple; 0: all of them */
};

struct round_task {
    const float *x; /* (n, inputs) */
    int8_t *rows;   /* (n, stride) */
    int64_t inputs, stride, blocks;
    int64_t group; /* inputs that share a scale: BLOCK_INPUTS, or 0 for all of them */
    float given;   /* that scale; below 0: each has its own */
};

struct panels_kernels {
    kernel *round;   /* unit: a row of x */
    kernel *product; /* unit: a panel */
    kernel *product_by_rows;
};
FAMILY(panels_kernels)
#endif
