/* What the machine can do at most: reading, float32 and int8 products that touch nothing but registers. */
#ifndef MINISLM_ROOFLINE_H
#define MINISLM_ROOFLINE_H
#include "kernel.h"

struct read_task {
    const unsigned char *bytes; /* `parts` pieces of `part` bytes, a multiple of READ_STEP */
    int64_t part, rounds;
    int64_t *sums; /* (parts,) */
};

struct peak_task {
    int64_t iterations;
    float start; /* a number that the compiler does not know */
    float *ends; /* (units,) */
};

struct roofline_kernels {
    kernel *read;       /* units: parts; each is read `rounds` times and its words added up */
    kernel *fma, *int8; /* units: all alike, `iterations` each */
    int64_t fma_operations, int8_products; /* of one iteration: additions and multiplications; products that are added */
};
FAMILY(roofline_kernels)

enum { READ_STEP = 512 };

/* The matrix unit of AMX, which no instruction set of the kernels has: 0 where the processor or the system refuse it. */
int64_t amx_products(void); /* of one iteration */
kernel amx_int8;

#endif
